-- Deliveries of one endpoint whose time has come, oldest first.
-- $1 endpoint, $2 now, $3 limit, $4 deliveries that are at work
SELECT d.id, d.attempts, d.attempts_before, d.xid::pg_catalog.text::pg_catalog.int8, d.seq
  FROM webhook.delivery d
 WHERE d.endpoint_id = $1 AND d.state = 'pending' AND d.next_attempt_at <= $2 AND d.id <> ALL ($4)
 ORDER BY d.next_attempt_at
 LIMIT $3
