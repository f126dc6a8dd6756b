//! Transactions that commit in another order than they wrote, or long after.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::cluster::{Cluster, Stop};
use crate::scene::Scene;
use crate::wait::{millis, secs};
use crate::wire::Reply;

#[test]
fn a_thousand_transactions_that_commit_out_of_order_lose_nothing() {
    const TRANSACTIONS: i64 = 1000;
    const SESSIONS: u64 = 20;
    let mut scene = Scene::accepting("order_random");
    let next = Arc::new(AtomicI64::new(1));
    let session = |seed: u64| {
        let (mut client, next) = (scene.cluster.connect(), Arc::clone(&next));
        std::thread::spawn(move || {
            // A small generator (Knuth's constants for 64 bits): the delays only have to differ.
            let mut state = seed;
            let mut insert = |sql: &str, id: i64| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let mut transaction = client.transaction().expect("begin");
                transaction.execute(sql, &[&id]).expect("insert");
                std::thread::sleep(millis((state >> 33) % 40));
                transaction.commit().expect("commit");
            };
            loop {
                let id = next.fetch_add(1, Ordering::Relaxed);
                if id > TRANSACTIONS {
                    return;
                }
                insert("INSERT INTO public.order_random VALUES ($1, 'out of order')", id);
            }
        })
    };
    let sessions: Vec<_> = (1..=SESSIONS).map(session).collect();
    for session in sessions {
        session.join().expect("a session");
    }
    scene.wait_until_drained(secs(30));
    let ledger = scene.ledger();
    assert_eq!(i64::try_from(ledger.committed.len()), Ok(TRANSACTIONS));
    assert_eq!((ledger.lost.len(), ledger.ghosts.len(), ledger.duplicates), (0, 0, 0));
    let rows = scene.receiver.rows();
    assert!(!rows.is_sorted(), "they did not commit out of order, so this shows nothing");
}

#[test]
fn a_long_transaction_holds_up_nobody_and_is_delivered_when_it_commits() {
    let mut scene = Scene::accepting("order_long");
    let mut long = scene.cluster.connect();
    long.batch_execute("BEGIN; INSERT INTO public.order_long VALUES (1, 'long')").unwrap();
    scene.insert(2..=200);
    scene.receiver.wait_for_rows(2..=200, secs(10));
    long.batch_execute("INSERT INTO public.order_long VALUES (201, 'long'); COMMIT").unwrap();
    scene.receiver.wait_for_rows([1, 201], secs(10));
    assert_eq!(scene.receiver.count(), 201);
}

#[test]
fn a_prepared_transaction_is_delivered_when_it_commits() {
    let mut scene = Scene::accepting("order_prepared");
    scene.run("BEGIN; INSERT INTO public.{} VALUES (1, 'prepared'); PREPARE TRANSACTION 'order_prepared'");
    scene.fence(2);
    assert_eq!(scene.receiver.rows(), [2], "a prepared transaction is not committed");
    scene.run("COMMIT PREPARED 'order_prepared'");
    // The default poll_interval is 5 s: the safety scan finds what no latch announced.
    scene.receiver.wait_for_rows([1], secs(6));
}

#[test]
fn a_prepared_transaction_that_is_rolled_back_sends_nothing() {
    let mut scene = Scene::accepting("order_unprepared");
    scene.run("BEGIN; INSERT INTO public.{} VALUES (1, 'prepared'); PREPARE TRANSACTION 'order_unprepared'");
    scene.run("ROLLBACK PREPARED 'order_unprepared'");
    scene.fence(2);
    assert_eq!(scene.receiver.rows(), [2]);
}

#[test]
fn a_prepared_transaction_outlives_a_crash_and_is_sent_once_or_undone() {
    let cluster = Cluster::start(&[]);
    let mut scene = Scene::new(&cluster, "order_crash", ", max_in_flight => 1", |_, _| Reply::ok());
    for (id, name) in [(1, "kept"), (2, "undone")] {
        scene.run(&format!(
            "BEGIN; INSERT INTO public.{{}} VALUES ({id}, 'prepared'); PREPARE TRANSACTION '{name}'"
        ));
    }
    cluster.restart_server(Stop::Immediate);
    scene.reconnect();
    scene.fence(3);
    scene.run("ROLLBACK PREPARED 'undone'");
    scene.run("COMMIT PREPARED 'kept'");
    scene.receiver.wait_for_rows([1], secs(6));
    scene.fence(4);
    scene.wait_until_drained(secs(10));
    assert_eq!(scene.receiver.rows(), [3, 1, 4]);
}
