//! Streaming replication: a standby sends nothing, and a promoted one goes on where the primary was.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use postgres::Client;

use crate::cluster::{Cluster, Stop};
use crate::ledger::Ledger;
use crate::os::kill;
use crate::receiver::Receiver;
use crate::scene::Scene;
use crate::site::{run, status};
use crate::size::size;
use crate::wait::{holds, millis, secs, wait_until};
use crate::wire::Reply;
use crate::writers::Writers;

/// `webhook_pg.max_in_flight`: what a crash may repeat.
const IN_FLIGHT: usize = 64;

/// Waits until the standby has replayed what the primary has written so far.
#[track_caller]
fn wait_until_replayed(primary: &Cluster, standby: &Cluster) {
    let query = "SELECT pg_current_wal_flush_lsn()::text";
    let lsn: String = primary.connect().query_one(query, &[]).expect("the end of the WAL").get(0);
    let mut client = standby.connect();
    wait_until("the standby has replayed everything", secs(30), || {
        let query = format!("SELECT coalesce(pg_last_wal_replay_lsn() >= '{lsn}', false)");
        let row = client.query_one(&query, &[]).map_err(|e| e.to_string())?;
        holds(row.get(0), || format!("not {lsn}"))
    });
}

fn delivered(client: &mut Client) -> usize {
    let query = "SELECT count(*) FROM webhook.deliveries WHERE state = 'delivered'";
    usize::try_from(client.query_one(query, &[]).expect("the deliveries").get::<_, i64>(0)).unwrap()
}

/// Commits wait for the standby from now on.
fn make_synchronous(primary: &Cluster) {
    primary.set("synchronous_standby_names", "*");
    wait_until("the standby is synchronous", secs(20), || {
        let query = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
        let n: i64 = primary.connect().query_one(query, &[]).map_err(|e| e.to_string())?.get(0);
        holds(n == 1, || format!("{n} synchronous standbys"))
    });
}

/// Promotes; answers when.
fn promote(standby: &Cluster) -> Instant {
    let at = Instant::now();
    run(&mut standby.connect(), "SELECT pg_promote()");
    at
}

#[test]
fn a_hot_standby_with_pending_events_sends_nothing_and_answers() {
    let primary = Cluster::start(&[("webhook_pg.enabled", "off")]);
    let mut scene = Scene::new(&primary, "standby_quiet", "", |_, _| Reply::ok());
    scene.insert(1..=100);
    let standby = primary.standby(&[("webhook_pg.enabled", "on"), ("webhook_pg.poll_interval", "100ms")]);
    wait_until_replayed(&primary, &standby);
    let mut client = standby.connect();
    for view in ["endpoints", "attachments", "events", "deliveries", "attempts"] {
        client
            .query(&format!("SELECT * FROM webhook.{view}"), &[])
            .unwrap_or_else(|e| panic!("{view}: {e:?}"));
    }
    let (ok, detail) = status(&mut client, "worker");
    assert!(ok && detail.contains("standby"), "{detail}");
    assert!(status(&mut client, "clone guard").0);
    let (_, backlog) = status(&mut client, "backlog");
    assert!(backlog.starts_with("100 events"), "{backlog}");
    // Ten polls a second.
    std::thread::sleep(secs(size(3, 60)));
    assert_eq!(scene.receiver.count(), 0, "a standby sent something");
    let log = standby.log();
    let bad: Vec<&str> = log
        .lines()
        .filter(|l| l.contains("recovery") && (l.contains("ERROR") || l.contains("webhook")))
        .collect();
    assert!(bad.is_empty(), "somebody tried to write:\n{}", bad.join("\n"));
}

#[test]
fn a_promoted_standby_delivers_within_5_seconds_and_loses_nothing_that_was_replicated() {
    // Without fsync: the disk's moods are not what is timed.
    let primary = Cluster::start(&[("fsync", "off")]);
    let options = ", max_in_flight => 64";
    let mut scene = Scene::new(&primary, "standby_promoted", options, |_, _| Reply::ok().after(millis(5)));
    let standby = primary.standby(&[]);
    make_synchronous(&primary);
    let started = Instant::now();
    let writers = Writers::start(&scene, size(4, 10), "", millis(size(4, 12)));
    scene.receiver.wait_for_answers(size(500, 5000), secs(60));
    let rate = writers.acknowledged().len() as f64 / started.elapsed().as_secs_f64();
    primary.stop_server(Stop::Immediate);
    let acknowledged = writers.stop();
    assert!(rate >= size(0.0, 500.0), "{rate:.0} events a second are not the load that is meant");
    // What was answered and is not known here will be sent again.
    let mut client = standby.connect();
    let unknown = scene.receiver.accepted().len().saturating_sub(delivered(&mut client));
    let promoted = promote(&standby);
    run(&mut client, "INSERT INTO public.standby_promoted VALUES (1000000, 'after the promotion')");
    scene.receiver.wait_for_rows([1_000_000], secs(5).saturating_sub(promoted.elapsed()));
    let ledger = wait_until("everything is delivered", secs(30), || {
        let ledger = Ledger::read(&mut client, "standby_promoted", &scene.receiver);
        holds(ledger.lost.is_empty(), || format!("{} are not", ledger.lost.len())).map(|()| ledger)
    });
    let vanished: Vec<_> = acknowledged.difference(&ledger.committed).collect();
    assert!(vanished.is_empty(), "acknowledged by a synchronous standby and gone: {vanished:?}");
    assert!(ledger.ghosts.is_empty(), "ghosts: {:?}", ledger.ghosts);
    let limit = IN_FLIGHT + unknown;
    assert!(ledger.duplicates <= limit, "{} duplicates, {limit} allowed", ledger.duplicates);
    scene.receiver.assert_all_signed();
    scene.client = client;
    standby.assert_calm();
}

#[test]
fn what_a_lost_primary_had_sent_shares_no_webhook_id_with_what_the_promoted_one_sends() {
    const LOST: i64 = 500;
    let primary = Cluster::start(&[]);
    let mut scene = Scene::new(&primary, "standby_reused", "", |_, _| Reply::ok());
    let standby = primary.standby(&[]);
    scene.insert(1..=100);
    scene.wait_until_drained(secs(20));
    wait_until_replayed(&primary, &standby);
    standby.stop_server(Stop::Fast);
    // Committed and delivered, and the standby will never hear of it.
    scene.insert(1001..=1000 + LOST);
    scene.receiver.wait_for_rows(1001..=1000 + LOST, secs(30));
    primary.stop_server(Stop::Immediate);
    standby.start_server();
    promote(&standby);
    scene.client = standby.connect();
    scene.insert(5001..=5000 + LOST);
    scene.receiver.wait_for_rows(5001..=5000 + LOST, secs(30));
    let mut bodies: BTreeMap<String, BTreeSet<Vec<u8>>> = BTreeMap::new();
    for request in scene.receiver.requests() {
        bodies.entry(request.id().to_owned()).or_default().insert(request.body.clone());
    }
    let reused: Vec<_> = bodies.iter().filter(|(_, bodies)| bodies.len() > 1).collect();
    assert!(reused.is_empty(), "{} ids came with another body", reused.len());
    let ledger = scene.ledger();
    assert!(ledger.lost.is_empty(), "lost: {:?}", ledger.lost);
    // Nobody can take back what has been sent: these are the rows that the failover lost, and no others.
    assert_eq!(ledger.ghosts, (1001..=1000 + LOST).collect::<BTreeSet<i64>>());
}

/// A process that is stopped until this is dropped.
struct Frozen(u32);

impl Drop for Frozen {
    fn drop(&mut self) {
        kill("CONT", self.0);
    }
}

#[test]
fn a_synchronous_standby_that_stops_answering_does_not_stop_the_worker() {
    // Without the two timeouts: else PostgreSQL would end the connection of a standby that is silent for a minute.
    let primary = Cluster::start(&[
        ("webhook_pg.databases", ""),
        ("fsync", "off"),
        ("wal_keep_size", "4GB"),
        ("wal_sender_timeout", "0"),
        ("wal_receiver_timeout", "0"),
    ]);
    let mut scene = Scene::new(&primary, "standby_silent", "", |_, _| Reply::ok());
    let standby = primary.standby(&[]);
    make_synchronous(&primary);
    scene.fence(3_000_000);
    let query = "SELECT pid FROM pg_stat_wal_receiver";
    let wal_receiver: i32 = standby.connect().query_one(query, &[]).unwrap().get(0);
    let wal_receiver = wal_receiver.unsigned_abs();
    kill("STOP", wal_receiver);
    let mut frozen = Some(Frozen(wal_receiver));
    let mut local = primary.connect();
    run(&mut local, "SET synchronous_commit = local");
    // Whoever does not wait for the standby is served. (Sessions that do wait for it hold up barriers; that is PostgreSQL's.)
    let silent = Instant::now();
    let mut round = 0;
    while round < 5 || silent.elapsed() < secs(size(0, 60)) {
        for command in ["CREATE DATABASE barrier", "DROP DATABASE barrier"] {
            let started = Instant::now();
            run(&mut local, command);
            assert!(started.elapsed() <= secs(2), "{command} took {:?} in round {round}", started.elapsed());
        }
        let id = 2_000_000 + round;
        run(&mut local, &format!("INSERT INTO public.standby_silent VALUES ({id}, 'local')"));
        scene.receiver.wait_for_rows([id], secs(3));
        round += 1;
        // Not a wait: the WAL of a database each would be more than is kept for the standby.
        std::thread::sleep(millis(size(0, 500)));
    }
    assert!(!primary.log().contains("ProcSignalBarrier"), "a process did not take part");
    let writers = Writers::start(&scene, 4, "", millis(1));
    // Dropped before the writers, who wait for it.
    let frozen = frozen.take();
    wait_until("the writers hang", secs(20), || {
        let query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        let n: i64 = local.query_one(query, &[]).map_err(|e| e.to_string())?.get(0);
        holds(n >= 4, || format!("{n} hang"))
    });
    run(&mut local, "INSERT INTO public.standby_silent VALUES (2900000, 'local')");
    scene.receiver.wait_for_rows([2_900_000], secs(3));
    drop(frozen);
    let back = Instant::now();
    let before = scene.receiver.accepted().len();
    wait_until("deliveries go on", secs(3), || {
        let now = scene.receiver.accepted().len();
        holds(now > before, || format!("{now} rows"))
    });
    assert!(back.elapsed() <= secs(3));
    writers.stop();
    scene.wait_until_drained(secs(30));
    assert_eq!(scene.receiver.duplicates(), 0);
    // The standby goes first.
    primary.set("synchronous_standby_names", "");
}

#[test]
fn a_prepared_transaction_outlives_a_promotion_and_is_sent_once() {
    const POLL: Duration = secs(1);
    let settings = [("webhook_pg.poll_interval", "1s")];
    let primary = Cluster::start(&settings);
    let mut scene = Scene::new(&primary, "standby_prepared", "", |_, _| Reply::ok());
    let standby = primary.standby(&[]);
    for (id, name) in [(1, "kept"), (2, "undone")] {
        scene.run(&format!(
            "BEGIN; INSERT INTO public.{{}} VALUES ({id}, 'prepared'); PREPARE TRANSACTION '{name}'"
        ));
    }
    scene.fence(3);
    wait_until_replayed(&primary, &standby);
    primary.stop_server(Stop::Immediate);
    promote(&standby);
    scene.client = standby.connect();
    scene.insert([4]);
    scene.receiver.wait_for_rows([4], secs(5));
    let mut sent = scene.receiver.rows();
    sent.dedup();
    assert_eq!(sent, [3, 4], "prepared is not committed");
    scene.run("COMMIT PREPARED 'kept'");
    scene.run("ROLLBACK PREPARED 'undone'");
    scene.receiver.wait_for_rows([1], POLL + secs(1));
    scene.insert([5]);
    scene.receiver.wait_for_rows([5], secs(5));
    let rows = scene.receiver.rows();
    assert_eq!(rows.iter().filter(|row| **row == 1).count(), 1);
    assert!(!rows.contains(&2), "what was rolled back was sent");
}

#[test]
fn a_standby_of_a_standby_sends_nothing_after_the_first_is_promoted() {
    let primary = Cluster::start(&[]);
    let receiver = Receiver::start(|_, _| Reply::ok());
    let mut scene = Scene::with_receiver(&primary, "standby_cascade", "", receiver);
    let first = primary.standby(&[]);
    let second = first.standby(&[]);
    wait_until_replayed(&primary, &first);
    primary.stop_server(Stop::Fast);
    promote(&first);
    scene.client = first.connect();
    scene.insert(1..=20);
    scene.receiver.wait_for_rows(1..=20, secs(20));
    wait_until_replayed(&first, &second);
    std::thread::sleep(secs(1));
    assert_eq!(scene.receiver.count(), 20);
    assert!(status(&mut second.connect(), "worker").1.contains("standby"));
}
