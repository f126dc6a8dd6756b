//! Rows that a subscription applies.

use crate::cluster::Cluster;
use crate::scene::Scene;
use crate::site::Site;
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

/// Two databases of one cluster, of which the second subscribes to all tables of the first. Both have the extension.
struct Pair<'c> {
    publisher: Site<'c>,
    subscriber: Site<'c>,
}

impl<'c> Pair<'c> {
    /// `before` runs in both databases, before the subscription.
    fn new(cluster: &'c Cluster, before: &str) -> Self {
        let mut publisher = Site::new(cluster, "publisher");
        let mut subscriber = Site::new(cluster, "subscriber");
        publisher.deliver(1, secs(20));
        publisher.run(before);
        subscriber.run(before);
        publisher.run("CREATE PUBLICATION everything FOR ALL TABLES");
        // Within one cluster CREATE SUBSCRIPTION would wait for itself: the slot is made beforehand.
        publisher.run("SELECT pg_create_logical_replication_slot('everything', 'pgoutput')");
        let home = cluster.home().display();
        subscriber.run(&format!(
            "CREATE SUBSCRIPTION everything CONNECTION 'host={home} user=postgres dbname=publisher' PUBLICATION everything
                 WITH (slot_name = 'everything', create_slot = false, copy_data = true)"
        ));
        Self { publisher, subscriber }
    }

    /// Waits until the subscriber has applied what the publisher has written.
    fn settle(&mut self, rows: i64) {
        wait_until("all tables are synchronised", secs(60), || {
            let query = "SELECT count(*) FROM pg_subscription_rel WHERE srsubstate <> 'r'";
            let n: i64 = self.subscriber.client.query_one(query, &[]).map_err(|e| e.to_string())?.get(0);
            holds(n == 0, || format!("{n} are not"))
        });
        wait_until("the rows are applied", secs(20), || {
            let query = "SELECT count(*) FROM thing";
            let n: i64 = self.subscriber.client.query_one(query, &[]).map_err(|e| e.to_string())?.get(0);
            holds(n == rows, || format!("{n} rows"))
        });
    }
}

impl Drop for Pair<'_> {
    fn drop(&mut self) {
        for statement in [
            "ALTER SUBSCRIPTION everything DISABLE",
            "ALTER SUBSCRIPTION everything SET (slot_name = NONE)",
            "DROP SUBSCRIPTION everything",
        ] {
            let _ = self.subscriber.client.batch_execute(statement);
        }
    }
}

#[test]
fn a_subscriber_to_all_tables_keeps_its_own_events_endpoints_and_positions() {
    let cluster = Cluster::start(&[
        ("wal_level", "logical"),
        ("webhook_pg.databases", ""),
        ("max_worker_processes", "20"),
        ("max_logical_replication_workers", "12"),
    ]);
    let mut pair = Pair::new(&cluster, "");
    pair.publisher.insert(2..=100);
    pair.publisher.receiver.wait_for_rows(2..=100, secs(20));
    pair.settle(100);
    // By default an applied row is no event; the publisher's events, endpoints and positions stay where they are.
    assert_eq!(pair.subscriber.receiver.count(), 0, "an applied row was sent");
    for query in ["webhook.events", "webhook.deliveries"] {
        let query = format!("SELECT count(*) FROM {query}");
        let n: i64 = pair.subscriber.client.query_one(&query, &[]).unwrap().get(0);
        assert_eq!(n, 0, "{query}");
    }
    assert!(pair.subscriber.status("clone guard").0, "the guard tripped");
    // Changes of everything that an installation has, on both sides.
    pair.publisher.run(
        "SELECT webhook_rotate_secret(1); SELECT webhook_update(1, '{\"name\": \"changed\"}'); SELECT webhook_pause(1);
         INSERT INTO thing VALUES (101, 'while it is paused'); SELECT webhook_send('thing.by_hand', '{}', idempotency_key => 'once');
         SELECT webhook_unregister(id) FROM webhook_register('https://example.com', '{*}', 'brief')",
    );
    pair.settle(101);
    let mut own = pair.subscriber.client.query("SELECT name, state FROM webhook.endpoints", &[]).unwrap();
    let own = own.remove(0);
    assert_eq!((own.get::<_, String>(0), own.get::<_, String>(1)), ("thing".to_owned(), "active".to_owned()));
    pair.subscriber.deliver(5000, secs(20));
    assert_eq!(pair.subscriber.receiver.rows(), [5000]);
    // Attached always, it captures what is applied, and sends it to its own endpoint.
    pair.subscriber.run("SELECT webhook_attach('thing', always => true)");
    pair.publisher.run("INSERT INTO thing SELECT g, 'always' FROM generate_series(200, 220) g");
    pair.subscriber.receiver.wait_for_rows(200..=220, secs(20));
    pair.subscriber.deliver(5001, secs(20));
    assert_eq!(pair.subscriber.receiver.count(), 23);
    pair.publisher.run("SELECT webhook_resume(1)");
    pair.publisher.deliver(300, secs(20));
    let bad: Vec<String> =
        cluster.log().lines().filter(|line| line.contains("ERROR")).map(str::to_owned).collect();
    assert!(bad.is_empty(), "applying fails:\n{}", bad.join("\n"));
}
