//! Capture and attachments: what a change of a table leaves in the outbox.

use pgrx::prelude::*;

#[pg_schema]
mod tests {
    use pgrx::prelude::*;

    use crate::pg::tests::{contacts, events, maybe, one, register, run, types};

    #[pg_test]
    fn insert_update_and_delete_leave_the_exact_row() {
        contacts();
        run(r#"INSERT INTO contact VALUES (1, E'a"\\\n', NULL)"#);
        run("UPDATE contact SET age = 40");
        run("DELETE FROM contact");
        assert_eq!(
            events(),
            [
                r#"contact.created {"id":1} {"id":1,"name":"a\"\\\n","age":null}"#,
                r#"contact.updated {"id":1} {"id":1,"name":"a\"\\\n","age":40} {"age":null}"#,
                r#"contact.deleted {"id":1} {"id":1,"name":"a\"\\\n","age":40}"#,
            ]
        );
    }

    #[pg_test]
    fn an_update_that_changes_nothing_leaves_nothing() {
        contacts();
        run("INSERT INTO contact VALUES (1, repeat('long', 10000), 1)");
        run("UPDATE contact SET age = age");
        run("UPDATE contact SET name = name || ''");
        assert_eq!(types(), "contact.created");
    }

    #[pg_test]
    fn previous_holds_the_old_values_of_changed_columns_only() {
        contacts();
        run("INSERT INTO contact VALUES (1, 'a', 1), (2, 'b', 2)");
        run("UPDATE contact SET name = 'b'");
        assert_eq!(
            maybe::<String>("SELECT string_agg(previous, '') FROM webhook.outbox").as_deref(),
            Some(r#"{"name":"a"}"#)
        );
    }

    #[pg_test]
    fn columns_exclude_watch_and_key_choose_what_travels() {
        register("all", "");
        run("CREATE TABLE t (id int PRIMARY KEY, a int, b int, c int);
             SELECT webhook_attach('t', columns => '{id,a,b}', exclude => '{b}', watch => '{c}', key => '{a,id}');
             INSERT INTO t VALUES (1, 2, 3, 4);
             UPDATE t SET a = 5;
             UPDATE t SET a = 6, c = 7;
             UPDATE t SET c = 8");
        assert_eq!(
            events(),
            [
                r#"t.created {"a":2,"id":1} {"id":1,"a":2}"#,
                r#"t.updated {"a":6,"id":1} {"id":1,"a":6} {"a":5}"#,
                r#"t.updated {"a":6,"id":1} {"id":1,"a":6}"#,
            ]
        );
    }

    #[pg_test]
    fn a_table_without_a_primary_key_has_events_without_a_key() {
        register("all", "");
        run("CREATE TABLE t (a int); SELECT webhook_attach('t'); INSERT INTO t VALUES (1)");
        assert_eq!(events(), [r#"t.created {"a":1}"#]);
    }

    #[pg_test]
    fn a_rolled_back_savepoint_leaves_nothing_and_the_rest_stays_in_order() {
        contacts();
        run("DO $$
             BEGIN
                 INSERT INTO contact VALUES (1);
                 BEGIN
                     INSERT INTO contact VALUES (2);
                     RAISE 'undo';
                 EXCEPTION WHEN OTHERS THEN
                     INSERT INTO contact VALUES (3);
                 END;
                 BEGIN
                     INSERT INTO contact VALUES (4);
                 EXCEPTION WHEN OTHERS THEN
                     NULL;
                 END;
                 INSERT INTO contact VALUES (5);
             END $$");
        assert_eq!(
            one::<String>("SELECT string_agg(key, '' ORDER BY seq) FROM webhook.outbox"),
            r#"{"id":1}{"id":3}{"id":4}{"id":5}"#
        );
    }

    #[pg_test]
    fn a_trigger_that_fails_in_an_exception_block_takes_only_its_own_events_along() {
        contacts();
        run("CREATE TABLE log (id int); SELECT webhook_attach('log');
             CREATE FUNCTION logs() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN
                 BEGIN
                     INSERT INTO log VALUES (NEW.id);
                     PERFORM 1 / (NEW.id - 2);
                 EXCEPTION WHEN division_by_zero THEN
                     NULL;
                 END;
                 RETURN NULL;
             END $$;
             CREATE TRIGGER z AFTER INSERT ON contact FOR EACH ROW EXECUTE FUNCTION logs();
             INSERT INTO contact VALUES (1), (2), (3)");
        assert_eq!(types(), "contact.created log.created contact.created contact.created log.created");
    }

    /// Random nests of savepoints: what the outbox holds must equal what the table's own history holds.
    #[pg_test]
    fn any_nest_of_subtransactions_keeps_exactly_what_was_kept() {
        register("all", "");
        run("CREATE TABLE step (n int PRIMARY KEY, depth int);
             SELECT webhook_attach('step');
             CREATE SEQUENCE step_seq;
             CREATE FUNCTION walk(depth int) RETURNS void LANGUAGE plpgsql AS $$
             BEGIN
                 FOR i IN 1..4 LOOP
                     IF random() < 0.6 THEN
                         INSERT INTO step SELECT nextval('step_seq'), depth FROM generate_series(1, 1 + (random() * 3)::int);
                     END IF;
                     IF depth < 5 AND random() < 0.6 THEN
                         BEGIN
                             PERFORM walk(depth + 1);
                             IF random() < 0.5 THEN
                                 RAISE 'undo';
                             END IF;
                         EXCEPTION WHEN raise_exception THEN
                             NULL;
                         END;
                     END IF;
                 END LOOP;
             END $$;
             CREATE FUNCTION nest() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN
                 IF NEW.depth < 3 AND random() < 0.3 THEN
                     BEGIN
                         PERFORM walk(NEW.depth + 2);
                         IF random() < 0.5 THEN
                             RAISE 'undo';
                         END IF;
                     EXCEPTION WHEN raise_exception THEN
                         NULL;
                     END;
                 END IF;
                 RETURN NULL;
             END $$;
             CREATE TRIGGER z AFTER INSERT ON step FOR EACH ROW EXECUTE FUNCTION nest()");
        for round in 0..40 {
            run(&format!("SELECT setseed({round} / 40.0)"));
            run("SELECT walk(0)");
        }
        assert!(one::<i64>("SELECT count(*) FROM step") > 100);
        assert_eq!(
            one::<i64>(
                "SELECT count(*) FROM step FULL JOIN webhook.outbox ON (data::json->>'n')::int = n
                  WHERE n IS NULL OR seq IS NULL"
            ),
            0
        );
        assert!(one::<bool>("SELECT count(*) = count(DISTINCT data) FROM webhook.outbox"));
    }

    #[pg_test]
    fn later_statements_of_the_transaction_see_the_events_of_many_rows_in_order() {
        contacts();
        run("INSERT INTO contact SELECT n, 'n' || n FROM generate_series(1, 3500) AS n");
        assert_eq!(one::<i64>("SELECT count(*) FROM webhook.outbox"), 3500);
        assert!(one::<bool>(
            "SELECT bool_and(n = id) FROM (SELECT row_number() OVER (ORDER BY xid, seq) AS n,
                                                 (data::json->>'id')::int AS id FROM webhook.outbox) AS o"
        ));
        assert!(one::<bool>("SELECT count(DISTINCT id) = 3500 FROM webhook.outbox"));
    }

    #[pg_test]
    fn on_conflict_raises_one_event_for_each_changed_row() {
        contacts();
        run("INSERT INTO contact VALUES (1, 'a')");
        run("INSERT INTO contact VALUES (1, 'b'), (2, 'b') ON CONFLICT (id) DO NOTHING");
        run("INSERT INTO contact VALUES (1, 'c') ON CONFLICT (id) DO UPDATE SET name = excluded.name");
        assert_eq!(types(), "contact.created contact.created contact.updated");
    }

    #[pg_test]
    fn a_partitioned_table_is_captured_by_every_path_under_its_own_name() {
        register("all", "");
        run("CREATE TABLE p (id int, k int, PRIMARY KEY (id, k)) PARTITION BY LIST (k);
             CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1);
             SELECT webhook_attach('p');
             CREATE TABLE p2 (k int NOT NULL, id int NOT NULL);
             ALTER TABLE p ATTACH PARTITION p2 FOR VALUES IN (2);
             INSERT INTO p VALUES (1, 1);
             INSERT INTO p2 VALUES (2, 2);
             UPDATE p SET k = 2 WHERE id = 1");
        assert_eq!(types(), "p.created p.created p.deleted p.created");
        assert_eq!(
            one::<String>("SELECT string_agg(key, '' ORDER BY seq) FROM webhook.outbox"),
            r#"{"id":1,"k":1}{"id":2,"k":2}{"id":1,"k":1}{"id":1,"k":2}"#
        );
    }

    #[pg_test]
    fn foreign_key_cascades_are_captured() {
        contacts();
        run("CREATE TABLE note (id int PRIMARY KEY, contact_id bigint REFERENCES contact ON DELETE CASCADE);
             SELECT webhook_attach('note');
             INSERT INTO contact VALUES (1);
             INSERT INTO note VALUES (1, 1), (2, 1);
             DELETE FROM contact");
        assert_eq!(
            one::<String>(
                "SELECT string_agg(type, ' ' ORDER BY type) FROM webhook.outbox WHERE operation = 'deleted'"
            ),
            "contact.deleted note.deleted note.deleted"
        );
    }

    #[pg_test]
    fn a_row_over_the_limit_becomes_a_thin_event() {
        contacts();
        run("INSERT INTO contact VALUES (1, repeat('x', 1024 * 1024 - 26), 1)");
        run("INSERT INTO contact VALUES (2, repeat('x', 1024 * 1024 - 25), 1)");
        run("INSERT INTO contact VALUES (3, repeat('x', 200 * 1024 * 1024), 1)");
        assert_eq!(
            one::<String>(
                "SELECT string_agg(concat(key, truncated, length(data)), ' ' ORDER BY seq) FROM webhook.outbox"
            ),
            r#"{"id":1}f1048576 {"id":2}t {"id":3}t"#
        );
    }

    #[pg_test]
    fn nothing_is_written_while_nobody_wants_it() {
        run("CREATE TABLE contact (id int); SELECT webhook_attach('contact')");
        run("INSERT INTO contact VALUES (1)");
        let id = register("deletions", ", events => '{*.deleted}'");
        run("INSERT INTO contact VALUES (2); DELETE FROM contact WHERE id = 1");
        run(&format!("SELECT webhook_pause({id})"));
        run("DELETE FROM contact");
        assert_eq!(types(), "contact.deleted contact.deleted");
    }

    #[pg_test]
    fn a_condition_over_old_and_new_chooses_the_changes() {
        register("all", "");
        run("CREATE TABLE t (id int PRIMARY KEY, status text);
             SELECT webhook_attach('t', actions => '{updated}',
                 condition => $$NEW.status = 'done' AND OLD.status IS DISTINCT FROM 'done' -- became$$);
             INSERT INTO t VALUES (1, 'new'), (2, NULL), (3, 'done');
             UPDATE t SET status = 'done';
             UPDATE t SET status = 'open' WHERE id = 1");
        assert_eq!(
            events(),
            [
                r#"t.updated {"id":1} {"id":1,"status":"done"} {"status":"new"}"#,
                r#"t.updated {"id":2} {"id":2,"status":"done"} {"status":null}"#,
            ]
        );
    }

    #[pg_test]
    fn one_table_raises_different_actions_by_condition() {
        register("all", "");
        run("CREATE TABLE campaign_event (id int PRIMARY KEY, kind text);
             SELECT webhook_attach('campaign_event', 'campaign', '{created}', as_action => 'opened', condition => $$NEW.kind = 'open'$$),
                    webhook_attach('campaign_event', 'campaign', '{created}', as_action => 'clicked', condition => $$NEW.kind = 'click'$$);
             INSERT INTO campaign_event VALUES (1, 'click'), (2, 'bounce'), (3, 'open')");
        assert_eq!(types(), "campaign.clicked campaign.opened");
    }

    #[pg_test]
    fn every_change_of_a_link_table_is_one_action_of_the_parent() {
        register("all", "");
        run("CREATE TABLE list_member (contact_id int, list_id int, PRIMARY KEY (contact_id, list_id));
             SELECT webhook_attach('list_member', resource => 'contact', key => '{contact_id}', as_action => 'lists_changed');
             INSERT INTO list_member VALUES (1, 7);
             UPDATE list_member SET list_id = 8;
             DELETE FROM list_member");
        assert_eq!(
            events(),
            [
                r#"contact.lists_changed {"contact_id":1} {"contact_id":1,"list_id":7}"#,
                r#"contact.lists_changed {"contact_id":1} {"contact_id":1,"list_id":8} {"list_id":7}"#,
                r#"contact.lists_changed {"contact_id":1} {"contact_id":1,"list_id":8}"#,
            ]
        );
        assert_eq!(
            one::<String>("SELECT string_agg(operation, ' ' ORDER BY seq) FROM webhook.outbox"),
            "created updated deleted"
        );
    }

    #[pg_test]
    fn truncate_is_an_event_where_it_is_attached() {
        contacts();
        run("CREATE TABLE t (id int PRIMARY KEY); SELECT webhook_attach('t', actions => '{created,truncated}');
             INSERT INTO t VALUES (1); INSERT INTO contact VALUES (1);
             TRUNCATE t, contact");
        assert_eq!(
            events(),
            [
                r#"t.created {"id":1} {"id":1}"#,
                r#"contact.created {"id":1} {"id":1,"name":null,"age":null}"#,
                "t.truncated"
            ]
        );
        assert!(one::<bool>("SELECT bool_and(NOT truncated) FROM webhook.outbox"));
    }

    #[pg_test]
    fn a_hand_made_trigger_captures_nothing() {
        contacts();
        let id: i64 = one("SELECT id FROM webhook.attachment");
        run("CREATE TABLE other (id int, secret text)");
        for (name, when) in
            [(format!("webhook_pg_{id}"), "AFTER"), ("c".to_owned(), "AFTER"), ("b".to_owned(), "BEFORE")]
        {
            run(&format!(
                "CREATE TRIGGER {name} {when} INSERT OR UPDATE OR DELETE ON other
                    FOR EACH ROW EXECUTE FUNCTION webhook.capture()"
            ));
        }
        run("INSERT INTO other VALUES (1, 'x'); UPDATE other SET secret = 'y'");
        assert_eq!(types(), "");
        assert_eq!(one::<String>("SELECT secret FROM other"), "y");
    }

    #[pg_test]
    fn a_hand_made_truncate_trigger_captures_nothing() {
        register("all", "");
        run("CREATE TABLE t (id int); CREATE TABLE other (id int); INSERT INTO other VALUES (1)");
        let id: i64 = one("SELECT webhook_attach('t', actions => '{created,truncated}')");
        for name in [format!("webhook_pg_{id}_truncated"), format!("webhook_pg_{id}"), "c".to_owned()] {
            run(&format!(
                "CREATE TRIGGER {name} AFTER TRUNCATE ON other FOR EACH STATEMENT EXECUTE FUNCTION webhook.capture()"
            ));
        }
        run("TRUNCATE other");
        assert_eq!(types(), "");
        run("TRUNCATE t");
        assert_eq!(types(), "t.truncated");
    }

    #[pg_test]
    fn a_changed_table_is_captured_as_it_is_now() {
        contacts();
        run("INSERT INTO contact VALUES (1, 'a', 1)");
        run("ALTER TABLE contact DROP COLUMN name; ALTER TABLE contact ADD city text DEFAULT 'Ghent';
             ALTER TABLE contact RENAME age TO years; ALTER TABLE contact ALTER years TYPE text");
        run("UPDATE contact SET years = '2'");
        assert_eq!(
            one::<String>("SELECT data || previous FROM webhook.outbox WHERE operation = 'updated'"),
            r#"{"id":1,"years":"2","city":"Ghent"}{"years":"1"}"#
        );
    }

    #[pg_test]
    fn events_carry_the_context_of_their_statement() {
        contacts();
        run(r#"SET LOCAL webhook_pg.context = '{"by":"me"}'"#);
        run("INSERT INTO contact VALUES (1)");
        run("SET LOCAL webhook_pg.context = ''");
        run("SET LOCAL webhook_pg.mute = on");
        run("INSERT INTO contact VALUES (2)");
        run("SET LOCAL webhook_pg.mute = off");
        run("INSERT INTO contact VALUES (3)");
        assert_eq!(
            one::<String>("SELECT string_agg(concat(key, context), ' ' ORDER BY seq) FROM webhook.outbox"),
            r#"{"id":1}{"by":"me"} {"id":3}"#
        );
    }
}
