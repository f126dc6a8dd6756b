-- The figures of these endpoints, as they were saved last; nothing but the id of one that has none.
-- $1 endpoints
SELECT asked.id, f.delivered, f.failed_attempts, f.died, f.last_success_at, f.last_failure_at, f.seconds, f.buckets, f.p50_ms, f.p99_ms
  FROM pg_catalog.unnest($1::pg_catalog.int8[]) asked (id)
  LEFT JOIN LATERAL (
       SELECT * FROM webhook.endpoint_figures f WHERE f.endpoint_id = asked.id OFFSET 0) f ON true
