-- What people look at. Secrets, passwords and header values appear as *** only. Who may not read the column owner of
-- webhook.endpoint (sql/install/roles.sql) sees endpoints of roles whose privileges he has, and what belongs to them; barriers, so that no
-- function in a query sees the others either.

CREATE VIEW webhook.endpoints WITH (security_barrier) AS
SELECT e.id, e.name, e.state, e.disabled_reason, e.url, e.events,
       CASE WHEN EXISTS (SELECT FROM webhook.endpoint_secret AS s
                          WHERE s.endpoint_id OPERATOR(pg_catalog.=) e.id AND s.kind OPERATOR(pg_catalog.=) 'signing')
            THEN '***' END AS secret,
       e.method, e.format, e.encoding,
       (SELECT coalesce(pg_catalog.jsonb_object_agg(h.name, '***'), '{}')
          FROM pg_catalog.unnest(e.header_names) AS h (name)) AS headers,
       e.basic_auth_username,
       CASE WHEN e.has_password THEN '***' END AS basic_auth_password,
       e.scope, e.filter, e.expands, e.max_attempts, e.attempt_interval, e.retry_schedule, e.timeout, e.max_in_flight,
       e.rate_limit, e.ordering, e.signature, e.state OPERATOR(pg_catalog.<>) 'inactive' AS is_active,
       e.public_key, e.owner, e.created_at, e.modified_at
  FROM webhook.endpoint AS e
 WHERE (SELECT pg_catalog.has_column_privilege('webhook.endpoint'::pg_catalog.regclass, 'owner', 'SELECT'))
    OR pg_catalog.pg_has_role(e.owner::pg_catalog.oid, 'USAGE');

-- json, not jsonb: the exact text of the row.
CREATE VIEW webhook.events AS
SELECT o.id, o.type, o.key::pg_catalog.json AS key, o.occurred_at, o.data::pg_catalog.json AS data,
       o.previous::pg_catalog.json AS previous
  FROM webhook.outbox AS o;

-- No barrier: it would keep ORDER BY id ... LIMIT from the index, which is what people ask for, and take seconds among millions. What an endpoint
-- is called stands behind that of webhook.endpoints.
CREATE VIEW webhook.deliveries AS
SELECT d.id, d.endpoint_id, e.name AS endpoint, d.event_id, o.type, o.key::pg_catalog.json AS key, d.state, d.attempts,
       d.next_attempt_at, d.last_status, d.last_error, d.created_at, d.finished_at
  FROM webhook.delivery AS d
  LEFT JOIN webhook.endpoints AS e ON e.id OPERATOR(pg_catalog.=) d.endpoint_id
  LEFT JOIN webhook.outbox AS o ON o.xid OPERATOR(pg_catalog.=) d.xid AND o.seq OPERATOR(pg_catalog.=) d.seq
 WHERE e.id IS NOT NULL
    OR (SELECT pg_catalog.has_column_privilege('webhook.endpoint'::pg_catalog.regclass, 'owner', 'SELECT'));

-- Attempts have rows of their own, except the one that delivered: it stands in the delivery, to save an insert. One
-- sequence numbers both.
CREATE VIEW webhook.attempts WITH (security_barrier) AS
SELECT t.id, t.delivery_id, t.endpoint_id, t.event_id, t.attempt, t.started_at, t.duration_ms, t.status, t.error, t.response
  FROM (SELECT a.id, a.delivery_id, d.endpoint_id, d.event_id, a.attempt, a.started_at, a.duration_ms, a.status, a.error, a.response
          FROM webhook.attempt AS a
          JOIN webhook.delivery AS d ON d.id OPERATOR(pg_catalog.=) a.delivery_id
        UNION ALL
        SELECT d.id, d.id, d.endpoint_id, d.event_id, d.attempts, d.started_at, d.duration_ms, d.last_status, NULL, d.response
          FROM webhook.delivery AS d
         WHERE d.state OPERATOR(pg_catalog.=) 'delivered'
           AND d.started_at IS NOT NULL) AS t  -- null: not logged
 -- Not in the halves of the union: of a union alone PostgreSQL makes no barrier.
 WHERE (SELECT pg_catalog.has_column_privilege('webhook.endpoint'::pg_catalog.regclass, 'owner', 'SELECT'))
    OR t.endpoint_id OPERATOR(pg_catalog.=) ANY (SELECT own.id FROM webhook.endpoint AS own WHERE pg_catalog.pg_has_role(own.owner::pg_catalog.oid, 'USAGE'));

-- An attachment is enabled when its triggers are there and fire in ordinary sessions. One serves all row operations unless
-- there is a condition; TRUNCATE has its own (src/pg/triggers.rs).
CREATE VIEW webhook.attachments AS
SELECT a.id, a.table_name,
       NOT EXISTS (
           SELECT FROM pg_catalog.unnest(a.actions) AS w (action)
            WHERE NOT EXISTS (
                SELECT FROM pg_catalog.pg_trigger AS t
                 WHERE t.tgrelid OPERATOR(pg_catalog.=) a.table_name
                   AND t.tgname OPERATOR(pg_catalog.=) pg_catalog.concat('webhook_pg_', a.id,
                       CASE WHEN w.action OPERATOR(pg_catalog.=) 'truncated' OR a.condition IS NOT NULL
                            THEN pg_catalog.concat('_', w.action) END)
                   AND t.tgenabled OPERATOR(pg_catalog.=) ANY (CASE WHEN a.always THEN '{A}'::"char"[] ELSE '{O,A}' END))) AS enabled,
       a.resource, a.actions, a.key, a.columns, a.exclude, a.watch, a.condition,
       pg_catalog.jsonb_object(a.expand_names, a.expand_sources) AS expand, a.as_action, a.always
  FROM webhook.attachment AS a;

-- ---- Status --------------------------------------------------------------------------------------------------------

-- Answers on a standby too. Cheap: counts stop at 10,000.
CREATE FUNCTION webhook_status() RETURNS TABLE (check_name text, ok boolean, detail text) LANGUAGE plpgsql STABLE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    names text;
    n bigint;
    oldest timestamptz;
    lost bigint;
    max_age interval := coalesce(nullif(current_setting('webhook_pg.max_backlog_age', true), ''), '30d');
    pid int := webhook.worker_pid();
    at_home boolean := webhook.is_at_home();
    fault json := webhook.sending_fault();
    -- The endpoints that the caller may see; null: all.
    seen bigint[] := webhook.seen_by(webhook.caller());
    key_fault text := webhook.key_file_fault();
BEGIN
    RETURN QUERY SELECT 'preload', webhook.is_preloaded(), CASE WHEN webhook.is_preloaded()
        THEN 'The library is preloaded.'
        ELSE 'Add webhook_pg to shared_preload_libraries and restart PostgreSQL; events are kept meanwhile.' END;

    RETURN QUERY SELECT 'worker', pid IS NOT NULL OR pg_is_in_recovery(), CASE
        WHEN pg_is_in_recovery() THEN 'This is a standby: nothing is sent here.'
        WHEN pid IS NOT NULL THEN format('Process %s serves this database.', pid)
        WHEN NOT at_home THEN 'A copy has no worker.'
        ELSE webhook.why_no_worker() END;

    SELECT string_agg(format('%s (%s)', w.name, CASE WHEN d.oid IS NULL THEN 'does not exist' ELSE 'does not allow connections' END), ', ')
      INTO names
      FROM unnest(string_to_array(coalesce(current_setting('webhook_pg.databases', true), ''), ',')) AS l (entry)
     CROSS JOIN trim(E' \t\r\n' FROM l.entry) AS w (name)
      LEFT JOIN pg_database AS d ON d.datname = w.name
     WHERE w.name NOT IN ('', '*') AND d.datallowconn IS NOT TRUE;
    RETURN QUERY SELECT 'databases', names IS NULL, CASE WHEN names IS NULL
        THEN 'Every database that webhook_pg.databases names can be served.'
        ELSE format('webhook_pg.databases names what cannot be served: %s.', names) END;

    RETURN QUERY SELECT 'enabled', s.enabled, CASE WHEN s.enabled
        THEN 'Sending is enabled.' ELSE 'webhook_pg.enabled is off: events are kept, nothing is sent.' END
      FROM (SELECT coalesce(current_setting('webhook_pg.enabled', true)::boolean, true)) AS s (enabled);

    RETURN QUERY SELECT 'sending', fault IS NULL, CASE WHEN fault IS NULL
        THEN 'Nothing on our side holds up sending.'
        ELSE format('Held up since %s: %s. No endpoint is blamed for it, and sending goes on by itself when it ends.',
                    to_timestamp((fault ->> 'since')::float8), fault ->> 'message') END;

    RETURN QUERY SELECT 'clone guard', at_home, CASE WHEN at_home
        THEN 'This database is where the extension was installed or adopted.'
        ELSE 'This database is a copy, so nothing is sent. To send from here: SELECT webhook_adopt().' END;

    SELECT count(*), string_agg(format('%s (%s)', e.name, e.state), ', ' ORDER BY e.id) INTO n, names
      FROM (SELECT * FROM webhook.endpoint WHERE state IN ('paused', 'disabled') AND (seen IS NULL OR id = ANY (seen)) ORDER BY id LIMIT 100) AS e;
    RETURN QUERY SELECT 'endpoints', NOT EXISTS (SELECT FROM webhook.endpoint AS e WHERE e.state = 'disabled' AND (seen IS NULL OR e.id = ANY (seen))),
        CASE WHEN n = 0 THEN format('%s endpoints, none paused or disabled.', coalesce(cardinality(seen), (SELECT count(*) FROM webhook.endpoint)))
             ELSE format('Not sent to, but kept for: %s. webhook_resume goes on.', names) END;

    SELECT count(*), string_agg(e.name, ', ' ORDER BY e.id) INTO n, names
      FROM (SELECT * FROM webhook.endpoint AS e
             WHERE NOT webhook.has_secrets(e) AND (seen IS NULL OR e.id = ANY (seen))
             ORDER BY e.id LIMIT 100) AS e;
    RETURN QUERY SELECT 'secrets', n = 0 AND key_fault IS NULL, concat_ws(' ', CASE WHEN n = 0 THEN 'Every endpoint has its secrets.'
        ELSE format('Secrets are missing, as after a restore, so nothing is sent to: %s. Give them by webhook_update or webhook_rotate_secret, '
                    'or the keys that sealed them in webhook_pg.key_file.', names) END,
        'The key file cannot be used. ' || key_fault);

    -- Bad as long as the last failure is fresh.
    SELECT count(*), string_agg(format('%s (%s, last %s)', e.name, f.errors, f.last_at), ', ' ORDER BY e.id), max(f.last_at) INTO n, names, oldest
      FROM (SELECT * FROM webhook.filter_error WHERE seen IS NULL OR endpoint_id = ANY (seen) ORDER BY last_at DESC LIMIT 100) AS f
      JOIN webhook.endpoint AS e ON e.id = f.endpoint_id;
    RETURN QUERY SELECT 'filters', coalesce(oldest < now() - interval '1 hour', true), CASE WHEN n = 0 THEN 'No filter has failed.'
        ELSE format('Filters failed on events, which were not sent: %s. See webhook.endpoints, and strict or lax mode of jsonpath.', names) END;

    SELECT count(*) INTO n
      FROM (SELECT FROM webhook.delivery WHERE state = 'dead' AND (seen IS NULL OR endpoint_id = ANY (seen)) LIMIT 10000) AS d;
    RETURN QUERY SELECT 'dead', n = 0, CASE WHEN n = 0 THEN 'No delivery is dead.'
        ELSE format('%s%s deliveries are dead. webhook_retry tries them again.', n, CASE WHEN n = 10000 THEN ' or more' END) END;

    SELECT count(*), min(d.created_at) INTO n, oldest
      FROM (SELECT created_at FROM webhook.delivery WHERE state = 'pending' AND (seen IS NULL OR endpoint_id = ANY (seen)) LIMIT 10000) AS d;
    RETURN QUERY SELECT 'pending', true, CASE WHEN n = 0 THEN 'No delivery waits for another attempt.'
        ELSE format('%s%s deliveries wait for another attempt, the oldest since %s.',
                    n, CASE WHEN n = 10000 THEN ' or more' END, oldest) END;

    SELECT count(*), min(o.occurred_at) INTO n, oldest
      FROM webhook.position AS head,
           LATERAL (SELECT o.occurred_at FROM webhook.outbox AS o
                     WHERE o.xid >= pg_snapshot_xmax(head.done)
                       AND (head.upto IS NULL OR o.seq > head.seq OR NOT pg_visible_in_snapshot(o.xid, head.upto))
                     LIMIT 10000) AS o
     WHERE head.endpoint_id = 0;
    -- Positions are saved a second after the outcomes.
    RETURN QUERY SELECT 'backlog', coalesce(oldest > now() - interval '1 minute', true), CASE WHEN n = 0 THEN 'All events have been read.'
        WHEN oldest > now() - interval '2 seconds' THEN format('%s events of the last two seconds are not known to be read yet.', n)
        ELSE format('%s%s events have not been read, the oldest since %s.', n, CASE WHEN n = 10000 THEN ' or more' END, oldest) END;

    -- A day before events are dropped, or half of max_backlog_age if that is shorter. Only endpoints that lag behind have
    -- events to look for; the first one that a position has not consumed stands at its first transaction that was running.
    SELECT count(*), string_agg(format('%s (since %s)', behind.name, behind.since), ', ' ORDER BY behind.since) INTO n, names
      FROM (SELECT late.name, min(late.since) AS since
              FROM (SELECT e.id, coalesce(e.name, 'those that follow the head') AS name, first.occurred_at AS since
                      FROM webhook.position AS p
                      LEFT JOIN webhook.endpoint AS e ON e.id = p.endpoint_id,
                           LATERAL (SELECT o.occurred_at FROM webhook.outbox AS o
                                     WHERE o.xid >= pg_snapshot_xmin(p.done) AND NOT pg_visible_in_snapshot(o.xid, p.done)
                                       AND NOT (p.upto IS NOT NULL AND o.seq <= p.seq AND pg_visible_in_snapshot(o.xid, p.upto))
                                     ORDER BY o.xid, o.seq LIMIT 1) AS first
                     WHERE CASE WHEN p.endpoint_id = 0
                                THEN EXISTS (SELECT FROM webhook.endpoint AS follower
                                              WHERE follower.state <> 'inactive'
                                                AND NOT EXISTS (SELECT FROM webhook.position AS own
                                                                 WHERE own.endpoint_id = follower.id))
                                ELSE e.state <> 'inactive' END
                    UNION ALL
                    SELECT e.id, e.name, d.created_at
                      FROM (SELECT * FROM webhook.delivery WHERE state = 'pending' LIMIT 10000) AS d
                      JOIN webhook.endpoint AS e ON e.id = d.endpoint_id) AS late
             WHERE max_age > '0' AND late.since < now() - greatest(max_age - interval '1 day', max_age / 2)
               AND (seen IS NULL OR late.id = ANY (seen))
             GROUP BY late.name
             ORDER BY min(late.since) LIMIT 100) AS behind;
    SELECT sum(d.events), max(d.last_at) INTO lost, oldest FROM webhook.dropped AS d WHERE seen IS NULL OR d.endpoint_id = ANY (seen);
    RETURN QUERY SELECT 'retention', n = 0, concat(
        CASE WHEN n = 0 THEN 'No event waits so long that it will be dropped.'
             ELSE format('Events that wait for these endpoints are dropped when they are older than max_backlog_age (%s): %s.', max_age, names) END,
        CASE WHEN lost > 0 THEN format(' %s were dropped, the last at %s.', lost, oldest) END);

    SELECT count(*), string_agg(a.table_name::text, ', ' ORDER BY a.id) INTO n, names
      FROM (SELECT * FROM webhook.attachments WHERE NOT enabled ORDER BY id LIMIT 100) AS a;
    RETURN QUERY SELECT 'attachments', n = 0, CASE WHEN n = 0 THEN 'Every attached table has its triggers enabled.'
        ELSE format('Triggers are missing or disabled on %s. ALTER TABLE ... ENABLE TRIGGER, or webhook_attach again.', names) END;

    RETURN QUERY SELECT * FROM webhook.check_columns();
    RETURN QUERY SELECT * FROM webhook.check_bypasses();
    RETURN QUERY SELECT * FROM webhook.check_lag(seen);
    RETURN QUERY SELECT * FROM webhook.check_egress(seen);
    RETURN QUERY SELECT * FROM webhook.check_progress(seen);
END $$;
