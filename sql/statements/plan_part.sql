-- The next places of a leg of few transactions, lowest numbers first, without the types that nobody wants; and the number up to
-- which they were looked for, null when that is the end. It looks at so many rows of each transaction and at no others, so
-- that a transaction of a million rows holds up nobody.
-- $1 transactions, $2 after this number, $3 up to this number, $4 rows of each, $5 unwanted types
WITH looked AS MATERIALIZED (
    SELECT transaction.xid, o.seq, o.is_wanted
      FROM pg_catalog.unnest($1::pg_catalog.int8[]) transaction (xid)
     CROSS JOIN LATERAL (
           SELECT o.seq, (o.target IS NOT NULL OR o.type <> ALL ($5)) AS is_wanted
             FROM webhook.outbox o
            WHERE o.xid = transaction.xid::pg_catalog.text::pg_catalog.xid8 AND o.seq > $2 AND o.seq <= $3
            ORDER BY o.seq
            LIMIT $4) o
), reach AS (
    SELECT min(part.last) AS seq
      FROM (SELECT max(looked.seq) AS last FROM looked GROUP BY looked.xid HAVING count(*) = $4) part
)
SELECT pg_catalog.array_agg(looked.xid ORDER BY looked.seq), pg_catalog.array_agg(looked.seq ORDER BY looked.seq),
       (SELECT reach.seq FROM reach)
  FROM looked
 WHERE looked.is_wanted AND looked.seq <= coalesce((SELECT reach.seq FROM reach), $3)
