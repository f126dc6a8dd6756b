//! Crashes under load: nothing is lost, and no more is repeated than was in flight.

use std::time::Instant;

use crate::cluster::{Cluster, Stop};
use crate::os::{children, kill, wait_until_gone};
use crate::scene::Scene;
use crate::size::size;
use crate::wait::{holds, millis, secs, wait_until};
use crate::wire::Reply;
use crate::writers::Writers;

/// `webhook_pg.max_in_flight`: what a crash may repeat.
const IN_FLIGHT: usize = 64;

/// A receiver that takes its time, so that requests are in flight whenever something happens.
fn slow_scene<'c>(cluster: &'c Cluster, name: &str) -> Scene<'c> {
    Scene::new(cluster, name, ", max_in_flight => 64", |_, _| Reply::ok().after(millis(20)))
}

/// Waits until so many more requests were answered: the worker is at work.
#[track_caller]
fn wait_for_more_deliveries(scene: &Scene<'_>, n: usize, deadline: std::time::Duration) {
    let before = scene.receiver.accepted().len();
    wait_until(&format!("{n} more rows are delivered"), deadline, || {
        let now = scene.receiver.accepted().len();
        holds(now >= before + n, || format!("{} more", now - before))
    });
}

/// Every acknowledged row is there and delivered, nothing else was sent, and repeats stay below the limit.
#[track_caller]
fn assert_balanced(scene: &mut Scene<'_>, writers: Writers, crashes: usize) {
    let acknowledged = writers.stop();
    scene.wait_until_drained(secs(60));
    scene.fence(1_000_000_000);
    let ledger = scene.ledger();
    let vanished: Vec<_> = acknowledged.difference(&ledger.committed).collect();
    assert!(vanished.is_empty(), "acknowledged rows are gone: {vanished:?}");
    assert!(ledger.lost.is_empty(), "lost: {:?}", ledger.lost);
    assert!(ledger.ghosts.is_empty(), "ghosts: {:?}", ledger.ghosts);
    let limit = crashes * IN_FLIGHT;
    assert!(ledger.duplicates <= limit, "{} duplicates, {limit} allowed", ledger.duplicates);
    scene.receiver.assert_all_signed();
}

#[test]
fn an_immediate_stop_under_load_loses_nothing_and_repeats_at_most_what_was_in_flight() {
    let cluster = Cluster::start(&[]);
    let mut scene = slow_scene(&cluster, "crash_stop");
    let writers = Writers::start(&scene, 4, "", millis(2));
    wait_for_more_deliveries(&scene, 200, secs(30));
    cluster.restart_server(Stop::Immediate);
    scene.reconnect();
    wait_for_more_deliveries(&scene, 200, secs(30));
    assert_balanced(&mut scene, writers, 1);
}

#[test]
fn an_immediate_stop_while_a_backlog_drains_repeats_at_most_what_was_in_flight() {
    // Nobody else writes, so nobody flushes the outcomes of the worker along.
    let cluster = Cluster::start(&[("wal_writer_delay", "10s")]);
    let mut scene = Scene::new(&cluster, "crash_backlog", "", |_, _| Reply::ok());
    let endpoint = scene.endpoint;
    scene.run(&format!("SELECT webhook_pause({endpoint})"));
    scene.run("INSERT INTO {} SELECT n, 'note' FROM generate_series(1, 10000) n");
    scene.run(&format!("SELECT webhook_resume({endpoint})"));
    wait_for_more_deliveries(&scene, 1000, secs(30));
    cluster.restart_server(Stop::Immediate);
    scene.reconnect();
    scene.wait_until_drained(secs(60));
    let ledger = scene.ledger();
    assert_eq!((ledger.lost.len(), ledger.ghosts.len()), (0, 0));
    assert!(ledger.duplicates <= IN_FLIGHT, "{} duplicates", ledger.duplicates);
}

#[test]
fn a_fast_stop_under_load_loses_nothing() {
    let cluster = Cluster::start(&[]);
    let mut scene = slow_scene(&cluster, "crash_fast");
    let writers = Writers::start(&scene, 4, "", millis(2));
    wait_for_more_deliveries(&scene, 200, secs(30));
    cluster.restart_server(Stop::Fast);
    scene.reconnect();
    wait_for_more_deliveries(&scene, 200, secs(30));
    assert_balanced(&mut scene, writers, 1);
}

/// Ends the worker as soon as there is one; answers whether it was in its first 100 ms.
#[track_caller]
fn terminate_worker(scene: &mut Scene<'_>) -> bool {
    let query = "SELECT pg_catalog.clock_timestamp() - backend_start < '100 ms' AS is_young, pid
                   FROM pg_catalog.pg_stat_activity WHERE backend_type = 'webhook_pg worker'";
    let (is_young, worker): (bool, i32) = wait_until("there is a worker to end", secs(3), || {
        let rows = scene.client.query(query, &[]).map_err(|e| e.to_string())?;
        rows.first().map(|row| (row.get(0), row.get(1))).ok_or("no worker".into())
    });
    let query = "SELECT pg_catalog.pg_terminate_backend($1, 5000)";
    let ended: bool = scene.client.query_one(query, &[&worker]).unwrap().get(0);
    assert!(ended, "the worker did not end");
    is_young
}

#[test]
fn a_terminated_worker_delivers_again_within_3_seconds_and_loses_nothing() {
    let rounds = size(4, 50);
    let cluster = Cluster::start(&[]);
    let mut scene = slow_scene(&cluster, "crash_terminated");
    let writers = Writers::start(&scene, 2, "", millis(4));
    let (mut ends, mut young) = (0, 0);
    for round in 0..rounds {
        // More than can have been on its way when the worker ended.
        wait_for_more_deliveries(&scene, IN_FLIGHT + 1, secs(30));
        let (ends_before, duplicates_before) = (ends, scene.receiver.duplicates());
        let mut last = Instant::now();
        terminate_worker(&mut scene);
        ends += 1;
        // Every other time the next one, too, before it has done anything.
        if round % 2 == 1 {
            let next = wait_until("the next worker begins", secs(3), || {
                cluster.try_worker().ok_or("no worker".to_owned())
            });
            last = Instant::now();
            young += usize::from(terminate_worker(&mut scene));
            ends += 1;
            assert!(cluster.try_worker() != Some(next));
        }
        wait_for_more_deliveries(&scene, 1, secs(3).saturating_sub(last.elapsed()));
        wait_for_more_deliveries(&scene, IN_FLIGHT + 1, secs(20));
        let duplicates = scene.receiver.duplicates() - duplicates_before;
        let limit = (ends - ends_before) * IN_FLIGHT;
        assert!(duplicates <= limit, "{duplicates} duplicates in round {round}, {limit} allowed");
    }
    assert!(young > 0, "no worker was ended in its first 100 ms");
    assert_balanced(&mut scene, writers, ends);
    let recoveries = cluster.log().matches("all server processes terminated; reinitializing").count();
    assert_eq!(recoveries, 0, "ending the worker restarted the server");
}

#[test]
fn a_worker_killed_under_load_recovers_and_loses_nothing() {
    let rounds = size(3, 10);
    let cluster = Cluster::start(&[]);
    cluster.expect_crash();
    let mut scene = slow_scene(&cluster, "crash_killed");
    let writers = Writers::start(&scene, 4, "", millis(2));
    wait_for_more_deliveries(&scene, 100, secs(30));
    for _ in 0..rounds {
        kill("KILL", cluster.worker());
        wait_until("the server is back", secs(20), || match cluster.try_connect() {
            Ok(client) => {
                scene.client = client;
                holds(scene.client.batch_execute("SELECT 1").is_ok(), || "a broken session".into())
            }
            Err(e) => Err(e.to_string()),
        });
        wait_for_more_deliveries(&scene, 100, secs(20));
    }
    scene.reconnect();
    assert_balanced(&mut scene, writers, rounds);
    let recoveries = cluster.log().matches("all server processes terminated; reinitializing").count();
    assert_eq!(recoveries, rounds, "crash recoveries");
}

#[test]
fn a_killed_postmaster_takes_its_children_along_and_the_server_starts_again() {
    let cluster = Cluster::start(&[]);
    cluster.expect_crash();
    let options = ", timeout => '60 s', max_in_flight => 64";
    let mut scene = Scene::new(&cluster, "crash_postmaster", options, |_, _| Reply::Hang);
    scene.insert(1..=100);
    scene.receiver.wait_for_hanging(IN_FLIGHT, secs(20));
    let worker = cluster.worker();
    let postmaster = cluster.postmaster();
    // So that it forks nobody who would not be on the list.
    kill("STOP", postmaster);
    let mut processes = children(postmaster);
    assert!(processes.contains(&worker), "the worker is no child of the postmaster");
    processes.push(postmaster);
    kill("KILL", postmaster);
    wait_until_gone(&processes, secs(5));
    cluster.start_server();
    scene.reconnect();
    scene.receiver.release();
    scene.wait_until_drained(secs(30));
    let ledger = scene.ledger();
    assert_eq!((ledger.committed.len(), ledger.lost.len(), ledger.ghosts.len()), (100, 0, 0));
    assert!(ledger.duplicates <= IN_FLIGHT, "{} duplicates", ledger.duplicates);
}

#[test]
fn a_writer_that_is_killed_before_its_commit_sends_nothing() {
    let cluster = Cluster::start(&[]);
    cluster.expect_crash();
    let mut scene = Scene::new(&cluster, "crash_writer", "", |_, _| Reply::ok());
    scene.run("BEGIN; INSERT INTO public.{} VALUES (1, 'never committed')");
    let backend = scene.number("SELECT pg_catalog.pg_backend_pid()::bigint");
    kill("KILL", u32::try_from(backend).unwrap());
    // Until the server has noticed, it lets people in whom it will throw out.
    let noticed = || cluster.log().contains("terminated by signal 9");
    wait_until("the server has noticed", secs(20), || holds(noticed(), || "nothing in its log".into()));
    wait_until("the server is back", secs(20), || match cluster.try_connect() {
        Ok(mut client) => holds(client.batch_execute("SELECT 1").is_ok(), || "a broken session".into()),
        Err(e) => Err(e.to_string()),
    });
    scene.reconnect();
    scene.fence(2);
    assert_eq!(scene.receiver.rows(), [2]);
}
