//! Many rows at once.

use std::io::Write;

use crate::scene::Scene;
use crate::wait::secs;

#[test]
fn a_large_copy_is_delivered_completely_and_once() {
    const ROWS: usize = 20_000;
    let mut scene = Scene::accepting("bulk_copy");
    scene.run("SELECT webhook_update(id, '{\"max_in_flight\": 8}') FROM webhook.endpoints WHERE name = '{}'");
    let mut copy = scene.client.copy_in("COPY bulk_copy FROM STDIN").unwrap();
    for id in 1..=ROWS {
        writeln!(copy, "{id}\tcopied").unwrap();
    }
    copy.finish().unwrap();
    scene.wait_until_drained(secs(120));
    let ledger = scene.ledger();
    assert_eq!((ledger.committed.len(), scene.receiver.count()), (ROWS, ROWS));
    assert_eq!((ledger.lost.len(), ledger.ghosts.len(), ledger.duplicates), (0, 0, 0));
}

#[test]
fn a_copy_that_fails_at_its_last_row_sends_nothing() {
    let mut scene = Scene::accepting("bulk_failing");
    let mut copy = scene.client.copy_in("COPY bulk_failing FROM STDIN").unwrap();
    for id in 1..=20_000 {
        writeln!(copy, "{id}\tcopied").unwrap();
    }
    writeln!(copy, "no number\tcopied").unwrap();
    let error = copy.finish().expect_err("the last row is wrong");
    assert_eq!(error.code().map(|c| c.code()), Some("22P02"));
    scene.fence(1);
    assert_eq!(scene.receiver.rows(), [1]);
}

#[test]
fn what_a_deferred_trigger_changes_at_the_commit_is_sent() {
    let mut scene = Scene::accepting("bulk_deferred");
    scene.run(
        "CREATE TABLE bulk_origin (id bigint);
         CREATE FUNCTION bulk_copies() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN INSERT INTO {} VALUES (NEW.id, 'deferred'); RETURN NULL; END $$;
         CREATE CONSTRAINT TRIGGER copies AFTER INSERT ON bulk_origin DEFERRABLE INITIALLY DEFERRED
             FOR EACH ROW EXECUTE FUNCTION bulk_copies();",
    );
    scene.run("BEGIN; INSERT INTO bulk_origin VALUES (1), (2); COMMIT");
    scene.receiver.wait_for_rows([1, 2], secs(10));
    scene.run("DROP TABLE bulk_origin; DROP FUNCTION bulk_copies");
}

#[test]
fn a_hundred_prepared_transactions_are_all_delivered() {
    let mut scene = Scene::accepting("bulk_prepared");
    for id in 1..=100 {
        scene.run(&format!(
            "BEGIN; INSERT INTO {{}} VALUES ({id}, 'prepared'); PREPARE TRANSACTION 'bulk {id}'"
        ));
        if id % 10 == 0 {
            scene.run(&format!("ROLLBACK PREPARED 'bulk {id}'"));
        } else {
            scene.run(&format!("COMMIT PREPARED 'bulk {id}'"));
        }
    }
    scene.wait_until_drained(secs(20));
    assert_eq!(scene.receiver.count(), 90);
}
