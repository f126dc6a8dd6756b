//! Attaching and detaching tables: what it takes, what it refuses, what ends.

use pgrx::prelude::*;

#[pg_schema]
mod tests {
    use pgrx::prelude::*;

    use crate::pg::tests::{contacts, events, one, register, run, sqlstate, types};

    #[pg_test]
    fn attaching_again_changes_the_attachment() {
        register("all", "");
        run("CREATE TABLE t (a int, b int)");
        let first: i64 = one("SELECT webhook_attach('t', actions => '{created}')");
        run("INSERT INTO t VALUES (1, 2)");
        assert_eq!(one::<i64>("SELECT webhook_attach('t', actions => '{deleted}', exclude => '{a}')"), first);
        run("INSERT INTO t VALUES (3, 4); DELETE FROM t WHERE a = 1");
        assert_eq!(events(), [r#"t.created {"a":1,"b":2}"#, r#"t.deleted {"b":2}"#]);
        assert_ne!(one::<i64>("SELECT webhook_attach('t', 'other')"), first);
    }

    #[pg_test]
    fn an_attachment_has_the_triggers_it_needs_and_no_others() {
        let triggers = "SELECT coalesce(string_agg(regexp_replace(tgname, '\\d+', 'N'), ' ' ORDER BY tgname), '') FROM pg_trigger
                         WHERE tgrelid = 't'::regclass AND NOT tgisinternal";
        run("CREATE TABLE t (a int)");
        for (parameters, names) in [
            ("", "webhook_pg_N"),
            (", actions => '{created,truncated}'", "webhook_pg_N webhook_pg_N_truncated"),
            (", actions => '{truncated}'", "webhook_pg_N_truncated"),
            (
                ", actions => '{created,updated}', condition => 'NEW.a = 1'",
                "webhook_pg_N_created webhook_pg_N_updated",
            ),
            ("", "webhook_pg_N"),
        ] {
            run(&format!("SELECT webhook_attach('t'{parameters})"));
            assert_eq!(one::<String>(triggers), names, "{parameters}");
            assert!(one::<bool>("SELECT bool_and(enabled) FROM webhook.attachments"), "{parameters}");
        }
        run("ALTER TABLE t DISABLE TRIGGER ALL");
        assert!(one::<bool>("SELECT NOT bool_or(enabled) FROM webhook.attachments"));
        run("SELECT webhook_detach('t')");
        assert_eq!(one::<String>(triggers), "");
    }

    #[pg_test]
    fn detach_ends_what_it_names_and_answers_how_many() {
        contacts();
        run("SELECT webhook_attach('contact', 'person'), webhook_attach('contact', 'human')");
        assert_eq!(one::<i32>("SELECT webhook_detach('contact', 'person')"), 1);
        // Triggers fire in the order of their names, and the names end with the attachments' numbers: 10 before 9.
        let types_of_all = "SELECT string_agg(type, ' ' ORDER BY type) FROM webhook.outbox";
        run("INSERT INTO contact VALUES (1)");
        assert_eq!(one::<String>(types_of_all), "contact.created human.created");
        assert_eq!(one::<i32>("SELECT webhook_detach('contact')"), 2);
        assert_eq!(one::<i32>("SELECT webhook_detach('contact')"), 0);
        run("INSERT INTO contact VALUES (2)");
        assert_eq!(one::<String>(types_of_all), "contact.created human.created");
    }

    #[pg_test]
    fn wrong_attach_calls_end_with_the_right_sqlstate() {
        run("CREATE TABLE t (a int); CREATE VIEW v AS SELECT 1 AS a; CREATE TEMP TABLE temporary (a int);
             CREATE MATERIALIZED VIEW m AS SELECT 1 AS a; CREATE SEQUENCE s;
             CREATE FOREIGN DATA WRAPPER w; CREATE SERVER elsewhere FOREIGN DATA WRAPPER w;
             CREATE FOREIGN TABLE remote (a int) SERVER elsewhere");
        for (call, state) in [
            ("NULL", "22023"),
            ("4294967294", "42704"),
            ("'t', key => '{nope}'", "42703"),
            ("'t', columns => '{ctid}'", "42703"),
            ("'t', exclude => '{nope}'", "42703"),
            ("'t', watch => '{nope}'", "42703"),
            ("'t', key => '{}'", "22023"),
            ("'t', columns => '{}'", "22023"),
            ("'t', columns => '{NULL}'", "22023"),
            ("'t', ''", "22023"),
            ("'t', 'a b'", "22023"),
            ("'t', '*'", "22023"),
            ("'t', actions => '{}'", "22023"),
            ("'t', actions => '{exploded}'", "22023"),
            ("'t', condition => ''", "22023"),
            ("'t', condition => 'NEW.a >'", "42601"),
            ("'t', condition => 'true) EXECUTE FUNCTION webhook.capture(); DROP TABLE t; --'", "42601"),
            ("'t', condition => 'NEW.b', actions => '{created}'", "42703"),
            ("'t', condition => 'OLD.a = 1'", "42P17"),
            ("'t', as_action => 'lists.changed'", "22023"),
            ("'t', as_action => '*'", "22023"),
            ("'pg_class'", "42809"),
            ("'webhook.outbox'", "42809"),
            ("'v'", "42809"),
            ("'m'", "42809"),
            ("'s'", "42809"),
            ("'temporary'", "42809"),
            ("'remote'", "42809"),
        ] {
            assert_eq!(sqlstate(&format!("SELECT webhook_attach({call})")), state, "{call}");
        }
        assert_eq!(one::<i64>("SELECT count(*) FROM webhook.attachment"), 0);
    }

    #[pg_test]
    fn only_who_may_create_triggers_attaches_and_only_the_owner_detaches() {
        contacts();
        run("CREATE ROLE stranger; GRANT USAGE ON SCHEMA webhook TO stranger;
             GRANT EXECUTE ON FUNCTION webhook.capture TO stranger;
             GRANT EXECUTE ON FUNCTION webhook_attach, webhook_detach TO stranger;
             GRANT INSERT ON contact TO stranger; SET LOCAL ROLE stranger");
        assert_eq!(sqlstate("SELECT webhook_attach('contact', 'stolen')"), "42501");
        assert_eq!(sqlstate("SELECT webhook_detach('contact')"), "42501");
        assert_eq!(sqlstate("SELECT * FROM webhook.outbox"), "42501");
        run("INSERT INTO contact VALUES (1)");
        run("RESET ROLE");
        assert_eq!(types(), "contact.created");
        run("GRANT TRIGGER ON contact TO stranger; SET LOCAL ROLE stranger");
        assert_eq!(sqlstate("SELECT webhook_attach('contact', 'shared')"), "00000");
        assert_eq!(one::<String>("SELECT current_user::text"), "stranger");
        assert_eq!(sqlstate("SELECT webhook_attach('contact', 'shared', always => true)"), "42501");
    }

    #[pg_test]
    fn always_captures_in_replica_role_and_others_do_not() {
        contacts();
        run("CREATE TABLE t (a int); SELECT webhook_attach('t', always => true);
             SET LOCAL session_replication_role = replica;
             INSERT INTO t VALUES (1); INSERT INTO contact VALUES (1)");
        assert_eq!(types(), "t.created");
    }
}
