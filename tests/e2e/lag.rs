//! Endpoints that fall behind: they hold up nobody, and get everything in the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::cluster::Cluster;
use crate::receiver::Receiver;
use crate::scene::{Scene, create_table, register};
use crate::wait::{millis, secs};
use crate::wire::Reply;

/// Rows of the backlog.
const BACKLOG: i64 = 500;

#[test]
fn a_hanging_endpoint_does_not_stop_a_healthy_one_and_gets_everything_in_the_end() {
    let options = ", timeout => '60 s'";
    let mut scene = Scene::new(Cluster::shared(), "lag_hanging", options, |_, _| Reply::Hang);
    let healthy = Receiver::start(|_, _| Reply::ok());
    let (other, _) = register(&mut scene.client, "lag_hanging_2", &healthy.url(), "lag_hanging.*", "");
    scene.insert(1..=BACKLOG);
    scene.receiver.wait_for_hanging(1, secs(10));
    healthy.wait_for_rows(1..=BACKLOG, secs(15));
    assert_eq!(scene.receiver.accepted().len(), 0, "the hanging endpoint answered");
    // And it stays so for what comes later.
    scene.insert([BACKLOG + 1]);
    healthy.wait_for_rows([BACKLOG + 1], secs(2));
    scene.receiver.release();
    scene.wait_until_drained(secs(30));
    scene.client.execute("SELECT webhook_unregister($1)", &[&other]).unwrap();
    let ledger = scene.ledger();
    assert_eq!((ledger.lost.len(), ledger.duplicates), (0, 0));
}

#[test]
fn a_failing_endpoint_does_not_stop_a_healthy_one_and_gets_everything_in_the_end() {
    let broken = Arc::new(AtomicBool::new(true));
    let switch = Arc::clone(&broken);
    let options = ", max_attempts => 1000, attempt_interval => '1 s'";
    let mut scene = Scene::new(Cluster::shared(), "lag_failing", options, move |_, _| {
        Reply::status(if switch.load(Ordering::Relaxed) { 503 } else { 200 })
    });
    let healthy = Receiver::start(|_, _| Reply::ok());
    let (other, _) = register(&mut scene.client, "lag_failing_2", &healthy.url(), "lag_failing.*", "");
    scene.insert(1..=BACKLOG);
    healthy.wait_for_rows(1..=BACKLOG, secs(15));
    assert!(scene.receiver.count() > 0, "the failing endpoint was not tried");
    assert_eq!(scene.receiver.accepted().len(), 0);
    broken.store(false, Ordering::Relaxed);
    scene.wait_until_drained(secs(60));
    scene.client.execute("SELECT webhook_unregister($1)", &[&other]).unwrap();
    let ledger = scene.ledger();
    assert_eq!((ledger.lost.len(), ledger.duplicates), (0, 0));
}

#[test]
fn a_hanging_endpoint_does_not_take_more_than_its_share() {
    let options = ", timeout => '60 s', max_in_flight => 3";
    let mut scene = Scene::new(Cluster::shared(), "lag_share", options, |_, _| Reply::Hang);
    let healthy = Receiver::start(|_, _| Reply::ok());
    let (other, _) = register(&mut scene.client, "lag_share_2", &healthy.url(), "lag_share.*", "");
    scene.insert(1..=100);
    scene.receiver.wait_for_hanging(3, secs(10));
    healthy.wait_for_rows(1..=100, secs(15));
    assert_eq!(scene.receiver.count(), 3, "more requests in flight than max_in_flight allows");
    scene.client.execute("SELECT webhook_unregister($1)", &[&other]).unwrap();
}

#[test]
fn a_hanging_endpoint_leaves_the_backend_xmin_of_the_worker_null() {
    let cluster = Cluster::start(&[]);
    let mut scene = Scene::new(&cluster, "lag_xmin", ", timeout => '60 s'", |_, _| Reply::Hang);
    scene.insert(1..=20);
    scene.receiver.wait_for_hanging(8, secs(20));
    let query = "SELECT backend_xmin::text, extract(epoch FROM clock_timestamp() - xact_start)::float8
                   FROM pg_catalog.pg_stat_activity WHERE backend_type = 'webhook_pg worker'";
    let statement = scene.client.prepare(query).unwrap();
    let (started, mut samples, mut held) = (Instant::now(), 0, 0);
    // Longer than one poll: a look at the outbox may be met, but it must be over at the next sample.
    while started.elapsed() < secs(7) {
        let row = scene.client.query_one(&statement, &[]).expect("exactly one worker");
        let (xmin, age): (Option<String>, Option<f64>) = (row.get(0), row.get(1));
        samples += 1;
        if xmin.is_some() {
            held += 1;
            let age = age.unwrap_or_default();
            assert!(age < 0.1, "backend_xmin is held for {age} s while requests hang");
        }
        std::thread::sleep(millis(10));
    }
    assert!(scene.receiver.hanging() >= 8, "nothing hung while the samples were taken");
    assert!(held * 20 <= samples, "backend_xmin was not null in {held} of {samples} samples");
}

#[test]
fn a_new_endpoint_gets_exactly_the_events_of_transactions_not_committed_at_its_registration() {
    let mut scene = Scene::accepting("lag_new");
    scene.insert([1]);
    let mut open = scene.cluster.connect();
    open.batch_execute("BEGIN; INSERT INTO public.lag_new VALUES (2, 'open')").unwrap();
    scene.fence(3);
    let newcomer = Receiver::start(|_, _| Reply::ok());
    let (second, secret) = register(&mut scene.client, "lag_new_2", &newcomer.url(), "lag_new.*", "");
    newcomer.trust(&secret);
    scene.insert([4]);
    newcomer.wait_for_rows([4], secs(10));
    open.batch_execute("COMMIT").unwrap();
    scene.insert([5]);
    newcomer.wait_for_rows([2, 4, 5], secs(10));
    scene.receiver.wait_for_rows(1..=5, secs(10));
    scene.client.execute("SELECT webhook_unregister($1)", &[&second]).unwrap();
    let mut rows = newcomer.rows();
    rows.sort_unstable();
    assert_eq!(rows, [2, 4, 5]);
    newcomer.assert_all_signed();
}

#[test]
fn a_transaction_that_wrote_before_anybody_listened_is_delivered_if_it_commits_afterwards() {
    let cluster = Cluster::shared();
    let mut client = cluster.connect();
    create_table(&mut client, "lag_first");
    client.batch_execute("INSERT INTO public.lag_first VALUES (1, 'before'), (2, 'before')").unwrap();
    let mut open = cluster.connect();
    open.batch_execute(
        "BEGIN;
         INSERT INTO public.lag_first VALUES (3, 'open');
         UPDATE public.lag_first SET note = 'changed' WHERE id IN (1, 3);
         SAVEPOINT s; INSERT INTO public.lag_first VALUES (4, 'undone'); ROLLBACK TO s;
         SAVEPOINT t; DELETE FROM public.lag_first WHERE id = 2; RELEASE t",
    )
    .unwrap();
    let receiver = Receiver::start(|_, _| Reply::ok());
    let mut registrar = cluster.connect();
    registrar.batch_execute("BEGIN").unwrap();
    let (endpoint, secret) =
        register(&mut registrar, "lag_first", &receiver.url(), "lag_first.*", ", max_in_flight => 1");
    receiver.trust(&secret);
    // It commits while nobody can know whether the registration will.
    let mut racer = cluster.connect();
    racer.batch_execute("INSERT INTO public.lag_first VALUES (5, 'race')").unwrap();
    registrar.batch_execute("COMMIT").unwrap();
    open.batch_execute("UPDATE public.lag_first SET note = 'again' WHERE id = 3; COMMIT").unwrap();
    receiver.wait_for_answers(6, secs(10));
    let mut scene = Scene { cluster, name: "lag_first".to_owned(), client, receiver, endpoint };
    scene.fence(6);
    let events: Vec<String> = scene
        .receiver
        .requests()
        .iter()
        .map(|request| {
            let body = request.json();
            format!("{} {} {}", body["type"].as_str().unwrap(), body["data"]["id"], body["data"]["note"])
        })
        .collect();
    assert_eq!(
        events,
        [
            r#"lag_first.created 5 "race""#,
            r#"lag_first.created 3 "open""#,
            r#"lag_first.updated 1 "changed""#,
            r#"lag_first.updated 3 "changed""#,
            r#"lag_first.deleted 2 "before""#,
            r#"lag_first.updated 3 "again""#,
            r#"lag_first.created 6 "note""#,
        ]
    );
}
