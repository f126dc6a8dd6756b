//! Every kind of change on every version of PostgreSQL: what it leaves in the outbox.

use postgres::Client;

use crate::cluster::Cluster;

/// A database of its own with an endpoint that wants everything, and nobody who sends it.
struct Book {
    client: Client,
    name: String,
}

impl Book {
    fn new(name: &str) -> Self {
        let cluster = Cluster::shared();
        cluster.connect().batch_execute(&format!("CREATE DATABASE {name}")).expect("create the database");
        let mut book = Self { client: cluster.connect_to(name), name: name.to_owned() };
        book.run("CREATE EXTENSION webhook_pg; SELECT webhook_register('https://example.com/')");
        book
    }

    #[track_caller]
    fn run(&mut self, sql: &str) {
        self.client.batch_execute(sql).unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    }

    fn version(&mut self) -> i32 {
        let query = "SELECT current_setting('server_version_num')::int";
        self.client.query_one(query, &[]).unwrap().get(0)
    }

    /// `type key data previous` of the events since the last time, in order.
    fn events(&mut self) -> Vec<String> {
        let query = "WITH taken AS (DELETE FROM webhook.outbox RETURNING *)
                     SELECT concat_ws(' ', type, key, data, previous) FROM taken ORDER BY xid, seq";
        self.client.query(query, &[]).unwrap().iter().map(|row| row.get(0)).collect()
    }

    /// The same in the order of the alphabet, where the order of the changes is the executor's.
    fn events_by_name(&mut self) -> Vec<String> {
        let mut events = self.events();
        events.sort();
        events
    }
}

impl Drop for Book {
    fn drop(&mut self) {
        if let Ok(mut client) = Cluster::shared().try_connect() {
            let _ = client.batch_execute(&format!("DROP DATABASE {} WITH (FORCE)", self.name));
        }
    }
}

#[test]
fn a_row_is_captured_as_before_triggers_and_stored_generated_columns_left_it() {
    let mut book = Book::new("kinds_generated");
    book.run(
        "CREATE TABLE t (id int PRIMARY KEY, name text, shout text GENERATED ALWAYS AS (upper(name)) STORED);
         CREATE FUNCTION edits() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF TG_OP = 'DELETE' THEN RETURN CASE WHEN OLD.name = 'stays' THEN NULL ELSE OLD END; END IF;
             IF NEW.name = 'never' THEN RETURN NULL; END IF;
             NEW.name = trim(NEW.name); RETURN NEW;
         END $$;
         CREATE TRIGGER edits BEFORE INSERT OR UPDATE OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION edits();
         SELECT webhook_attach('t');
         INSERT INTO t VALUES (1, ' ann '), (2, 'never'), (3, 'stays');
         UPDATE t SET name = '  ann' WHERE id = 1;
         UPDATE t SET name = 'bo ' WHERE id = 1;
         UPDATE t SET name = 'never';
         DELETE FROM t",
    );
    assert_eq!(
        book.events(),
        [
            r#"t.created {"id":1} {"id":1,"name":"ann","shout":"ANN"}"#,
            r#"t.created {"id":3} {"id":3,"name":"stays","shout":"STAYS"}"#,
            r#"t.updated {"id":1} {"id":1,"name":"bo","shout":"BO"} {"name":"ann","shout":"ANN"}"#,
            r#"t.deleted {"id":1} {"id":1,"name":"bo","shout":"BO"}"#,
        ]
    );
}

#[test]
fn a_virtual_generated_column_is_left_out() {
    let mut book = Book::new("kinds_virtual");
    let table = "CREATE TABLE t (id int PRIMARY KEY, name text, shout text GENERATED ALWAYS AS (upper(name)) VIRTUAL, n int)";
    if book.version() < 180_000 {
        // PostgreSQL 18 brought them.
        let error = book.client.batch_execute(table).expect_err(table);
        assert_eq!(error.code().map(|code| code.code()), Some("42601"), "{error:?}");
        return;
    }
    book.run(table);
    book.run(
        "SELECT webhook_attach('t');
         INSERT INTO t (id, name, n) VALUES (1, 'ann', 7);
         UPDATE t SET name = 'bo';
         DELETE FROM t",
    );
    assert_eq!(
        book.events(),
        [
            r#"t.created {"id":1} {"id":1,"name":"ann","n":7}"#,
            r#"t.updated {"id":1} {"id":1,"name":"bo","n":7} {"name":"ann"}"#,
            r#"t.deleted {"id":1} {"id":1,"name":"bo","n":7}"#,
        ]
    );
}

#[test]
fn what_a_foreign_key_deletes_updates_or_sets_null_is_captured() {
    let mut book = Book::new("kinds_cascade");
    book.run(
        "CREATE TABLE contact (id int PRIMARY KEY);
         CREATE TABLE note (id int PRIMARY KEY, of int REFERENCES contact ON DELETE CASCADE ON UPDATE CASCADE);
         CREATE TABLE task (id int PRIMARY KEY, of int REFERENCES contact ON DELETE SET NULL ON UPDATE CASCADE);
         SELECT webhook_attach(t) FROM unnest('{contact,note,task}'::regclass[]) t;
         INSERT INTO contact VALUES (1), (2); INSERT INTO note VALUES (1, 1), (2, 1); INSERT INTO task VALUES (1, 1)",
    );
    assert_eq!(book.events().len(), 5);
    book.run("UPDATE contact SET id = 3 WHERE id = 1");
    assert_eq!(
        book.events_by_name(),
        [
            r#"contact.updated {"id":3} {"id":3} {"id":1}"#,
            r#"note.updated {"id":1} {"id":1,"of":3} {"of":1}"#,
            r#"note.updated {"id":2} {"id":2,"of":3} {"of":1}"#,
            r#"task.updated {"id":1} {"id":1,"of":3} {"of":1}"#,
        ]
    );
    book.run("DELETE FROM contact WHERE id = 3");
    assert_eq!(
        book.events_by_name(),
        [
            r#"contact.deleted {"id":3} {"id":3}"#,
            r#"note.deleted {"id":1} {"id":1,"of":3}"#,
            r#"note.deleted {"id":2} {"id":2,"of":3}"#,
            r#"task.updated {"id":1} {"id":1,"of":null} {"of":3}"#,
        ]
    );
}

#[test]
fn a_child_table_is_captured_where_it_is_attached_itself_and_else_not_at_all() {
    let mut book = Book::new("kinds_inheritance");
    book.run(
        "CREATE TABLE party (id int, name text);
         CREATE TABLE company (vat text) INHERITS (party); CREATE TABLE person (age int) INHERITS (party);
         SELECT webhook_attach('party', key => '{id}'), webhook_attach('company', key => '{id}');
         INSERT INTO party VALUES (1, 'a'); INSERT INTO company VALUES (2, 'b', 'X'); INSERT INTO person VALUES (3, 'c', 4)",
    );
    assert_eq!(
        book.events(),
        [
            r#"party.created {"id":1} {"id":1,"name":"a"}"#,
            r#"company.created {"id":2} {"id":2,"name":"b","vat":"X"}"#
        ]
    );
    // Through the parent, directly, and the child's own statements.
    book.run("UPDATE party SET name = name || '!'; UPDATE person SET age = 5; DELETE FROM person");
    assert_eq!(
        book.events_by_name(),
        [
            r#"company.updated {"id":2} {"id":2,"name":"b!","vat":"X"} {"name":"b"}"#,
            r#"party.updated {"id":1} {"id":1,"name":"a!"} {"name":"a"}"#,
        ]
    );
    book.run("DELETE FROM party");
    assert_eq!(
        book.events_by_name(),
        [
            r#"company.deleted {"id":2} {"id":2,"name":"b!","vat":"X"}"#,
            r#"party.deleted {"id":1} {"id":1,"name":"a!"}"#
        ]
    );
}

#[test]
fn merge_raises_one_event_for_each_row_that_it_changes() {
    let mut book = Book::new("kinds_merge");
    book.run(
        "CREATE TABLE t (id int PRIMARY KEY, name text, n int); SELECT webhook_attach('t');
         INSERT INTO t VALUES (1, 'a', 1), (2, 'b', 2), (4, 'd', 4)",
    );
    assert_eq!(book.events().len(), 3);
    book.run(
        "MERGE INTO t USING (VALUES (1, 'x'), (2, NULL), (3, 'z'), (4, 'd'), (5, 'no')) AS s (id, name) ON t.id = s.id
         WHEN MATCHED AND s.id = 4 THEN DO NOTHING
         WHEN MATCHED AND s.name IS NULL THEN DELETE
         WHEN MATCHED THEN UPDATE SET name = s.name
         WHEN NOT MATCHED AND s.name = 'no' THEN DO NOTHING
         WHEN NOT MATCHED THEN INSERT VALUES (s.id, s.name)",
    );
    assert_eq!(
        book.events_by_name(),
        [
            r#"t.created {"id":3} {"id":3,"name":"z","n":null}"#,
            r#"t.deleted {"id":2} {"id":2,"name":"b","n":2}"#,
            r#"t.updated {"id":1} {"id":1,"name":"x","n":1} {"name":"a"}"#,
        ]
    );
    if book.version() >= 170_000 {
        book.run(
            "MERGE INTO t USING (VALUES (1)) AS s (id) ON t.id = s.id
             WHEN NOT MATCHED BY SOURCE AND t.id = 3 THEN DELETE
             WHEN NOT MATCHED BY SOURCE THEN UPDATE SET n = 40 RETURNING merge_action()",
        );
        assert_eq!(
            book.events_by_name(),
            [
                r#"t.deleted {"id":3} {"id":3,"name":"z","n":null}"#,
                r#"t.updated {"id":4} {"id":4,"name":"d","n":40} {"n":4}"#,
            ]
        );
    }
}

#[test]
fn on_conflict_raises_events_for_the_rows_that_it_changes_only() {
    let mut book = Book::new("kinds_conflict");
    book.run(
        "CREATE TABLE t (id int PRIMARY KEY, n int); SELECT webhook_attach('t'); INSERT INTO t VALUES (1, 1);
         INSERT INTO t VALUES (1, 2), (2, 2) ON CONFLICT DO NOTHING;
         INSERT INTO t VALUES (1, 3) ON CONFLICT (id) DO UPDATE SET n = excluded.n WHERE false;
         INSERT INTO t VALUES (1, 4), (3, 4) ON CONFLICT (id) DO UPDATE SET n = excluded.n",
    );
    assert_eq!(
        book.events(),
        [
            r#"t.created {"id":1} {"id":1,"n":1}"#,
            r#"t.created {"id":2} {"id":2,"n":2}"#,
            r#"t.updated {"id":1} {"id":1,"n":4} {"n":1}"#,
            r#"t.created {"id":3} {"id":3,"n":4}"#,
        ]
    );
}

#[test]
fn truncate_is_one_event_for_each_table_that_is_attached_for_it() {
    let mut book = Book::new("kinds_truncate");
    book.run(
        "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int REFERENCES a); CREATE TABLE c (id int);
         CREATE TABLE p (id int) PARTITION BY LIST (id); CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1);
         SELECT webhook_attach(t, actions => '{truncated}') FROM unnest('{a,b,c,p}'::regclass[]) t;
         INSERT INTO a VALUES (1), (2); TRUNCATE a CASCADE",
    );
    assert_eq!(book.events_by_name(), ["a.truncated", "b.truncated"]);
    book.run("TRUNCATE c, p");
    assert_eq!(book.events_by_name(), ["c.truncated", "p.truncated"]);
    book.run("BEGIN; TRUNCATE c; ROLLBACK");
    assert!(book.events().is_empty());
}

#[test]
fn a_partitioned_table_is_captured_by_its_root_and_by_its_leaves_under_its_own_name() {
    let mut book = Book::new("kinds_partitions");
    // A leaf with its columns in another order, which is that of its rows, and partitions of partitions.
    book.run(
        "CREATE TABLE p (id int, k int, n int, PRIMARY KEY (id, k)) PARTITION BY LIST (k);
         CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1);
         SELECT webhook_attach('p');
         CREATE TABLE p2 (n int, k int NOT NULL, id int NOT NULL);
         ALTER TABLE p ATTACH PARTITION p2 FOR VALUES IN (2);
         CREATE TABLE p3 PARTITION OF p FOR VALUES IN (3, 4) PARTITION BY LIST (k);
         CREATE TABLE p33 PARTITION OF p3 FOR VALUES IN (3);
         INSERT INTO p VALUES (1, 1, 1), (2, 2, 2); INSERT INTO p2 (id, k) VALUES (3, 2); INSERT INTO p3 VALUES (4, 3)",
    );
    assert_eq!(
        book.events(),
        [
            r#"p.created {"id":1,"k":1} {"id":1,"k":1,"n":1}"#,
            r#"p.created {"id":2,"k":2} {"n":2,"k":2,"id":2}"#,
            r#"p.created {"id":3,"k":2} {"n":null,"k":2,"id":3}"#,
            r#"p.created {"id":4,"k":3} {"id":4,"k":3,"n":null}"#,
        ]
    );
    book.run(
        "UPDATE p2 SET n = 7 WHERE id = 2; UPDATE p33 SET n = 8; UPDATE p SET n = 9 WHERE id = 1;
         DELETE FROM p2 WHERE id = 3; DELETE FROM p33",
    );
    assert_eq!(
        book.events(),
        [
            r#"p.updated {"id":2,"k":2} {"n":7,"k":2,"id":2} {"n":2}"#,
            r#"p.updated {"id":4,"k":3} {"id":4,"k":3,"n":8} {"n":null}"#,
            r#"p.updated {"id":1,"k":1} {"id":1,"k":1,"n":9} {"n":1}"#,
            r#"p.deleted {"id":3,"k":2} {"n":null,"k":2,"id":3}"#,
            r#"p.deleted {"id":4,"k":3} {"id":4,"k":3,"n":8}"#,
        ]
    );
    // No longer a part of it.
    book.run("ALTER TABLE p DETACH PARTITION p2; UPDATE p2 SET n = 1; DELETE FROM p2; DELETE FROM p");
    assert_eq!(book.events(), [r#"p.deleted {"id":1,"k":1} {"id":1,"k":1,"n":9}"#]);
}

#[test]
fn a_row_that_moves_between_partitions_is_deleted_and_created() {
    let mut book = Book::new("kinds_move");
    book.run(
        "CREATE TABLE p (id int, k int, PRIMARY KEY (id, k)) PARTITION BY LIST (k);
         CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1); CREATE TABLE p2 PARTITION OF p FOR VALUES IN (2);
         SELECT webhook_attach('p'); INSERT INTO p VALUES (1, 1); UPDATE p SET k = 2",
    );
    assert_eq!(
        book.events(),
        [
            r#"p.created {"id":1,"k":1} {"id":1,"k":1}"#,
            r#"p.deleted {"id":1,"k":1} {"id":1,"k":1}"#,
            r#"p.created {"id":1,"k":2} {"id":1,"k":2}"#,
        ]
    );
}

#[test]
fn a_condition_over_old_chooses_deletions() {
    let mut book = Book::new("kinds_condition");
    book.run(
        "CREATE TABLE t (id int PRIMARY KEY, status text);
         SELECT webhook_attach('t', actions => '{deleted}', condition => $$OLD.status = 'done'$$);
         INSERT INTO t VALUES (1, 'open'), (2, 'done'), (3, NULL), (4, 'done');
         UPDATE t SET status = 'open' WHERE id = 4;
         DELETE FROM t",
    );
    assert_eq!(book.events(), [r#"t.deleted {"id":2} {"id":2,"status":"done"}"#]);
}
