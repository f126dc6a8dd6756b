-- Deliveries of one endpoint that somebody has asked for (webhook_retry, webhook_replay), in the order of asking and of events.
-- $1 endpoint, $2 and $3 time and number after which to go on, $4 now, $5 limit, $6 deliveries that are at work
SELECT d.id, d.attempts, d.attempts_before, d.xid::pg_catalog.text::pg_catalog.int8, d.seq, d.next_attempt_at
  FROM webhook.delivery d
 WHERE d.endpoint_id = $1 AND d.state = 'pending' AND d.attempts = d.attempts_before
   AND (d.next_attempt_at, d.seq) > ($2, $3) AND d.next_attempt_at <= $4
   AND d.id <> ALL ($6) AND (d.xmax = '0' OR NOT webhook.is_held(d.xmax))
 ORDER BY d.next_attempt_at, d.seq
 LIMIT $5
