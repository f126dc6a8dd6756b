-- Made from docs/operations.md by UPDATE_EXPECTED=1: see tests/e2e/documents.rs.
SET client_min_messages = error;
DROP EXTENSION IF EXISTS webhook_pg CASCADE;
DROP SCHEMA public CASCADE;
CREATE SCHEMA public;
GRANT USAGE ON SCHEMA public TO PUBLIC;
RESET client_min_messages;

CREATE EXTENSION webhook_pg;
SELECT check_name, ok FROM webhook_status() WHERE check_name IN ('preload', 'clone guard');

CREATE TABLE contact (id bigint PRIMARY KEY, email text, city text);
SELECT webhook_attach('contact');
SELECT id FROM webhook_register('https://receiver.example.com/hooks', name => 'crm', events => '{contact.*}');
INSERT INTO contact VALUES (1, 'ann@example.com', 'Oslo');
UPDATE contact SET city = 'Bergen';
-- As if the receiver had been down for days.
INSERT INTO webhook.delivery (endpoint_id, xid, seq, event_id, created_at, finished_at, attempts, last_status, state)
SELECT 1, xid, seq, id, now(), now(), 10, 503, 'dead' FROM webhook.outbox;
UPDATE webhook.endpoint SET state = 'disabled', disabled_reason = 'nothing but failures for 5 days';

SET client_min_messages = warning;

ALTER EXTENSION webhook_pg UPDATE;

SELECT state, count(*) FROM webhook.deliveries WHERE state IN ('pending', 'dead') GROUP BY state;
SELECT ok AS all_read FROM webhook_status() WHERE check_name = 'backlog';

BEGIN;

DROP EXTENSION webhook_pg CASCADE;

ROLLBACK;
RESET client_min_messages;

\o /dev/null
SELECT relname, pg_size_pretty(pg_total_relation_size(oid)) AS size
  FROM pg_class WHERE relnamespace = 'webhook'::regnamespace AND relkind = 'r' ORDER BY pg_total_relation_size(oid) DESC LIMIT 5;
SELECT count(*) AS events, avg(octet_length(data::text))::int AS bytes FROM webhook.events;
\o

SELECT check_name, detail FROM webhook_status() WHERE NOT ok AND check_name IN ('endpoints', 'attachments', 'secrets', 'clone guard');

\o /dev/null
SELECT pid, backend_type, datname, state, wait_event, query FROM pg_stat_activity WHERE backend_type LIKE 'webhook\_pg%';
\o

ALTER SYSTEM SET webhook_pg.enabled = off;
SELECT pg_reload_conf();

ALTER SYSTEM RESET webhook_pg.enabled;
SELECT pg_reload_conf();

BEGIN;
SET LOCAL webhook_pg.mute = on;
UPDATE contact SET city = upper(city);
COMMIT;

SELECT name, state, disabled_reason FROM webhook.endpoints WHERE state <> 'active';
SELECT endpoint, last_status, left(last_error, 40) AS last_error, count(*), max(attempts) AS attempts
  FROM webhook.deliveries WHERE state IN ('pending', 'dead') GROUP BY 1, 2, 3;

SELECT webhook_resume(id) FROM webhook.endpoints WHERE name = 'crm';
SELECT webhook_retry(id) FROM webhook.deliveries WHERE endpoint = 'crm' AND state = 'dead';

\o /dev/null
SELECT webhook_replay(id, since => '2026-11-20 09:00+01', until => now(), events => '{contact.*}',
    filter => '$.data.city == "Bergen"') FROM webhook.endpoints WHERE name = 'crm';
\o

UPDATE webhook.delivery SET state = 'dead', next_attempt_at = NULL, finished_at = now(), last_status = 422;

SELECT count(webhook_retry(id)) AS again FROM webhook.deliveries
 WHERE endpoint = 'crm' AND state IN ('pending', 'dead') AND last_status = 422;

SELECT count(webhook_cancel(id)) AS cancelled FROM webhook.deliveries
 WHERE endpoint = 'crm' AND state = 'pending' AND type = 'contact.updated' AND created_at > now() - interval '1 hour';

\o /dev/null
SELECT webhook_update(id, '{"secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}') FROM webhook.endpoints WHERE name = 'crm';
SELECT webhook_rotate_secret(id) FROM webhook.endpoints WHERE name = 'crm';
\o

SELECT check_name, ok FROM webhook_status() WHERE check_name IN ('backlog', 'retention') ORDER BY 1;
SELECT state, count(*) FROM webhook.deliveries GROUP BY state ORDER BY state;

ALTER SYSTEM SET webhook_pg.retention = '1d';
SELECT pg_reload_conf();
ALTER SYSTEM RESET webhook_pg.retention;
SELECT pg_reload_conf();

VACUUM FULL webhook.outbox;

\o /dev/null
SELECT pid, usename, state, now() - xact_start AS open_for, left(query, 60) AS query
  FROM pg_stat_activity WHERE xact_start < now() - interval '10 minutes' ORDER BY xact_start;
SELECT slot_name, active, xmin, catalog_xmin FROM pg_replication_slots;
SELECT gid, prepared FROM pg_prepared_xacts;
\o

\o /dev/null
SELECT check_name, ok, detail FROM webhook_status();
\o

SELECT type, key FROM webhook.events WHERE key::text = '{"id":1}' ORDER BY type;
SELECT endpoint, type, state, last_status, last_error FROM webhook.deliveries WHERE key::text = '{"id":1}' ORDER BY type;
SELECT e.name, e.state, e.events, e.scope, e.filter FROM webhook.endpoints AS e;

ALTER TABLE contact DISABLE TRIGGER ALL;

SELECT table_name, resource, as_action FROM webhook.attachments WHERE NOT enabled;
ALTER TABLE contact ENABLE TRIGGER webhook_pg_1;
SELECT detail FROM webhook_status() WHERE check_name = 'attachments';

SELECT id, endpoint, type, key, last_error FROM webhook.deliveries
 WHERE state = 'dead' AND (last_error LIKE 'poison%' OR last_error LIKE 'config%');

SELECT webhook_adopt();

SELECT count(*) AS pending FROM webhook.deliveries WHERE state = 'pending';
SELECT ok FROM webhook_status() WHERE check_name = 'backlog';

SELECT webhook_update(id, '{"rate_limit": 20, "max_in_flight": 2}') FROM webhook.endpoints WHERE name = 'crm';
