-- As next_due.sql, of these deliveries only.
-- $1 endpoint, $2 now, $3 xids, $4 numbers
SELECT pg_catalog.min(d.next_attempt_at)
  FROM ROWS FROM (pg_catalog.unnest($3::pg_catalog.int8[]), pg_catalog.unnest($4::pg_catalog.int8[])) place (xid, seq)
 CROSS JOIN LATERAL (
       SELECT *
         FROM webhook.delivery d
        WHERE d.endpoint_id = $1
          AND d.xid = place.xid::pg_catalog.text::pg_catalog.xid8
          AND d.seq = place.seq
          AND d.state = 'pending' AND d.next_attempt_at > $2
       OFFSET 0) d
