//! Many rows at once.

use std::collections::HashMap;
use std::io::Write;
use std::time::Instant;

use crate::scene::Scene;
use crate::size::size;
use crate::wait::secs;

/// `webhook_pg.poll_interval` where nobody sets it, in seconds.
const DEFAULT_POLL: u64 = 5;

#[test]
fn a_large_copy_is_delivered_completely_and_once() {
    let rows = size(20_000, 100_000);
    let mut scene = Scene::accepting("bulk_copy");
    scene.run("SELECT webhook_update(id, '{\"max_in_flight\": 8}') FROM webhook.endpoints WHERE name = '{}'");
    let mut copy = scene.client.copy_in("COPY bulk_copy FROM STDIN").unwrap();
    for id in 1..=rows {
        writeln!(copy, "{id}\tcopied").unwrap();
    }
    copy.finish().unwrap();
    scene.wait_until_drained(secs(size(120, 600)));
    let ledger = scene.ledger();
    assert_eq!((ledger.committed.len(), scene.receiver.count()), (rows, rows));
    assert_eq!((ledger.lost.len(), ledger.ghosts.len(), ledger.duplicates), (0, 0, 0));
}

#[test]
fn a_copy_that_fails_at_its_last_row_sends_nothing() {
    let mut scene = Scene::accepting("bulk_failing");
    let mut copy = scene.client.copy_in("COPY bulk_failing FROM STDIN").unwrap();
    for id in 1..=size(20_000, 100_000) {
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
    let mut committed = Vec::new();
    for id in 1..=100 {
        scene.run(&format!(
            "BEGIN; INSERT INTO {{}} VALUES ({id}, 'prepared'); PREPARE TRANSACTION 'bulk {id}'"
        ));
        if id % 10 == 0 {
            scene.run(&format!("ROLLBACK PREPARED 'bulk {id}'"));
        } else {
            scene.run(&format!("COMMIT PREPARED 'bulk {id}'"));
            committed.push((id, Instant::now()));
        }
    }
    scene.wait_until_drained(secs(20));
    assert_eq!(scene.receiver.count(), 90);
    // No latch is set by COMMIT PREPARED: the poll finds them.
    let within = secs(DEFAULT_POLL + 1);
    let received: HashMap<i64, Instant> =
        scene.receiver.receipts().iter().filter_map(|r| Some((r.row?, r.request.received))).collect();
    for (id, committed) in committed {
        let took = received[&id].saturating_duration_since(committed);
        assert!(took <= within, "row {id} came {took:?} after its commit");
    }
}

#[test]
fn ten_thousand_rows_are_captured_with_their_exact_operation_new_row_and_old_values() {
    let mut scene = Scene::accepting("bulk_exact");
    // What waits for a paused endpoint is captured all the same.
    scene.run("SELECT webhook_pause(id) FROM webhook.endpoints WHERE name = '{}'");
    scene.run(
        r#"INSERT INTO {} SELECT n, CASE WHEN n % 10 > 0 THEN E'né "\\' || n END FROM generate_series(1, 10000) n;
           UPDATE {} SET note = 'now ' || id;
           DELETE FROM {}"#,
    );
    let mismatches = scene.number(
        r#"WITH note AS (
                SELECT n, to_json(CASE WHEN n % 10 > 0 THEN E'né "\\' || n END) AS old FROM generate_series(1, 10000) n),
            expected (operation, key, data, previous) AS (
                SELECT 'created', format('{"id":%s}', n), format('{"id":%s,"note":%s}', n, coalesce(old, 'null')), NULL FROM note
                UNION ALL
                SELECT 'updated', format('{"id":%s}', n), format('{"id":%s,"note":"now %s"}', n, n),
                       format('{"note":%s}', coalesce(old, 'null')) FROM note
                UNION ALL
                SELECT 'deleted', format('{"id":%s}', n), format('{"id":%s,"note":"now %s"}', n, n), NULL FROM note)
           SELECT count(*) FILTER (WHERE o.seq IS NULL OR e.key IS NULL OR o.data <> e.data
                                      OR o.previous IS DISTINCT FROM e.previous
                                      OR o.type <> 'bulk_exact.' || e.operation)
             FROM expected e FULL JOIN (SELECT * FROM webhook.outbox WHERE type LIKE 'bulk\_exact.%') o USING (operation, key)"#,
    );
    assert_eq!(mismatches, 0);
    assert_eq!(scene.number(r"SELECT count(*) FROM webhook.outbox WHERE type LIKE 'bulk\_exact.%'"), 30_000);
}
