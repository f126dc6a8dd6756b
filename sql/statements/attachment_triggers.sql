-- The triggers of an attachment: one for all row operations, or one for each with a condition, and one for TRUNCATE.
-- $1 table, $2 name of the first, of which the others' names are extensions
SELECT t.tgname::pg_catalog.text
  FROM pg_catalog.pg_trigger t
 WHERE t.tgrelid OPERATOR(pg_catalog.=) $1 AND NOT t.tgisinternal
   AND (t.tgname OPERATOR(pg_catalog.=) $2::pg_catalog.name
        OR pg_catalog.starts_with(t.tgname::pg_catalog.text, $2 OPERATOR(pg_catalog.||) '_'))
 ORDER BY t.tgname
