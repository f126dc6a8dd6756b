//! What waits while nothing is sent, or while somebody looks at an old snapshot.

use crate::cluster::Cluster;
use crate::scene::Scene;
use crate::size::size;
use crate::wait::{holds, millis, secs, wait_until};
use crate::wire::Reply;

#[test]
fn what_is_written_while_sending_is_off_is_delivered_when_it_is_on_again() {
    let rows = size(20_000, 100_000);
    // In full it is off for ten minutes.
    let pause = size(secs(0), millis(6000));
    let cluster = Cluster::start(&[("webhook_pg.enabled", "off")]);
    let mut scene = Scene::new(&cluster, "backlog_off", "", |_, _| Reply::ok());
    for first in (1..=rows).step_by(1000) {
        scene.run(&format!(
            "INSERT INTO public.{{}} SELECT g, 'while it is off' FROM generate_series({first}, {first} + 999) g"
        ));
        std::thread::sleep(pause);
    }
    assert_eq!(scene.receiver.count(), 0);
    cluster.set("webhook_pg.enabled", "on");
    scene.receiver.wait_for_rows(1..=rows, secs(240));
    scene.wait_until_drained(secs(20));
    assert_eq!(scene.receiver.duplicates(), 0);
}

#[test]
fn a_snapshot_that_is_held_stops_neither_delivery_nor_pruning_and_its_room_is_used_again() {
    let settings = [
        ("webhook_pg.retention", "1s"),
        ("webhook_pg.dead_retention", "1s"),
        ("webhook_pg.poll_interval", "100ms"),
        ("wal_level", "logical"),
    ];
    let cluster = Cluster::start(&settings);
    let mut scene = Scene::new(&cluster, "backlog_snapshot", "", |_, _| Reply::ok());
    scene.run("SELECT pg_create_logical_replication_slot('idle', 'pgoutput')");
    let mut holder = cluster.connect();
    holder
        .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM webhook.outbox")
        .unwrap();
    let round = |scene: &mut Scene<'_>, nth: i64| {
        let (first, last) = (nth * 2000 + 1, nth * 2000 + 2000);
        scene.run(&format!(
            "INSERT INTO public.{{}} SELECT g, 'note' FROM generate_series({first}, {last}) g"
        ));
        scene.receiver.wait_for_rows(first..=last, secs(30));
        wait_until("everything is pruned", secs(30), || {
            let n = scene.number(
                "SELECT (SELECT count(*) FROM webhook.outbox) + (SELECT count(*) FROM webhook.delivery)",
            );
            holds(n == 0, || format!("{n} rows"))
        });
    };
    for nth in 0..4 {
        round(&mut scene, nth);
    }
    let size = "SELECT pg_total_relation_size('webhook.outbox') + pg_total_relation_size('webhook.delivery')";
    let held = scene.number(size);
    holder.batch_execute("COMMIT").unwrap();
    scene.run("VACUUM webhook.outbox, webhook.delivery");
    for nth in 4..7 {
        round(&mut scene, nth);
        scene.run("VACUUM webhook.outbox, webhook.delivery");
    }
    let after = scene.number(size);
    assert!(after <= held, "{held} bytes became {after}");
    assert_eq!(scene.receiver.duplicates(), 0);
    scene.run("SELECT pg_drop_replication_slot('idle')");
}
