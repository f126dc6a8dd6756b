-- Made from docs/monitoring.md by UPDATE_EXPECTED=1: see tests/e2e/documents.rs.
SET client_min_messages = error;
DROP EXTENSION IF EXISTS webhook_pg CASCADE;
DROP SCHEMA public CASCADE;
CREATE SCHEMA public;
GRANT USAGE ON SCHEMA public TO PUBLIC;
CREATE EXTENSION webhook_pg;
RESET client_min_messages;

CREATE TABLE contact (id bigint PRIMARY KEY, city text);
SELECT webhook_attach('contact') > 0 AS attached;
SELECT id FROM webhook_register('https://receiver.example.com/hooks', name => 'crm', events => '{contact.*}');
SELECT id FROM webhook_register('https://receiver.example.com/oslo', name => 'oslo', scope => '{"city": "Oslo"}');
INSERT INTO contact VALUES (1, 'Oslo'), (2, 'Bergen'), (3, 'Oslo');

\o /dev/null
SELECT check_name, detail FROM webhook_status() WHERE NOT ok;
\o

SELECT check_name, ok FROM webhook_status();

\o /dev/null
SELECT endpoint, state, pending, lag_events, lag_seconds, in_flight, p99_ms FROM webhook.stats ORDER BY lag_seconds DESC;
\o

SELECT endpoint_id, endpoint, state, delivered, failed_attempts, dead, dropped, pending, lag_events, lag_seconds < 60 AS is_young, in_flight,
       p50_ms, p99_ms, last_success_at, last_failure_at
  FROM webhook.stats;
SELECT webhook_backfill('contact', 1);
SELECT kind, endpoint, asked_at <= now() AS asked, events, done, waiting FROM webhook.progress;

\o /dev/null
SELECT kind, endpoint, asked_at, events, done, waiting FROM webhook.progress WHERE waiting > 0;
\o

\o /dev/null
SELECT pid, backend_type, datname, state, wait_event, query FROM pg_stat_activity WHERE backend_type LIKE 'webhook_pg%';
\o

SELECT line FROM regexp_split_to_table(webhook_metrics(), '\n') AS line WHERE line LIKE '%TYPE webhook_pg_delivered_total%';

SELECT line FROM regexp_split_to_table(webhook_metrics(), '\n') AS line
 WHERE line LIKE 'webhook_pg_%' AND line !~ '^webhook_pg_(info|lag_seconds|endpoint_lag_seconds|outbox_events|table_bytes|attempt_duration_seconds_bucket)';
