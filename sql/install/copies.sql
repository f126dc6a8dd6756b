-- Copies of a database, and library and SQL that are not of one version: who may send (docs/copies.md).

-- The version of these objects, as far as the library must know it: src/pg/version.rs has the same number. Whoever changes what the
-- library relies on raises both, and the upgrade script ends with SELECT webhook.recheck().
CREATE FUNCTION webhook.schema_version() RETURNS int LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS 'SELECT 1';

-- Whether the installation rows name this cluster and this database and nothing else: the clone guard.
CREATE FUNCTION webhook.is_at_home() RETURNS boolean LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(bool_and(i.system_identifier = c.system_identifier AND i.database_oid = d.oid), false)
      FROM webhook.installation AS i, pg_control_system() AS c, pg_database AS d
     WHERE d.datname = current_database()
$$;

-- The position before which everything belongs to the database that this one was copied from by CREATE DATABASE ... TEMPLATE:
-- nobody writes there while it is copied, and the row in pg_database is the first thing that the copying transaction writes.
-- In it are transactions of other databases that run now: a position must not be ahead of the snapshots that follow.
CREATE FUNCTION webhook.birth() RETURNS pg_snapshot LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    SELECT concat_ws(':', least(born, pg_snapshot_xmin(own)::text::bigint), born,
                     (SELECT coalesce(string_agg(x::text, ',' ORDER BY x), '')
                        FROM pg_snapshot_xip(own) AS x WHERE x::text::bigint < born))::pg_snapshot
      FROM (SELECT webhook.own_snapshot()::pg_snapshot) AS now (own),
           LATERAL (SELECT pg_snapshot_xmax(own)::text::bigint) AS next (xid),
           pg_database AS d,
           -- xmin has no epoch.
           LATERAL (SELECT greatest(next.xid - ((next.xid - d.xmin::text::bigint) & 4294967295), 3)) AS b (born)
     WHERE d.datname = current_database()
$$;

-- A restore loads the endpoints before the installation row: the worker must hear of both.
CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON webhook.installation
    FOR EACH STATEMENT EXECUTE FUNCTION webhook.changed();
ALTER TABLE webhook.installation ENABLE ALWAYS TRIGGER changed;

-- Makes this database the one that sends. By itself it keeps what waits to be sent where nobody else will send it (after
-- pg_upgrade or a restore, which keep the database's oid or bring no events), and in a copy of another database only what
-- the copy has captured itself. keep_backlog => true: all of it; false: none, it starts at the present.
CREATE FUNCTION webhook_adopt(keep_backlog boolean DEFAULT NULL) RETURNS void LANGUAGE plpgsql VOLATILE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    start pg_snapshot;
    worker int;
    command text;
BEGIN
    -- A worker that starts meanwhile waits, and then reads the new positions.
    LOCK TABLE webhook.installation IN ACCESS EXCLUSIVE MODE;
    IF keep_backlog THEN
        NULL;
    ELSIF keep_backlog IS NOT NULL THEN
        start := webhook.own_snapshot();
    ELSIF NOT EXISTS (SELECT FROM webhook.installation AS i, pg_database AS d
                       WHERE d.datname = current_database() AND i.database_oid = d.oid) THEN
        start := webhook.birth();
    END IF;

    IF start IS NOT NULL THEN
        worker := webhook.worker_pid();
        IF worker IS NOT NULL AND NOT pg_terminate_backend(worker, 10000) THEN
            RAISE EXCEPTION USING ERRCODE = 'object_in_use', MESSAGE = 'the worker did not end',
                DETAIL = format('Its process id is %s.', worker), HINT = 'Try again.';
        END IF;
        UPDATE webhook.position AS p SET done = start, upto = NULL, seq = 0;
        UPDATE webhook.delivery AS d SET state = 'cancelled', next_attempt_at = NULL, finished_at = clock_timestamp()
         WHERE d.state = 'pending' AND pg_visible_in_snapshot(d.xid, start);
        DELETE FROM webhook.failing;
    END IF;

    DELETE FROM webhook.installation;
    INSERT INTO webhook.installation (system_identifier, database_oid)
    SELECT c.system_identifier, d.oid
      FROM pg_control_system() AS c, pg_database AS d
     WHERE d.datname = current_database();

    -- pg_restore --disable-triggers ends with ENABLE TRIGGER ALL, which forgets ALWAYS. Collected first: a table that is being
    -- read cannot be altered.
    FOREACH command IN ARRAY ARRAY(
        SELECT format('ALTER TABLE %s ENABLE %s TRIGGER %I', t.tgrelid::regclass,
                      CASE WHEN t.tgname = 'keep_out' THEN 'REPLICA' ELSE 'ALWAYS' END, t.tgname)
          FROM pg_trigger AS t
         WHERE t.tgenabled = 'O'
           AND (t.tgfoid IN ('webhook.changed()'::regprocedure, 'webhook.keep_out()'::regprocedure)
                OR EXISTS (SELECT FROM webhook.attachment AS a
                            WHERE a.always AND a.table_name = t.tgrelid AND t.tgfoid = 'webhook.capture()'::regprocedure
                              AND starts_with(t.tgname || '_', concat('webhook_pg_', a.id, '_')))))
    LOOP
        EXECUTE command;
    END LOOP;
    PERFORM webhook.recheck();
END $$;

-- ---- Logical replication -------------------------------------------------------------------------------------------

-- Drops what a subscription applies to the private tables: a publication FOR ALL TABLES brings another server's events,
-- positions and endpoints, and this server has its own. What our functions write in an apply worker goes through.
CREATE FUNCTION webhook.keep_out() RETURNS trigger LANGUAGE c AS 'MODULE_PATHNAME', 'webhook_pg_keep_out';

-- UPDATE and DELETE of the tables that grow are let through: with such a trigger PostgreSQL would lock every row before it
-- changes it, also where the trigger does not fire.
DO $$
DECLARE
    private pg_catalog.regclass;
    hot boolean;
BEGIN
    FOR private, hot IN
        SELECT c.oid, c.relname IN ('outbox', 'delivery', 'attempt', 'endpoint_figures') FROM pg_catalog.pg_class AS c
         WHERE c.relnamespace OPERATOR(pg_catalog.=) 'webhook'::pg_catalog.regnamespace
           AND c.relkind OPERATOR(pg_catalog.=) 'r' ORDER BY c.relname
    LOOP
        EXECUTE pg_catalog.format('CREATE TRIGGER keep_out BEFORE INSERT%s ON %s FOR EACH ROW EXECUTE FUNCTION webhook.keep_out()',
                                  CASE WHEN NOT hot THEN ' OR UPDATE OR DELETE' END, private);
        EXECUTE pg_catalog.format('ALTER TABLE %s ENABLE REPLICA TRIGGER keep_out', private);
    END LOOP;
END $$;
