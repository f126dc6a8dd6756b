-- Configurations of endpoints as one JSON value, secrets that change, and what a request will look like.

-- What a postback configuration changes, given what is stored (null: a new endpoint); and an endpoint in that shape:
-- src/config/postback.rs.
CREATE FUNCTION webhook.postback_changes(stored text, postback text) RETURNS text
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'postback_changes_wrapper';
CREATE FUNCTION webhook.postback_answer(id bigint, stored text, created bigint, modified bigint) RETURNS text
    LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'postback_answer_wrapper';
-- The request of this attempt as JSON, with values that may be secret masked: src/pg/preview.rs.
CREATE FUNCTION webhook.preview(endpoint bigint, config text, event text, attempt int) RETURNS text
    LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'preview_wrapper';

-- ---- Secrets -------------------------------------------------------------------------------------------------------

-- A new secret signs from now on; those that are in force stay so for overlap at most.
CREATE FUNCTION webhook_rotate_secret(endpoint bigint, overlap interval DEFAULT '24 hours', secret text DEFAULT NULL) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    max_in_force CONSTANT int := 10;
    old webhook.endpoint := webhook.endpoint_to_change(endpoint);
    at timestamptz := clock_timestamp();
    checked jsonb;
BEGIN
    IF overlap IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'overlap must not be null',
            HINT = 'For a change at once write ''0''.';
    END IF;
    IF NOT overlap BETWEEN '0' AND '1 year' THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'overlap is out of range',
            DETAIL = format('The overlap is %s.', overlap), HINT = 'Give an interval from 0 to 1 year.';
    END IF;
    IF old.signature = 'none' THEN
        RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state', MESSAGE = 'endpoint is not signed',
            DETAIL = format('The endpoint is %s.', endpoint),
            HINT = 'Give it a signature and a secret by webhook_update.';
    END IF;
    checked := webhook.checked_config(webhook.stored_config(old)::text,
        json_build_object('secret', coalesce(secret, webhook.new_secret(old.signature)))::text);
    DELETE FROM webhook.endpoint_secret AS s
     WHERE s.endpoint_id = endpoint AND s.kind = 'signing'
       AND (s.expires_at <= at OR overlap = '0' OR webhook.opened(s) IS NULL);
    IF EXISTS (SELECT FROM webhook.endpoint_secret AS s
                WHERE s.endpoint_id = endpoint AND s.kind = 'signing' AND webhook.opened(s) = checked ->> 'secret') THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'secret is in force already',
            DETAIL = format('The endpoint is %s.', endpoint), HINT = 'Leave the secret out to have one generated.';
    END IF;
    IF (SELECT count(*) FROM webhook.endpoint_secret AS s WHERE s.endpoint_id = endpoint AND s.kind = 'signing') >= max_in_force THEN
        RAISE EXCEPTION USING ERRCODE = 'program_limit_exceeded', MESSAGE = 'too many secrets are in force',
            DETAIL = format('The endpoint is %s; it may have %s.', endpoint, max_in_force),
            HINT = 'Wait until one expires, or rotate with overlap => ''0'', which ends all others.';
    END IF;
    UPDATE webhook.endpoint_secret AS s SET expires_at = at + overlap
     WHERE s.endpoint_id = endpoint AND s.kind = 'signing' AND (s.expires_at IS NULL OR s.expires_at > at + overlap);
    PERFORM webhook.keep_secret(endpoint, 'signing', '', checked ->> 'secret');
    UPDATE webhook.endpoint AS e SET public_key = webhook.public_key(checked ->> 'secret'), modified_at = at WHERE e.id = endpoint;
    RETURN checked ->> 'secret';
END $$;

-- ---- Configurations ------------------------------------------------------------------------------------------------

CREATE FUNCTION webhook.shown_config(endpoint webhook.endpoint) RETURNS jsonb LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp SET intervalstyle = postgres AS $$
    SELECT jsonb_build_object(
        'name', endpoint.name, 'url', endpoint.url, 'events', endpoint.events, 'method', endpoint.method,
        'format', endpoint.format, 'encoding', endpoint.encoding,
        'headers', (SELECT coalesce(jsonb_object_agg(h.name, '***'), '{}') FROM unnest(endpoint.header_names) AS h (name)),
        'basic_auth_username', endpoint.basic_auth_username, 'scope', endpoint.scope, 'filter', endpoint.filter,
        'expands', endpoint.expands, 'max_attempts', endpoint.max_attempts, 'attempt_interval', endpoint.attempt_interval,
        'retry_schedule', endpoint.retry_schedule, 'timeout', endpoint.timeout, 'max_in_flight', endpoint.max_in_flight,
        'rate_limit', endpoint.rate_limit, 'ordering', endpoint.ordering, 'signature', endpoint.signature,
        'is_active', endpoint.state <> 'inactive')
$$;

-- What webhook_apply takes. Without secrets: of headers the names.
CREATE FUNCTION webhook_config(endpoint bigint) RETURNS jsonb LANGUAGE sql VOLATILE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT webhook.shown_config(webhook.endpoint_to_change(endpoint))
$$;

-- Changes with the stored value of each header that is masked: what webhook_config shows can be given back.
CREATE FUNCTION webhook.unmasked(changes jsonb, stored jsonb) RETURNS jsonb LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    unknown text;
BEGIN
    IF jsonb_typeof(changes -> 'headers') IS DISTINCT FROM 'object' THEN
        RETURN changes;
    END IF;
    SELECT h.key INTO unknown FROM jsonb_each(changes -> 'headers') AS h
     WHERE h.value = '"***"' AND NOT coalesce(stored -> 'headers' ? h.key, false) LIMIT 1;
    IF unknown IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'header value is masked',
            DETAIL = format('The header is %s, which the endpoint does not have.', unknown), HINT = 'Give its value.';
    END IF;
    RETURN jsonb_set(changes, '{headers}', coalesce(
        (SELECT jsonb_object_agg(h.key, CASE WHEN h.value = '"***"' THEN stored -> 'headers' -> h.key ELSE h.value END)
           FROM jsonb_each(changes -> 'headers') AS h), '{}'));
END $$;

CREATE FUNCTION webhook_apply(config jsonb) RETURNS jsonb LANGUAGE sql VOLATILE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN config ? 'postbackconfig' THEN webhook.apply_postback(config) ELSE webhook.apply(config) END
$$;

-- The endpoint of this name as the configuration wants it: made if there is none, else changed in what the configuration names.
-- Answers as webhook_config, with the id, and with the secret of a new endpoint, which is shown this once.
CREATE FUNCTION webhook.apply(config jsonb) RETURNS jsonb LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    wanted text := config ->> 'name';
    new record;
    old webhook.endpoint;
BEGIN
    IF jsonb_typeof(config) IS DISTINCT FROM 'object' OR wanted IS NULL THEN
        RAISE EXCEPTION USING
            ERRCODE = CASE WHEN jsonb_typeof(config) = 'object' OR config IS NULL THEN 'null_value_not_allowed' ELSE 'invalid_parameter_value' END,
            MESSAGE = CASE WHEN jsonb_typeof(config) = 'object' THEN 'name must not be null' ELSE 'config must be a JSON object' END,
            HINT = 'Give an object with the parameters of webhook_register; its name says which endpoint it is.';
    END IF;
    -- What an answer has beside the parameters.
    config := config - '{id,public_key}'::text[];
    SELECT * INTO old FROM webhook.endpoint AS e WHERE e.name = wanted;
    IF NOT FOUND THEN
        -- One at a time: whoever waits here sees what the other has made.
        PERFORM webhook.announce_listener();
        SELECT * INTO old FROM webhook.endpoint AS e WHERE e.name = wanted;
    END IF;
    IF FOUND THEN
        old := webhook.endpoint_to_change(old.id);
        PERFORM webhook.change(old, webhook.unmasked(config, webhook.stored_config(old)));
        RETURN webhook.answer(old.id);
    END IF;
    SELECT * INTO new FROM webhook.register(webhook.unmasked(config, NULL));
    RETURN webhook.answer(new.id) || CASE WHEN new.secret IS NULL THEN '{}' ELSE jsonb_build_object('secret', new.secret) END;
END $$;

CREATE FUNCTION webhook.answer(endpoint_id bigint) RETURNS jsonb LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT webhook.shown_config(e) || jsonb_build_object('id', e.id)
           || CASE WHEN e.public_key IS NULL THEN '{}' ELSE jsonb_build_object('public_key', e.public_key) END
      FROM webhook.endpoint AS e WHERE e.id = endpoint_id
$$;

-- With an id it changes that endpoint, without one it makes a new one.
CREATE FUNCTION webhook.apply_postback(config jsonb) RETURNS jsonb LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    postback jsonb := config -> 'postbackconfig';
    endpoint_id bigint := nullif(postback ->> 'id', '');
    old webhook.endpoint;
BEGIN
    IF endpoint_id IS NULL THEN
        SELECT r.id INTO endpoint_id FROM webhook.register(webhook.postback_changes(NULL, postback::text)::jsonb) AS r;
        UPDATE webhook.endpoint AS e SET name = format('postback-%s', e.id) WHERE e.id = endpoint_id;
    ELSE
        old := webhook.endpoint_to_change(endpoint_id);
        PERFORM webhook.change(old, webhook.postback_changes(webhook.stored_config(old)::text, postback::text)::jsonb);
    END IF;
    RETURN (SELECT webhook.postback_answer(e.id, webhook.stored_config(e)::text, extract(epoch FROM e.created_at)::bigint,
                                           extract(epoch FROM e.modified_at)::bigint)::jsonb
              FROM webhook.endpoint AS e WHERE e.id = endpoint_id);
END $$;

-- ---- Preview -------------------------------------------------------------------------------------------------------

-- The request of the next attempt to deliver the event to the endpoint, as it would be sent now, whether or not it would be: the
-- endpoint's events, scope and filter are not asked. Its body and signature are real; values that may be secret are ***.
CREATE FUNCTION webhook_preview(endpoint bigint, event uuid) RETURNS TABLE (method text, url text, headers jsonb, body text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    receiver webhook.endpoint := webhook.endpoint_to_change(endpoint);
    captured webhook.outbox;
    request jsonb;
BEGIN
    IF event IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'event must not be null',
            HINT = 'See the ids in webhook.events.';
    END IF;
    SELECT * INTO captured FROM webhook.outbox AS o WHERE o.id = event LIMIT 1;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'undefined_object', MESSAGE = 'event does not exist',
            DETAIL = format('The event is %s.', event), HINT = 'See the ids in webhook.events.';
    END IF;
    request := webhook.preview(receiver.id, webhook.stored_config(receiver)::text,
        json_build_object('id', captured.id, 'type', captured.type, 'operation', captured.operation, 'key', captured.key,
            'occurred_at', (extract(epoch FROM captured.occurred_at) * 1000000)::bigint, 'data', captured.data,
            'previous', captured.previous, 'expanded', captured.expanded, 'truncated', captured.truncated,
            'context', captured.context, 'traceparent', captured.traceparent)::text,
        (SELECT coalesce(max(d.attempts), 0) + 1 FROM webhook.delivery AS d
          WHERE d.endpoint_id = receiver.id AND d.xid = captured.xid AND d.seq = captured.seq));
    RETURN QUERY SELECT request ->> 'method', request ->> 'url', request -> 'headers', request ->> 'body';
END $$;
