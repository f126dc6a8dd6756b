-- The keys of the events at these places, in the order asked for.
-- $1 xids, $2 numbers
SELECT o.key, o.type
  FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.int8[]), pg_catalog.unnest($2::pg_catalog.int8[]))
       WITH ORDINALITY place (xid, seq, nth)
 CROSS JOIN LATERAL (
       SELECT o.key, o.type
         FROM webhook.outbox o
        WHERE o.xid = place.xid::pg_catalog.text::pg_catalog.xid8 AND o.seq = place.seq
       OFFSET 0) o
 ORDER BY place.nth
