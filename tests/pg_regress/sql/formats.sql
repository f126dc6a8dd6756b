-- Made from docs/formats.md by UPDATE_EXPECTED=1: see tests/e2e/documents.rs.
SET client_min_messages = error;
DROP EXTENSION IF EXISTS webhook_pg CASCADE;
DROP SCHEMA public CASCADE;
CREATE SCHEMA public;
GRANT USAGE ON SCHEMA public TO PUBLIC;
CREATE EXTENSION webhook_pg;
RESET client_min_messages;

SELECT webhook_apply('{"postbackconfig": {"url": "https://example.com/receiver", "resource": "contact", "on_create": "1",
    "on_update": "1", "on_delete": "0", "number_of_attempts": 3, "attempt_interval": 300, "location_id": "north"}}') IS NOT NULL AS applied;

SELECT name LIKE 'postback-%' AS name, events, format, encoding, max_attempts, attempt_interval, scope FROM webhook.endpoints WHERE format = 'postback';
