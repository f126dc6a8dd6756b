-- Saves positions; of an endpoint that is gone none is kept.
-- $1 endpoints (0 is the head), $2 done, $3 upto, $4 numbers
INSERT INTO webhook.position AS p (endpoint_id, done, upto, seq)
SELECT w.endpoint_id, w.done::pg_catalog.pg_snapshot, w.upto::pg_catalog.pg_snapshot, w.seq
  FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.int8[]), pg_catalog.unnest($2::pg_catalog.text[]),
                  pg_catalog.unnest($3::pg_catalog.text[]), pg_catalog.unnest($4::pg_catalog.int8[]))
       w (endpoint_id, done, upto, seq)
 WHERE w.endpoint_id = 0 OR EXISTS (SELECT FROM webhook.endpoint e WHERE e.id = w.endpoint_id)
    ON CONFLICT (endpoint_id) DO UPDATE SET (done, upto, seq) = (EXCLUDED.done, EXCLUDED.upto, EXCLUDED.seq)
