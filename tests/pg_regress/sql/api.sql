-- The errors of the functions as people see them: one line, the offending value, what to do.
\set VERBOSITY default
\set SHOW_CONTEXT never

SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS webhook_pg;
RESET client_min_messages;

BEGIN;
SELECT id > 0 AS id, secret LIKE 'whsec_%' AS secret
  FROM webhook_register('https://example.com/hook', events => '{contact.*}', name => 'crm',
                        headers => '{"X-Api-Key": "hush"}', retry_schedule => '{5 s,1 min}');
SELECT name, state, url, events, secret, method, format, encoding, headers, retry_schedule FROM webhook.endpoints WHERE name = 'crm';
COMMIT;

-- Wrong values.
SELECT webhook_register('ftp://example.com/hook');
SELECT webhook_register('https://user:hush@example.com/');
SELECT webhook_register('https://example.com', events => '{contact}');
SELECT webhook_register('https://example.com', events => NULL);
SELECT webhook_register('https://example.com', name => 'crm');
SELECT webhook_register('https://example.com', secret => 'hush');
SELECT webhook_register('https://example.com', method => 'BREW');
SELECT webhook_register('https://example.com', headers => '{"Content-Length": "1"}');
SELECT webhook_register('https://example.com', max_attempts => 0);
SELECT webhook_register('https://example.com', retry_schedule => '{5 s}', attempt_interval => '5 min');
SELECT webhook_register('https://example.com', timeout => '2 hours');

-- What does not go together.
SELECT webhook_register('https://example.com', format => 'cloudevents-binary', encoding => 'form');
SELECT webhook_register('https://example.com', method => 'GET', encoding => 'json');
SELECT webhook_register('https://example.com', signature => 'ed25519', secret => 'hush');
SELECT webhook_register('https://example.com', scope => '["north"]');

-- Changes.
SELECT webhook_update(987654, '{}');
SELECT webhook_update(id, '{"colour": "blue"}') FROM webhook.endpoints WHERE name = 'crm';
SELECT webhook_update(id, '{"timeout": [5]}') FROM webhook.endpoints WHERE name = 'crm';
SELECT webhook_update(id, '{"is_active": false}') FROM webhook.endpoints WHERE name = 'crm';
SELECT state, is_active FROM webhook.endpoints WHERE name = 'crm';
SELECT webhook_update(id, '{"is_active": true}') FROM webhook.endpoints WHERE name = 'crm';

-- Events.
SELECT webhook_send('contact', '{}');
SELECT webhook_send('webhook.ping', '{}');
SELECT webhook_send('contact.created', NULL);
SELECT webhook_send('contact.created', '{"id": 1}', idempotency_key => '');

-- Secrets and configurations.
SELECT webhook_rotate_secret(id, overlap => '-1 s') FROM webhook.endpoints WHERE name = 'crm';
SELECT webhook_rotate_secret(id, secret => 'hush') FROM webhook.endpoints WHERE name = 'crm';
SELECT webhook_config(id) FROM webhook.endpoints WHERE name = 'crm';
SELECT webhook_apply('{"url": "https://example.com"}');
SELECT webhook_apply('{"name": "copy", "url": "https://example.com", "headers": {"X-Api-Key": "***"}}');
SELECT webhook_apply('{"postbackconfig": {"url": "https://example.com", "resource": "contact", "on_create": "maybe"}}');
SELECT webhook_preview(id, '00000000-0000-7000-8000-000000000000') FROM webhook.endpoints WHERE name = 'crm';

SELECT webhook_unregister(id) FROM webhook.endpoints WHERE name = 'crm';
SELECT count(*) FROM webhook.endpoints WHERE name = 'crm';

-- Roles.
SELECT webhook_grant('boss', 'pg_monitor');
