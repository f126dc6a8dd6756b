-- Signing secrets, passwords and header values: sealed with the keys of webhook_pg.key_file where there is one.

-- A secret sealed for its place, or null without webhook_pg.key_file; a sealed one opened, or null if it cannot be: src/pg/key_file.rs.
CREATE FUNCTION webhook.seal(endpoint bigint, kind text, name text, secret text) RETURNS text
    LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'seal_wrapper';
CREATE FUNCTION webhook.unseal(endpoint bigint, kind text, name text, sealed text) RETURNS text
    LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'unseal_wrapper';
-- The ids of the keys in the key file, the one that seals first: empty without one, or if it cannot be used. And why it cannot.
CREATE FUNCTION webhook.key_ids() RETURNS text[] LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'key_ids_wrapper';
CREATE FUNCTION webhook.key_file_fault() RETURNS text LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'key_file_fault_wrapper';

-- The secret of a row; null: sealed, and the key is missing.
CREATE FUNCTION webhook.opened(s webhook.endpoint_secret) RETURNS text LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN s.sealed THEN webhook.unseal(s.endpoint_id, s.kind, s.name, s.value) ELSE s.value END
$$;

-- Whether everything is here, and can be opened, that requests to the endpoint are signed and authorized with.
CREATE FUNCTION webhook.has_secrets(endpoint webhook.endpoint) RETURNS boolean LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT (endpoint.signature = 'none' OR coalesce(bool_or(s.kind = 'signing'), false))
       AND (NOT endpoint.has_password OR coalesce(bool_or(s.kind = 'password'), false))
       AND endpoint.header_names <@ coalesce(array_agg(s.name) FILTER (WHERE s.kind = 'header'), '{}')
       AND coalesce(bool_and(webhook.opened(s) IS NOT NULL), true)
      FROM webhook.endpoint_secret AS s
     WHERE s.endpoint_id = endpoint.id AND (s.expires_at IS NULL OR s.expires_at > now())
$$;

-- Keeps a secret, sealed if there is a key file.
CREATE FUNCTION webhook.keep_secret(endpoint bigint, kind text, name text, secret text) RETURNS void LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO webhook.endpoint_secret (endpoint_id, kind, name, sealed, value)
    SELECT endpoint, kind, name, sealed IS NOT NULL, coalesce(sealed, secret)
      FROM (SELECT webhook.seal(endpoint, kind, name, secret) OFFSET 0) AS s (sealed)
$$;

-- Seals with the first key of the key file what is not sealed with it. The worker calls it when it starts and when the configuration is
-- read again.
CREATE FUNCTION webhook.reseal() RETURNS void LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    UPDATE webhook.endpoint_secret AS s
       SET sealed = true, value = webhook.seal(s.endpoint_id, s.kind, s.name, o.secret)
      FROM (SELECT p.tableoid, p.ctid, webhook.opened(p) AS secret
              FROM webhook.endpoint_secret AS p
             WHERE (SELECT (webhook.key_ids())[1]) <> CASE WHEN p.sealed THEN split_part(p.value, '.', 2) ELSE '' END
               FOR UPDATE SKIP LOCKED) AS o
     WHERE s.tableoid = o.tableoid AND s.ctid = o.ctid AND o.secret IS NOT NULL
$$;
