-- The places of a leg (src/position.rs), lowest numbers first, as two arrays: a row each would take ten times the memory.
-- $1 xmax of done, $2 xip of done, $3 upto, $4 after this number, $5 up to this number, $6 limit
SELECT pg_catalog.array_agg(place.xid::pg_catalog.text::pg_catalog.int8), pg_catalog.array_agg(place.seq)
  FROM (SELECT leg.xid, leg.seq
          FROM (SELECT o.xid, o.seq
                  FROM webhook.outbox o
                 WHERE o.xid >= $1::pg_catalog.xid8
                   AND o.xid < pg_catalog.pg_snapshot_xmax($3::pg_catalog.pg_snapshot)
                   AND pg_catalog.pg_visible_in_snapshot(o.xid, $3::pg_catalog.pg_snapshot)
                   AND o.seq > $4 AND o.seq <= $5
                UNION ALL
                SELECT o.xid, o.seq
                  FROM webhook.outbox o
                 WHERE o.xid = ANY ($2::pg_catalog.xid8[])
                   AND pg_catalog.pg_visible_in_snapshot(o.xid, $3::pg_catalog.pg_snapshot)
                   AND o.seq > $4 AND o.seq <= $5) leg
         ORDER BY leg.seq
         LIMIT $6) place
