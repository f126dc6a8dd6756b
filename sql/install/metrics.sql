-- webhook_metrics(): the figures of webhook.stats and webhook_status() in the text format that Prometheus reads.

CREATE FUNCTION webhook.labels(name text, value text, endpoint_id bigint DEFAULT NULL) RETURNS text LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT format('{%s="%s"%s}', name, replace(replace(replace(value, E'\\', E'\\\\'), '"', E'\\"'), E'\n', E'\\n'),
                  CASE WHEN endpoint_id IS NOT NULL THEN format(',endpoint_id="%s"', endpoint_id) END)
$$;

-- Text format 0.0.4. One snapshot: figures that stand beside each other belong together.
CREATE FUNCTION webhook_metrics() RETURNS text LANGUAGE sql STABLE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH family (nth, name, type, help) AS (VALUES
        (1, 'info', 'gauge', 'Version of the extension in this database; always 1.'),
        (2, 'worker_up', 'gauge', 'Whether a worker serves this database.'),
        (3, 'check_ok', 'gauge', 'Whether a check of webhook_status() is well.'),
        (4, 'lag_seconds', 'gauge', 'Age of the oldest event that an endpoint has not been tried with.'),
        (5, 'requests_in_flight', 'gauge', 'Requests in flight to all endpoints.'),
        (6, 'requests_in_flight_limit', 'gauge', 'The setting webhook_pg.max_in_flight.'),
        (7, 'outbox_events', 'gauge', 'Events in the outbox, as the statistics of PostgreSQL estimate them.'),
        (8, 'table_bytes', 'gauge', 'Size on disk with indexes and TOAST.'),
        (9, 'pruned_events_total', 'counter', 'Events deleted because they were older than webhook_pg.retention.'),
        (20, 'endpoint_state', 'gauge', 'Whether the endpoint is in this state.'),
        (21, 'delivered_total', 'counter', 'Attempts that were answered 2xx.'),
        (22, 'failed_attempts_total', 'counter', 'Attempts that failed.'),
        (23, 'died_total', 'counter', 'Deliveries that ran out of attempts.'),
        (24, 'dropped_events_total', 'counter', 'Events dropped undelivered because they were older than webhook_pg.max_backlog_age.'),
        (25, 'filter_errors_total', 'counter', 'Events for which the filter of the endpoint failed.'),
        (26, 'dead_deliveries', 'gauge', 'Deliveries that are dead and kept.'),
        (27, 'pending_deliveries', 'gauge', 'Deliveries that wait to be tried again.'),
        (28, 'asked_deliveries', 'gauge', 'Those of them that webhook_replay or webhook_retry asked for and that have not been tried since.'),
        (29, 'endpoint_lag_events', 'gauge', 'Events that the endpoint wants and has not been tried with.'),
        (30, 'endpoint_lag_seconds', 'gauge', 'Age of the oldest of them.'),
        (31, 'endpoint_requests_in_flight', 'gauge', 'Requests in flight to the endpoint.'),
        (32, 'last_success_timestamp_seconds', 'gauge', 'When the last attempt succeeded.'),
        (33, 'last_failure_timestamp_seconds', 'gauge', 'When the last attempt failed.'),
        (34, 'bulk_waiting_events', 'gauge', 'Events of backfills and replays that have not been tried.'),
        (35, 'attempt_duration_seconds', 'histogram', 'How long attempts took.')
    ), stats AS MATERIALIZED (
        SELECT s.*, webhook.labels('endpoint', s.endpoint, s.endpoint_id) AS labels FROM webhook.current_stats() AS s
    ), bucket AS (
        -- The bounds of src/figures.rs.
        SELECT s.endpoint_id, b.nth, b.le, sum(coalesce(s.buckets[b.nth], 0)) OVER (PARTITION BY s.endpoint_id ORDER BY b.nth) AS count
          FROM stats AS s,
               unnest('{0.01,0.025,0.05,0.1,0.25,0.5,1,2.5,5,10,30,60,+Inf}'::text[]) WITH ORDINALITY AS b (le, nth)
    ), sample (family, endpoint_id, nth, suffix, labels, value) AS (
        SELECT 'info', 0::bigint, 0::bigint, '', webhook.labels('version', x.extversion), 1::float8 FROM pg_extension AS x WHERE x.extname = 'webhook_pg'
        UNION ALL
        SELECT 'worker_up', 0, 0, '', '', (webhook.worker_pid() IS NOT NULL)::int
        UNION ALL
        SELECT 'check_ok', 0, c.nth, '', webhook.labels('check', c.check_name), c.ok::int
          FROM @extschema@.webhook_status() WITH ORDINALITY AS c (check_name, ok, detail, nth)
        UNION ALL
        SELECT 'lag_seconds', 0, 0, '', '', coalesce(max(s.lag_seconds), 0) FROM stats AS s
        UNION ALL
        SELECT 'requests_in_flight', 0, 0, '', '', coalesce(sum(s.in_flight), 0) FROM stats AS s
        UNION ALL
        SELECT 'requests_in_flight_limit', 0, 0, '', '', coalesce(current_setting('webhook_pg.max_in_flight', true)::float8, 64)
        UNION ALL
        SELECT 'outbox_events', 0, 0, '', '', greatest(c.reltuples, 0) FROM pg_class AS c WHERE c.oid = 'webhook.outbox'::regclass
        UNION ALL
        SELECT 'table_bytes', 0, t.nth, '', webhook.labels('table', t.name), pg_total_relation_size(format('webhook.%s', t.name)::regclass)
          FROM unnest('{outbox,delivery,attempt}'::text[]) WITH ORDINALITY AS t (name, nth)
        UNION ALL
        SELECT 'pruned_events_total', 0, 0, '', '', coalesce(sum(p.events), 0) FROM webhook.pruned AS p
        UNION ALL
        SELECT 'endpoint_state', s.endpoint_id, state.nth, '', overlay(s.labels PLACING format(',state="%s"}', state.name) FROM length(s.labels)),
               (s.state = state.name)::int
          FROM stats AS s, unnest('{active,paused,disabled,inactive}'::text[]) WITH ORDINALITY AS state (name, nth)
        UNION ALL
        SELECT f.family, s.endpoint_id, 0, '', s.labels, f.value
          FROM stats AS s
         CROSS JOIN LATERAL (VALUES
               ('delivered_total', s.delivered::float8), ('failed_attempts_total', s.failed_attempts), ('died_total', s.died),
               ('dropped_events_total', s.dropped), ('dead_deliveries', s.dead), ('pending_deliveries', s.pending),
               ('asked_deliveries', s.asked), ('endpoint_lag_events', s.lag_events), ('endpoint_lag_seconds', s.lag_seconds),
               ('endpoint_requests_in_flight', s.in_flight),
               ('filter_errors_total', (SELECT coalesce(sum(e.errors), 0) FROM webhook.filter_error AS e WHERE e.endpoint_id = s.endpoint_id)),
               ('last_success_timestamp_seconds', extract(epoch FROM s.last_success_at)),
               ('last_failure_timestamp_seconds', extract(epoch FROM s.last_failure_at))) AS f (family, value)
         WHERE f.value IS NOT NULL
        UNION ALL
        SELECT 'bulk_waiting_events', s.endpoint_id, kind.nth, '', overlay(s.labels PLACING format(',kind="%s"}', kind.name) FROM length(s.labels)),
               coalesce(b.waiting, 0)
          FROM stats AS s
         CROSS JOIN unnest('{backfill,replay}'::text[]) WITH ORDINALITY AS kind (name, nth)
          LEFT JOIN (SELECT p.endpoint_id, p.kind, sum(p.waiting) AS waiting FROM webhook.progress AS p GROUP BY p.endpoint_id, p.kind) AS b
            ON b.endpoint_id = s.endpoint_id AND b.kind = kind.name
        UNION ALL
        SELECT 'attempt_duration_seconds', b.endpoint_id, b.nth, '_bucket',
               overlay(s.labels PLACING format(',le="%s"}', b.le) FROM length(s.labels)), b.count
          FROM bucket AS b
          JOIN stats AS s ON s.endpoint_id = b.endpoint_id
        UNION ALL
        SELECT 'attempt_duration_seconds', s.endpoint_id, 100, '_sum', s.labels, s.seconds FROM stats AS s
        UNION ALL
        SELECT 'attempt_duration_seconds', b.endpoint_id, 101, '_count', s.labels, b.count
          FROM bucket AS b
          JOIN stats AS s ON s.endpoint_id = b.endpoint_id
         WHERE b.le = '+Inf'
    ), body AS (
        SELECT s.family, string_agg(format(E'webhook_pg_%s%s%s %s\n', s.family, s.suffix, s.labels, s.value), '' ORDER BY s.endpoint_id, s.nth) AS text
          FROM sample AS s
         GROUP BY s.family
    )
    SELECT string_agg(concat(format(E'# HELP webhook_pg_%s %s\n# TYPE webhook_pg_%s %s\n', f.name, f.help, f.name, f.type), b.text), ''
                      ORDER BY f.nth)
      FROM family AS f
      LEFT JOIN body AS b ON b.family = f.name
$$;
