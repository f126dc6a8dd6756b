-- Deliveries of one endpoint that have failed and whose time has come, oldest first; without those that an open transaction is
-- about to change.
-- $1 endpoint, $2 now, $3 limit, $4 deliveries that are at work
SELECT d.id, d.attempts, d.attempts_before, d.xid::pg_catalog.text::pg_catalog.int8, d.seq
  FROM webhook.delivery d
 WHERE d.endpoint_id = $1 AND d.state = 'pending' AND d.attempts <> d.attempts_before
   AND d.next_attempt_at <= $2 AND d.id <> ALL ($4) AND (d.xmax = '0' OR NOT webhook.is_held(d.xmax))
 ORDER BY d.next_attempt_at
 LIMIT $3
