-- These endpoints fail no more.
-- $1 endpoints
DELETE FROM webhook.failing f WHERE f.endpoint_id = ANY ($1)
