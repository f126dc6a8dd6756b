-- Events that are old enough and that nobody needs, with their deliveries: one step of a walk through the outbox, oldest
-- transactions first. It stops before the first event that is too young, and leaves out what a delivery that is pending, ended too
-- short a time ago or is being changed by an open transaction still needs. Says how far it came, what is to be deleted, and what is
-- older than the backlog may be. Only looks: what writes takes a transaction id.
-- $1, $2 place after which to go on, $3 transactions from here on are not consumed, $4 nor are these, $5 limit,
-- $6 seconds to keep events, $7 dead deliveries, $8 events that are not delivered
WITH seen AS MATERIALIZED (
    SELECT o.ctid, o.xid, o.seq,
           o.xid >= $3::pg_catalog.text::pg_catalog.xid8 AS is_ahead,
           o.xid = ANY ($4::pg_catalog.text[]::pg_catalog.xid8[]) AS is_awaited,
           o.occurred_at >= pg_catalog.now() - $6 * interval '1 second' AS is_young,
           o.occurred_at < pg_catalog.now() - $8 * interval '1 second' AS is_expired
      FROM webhook.outbox o
     WHERE (o.xid, o.seq) > ($1::pg_catalog.text::pg_catalog.xid8, $2)
     ORDER BY o.xid, o.seq
     LIMIT $5
), reached AS MATERIALIZED (
    SELECT s.*
      FROM (SELECT seen.*, pg_catalog.bool_or(seen.is_young OR (seen.is_ahead AND NOT seen.is_expired))
                               OVER (ORDER BY seen.xid, seen.seq) AS is_beyond
              FROM seen) s
     WHERE NOT s.is_beyond
), judged AS MATERIALIZED (
    SELECT r.ctid, r.xid, r.seq, coalesce(d.ids, '{}') AS ids, coalesce(d.ctids, '{}') AS ctids,
           CASE WHEN d.is_kept THEN 'keep'
                WHEN NOT (r.is_ahead OR r.is_awaited OR coalesce(d.is_pending, false)) THEN 'prune'
                WHEN r.is_expired THEN 'drop'
                ELSE 'keep' END AS verdict
      FROM reached r
     CROSS JOIN LATERAL (
           SELECT pg_catalog.array_agg(d.id) AS ids, pg_catalog.array_agg(d.ctid) AS ctids,
                  pg_catalog.bool_or(d.state = 'pending') AS is_pending,
                  pg_catalog.bool_or(
                      coalesce(d.finished_at >= pg_catalog.now()
                               - CASE d.state WHEN 'dead' THEN $7 ELSE $6 END * interval '1 second', false)
                      OR (d.xmax <> '0' AND webhook.is_held(d.xmax))) AS is_kept
             FROM webhook.delivery d
            WHERE d.xid = r.xid AND d.seq = r.seq) d
)
SELECT pg_catalog.count(*),
       (SELECT last.xid::pg_catalog.text::pg_catalog.int8 FROM judged last ORDER BY last.xid DESC, last.seq DESC LIMIT 1),
       (SELECT last.seq FROM judged last ORDER BY last.xid DESC, last.seq DESC LIMIT 1),
       pg_catalog.array_agg(j.ctid::pg_catalog.text) FILTER (WHERE j.verdict = 'prune'),
       ARRAY(SELECT pg_catalog.unnest(g.ctids)::pg_catalog.text FROM judged g WHERE g.verdict = 'prune'),
       ARRAY(SELECT pg_catalog.unnest(g.ids) FROM judged g WHERE g.verdict = 'prune'),
       pg_catalog.array_agg(j.xid::pg_catalog.text::pg_catalog.int8) FILTER (WHERE j.verdict = 'drop'),
       pg_catalog.array_agg(j.seq) FILTER (WHERE j.verdict = 'drop')
  FROM judged j
