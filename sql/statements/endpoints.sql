-- Every endpoint: what tells whether its configuration changed, its own position if it has one (without a row it follows the
-- head, position 0), and since when it has only failed. A subselect for each: before there are
-- statistics a join would be planned to read all secrets ten thousand times.
SELECT e.id, e.state,
       pg_catalog.concat_ws(' ', e.ctid, e.xmin,
           (SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ', s.ctid, s.xmin), ' ')
              FROM webhook.endpoint_secret s
             WHERE s.endpoint_id OPERATOR(pg_catalog.=) e.id)) AS version,
       p.done::pg_catalog.text, p.upto::pg_catalog.text, p.seq, f.since
  FROM webhook.endpoint AS e
  LEFT JOIN webhook.position AS p ON p.endpoint_id OPERATOR(pg_catalog.=) e.id
  LEFT JOIN webhook.failing AS f ON f.endpoint_id OPERATOR(pg_catalog.=) e.id
 ORDER BY e.id
