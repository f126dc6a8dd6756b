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
