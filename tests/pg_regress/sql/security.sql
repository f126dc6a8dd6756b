-- Made from docs/security.md by UPDATE_EXPECTED=1: see tests/e2e/documents.rs.
SET client_min_messages = error;
DROP EXTENSION IF EXISTS webhook_pg CASCADE;
DROP SCHEMA public CASCADE;
CREATE SCHEMA public;
GRANT USAGE ON SCHEMA public TO PUBLIC;
CREATE EXTENSION webhook_pg;
RESET client_min_messages;

CREATE ROLE integrations;
CREATE ROLE shop;
CREATE ROLE grafana;

SELECT webhook_grant('admin', 'integrations');      -- endpoints and everything below
SELECT webhook_grant('publisher', 'shop');          -- attach own tables, send
SELECT webhook_grant('observer', 'grafana');        -- look on
SELECT webhook_grant('none', 'shop');               -- takes all of it away again

SELECT webhook_grant('none', 'integrations');
SELECT webhook_grant('none', 'grafana');
DROP ROLE integrations, shop, grafana;

  CREATE ROLE integrations;
  CREATE ROLE somebody;
  CREATE ROLE loader;
  SELECT webhook_grant('admin', 'integrations');
  SET ROLE integrations;
  SELECT id FROM webhook_register('https://receiver.example.com/hooks', name => 'crm');
  RESET ROLE;

  UPDATE webhook.endpoint SET owner = 'somebody' WHERE owner = 'integrations'::regrole;

  SELECT name, owner FROM webhook.endpoints;

  GRANT SET ON PARAMETER webhook_pg.mute TO loader;

  SET ROLE loader;
  SET webhook_pg.mute = on;
  RESET webhook_pg.mute;
  RESET ROLE;
  REVOKE SET ON PARAMETER webhook_pg.mute FROM loader;
  SELECT webhook_grant('none', 'integrations');
  SELECT count(webhook_unregister(id)) AS unregistered FROM webhook.endpoints;
  DROP ROLE integrations, somebody, loader;

  SELECT count(*) FROM webhook.sealed_secret WHERE split_part(value, '.', 2) <> (webhook.key_ids())[1];
