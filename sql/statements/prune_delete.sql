-- Deletes events, their deliveries and attempts, as prune_events.sql found them in this transaction. Says how many deliveries it
-- deleted: fewer than were found means that somebody has changed one meanwhile, and all is to be undone.
-- $1 rows of events, $2 rows of deliveries, $3 ids of these, $4 a transaction of which the walk has come past all earlier ones
WITH deliveries AS (
    DELETE FROM webhook.delivery d WHERE d.ctid = ANY ($2::pg_catalog.text[]::pg_catalog.tid[]) AND d.state <> 'pending'
    RETURNING d.id
), attempts AS (
    DELETE FROM webhook.attempt a WHERE a.delivery_id = ANY ($3)
), events AS (
    DELETE FROM webhook.outbox o WHERE o.ctid = ANY ($1::pg_catalog.text[]::pg_catalog.tid[])
), large AS (
    DELETE FROM webhook.large_transaction l WHERE l.xid < $4::pg_catalog.text::pg_catalog.xid8
), bulk AS (
    DELETE FROM webhook.bulk b WHERE b.xid < $4::pg_catalog.text::pg_catalog.xid8
), counted AS (
    UPDATE webhook.pruned p SET events = p.events + pg_catalog.cardinality($1), last_at = pg_catalog.now()
)
SELECT pg_catalog.count(*) FROM deliveries
