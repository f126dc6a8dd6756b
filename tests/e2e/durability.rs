//! No ghosts: what a crash erases was never sent.

use std::collections::BTreeSet;

use crate::cluster::{Cluster, Stop};
use crate::scene::Scene;
use crate::wait::{holds, millis, secs, wait_until};
use crate::wire::Reply;
use crate::writers::Writers;

#[test]
fn fifty_immediate_stops_with_asynchronous_commits_send_no_ghost() {
    const STOPS: usize = 50;
    let cluster = Cluster::start(&[("wal_writer_delay", "10s")]);
    let mut scene = Scene::new(&cluster, "durability_ghosts", "", |_, _| Reply::ok());
    let writers = Writers::start(&scene, 4, "SET synchronous_commit = off", millis(25));
    for stop in 0..STOPS {
        // Rows of this round were sent and the worker is in the middle of sending more.
        let known = writers.acknowledged();
        let newest = known.last().copied().unwrap_or_default();
        wait_until(&format!("new rows arrive before stop {stop}"), secs(60), || {
            let received = scene.receiver.rows().into_iter().filter(|row| *row > newest).count();
            holds(received >= 20, || format!("{received} new rows arrived, {} known", known.len()))
        });
        // The worker flushes what it reads, a millisecond after the commit. While it waits for a lock nobody does, so that
        // these stops erase something for certain.
        let mut session = cluster.connect();
        let mut lock = session.transaction().unwrap();
        if stop % 5 == 0 {
            lock.batch_execute("LOCK TABLE webhook.delivery").unwrap();
            let known = writers.acknowledged().len();
            wait_until("rows are written while the worker waits", secs(60), || {
                let more = writers.acknowledged().len() - known;
                holds(more >= 50, || format!("{more} more rows"))
            });
        }
        cluster.restart_server(Stop::Immediate);
    }
    let acknowledged = writers.stop();
    scene.reconnect();
    scene.wait_until_drained(secs(120));
    scene.fence(1_000_000_000);
    let ledger = scene.ledger();
    let vanished: BTreeSet<i64> = acknowledged.difference(&ledger.committed).copied().collect();
    assert!(!vanished.is_empty(), "no acknowledged row vanished, so this shows nothing");
    assert!(ledger.ghosts.is_empty(), "{} ghosts: {:?}", ledger.ghosts.len(), ledger.ghosts);
    assert!(ledger.lost.is_empty(), "{} lost: {:?}", ledger.lost.len(), ledger.lost);
    scene.receiver.assert_all_signed();
}

#[test]
fn a_row_that_is_committed_asynchronously_is_delivered_without_waiting_for_the_wal_writer() {
    let cluster = Cluster::start(&[("wal_writer_delay", "10s")]);
    let mut scene = Scene::new(&cluster, "durability_flush", "", |_, _| Reply::ok());
    scene.fence(1);
    scene.run("SET synchronous_commit = off");
    scene.insert([2]);
    scene.receiver.wait_for_rows([2], secs(2));
}

#[test]
fn a_commit_that_was_answered_is_delivered_after_a_crash() {
    let cluster = Cluster::start(&[]);
    let mut scene = Scene::new(&cluster, "durability_answered", "", |_, _| Reply::ok());
    scene.insert([1]);
    cluster.restart_server(Stop::Immediate);
    scene.reconnect();
    scene.wait_until_drained(secs(20));
    assert_eq!(scene.receiver.accepted(), BTreeSet::from([1]));
}
