-- Whether there are dead deliveries, idempotency keys and records of failed filters to be pruned.
-- $1 seconds to keep events, $2 dead deliveries
SELECT EXISTS (SELECT FROM webhook.delivery d
                WHERE d.state = 'dead' AND d.finished_at < pg_catalog.now() - $2 * interval '1 second'),
       EXISTS (SELECT FROM webhook.idempotency i WHERE i.created_at < pg_catalog.now() - $1 * interval '1 second'),
       EXISTS (SELECT FROM webhook.filter_error f WHERE f.last_at < pg_catalog.now() - $1 * interval '1 second')
