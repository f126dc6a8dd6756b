-- The SQL of docs/security.md.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS webhook_pg;
RESET client_min_messages;
CREATE ROLE integrations;
CREATE ROLE shop;
CREATE ROLE grafana;
SELECT webhook_grant('admin', 'integrations');      -- endpoints and everything below
SELECT webhook_grant('publisher', 'shop');          -- attach own tables, send
SELECT webhook_grant('observer', 'grafana');        -- look on
SELECT webhook_grant('none', 'shop');               -- takes all of it away again
\set VERBOSITY default
\set SHOW_CONTEXT never
SELECT webhook_grant('boss', 'shop');
SELECT webhook_grant('none', 'integrations');
SELECT webhook_grant('none', 'grafana');
DROP ROLE integrations, shop, grafana;
