-- Saves figures, which are totals and so never go back; of an endpoint that is gone none are kept. What an open transaction
-- holds (webhook_unregister) is left out.
-- $1 endpoints, $2 delivered, $3 failed attempts, $4 died, $5 last success, $6 last failure, $7 seconds, $8 buckets as texts of arrays,
-- $9, $10 percentiles
INSERT INTO webhook.endpoint_figures AS f
       (endpoint_id, delivered, failed_attempts, died, last_success_at, last_failure_at, seconds, buckets, p50_ms, p99_ms)
SELECT w.endpoint_id, w.delivered, w.failed_attempts, w.died, w.last_success_at, w.last_failure_at, w.seconds,
       w.buckets::pg_catalog.int8[], w.p50_ms, w.p99_ms
  FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.int8[]), pg_catalog.unnest($2::pg_catalog.int8[]),
                  pg_catalog.unnest($3::pg_catalog.int8[]), pg_catalog.unnest($4::pg_catalog.int8[]),
                  pg_catalog.unnest($5::pg_catalog.timestamptz[]), pg_catalog.unnest($6::pg_catalog.timestamptz[]),
                  pg_catalog.unnest($7::pg_catalog.float8[]), pg_catalog.unnest($8::pg_catalog.text[]),
                  pg_catalog.unnest($9::pg_catalog.float4[]), pg_catalog.unnest($10::pg_catalog.float4[]))
       w (endpoint_id, delivered, failed_attempts, died, last_success_at, last_failure_at, seconds, buckets, p50_ms, p99_ms)
 WHERE EXISTS (SELECT FROM webhook.endpoint e WHERE e.id = w.endpoint_id)
   AND NOT EXISTS (SELECT FROM webhook.endpoint_figures held
                    WHERE held.endpoint_id = w.endpoint_id AND held.xmax <> '0' AND webhook.is_held(held.xmax))
    ON CONFLICT (endpoint_id) DO UPDATE
   SET (delivered, failed_attempts, died, last_success_at, last_failure_at, seconds, buckets, p50_ms, p99_ms)
     = (greatest(f.delivered, EXCLUDED.delivered), greatest(f.failed_attempts, EXCLUDED.failed_attempts),
        greatest(f.died, EXCLUDED.died), greatest(f.last_success_at, EXCLUDED.last_success_at),
        greatest(f.last_failure_at, EXCLUDED.last_failure_at), greatest(f.seconds, EXCLUDED.seconds), EXCLUDED.buckets,
        EXCLUDED.p50_ms, EXCLUDED.p99_ms)
