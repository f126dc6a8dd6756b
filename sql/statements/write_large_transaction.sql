-- What this transaction wrote of.
-- $1 types, $2 endpoints for which alone it wrote
INSERT INTO webhook.large_transaction (xid, types, targets) VALUES (pg_catalog.pg_current_xact_id(), $1, $2)
