-- Which endpoints that have a scope or a filter want these events. Both see the new row of an update and the old one of a
-- deletion; of a thin event the scope sees the key. A filter that fails says neither yes nor no.
-- $1 xids, $2 numbers, $3 for each the number of a list, $4 lists of endpoints as the texts of arrays
WITH event AS MATERIALIZED (
    SELECT place.xid, place.seq, place.list, place.nth, o.type, o.data, o.previous, o.key
      FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.int8[]), pg_catalog.unnest($2::pg_catalog.int8[]),
                      pg_catalog.unnest($3::pg_catalog.int8[]))
           WITH ORDINALITY place (xid, seq, list, nth)
     CROSS JOIN LATERAL (
           SELECT *
             FROM webhook.outbox o
            WHERE o.xid = place.xid::pg_catalog.text::pg_catalog.xid8 AND o.seq = place.seq
           OFFSET 0) o
), document AS MATERIALIZED (
    SELECT event.xid, event.seq, event.list, event.nth, coalesce(event.data, event.key) AS row,
           pg_catalog.jsonb_build_object('type', event.type, 'data', event.data)
               || CASE WHEN event.previous IS NULL THEN '{}' ELSE pg_catalog.jsonb_build_object('previous', event.previous) END
               || CASE WHEN event.key IS NULL THEN '{}' ELSE pg_catalog.jsonb_build_object('key', event.key) END AS whole
      FROM (SELECT event.xid, event.seq, event.list, event.nth, event.type,
                   webhook.comparable(event.data)::pg_catalog.jsonb AS data,
                   webhook.comparable(event.previous)::pg_catalog.jsonb AS previous,
                   webhook.comparable(event.key)::pg_catalog.jsonb AS key
              FROM event OFFSET 0) event
), list AS MATERIALIZED (
    SELECT list.nth, list.endpoints::pg_catalog.int8[] AS endpoints
      FROM pg_catalog.unnest($4::pg_catalog.text[]) WITH ORDINALITY list (endpoints, nth)
)
SELECT document.xid, document.seq, coalesce(pg_catalog.array_agg(e.id) FILTER (WHERE verdict.passes), '{}'),
       coalesce(pg_catalog.array_agg(e.id) FILTER (WHERE verdict.passes IS NULL), '{}')
  FROM document
  JOIN list ON list.nth = document.list
 CROSS JOIN LATERAL pg_catalog.unnest(list.endpoints) asked (endpoint_id)
  JOIN webhook.endpoint e ON e.id = asked.endpoint_id
 CROSS JOIN LATERAL (
       SELECT (e.scope IS NULL OR coalesce(document.row @> e.scope, false))
              AND (e.filter IS NULL OR pg_catalog.jsonb_path_match(document.whole, e.filter, '{}', true))) verdict (passes)
 GROUP BY document.nth, document.xid, document.seq
 ORDER BY document.nth
