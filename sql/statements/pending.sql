-- How many deliveries of each endpoint are pending, and when the first is due.
SELECT d.endpoint_id, pg_catalog.count(*), pg_catalog.min(d.next_attempt_at)
  FROM webhook.delivery d
 WHERE d.state = 'pending'
 GROUP BY d.endpoint_id
