//! What an endpoint is spared, and in which order it gets its events.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::cluster::{Cluster, Stop};
use crate::receiver::Receiver;
use crate::scene::{Scene, register};
use crate::wait::{holds, millis, secs, wait_until};
use crate::wire::Reply;

/// `state` and `disabled_reason` of the scene's endpoint.
fn state(scene: &mut Scene<'_>) -> (String, String) {
    let query = "SELECT state, coalesce(disabled_reason, '') FROM webhook.endpoints WHERE id = $1";
    let row = scene.client.query_one(query, &[&scene.endpoint]).unwrap();
    (row.get(0), row.get(1))
}

fn wait_until_disabled(scene: &mut Scene<'_>) {
    wait_until("the endpoint is disabled", secs(30), || {
        let now = state(scene);
        holds(now.0 == "disabled", || format!("{now:?}"))
    });
}

#[test]
fn an_endpoint_that_is_gone_is_disabled_the_others_hear_of_it_and_resuming_delivers_everything() {
    let gone = Arc::new(AtomicBool::new(true));
    let answer = Arc::clone(&gone);
    let mut scene = Scene::new(Cluster::shared(), "policy_gone", "", move |_, _| {
        Reply::status(if answer.load(Ordering::Relaxed) { 410 } else { 200 })
    });
    let watcher = Receiver::start(|_, _| Reply::ok());
    let (id, secret) =
        register(&mut scene.client, "policy_watcher", &watcher.url(), "webhook.endpoint_disabled", "");
    watcher.trust(&secret);
    scene.insert([1]);
    wait_until_disabled(&mut scene);
    assert_eq!(state(&mut scene).1, "410 Gone");
    wait_until("the others hear of it", secs(10), || {
        let bodies: Vec<_> = watcher.requests().iter().map(|request| request.json()).collect();
        let ours = bodies
            .iter()
            .any(|body| body["data"]["id"] == scene.endpoint && body["data"]["reason"] == "410 Gone");
        holds(ours, || format!("{bodies:?}"))
    });
    gone.store(false, Ordering::Relaxed);
    let (witness, second) = witness(&mut scene);
    scene.insert([2, 3]);
    // Another endpoint's receipt shows that the worker has passed them.
    witness.wait_for_rows([2, 3], secs(20));
    assert_eq!(scene.receiver.count(), 1, "it was sent to after its 410");
    scene.run("SELECT webhook_resume(id) FROM webhook.endpoints WHERE name = '{}'");
    scene.receiver.wait_for_rows([1, 2, 3], secs(20));
    for id in [id, second] {
        scene.client.execute("SELECT webhook_unregister($1)", &[&id]).unwrap();
    }
}

/// Another endpoint for the events of the scene, which accepts everything, and its id.
fn witness(scene: &mut Scene<'_>) -> (Receiver, i64) {
    let receiver = Receiver::start(|_, _| Reply::ok());
    let (name, pattern) = (scene.sql("{}_witness"), scene.sql("{}.*"));
    let (id, secret) = register(&mut scene.client, &name, &receiver.url(), &pattern, "");
    receiver.trust(&secret);
    (receiver, id)
}

#[test]
fn nothing_but_failures_for_disable_after_disables_also_across_a_restart_and_resuming_loses_nothing() {
    let cluster = Cluster::start(&[("webhook_pg.disable_after", "4s")]);
    let options = ", attempt_interval => '300 ms', max_attempts => 1000";
    let broken = Arc::new(AtomicBool::new(true));
    let answer = Arc::clone(&broken);
    let mut scene = Scene::new(&cluster, "policy_failing", options, move |_, _| {
        Reply::status(if answer.load(Ordering::Relaxed) { 500 } else { 200 })
    });
    let watcher = Receiver::start(|_, _| Reply::ok());
    register(&mut scene.client, "policy_told", &watcher.url(), "webhook.endpoint_disabled", "");
    scene.insert(1..=12);
    wait_until("the record of failing is written", secs(20), || {
        let failing = scene.number("SELECT count(*) FROM webhook.failing");
        holds(failing == 1, || format!("{failing}"))
    });
    cluster.restart_server(Stop::Fast);
    scene.reconnect();
    wait_until_disabled(&mut scene);
    assert!(state(&mut scene).1.contains("nothing but failures for 4 seconds"), "{:?}", state(&mut scene));
    assert_eq!(scene.number("SELECT count(*) FROM webhook.deliveries WHERE state = 'dead'"), 0);
    wait_until("another endpoint hears of it", secs(10), || {
        let told: Vec<_> = watcher.requests().iter().map(|request| request.json()).collect();
        let ours = told.iter().filter(|body| body["data"]["id"] == scene.endpoint).count();
        holds(ours == 1, || format!("{told:?}"))
    });
    let (witness, _) = witness(&mut scene);
    scene.insert(13..=40);
    witness.wait_for_rows(13..=40, secs(20));
    assert!(scene.receiver.rows().iter().all(|row| *row <= 12), "a disabled endpoint was sent to");
    broken.store(false, Ordering::Relaxed);
    scene.run("SELECT webhook_resume(id) FROM webhook.endpoints WHERE name = '{}'");
    scene.wait_until_drained(secs(30));
    let ledger = scene.ledger();
    assert!(ledger.lost.is_empty() && ledger.ghosts.is_empty() && ledger.committed.len() == 40, "{ledger:?}");
}

#[test]
fn a_failing_key_holds_back_only_itself_and_its_events_come_in_order() {
    let options = ", ordering => 'key', attempt_interval => '400 ms'";
    let mut scene = Scene::new(Cluster::shared(), "policy_key", options, |request, nth| {
        let fails = request.json()["key"]["id"] == 1 && nth < 3;
        Reply::status(if fails { 503 } else { 200 })
    });
    scene.insert(1..=5);
    for round in 0..4 {
        scene.run(&format!("UPDATE {{}} SET note = 'round {round}'"));
    }
    let delivered = |scene: &Scene<'_>| {
        let mut notes: BTreeMap<i64, Vec<String>> = BTreeMap::new();
        for receipt in scene.receiver.receipts().iter().filter(|receipt| receipt.answered == Some(200)) {
            let body = receipt.request.json();
            let note = body["data"]["note"].as_str().unwrap().to_owned();
            notes.entry(body["key"]["id"].as_i64().unwrap()).or_default().push(note);
        }
        notes
    };
    wait_until("all 25 events are delivered", secs(30), || {
        let count: usize = delivered(&scene).values().map(Vec::len).sum();
        holds(count == 25, || format!("{count}"))
    });
    let expected = ["note", "round 0", "round 1", "round 2", "round 3"];
    for (id, notes) in delivered(&scene) {
        assert_eq!(notes, expected, "of row {id}");
    }
    let receipts = scene.receiver.receipts();
    let when = |id: i64| {
        receipts
            .iter()
            .filter(|r| r.row == Some(id) && r.answered == Some(200))
            .map(|r| r.request.received)
            .max()
    };
    assert!(when(5) < when(1), "the others waited for the failing key");
}

#[test]
fn strict_order_is_the_order_of_the_events_whatever_fails() {
    let options = ", ordering => 'strict', attempt_interval => '200 ms'";
    let mut scene = Scene::new(Cluster::shared(), "policy_strict", options, |request, nth| {
        let fails = request.json()["key"]["id"].as_i64().is_some_and(|id| id % 4 == 0) && nth < 2;
        Reply::status(if fails { 500 } else { 200 })
    });
    scene.insert(1..=20);
    scene.receiver.wait_for_rows(1..=20, secs(40));
    let accepted: Vec<i64> =
        scene.receiver.receipts().iter().filter(|r| r.answered == Some(200)).filter_map(|r| r.row).collect();
    assert_eq!(accepted, (1..=20).collect::<Vec<i64>>());
}

#[test]
fn a_rate_limit_is_kept_in_every_second() {
    const RATE: usize = 20;
    let mut scene = Scene::new(Cluster::shared(), "policy_rate", ", rate_limit => 20", |_, _| Reply::ok());
    scene.run("INSERT INTO {} SELECT g, 'many' FROM generate_series(1, 60) g");
    scene.receiver.wait_for_rows(1..=60, secs(30));
    let times: Vec<_> = scene.receiver.requests().iter().map(|request| request.received).collect();
    for (n, first) in times.iter().enumerate() {
        let within = times[n..].iter().filter(|time| **time - *first < millis(900)).count();
        // A tenth of a second's worth may come at once, and arrivals may bunch up on a busy machine.
        assert!(within <= RATE + RATE / 2, "{within} requests within 0.9 s of number {n}");
    }
    assert!(times[59] - times[0] >= millis(2000), "60 requests took {:?}", times[59] - times[0]);
}

#[test]
fn a_failing_endpoint_with_many_waiting_events_has_few_delivery_rows() {
    let broken = Arc::new(AtomicBool::new(true));
    let answer = Arc::clone(&broken);
    let options = ", retry_schedule => '{1 h}'";
    let mut scene = Scene::new(Cluster::shared(), "policy_breaker", options, move |_, _| {
        Reply::status(if answer.load(Ordering::Relaxed) { 502 } else { 200 })
    });
    scene.run("INSERT INTO {} SELECT g, 'many' FROM generate_series(1, 3000) g");
    wait_until("the breaker is open", secs(20), || {
        let failing = scene.number("SELECT count(*) FROM webhook.failing f JOIN webhook.endpoint e ON e.id = f.endpoint_id AND e.name = '{}'");
        holds(failing == 1, || format!("{failing}"))
    });
    let rows = scene.number("SELECT count(*) FROM webhook.deliveries WHERE endpoint = '{}'");
    assert!(rows <= 100, "{rows} rows");
    broken.store(false, Ordering::Relaxed);
    // What failed waits for its hour; everything else flows again after the next probe.
    wait_until("all 3000 rows are delivered", secs(60), || {
        // Again for those that were in flight, and failed afterwards.
        scene.run(
            "SELECT webhook_retry(id) FROM webhook.deliveries
              WHERE endpoint = '{}' AND state = 'pending' AND next_attempt_at > now() + interval '1 minute'",
        );
        let rows = scene.receiver.accepted().len();
        holds(rows == 3000, || format!("{rows} rows"))
    });
}
