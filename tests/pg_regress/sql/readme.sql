-- Made from README.md by UPDATE_EXPECTED=1: see tests/e2e/documents.rs.
SET client_min_messages = error;
DROP EXTENSION IF EXISTS webhook_pg CASCADE;
DROP SCHEMA public CASCADE;
CREATE SCHEMA public;
GRANT USAGE ON SCHEMA public TO PUBLIC;
RESET client_min_messages;

CREATE EXTENSION webhook_pg;
CREATE TABLE contact (id bigint PRIMARY KEY, email text, city text);
SELECT webhook_attach('contact');

SELECT id, secret FROM webhook_register('http://127.0.0.1:8000/hooks', name => 'mine', events => '{contact.*}',
    secret => 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw');
INSERT INTO contact VALUES (1, 'ann@example.com', 'Oslo');
UPDATE contact SET city = 'Bergen' WHERE id = 1;

\o /dev/null
SELECT type, state, attempts, last_status FROM webhook.deliveries ORDER BY id;
SELECT check_name, ok, detail FROM webhook_status();
\o

UPDATE contact SET city = 'Tromsø' WHERE id = 1;

\o /dev/null
SELECT type, state, attempts, next_attempt_at, last_error FROM webhook.deliveries WHERE state = 'pending';
\o

\o /dev/null
SELECT webhook_retry(id) FROM webhook.deliveries WHERE state = 'pending';
\o

CREATE TABLE task (id bigint PRIMARY KEY, contact_id bigint REFERENCES contact, title text, status text, internal_note text);
SELECT webhook_attach('task', actions => '{created,updated}', exclude => '{internal_note}', expand => '{"contact": "contact_id"}');
INSERT INTO task VALUES (1, 1, 'Call', 'open', 'hush'), (2, 1, 'Write', 'done', 'hush');

SELECT id FROM webhook_register('https://receiver.example.com/tasks', name => 'tasks', events => '{task.*,contact.deleted}',
    expands => '{contact}', headers => '{"X-Team": "crm"}', attempt_interval => '5 minutes', max_attempts => 5);
SELECT webhook_update(2, '{"timeout": "10 seconds", "max_in_flight": 2, "ordering": "key"}');
SELECT webhook_pause(2);
SELECT webhook_resume(2);

SELECT webhook_backfill('task', 2, condition => $$status <> 'done'$$) AS rows;

SELECT method, url, headers ->> 'webhook-signature' LIKE 'v1,%' AS signed
  FROM webhook_preview(1, (SELECT id FROM webhook.events WHERE type = 'contact.created'));

SELECT webhook_send('campaign.opened', '{"campaign": 7, "contact": 1}', idempotency_key => 'open-7-1') IS NOT NULL AS sent;
SELECT webhook_test(2) IS NOT NULL AS sent;

SELECT webhook_retry(id) FROM webhook.deliveries WHERE state = 'dead' AND endpoint = 'tasks';
SELECT webhook_replay(2, since => now() - interval '2 hours', events => '{task.*}') >= 0 AS replayed;
