-- The receiver wants no more events.
-- $1 endpoint, $2 reason
UPDATE webhook.endpoint e
   SET state = 'disabled', disabled_reason = $2, modified_at = pg_catalog.now()
 WHERE e.id = $1 AND e.state = 'active'
