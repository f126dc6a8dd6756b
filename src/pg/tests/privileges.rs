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
    fn dumps_take_configuration_along_but_no_secret() {
        let dumped: String = one(
            "SELECT string_agg(c::regclass::text, ' ' ORDER BY c::regclass::text) FROM pg_extension, unnest(extconfig) c
              WHERE extname = 'webhook_pg'",
        );
        assert_eq!(
            dumped,
            "webhook.attachment webhook.attachment_id_seq webhook.endpoint webhook.endpoint_id_seq webhook.installation"
        );
    }
}
