-- Whether this installation belongs to this cluster and database (or is a copy that must not send).
SELECT EXISTS (SELECT FROM webhook.installation i, pg_catalog.pg_control_system() c
                WHERE i.system_identifier = c.system_identifier
                  AND i.database_oid = (SELECT d.oid FROM pg_catalog.pg_database d
                                         WHERE d.datname = pg_catalog.current_database()))
