//! Rows that a subscription applies.

use crate::cluster::Cluster;
use crate::scene::Scene;
use crate::wait::{holds, secs, wait_until};
use crate::wire::Reply;
use postgres::{Client, NoTls};

#[test]
fn applied_rows_are_captured_where_attached_always_and_nowhere_else() {
    let cluster = Cluster::start(&[("wal_level", "logical")]);
    let mut scene = Scene::new(&cluster, "applied", ", max_in_flight => 1", |_, _| Reply::ok());
    scene.run(
        "CREATE TABLE quiet (id bigint PRIMARY KEY); SELECT webhook_attach('quiet', resource => 'applied')",
    );
    scene.run("SELECT webhook_attach('{}', always => true)");
    scene.run("CREATE DATABASE origin");
    let home = cluster.home().display();
    let mut origin = Client::connect(&format!("host={home} user=postgres dbname=origin"), NoTls).unwrap();
    origin
        .batch_execute(
            "CREATE TABLE applied (id bigint PRIMARY KEY, note text); CREATE TABLE quiet (id bigint PRIMARY KEY);
             CREATE PUBLICATION everything FOR ALL TABLES",
        )
        .unwrap();
    // Within one cluster CREATE SUBSCRIPTION would wait for itself: the slot is made beforehand.
    origin.batch_execute("SELECT pg_create_logical_replication_slot('applied', 'pgoutput')").unwrap();
    scene.run(&format!(
        "CREATE SUBSCRIPTION applied CONNECTION 'host={home} user=postgres dbname=origin' PUBLICATION everything
             WITH (slot_name = 'applied', create_slot = false, copy_data = false)"
    ));
    origin
        .batch_execute(
            "INSERT INTO quiet VALUES (1), (2);
             INSERT INTO applied VALUES (1, 'a'), (2, 'b');
             UPDATE applied SET note = 'c' WHERE id = 1;
             DELETE FROM applied WHERE id = 2",
        )
        .unwrap();
    scene.receiver.wait_for_answers(4, secs(30));
    wait_until("both tables are applied", secs(20), || {
        let rows = scene.number("SELECT count(*) FROM quiet");
        holds(rows == 2, || format!("{rows} rows"))
    });
    scene.fence(9);
    let types: Vec<String> =
        scene.receiver.requests().iter().map(|r| r.json()["type"].as_str().unwrap().to_owned()).collect();
    assert_eq!(
        types,
        ["applied.created", "applied.created", "applied.updated", "applied.deleted", "applied.created"]
    );
    for statement in [
        "ALTER SUBSCRIPTION applied DISABLE",
        "ALTER SUBSCRIPTION applied SET (slot_name = NONE)",
        "DROP SUBSCRIPTION applied",
    ] {
        scene.run(statement);
    }
}
