//! Copies of files, of databases, and what webhook_adopt() makes of what waits in them.

use postgres::Client;

use crate::cluster::{Cluster, Stop};
use crate::receiver::Receiver;
use crate::scene::Scene;
use crate::site::{Site, run, status};
use crate::wait::{holds, secs, wait_until};
use crate::wire::Reply;

const QUICK: [(&str, &str); 2] = [("webhook_pg.databases", ""), ("webhook_pg.poll_interval", "1s")];

fn number(client: &mut Client, query: &str) -> i64 {
    client.query_one(query, &[]).unwrap_or_else(|e| panic!("{query}: {e:?}")).get(0)
}

#[test]
fn a_copy_of_the_files_that_is_started_disabled_sends_nothing_and_can_let_the_backlog_go() {
    let source = Cluster::start(&[("webhook_pg.enabled", "off")]);
    let mut scene = Scene::new(&source, "copied", ", max_in_flight => 1", |_, _| Reply::ok());
    scene.insert(1..=50);
    source.stop_server(Stop::Fast);
    let copy = source.copy(&[("webhook_pg.enabled", "off"), ("webhook_pg.poll_interval", "100ms")]);
    let mut client = copy.connect();
    copy.worker();
    // Same system identifier, same oid: nothing in the files tells a copy from its origin.
    assert!(status(&mut client, "clone guard").0);
    assert!(!status(&mut client, "enabled").0);
    assert_eq!(number(&mut client, "SELECT count(*) FROM webhook.events"), 50);
    assert!(status(&mut client, "backlog").1.starts_with("50 events"));
    // Twenty polls, in which nothing may happen: there is no condition to wait for.
    std::thread::sleep(secs(2));
    assert_eq!(scene.receiver.count(), 0, "a disabled copy sent something");

    run(&mut client, "SELECT webhook_adopt(keep_backlog => false)");
    assert!(status(&mut client, "backlog").0);
    copy.set("webhook_pg.enabled", "on");
    run(&mut client, "INSERT INTO public.copied VALUES (1000, 'in the copy')");
    scene.receiver.wait_for_rows([1000], secs(20));
    assert_eq!(scene.receiver.rows(), [1000], "the copy sent what its origin will send");
    drop(copy);

    source.change(&[("webhook_pg.enabled", "on")]);
    source.start_server();
    scene.reconnect();
    scene.receiver.wait_for_rows(1..=50, secs(20));
    assert_eq!(scene.receiver.count(), 51);
}

#[test]
fn an_adopted_copy_of_a_database_sends_what_it_captured_itself_and_nothing_of_its_origin() {
    let cluster = Cluster::start(&QUICK);
    let receiver = Receiver::start(|request, _| match request.row() {
        Some(id) if (500..600).contains(&id) => Reply::status(500),
        _ => Reply::ok(),
    });
    let options = ", retry_schedule => '{1h}', max_in_flight => 1";
    let mut source = Site::with_receiver(&cluster, "source", options, receiver);
    source.deliver(1, secs(10));
    // A delivery that waits for its next attempt, and events that nobody has read.
    source.insert(500..=500);
    wait_until("a delivery is pending", secs(10), || {
        let n = number(&mut source.client, "SELECT count(*) FROM webhook.deliveries WHERE state = 'pending'");
        holds(n == 1, || format!("{n}"))
    });
    source.run("SELECT webhook_pause(1)");
    source.insert(2..=101);
    // A transaction of another database that is older than the copy and outlives it.
    let mut elsewhere = cluster.connect();
    run(&mut elsewhere, "CREATE TABLE elsewhere (id int); BEGIN; INSERT INTO elsewhere VALUES (1)");
    source.alone("source", "CREATE DATABASE clone TEMPLATE source");
    let before = source.receiver.count();
    let mut clone = cluster.connect_to("clone");
    run(&mut clone, "INSERT INTO thing VALUES (1000, 'in the copy'); SELECT webhook_resume(1)");
    run(&mut clone, "SELECT webhook_adopt()");
    source.receiver.wait_for_rows([1000], secs(20));
    run(
        &mut clone,
        "INSERT INTO thing VALUES (1001, 'afterwards'); SELECT webhook_retry(id) FROM webhook.deliveries",
    );
    source.receiver.wait_for_rows([1001], secs(20));
    let all = source.receiver.rows();
    assert_eq!(
        all[before..].iter().filter(|row| **row < 1000 && **row != 1 && **row != 500).count(),
        0,
        "{all:?}"
    );
    run(&mut elsewhere, "COMMIT");
    run(&mut clone, "INSERT INTO thing VALUES (1002, 'still')");
    source.receiver.wait_for_rows([1002], secs(20));
    // Unaffected.
    source.run("SELECT webhook_resume(1)");
    source.receiver.wait_for_rows(2..=101, secs(20));
    assert_eq!(source.receiver.rows().iter().filter(|row| (2..=101).contains(*row)).count(), 100);
    cluster.assert_calm();
}

#[test]
fn a_copy_that_takes_over_sends_the_backlog() {
    let cluster = Cluster::start(&QUICK);
    let mut source = Site::new(&cluster, "source");
    source.deliver(1, secs(10));
    source.run("SELECT webhook_pause(1)");
    source.insert(2..=50);
    source.alone("postgres", "CREATE DATABASE heir TEMPLATE source");
    source.run("DROP DATABASE source");
    let mut heir = cluster.connect_to("heir");
    run(&mut heir, "SELECT webhook_adopt(keep_backlog => true); SELECT webhook_resume(1)");
    source.receiver.wait_for_rows(1..=50, secs(20));
    assert_eq!(source.receiver.count(), 50);
}

#[test]
fn who_starts_at_the_present_forgets_what_waits_also_while_it_is_served() {
    let cluster = Cluster::start(&QUICK);
    let mut scene = Scene::new(&cluster, "present", ", max_in_flight => 1", |_, _| Reply::ok());
    scene.fence(1);
    let endpoint = scene.endpoint;
    scene.run(&format!("SELECT webhook_pause({endpoint})"));
    scene.insert(2..=20);
    scene.run("SELECT webhook_adopt(false)");
    scene.run(&format!("SELECT webhook_resume({endpoint})"));
    scene.insert([21]);
    scene.receiver.wait_for_rows([21], secs(20));
    assert_eq!(scene.receiver.rows(), [1, 21]);
}

#[test]
fn a_restored_cluster_of_the_same_database_goes_on_after_it_is_adopted() {
    // What pg_upgrade leaves: another system identifier, the same oid.
    let cluster = Cluster::start(&QUICK);
    let mut scene = Scene::new(&cluster, "moved", ", max_in_flight => 1", |_, _| Reply::ok());
    scene.fence(1);
    scene.run("UPDATE webhook.installation SET system_identifier = 1");
    wait_until("the worker has gone", secs(20), || {
        let (ok, detail) = status(&mut scene.client, "worker");
        holds(!ok && detail.contains("copy"), || detail)
    });
    scene.insert(2..=50);
    scene.run("SELECT webhook_adopt()");
    scene.receiver.wait_for_rows(2..=50, secs(20));
    assert_eq!(scene.receiver.rows(), (1..=50).collect::<Vec<i64>>());
}
