-- Deletes dead deliveries that are old enough, with their attempts.
-- $1 seconds to keep them, $2 limit
WITH gone AS (
    DELETE FROM webhook.delivery d
     WHERE d.ctid = ANY (ARRAY(SELECT old.ctid
                                 FROM webhook.delivery old
                                WHERE old.state = 'dead' AND old.finished_at < pg_catalog.now() - $1 * interval '1 second'
                                ORDER BY old.finished_at
                                LIMIT $2
                                  FOR UPDATE SKIP LOCKED))
       AND d.state = 'dead'
    RETURNING d.id
), attempts AS (
    DELETE FROM webhook.attempt a WHERE a.delivery_id = ANY (ARRAY(SELECT gone.id FROM gone))
)
SELECT pg_catalog.count(*) FROM gone
