-- The places of what is pending for these endpoints: all that has failed, and the first of what was asked for.
-- $1 endpoints, $2 limit of what was asked for, each
SELECT d.endpoint_id, d.xid::pg_catalog.text::pg_catalog.int8, d.seq
  FROM (SELECT d.endpoint_id, d.xid, d.seq
          FROM webhook.delivery d
         WHERE d.endpoint_id = ANY ($1) AND d.state = 'pending' AND d.attempts <> d.attempts_before
        UNION ALL
        SELECT e.id, d.xid, d.seq
          FROM pg_catalog.unnest($1::pg_catalog.int8[]) e (id)
         CROSS JOIN LATERAL (
               SELECT d.xid, d.seq
                 FROM webhook.delivery d
                WHERE d.endpoint_id = e.id AND d.state = 'pending' AND d.attempts = d.attempts_before
                ORDER BY d.next_attempt_at, d.seq
                LIMIT $2) d) d
