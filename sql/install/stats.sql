-- How every endpoint is doing: webhook.stats. docs/monitoring.md says what each figure means and how old it may be.

-- What changes from moment to moment, from shared memory (src/pg/board.rs), as JSON: one object for each endpoint that the worker of
-- this database is or was busy with. Null without the preload.
CREATE FUNCTION webhook.board() RETURNS text LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'board_wrapper';

-- How many rows of the outbox a condition will find, as the planner estimates it.
CREATE FUNCTION webhook.estimated_events(condition text) RETURNS float8 LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    plan json;
BEGIN
    EXECUTE concat('EXPLAIN (FORMAT JSON) SELECT FROM webhook.outbox WHERE ', condition) INTO plan;
    RETURN (plan #>> '{0,Plan,Plan Rows}')::float8;
END $$;

-- The new row (of a deletion the old one), for scopes, and the whole document, for filters: as sql/statements/select.sql has them. Null
-- for an event that jsonb cannot take.
CREATE FUNCTION webhook.document(o webhook.outbox, OUT content jsonb, OUT whole jsonb) LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    content := webhook.comparable(coalesce(o.data, o.key))::jsonb;
    whole := jsonb_build_object('type', o.type, 'data', webhook.comparable(o.data)::jsonb)
        || CASE WHEN o.previous IS NULL THEN '{}' ELSE jsonb_build_object('previous', webhook.comparable(o.previous)::jsonb) END
        || CASE WHEN o.key IS NULL THEN '{}' ELSE jsonb_build_object('key', webhook.comparable(o.key)::jsonb) END;
EXCEPTION WHEN OTHERS THEN
    NULL;
END $$;

-- What lies before endpoints: committed events that they want, that their position has not passed and that have no delivery yet.
-- The first 50,000 events behind each position are looked at (fewer when more than two endpoints lag behind), whoever wants them;
-- beyond, the planner says how many there are, and what was looked at says what part of them is wanted. Of these, scopes and filters
-- see the first 1,000 (fewer when more than ten endpoints lag behind) or 8 MB, which then stand for the rest.
-- The settings are for an outbox that has no statistics yet: it must be read through its index all the same.
CREATE FUNCTION webhook.backlog() RETURNS TABLE (endpoint_id bigint, events bigint, oldest timestamptz) LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
DECLARE
    p record;
    budget bigint;
    samples bigint;
BEGIN
    SELECT greatest(100, least(50000, 100000 / count(*))), greatest(10, least(1000, 10000 / count(*))) INTO budget, samples FROM webhook.position;
    FOR p IN
        SELECT s.done, s.upto, s.seq, r.readers
          FROM webhook.position AS s
         CROSS JOIN LATERAL (
               SELECT array_agg(e.id) AS readers
                 FROM webhook.endpoint AS e
                WHERE e.state <> 'inactive'
                  AND CASE WHEN s.endpoint_id = 0
                           THEN NOT EXISTS (SELECT FROM webhook.position AS own WHERE own.endpoint_id = e.id)
                           ELSE e.id = s.endpoint_id END) AS r
         WHERE r.readers IS NOT NULL
           -- Most stand at the present, and the query below is long.
           AND (EXISTS (SELECT FROM webhook.outbox AS o WHERE o.xid >= pg_snapshot_xmax(s.done))
                OR EXISTS (SELECT FROM pg_snapshot_xip(s.done) AS running (xid), LATERAL (
                              SELECT FROM webhook.outbox AS o WHERE o.xid = running.xid LIMIT 1) AS o))
    LOOP
        RETURN QUERY
        WITH ahead AS MATERIALIZED (
            -- Of transactions that were running; of the rest of the open batch; of what has come since.
            SELECT a.xid, a.seq, a.type, a.target, CASE WHEN a.type = 'webhook.endpoint_disabled' THEN a.key END AS about, a.occurred_at
              FROM (SELECT o.*
                      FROM pg_snapshot_xip(p.done) AS running (xid)
                     CROSS JOIN LATERAL (SELECT * FROM webhook.outbox AS o WHERE o.xid = running.xid OFFSET 0) AS o
                     WHERE p.upto IS NULL OR o.seq > p.seq OR NOT pg_visible_in_snapshot(o.xid, p.upto)
                    UNION ALL
                    SELECT o.*
                      FROM webhook.outbox AS o
                     WHERE o.xid >= pg_snapshot_xmax(p.done) AND o.xid < pg_snapshot_xmax(p.upto) AND o.seq > p.seq
                    UNION ALL
                    SELECT o.*
                      FROM pg_snapshot_xip(p.upto) AS running (xid)
                     CROSS JOIN LATERAL (SELECT * FROM webhook.outbox AS o WHERE o.xid = running.xid OFFSET 0) AS o
                     WHERE running.xid >= pg_snapshot_xmax(p.done) AND o.seq <= p.seq
                    UNION ALL
                    SELECT o.*
                      FROM webhook.outbox AS o
                     WHERE o.xid >= pg_snapshot_xmax(coalesce(p.upto, p.done))) AS a
             LIMIT budget
        ), whole AS MATERIALIZED (
            -- For each event that was looked at there are so many.
            SELECT CASE WHEN looked.n < budget THEN 1
                        ELSE greatest(1, webhook.estimated_events(format('xid >= %L', pg_snapshot_xmax(coalesce(p.upto, p.done)))) / looked.n
                             + CASE WHEN p.upto IS NULL THEN 0
                                    ELSE webhook.estimated_events(format('xid >= %L AND xid < %L AND seq > %s',
                                         pg_snapshot_xmax(p.done), pg_snapshot_xmax(p.upto), p.seq)) / looked.n END) END AS factor
              FROM (SELECT count(*) AS n FROM ahead) AS looked
        ), kind AS MATERIALIZED (
            SELECT a.type, a.target, a.about, count(*) AS n FROM ahead AS a GROUP BY a.type, a.target, a.about
        ), reader AS MATERIALIZED (
            SELECT e.id, e.events, e.scope, e.filter, e.scope IS NOT NULL OR e.filter IS NOT NULL AS chooses,
                   format('{"id":%s}', e.id) AS self
              FROM webhook.endpoint AS e
             WHERE e.id = ANY (p.readers) AND EXISTS (SELECT FROM kind)
        ), wanted AS MATERIALIZED (
            SELECT r.id, sum(k.n) AS n, coalesce(array_agg(DISTINCT k.type) FILTER (WHERE k.target IS NULL), '{}') AS types
              FROM reader AS r
              JOIN kind AS k ON CASE WHEN k.target IS NULL
                                     THEN webhook.matches(k.type, r.events) AND k.about IS DISTINCT FROM r.self
                                     ELSE k.target = r.id END
             GROUP BY r.id
        ), settled AS MATERIALIZED (
            SELECT d.endpoint_id, count(*) AS n
              FROM ahead AS a
             CROSS JOIN LATERAL (
                   SELECT d.endpoint_id FROM webhook.delivery AS d WHERE d.xid = a.xid AND d.seq = a.seq OFFSET 0) AS d
             GROUP BY d.endpoint_id
        ), waiting AS MATERIALIZED (
            SELECT w.id, w.types, w.n - coalesce(s.n, 0) AS left_over, r.scope, r.filter, r.chooses, r.self
              FROM wanted AS w
              JOIN reader AS r ON r.id = w.id
              LEFT JOIN settled AS s ON s.endpoint_id = w.id
             WHERE w.n > coalesce(s.n, 0)
        ), sample AS MATERIALIZED (
            SELECT sized.*, d.content, d.whole
              FROM (SELECT a.*, o.size, sum(o.size) OVER (ROWS UNBOUNDED PRECEDING) AS sizes
                      FROM (SELECT a.xid, a.seq, a.type, a.target, a.about, a.occurred_at
                              FROM ahead AS a
                             WHERE EXISTS (SELECT FROM waiting AS w
                                            WHERE w.chooses AND (a.target = w.id OR (a.target IS NULL AND a.type = ANY (w.types))))
                             LIMIT (SELECT greatest(10, least(samples, 1000000 / greatest(count(*), 1))) FROM waiting AS w WHERE w.chooses)) AS a
                     CROSS JOIN LATERAL (
                           SELECT coalesce(octet_length(o.data), 0) AS size FROM webhook.outbox AS o
                            WHERE o.xid = a.xid AND o.seq = a.seq OFFSET 0) AS o) AS sized
             CROSS JOIN LATERAL (
                   SELECT d.* FROM webhook.outbox AS o, webhook.document(o) AS d WHERE o.xid = sized.xid AND o.seq = sized.seq OFFSET 0) AS d
             WHERE sized.sizes - sized.size < 8000000
        )
        SELECT w.id, round(w.left_over * whole.factor)::bigint, first.occurred_at
          FROM waiting AS w
         CROSS JOIN whole
         CROSS JOIN LATERAL (
               SELECT a.occurred_at
                 FROM ahead AS a
                WHERE (a.target = w.id OR (a.target IS NULL AND a.type = ANY (w.types) AND a.about IS DISTINCT FROM w.self))
                  AND NOT EXISTS (SELECT FROM webhook.delivery AS d
                                   WHERE d.xid = a.xid AND d.seq = a.seq AND d.endpoint_id = w.id)
                LIMIT 1) AS first
         WHERE NOT w.chooses
        UNION ALL
        SELECT w.id, ceil(w.left_over * whole.factor * seen.passing / seen.n)::bigint, seen.occurred_at
          FROM waiting AS w
         CROSS JOIN whole
         CROSS JOIN LATERAL (
               SELECT count(*) AS n, count(*) FILTER (WHERE judged.passes) AS passing,
                      min(judged.occurred_at) FILTER (WHERE judged.passes) AS occurred_at
                 FROM (SELECT a.occurred_at,
                              a.type = 'webhook.ping' OR ((w.scope IS NULL OR coalesce(a.content @> w.scope, false))
                                  AND (w.filter IS NULL OR coalesce(jsonb_path_match(a.whole, w.filter, '{}', true), false))) AS passes
                         FROM sample AS a
                        WHERE (a.target = w.id OR (a.target IS NULL AND a.type = ANY (w.types) AND a.about IS DISTINCT FROM w.self))
                          AND NOT EXISTS (SELECT FROM webhook.delivery AS d
                                           WHERE d.xid = a.xid AND d.seq = a.seq AND d.endpoint_id = w.id)) AS judged) AS seen
         WHERE w.chooses AND seen.passing > 0;
    END LOOP;
END $$;

-- One row an endpoint, for webhook.stats and webhook_metrics(). SECURITY DEFINER, so that whoever may read the view needs no right on
-- the tables; the endpoints are those that the caller may see. Deliveries that wait are counted up to a million for each endpoint.
CREATE FUNCTION webhook.current_stats() RETURNS TABLE (endpoint_id bigint, endpoint text, owner regrole, state text, delivered bigint,
    failed_attempts bigint, died bigint, dead bigint, dropped bigint, pending bigint, asked bigint, lag_events bigint,
    lag_seconds float8, in_flight int, p50_ms float8, p99_ms float8, last_success_at timestamptz, last_failure_at timestamptz,
    seconds float8, buckets bigint[]) LANGUAGE sql STABLE ROWS 100
SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
    WITH shown AS MATERIALIZED (
        SELECT s.endpoint_id, s.delivered, s.failed_attempts, s.died, s.in_flight, s.p50_ms, s.p99_ms,
               to_timestamp(s.last_success_at) AS last_success_at, to_timestamp(s.last_failure_at) AS last_failure_at
          FROM json_to_recordset(webhook.board()::json)
            AS s (endpoint_id bigint, delivered bigint, failed_attempts bigint, died bigint, in_flight int, p50_ms float4, p99_ms float4,
                  last_success_at float8, last_failure_at float8)
    ), seen AS MATERIALIZED (
        SELECT webhook.seen_by(webhook.caller()) AS ids
    ), dead AS MATERIALIZED (
        SELECT d.endpoint_id, count(*) AS n FROM webhook.delivery AS d WHERE d.state = 'dead' GROUP BY d.endpoint_id
    ), backlog AS MATERIALIZED (
        SELECT * FROM webhook.backlog()
    )
    SELECT e.id, e.name, e.owner, e.state,
           greatest(s.delivered, f.delivered, 0), greatest(s.failed_attempts, f.failed_attempts, 0), greatest(s.died, f.died, 0),
           coalesce(dead.n, 0), coalesce(lost.events, 0), failed.n + asked.n, asked.n, coalesce(b.events, 0),
           coalesce(round(greatest(extract(epoch FROM clock_timestamp() - b.oldest), 0), 3)::float8, 0), coalesce(s.in_flight, 0),
           round(coalesce(s.p50_ms, f.p50_ms)::numeric, 3)::float8, round(coalesce(s.p99_ms, f.p99_ms)::numeric, 3)::float8,
           greatest(s.last_success_at, f.last_success_at), greatest(s.last_failure_at, f.last_failure_at),
           coalesce(f.seconds, 0), f.buckets
      FROM webhook.endpoint AS e
      LEFT JOIN webhook.endpoint_figures AS f ON f.endpoint_id = e.id
      LEFT JOIN shown AS s ON s.endpoint_id = e.id
      LEFT JOIN dead ON dead.endpoint_id = e.id
      LEFT JOIN webhook.dropped AS lost ON lost.endpoint_id = e.id
      LEFT JOIN backlog AS b ON b.endpoint_id = e.id
     CROSS JOIN LATERAL (
           SELECT count(*) AS n
             FROM (SELECT FROM webhook.delivery AS d
                    WHERE d.endpoint_id = e.id AND d.state = 'pending' AND d.attempts OPERATOR(pg_catalog.<>) d.attempts_before
                    LIMIT 1000000) AS d) AS failed
     CROSS JOIN LATERAL (
           SELECT count(*) AS n
             FROM (SELECT FROM webhook.delivery AS d
                    WHERE d.endpoint_id = e.id AND d.state = 'pending' AND d.attempts OPERATOR(pg_catalog.=) d.attempts_before
                    LIMIT 1000000) AS d) AS asked
     WHERE (SELECT seen.ids IS NULL FROM seen) OR e.id IN (SELECT unnest(seen.ids) FROM seen)
     ORDER BY e.id
$$;

CREATE VIEW webhook.stats AS
SELECT s.endpoint_id, s.endpoint, s.state, s.delivered, s.failed_attempts, s.dead, s.dropped, s.pending, s.lag_events,
       s.lag_seconds, s.in_flight, s.p50_ms, s.p99_ms, s.last_success_at, s.last_failure_at
  FROM webhook.current_stats() AS s;

-- How far each backfill and replay has come, as long as its events are kept. Done is what was tried, or turned out not to be wanted.
CREATE VIEW webhook.progress WITH (security_barrier) AS
SELECT b.id, b.kind, b.endpoint_id, e.name AS endpoint, b.asked_at, b.events, b.events OPERATOR(pg_catalog.-) w.n AS done, w.n AS waiting
  FROM webhook.bulk AS b
  JOIN webhook.endpoint AS e ON e.id OPERATOR(pg_catalog.=) b.endpoint_id
  JOIN LATERAL (
       SELECT p.done FROM webhook.position AS p
        WHERE p.endpoint_id IN (b.endpoint_id, 0) ORDER BY p.endpoint_id DESC LIMIT 1) AS reached ON true
  JOIN LATERAL (
       SELECT CASE
           WHEN b.kind OPERATOR(pg_catalog.=) 'replay' THEN
               -- webhook_replay makes them due at the time of its transaction, and whatever tries them changes that.
               (SELECT pg_catalog.count(*) FROM webhook.delivery AS d
                 WHERE d.endpoint_id OPERATOR(pg_catalog.=) b.endpoint_id AND d.state = 'pending'
                   AND d.attempts OPERATOR(pg_catalog.=) d.attempts_before AND d.next_attempt_at OPERATOR(pg_catalog.=) b.asked_at)
           WHEN pg_catalog.pg_visible_in_snapshot(b.xid, reached.done) THEN 0
           ELSE greatest(0, b.events OPERATOR(pg_catalog.-)
               (SELECT pg_catalog.count(*) FROM webhook.delivery AS d
                 WHERE d.xid OPERATOR(pg_catalog.=) b.xid AND d.endpoint_id OPERATOR(pg_catalog.=) b.endpoint_id)) END AS n) AS w ON true
 WHERE (SELECT pg_catalog.has_column_privilege('webhook.endpoint'::pg_catalog.regclass, 'owner', 'SELECT'))
    OR pg_catalog.pg_has_role(e.owner::pg_catalog.oid, 'USAGE');
