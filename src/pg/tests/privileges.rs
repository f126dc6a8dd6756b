//! Who may do what.

use pgrx::prelude::*;

#[pg_schema]
mod tests {
    use pgrx::prelude::*;

    use crate::pg::tests::{maybe, one, register, run, sqlstate};

    /// Members of the extension, apart from what exists for tests.
    const MEMBERS: &str =
        "SELECT d.classid, d.objid FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
         WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND e.extname = 'webhook_pg'";

    #[pg_test]
    fn public_has_no_right_on_anything() {
        let granted: Option<String> = maybe(&format!(
            "WITH member AS ({MEMBERS}), rights (what, acl) AS (
                SELECT p.oid::regprocedure::text, coalesce(p.proacl, acldefault('f', p.proowner))
                  FROM pg_proc p JOIN member m ON m.classid = 'pg_proc'::regclass AND m.objid = p.oid
                 WHERE p.pronamespace <> 'tests'::regnamespace
                UNION ALL
                SELECT c.oid::regclass::text, coalesce(c.relacl, acldefault('r', c.relowner))
                  FROM pg_class c JOIN member m ON m.classid = 'pg_class'::regclass AND m.objid = c.oid
                UNION ALL
                SELECT t.oid::regtype::text, coalesce(t.typacl, acldefault('T', t.typowner))
                  FROM pg_type t JOIN member m ON m.classid = 'pg_type'::regclass AND m.objid = t.oid
                 WHERE t.typelem = 0
                UNION ALL
                SELECT n.nspname, coalesce(n.nspacl, acldefault('n', n.nspowner))
                  FROM pg_namespace n JOIN member m ON m.classid = 'pg_namespace'::regclass AND m.objid = n.oid
                 WHERE n.nspname <> 'tests')
             SELECT string_agg(r.what || ' ' || a.privilege_type, ', ') FROM rights r, aclexplode(r.acl) a WHERE a.grantee = 0"
        ));
        assert_eq!(granted, None);
    }

    #[pg_test]
    fn every_definer_function_pins_its_search_path() {
        let loose: Option<String> = maybe(&format!(
            "SELECT string_agg(p.oid::regprocedure::text, ', ') FROM pg_proc p
               JOIN ({MEMBERS}) m ON m.classid = 'pg_proc'::regclass AND m.objid = p.oid
              WHERE p.prosecdef AND NOT coalesce(p.proconfig, '{{}}') @> ARRAY['search_path=pg_catalog, pg_temp']"
        ));
        assert_eq!(loose, None);
    }

    #[pg_test]
    fn the_right_to_execute_is_enough_and_the_role_becomes_the_owner() {
        run("CREATE ROLE webhook_admin");
        run("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO webhook_admin");
        run("SET LOCAL ROLE webhook_admin");
        let id = register("a", "");
        run(&format!("SELECT webhook_pause({id}), webhook_resume({id}), webhook_test({id})"));
        run(r#"SELECT webhook_send('a.b', '1', idempotency_key => 'k')"#);
        assert_eq!(sqlstate("SELECT * FROM webhook.endpoint"), "42501");
        assert_eq!(sqlstate("SELECT webhook.new_secret()"), "42501");
        run("RESET ROLE");
        assert_eq!(one::<String>("SELECT owner::text FROM webhook.endpoints"), "webhook_admin");
    }

    #[pg_test]
    fn an_endpoint_of_another_role_is_out_of_reach() {
        let id = register("a", "");
        run("CREATE ROLE webhook_admin");
        run("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO webhook_admin");
        run("SET LOCAL ROLE webhook_admin");
        for call in ["pause(#)", "resume(#)", "unregister(#)", "test(#)", "update(#, '{}')"] {
            assert_eq!(
                sqlstate(&format!("SELECT webhook_{}", call.replace('#', &id.to_string()))),
                "42501",
                "{call}"
            );
        }
    }

    #[pg_test]
    fn a_member_of_the_owner_may_change_its_endpoint() {
        run("CREATE ROLE webhook_team");
        run("CREATE ROLE webhook_member IN ROLE webhook_team");
        run("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO webhook_team");
        run("SET LOCAL ROLE webhook_team");
        let id = register("a", "");
        run("SET LOCAL ROLE webhook_member");
        assert_eq!(sqlstate(&format!("SELECT webhook_pause({id})")), "00000");
    }

    #[pg_test]
    fn code_that_runs_for_a_tables_owner_cannot_borrow_the_maintainers_rights() {
        let id = register("a", "");
        run("CREATE TABLE bait (a int)");
        run("INSERT INTO bait VALUES (1)");
        run(&format!(
            "CREATE FUNCTION trap(a int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
             'BEGIN PERFORM public.webhook_pause({id}); RETURN a; END'"
        ));
        assert_eq!(sqlstate("CREATE INDEX ON bait (trap(a))"), "42501");
    }

    #[pg_test]
    fn dumps_take_configuration_along_and_of_secrets_what_is_sealed() {
        let dumped: String = one(
            "SELECT string_agg(c::regclass::text, ' ' ORDER BY c::regclass::text) FROM pg_extension, unnest(extconfig) c
              WHERE extname = 'webhook_pg'",
        );
        assert_eq!(
            dumped,
            "webhook.attachment webhook.attachment_id_seq webhook.endpoint webhook.endpoint_id_seq webhook.installation \
             webhook.sealed_secret"
        );
    }

    /// Whoever may create objects in a schema of the search path can offer functions and operators that fit better than PostgreSQL's.
    #[pg_test]
    fn what_shadows_postgresql_in_public_or_pg_temp_is_never_called() {
        run("CREATE TABLE caught (who text);
             CREATE TYPE pair AS (x int, at timestamptz);
             CREATE FUNCTION to_json(pair) RETURNS json LANGUAGE plpgsql AS
                 $$ BEGIN INSERT INTO public.caught VALUES ('to_json'); RETURN NULL; END $$;
             CREATE FUNCTION pg_temp.to_json(pair) RETURNS json LANGUAGE plpgsql AS
                 $$ BEGIN INSERT INTO public.caught VALUES ('temp to_json'); RETURN NULL; END $$;
             CREATE FUNCTION public.now() RETURNS timestamptz LANGUAGE plpgsql AS
                 $$ BEGIN INSERT INTO public.caught VALUES ('now'); RETURN NULL; END $$;
             CREATE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE plpgsql AS
                 $$ BEGIN INSERT INTO public.caught VALUES ('clock'); RETURN NULL; END $$;
             CREATE FUNCTION public.same(bigint, bigint) RETURNS boolean LANGUAGE plpgsql AS
                 $$ BEGIN INSERT INTO public.caught VALUES ('='); RETURN true; END $$;
             CREATE OPERATOR public.= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = public.same);
             CREATE FUNCTION public.same(text, text) RETURNS boolean LANGUAGE plpgsql AS
                 $$ BEGIN INSERT INTO public.caught VALUES ('= of text'); RETURN true; END $$;
             CREATE OPERATOR public.= (LEFTARG = text, RIGHTARG = text, FUNCTION = public.same);
             CREATE TABLE account (id bigint PRIMARY KEY);
             CREATE TABLE contact (id bigint PRIMARY KEY, p pair, list pair[], account_id bigint REFERENCES account);
             INSERT INTO account VALUES (1);
             SET LOCAL search_path = public, pg_temp, pg_catalog;");
        let id = register("a", "");
        run(&format!(
            "SELECT webhook_attach('contact', expand => '{{\"account\": \"account_id\"}}');
             INSERT INTO contact VALUES (1, ROW(1, '2020-01-01'), ARRAY[ROW(2, '2020-01-01')::pair], 1);
             UPDATE contact SET p = NULL;
             SELECT webhook_backfill('contact', {id});
             SELECT webhook_update({id}, '{{\"timeout\": \"2 s\"}}');
             SELECT webhook_pause({id}); SELECT webhook_resume({id}); SELECT webhook_test({id});
             SELECT webhook_config({id}); SELECT webhook_rotate_secret({id});
             SELECT webhook_send('a.b', '{{}}', 'k', 'i'); SELECT count(*) FROM webhook_status();
             SELECT count(*) FROM webhook.endpoints; SELECT count(*) FROM webhook.attachments; SELECT count(*) FROM webhook.deliveries;
             SELECT webhook_detach('contact'); SELECT webhook_unregister({id})"
        ));
        run("RESET search_path");
        assert_eq!(maybe::<String>("SELECT string_agg(who, ' ') FROM caught"), None);
        assert!(one::<bool>(
            "SELECT data::json -> 'p' ->> 'x' OPERATOR(pg_catalog.=) '1' FROM webhook.outbox WHERE type LIKE '%.created'"
        ));
    }
}
