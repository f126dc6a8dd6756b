-- The places of a leg (src/position.rs) in no order, one more than a short leg has at most.
-- $1, $2 ranges of transactions, $3 after this number, $4 up to this number, $5 limit
-- OFFSET 0 keeps the order of the loops: an outbox that has no statistics yet looks so small that the planner may put it outside.
SELECT pg_catalog.array_agg(leg.xid::pg_catalog.text::pg_catalog.int8), pg_catalog.array_agg(leg.seq)
  FROM (SELECT o.xid, o.seq
          FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.int8[]), pg_catalog.unnest($2::pg_catalog.int8[])) range (low, high)
         CROSS JOIN LATERAL (
               SELECT o.xid, o.seq
                 FROM webhook.outbox o
                WHERE o.xid >= range.low::pg_catalog.text::pg_catalog.xid8
                  AND o.xid < range.high::pg_catalog.text::pg_catalog.xid8
                  AND o.seq > $3 AND o.seq <= $4
               OFFSET 0) o
         LIMIT $5) leg
