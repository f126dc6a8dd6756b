-- Since when endpoints have only failed; of an endpoint that is gone nothing is kept.
-- $1 endpoints, $2 times
INSERT INTO webhook.failing AS f (endpoint_id, since)
SELECT w.endpoint_id, w.since
  FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.int8[]), pg_catalog.unnest($2::pg_catalog.timestamptz[]))
       w (endpoint_id, since)
 WHERE EXISTS (SELECT FROM webhook.endpoint e WHERE e.id = w.endpoint_id)
    ON CONFLICT (endpoint_id) DO UPDATE SET since = EXCLUDED.since
