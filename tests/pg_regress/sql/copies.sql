-- Made from docs/copies.md by UPDATE_EXPECTED=1: see tests/e2e/documents.rs.
SET client_min_messages = error;
DROP EXTENSION IF EXISTS webhook_pg CASCADE;
DROP SCHEMA public CASCADE;
CREATE SCHEMA public;
GRANT USAGE ON SCHEMA public TO PUBLIC;
CREATE EXTENSION webhook_pg;
RESET client_min_messages;

CREATE TABLE contact (id bigint PRIMARY KEY, email text);
SELECT webhook_attach('contact');
SELECT id FROM webhook_register('https://receiver.example.com/hooks', name => 'crm', events => '{contact.*}');
INSERT INTO contact VALUES (1, 'ann@example.com');
-- As if it had been tried once, and not by this database.
INSERT INTO webhook.delivery (endpoint_id, xid, seq, event_id, created_at, next_attempt_at, attempts, last_status, state)
SELECT 1, xid, seq, id, now(), now(), 1, 503, 'pending' FROM webhook.outbox;
UPDATE webhook.installation SET system_identifier = system_identifier + 1;
SELECT ok FROM webhook_status() WHERE check_name = 'clone guard';

SELECT webhook_adopt(keep_backlog => false);

SELECT ok FROM webhook_status() WHERE check_name = 'clone guard';
SELECT state FROM webhook.deliveries;
SELECT pending + lag_events AS waiting FROM webhook.stats;

INSERT INTO contact VALUES (2, 'bob@example.com');
UPDATE webhook.installation SET system_identifier = system_identifier + 1;

SELECT webhook_adopt();

SELECT ok FROM webhook_status() WHERE check_name = 'clone guard';
SELECT pending + lag_events AS waiting FROM webhook.stats;
