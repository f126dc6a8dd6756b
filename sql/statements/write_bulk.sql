-- Notes that this transaction has made so many events for one endpoint of the rows of a table.
-- $1 endpoint, $2 events
INSERT INTO webhook.bulk (kind, endpoint_id, events, xid) VALUES ('backfill', $1, $2, pg_catalog.pg_current_xact_id())
