-- Deletes events that are older than the backlog may be, with their deliveries and attempts, and counts them for each endpoint
-- that would still have got them. Says how many were counted.
-- $1 xids, $2 numbers
WITH event AS MATERIALIZED (
    SELECT o AS whole, o.ctid, o.xid, o.seq
      FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.int8[]), pg_catalog.unnest($2::pg_catalog.int8[])) place (xid, seq)
      JOIN webhook.outbox o ON o.xid = place.xid::pg_catalog.text::pg_catalog.xid8 AND o.seq = place.seq
), laggard AS MATERIALIZED (
    SELECT e AS whole, e.id, p.done, p.upto, p.seq
      FROM webhook.endpoint e
      LEFT JOIN webhook.position own ON own.endpoint_id = e.id
      JOIN webhook.position p ON p.endpoint_id = coalesce(own.endpoint_id, 0)
     WHERE e.state <> 'inactive'
       AND pg_catalog.pg_snapshot_xmin(p.done) <= (SELECT event.xid FROM event ORDER BY event.xid DESC LIMIT 1)
), missed AS (
    SELECT l.id AS endpoint_id
      FROM event, laggard l
     WHERE NOT pg_catalog.pg_visible_in_snapshot(event.xid, l.done)
       AND NOT (l.upto IS NOT NULL AND event.seq <= l.seq AND pg_catalog.pg_visible_in_snapshot(event.xid, l.upto))
       AND NOT EXISTS (SELECT FROM webhook.delivery d
                        WHERE d.xid = event.xid AND d.seq = event.seq AND d.endpoint_id = l.id)
       AND webhook.wants(l.whole, event.whole)
    UNION ALL
    SELECT d.endpoint_id
      FROM event
      JOIN webhook.delivery d ON d.xid = event.xid AND d.seq = event.seq
     WHERE d.state = 'pending'
), counted AS (
    INSERT INTO webhook.dropped AS t (endpoint_id, events, last_at)
    SELECT m.endpoint_id, pg_catalog.count(*), pg_catalog.now() FROM missed m GROUP BY m.endpoint_id
        ON CONFLICT (endpoint_id) DO UPDATE SET events = t.events + EXCLUDED.events, last_at = EXCLUDED.last_at
    RETURNING t.endpoint_id
), deliveries AS (
    DELETE FROM webhook.delivery d
     WHERE d.ctid = ANY (ARRAY(SELECT d.ctid FROM event
                                 JOIN webhook.delivery d ON d.xid = event.xid AND d.seq = event.seq))
    RETURNING d.id
), attempts AS (
    DELETE FROM webhook.attempt a WHERE a.delivery_id = ANY (ARRAY(SELECT d.id FROM deliveries d))
), events AS (
    DELETE FROM webhook.outbox o WHERE o.ctid = ANY (ARRAY(SELECT event.ctid FROM event))
)
SELECT pg_catalog.count(*) FROM missed
