-- Forgets failures of filters that are as old as events may become.
-- $1 seconds to keep them
DELETE FROM webhook.filter_error f WHERE f.last_at < pg_catalog.now() - $1 * interval '1 second'
