-- Capture: the trigger function, and what puts it on tables. See src/pg/capture/ and src/pg/attach.rs.

-- Its C symbol is stable for ever (SCENARIOS R34). Runs as the invoker; it needs no right on the private tables.
CREATE FUNCTION webhook.capture() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'webhook_pg_capture';

-- Both run as the caller, so that PostgreSQL checks the right to create or drop a trigger.
CREATE FUNCTION webhook_attach(
    table_name regclass,
    resource   text    DEFAULT NULL,
    actions    text[]  DEFAULT '{created,updated,deleted}',
    key        text[]  DEFAULT NULL,
    columns    text[]  DEFAULT NULL,
    exclude    text[]  DEFAULT '{}',
    watch      text[]  DEFAULT NULL,
    condition  text    DEFAULT NULL,
    expand     jsonb   DEFAULT '{}',
    as_action  text    DEFAULT NULL,
    always     boolean DEFAULT false
) RETURNS bigint
    LANGUAGE c VOLATILE CALLED ON NULL INPUT SECURITY INVOKER
    AS 'MODULE_PATHNAME', 'webhook_attach_wrapper';

-- Reads the table as the caller. See src/pg/capture/backfill.rs.
CREATE FUNCTION webhook_backfill(
    table_name regclass,
    endpoint   bigint,
    condition  text DEFAULT NULL
) RETURNS bigint
    LANGUAGE c VOLATILE CALLED ON NULL INPUT SECURITY INVOKER
    AS 'MODULE_PATHNAME', 'webhook_backfill_wrapper';

CREATE FUNCTION webhook_detach(
    table_name regclass,
    resource   text DEFAULT NULL,
    as_action  text DEFAULT NULL
) RETURNS int
    LANGUAGE c VOLATILE CALLED ON NULL INPUT SECURITY INVOKER
    AS 'MODULE_PATHNAME', 'webhook_detach_wrapper';
