-- Counts evaluations of filters that failed.
-- $1 endpoints, $2 how many
INSERT INTO webhook.filter_error AS f (endpoint_id, errors, last_at)
SELECT w.endpoint_id, w.errors, pg_catalog.now()
  FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.int8[]), pg_catalog.unnest($2::pg_catalog.int8[])) w (endpoint_id, errors)
 WHERE EXISTS (SELECT FROM webhook.endpoint e WHERE e.id = w.endpoint_id)
    ON CONFLICT (endpoint_id) DO UPDATE SET errors = f.errors + EXCLUDED.errors, last_at = EXCLUDED.last_at
