-- Writes outcomes: a new row, or the new state of a row that was pending. What the user did meanwhile stands, unless the
-- receiver has the event: a cancelled delivery stays cancelled.
-- $1 endpoints, $2 xids, $3 numbers, $4 event ids, $5 states, $6 attempts, $7 next attempt, $8 start of the attempt,
-- $9 its end, $10 ms, $11 status, $12 error, $13 response
INSERT INTO webhook.delivery AS d
       (endpoint_id, xid, seq, event_id, state, attempts, next_attempt_at, started_at, created_at, finished_at,
        duration_ms, last_status, last_error, response)
SELECT w.endpoint_id, w.xid::pg_catalog.text::pg_catalog.xid8, w.seq, w.event_id, w.state, w.attempts, w.next_attempt_at,
       w.started_at, coalesce(w.started_at, w.ended_at), CASE WHEN w.state <> 'pending' THEN w.ended_at END,
       w.duration_ms, w.status, w.error, w.response
  FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.int8[]), pg_catalog.unnest($2::pg_catalog.int8[]),
                  pg_catalog.unnest($3::pg_catalog.int8[]), pg_catalog.unnest($4::pg_catalog.uuid[]),
                  pg_catalog.unnest($5::pg_catalog.text[]), pg_catalog.unnest($6::pg_catalog.int4[]),
                  pg_catalog.unnest($7::pg_catalog.timestamptz[]), pg_catalog.unnest($8::pg_catalog.timestamptz[]),
                  pg_catalog.unnest($9::pg_catalog.timestamptz[]), pg_catalog.unnest($10::pg_catalog.float4[]),
                  pg_catalog.unnest($11::pg_catalog.int4[]), pg_catalog.unnest($12::pg_catalog.text[]),
                  pg_catalog.unnest($13::pg_catalog.text[]))
       w (endpoint_id, xid, seq, event_id, state, attempts, next_attempt_at, started_at, ended_at, duration_ms, status,
          error, response)
    ON CONFLICT ON CONSTRAINT delivery_once_per_event DO UPDATE
   SET (state, attempts, next_attempt_at, started_at, finished_at, duration_ms, last_status, last_error, response)
     = (EXCLUDED.state, EXCLUDED.attempts, EXCLUDED.next_attempt_at, EXCLUDED.started_at, EXCLUDED.finished_at,
        EXCLUDED.duration_ms, EXCLUDED.last_status, EXCLUDED.last_error, EXCLUDED.response)
 WHERE d.state = 'pending' OR EXCLUDED.state = 'delivered'
