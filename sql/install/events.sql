-- Events by hand, and what can be done to deliveries. As in api.sql, the public functions run as the extension's owner.

-- ---- Events --------------------------------------------------------------------------------------------------------

-- Appends an event to the outbox. The transaction's id is taken before the sequence number, as positions need it.
CREATE FUNCTION webhook.append_event(id uuid, type text, key text, data text, target bigint) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    xid xid8 := pg_current_xact_id();
    thin boolean := octet_length(data) > webhook.max_payload_bytes();
BEGIN
    INSERT INTO webhook.outbox (xid, seq, occurred_at, target, id, truncated, type, key, data, context, traceparent)
    VALUES (xid, nextval('webhook.outbox_seq'), clock_timestamp(), target, id, thin, type, key,
            CASE WHEN NOT thin THEN data END,
            nullif(current_setting('webhook_pg.context', true), ''),
            nullif(current_setting('webhook_pg.traceparent', true), ''));
    PERFORM webhook.wake();
END $$;

CREATE FUNCTION webhook_send(type text, data json, key text DEFAULT NULL, idempotency_key text DEFAULT NULL) RETURNS uuid
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    new_id uuid := webhook.new_event_id();
    first_id uuid;
BEGIN
    IF type IS NULL OR data IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed',
            MESSAGE = CASE WHEN type IS NULL THEN 'type must not be null' ELSE 'data must not be null' END,
            HINT = CASE WHEN type IS NULL THEN 'Write for example contact.created.'
                        ELSE 'For the JSON value null write ''null''::json.' END;
    END IF;
    PERFORM webhook.check_event_type(type);
    IF octet_length(key) > 1024 THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'key is too long',
            DETAIL = format('It has %s bytes.', octet_length(key)), HINT = 'Use at most 1024 bytes.';
    END IF;
    IF idempotency_key IS NOT NULL THEN
        IF octet_length(idempotency_key) NOT BETWEEN 1 AND 255 THEN
            RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'idempotency_key has a wrong length',
                DETAIL = format('It has %s bytes.', octet_length(idempotency_key)), HINT = 'Use 1 to 255 bytes.';
        END IF;
        LOOP
            -- Waits for another transaction that sends under this key.
            INSERT INTO webhook.idempotency (key, event_id) VALUES (idempotency_key, new_id) ON CONFLICT DO NOTHING;
            EXIT WHEN FOUND;
            SELECT i.event_id INTO first_id FROM webhook.idempotency AS i WHERE i.key = idempotency_key;
            IF FOUND THEN
                RETURN first_id;
            END IF;
        END LOOP;
    END IF;
    PERFORM webhook.append_event(new_id, type, to_json(key)::text, data::text, NULL);
    RETURN new_id;
END $$;

CREATE FUNCTION webhook_test(endpoint bigint) RETURNS uuid LANGUAGE plpgsql VOLATILE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    receiver webhook.endpoint := webhook.endpoint_to_change(endpoint);
    new_id uuid := webhook.new_event_id();
BEGIN
    IF receiver.state = 'inactive' THEN
        PERFORM webhook.refuse_inactive(endpoint);
    END IF;
    PERFORM webhook.append_event(new_id, 'webhook.ping', NULL, json_build_object('endpoint', receiver.name)::text, endpoint);
    RETURN new_id;
END $$;

-- ---- Open transactions ---------------------------------------------------------------------------------------------

-- Whether a transaction that is open has changed or locked the row with this xmax, which is not 0. The worker leaves such a row alone instead
-- of waiting for somebody's COMMIT.
CREATE FUNCTION webhook.is_held(xmax xid) RETURNS boolean LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'is_held_wrapper';

-- ---- Selection -----------------------------------------------------------------------------------------------------

-- As Pattern::matches (src/event.rs), for types, which have a dot.
CREATE FUNCTION webhook.matches(type text, patterns text[]) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT patterns OPERATOR(pg_catalog.&&) ARRAY['*', '*.*', type, pg_catalog.regexp_replace(type, '[^.]*$', '*'),
                                                  pg_catalog.concat('*.', pg_catalog.substring(type, '[^.]*$'))]
$$;

-- As sql/statements/select.sql, which does it for many: whether an event passes a scope and a filter. What fails does not match.
CREATE FUNCTION webhook.passes(o webhook.outbox, scope jsonb, filter jsonpath) RETURNS boolean LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT coalesce(webhook.comparable(coalesce(o.data, o.key))::jsonb @> scope, scope IS NULL) THEN
        RETURN false;
    END IF;
    RETURN filter IS NULL OR coalesce(jsonb_path_match(
        jsonb_build_object('type', o.type, 'data', webhook.comparable(o.data)::jsonb)
            || CASE WHEN o.previous IS NULL THEN '{}'
                    ELSE jsonb_build_object('previous', webhook.comparable(o.previous)::jsonb) END
            || CASE WHEN o.key IS NULL THEN '{}' ELSE jsonb_build_object('key', webhook.comparable(o.key)::jsonb) END,
        filter, '{}', true), false);
EXCEPTION WHEN OTHERS THEN
    RETURN false;
END $$;

-- As Endpoint::wants (src/endpoint.rs).
CREATE FUNCTION webhook.wants(e webhook.endpoint, o webhook.outbox) RETURNS boolean LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF o.target IS NOT NULL THEN
        RETURN o.target = e.id
           AND (o.type = 'webhook.ping' OR (e.scope IS NULL AND e.filter IS NULL) OR webhook.passes(o, e.scope, e.filter));
    END IF;
    RETURN webhook.matches(o.type, e.events)
       AND NOT (o.type = 'webhook.endpoint_disabled' AND o.key = format('{"id":%s}', e.id))
       AND ((e.scope IS NULL AND e.filter IS NULL) OR webhook.passes(o, e.scope, e.filter));
END $$;

-- ---- Deliveries ----------------------------------------------------------------------------------------------------

-- The delivery's endpoint may be gone, but if it is there the caller must be allowed to change it.
CREATE FUNCTION webhook.delivery_to_change(delivery bigint) RETURNS webhook.delivery LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    old webhook.delivery;
BEGIN
    SELECT * INTO old FROM webhook.delivery AS d WHERE d.id = delivery FOR UPDATE;
    IF EXISTS (SELECT FROM webhook.endpoint AS e WHERE e.id = old.endpoint_id
                AND NOT webhook.may_change(webhook.caller(), e.owner)) THEN
        RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = 'delivery belongs to the endpoint of another role',
            DETAIL = format('The delivery is %s.', delivery),
            HINT = 'Only the endpoint''s owner, members of that role and superusers may change it.';
    END IF;
    RETURN old;
END $$;

-- True: the delivery will be tried now; attempts count on, the schedule begins anew. What was delivered, or whose
-- endpoint is gone, is left alone.
CREATE FUNCTION webhook_retry(delivery bigint) RETURNS boolean LANGUAGE plpgsql VOLATILE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    old webhook.delivery := webhook.delivery_to_change(delivery);
BEGIN
    UPDATE webhook.delivery AS d
       SET state = 'pending', next_attempt_at = now(), finished_at = NULL, attempts_before = d.attempts
     WHERE d.id = old.id AND d.state <> 'delivered'
       AND EXISTS (SELECT FROM webhook.endpoint AS e WHERE e.id = d.endpoint_id);
    IF FOUND THEN
        PERFORM webhook.recheck();
    END IF;
    RETURN FOUND;
END $$;

-- True: the delivery was pending and will not be tried again.
CREATE FUNCTION webhook_cancel(delivery bigint) RETURNS boolean LANGUAGE plpgsql VOLATILE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    old webhook.delivery := webhook.delivery_to_change(delivery);
BEGIN
    UPDATE webhook.delivery AS d SET state = 'cancelled', next_attempt_at = NULL, finished_at = clock_timestamp()
     WHERE d.id = old.id AND d.state = 'pending';
    IF FOUND THEN
        PERFORM webhook.recheck();
    END IF;
    RETURN FOUND;
END $$;

-- Sends events again that this endpoint wants and that are still kept, as webhook_retry does it; answers how many. What the
-- endpoint has not been sent yet comes anyway, and is left out. The worker takes turns between these and new events.
CREATE FUNCTION webhook_replay(endpoint bigint, since timestamptz, until timestamptz DEFAULT now(),
    events text[] DEFAULT NULL, filter jsonpath DEFAULT NULL) RETURNS bigint LANGUAGE plpgsql VOLATILE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    receiver webhook.endpoint;
    reached webhook.position;
    n bigint;
BEGIN
    PERFORM webhook.check_feedable(endpoint, webhook.caller());
    IF since IS NULL OR until IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed',
            MESSAGE = format('%s must not be null', CASE WHEN since IS NULL THEN 'since' ELSE 'until' END),
            HINT = 'For everything that is kept write since => ''-infinity''.';
    END IF;
    IF since > until THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'since is later than until',
            DETAIL = format('since is %s, until is %s.', since, until),
            HINT = 'Without until, it is the start of this transaction.';
    END IF;
    IF events IS NOT NULL THEN
        PERFORM webhook.checked_config(NULL, jsonb_build_object('url', 'https://example.com/', 'events', events)::text);
    END IF;
    -- Until this transaction ends nothing is pruned (src/pg/prune.rs).
    LOCK TABLE webhook.dropped IN SHARE MODE;
    SELECT * INTO receiver FROM webhook.endpoint AS e WHERE e.id = endpoint;
    SELECT * INTO reached FROM webhook.position AS p WHERE p.endpoint_id IN (endpoint, 0) ORDER BY p.endpoint_id DESC LIMIT 1;
    WITH chosen AS MATERIALIZED (
        SELECT o.xid, o.seq, o.id AS event_id, d.id AS delivery_id
          FROM webhook.outbox AS o
          LEFT JOIN webhook.delivery AS d ON d.xid = o.xid AND d.seq = o.seq AND d.endpoint_id = endpoint
         WHERE o.occurred_at >= since AND o.occurred_at <= until
           AND (d.id IS NOT NULL OR pg_visible_in_snapshot(o.xid, reached.done)
                OR (o.seq <= reached.seq AND pg_visible_in_snapshot(o.xid, reached.upto)))
           AND (events IS NULL OR webhook.matches(o.type, events))
           AND webhook.wants(receiver, o)
           AND (filter IS NULL OR webhook.passes(o, NULL, filter))
    ), logged AS (
        -- The attempt that delivered stands in the row, which now forgets it.
        INSERT INTO webhook.attempt (delivery_id, attempt, started_at, duration_ms, status, response)
        SELECT d.id, d.attempts, d.started_at, d.duration_ms, d.last_status, d.response
          FROM chosen AS c
          JOIN webhook.delivery AS d ON d.id = c.delivery_id
         WHERE d.state = 'delivered' AND d.started_at IS NOT NULL
    )
    INSERT INTO webhook.delivery AS d (endpoint_id, xid, seq, event_id, state, attempts, created_at, next_attempt_at)
    SELECT endpoint, c.xid, c.seq, c.event_id, 'pending', 0, now(), now()
      FROM chosen AS c
        ON CONFLICT ON CONSTRAINT delivery_once_per_event DO UPDATE
       SET state = 'pending', next_attempt_at = now(), finished_at = NULL, attempts_before = d.attempts;
    GET DIAGNOSTICS n = ROW_COUNT;
    IF n > 0 THEN
        INSERT INTO webhook.bulk (kind, endpoint_id, events, xid) VALUES ('replay', endpoint, n, pg_current_xact_id());
        PERFORM webhook.recheck();
    END IF;
    RETURN n;
END $$;
