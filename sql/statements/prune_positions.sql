-- From where on endpoints still need the outbox: the snapshots up to which everything is consumed, and what has completed at all. The
-- head's only when an endpoint follows it; an inactive endpoint needs nothing.
SELECT pg_catalog.pg_current_snapshot()::pg_catalog.text
UNION
SELECT p.done::pg_catalog.text
  FROM webhook.position p
 WHERE CASE WHEN p.endpoint_id = 0
            THEN EXISTS (SELECT FROM webhook.endpoint e
                          WHERE e.state <> 'inactive'
                            AND NOT EXISTS (SELECT FROM webhook.position own WHERE own.endpoint_id = e.id))
            ELSE EXISTS (SELECT FROM webhook.endpoint e WHERE e.id = p.endpoint_id AND e.state <> 'inactive') END
