//! Every kind of change: the statement decides nothing, the changed row everything.

use pgrx::prelude::*;

#[pg_schema]
mod tests {
    use pgrx::prelude::*;

    use crate::pg::tests::{contacts, events, one, register, run, sqlstate, types};

    #[pg_test]
    fn merge_raises_one_event_for_each_row_it_changes() {
        contacts();
        run("INSERT INTO contact VALUES (1, 'a', 1), (2, 'b', 2)");
        run(
            "MERGE INTO contact c USING (VALUES (1, 'x'), (2, NULL), (3, 'z')) AS s (id, name) ON c.id = s.id
             WHEN MATCHED AND s.name IS NULL THEN DELETE
             WHEN MATCHED THEN UPDATE SET name = s.name
             WHEN NOT MATCHED THEN INSERT VALUES (s.id, s.name)",
        );
        let mut merged = events().split_off(2);
        merged.sort();
        assert_eq!(
            merged,
            [
                r#"contact.created {"id":3} {"id":3,"name":"z","age":null}"#,
                r#"contact.deleted {"id":2} {"id":2,"name":"b","age":2}"#,
                r#"contact.updated {"id":1} {"id":1,"name":"x","age":1} {"name":"a"}"#,
            ]
        );
    }

    #[pg_test]
    fn a_row_is_captured_as_before_triggers_and_generated_columns_left_it() {
        register("all", "");
        run("CREATE TABLE t (id int PRIMARY KEY, name text, shout text GENERATED ALWAYS AS (upper(name)) STORED);
             CREATE FUNCTION trims() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.name = trim(NEW.name); RETURN NEW; END $$;
             CREATE TRIGGER trims BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION trims();
             SELECT webhook_attach('t');
             INSERT INTO t VALUES (1, ' ann ');
             UPDATE t SET name = '  ann';
             UPDATE t SET name = 'bo ';");
        assert_eq!(
            events(),
            [
                r#"t.created {"id":1} {"id":1,"name":"ann","shout":"ANN"}"#,
                r#"t.updated {"id":1} {"id":1,"name":"bo","shout":"BO"} {"name":"ann","shout":"ANN"}"#,
            ]
        );
    }

    #[pg_test]
    fn a_child_table_raises_its_own_events_also_when_changed_through_its_parent() {
        register("all", "");
        run("CREATE TABLE party (id int, name text); CREATE TABLE company (vat text) INHERITS (party);
             SELECT webhook_attach('party', key => '{id}'), webhook_attach('company', key => '{id}');
             INSERT INTO party VALUES (1, 'a'); INSERT INTO company VALUES (2, 'b', 'X');
             UPDATE party SET name = name || '!'; DELETE FROM party");
        let mut all: Vec<String> = types().split(' ').map(str::to_owned).collect();
        all.sort();
        assert_eq!(
            all,
            [
                "company.created",
                "company.deleted",
                "company.updated",
                "party.created",
                "party.deleted",
                "party.updated"
            ]
        );
    }

    #[pg_test]
    fn a_prepared_statement_goes_on_after_its_table_was_changed() {
        contacts();
        run("PREPARE add AS INSERT INTO contact (id) VALUES ($1)");
        run("EXECUTE add (1)");
        run("ALTER TABLE contact ADD city text DEFAULT 'Ghent', DROP COLUMN age");
        run("EXECUTE add (2)");
        run("ALTER TABLE contact ALTER city TYPE varchar(9), ALTER id TYPE numeric");
        run("EXECUTE add (3)");
        run("ALTER TABLE contact RENAME TO person; INSERT INTO person (id) VALUES (4)");
        assert_eq!(
            events(),
            [
                r#"contact.created {"id":1} {"id":1,"name":null,"age":null}"#,
                r#"contact.created {"id":2} {"id":2,"name":null,"city":"Ghent"}"#,
                r#"contact.created {"id":3} {"id":3,"name":null,"city":"Ghent"}"#,
                r#"contact.created {"id":4} {"id":4,"name":null,"city":"Ghent"}"#,
            ]
        );
    }

    #[pg_test]
    fn an_update_through_a_view_and_a_writing_cte_are_changes_like_any_other() {
        contacts();
        run("CREATE VIEW adults AS SELECT * FROM contact WHERE age >= 18");
        run("WITH added AS (INSERT INTO contact VALUES (1, 'a', 20) RETURNING id) SELECT id FROM added");
        run("UPDATE adults SET name = 'b'");
        assert_eq!(types(), "contact.created contact.updated");
    }

    #[pg_test]
    fn copy_raises_one_event_for_each_row_and_a_failing_copy_none() {
        contacts();
        run("COPY contact (id) FROM PROGRAM 'seq 1 2500'");
        assert_eq!(one::<i64>("SELECT count(DISTINCT data) FROM webhook.outbox"), 2500);
        assert_eq!(sqlstate("COPY contact (id) FROM PROGRAM 'seq 3000 5000; echo x'"), "22P02");
        assert_eq!(one::<i64>("SELECT count(*) FROM webhook.outbox"), 2500);
    }

    #[pg_test]
    fn partitions_of_partitions_are_captured_as_long_as_they_belong_to_the_root() {
        register("all", "");
        run("CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id);
             CREATE TABLE p_low PARTITION OF p FOR VALUES FROM (0) TO (10) PARTITION BY RANGE (id);
             CREATE TABLE p_1 PARTITION OF p_low FOR VALUES FROM (0) TO (5);
             SELECT webhook_attach('p');
             CREATE TABLE p_2 PARTITION OF p_low FOR VALUES FROM (5) TO (10);
             INSERT INTO p VALUES (1), (6); INSERT INTO p_low VALUES (2); INSERT INTO p_2 VALUES (7);
             ALTER TABLE p_low DETACH PARTITION p_2;
             INSERT INTO p_2 VALUES (8)");
        assert_eq!(
            one::<String>("SELECT string_agg(type || key, ' ' ORDER BY seq) FROM webhook.outbox"),
            r#"p.created{"id":1} p.created{"id":6} p.created{"id":2} p.created{"id":7}"#
        );
    }

    #[pg_test]
    fn what_a_foreign_key_sets_or_cascades_is_an_update_of_the_child() {
        contacts();
        run("CREATE TABLE note (id int PRIMARY KEY, contact_id bigint REFERENCES contact ON DELETE SET NULL ON UPDATE CASCADE);
             SELECT webhook_attach('note');
             INSERT INTO contact VALUES (1); INSERT INTO note VALUES (1, 1);
             UPDATE contact SET id = 2; DELETE FROM contact");
        assert_eq!(
            one::<Vec<String>>(
                "SELECT array_agg(data || previous ORDER BY seq) FROM webhook.outbox WHERE type = 'note.updated'"
            ),
            [r#"{"id":1,"contact_id":2}{"contact_id":1}"#, r#"{"id":1,"contact_id":null}{"contact_id":2}"#]
        );
    }

    #[pg_test]
    fn truncate_cascade_is_one_event_for_each_attached_table() {
        register("all", "");
        run("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int REFERENCES a); CREATE TABLE c (id int);
             SELECT webhook_attach('a', actions => '{truncated}'), webhook_attach('b', actions => '{truncated}'),
                    webhook_attach('c', actions => '{truncated}');
             INSERT INTO a VALUES (1), (2); TRUNCATE a CASCADE");
        let mut all: Vec<String> = types().split(' ').map(str::to_owned).collect();
        all.sort();
        assert_eq!(all, ["a.truncated", "b.truncated"]);
    }

    #[pg_test]
    fn the_local_role_of_replication_captures_and_the_replica_role_does_not() {
        contacts();
        run("SET LOCAL session_replication_role = local; INSERT INTO contact VALUES (1);
             SET LOCAL session_replication_role = replica; INSERT INTO contact VALUES (2)");
        assert_eq!(types(), "contact.created");
    }

    #[pg_test]
    fn a_disabled_trigger_captures_nothing_and_shows() {
        contacts();
        run("ALTER TABLE contact DISABLE TRIGGER USER; INSERT INTO contact VALUES (1)");
        assert_eq!(types(), "");
        assert!(!one::<bool>("SELECT ok FROM webhook_status() WHERE check_name = 'attachments'"));
        run("ALTER TABLE contact ENABLE TRIGGER USER; INSERT INTO contact VALUES (2)");
        assert_eq!(types(), "contact.created");
    }

    #[pg_test]
    fn a_transaction_of_many_rows_does_not_grow_with_them() {
        /// Kilobytes of this process that are not shared.
        fn memory() -> i64 {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
            line.trim().trim_end_matches(" kB").parse().unwrap()
        }
        contacts();
        let add = |from: i64| {
            for block in 0..4 {
                let first = from + block * 5000;
                run(&format!(
                    "INSERT INTO contact SELECT g, repeat('x', 200) FROM generate_series({first}, {first} + 4999) g"
                ));
            }
        };
        add(0);
        let before = memory();
        (1..5).for_each(|nth| add(nth * 20_000));
        let grown = memory() - before;
        // 80,000 events are 20 MB.
        assert!(grown < 6000, "{grown} kB");
        assert_eq!(one::<i64>("SELECT count(*) FROM webhook.outbox"), 100_000);
    }
}
