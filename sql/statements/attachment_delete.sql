DELETE FROM webhook.attachment
 WHERE table_name OPERATOR(pg_catalog.=) $1
   AND ($2 IS NULL OR resource OPERATOR(pg_catalog.=) $2)
   AND ($3 IS NULL OR as_action OPERATOR(pg_catalog.=) $3)
RETURNING id
