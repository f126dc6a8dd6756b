-- These endpoints follow the head from now on.
-- $1 endpoints
DELETE FROM webhook.position p WHERE p.endpoint_id = ANY ($1) AND p.endpoint_id <> 0
