-- An attachment is known by (table, resource, as_action): the same again changes it.
INSERT INTO webhook.attachment AS a
       (table_name, resource, as_action, actions, key, columns, exclude, watch, condition, always, expand_names, expand_sources,
        expand_path)
VALUES ($1::pg_catalog.regclass, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
ON CONFLICT (table_name, resource, (coalesce(as_action, ''))) DO UPDATE
   SET actions = excluded.actions, key = excluded.key, columns = excluded.columns, exclude = excluded.exclude,
       watch = excluded.watch, condition = excluded.condition, always = excluded.always,
       expand_names = excluded.expand_names, expand_sources = excluded.expand_sources,
       expand_path = excluded.expand_path
RETURNING a.id
