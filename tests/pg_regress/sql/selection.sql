-- The SQL of docs/selection.md.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS webhook_pg;
RESET client_min_messages;
SELECT id IS NOT NULL AS registered FROM webhook_register('https://north.example.com/hooks', name => 'north', events => '{contact.*}',
    scope => '{"location_id": "north"}');
SELECT id IS NOT NULL AS registered FROM webhook_register('https://big.example.com/hooks', name => 'big', events => '{contact.updated}',
    filter => '$.data.contact_balance > 1000 && $.previous.contact_balance <= 1000');
SELECT name, scope, filter FROM webhook.endpoints WHERE name IN ('north', 'big') ORDER BY name;
SELECT webhook_unregister(id) FROM webhook.endpoints WHERE name IN ('north', 'big');
