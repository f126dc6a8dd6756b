-- As pending_keys, without what may not be readable.
-- $1 endpoints
SELECT d.endpoint_id, d.xid::pg_catalog.text::pg_catalog.int8, d.seq
  FROM webhook.delivery d
 WHERE d.endpoint_id = ANY ($1) AND d.state = 'pending'
