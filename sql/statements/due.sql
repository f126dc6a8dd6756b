-- Deliveries of one endpoint whose time has come, with their events, oldest first.
-- $1 endpoint, $2 now, $3 limit, $4 deliveries that are at work
SELECT d.id, d.attempts, d.attempts_before, d.xid::pg_catalog.text::pg_catalog.int8, o.seq, o.occurred_at, o.target, o.id,
       o.truncated, o.type, o.operation, o.key, o.data, o.previous, o.context, o.traceparent
  FROM (SELECT w.id, w.attempts, w.attempts_before, w.xid, w.seq, w.next_attempt_at
          FROM webhook.delivery w
         WHERE w.endpoint_id = $1 AND w.state = 'pending' AND w.next_attempt_at <= $2 AND w.id <> ALL ($4)
         ORDER BY w.next_attempt_at
         LIMIT $3) d
  JOIN webhook.outbox o ON o.xid = d.xid AND o.seq = d.seq
 ORDER BY d.next_attempt_at
