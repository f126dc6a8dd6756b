-- How long this transaction waits for a lock.
-- $1 milliseconds
SELECT pg_catalog.set_config('lock_timeout', $1, true)
