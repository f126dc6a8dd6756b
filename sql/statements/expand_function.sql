-- What a function of an attached table's row says. $1 is a row of that table, or of a partition of it.
SELECT {function}($1::{row_type})::pg_catalog.json
