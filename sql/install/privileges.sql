-- PUBLIC gets nothing, not even EXECUTE on functions, which PostgreSQL would give. Over all members of the extension, so
-- that none can be forgotten; a test looks at the catalogs. The row types of tables and views are left as they are:
-- without USAGE on schema webhook nobody can name them, and pg_dump warns about each row type whose rights differ.
DO $$
DECLARE
    member record;
BEGIN
    FOR member IN
        SELECT d.classid, d.objid
          FROM pg_catalog.pg_depend AS d
          JOIN pg_catalog.pg_extension AS e ON e.oid OPERATOR(pg_catalog.=) d.refobjid
         WHERE d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass
           AND d.deptype OPERATOR(pg_catalog.=) 'e' AND e.extname OPERATOR(pg_catalog.=) 'webhook_pg'
    LOOP
        CASE member.classid
            WHEN 'pg_catalog.pg_proc'::pg_catalog.regclass THEN
                EXECUTE pg_catalog.format('REVOKE ALL ON ROUTINE %s FROM PUBLIC', member.objid::pg_catalog.regprocedure);
            WHEN 'pg_catalog.pg_class'::pg_catalog.regclass THEN
                EXECUTE (SELECT pg_catalog.format('REVOKE ALL ON %s %s FROM PUBLIC',
                        CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, c.oid::pg_catalog.regclass)
                          FROM pg_catalog.pg_class AS c WHERE c.oid OPERATOR(pg_catalog.=) member.objid);
            WHEN 'pg_catalog.pg_namespace'::pg_catalog.regclass THEN
                EXECUTE pg_catalog.format('REVOKE ALL ON SCHEMA %s FROM PUBLIC', member.objid::pg_catalog.regnamespace);
            ELSE
                NULL;
        END CASE;
    END LOOP;
END $$;

-- What pg_dump takes along: configuration, and where it came from, so that a restored copy sends nothing until
-- webhook_adopt(). Of secrets only what is sealed; not events, deliveries or positions.
SELECT pg_catalog.pg_extension_config_dump('webhook.installation', '');
SELECT pg_catalog.pg_extension_config_dump('webhook.attachment', '');
SELECT pg_catalog.pg_extension_config_dump('webhook.attachment_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('webhook.endpoint', '');
SELECT pg_catalog.pg_extension_config_dump('webhook.endpoint_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('webhook.sealed_secret', '');

-- When this commits, the launcher sends a worker.
SELECT webhook.recheck();
