-- What webhook_status() looks at beyond processes and switches: how endpoints and attachments are doing. One function a check.
-- `seen`: the endpoints that the caller may see; null: all.

-- Active endpoints alone: of the others the check "endpoints" speaks.
CREATE FUNCTION webhook.check_lag(seen bigint[]) RETURNS TABLE (check_name text, ok boolean, detail text) LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    n bigint;
    names text;
BEGIN
    SELECT count(*), string_agg(late.line, ', ' ORDER BY late.oldest) INTO n, names
      FROM (SELECT format('%s (%s events, the oldest of %s)', e.name, b.events, b.oldest) AS line, b.oldest
              FROM webhook.backlog() AS b
              JOIN webhook.endpoint AS e ON e.id = b.endpoint_id
             WHERE e.state = 'active' AND b.oldest < now() - interval '1 minute' AND (seen IS NULL OR e.id = ANY (seen))
             ORDER BY b.oldest LIMIT 100) AS late;
    RETURN QUERY SELECT 'lag', n = 0, CASE WHEN n = 0 THEN 'No active endpoint is behind by more than a minute.'
        ELSE format('Behind by more than a minute: %s. See webhook.stats and webhook.attempts.', names) END;
END $$;

-- What the egress policy refuses is tried again like any failure, so it shows in deliveries.
CREATE FUNCTION webhook.check_egress(seen bigint[]) RETURNS TABLE (check_name text, ok boolean, detail text) LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    n bigint;
    names text;
BEGIN
    SELECT count(*), string_agg(format('%s (%s)', refused.name, refused.error), ', ' ORDER BY refused.name) INTO n, names
      FROM (SELECT e.name, min(d.last_error) AS error
              FROM ((SELECT p.endpoint_id, p.last_error FROM webhook.delivery AS p WHERE p.state = 'pending' LIMIT 10000)
                    UNION ALL
                    (SELECT x.endpoint_id, x.last_error FROM webhook.delivery AS x WHERE x.state = 'dead' ORDER BY x.finished_at DESC LIMIT 10000)) AS d
              JOIN webhook.endpoint AS e ON e.id = d.endpoint_id
             WHERE d.last_error LIKE 'egress:%' AND (seen IS NULL OR e.id = ANY (seen))
             GROUP BY e.name
             ORDER BY e.name LIMIT 100) AS refused;
    RETURN QUERY SELECT 'egress', n = 0, CASE WHEN n = 0 THEN 'No waiting or dead delivery was refused by the egress policy.'
        ELSE format('The egress policy refuses: %s. See webhook_pg.egress_allow and webhook_pg.allow_http.', names) END;
END $$;

-- Changes that reach no trigger although the attachment is enabled.
CREATE FUNCTION webhook.check_bypasses() RETURNS TABLE (check_name text, ok boolean, detail text) LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    n bigint;
    names text;
BEGIN
    SELECT count(*), string_agg(found.line, '; ' ORDER BY found.line) INTO n, names
      FROM (-- Triggers that PostgreSQL made for partitions are disabled one by one.
            SELECT DISTINCT format('triggers are disabled on partition %s', t.tgrelid::regclass) AS line
              FROM pg_trigger AS t
             WHERE t.tgparentid <> 0 AND t.tgenabled NOT IN ('O', 'A') AND t.tgfoid = 'webhook.capture()'::regprocedure
            UNION ALL
            SELECT DISTINCT format('%s inherits from %s and is not attached itself', i.inhrelid::regclass, i.inhparent::regclass)
              FROM pg_inherits AS i
              JOIN webhook.attachment AS a ON a.table_name = i.inhparent
              JOIN pg_class AS c ON c.oid = i.inhrelid
             WHERE NOT c.relispartition AND NOT EXISTS (SELECT FROM webhook.attachment AS own WHERE own.table_name = i.inhrelid)
            UNION ALL
            SELECT format('%s is set for %s', entry,
                   concat_ws(' in ', CASE WHEN s.setrole = 0 THEN 'every role' ELSE concat('role ', s.setrole::regrole) END,
                             CASE WHEN s.setdatabase = 0 THEN 'every database' ELSE 'this database' END))
              FROM pg_db_role_setting AS s
             CROSS JOIN unnest(s.setconfig) AS entry
             WHERE s.setdatabase IN (0, (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database()))
               AND entry ~* '^(session_replication_role=replica|webhook_pg\.mute=(on|true|yes|1))$') AS found;
    RETURN QUERY SELECT 'bypasses', n = 0, CASE WHEN n = 0 THEN 'Nothing that is known keeps changes from the triggers.'
        ELSE format('Changes may raise no events: %s.', names) END;
END $$;

-- Attachments name columns; a column may be renamed or dropped all the same, and what is not excluded any more is sent.
CREATE FUNCTION webhook.check_columns() RETURNS TABLE (check_name text, ok boolean, detail text) LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    n bigint;
    names text;
BEGIN
    SELECT count(*), string_agg(format('%s.%s (%s)', gone.table_name::regclass, gone.name, gone.parameter), ', ' ORDER BY gone.id, gone.name)
      INTO n, names
      FROM (SELECT a.id, a.table_name, p.parameter, c.name
              FROM webhook.attachment AS a
             CROSS JOIN LATERAL (VALUES ('key', a.key), ('columns', a.columns), ('exclude', a.exclude), ('watch', a.watch)) AS p (parameter, names)
             CROSS JOIN LATERAL unnest(p.names) AS c (name)
             WHERE EXISTS (SELECT FROM pg_class AS t WHERE t.oid = a.table_name)
               AND NOT EXISTS (SELECT FROM pg_attribute AS t
                                WHERE t.attrelid = a.table_name AND t.attname = c.name AND t.attnum > 0 AND NOT t.attisdropped)
             LIMIT 100) AS gone;
    RETURN QUERY SELECT 'columns', n = 0, CASE WHEN n = 0 THEN 'Every column that an attachment names is there.'
        ELSE format('Attachments name columns that were renamed or dropped: %s. Call webhook_attach with the new names.', names) END;
END $$;

-- Never bad: it says how far backfills and replays have come.
CREATE FUNCTION webhook.check_progress(seen bigint[]) RETURNS TABLE (check_name text, ok boolean, detail text) LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    names text;
BEGIN
    SELECT string_agg(format('%s for %s: %s of %s events done', p.kind, p.endpoint, p.done, p.events), ', ' ORDER BY p.id) INTO names
      FROM (SELECT * FROM webhook.progress AS p WHERE p.waiting > 0 AND (seen IS NULL OR p.endpoint_id = ANY (seen)) ORDER BY p.id LIMIT 100) AS p;
    RETURN QUERY SELECT 'progress', true, coalesce(names || '.', 'No backfill or replay is under way.');
END $$;
