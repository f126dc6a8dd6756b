//! The extension comes and goes while the worker runs.

use std::time::Instant;

use crate::cluster::Cluster;
use crate::scene::Scene;
use crate::site::{run, status};
use crate::wait::secs;
use crate::wire::Reply;

/// Lines of the log in which the worker complains.
fn worker_errors(cluster: &Cluster) -> Vec<String> {
    let complains = |line: &&str| {
        line.contains("webhook_pg worker") && (line.contains(" ERROR: ") || line.contains(" FATAL: "))
    };
    cluster.log().lines().filter(complains).map(str::to_owned).collect()
}

#[test]
fn the_extension_can_be_dropped_and_created_again_while_the_worker_runs() {
    let cluster = Cluster::start(&[]);
    for round in 1..=3 {
        let mut scene = Scene::new(&cluster, "lifecycle_again", "", |_, _| Reply::ok());
        scene.insert([round]);
        scene.receiver.wait_for_rows([round], secs(5));
        scene.run("DROP EXTENSION webhook_pg CASCADE");
        // The table lives on without the trigger.
        scene.insert([100 + round]);
        scene.run("CREATE EXTENSION webhook_pg");
        assert_eq!(scene.receiver.rows(), [round]);
    }
    let errors = worker_errors(&cluster);
    assert!(errors.is_empty(), "the worker complains:\n{}", errors.join("\n"));
}

#[test]
fn dropping_the_extension_does_not_wait_for_hanging_requests() {
    let cluster = Cluster::start(&[]);
    let options = ", timeout => '60 s', max_in_flight => 64";
    let mut scene = Scene::new(&cluster, "lifecycle_hanging", options, |_, _| Reply::Hang);
    scene.insert(1..=100);
    scene.receiver.wait_for_hanging(64, secs(20));
    let started = Instant::now();
    scene.run("DROP EXTENSION webhook_pg CASCADE");
    let took = started.elapsed();
    assert!(took <= secs(2), "DROP EXTENSION took {took:?}");
    // Now the answers come, and there is no table to record them in.
    scene.receiver.release();
    scene.run("DROP TABLE public.{}; CREATE EXTENSION webhook_pg");
    let mut again = Scene::new(&cluster, "lifecycle_after", "", |_, _| Reply::ok());
    again.fence(1);
    assert_eq!(again.receiver.rows(), [1]);
    let errors = worker_errors(&cluster);
    assert!(errors.is_empty(), "the worker complains:\n{}", errors.join("\n"));
}

#[test]
fn dropping_the_extension_without_cascade_names_the_attached_tables() {
    // In a database of its own: PostgreSQL names a hundred objects at most, and other tests attach tables.
    let cluster = Cluster::shared();
    let mut owner = cluster.connect();
    run(&mut owner, "CREATE DATABASE lifecycle_attached");
    let mut client = cluster.connect_to("lifecycle_attached");
    let set_up = "CREATE EXTENSION webhook_pg; CREATE TABLE lifecycle_attached (id int); SELECT webhook_attach('lifecycle_attached', key => '{id}')";
    client.batch_execute(set_up).expect("attach a table");
    let error = client.batch_execute("DROP EXTENSION webhook_pg").expect_err("a table is attached");
    let error = error.as_db_error().expect("an error of the server");
    assert_eq!(error.code().code(), "2BP01");
    assert!(error.detail().unwrap_or_default().contains("lifecycle_attached"), "{error:?}");
    run(&mut owner, "DROP DATABASE lifecycle_attached WITH (FORCE)");
}

#[test]
fn a_detached_table_captures_nothing_more() {
    let mut scene = Scene::accepting("lifecycle_detached");
    scene.fence(1);
    assert_eq!(scene.number("SELECT webhook_detach('public.{}')::bigint"), 1);
    scene.insert([2]);
    scene.run("SELECT webhook_attach('public.{}')");
    scene.fence(3);
    assert_eq!(scene.receiver.rows(), [1, 3]);
}

#[test]
fn events_of_a_dropped_table_are_still_delivered_and_the_status_names_it() {
    let mut scene = Scene::accepting("lifecycle_dropped");
    scene.run("SELECT webhook_pause(id) FROM webhook.endpoints WHERE name = '{}'");
    scene.run("INSERT INTO public.{} SELECT g, 'waits' FROM generate_series(1, 1000) g");
    // Table and events go in one transaction, too.
    scene.run("BEGIN; INSERT INTO public.{} SELECT g, 'last' FROM generate_series(1001, 1100) g; DROP TABLE public.{}; COMMIT");
    let (ok, detail) = status(&mut scene.client, "attachments");
    let attachment = scene.number("SELECT id FROM webhook.attachments WHERE resource = '{}' AND NOT enabled");
    assert!(attachment > 0 && !ok && !detail.is_empty(), "{detail}");
    assert_eq!(scene.receiver.count(), 0, "the endpoint was not paused");
    scene.run("SELECT webhook_resume(id) FROM webhook.endpoints WHERE name = '{}'");
    scene.receiver.wait_for_rows(1..=1100, secs(20));
    scene.wait_for_deliveries("pending", 0);
    assert_eq!(scene.receiver.count(), 1100);
}

#[test]
fn status_says_that_all_is_well() {
    // A cluster of its own: dead deliveries and paused endpoints of other tests are not well.
    let cluster = Cluster::start(&[]);
    let mut scene = Scene::new(&cluster, "lifecycle_status", "", |_, _| Reply::ok());
    scene.fence(1);
    let rows = scene.client.query("SELECT check_name, ok, detail FROM webhook_status()", &[]).unwrap();
    assert!(!rows.is_empty(), "webhook_status() says nothing");
    let bad: Vec<String> = rows
        .iter()
        .filter(|row| !row.get::<_, bool>(1))
        .map(|row| format!("{}: {:?}", row.get::<_, String>(0), row.get::<_, Option<String>>(2)))
        .collect();
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}
