-- The clock was put back: what is to be tried later than now is due earlier by as much, so that nobody waits for the clock to
-- catch up. What somebody is about to change is left to him.
-- $1 now, $2 microseconds
WITH later AS (
    SELECT d.id FROM webhook.delivery d WHERE d.state = 'pending' AND d.attempts <> d.attempts_before AND d.next_attempt_at > $1
    UNION ALL
    SELECT d.id FROM webhook.delivery d WHERE d.state = 'pending' AND d.attempts = d.attempts_before AND d.next_attempt_at > $1
), free AS (
    SELECT d.id FROM webhook.delivery d JOIN later l ON l.id = d.id WHERE d.state = 'pending' FOR NO KEY UPDATE OF d SKIP LOCKED
)
UPDATE webhook.delivery d
   SET next_attempt_at = d.next_attempt_at - pg_catalog.make_interval(secs => $2 / 1000000.0)
  FROM free f
 WHERE d.id = f.id
