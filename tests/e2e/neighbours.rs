//! What else lives in the cluster is not disturbed.

use std::time::Instant;

use crate::cluster::Cluster;
use crate::os::{as_owner, run};
use crate::scene::Scene;
use crate::size::size;
use crate::wait::{holds, secs, wait_until};
use crate::wire::Reply;

#[test]
fn databases_and_tablespaces_come_and_go_while_requests_hang() {
    // Without fsync: the disk's moods are not what is timed.
    let cluster = Cluster::start(&[("fsync", "off")]);
    let place = cluster.home().join("place");
    run(as_owner("mkdir").arg(&place));
    let create_tablespace = format!("CREATE TABLESPACE neighbour LOCATION '{}'", place.display());
    let options = ", timeout => '600 s', max_in_flight => 64";
    let mut scene = Scene::new(&cluster, "neighbours_database", options, |_, _| Reply::Hang);
    scene.insert(1..=100);
    scene.receiver.wait_for_hanging(64, secs(20));
    for round in 0..size(5, 50) {
        for statement in [
            "CREATE DATABASE neighbour",
            "DROP DATABASE neighbour",
            create_tablespace.as_str(),
            "DROP TABLESPACE neighbour",
        ] {
            let started = Instant::now();
            scene.run(statement);
            let took = started.elapsed();
            assert!(took <= secs(2), "{statement} took {took:?} in round {round}");
        }
    }
    assert_eq!(scene.receiver.hanging(), 64, "the requests no longer hang");
    assert!(!cluster.log().contains("ProcSignalBarrier"), "a backend waited for the worker");
}

#[test]
fn a_lock_on_the_attached_table_does_not_stop_delivery() {
    let mut scene = Scene::accepting("neighbours_lock");
    scene.insert([1]);
    scene.run("BEGIN; LOCK TABLE public.{}");
    let query = r#"SELECT webhook_send('neighbours_lock.happened', '{"id": 2}')"#;
    scene.cluster.connect().batch_execute(query).unwrap();
    scene.receiver.wait_for_rows([1, 2], secs(10));
    scene.run("COMMIT");
}

#[test]
fn writers_do_not_wait_for_a_hanging_endpoint() {
    let options = ", timeout => '60 s'";
    let mut scene = Scene::new(Cluster::shared(), "neighbours_writer", options, |_, _| Reply::Hang);
    scene.insert([1]);
    scene.receiver.wait_for_hanging(1, secs(10));
    scene.run("SET lock_timeout = '1 s'; SET statement_timeout = '2 s'");
    scene.insert(2..=100);
    scene.run("UPDATE public.{} SET note = 'changed'");
    scene.run("DELETE FROM public.{}");
}

#[test]
fn a_vacuum_removes_dead_rows_while_requests_hang() {
    let cluster = Cluster::start(&[("autovacuum", "off")]);
    let mut scene = Scene::new(&cluster, "neighbours_vacuum", ", timeout => '60 s'", |_, _| Reply::Hang);
    scene.insert([1]);
    scene.receiver.wait_for_hanging(1, secs(20));
    scene.run("CREATE TABLE public.neighbours_dead AS SELECT g FROM generate_series(1, 1000) g");
    scene.run("DELETE FROM public.neighbours_dead");
    // A look at the outbox may be met, but it is over at once.
    wait_until("vacuum empties the table", secs(3), || {
        scene.run("VACUUM public.neighbours_dead");
        let size = scene.number("SELECT pg_catalog.pg_relation_size('public.neighbours_dead')");
        holds(size == 0, || format!("{size} bytes"))
    });
}
