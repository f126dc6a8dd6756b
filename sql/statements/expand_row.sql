-- The row that a foreign key refers to, by its key.
SELECT r.* FROM {only}{table} AS r WHERE {condition}
