-- How many deliveries of each endpoint have failed and are pending, and when the first is due; and how many were asked for, up to
-- a limit, of which there can be millions.
-- $1 limit
WITH RECURSIVE failed AS (
    SELECT d.endpoint_id, pg_catalog.count(*) AS count, pg_catalog.min(d.next_attempt_at) AS due
      FROM webhook.delivery d
     WHERE d.state = 'pending' AND d.attempts <> d.attempts_before
     GROUP BY d.endpoint_id
), asked AS (
    (SELECT d.endpoint_id
       FROM webhook.delivery d
      WHERE d.state = 'pending' AND d.attempts = d.attempts_before
      ORDER BY d.endpoint_id LIMIT 1)
    UNION ALL
    SELECT (SELECT d.endpoint_id
              FROM webhook.delivery d
             WHERE d.state = 'pending' AND d.attempts = d.attempts_before AND d.endpoint_id > asked.endpoint_id
             ORDER BY d.endpoint_id LIMIT 1)
      FROM asked
     WHERE asked.endpoint_id IS NOT NULL
)
SELECT f.endpoint_id, f.count, f.due, 0::pg_catalog.int8 FROM failed f
UNION ALL
SELECT a.endpoint_id, 0, NULL,
       (SELECT pg_catalog.count(*)
          FROM (SELECT FROM webhook.delivery d
                 WHERE d.endpoint_id = a.endpoint_id AND d.state = 'pending' AND d.attempts = d.attempts_before
                 LIMIT $1) counted)
  FROM asked a
 WHERE a.endpoint_id IS NOT NULL
