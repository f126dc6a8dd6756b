-- The first transactions of a leg: one look into the index for each, however many rows it has. Of large ones also what they
-- wrote of.
-- $1, $2 ranges of transactions, $3 limit
WITH RECURSIVE transaction (xid) AS (
    SELECT '0'::pg_catalog.xid8
     UNION ALL
    SELECT (SELECT o.xid
              FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.int8[]), pg_catalog.unnest($2::pg_catalog.int8[]))
                   range (low, high)
             CROSS JOIN LATERAL (
                   SELECT o.xid
                     FROM webhook.outbox o
                    WHERE o.xid > transaction.xid
                      AND o.xid >= range.low::pg_catalog.text::pg_catalog.xid8
                      AND o.xid < range.high::pg_catalog.text::pg_catalog.xid8
                    ORDER BY o.xid
                    LIMIT 1) o
             ORDER BY o.xid
             LIMIT 1)
      FROM transaction
     WHERE transaction.xid IS NOT NULL
)
SELECT transaction.xid::pg_catalog.text::pg_catalog.int8, large.types, large.targets
  FROM transaction
  LEFT JOIN LATERAL (
       SELECT l.types, l.targets
         FROM webhook.large_transaction l
        WHERE l.xid = transaction.xid
       OFFSET 0) large ON true
 WHERE transaction.xid > '0'::pg_catalog.xid8
 LIMIT $3
