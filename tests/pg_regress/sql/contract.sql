-- The names, parameters and defaults that users and other software rely on. A change here is a change of the contract.
SET client_min_messages = warning;
\pset format unaligned
CREATE EXTENSION IF NOT EXISTS webhook_pg;
SELECT p.proname AS function, pg_get_function_arguments(p.oid) AS arguments, pg_get_function_result(p.oid) AS result
  FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
  JOIN pg_extension e ON e.oid = d.refobjid
 WHERE e.extname = 'webhook_pg' AND p.pronamespace = e.extnamespace
 ORDER BY p.proname COLLATE "C", 2;
SELECT c.relname AS view, string_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod), ', ' ORDER BY a.attnum) AS columns
  FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
 WHERE c.relnamespace = 'webhook'::regnamespace AND c.relkind = 'v'
 GROUP BY c.relname ORDER BY c.relname COLLATE "C";
SELECT name, boot_val, unit, context, vartype FROM pg_settings WHERE name LIKE 'webhook\_pg.%' ORDER BY name COLLATE "C";
