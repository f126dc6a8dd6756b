//! No ghosts: what a crash erases was never sent.

use std::collections::BTreeSet;

use postgres::Client;

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

/// Writes into the WAL until it ends where a page ends: the next record begins behind the next page's header.
fn fill_page(client: &mut Client) {
    const PAGE: i64 = 8192;
    const SEGMENT: i64 = 16 << 20;
    /// Headers of the record and of the message, and the prefix's final zero.
    const OVERHEAD: i64 = 24 + 5 + 24 + 1;
    wait_until("the WAL ends with a page", secs(20), || {
        let query = "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint";
        let at: i64 = client.query_one(query, &[]).unwrap().get(0);
        if at % SEGMENT == 40 || at % PAGE == 24 {
            return Ok(());
        }
        let left = PAGE - at % PAGE;
        // A short message has a shorter header.
        let length = i32::try_from(if left < 1000 { 1000 } else { left - OVERHEAD }).unwrap();
        client.execute("SELECT pg_logical_emit_message(false, '', repeat('x', $1))", &[&length]).unwrap();
        Err(format!("it ended {left} bytes before the end of one"))
    });
}

#[test]
fn a_worker_that_starts_when_the_wal_ends_with_a_page_sends_what_waits() {
    let cluster = Cluster::start(&[]);
    let mut scene = Scene::new(&cluster, "durability_page", "", |_, _| Reply::ok());
    cluster.set("webhook_pg.enabled", "off");
    scene.insert([1]);
    fill_page(&mut scene.client);
    cluster.set("webhook_pg.enabled", "on");
    scene.receiver.wait_for_rows([1], secs(20));
    let log = cluster.log();
    assert!(!log.contains("request to flush past end"), "{log}");
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
