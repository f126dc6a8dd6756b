-- The whole configuration of these endpoints, secrets included (Config::endpoint reads it), and whether no secret is missing.
-- $1 endpoints
SELECT e.id, webhook.stored_config(e)::pg_catalog.text, webhook.has_secrets(e)
  FROM pg_catalog.unnest($1) asked (id)
 CROSS JOIN LATERAL (SELECT * FROM webhook.endpoint e WHERE e.id OPERATOR(pg_catalog.=) asked.id OFFSET 0) e
