-- Every endpoint with its whole configuration, secrets included (Config::endpoint reads it), and its own position if
-- it has one: without a row it follows the head, position 0; and since when it has only failed.
SELECT e.id, e.state, webhook.stored_config(e)::pg_catalog.text AS config,
       p.done::pg_catalog.text, p.upto::pg_catalog.text, p.seq, f.since
  FROM webhook.endpoint AS e
  LEFT JOIN webhook.position AS p ON p.endpoint_id OPERATOR(pg_catalog.=) e.id
  LEFT JOIN webhook.failing AS f ON f.endpoint_id OPERATOR(pg_catalog.=) e.id
 ORDER BY e.id
