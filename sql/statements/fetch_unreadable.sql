-- What can be known of an event whose texts cannot be read.
-- $1 xid, $2 number
SELECT o.xid::pg_catalog.text::pg_catalog.int8, o.seq, o.occurred_at, o.target, o.id, o.truncated, o.type, o.operation,
       NULL::pg_catalog.text, NULL::pg_catalog.text, NULL::pg_catalog.text, NULL::pg_catalog.text, NULL::pg_catalog.text,
       NULL::pg_catalog.text
  FROM webhook.outbox o
 WHERE o.xid = $1::pg_catalog.text::pg_catalog.xid8 AND o.seq = $2
