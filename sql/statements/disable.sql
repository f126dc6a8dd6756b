-- Disables an endpoint, and tells the others: they get webhook.endpoint_disabled with what webhook.endpoints shows of it.
-- $1 endpoint, $2 reason
WITH disabled AS (
    UPDATE webhook.endpoint e
       SET state = 'disabled', disabled_reason = $2, modified_at = pg_catalog.now()
     WHERE e.id = $1 AND e.state IN ('active', 'paused')
    RETURNING e.id, e.name, e.disabled_reason)
SELECT webhook.append_event(
           webhook.new_event_id(), 'webhook.endpoint_disabled',
           pg_catalog.format('{"id":%s}', d.id),
           pg_catalog.json_build_object('id', d.id, 'name', d.name, 'reason', d.disabled_reason)::pg_catalog.text,
           NULL)
  FROM disabled d
