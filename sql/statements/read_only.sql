-- Whether this database is to be read only, by its own setting if it has one; and whether this session has its value from
-- there, so that it must be started anew when that setting is gone.
SELECT (SELECT pg_catalog.split_part(entry, '=', 2)
          FROM pg_catalog.pg_db_role_setting s, pg_catalog.unnest(s.setconfig) entry
         WHERE s.setrole = 0 AND s.setdatabase = (SELECT d.oid FROM pg_catalog.pg_database d
                                                   WHERE d.datname = pg_catalog.current_database())
           AND entry LIKE 'default_transaction_read_only=%'),
       (SELECT s.source = 'database' FROM pg_catalog.pg_settings s WHERE s.name = 'default_transaction_read_only')
