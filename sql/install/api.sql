-- The functions that people call, in the schema that CREATE EXTENSION chose, and what only they call, in schema webhook.
--
-- Callers have no right on any table, only EXECUTE on what they were given; so the public functions run as the
-- extension's owner (SECURITY DEFINER) with a pinned search_path. Who called stands in webhook.caller().
-- Functions without SECURITY DEFINER in this file are reached from such functions only.

-- ---- In the library ------------------------------------------------------------------------------------------------

-- The role that called: what SET ROLE says, outside of all SECURITY DEFINER functions.
CREATE FUNCTION webhook.caller() RETURNS oid LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'caller_wrapper';
-- Lays changes over a stored configuration (null: over the defaults) and checks the whole: src/config.rs.
CREATE FUNCTION webhook.checked_config(stored text, changes text) RETURNS text
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'checked_config_wrapper';
CREATE FUNCTION webhook.check_event_type(type text) RETURNS void
    LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'check_event_type_wrapper';
CREATE FUNCTION webhook.new_secret(signature text) RETURNS text LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'new_secret_wrapper';
-- The public key of a private one; null for any other secret.
CREATE FUNCTION webhook.public_key(secret text) RETURNS text LANGUAGE c IMMUTABLE STRICT AS 'MODULE_PATHNAME', 'public_key_wrapper';
-- JSON text that jsonb takes, for scope and filter: src/comparable.rs.
CREATE FUNCTION webhook.comparable(text text) RETURNS text LANGUAGE c IMMUTABLE STRICT AS 'MODULE_PATHNAME', 'comparable_wrapper';
CREATE FUNCTION webhook.new_event_id() RETURNS uuid LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'new_event_id_wrapper';
CREATE FUNCTION webhook.max_payload_bytes() RETURNS bigint
    LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'max_payload_bytes_wrapper';
-- What committed until now, never an older snapshot of a REPEATABLE READ transaction; this transaction counts as running.
CREATE FUNCTION webhook.own_snapshot() RETURNS text LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'own_snapshot_wrapper';
-- Wakes the worker when this transaction commits.
CREATE FUNCTION webhook.wake() RETURNS void LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'wake_wrapper';
-- As wake, and the worker looks at everything that it otherwise looks at every poll_interval; without one, the launcher looks
-- whether this database needs one.
CREATE FUNCTION webhook.recheck() RETURNS void LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'recheck_wrapper';
CREATE FUNCTION webhook.is_preloaded() RETURNS boolean LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'is_preloaded_wrapper';
-- Process id of the worker that serves this database, or null.
CREATE FUNCTION webhook.worker_pid() RETURNS int LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'worker_pid_wrapper';
-- Why there is none, in a sentence.
CREATE FUNCTION webhook.why_no_worker() RETURNS text LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'why_no_worker_wrapper';
-- What holds up sending and is no endpoint's fault, as JSON ({"since": seconds since 1970, "message": text}), or null.
CREATE FUNCTION webhook.sending_fault() RETURNS text LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'sending_fault_wrapper';
CREATE FUNCTION webhook.changed() RETURNS trigger LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'webhook_pg_changed';

-- Every change of these tables invalidates the caches of all backends and wakes the worker, whoever made it: ALWAYS,
-- so that a logical apply or a session in replica role does too.
CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON webhook.endpoint
    FOR EACH STATEMENT EXECUTE FUNCTION webhook.changed();
CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON webhook.endpoint_secret
    FOR EACH STATEMENT EXECUTE FUNCTION webhook.changed();
CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON webhook.sealed_secret  -- pg_restore writes to it
    FOR EACH STATEMENT EXECUTE FUNCTION webhook.changed();
CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON webhook.attachment
    FOR EACH STATEMENT EXECUTE FUNCTION webhook.changed();
ALTER TABLE webhook.endpoint ENABLE ALWAYS TRIGGER changed;
ALTER TABLE webhook.endpoint_secret ENABLE ALWAYS TRIGGER changed;
ALTER TABLE webhook.sealed_secret ENABLE ALWAYS TRIGGER changed;
ALTER TABLE webhook.attachment ENABLE ALWAYS TRIGGER changed;

-- ---- Configurations ------------------------------------------------------------------------------------------------

-- A time as JSON in seconds: interval text is read by PostgreSQL, everything else is left for src/config.rs to judge.
CREATE FUNCTION webhook.in_seconds(value jsonb) RETURNS jsonb LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE jsonb_typeof(value)
        WHEN 'string' THEN to_jsonb(extract(epoch FROM (value #>> '{}')::interval))
        ELSE value END
$$;

-- Changes as src/config.rs reads them: all times in seconds, the scope as text, in which numbers stay as they are.
CREATE FUNCTION webhook.readable(changes jsonb) RETURNS jsonb LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    parameter text;
BEGIN
    IF jsonb_typeof(changes) IS DISTINCT FROM 'object' THEN
        RETURN changes;
    END IF;
    IF changes ? 'scope' THEN
        changes := jsonb_set(changes, '{scope}', coalesce(to_jsonb(changes ->> 'scope'), 'null'));
    END IF;
    FOREACH parameter IN ARRAY '{attempt_interval,timeout}'::text[] LOOP
        IF changes ? parameter THEN
            changes := jsonb_set(changes, ARRAY[parameter], webhook.in_seconds(changes -> parameter));
        END IF;
    END LOOP;
    IF jsonb_typeof(changes -> 'retry_schedule') = 'array' THEN
        changes := jsonb_set(changes, '{retry_schedule}', coalesce(
            (SELECT jsonb_agg(webhook.in_seconds(wait) ORDER BY n)
               FROM jsonb_array_elements(changes -> 'retry_schedule') WITH ORDINALITY AS list (wait, n)), '[]'));
    END IF;
    RETURN changes;
END $$;

-- An endpoint's whole configuration, secrets included, times in seconds: what src/config.rs reads. `secrets` are the
-- signing secrets in force, newest first, and when they expire, in microseconds since 1970: the worker forgets them in time
-- without reading anew.
CREATE FUNCTION webhook.stored_config(endpoint webhook.endpoint) RETURNS jsonb LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_build_object(
        'name', endpoint.name, 'url', endpoint.url, 'events', endpoint.events, 'method', endpoint.method,
        'format', endpoint.format, 'encoding', endpoint.encoding, 'signature', endpoint.signature,
        'ordering', endpoint.ordering, 'basic_auth_username', endpoint.basic_auth_username,
        'scope', endpoint.scope::text, 'filter', endpoint.filter, 'expands', endpoint.expands,
        'max_attempts', endpoint.max_attempts, 'max_in_flight', endpoint.max_in_flight,
        'rate_limit', endpoint.rate_limit, 'is_active', endpoint.state <> 'inactive',
        'attempt_interval', extract(epoch FROM endpoint.attempt_interval),
        'timeout', extract(epoch FROM endpoint.timeout),
        'retry_schedule', CASE WHEN endpoint.retry_schedule IS NOT NULL THEN
            (SELECT jsonb_agg(extract(epoch FROM wait) ORDER BY n)
               FROM unnest(endpoint.retry_schedule) WITH ORDINALITY AS list (wait, n)) END,
        'headers', coalesce(jsonb_object_agg(s.name, s.value) FILTER (WHERE s.kind = 'header' AND s.value IS NOT NULL), '{}'),
        'basic_auth_password', max(s.value) FILTER (WHERE s.kind = 'password'),
        'secrets', coalesce(jsonb_agg(jsonb_build_object('value', s.value,
                'expires_at', (extract(epoch FROM s.expires_at) * 1000000)::bigint) ORDER BY s.created_at DESC)
            FILTER (WHERE s.kind = 'signing' AND s.value IS NOT NULL), '[]'))
      FROM (SELECT s.kind, s.name, s.created_at, s.expires_at, webhook.opened(s) AS value
              FROM webhook.endpoint_secret AS s
             WHERE s.endpoint_id = endpoint.id AND (s.expires_at IS NULL OR s.expires_at > now())) AS s
$$;

-- Refuses what is not an endpoint of this role's. `old` is the row that was found under the id.
CREATE FUNCTION webhook.check_own(old webhook.endpoint, endpoint_id bigint, caller oid) RETURNS void LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF endpoint_id IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed',
            MESSAGE = 'endpoint must not be null', HINT = 'See the ids in webhook.endpoints.';
    END IF;
    IF old.id IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'undefined_object', MESSAGE = 'endpoint does not exist',
            DETAIL = format('The endpoint is %s.', endpoint_id), HINT = 'See the ids in webhook.endpoints.';
    END IF;
    IF NOT webhook.may_change(caller, old.owner) THEN
        RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = 'endpoint belongs to another role',
            DETAIL = format('The endpoint is %s.', endpoint_id),
            HINT = 'Only its owner, members of that role and superusers may use it.';
    END IF;
END $$;

-- The endpoint, locked, if the caller may change it.
CREATE FUNCTION webhook.endpoint_to_change(endpoint_id bigint) RETURNS webhook.endpoint LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    old webhook.endpoint;
BEGIN
    SELECT * INTO old FROM webhook.endpoint AS e WHERE e.id = endpoint_id FOR UPDATE;
    PERFORM webhook.check_own(old, endpoint_id, webhook.caller());
    RETURN old;
END $$;

-- Refuses an endpoint to which this role may not send events of its own. It stays until the end of the transaction; the worker
-- may disable it meanwhile.
CREATE FUNCTION webhook.check_feedable(endpoint_id bigint, caller oid) RETURNS void LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    old webhook.endpoint;
BEGIN
    SELECT * INTO old FROM webhook.endpoint AS e WHERE e.id = endpoint_id FOR KEY SHARE;
    PERFORM webhook.check_own(old, endpoint_id, caller);
    IF old.state = 'inactive' THEN
        PERFORM webhook.refuse_inactive(endpoint_id);
    END IF;
END $$;

CREATE FUNCTION webhook.refuse_name(name text) RETURNS void LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = 'duplicate_object', MESSAGE = 'an endpoint of that name exists',
        DETAIL = format('The name is "%s".', name), HINT = 'Choose another name, or use webhook_update.';
END $$;

-- Until this transaction ends, whoever commits takes it that somebody listens to everything (src/pg/capture/late.rs). To be
-- called before the snapshot at which an endpoint starts is taken.
CREATE FUNCTION webhook.announce_listener() RETURNS void LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    LOCK TABLE webhook.installation IN EXCLUSIVE MODE
$$;

-- Writes what webhook.checked_config answered for a new endpoint. Without a name it takes the URL's host, and a number
-- when that is taken: example.com, example.com-2.
CREATE FUNCTION webhook.insert_endpoint(config jsonb) RETURNS bigint LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    new_name text := coalesce(config ->> 'name', config ->> 'derived_name');
    active boolean := config ->> 'is_active';
    attempt int := 1;
    new_id bigint;
BEGIN
    PERFORM webhook.announce_listener();
    LOOP
        INSERT INTO webhook.endpoint (owner, name, state, url, events, method, format, encoding, signature, ordering,
            header_names, basic_auth_username, max_attempts, max_in_flight, rate_limit, attempt_interval, retry_schedule, timeout, expands,
            scope, filter)
        SELECT webhook.caller(), new_name, CASE WHEN active THEN 'active' ELSE 'inactive' END,
               c.url, c.events, c.method, c.format, c.encoding, c.signature, c.ordering,
               ARRAY(SELECT jsonb_object_keys(config -> 'headers')), c.basic_auth_username,
               c.max_attempts, c.max_in_flight, c.rate_limit, c.attempt_interval, c.retry_schedule, c.timeout, c.expands,
               (config ->> 'scope')::jsonb, c.filter
          FROM jsonb_populate_record(NULL::webhook.endpoint, config) AS c
        ON CONFLICT (name) DO NOTHING
        RETURNING id INTO new_id;
        EXIT WHEN new_id IS NOT NULL;
        IF config ->> 'name' IS NOT NULL THEN
            PERFORM webhook.refuse_name(new_name);
        END IF;
        attempt := attempt + 1;
        new_name := (config ->> 'derived_name') || '-' || attempt;
    END LOOP;
    PERFORM webhook.write_secrets(new_id, config, '{headers,basic_auth_password,secret}');
    IF active THEN
        PERFORM webhook.start_at_present(new_id);
    END IF;
    RETURN new_id;
END $$;

-- Replaces the secrets that these parameters hold.
CREATE FUNCTION webhook.write_secrets(endpoint bigint, config jsonb, parameters text[]) RETURNS void LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp AS $$
    DELETE FROM webhook.endpoint_secret AS s
     WHERE s.endpoint_id = endpoint
       AND CASE s.kind WHEN 'header' THEN 'headers' WHEN 'password' THEN 'basic_auth_password' ELSE 'secret' END = ANY (parameters);
    SELECT webhook.keep_secret(endpoint, g.kind, g.name, g.secret)
      FROM (SELECT 'headers', 'header', h.key, h.value FROM jsonb_each_text(config -> 'headers') AS h
            UNION ALL
            VALUES ('basic_auth_password', 'password', '', config ->> 'basic_auth_password'),
                   ('secret', 'signing', '', config ->> 'secret')) AS g (parameter, kind, name, secret)
     WHERE g.parameter = ANY (parameters) AND g.secret IS NOT NULL;
    UPDATE webhook.endpoint AS e SET public_key = webhook.public_key(config ->> 'secret')
     WHERE e.id = endpoint AND 'secret' = ANY (parameters);
    UPDATE webhook.endpoint AS e SET has_password = config ->> 'basic_auth_password' IS NOT NULL
     WHERE e.id = endpoint AND 'basic_auth_password' = ANY (parameters)
$$;

-- The endpoint gets the events of transactions that have not committed now, this one included.
CREATE FUNCTION webhook.start_at_present(endpoint_id bigint) RETURNS void LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO webhook.position (endpoint_id, done) VALUES (start_at_present.endpoint_id, webhook.own_snapshot()::pg_snapshot)
    ON CONFLICT (endpoint_id) DO UPDATE SET seq = 0, done = EXCLUDED.done, upto = NULL
$$;

CREATE FUNCTION webhook.register(config jsonb, OUT id bigint, OUT secret text) LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    checked jsonb := webhook.checked_config(NULL, webhook.readable(config)::text);
BEGIN
    IF checked ->> 'signature' <> 'none' THEN
        secret := coalesce(checked ->> 'secret', webhook.new_secret(checked ->> 'signature'));
        checked := jsonb_set(checked, '{secret}', to_jsonb(secret));
    END IF;
    id := webhook.insert_endpoint(checked);
END $$;

-- ---- Endpoints -----------------------------------------------------------------------------------------------------

-- In SQL, because PL/pgSQL refuses an input and an output of one name ("secret").
CREATE FUNCTION webhook_register(
    url text, events text[] DEFAULT '{*}', name text DEFAULT NULL, secret text DEFAULT NULL, method text DEFAULT 'POST',
    format text DEFAULT 'standard', encoding text DEFAULT NULL, headers jsonb DEFAULT '{}',
    basic_auth_username text DEFAULT NULL, basic_auth_password text DEFAULT NULL, scope jsonb DEFAULT NULL,
    filter jsonpath DEFAULT NULL, expands text[] DEFAULT '{}', max_attempts int DEFAULT NULL,
    attempt_interval interval DEFAULT NULL, retry_schedule interval[] DEFAULT NULL, timeout interval DEFAULT NULL,
    max_in_flight int DEFAULT NULL, rate_limit int DEFAULT NULL, ordering text DEFAULT 'none',
    signature text DEFAULT 'standard', is_active boolean DEFAULT true)
RETURNS TABLE (id bigint, secret text) LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT new.id, new.secret
      FROM webhook.register(jsonb_build_object(
        'url', $1, 'events', $2, 'name', $3, 'secret', $4, 'method', $5, 'format', $6, 'encoding', $7, 'headers', $8,
        'basic_auth_username', $9, 'basic_auth_password', $10, 'scope', $11, 'filter', $12, 'expands', $13,
        'max_attempts', $14, 'attempt_interval', $15, 'retry_schedule', $16, 'timeout', $17, 'max_in_flight', $18,
        'rate_limit', $19, 'ordering', $20, 'signature', $21, 'is_active', $22)) AS new
$$;

CREATE FUNCTION webhook_update(endpoint bigint, changes jsonb) RETURNS void LANGUAGE sql VOLATILE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT webhook.change(webhook.endpoint_to_change(endpoint), changes)
$$;

-- What changes nothing writes nothing.
CREATE FUNCTION webhook.change(old webhook.endpoint, changes jsonb) RETURNS void LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    endpoint bigint := old.id;
    stored text := webhook.stored_config(old);
    checked jsonb := webhook.checked_config(stored, coalesce(webhook.readable(changes), 'null')::text);
BEGIN
    IF webhook.has_secrets(old) AND NOT changes ? 'secret' AND checked = webhook.checked_config(stored, '{}')::jsonb THEN
        RETURN;
    END IF;
    IF EXISTS (SELECT FROM webhook.endpoint AS e WHERE e.name = checked ->> 'name' AND e.id <> endpoint) THEN
        PERFORM webhook.refuse_name(checked ->> 'name');
    END IF;
    PERFORM webhook.announce_listener();
    UPDATE webhook.endpoint AS e
       SET modified_at = clock_timestamp(), name = c.name, url = c.url, events = c.events, method = c.method,
           format = c.format, encoding = c.encoding, signature = c.signature, ordering = c.ordering,
           header_names = CASE WHEN changes ? 'headers' THEN ARRAY(SELECT jsonb_object_keys(checked -> 'headers')) ELSE e.header_names END,
           basic_auth_username = c.basic_auth_username, max_attempts = c.max_attempts,
           max_in_flight = c.max_in_flight, rate_limit = c.rate_limit, attempt_interval = c.attempt_interval,
           retry_schedule = c.retry_schedule, timeout = c.timeout, expands = c.expands,
           scope = (checked ->> 'scope')::jsonb, filter = c.filter
      FROM jsonb_populate_record(NULL::webhook.endpoint, checked) AS c
     WHERE e.id = endpoint;
    -- A new chance: it may be another receiver.
    DELETE FROM webhook.failing AS f WHERE f.endpoint_id = endpoint;
    PERFORM webhook.write_secrets(endpoint, checked, ARRAY(SELECT jsonb_object_keys(changes)));
    IF (checked ->> 'is_active')::boolean <> (old.state <> 'inactive') THEN
        IF old.state = 'inactive' THEN
            UPDATE webhook.endpoint AS e SET state = 'active' WHERE e.id = endpoint;
            PERFORM webhook.start_at_present(endpoint);
        ELSE
            UPDATE webhook.endpoint AS e SET state = 'inactive', disabled_reason = NULL WHERE e.id = endpoint;
        END IF;
    END IF;
END $$;

CREATE FUNCTION webhook_unregister(endpoint bigint) RETURNS void LANGUAGE plpgsql VOLATILE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM webhook.endpoint_to_change(endpoint);
    DELETE FROM webhook.endpoint AS e WHERE e.id = endpoint;
    DELETE FROM webhook.position AS p WHERE p.endpoint_id = endpoint;
    DELETE FROM webhook.failing AS f WHERE f.endpoint_id = endpoint;
    DELETE FROM webhook.endpoint_figures AS f WHERE f.endpoint_id = endpoint;
    UPDATE webhook.delivery AS d SET state = 'cancelled', next_attempt_at = NULL, finished_at = clock_timestamp()
     WHERE d.endpoint_id = endpoint AND d.state = 'pending';
END $$;

CREATE FUNCTION webhook_pause(endpoint bigint) RETURNS void LANGUAGE plpgsql VOLATILE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    old webhook.endpoint := webhook.endpoint_to_change(endpoint);
BEGIN
    CASE old.state
        WHEN 'active' THEN
            UPDATE webhook.endpoint AS e SET state = 'paused', modified_at = clock_timestamp() WHERE e.id = endpoint;
        WHEN 'paused' THEN
            NULL;
        WHEN 'disabled' THEN
            RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state', MESSAGE = 'endpoint is disabled',
                DETAIL = format('The endpoint is %s; it was disabled: %s', endpoint, old.disabled_reason),
                HINT = 'A disabled endpoint keeps its events already; webhook_resume goes on.';
        ELSE
            PERFORM webhook.refuse_inactive(endpoint);
    END CASE;
END $$;

CREATE FUNCTION webhook_resume(endpoint bigint) RETURNS void LANGUAGE plpgsql VOLATILE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    old webhook.endpoint := webhook.endpoint_to_change(endpoint);
BEGIN
    IF old.state = 'inactive' THEN
        PERFORM webhook.refuse_inactive(endpoint);
    ELSIF old.state <> 'active' THEN
        DELETE FROM webhook.failing AS f WHERE f.endpoint_id = endpoint;
        UPDATE webhook.endpoint AS e SET state = 'active', disabled_reason = NULL, modified_at = clock_timestamp()
         WHERE e.id = endpoint;
    END IF;
END $$;

CREATE FUNCTION webhook.refuse_inactive(endpoint bigint) RETURNS void LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state', MESSAGE = 'endpoint is inactive',
        DETAIL = format('The endpoint is %s.', endpoint),
        HINT = format('Activate it: SELECT webhook_update(%s, ''{"is_active": true}'').', endpoint);
END $$;
