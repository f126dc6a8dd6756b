-- Made from docs/reference.md by UPDATE_EXPECTED=1: see tests/e2e/documents.rs.
SET client_min_messages = error;
DROP EXTENSION IF EXISTS webhook_pg CASCADE;
DROP SCHEMA public CASCADE;
CREATE SCHEMA public;
GRANT USAGE ON SCHEMA public TO PUBLIC;
CREATE EXTENSION webhook_pg;
RESET client_min_messages;

CREATE TABLE contact (id bigint PRIMARY KEY, email text, city text);
CREATE TABLE task (id bigint PRIMARY KEY, contact_id bigint REFERENCES contact, title text, status text DEFAULT 'open', note text);

SELECT id, secret LIKE 'whsec_%' AS secret FROM webhook_register('https://receiver.example.com/hooks', name => 'crm',
    events => '{contact.*,task.*}', headers => '{"X-Api-Key": "hush"}', retry_schedule => '{5 s,1 min,10 min}');

-- An error on purpose:
SELECT webhook_register('ftp://receiver.example.com/hooks');
-- That was it.

SELECT webhook_update(1, '{"timeout": "10 seconds", "max_in_flight": 2, "expands": ["contact"]}');

-- An error on purpose:
SELECT webhook_update(1, '{"colour": "blue"}');
-- That was it.

SELECT webhook_unregister(id) FROM webhook_register('https://gone.example.com/');

SELECT webhook_pause(1);
SELECT name, state FROM webhook.endpoints;

SELECT webhook_resume(1);

SELECT webhook_rotate_secret(1, overlap => '1 hour') LIKE 'whsec_%' AS rotated;

SELECT webhook_apply('{"name": "audit", "url": "https://audit.example.com/", "events": ["*.deleted"]}') ->> 'events' AS events;

SELECT webhook_config(1) -> 'headers' AS headers, webhook_config(1) -> 'timeout' AS timeout;

SELECT webhook_test(1) IS NOT NULL AS sent;

SELECT webhook_attach('contact') AS contact;
SELECT webhook_attach('task', exclude => '{note}', expand => '{"contact": "contact_id"}') AS task;
SELECT webhook_attach('task', actions => '{updated}', as_action => 'done', exclude => '{note}',
    condition => $$NEW.status = 'done' AND OLD.status IS DISTINCT FROM 'done'$$) AS task_done;
INSERT INTO contact VALUES (1, 'ann@example.com', 'Oslo');
INSERT INTO task VALUES (1, 1, 'Call', 'open', 'not for others');
UPDATE task SET note = 'still not for others';
UPDATE task SET status = 'done';
UPDATE contact SET city = 'Bergen';
SELECT type, key, previous FROM webhook.events WHERE type <> 'webhook.ping' ORDER BY type;

-- An error on purpose:
SELECT webhook_attach('task', watch => '{titel}');
-- That was it.

SELECT webhook_detach('task', as_action => 'done');

SELECT webhook_backfill('contact', 1, condition => $$city = 'Bergen'$$) AS rows;

SELECT webhook_send('campaign.opened', '{"campaign": 7}', key => 'c7', idempotency_key => 'open-7')
     = webhook_send('campaign.opened', '{"campaign": 7}', key => 'c7', idempotency_key => 'open-7') AS the_same;

SELECT webhook_retry(id) FROM webhook.deliveries WHERE state = 'dead' AND endpoint = 'crm' AND type LIKE 'contact.%';

SELECT webhook_cancel(id) FROM webhook.deliveries WHERE state = 'pending' AND key::text = '{"id":1}';

SELECT webhook_replay(1, since => now() - interval '2 hours', events => '{contact.*}', filter => '$.data.city == "Bergen"') AS again;

SELECT check_name, detail FROM webhook_status() WHERE check_name IN ('enabled', 'attachments');

SELECT line FROM regexp_split_to_table(webhook_metrics(), '\n') AS line WHERE line LIKE '# TYPE webhook_pg_check_ok%';

CREATE ROLE grafana;

SELECT webhook_grant('observer', 'grafana');

-- An error on purpose:
SELECT webhook_grant('boss', 'grafana');
-- That was it.

SELECT webhook_grant('none', 'grafana');
DROP ROLE grafana;

SELECT webhook_adopt();

SELECT id, name, state, secret, headers, timeout, max_in_flight FROM webhook.endpoints ORDER BY id;

SELECT id, table_name, enabled, resource, exclude, expand FROM webhook.attachments ORDER BY id;

SELECT type, key, data FROM webhook.events WHERE type LIKE 'task.%' ORDER BY type;

SELECT endpoint, type, attempts, last_status, last_error FROM webhook.deliveries WHERE state = 'dead';

SELECT attempt, status, error, response FROM webhook.attempts ORDER BY id;

\o /dev/null
SELECT endpoint, pending + lag_events AS backlog, lag_seconds, p99_ms FROM webhook.stats ORDER BY backlog DESC;
\o

SELECT kind, endpoint, events, waiting FROM webhook.progress ORDER BY id;

ALTER SYSTEM SET webhook_pg.retention = '14d';
SELECT pg_reload_conf();
ALTER SYSTEM RESET webhook_pg.retention;
SELECT pg_reload_conf();

BEGIN;
SET LOCAL webhook_pg.context = '{"user": "ann", "request": 4711}';
SET LOCAL webhook_pg.traceparent = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01';
UPDATE contact SET city = 'Voss';
COMMIT;
SELECT body::json -> 'context' AS context, headers ->> 'traceparent' AS traceparent
  FROM webhook_preview(1, (SELECT id FROM webhook.events ORDER BY occurred_at DESC LIMIT 1));
BEGIN;
SET LOCAL webhook_pg.mute = on;
UPDATE contact SET city = 'Oslo';
COMMIT;
SELECT count(*) FROM webhook.events WHERE data ->> 'city' = 'Oslo' AND type = 'contact.updated';

-- An error on purpose:
SET webhook_pg.context = 'no JSON';
-- That was it.

SELECT name FROM webhook_preview(1, (SELECT id FROM webhook.events WHERE type = 'contact.created')), jsonb_object_keys(headers) AS name
 ORDER BY name COLLATE "C";

SELECT webhook_update(1, '{"format": "standard"}');
SELECT regexp_replace(body, '20\d\d-[^"]*Z', '2026-11-21T10:00:00.123456Z') AS standard
  FROM webhook_preview(1, (SELECT id FROM webhook.events WHERE type = 'contact.updated' ORDER BY occurred_at LIMIT 1));
SELECT webhook_update(1, '{"format": "postback"}');
SELECT body AS postback FROM webhook_preview(1, (SELECT id FROM webhook.events WHERE type = 'contact.updated' ORDER BY occurred_at LIMIT 1));
SELECT webhook_update(1, '{"format": "row"}');
SELECT body AS row FROM webhook_preview(1, (SELECT id FROM webhook.events WHERE type = 'contact.updated' ORDER BY occurred_at LIMIT 1));
SELECT webhook_update(1, '{"format": "cloudevents"}');
SELECT body::jsonb - '{id,time}'::text[] AS cloudevents
  FROM webhook_preview(1, (SELECT id FROM webhook.events WHERE type = 'contact.updated' ORDER BY occurred_at LIMIT 1));
SELECT webhook_update(1, '{"format": "cloudevents-binary"}');
SELECT body AS cloudevents_binary, headers ->> 'ce-type' AS ce_type
  FROM webhook_preview(1, (SELECT id FROM webhook.events WHERE type = 'contact.updated' ORDER BY occurred_at LIMIT 1));

DO $$
BEGIN
    PERFORM webhook_pause(4711);
EXCEPTION WHEN undefined_object THEN
    RAISE NOTICE 'SQLSTATE %: %', SQLSTATE, SQLERRM;
END $$;
