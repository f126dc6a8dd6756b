-- When the first delivery of an endpoint that has failed and is not due yet will be.
-- $1 endpoint, $2 now
SELECT pg_catalog.min(d.next_attempt_at)
  FROM webhook.delivery d
 WHERE d.endpoint_id = $1 AND d.state = 'pending' AND d.attempts <> d.attempts_before AND d.next_attempt_at > $2
