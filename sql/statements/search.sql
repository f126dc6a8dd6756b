-- The places of a leg among the next rows of the index, without the types that nobody wants, and the last of these rows, null
-- when they were the last of all.
-- $1, $2 ranges of transactions, ascending, $3 after this transaction and $4 number, $5 rows to look at, $6 after this number,
-- $7 up to this number, $8 unwanted types
WITH looked AS MATERIALIZED (
    SELECT o.xid, o.seq, o.is_wanted
      FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.int8[]), pg_catalog.unnest($2::pg_catalog.int8[]))
           WITH ORDINALITY range (low, high, nth)
     CROSS JOIN LATERAL (
           SELECT o.xid, o.seq, (o.target IS NOT NULL OR o.type <> ALL ($8)) AS is_wanted
             FROM webhook.outbox o
            WHERE (o.xid, o.seq) > ($3::pg_catalog.text::pg_catalog.xid8, $4::pg_catalog.int8)
              AND o.xid >= range.low::pg_catalog.text::pg_catalog.xid8
              AND o.xid < range.high::pg_catalog.text::pg_catalog.xid8
            ORDER BY o.xid, o.seq
           OFFSET 0) o
     LIMIT $5
), places AS (
    SELECT pg_catalog.array_agg(looked.xid::pg_catalog.text::pg_catalog.int8) AS xids, pg_catalog.array_agg(looked.seq) AS seqs
      FROM looked
     WHERE looked.is_wanted AND looked.seq > $6 AND looked.seq <= $7
), last AS (
    SELECT looked.xid::pg_catalog.text::pg_catalog.int8 AS xid, looked.seq
      FROM looked
    OFFSET $5 - 1
)
SELECT places.xids, places.seqs, last.xid, last.seq FROM places LEFT JOIN last ON true
