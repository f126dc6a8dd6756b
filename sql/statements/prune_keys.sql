-- Deletes idempotency keys that are as old as events may become.
-- $1 seconds to keep them, $2 limit
WITH gone AS (
    DELETE FROM webhook.idempotency i
     WHERE i.ctid = ANY (ARRAY(SELECT old.ctid
                                 FROM webhook.idempotency old
                                WHERE old.created_at < pg_catalog.now() - $1 * interval '1 second'
                                ORDER BY old.created_at
                                LIMIT $2
                                  FOR UPDATE SKIP LOCKED))
    RETURNING i.key
)
SELECT pg_catalog.count(*) FROM gone
