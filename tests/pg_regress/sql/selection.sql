-- Made from docs/selection.md by UPDATE_EXPECTED=1: see tests/e2e/documents.rs.
SET client_min_messages = error;
DROP EXTENSION IF EXISTS webhook_pg CASCADE;
DROP SCHEMA public CASCADE;
CREATE SCHEMA public;
GRANT USAGE ON SCHEMA public TO PUBLIC;
CREATE EXTENSION webhook_pg;
RESET client_min_messages;

SELECT id IS NOT NULL AS registered FROM webhook_register('https://north.example.com/hooks', name => 'north', events => '{contact.*}',
    scope => '{"location_id": "north"}');

SELECT id IS NOT NULL AS registered FROM webhook_register('https://big.example.com/hooks', name => 'big', events => '{contact.updated}',
    filter => '$.data.contact_balance > 1000 && $.previous.contact_balance <= 1000');

SELECT name, scope, filter FROM webhook.endpoints ORDER BY name;
