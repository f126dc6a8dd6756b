-- As due.sql, for an endpoint with an order: of these deliveries only, whether they failed or were asked for.
-- $1 endpoint, $2 now, $3 limit, $4 deliveries that are at work, $5 xids, $6 numbers
SELECT d.id, d.attempts, d.attempts_before, d.xid::pg_catalog.text::pg_catalog.int8, d.seq
  FROM ROWS FROM (pg_catalog.unnest($5::pg_catalog.int8[]), pg_catalog.unnest($6::pg_catalog.int8[])) place (xid, seq)
 CROSS JOIN LATERAL (
       SELECT *
         FROM webhook.delivery d
        WHERE d.endpoint_id = $1
          AND d.xid = place.xid::pg_catalog.text::pg_catalog.xid8
          AND d.seq = place.seq
          AND d.state = 'pending' AND d.next_attempt_at <= $2 AND d.id <> ALL ($4)
          AND (d.xmax = '0' OR NOT webhook.is_held(d.xmax))
       OFFSET 0) d
 ORDER BY d.next_attempt_at
 LIMIT $3
