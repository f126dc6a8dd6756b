-- Every ```sql block of README.md stands here word for word and in order; a test of tests/e2e compares. What differs from run
-- to run (secrets, ids, times) is sent to nowhere.
DROP EXTENSION IF EXISTS webhook_pg CASCADE;
\o /dev/null
CREATE EXTENSION webhook_pg;
CREATE TABLE contact (id bigint PRIMARY KEY, email text, city text);

SELECT webhook_attach('contact');
SELECT * FROM webhook_register('https://receiver.example.com/hooks');

INSERT INTO contact VALUES (1, 'ann@example.com', 'Oslo');
UPDATE contact SET city = 'Bergen' WHERE id = 1;
\o

CREATE TABLE task (id bigint PRIMARY KEY, contact_id bigint REFERENCES contact, title text, status text, internal_note text);
SELECT webhook_attach('task', actions => '{created,updated}', exclude => '{internal_note}', expand => '{"contact": "contact_id"}');
INSERT INTO task VALUES (1, 1, 'Call', 'open', 'hush'), (2, 1, 'Write', 'done', 'hush');

SELECT id FROM webhook_register('https://receiver.example.com/tasks', name => 'tasks', events => '{task.*,contact.deleted}',
    expands => '{contact}', headers => '{"X-Team": "crm"}', attempt_interval => '5 minutes', max_attempts => 5);
SELECT webhook_update(2, '{"timeout": "10 seconds", "max_in_flight": 2}');
SELECT webhook_pause(2);
SELECT webhook_resume(2);

SELECT webhook_backfill('task', 2, condition => $$status <> 'done'$$) AS rows;

SELECT id FROM webhook_register('https://pay.example.com/postback', name => 'payments', events => '{contact.*}', format => 'postback',
    signature => 'ed25519', scope => '{"city": "Bergen"}', ordering => 'key', rate_limit => 10);
SELECT public_key LIKE 'whpk_%' AS has_a_public_key FROM webhook.endpoints WHERE id = 3;
SELECT method, url, body LIKE 'type=UPDATE&resource=contact&number_of_attempts=1&data=%' AS as_a_form
  FROM webhook_preview(3, (SELECT id FROM webhook.events WHERE type = 'contact.updated'));
SELECT webhook_rotate_secret(2, overlap => '1 hour') IS NOT NULL AS rotated;

SELECT webhook_send('campaign.opened', '{"campaign": 7, "contact": 1}', idempotency_key => 'open-7-1') IS NOT NULL AS sent;
SELECT webhook_test(2) IS NOT NULL AS sent;

\o /dev/null
SELECT id, name, url, events, state FROM webhook.endpoints ORDER BY id;
SELECT type, key, data FROM webhook.events ORDER BY occurred_at;
SELECT endpoint, type, state, attempts, next_attempt_at, last_status, last_error FROM webhook.deliveries ORDER BY id;
SELECT delivery_id, attempt, started_at, duration_ms, status, error, response FROM webhook.attempts ORDER BY id;
SELECT check_name, ok, detail FROM webhook_status();
\o

SELECT webhook_retry(id) FROM webhook.deliveries WHERE state = 'dead' AND endpoint = 'tasks';
\o /dev/null
SELECT webhook_replay(2, since => now() - interval '2 hours', events => '{task.*}') AS again;
\o

-- What the hidden answers were about.
SELECT type, key, data, previous FROM webhook.events ORDER BY type COLLATE "C", key::text;
DROP EXTENSION webhook_pg CASCADE;
DROP TABLE contact, task;
