-- What had completed when this transaction began.
SELECT pg_catalog.pg_current_snapshot()::pg_catalog.text
