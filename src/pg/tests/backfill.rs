//! The rows that are there already, for one endpoint.

use pgrx::prelude::*;

#[pg_schema]
mod tests {
    use pgrx::prelude::*;

    use crate::pg::tests::{contacts, events, maybe, one, register, run, sqlstate};

    #[pg_test]
    fn a_backfill_raises_one_snapshot_for_each_row_and_answers_how_many() {
        run("CREATE TABLE contact (id bigint PRIMARY KEY, gone int, name text, age int); ALTER TABLE contact DROP gone;
             INSERT INTO contact VALUES (1, 'a', 3), (2, NULL, NULL)");
        register("other", "");
        let id = register("new", "");
        run("SELECT webhook_attach('contact')");
        assert_eq!(one::<i64>(&format!("SELECT webhook_backfill('contact', {id})")), 2);
        assert_eq!(
            events(),
            [
                r#"contact.snapshot {"id":1} {"id":1,"name":"a","age":3}"#,
                r#"contact.snapshot {"id":2} {"id":2,"name":null,"age":null}"#,
            ]
        );
        assert!(one::<bool>(&format!(
            "SELECT bool_and(target = {id} AND operation IS NULL) AND count(DISTINCT occurred_at) = 1 FROM webhook.outbox"
        )));
    }

    #[pg_test]
    fn a_backfill_says_what_the_attachment_says() {
        register("all", "");
        run("CREATE TABLE account (id int PRIMARY KEY, name text);
             CREATE TABLE contact (id int PRIMARY KEY, account_id int REFERENCES account, secret text);
             INSERT INTO account VALUES (7, 'Acme'); INSERT INTO contact VALUES (1, 7, 'x');
             SELECT webhook_attach('contact', 'person', exclude => '{secret}', expand => '{\"account\": \"account_id\"}');
             SELECT webhook_attach('contact', 'person', as_action => 'touched');
             SELECT webhook_backfill('contact', id) FROM webhook.endpoints");
        assert_eq!(events(), [r#"person.snapshot {"id":1} {"id":1,"account_id":7}"#]);
        assert_eq!(
            one::<String>("SELECT expanded FROM webhook.outbox"),
            r#"{"account":{"id":7,"name":"Acme"}}"#
        );
    }

    #[pg_test]
    fn a_condition_chooses_the_rows() {
        contacts();
        run(
            "INSERT INTO contact SELECT g, 'n' || g, g FROM generate_series(1, 9) g; DELETE FROM webhook.outbox",
        );
        let count: i64 = one(
            "SELECT webhook_backfill('contact', id, condition => 'contact.age > 4 AND name <> ''n6'' -- not him') FROM webhook.endpoints",
        );
        assert_eq!((count, events().len()), (4, 4));
    }

    #[pg_test]
    fn a_partitioned_table_is_read_as_a_whole_and_a_child_table_is_not() {
        let id = register("all", "");
        run("CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id);
             CREATE TABLE p_1 PARTITION OF p FOR VALUES FROM (0) TO (5); CREATE TABLE p_2 PARTITION OF p DEFAULT;
             CREATE TABLE party (id int PRIMARY KEY); CREATE TABLE company () INHERITS (party);
             INSERT INTO p VALUES (1), (9); INSERT INTO party VALUES (1); INSERT INTO company VALUES (2);
             SELECT webhook_attach('p'), webhook_attach('party')");
        assert_eq!(one::<i64>(&format!("SELECT webhook_backfill('p', {id})")), 2);
        assert_eq!(one::<i64>(&format!("SELECT webhook_backfill('party', {id})")), 1);
    }

    #[pg_test]
    fn more_rows_than_fit_one_batch_are_all_sent() {
        contacts();
        run("INSERT INTO contact SELECT g FROM generate_series(1, 2500) g; DELETE FROM webhook.outbox");
        assert_eq!(one::<i64>("SELECT webhook_backfill('contact', id) FROM webhook.endpoints"), 2500);
        assert_eq!(one::<i64>("SELECT count(DISTINCT (key::json ->> 'id')::int) FROM webhook.outbox"), 2500);
    }

    #[pg_test]
    fn wrong_backfills_end_with_the_right_sqlstate_and_raise_nothing() {
        contacts();
        let inactive = register("inactive", ", is_active => false");
        run("INSERT INTO contact VALUES (1); DELETE FROM webhook.outbox; CREATE TABLE other (id int)");
        let id: i64 = one("SELECT id FROM webhook.endpoints WHERE name = 'all'");
        for (call, state) in [
            (format!("NULL, {id}"), "22023"),
            (format!("4294967294, {id}"), "42704"),
            ("'contact', NULL".to_owned(), "22004"),
            ("'contact', 0".to_owned(), "42704"),
            (format!("'contact', {inactive}"), "55000"),
            (format!("'other', {id}"), "55000"),
            (format!("'webhook.outbox', {id}"), "55000"),
            (format!("'contact', {id}, ''"), "22023"),
            (format!("'contact', {id}, 'nope'"), "42703"),
            (format!("'contact', {id}, 'id +'"), "42601"),
            (format!("'contact', {id}, 'true) UNION SELECT (1'"), "42601"),
            (format!("'contact', {id}, 'id'"), "42804"),
            (format!("'contact', {id}, '1 / (id - id) = 1'"), "22012"),
        ] {
            assert_eq!(sqlstate(&format!("SELECT webhook_backfill({call})")), state, "{call}");
        }
        assert_eq!(maybe::<String>("SELECT string_agg(type, ' ') FROM webhook.outbox"), None);
    }

    #[pg_test]
    fn a_backfill_sends_only_what_its_caller_may_read_and_only_to_his_endpoints() {
        contacts();
        run("INSERT INTO contact VALUES (1, 'a', 1), (2, 'b', 2); DELETE FROM webhook.outbox;
             CREATE ROLE reader; CREATE POLICY one ON contact TO reader USING (id = 1);
             ALTER TABLE contact ENABLE ROW LEVEL SECURITY;
             GRANT USAGE ON SCHEMA webhook TO reader; GRANT SELECT ON webhook.endpoints TO reader;
             GRANT EXECUTE ON FUNCTION webhook_register, webhook_backfill TO reader");
        let others: i64 = one("SELECT id FROM webhook.endpoints");
        run("SET LOCAL ROLE reader");
        let own = register("own", "");
        assert_eq!(sqlstate(&format!("SELECT webhook_backfill('contact', {others})")), "42501");
        assert_eq!(sqlstate(&format!("SELECT webhook_backfill('contact', {own})")), "42501");
        run("RESET ROLE; GRANT SELECT ON contact TO reader; SET LOCAL ROLE reader");
        assert_eq!(one::<i64>(&format!("SELECT webhook_backfill('contact', {own})")), 1);
        run("RESET ROLE");
        assert_eq!(events(), [r#"contact.snapshot {"id":1} {"id":1,"name":"a","age":1}"#]);
    }
}
