-- Which of these pairs of endpoint and place have a delivery already.
-- $1 endpoints, $2 xids, $3 numbers
SELECT d.endpoint_id, d.xid::pg_catalog.text::pg_catalog.int8, d.seq
  FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.int8[]), pg_catalog.unnest($2::pg_catalog.int8[]),
                  pg_catalog.unnest($3::pg_catalog.int8[])) pair (endpoint_id, xid, seq)
 CROSS JOIN LATERAL (
       SELECT d.endpoint_id, d.xid, d.seq
         FROM webhook.delivery d
        WHERE d.endpoint_id = pair.endpoint_id
          AND d.xid = pair.xid::pg_catalog.text::pg_catalog.xid8
          AND d.seq = pair.seq
       OFFSET 0) d
