-- The places of a leg of many transactions, lowest numbers first, without the types that nobody wants. Two arrays: a row each
-- would take ten times the memory.
-- $1, $2 ranges of transactions, $3 after this number, $4 up to this number, $5 limit, $6 unwanted types
SELECT pg_catalog.array_agg(place.xid::pg_catalog.text::pg_catalog.int8), pg_catalog.array_agg(place.seq)
  FROM (SELECT o.xid, o.seq
          FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.int8[]), pg_catalog.unnest($2::pg_catalog.int8[])) range (low, high)
         CROSS JOIN LATERAL (
               SELECT o.xid, o.seq
                 FROM webhook.outbox o
                WHERE o.xid >= range.low::pg_catalog.text::pg_catalog.xid8
                  AND o.xid < range.high::pg_catalog.text::pg_catalog.xid8
                  AND o.seq > $3 AND o.seq <= $4
                  AND (o.target IS NOT NULL OR o.type <> ALL ($6))
               OFFSET 0) o
         ORDER BY o.seq
         LIMIT $5) place
