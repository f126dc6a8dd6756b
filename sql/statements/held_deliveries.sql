-- Which of these deliveries a transaction that is open has changed or locked.
-- $1 endpoints, $2 xids, $3 numbers
SELECT d.endpoint_id, d.xid::pg_catalog.text::pg_catalog.int8, d.seq
  FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.int8[]), pg_catalog.unnest($2::pg_catalog.int8[]),
                  pg_catalog.unnest($3::pg_catalog.int8[])) w (endpoint_id, xid, seq)
  JOIN webhook.delivery d
    ON d.endpoint_id = w.endpoint_id
   AND d.xid = w.xid::pg_catalog.text::pg_catalog.xid8
   AND d.seq = w.seq
 WHERE d.xmax <> '0' AND webhook.is_held(d.xmax)
