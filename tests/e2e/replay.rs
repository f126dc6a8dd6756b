//! Replay and repair: what was sent is sent again, in SQL, and nobody who thinks it over holds up the worker.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::cluster::Cluster;
use crate::scene::Scene;
use crate::wait::{holds, millis, secs, wait_until};
use crate::wire::Reply;

const REPLAY: &str = "SELECT webhook_replay(id, '-infinity') FROM webhook.endpoints WHERE name = '{}'";

/// A scene with rows that were delivered.
fn delivered(name: &str, options: &str, rows: i64) -> Scene<'static> {
    let mut scene = Scene::new(Cluster::shared(), name, options, |_, _| Reply::ok());
    scene.run(&format!("INSERT INTO {{}} SELECT n, 'note' FROM generate_series(1, {rows}) AS n"));
    scene.wait_until_drained(secs(60));
    scene.wait_for_deliveries("delivered", rows);
    scene
}

#[test]
fn a_replay_sends_the_same_bytes_under_the_same_id() {
    let mut scene = delivered("replay_same", "", 20);
    assert_eq!(scene.number(REPLAY), 20);
    scene.receiver.wait_for_answers(40, secs(20));
    scene.wait_for_deliveries("delivered", 20);
    let mut sent: Vec<(String, String)> =
        scene.receiver.requests().iter().map(|r| (r.id().to_owned(), r.text())).collect();
    sent.sort();
    assert!(sent.chunks(2).all(|pair| pair[0] == pair[1]), "{sent:?}");
    let attempts =
        "SELECT count(*) FROM webhook.attempts AS a JOIN webhook.deliveries AS d ON d.id = a.delivery_id
                     WHERE d.endpoint = '{}' AND d.attempts = 2 AND a.status = 200";
    assert_eq!(scene.number(attempts), 40);
}

#[test]
fn a_replay_that_is_rolled_back_sends_nothing() {
    let mut scene = delivered("replay_undone", "", 5);
    let sql = scene.sql(&format!("BEGIN; {REPLAY}; ROLLBACK"));
    scene.client.batch_execute(&sql).unwrap();
    scene.fence(6);
    assert_eq!(scene.receiver.count(), 6);
}

#[test]
fn a_replay_to_a_paused_endpoint_waits_for_it() {
    let mut scene = delivered("replay_paused", "", 5);
    scene.run("SELECT webhook_pause(id) FROM webhook.endpoints WHERE name = '{}'");
    // This one comes anyway, once.
    scene.insert([6]);
    assert_eq!(scene.number(REPLAY), 5);
    scene.wait_for_deliveries("pending", 5);
    assert_eq!(scene.receiver.count(), 5);
    scene.run("SELECT webhook_resume(id) FROM webhook.endpoints WHERE name = '{}'");
    scene.receiver.wait_for_answers(11, secs(20));
    scene.wait_for_deliveries("delivered", 6);
    assert_eq!(scene.receiver.count(), 11);
}

#[test]
fn a_new_endpoint_gets_by_a_replay_what_happened_before_it() {
    let mut first = delivered("replay_new", "", 10);
    let mut second = Scene::new(Cluster::shared(), "replay_new_2", "", |_, _| Reply::ok());
    let events = "SELECT webhook_update(id, '{\"events\": [\"replay_new.*\"]}') FROM webhook.endpoints WHERE name = '{}'";
    second.run(&events.replace("{\"", "{\\\"").replace("\\\"", "\""));
    assert_eq!(second.number(REPLAY), 10);
    second.receiver.wait_for_rows(1..=10, secs(20));
    assert_eq!(first.number("SELECT count(*) FROM webhook.deliveries WHERE endpoint = '{}'"), 10);
    assert_eq!(first.receiver.count(), 10);
}

#[test]
fn a_long_replay_does_not_hold_up_new_events() {
    let mut scene = delivered("replay_long", ", max_in_flight => 2", 4000);
    assert_eq!(scene.number(REPLAY), 4000);
    let started = std::time::Instant::now();
    scene.insert([4001]);
    scene.receiver.wait_for_rows([4001], secs(20));
    let waited = started.elapsed();
    let pending =
        scene.number("SELECT count(*) FROM webhook.deliveries WHERE endpoint = '{}' AND state = 'pending'");
    assert!(pending > 0, "the replay was over before the new event came");
    assert!(waited < secs(1), "a new event waited {waited:?}");
    scene.receiver.wait_for_answers(8001, secs(60));
    scene.wait_for_deliveries("delivered", 4001);
    assert_eq!(scene.receiver.count(), 8001);
}

#[test]
fn with_an_order_a_replay_comes_in_order_and_before_new_events() {
    let mut scene = delivered("replay_strict", ", ordering => 'strict'", 300);
    assert_eq!(scene.number(REPLAY), 300);
    scene.insert([301]);
    scene.receiver.wait_for_answers(601, secs(60));
    let expected: Vec<i64> = (1..=300).chain(1..=301).collect();
    assert_eq!(scene.receiver.rows(), expected);
}

#[test]
fn many_deliveries_are_retried_and_cancelled_by_one_statement() {
    let broken = Arc::new(AtomicBool::new(true));
    let switch = Arc::clone(&broken);
    let mut scene = Scene::new(Cluster::shared(), "replay_many", ", max_attempts => 1", move |_, _| {
        Reply::status(if switch.load(Ordering::Relaxed) { 500 } else { 200 })
    });
    scene.run("SELECT webhook_pause(id) FROM webhook.endpoints WHERE name = '{}'");
    scene.run(
        "INSERT INTO webhook.outbox (xid, seq, occurred_at, id, type, data)
         SELECT pg_current_xact_id(), nextval('webhook.outbox_seq'), now(), gen_random_uuid(), '{}.created', '{\"id\":1}'
           FROM generate_series(1, 2000);
         INSERT INTO webhook.delivery (endpoint_id, xid, seq, event_id, state, attempts, created_at, finished_at)
         SELECT e.id, o.xid, o.seq, o.id, 'dead', 1, now(), now()
           FROM webhook.outbox AS o, webhook.endpoint AS e WHERE o.type = '{}.created' AND e.name = '{}'",
    );
    scene.run("SELECT webhook_retry(id) FROM webhook.deliveries WHERE endpoint = '{}' AND state = 'dead'");
    scene.wait_for_deliveries("pending", 2000);
    scene.run(
        "SELECT webhook_cancel(id)
           FROM (SELECT id FROM webhook.deliveries WHERE endpoint = '{}' ORDER BY id LIMIT 1000) AS some_of_them",
    );
    broken.store(false, Ordering::Relaxed);
    scene.run("SELECT webhook_resume(id) FROM webhook.endpoints WHERE name = '{}'");
    scene.wait_for_deliveries("delivered", 1000);
    scene.wait_for_deliveries("cancelled", 1000);
    assert_eq!(scene.receiver.accepted().len(), 1);
}

#[test]
fn an_open_cancel_stops_nothing_else_and_is_undone_by_rollback() {
    let broken = Arc::new(AtomicBool::new(true));
    let switch = Arc::clone(&broken);
    let options = ", max_attempts => 1000, attempt_interval => '1 s'";
    let mut scene = Scene::new(Cluster::shared(), "replay_open", options, move |request, _| {
        let fails = request.row() <= Some(10) && switch.load(Ordering::Relaxed);
        Reply::status(if fails { 500 } else { 200 })
    });
    scene.insert(1..=10);
    scene.wait_for_deliveries("pending", 10);
    let mut holder = scene.cluster.connect();
    let mut open = holder.transaction().unwrap();
    let cancel = "SELECT webhook_cancel(id) FROM webhook.deliveries WHERE endpoint = 'replay_open'";
    assert_eq!(open.query(cancel, &[]).unwrap().len(), 10);
    broken.store(false, Ordering::Relaxed);
    for id in 11..=30 {
        let started = std::time::Instant::now();
        scene.fence(id);
        assert!(started.elapsed() < secs(2), "row {id} waited {:?}", started.elapsed());
        std::thread::sleep(millis(50));
    }
    scene.wait_for_deliveries("delivered", 20);
    open.rollback().unwrap();
    scene.wait_until_drained(secs(30));
    scene.wait_for_deliveries("delivered", 30);
}

#[test]
fn a_retry_that_is_rolled_back_sends_nothing() {
    let broken = Arc::new(AtomicBool::new(true));
    let switch = Arc::clone(&broken);
    let mut scene = Scene::new(Cluster::shared(), "replay_unretried", ", max_attempts => 1", move |_, _| {
        Reply::status(if switch.load(Ordering::Relaxed) { 500 } else { 200 })
    });
    scene.insert(1..=5);
    scene.wait_for_deliveries("dead", 5);
    broken.store(false, Ordering::Relaxed);
    let retry =
        "SELECT count(*) FILTER (WHERE webhook_retry(id)) FROM webhook.deliveries WHERE endpoint = '{}'";
    scene.run("BEGIN");
    assert_eq!(scene.number(retry), 5);
    scene.run("ROLLBACK");
    scene.fence(6);
    assert_eq!(scene.receiver.rows().iter().filter(|row| **row != 6).count(), 5);
    scene.wait_for_deliveries("dead", 5);
    // The same statement does it when it commits.
    assert_eq!(scene.number(retry), 5);
    scene.receiver.wait_for_rows(1..=6, secs(20));
}

#[test]
fn a_delivery_that_is_cancelled_while_it_is_sent_stops_no_other() {
    let mut scene = Scene::new(
        Cluster::shared(),
        "replay_flying",
        ", retry_schedule => '{100 ms}'",
        |request, nth| match (request.row(), nth) {
            (Some(1), 1) => Reply::status(500),
            (Some(1), _) => Reply::Hang,
            _ => Reply::ok(),
        },
    );
    scene.insert([1]);
    scene.receiver.wait_for_hanging(1, secs(20));
    let mut holder = scene.cluster.connect();
    let mut open = holder.transaction().unwrap();
    let cancel = "SELECT webhook_cancel(id) FROM webhook.deliveries WHERE endpoint = 'replay_flying'";
    open.query(cancel, &[]).unwrap();
    scene.receiver.release();
    let started = std::time::Instant::now();
    for id in 2..=20 {
        scene.fence(id);
    }
    // A wait for the lock in every turn would show.
    assert!(started.elapsed() < secs(15), "19 rows took {:?}", started.elapsed());
    scene.wait_for_deliveries("delivered", 19);
    // The receiver has it: that stands, whatever somebody wished meanwhile.
    open.commit().unwrap();
    scene.wait_for_deliveries("delivered", 20);
}

#[test]
fn an_endpoint_that_is_being_removed_stops_no_other() {
    let mut scene = Scene::new(Cluster::shared(), "replay_removed", "", |_, _| Reply::ok());
    let mut other = Scene::new(Cluster::shared(), "replay_removed_2", "", |_, _| Reply::ok());
    other.run("SELECT webhook_pause(id) FROM webhook.endpoints WHERE name = '{}'");
    other.insert(1..=10);
    let mut holder = scene.cluster.connect();
    let mut open = holder.transaction().unwrap();
    open.execute("SELECT webhook_unregister(id) FROM webhook.endpoints WHERE name = 'replay_removed_2'", &[])
        .unwrap();
    for id in 1..=20 {
        scene.insert([id]);
        scene.receiver.wait_for_rows([id], secs(2));
        std::thread::sleep(millis(100));
    }
    open.rollback().unwrap();
    other.run("SELECT webhook_resume(id) FROM webhook.endpoints WHERE name = '{}'");
    other.receiver.wait_for_rows(1..=10, secs(20));
    wait_until("the outcomes are written", secs(20), || {
        let n = scene.number("SELECT count(*) FROM webhook.deliveries WHERE endpoint = '{}'");
        holds(n == 20, || format!("{n}"))
    });
}
