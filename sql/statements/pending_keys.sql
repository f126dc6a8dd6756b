-- The places and keys of what is pending for these endpoints.
-- $1 endpoints
SELECT d.endpoint_id, d.xid::pg_catalog.text::pg_catalog.int8, d.seq, o.key, o.type
  FROM webhook.delivery d
 CROSS JOIN LATERAL (SELECT o.key, o.type FROM webhook.outbox o WHERE o.xid = d.xid AND o.seq = d.seq OFFSET 0) o
 WHERE d.endpoint_id = ANY ($1) AND d.state = 'pending'
