-- One line for each thing that the extension consists of, in an order that does not depend on how it came about. $1: with the texts of
-- functions and views, which are compared between two databases of one server; pg_get_viewdef differs between versions.
WITH extension AS (
    SELECT oid, extconfig, extcondition FROM pg_extension WHERE extname = 'webhook_pg'
), member AS (
    SELECT d.classid, d.objid FROM pg_depend AS d, extension AS e
     WHERE d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e'
), relation AS (
    SELECT c.* FROM pg_class AS c JOIN member AS m ON m.classid = 'pg_class'::regclass AND m.objid = c.oid
), grants (objid, text) AS (
    SELECT objid, string_agg(line, ', ' ORDER BY line)
      FROM (SELECT o.objid, format('%s=%s', CASE WHEN a.grantee = 0 THEN 'PUBLIC' WHEN a.grantee = o.owner THEN 'owner'
                                                 ELSE a.grantee::regrole::text END,
                                   string_agg(a.privilege_type, ' ' ORDER BY a.privilege_type)) AS line
              FROM (SELECT oid AS objid, relowner AS owner, coalesce(relacl, acldefault(CASE relkind WHEN 'S' THEN 's'::"char" ELSE 'r' END, relowner)) AS acl FROM relation
                    UNION ALL
                    SELECT p.oid, p.proowner, coalesce(p.proacl, acldefault('f', p.proowner)) FROM pg_proc AS p JOIN member AS m ON m.classid = 'pg_proc'::regclass AND m.objid = p.oid
                    UNION ALL
                    SELECT n.oid, n.nspowner, coalesce(n.nspacl, acldefault('n', n.nspowner)) FROM pg_namespace AS n JOIN member AS m ON m.classid = 'pg_namespace'::regclass AND m.objid = n.oid) AS o,
                   LATERAL aclexplode(o.acl) AS a
             -- PostgreSQL 17 gave owners another privilege.
             WHERE NOT (a.grantee = o.owner)
             GROUP BY o.objid, o.owner, a.grantee) AS lines
     GROUP BY objid
)
SELECT line FROM (
    SELECT format('function %s(%s) returns %s; %s%s%s%s%s; grants %s%s', p.oid::regproc, pg_get_function_arguments(p.oid),
                  pg_get_function_result(p.oid), l.lanname, CASE p.provolatile WHEN 'i' THEN ' immutable' WHEN 's' THEN ' stable' ELSE '' END,
                  CASE WHEN p.proisstrict THEN ' strict' END, CASE WHEN p.prosecdef THEN ' security definer' END,
                  ' ' || array_to_string(p.proconfig, ' '), coalesce((SELECT text FROM grants WHERE objid = p.oid), 'none'),
                  CASE WHEN l.lanname = 'c' THEN '; symbol ' || p.prosrc WHEN $1 THEN E'\n' || p.prosrc END) AS line
      FROM pg_proc AS p JOIN member AS m ON m.classid = 'pg_proc'::regclass AND m.objid = p.oid JOIN pg_language AS l ON l.oid = p.prolang
    UNION ALL
    SELECT format('%s %s%s; grants %s%s', CASE c.relkind WHEN 'v' THEN 'view' WHEN 'S' THEN 'sequence' ELSE 'table' END, c.oid::regclass,
                  CASE WHEN c.relkind = 'r' THEN concat(' persistence ', c.relpersistence, ' replica identity ', c.relreplident,
                       CASE WHEN c.relrowsecurity THEN ' row security' END, ' ' || array_to_string(c.reloptions, ' ')) END,
                  coalesce((SELECT text FROM grants WHERE objid = c.oid), 'none'),
                  CASE WHEN c.relkind = 'v' AND $1 THEN E'\n' || pg_get_viewdef(c.oid) END)
      FROM relation AS c WHERE c.relkind IN ('r', 'v', 'S', 'p', 'm')
    UNION ALL
    SELECT format('column %s.%s %s%s%s%s', c.oid::regclass, a.attname, format_type(a.atttypid, a.atttypmod), CASE WHEN a.attnotnull THEN ' not null' END,
                  CASE WHEN a.attidentity <> '' THEN ' identity ' || a.attidentity::text END, ' default ' || pg_get_expr(d.adbin, d.adrelid))
      FROM relation AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
      LEFT JOIN pg_attrdef AS d ON d.adrelid = c.oid AND d.adnum = a.attnum
     WHERE c.relkind <> 'S'
    UNION ALL
    -- Not null is a constraint of its own since PostgreSQL 18.
    SELECT format('constraint %s on %s %s', n.conname, c.oid::regclass, pg_get_constraintdef(n.oid))
      FROM relation AS c JOIN pg_constraint AS n ON n.conrelid = c.oid WHERE n.contype <> 'n'
    UNION ALL
    SELECT format('index %s', pg_get_indexdef(i.indexrelid)) FROM relation AS c JOIN pg_index AS i ON i.indrelid = c.oid
    UNION ALL
    SELECT format('trigger %s enabled %s', pg_get_triggerdef(t.oid), t.tgenabled) FROM relation AS c JOIN pg_trigger AS t ON t.tgrelid = c.oid WHERE NOT t.tgisinternal
    UNION ALL
    SELECT format('sequence %s increment %s start %s', s.seqrelid::regclass, s.seqincrement, s.seqstart) FROM relation AS c JOIN pg_sequence AS s ON s.seqrelid = c.oid
    UNION ALL
    SELECT format('schema %s; grants %s', n.nspname, coalesce((SELECT text FROM grants WHERE objid = n.oid), 'none'))
      FROM pg_namespace AS n JOIN member AS m ON m.classid = 'pg_namespace'::regclass AND m.objid = n.oid
    UNION ALL
    SELECT format('dumped %s %s', t.relation::regclass, t.condition) FROM extension AS e, unnest(e.extconfig, e.extcondition) AS t (relation, condition)
) AS lines
ORDER BY line COLLATE "C"
