-- What roles are given: bundles of rights on the extension's objects.
--
-- Rights are PostgreSQL's own and nothing else: what webhook_grant gives shows in \dp and \df+, goes with dumps, and can be
-- given and taken by GRANT and REVOKE as well. A role without any bundle goes on writing to attached tables.

-- ---- Owners of endpoints -------------------------------------------------------------------------------------------

-- Whether the role may change endpoints of this owner: who has the owner's privileges may, and who has those of the extension's
-- owner. An owner who was dropped leaves them to the latter.
CREATE FUNCTION webhook.may_change(role oid, owner regrole) RETURNS boolean LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT pg_has_role(role, owner::oid, 'USAGE')
           OR pg_has_role(role, (SELECT relowner FROM pg_class WHERE oid = 'webhook.endpoint'::regclass), 'USAGE')
$$;

-- The endpoints that the role may see, as the views show them; null: all.
CREATE FUNCTION webhook.seen_by(role oid) RETURNS bigint[] LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN NOT has_column_privilege(role, 'webhook.endpoint', 'owner', 'SELECT')
                THEN ARRAY(SELECT e.id FROM webhook.endpoint AS e WHERE pg_has_role(role, e.owner::oid, 'USAGE')) END
$$;

-- ---- Bundles -------------------------------------------------------------------------------------------------------

-- One line for each object that a role may be given: the function or view, who gets it, and of a view the columns, if not all.
CREATE FUNCTION webhook.bundled() RETURNS TABLE (name text, bundles text[], columns text) LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp AS $$
    VALUES
    -- Endpoints: a URL is a network right, and whoever may name one can have every event sent there.
    ('webhook_register',       '{admin}'::text[],           NULL),
    ('webhook_apply',          '{admin}',                   NULL),
    ('webhook_config',         '{admin}',                   NULL),
    ('webhook_update',         '{admin}',                   NULL),
    ('webhook_unregister',     '{admin}',                   NULL),
    ('webhook_pause',          '{admin}',                   NULL),
    ('webhook_resume',         '{admin}',                   NULL),
    ('webhook_rotate_secret',  '{admin}',                   NULL),
    ('webhook_test',           '{admin}',                   NULL),
    ('webhook_preview',        '{admin}',                   NULL),
    ('webhook_retry',          '{admin}',                   NULL),
    ('webhook_cancel',         '{admin}',                   NULL),
    ('webhook_replay',         '{admin}',                   NULL),
    ('webhook_backfill',       '{admin}',                   NULL),
    ('webhook_adopt',          '{admin}',                   NULL),
    -- Events. CREATE TRIGGER asks for the right to execute the trigger function.
    ('webhook_attach',         '{admin,publisher}',         NULL),
    ('webhook_detach',         '{admin,publisher}',         NULL),
    ('webhook_send',           '{admin,publisher}',         NULL),
    ('webhook.capture',        '{admin,publisher}',         NULL),
    -- What goes on, without what events and answers say.
    ('webhook_status',         '{admin,observer}',          NULL),
    ('webhook_metrics',        '{admin,observer}',          NULL),
    ('webhook.endpoints',      '{admin,observer}',          NULL),
    ('webhook.attachments',    '{admin,observer}',          NULL),
    ('webhook.deliveries',     '{admin,observer}',          NULL),
    ('webhook.stats',          '{admin,observer}',          NULL),
    ('webhook.current_stats',  '{admin,observer}',          NULL),  -- webhook.stats calls it
    ('webhook.progress',       '{admin,observer}',          NULL),
    ('webhook.events',         '{admin}',                   NULL),
    ('webhook.events',         '{observer}',                'id, type, key, occurred_at'),
    ('webhook.attempts',       '{admin}',                   NULL),
    ('webhook.attempts',       '{observer}',                'id, delivery_id, endpoint_id, event_id, attempt, started_at, duration_ms, status, error'),
    -- Whoever may read the owners of endpoints sees all endpoints in the views, others those of roles that they are in.
    ('webhook.endpoint',       '{observer}',                'owner')
$$;

-- Gives a role a bundle on top of what it has; 'none' takes everything away. Runs as the caller: only who owns the extension's
-- objects, and superusers, may give rights on them.
CREATE FUNCTION webhook_grant(bundle text, role regrole) RETURNS void LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    extension oid;
    home oid;
    statement text;
BEGIN
    IF bundle IS NULL OR role IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed',
            MESSAGE = CASE WHEN bundle IS NULL THEN 'bundle must not be null' ELSE 'role must not be null' END,
            HINT = 'Write for example webhook_grant(''observer'', ''grafana'').';
    END IF;
    IF bundle <> ALL ('{admin,publisher,observer,none}') THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'unknown bundle',
            DETAIL = format('The bundle is "%s".', bundle),
            HINT = 'The bundles are admin, publisher and observer; none takes all rights away.';
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles AS r WHERE r.oid = role) THEN
        RAISE EXCEPTION USING ERRCODE = 'undefined_object', MESSAGE = 'role does not exist', DETAIL = format('The role is %s.', role),
            HINT = 'Give the name of a role; nothing is given to PUBLIC.';
    END IF;
    IF NOT pg_has_role((SELECT c.relowner FROM pg_class AS c WHERE c.oid = 'webhook.endpoint'::regclass), 'USAGE') THEN
        RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = 'permission denied to give rights on webhook_pg',
            DETAIL = format('The role is %s.', current_user), HINT = 'Only the owner of the extension and superusers may.';
    END IF;
    SELECT e.oid, e.extnamespace INTO extension, home FROM pg_extension AS e WHERE e.extname = 'webhook_pg';
    -- Two at once would change the same catalog rows, which is an error.
    PERFORM pg_advisory_xact_lock('pg_extension'::regclass::oid::int, extension::int);

    FOR statement IN
        SELECT CASE WHEN bundle = 'none' THEN format('REVOKE ALL ON %s FROM %s', m.what, role)
                    ELSE format('GRANT %s%s ON %s TO %s', m.privilege, ' (' || b.columns || ')', m.what, role) END
          FROM (SELECT concat('webhook.', r.relname), concat(CASE r.relkind WHEN 'S' THEN 'SEQUENCE ' END, r.oid::regclass), 'SELECT'
                  FROM pg_depend AS d JOIN pg_class AS r ON r.oid = d.objid
                 WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_extension'::regclass AND d.refobjid = extension
                   AND d.deptype = 'e' AND r.relkind IN ('r', 'p', 'v', 'S')
                UNION ALL
                SELECT concat(CASE WHEN p.pronamespace <> home THEN 'webhook.' END, p.proname), concat('ROUTINE ', p.oid::regprocedure), 'EXECUTE'
                  FROM pg_depend AS d JOIN pg_proc AS p ON p.oid = d.objid
                 WHERE d.classid = 'pg_proc'::regclass AND d.refclassid = 'pg_extension'::regclass AND d.refobjid = extension
                   AND d.deptype = 'e'
                UNION ALL
                VALUES (NULL, 'SCHEMA webhook', 'USAGE')) AS m (name, what, privilege)
          LEFT JOIN webhook.bundled() AS b ON b.name = m.name AND bundle = ANY (b.bundles)
         WHERE bundle = 'none' OR m.name IS NULL OR b.name IS NOT NULL
    LOOP
        EXECUTE statement;
    END LOOP;
    IF bundle <> 'none' AND NOT has_schema_privilege(role, home, 'USAGE') THEN
        EXECUTE format('GRANT USAGE ON SCHEMA %s TO %s', home::regnamespace, role);
    END IF;
END $$;
