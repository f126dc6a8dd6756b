-- Made from docs/crm.md by UPDATE_EXPECTED=1: see tests/e2e/documents.rs.
SET client_min_messages = error;
DROP EXTENSION IF EXISTS webhook_pg CASCADE;
DROP SCHEMA public CASCADE;
CREATE SCHEMA public;
GRANT USAGE ON SCHEMA public TO PUBLIC;
CREATE EXTENSION webhook_pg;
RESET client_min_messages;

CREATE SCHEMA crm;
SET search_path = crm, public;
\set ECHO none
\i ../../demo/crm.sql
\set ECHO all
\t on

CREATE FUNCTION tags(c contact) RETURNS json STABLE LANGUAGE sql AS $$
    SELECT coalesce(json_agg(l.name ORDER BY l.name), '[]') FROM list_member lm JOIN list l ON l.id = lm.list_id WHERE lm.contact_id = c.id
$$;
CREATE FUNCTION changelogs(c contact) RETURNS json STABLE LANGUAGE sql AS $$
    SELECT coalesce(json_agg(t.kind ORDER BY t.id), '[]') FROM timeline_event t WHERE t.contact_id = c.id
$$;
SELECT webhook_attach('contact', expand => '{"tags": "tags", "changelogs": "changelogs"}') IS NOT NULL AS attached;
SELECT webhook_attach('list') IS NOT NULL AS attached;
SELECT webhook_attach('task') IS NOT NULL AS attached;
SELECT webhook_attach('note', actions => '{created,deleted}') IS NOT NULL AS attached;
SELECT webhook_attach('timeline_event', actions => '{created}') IS NOT NULL AS attached;
SELECT webhook_attach('contact_metadata', actions => '{updated}', watch => '{value}') IS NOT NULL AS attached;

SELECT webhook_attach('list_member', resource => 'contact', key => '{contact_id}', as_action => 'lists_changed') IS NOT NULL AS attached;

CREATE FUNCTION subscriber(e campaign_event) RETURNS json STABLE LANGUAGE sql AS $$
    SELECT json_build_object('email', c.email, 'name', concat_ws(' ', c.first_name, c.last_name),
        'fields', (SELECT json_object_agg(m.name, m.value ORDER BY m.name) FROM contact_metadata m WHERE m.contact_id = c.id),
        'lists', (SELECT json_agg(l.name ORDER BY l.name) FROM list_member lm JOIN list l ON l.id = lm.list_id
                   WHERE lm.contact_id = c.id))
      FROM contact c WHERE c.id = e.contact_id
$$;
SELECT webhook_attach('campaign_event', resource => 'campaign', actions => '{created}', key => '{campaign_id}',
    as_action => 'opened', condition => $$NEW.kind = 'opened'$$,
    expand => '{"campaign": "campaign_id", "subscriber": "subscriber"}') IS NOT NULL AS attached;
SELECT webhook_attach('campaign_event', resource => 'campaign', actions => '{created}', key => '{campaign_id}',
    as_action => 'clicked', condition => $$NEW.kind = 'clicked'$$,
    expand => '{"campaign": "campaign_id", "subscriber": "subscriber"}') IS NOT NULL AS attached;

SELECT webhook_attach('task', actions => '{updated}', as_action => 'done',
    condition => $$NEW.status = 'done' AND OLD.status IS DISTINCT FROM 'done'$$) IS NOT NULL AS attached;

SELECT id IS NOT NULL AS registered FROM webhook_register('https://pay.example.com/receiver', name => 'postback', format => 'postback',
    events => '{contact.created,contact.updated,contact.deleted}', scope => '{"location_id": "north"}', expands => '{tags,changelogs}',
    attempt_interval => '300 seconds', max_attempts => 5, basic_auth_username => 'crm', basic_auth_password => 'hunter2');

SELECT id IS NOT NULL AS registered FROM webhook_register('https://push.example.com/in', name => 'push',
    events => '{contact.lists_changed,contact_metadata.*,list.*,task.*,note.*,timeline_event.*}', method => 'PUT');

SELECT id IS NOT NULL AS registered FROM webhook_register('https://hooks.example.com/campaign', name => 'campaign',
    events => '{campaign.*}', scope => '{"campaign_id": 1}', expands => '{campaign,subscriber}',
    attempt_interval => '1 minute', max_attempts => 6);
SELECT id IS NOT NULL AS registered FROM webhook_register('https://hooks.example.com/link', name => 'link',
    events => '{campaign.clicked}', scope => '{"campaign_id": 1, "url": "https://example.com/offer"}', expands => '{campaign,subscriber}',
    attempt_interval => '1 minute', max_attempts => 6);

INSERT INTO contact (id, location_id, last_name) VALUES (1, 'north', 'Lovelace'), (2, 'south', 'Hopper');
INSERT INTO list (id, name) VALUES (1, 'News');
INSERT INTO list_member VALUES (1, 1), (1, 2);
INSERT INTO contact_metadata (contact_id, name, value) VALUES (1, 'plan', 'free');
INSERT INTO timeline_event (contact_id, kind) VALUES (1, 'call');
INSERT INTO note (contact_id, body) VALUES (1, 'Prefers COBOL');
INSERT INTO task (contact_id, title) VALUES (1, 'Send the offer');
INSERT INTO campaign (id, name) VALUES (1, 'Spring'), (2, 'Autumn');
INSERT INTO campaign_event (campaign_id, contact_id, kind, url, ip_address, user_agent) VALUES
    (1, 1, 'opened', NULL, '192.0.2.7', 'Lynx/2.9'),
    (1, 1, 'clicked', 'https://example.com/offer', '192.0.2.7', 'Lynx/2.9'),
    (1, 1, 'clicked', 'https://example.com/terms', '192.0.2.7', 'Lynx/2.9'),
    (2, 2, 'opened', NULL, '2001:db8::7', 'Mosaic/1.0'),
    (2, 2, 'clicked', 'https://example.com/offer', '2001:db8::7', 'Mosaic/1.0');

UPDATE contact SET email = 'ada@example.com' WHERE id = 1;
UPDATE list SET name = 'Monthly news';
UPDATE contact_metadata SET value = 'paid';
UPDATE contact_metadata SET name = 'tariff';
UPDATE timeline_event SET kind = 'visit';
UPDATE note SET body = 'Prefers Pascal';
UPDATE task SET status = 'done';

DELETE FROM contact WHERE id = 1;
DELETE FROM list;

SELECT type, count(*) FROM webhook.events GROUP BY type ORDER BY type COLLATE "C";

SET client_min_messages = error;
DROP SCHEMA crm CASCADE;
