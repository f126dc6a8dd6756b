-- Of which of these endpoints a transaction that is open has changed or locked something that the worker writes.
-- $1 endpoints
SELECT w.id
  FROM pg_catalog.unnest($1::pg_catalog.int8[]) w (id)
 WHERE EXISTS (SELECT FROM webhook.endpoint e WHERE e.id = w.id AND e.xmax <> '0' AND webhook.is_held(e.xmax))
    OR EXISTS (SELECT FROM webhook.position p WHERE p.endpoint_id = w.id AND p.xmax <> '0' AND webhook.is_held(p.xmax))
    OR EXISTS (SELECT FROM webhook.failing f WHERE f.endpoint_id = w.id AND f.xmax <> '0' AND webhook.is_held(f.xmax))
