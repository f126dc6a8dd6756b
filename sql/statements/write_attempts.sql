-- Keeps failed attempts. The successful one stands in its delivery row (webhook.attempts shows both).
-- $1 endpoints, $2 xids, $3 numbers, $4 attempt, $5 start, $6 ms, $7 status, $8 error, $9 response
INSERT INTO webhook.attempt (delivery_id, attempt, started_at, duration_ms, status, error, response)
SELECT d.id, w.attempt, w.started_at, w.duration_ms, w.status, w.error, w.response
  FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.int8[]), pg_catalog.unnest($2::pg_catalog.int8[]),
                  pg_catalog.unnest($3::pg_catalog.int8[]), pg_catalog.unnest($4::pg_catalog.int4[]),
                  pg_catalog.unnest($5::pg_catalog.timestamptz[]), pg_catalog.unnest($6::pg_catalog.float4[]),
                  pg_catalog.unnest($7::pg_catalog.int4[]), pg_catalog.unnest($8::pg_catalog.text[]),
                  pg_catalog.unnest($9::pg_catalog.text[]))
       w (endpoint_id, xid, seq, attempt, started_at, duration_ms, status, error, response)
  JOIN webhook.delivery d
    ON d.endpoint_id = w.endpoint_id
   AND d.xid = w.xid::pg_catalog.text::pg_catalog.xid8
   AND d.seq = w.seq
