//! Retention: what nobody needs any more goes by itself, and nothing else does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::cluster::Cluster;
use crate::receiver::Receiver;
use crate::scene::{Scene, register};
use crate::wait::{holds, secs, wait_until};
use crate::wire::Reply;

/// A cluster that keeps things for so long.
fn cluster(retention: &str, dead_retention: &str, max_backlog_age: &str) -> Cluster {
    Cluster::start(&[
        ("webhook_pg.retention", retention),
        ("webhook_pg.dead_retention", dead_retention),
        ("webhook_pg.max_backlog_age", max_backlog_age),
        ("webhook_pg.poll_interval", "100ms"),
    ])
}

const EVENTS: &str = "SELECT count(*) FROM webhook.outbox";
const DELIVERIES: &str = "SELECT count(*) FROM webhook.delivery";
const ATTEMPTS: &str = "SELECT count(*) FROM webhook.attempt";

/// Waits until a query answers this number.
#[track_caller]
fn wait_for(scene: &mut Scene<'_>, query: &str, expected: i64) {
    wait_until(&format!("{query} is {expected}"), secs(30), || {
        let n = scene.number(query);
        holds(n == expected, || format!("{n}; {}", report(scene)))
    });
}

/// What may hold the pruner up.
fn report(scene: &mut Scene<'_>) -> String {
    let query = "SELECT concat((SELECT json_agg(p) FROM webhook.position p), (SELECT json_agg(o.xid) FROM webhook.outbox o),
                               (SELECT json_agg(d.state) FROM webhook.delivery d WHERE state <> 'delivered'))";
    scene.client.query_one(query, &[]).map_or_else(|e| e.to_string(), |row| row.get(0))
}

/// Sends an event that is dropped from the outbox after it: the pruner has come by.
#[track_caller]
fn wait_for_pruner(scene: &mut Scene<'_>) {
    let query = "SELECT count(*) FROM webhook.idempotency";
    scene.run("SELECT webhook_send('a.b', '1', idempotency_key => clock_timestamp()::text)");
    wait_for(scene, query, 0);
}

#[test]
fn what_is_delivered_goes_when_its_time_has_come() {
    let cluster = cluster("1s", "30d", "30d");
    let options = ", retry_schedule => '{100 ms}'";
    let mut scene = Scene::new(&cluster, "kept_briefly", options, |_, nth| {
        Reply::status(if nth == 1 { 500 } else { 200 })
    });
    scene.insert(1..=1200);
    scene.receiver.wait_for_rows(1..=1200, secs(30));
    scene.run("SELECT webhook_send('a.b', '1', idempotency_key => 'once')");
    for query in [EVENTS, DELIVERIES, ATTEMPTS, "SELECT count(*) FROM webhook.idempotency"] {
        wait_for(&mut scene, query, 0);
    }
    assert_eq!(scene.receiver.accepted().len(), 1200);
}

#[test]
fn what_is_young_is_kept() {
    let cluster = cluster("1h", "1h", "1h");
    let mut scene = Scene::new(&cluster, "kept_long", "", |_, _| Reply::ok());
    scene.insert(1..=50);
    scene.wait_until_drained(secs(20));
    cluster.set("webhook_pg.retention", "1d");
    std::thread::sleep(secs(1));
    assert_eq!((scene.number(EVENTS), scene.number(DELIVERIES)), (50, 50));
}

#[test]
fn a_paused_endpoint_gets_everything_however_short_the_retention_is() {
    let cluster = cluster("0", "0", "30d");
    let mut scene = Scene::new(&cluster, "kept_paused", "", |_, _| Reply::ok());
    let witness = Receiver::start(|_, _| Reply::ok());
    register(&mut scene.client, "kept_paused_2", &witness.url(), "kept_paused.*", "");
    let endpoint = scene.endpoint;
    scene.client.execute("SELECT webhook_pause($1)", &[&endpoint]).unwrap();
    scene.insert(1..=300);
    witness.wait_for_rows(1..=300, secs(20));
    wait_for_pruner(&mut scene);
    assert!(scene.number(EVENTS) >= 300);
    scene.client.execute("SELECT webhook_resume($1)", &[&endpoint]).unwrap();
    scene.receiver.wait_for_rows(1..=300, secs(20));
    scene.insert([301]);
    scene.receiver.wait_for_rows([301], secs(20));
    wait_for(&mut scene, EVENTS, 0);
}

#[test]
fn a_pending_delivery_keeps_its_event_and_no_other() {
    let cluster = cluster("0", "0", "30d");
    let broken = Arc::new(AtomicBool::new(true));
    let switch = Arc::clone(&broken);
    let options = ", retry_schedule => '{1 h}'";
    let mut scene = Scene::new(&cluster, "kept_pending", options, move |request, _| {
        let fails = request.row() == Some(7) && switch.load(Ordering::Relaxed);
        Reply::status(if fails { 500 } else { 200 })
    });
    scene.insert(1..=300);
    scene.receiver.wait_for_rows((1..=300).filter(|id| *id != 7), secs(20));
    wait_for(&mut scene, EVENTS, 1);
    scene.wait_for_deliveries("pending", 1);
    broken.store(false, Ordering::Relaxed);
    scene.run("SELECT webhook_retry(id) FROM webhook.deliveries");
    scene.receiver.wait_for_rows(1..=300, secs(20));
    wait_for(&mut scene, EVENTS, 0);
    wait_for(&mut scene, DELIVERIES, 0);
}

#[test]
fn a_dead_delivery_can_be_retried_as_long_as_it_is_kept() {
    let cluster = cluster("0", "1h", "30d");
    let broken = Arc::new(AtomicBool::new(true));
    let switch = Arc::clone(&broken);
    let mut scene = Scene::new(&cluster, "kept_dead", ", max_attempts => 1", move |_, _| {
        Reply::status(if switch.load(Ordering::Relaxed) { 500 } else { 200 })
    });
    for id in 1..=2 {
        scene.insert([id]);
        scene.wait_for_deliveries("dead", id);
    }
    broken.store(false, Ordering::Relaxed);
    wait_for_pruner(&mut scene);
    scene.run("SELECT webhook_retry(min(id)) FROM webhook.deliveries WHERE state = 'dead'");
    scene.receiver.wait_for_rows([1], secs(20));
    wait_for(&mut scene, EVENTS, 1);
    cluster.set("webhook_pg.dead_retention", "0");
    for query in [DELIVERIES, EVENTS, ATTEMPTS] {
        wait_for(&mut scene, query, 0);
    }
}

#[test]
fn what_waits_too_long_is_announced_and_then_dropped_and_counted() {
    let cluster = cluster("0", "0", "1h");
    let mut scene = Scene::new(&cluster, "kept_backlog", "", |_, _| Reply::ok());
    let witness = Receiver::start(|_, _| Reply::ok());
    register(&mut scene.client, "kept_backlog_2", &witness.url(), "kept_backlog.*", "");
    let endpoint = scene.endpoint;
    scene.client.execute("SELECT webhook_pause($1)", &[&endpoint]).unwrap();
    scene.insert(1..=250);
    witness.wait_for_rows(1..=250, secs(20));
    let announced = "SELECT count(*) FROM webhook_status()
                      WHERE check_name = 'retention' AND NOT ok AND detail LIKE '%kept_backlog (%'";
    assert_eq!(scene.number(announced), 0);
    scene.run("UPDATE webhook.outbox SET occurred_at = occurred_at - interval '40 min'");
    assert_eq!(scene.number(announced), 1);
    assert_eq!(scene.number(EVENTS), 250);
    scene.run("UPDATE webhook.outbox SET occurred_at = occurred_at - interval '40 min'");
    wait_for(&mut scene, EVENTS, 0);
    let dropped = "SELECT events FROM webhook.dropped WHERE endpoint_id = (SELECT id FROM webhook.endpoints WHERE name = '{}')";
    assert_eq!(scene.number(dropped), 250);
    assert_eq!(scene.number("SELECT count(*) FROM webhook.dropped"), 1, "the other one has got them");
    assert_eq!(scene.number("SELECT dropped FROM webhook.stats WHERE endpoint = '{}'"), 250);
    let metrics: String = scene.client.query_one("SELECT webhook_metrics()", &[]).unwrap().get(0);
    let counted =
        format!(r#"webhook_pg_dropped_events_total{{endpoint="kept_backlog",endpoint_id="{endpoint}"}} 250"#);
    assert!(metrics.lines().any(|line| line == counted), "{counted} is missing:\n{metrics}");
    scene.client.execute("SELECT webhook_resume($1)", &[&endpoint]).unwrap();
    scene.insert([251]);
    scene.receiver.wait_for_rows([251], secs(20));
    assert_eq!(scene.receiver.count(), 1);
}

#[test]
fn a_transaction_that_holds_a_delivery_stops_neither_pruning_nor_the_worker() {
    let cluster = cluster("0", "0", "30d");
    let mut scene = Scene::new(&cluster, "kept_held", ", max_attempts => 1", |request, _| {
        Reply::status(if request.row() == Some(1) { 500 } else { 200 })
    });
    cluster.set("webhook_pg.dead_retention", "1h");
    scene.insert([1]);
    scene.wait_for_deliveries("dead", 1);
    let mut holder = cluster.connect();
    let mut open = holder.transaction().unwrap();
    open.execute("SELECT FROM webhook.delivery FOR UPDATE", &[]).unwrap();
    cluster.set("webhook_pg.dead_retention", "0");
    scene.insert(2..=100);
    scene.receiver.wait_for_rows(2..=100, secs(20));
    wait_for(&mut scene, EVENTS, 1);
    open.rollback().unwrap();
    wait_for(&mut scene, EVENTS, 0);
}

#[test]
fn an_endpoint_that_is_being_registered_gets_what_commits_meanwhile() {
    let cluster = cluster("0", "0", "30d");
    let mut scene = Scene::new(&cluster, "kept_new", "", |_, _| Reply::ok());
    let late = Receiver::start(|_, _| Reply::ok());
    let mut other = cluster.connect();
    let mut open = other.transaction().unwrap();
    let url = late.url();
    open.execute(
        "SELECT webhook_register(url => $1, events => '{kept_new.*}', name => 'kept_new_2', signature => 'none')",
        &[&url],
    )
    .unwrap();
    scene.insert(1..=20);
    scene.receiver.wait_for_rows(1..=20, secs(20));
    std::thread::sleep(secs(1));
    open.commit().unwrap();
    late.wait_for_rows(1..=20, secs(20));
}

#[test]
fn writers_do_not_notice_that_events_are_pruned() {
    const OLD: i64 = 10_000;
    // Autovacuum, which may cut off the end of a table under a lock of its own, is another matter.
    let cluster = Cluster::start(&[
        ("webhook_pg.retention", "1h"),
        ("webhook_pg.poll_interval", "100ms"),
        ("autovacuum", "off"),
    ]);
    let mut scene = Scene::new(&cluster, "kept_unlocked", "", |_, _| Reply::ok());
    scene.run(&format!("INSERT INTO public.{{}} SELECT n, 'note' FROM generate_series(1, {OLD}) AS n"));
    scene.receiver.wait_for_answers(usize::try_from(OLD).unwrap(), secs(60));
    scene.wait_until_drained(secs(30));
    // Only pruning writes to the outbox in the worker's name.
    let locks =
        "SELECT l.mode, l.granted, l.relation = 'webhook.outbox'::regclass, l.relation::regclass::text
                   FROM pg_catalog.pg_locks AS l JOIN pg_catalog.pg_stat_activity AS a USING (pid)
                  WHERE a.backend_type LIKE 'webhook\\_pg%' AND l.locktype = 'relation'";
    let harmless = ["AccessShareLock", "RowShareLock", "RowExclusiveLock"];
    let mut watcher = cluster.connect();
    scene.run("SET lock_timeout = '20 ms'");
    cluster.set("webhook_pg.retention", "0");
    let (mut id, mut samples) = (OLD, 0);
    wait_until("the old events are pruned", secs(60), || {
        id += 1;
        // An error, as of the lock_timeout, fails the test.
        scene.insert([id]);
        scene.run(&format!("UPDATE public.{{}} SET note = 'changed' WHERE id = {id}"));
        scene.run(&format!("DELETE FROM public.{{}} WHERE id = {}", id - OLD));
        for row in watcher.query(locks, &[]).map_err(|e| e.to_string())? {
            let (mode, granted, is_pruning): (String, bool, bool) = (row.get(0), row.get(1), row.get(2));
            let relation: String = row.get(3);
            assert!(granted && harmless.contains(&mode.as_str()), "{mode} on {relation}, granted: {granted}");
            samples += usize::from(is_pruning && mode == "RowExclusiveLock");
        }
        let left = scene.number(EVENTS);
        holds(left < OLD / 100, || format!("{left} events"))
    });
    assert!(samples > 0, "pruning was never seen, so this shows nothing");
    assert!(id > OLD + 10, "hardly anybody wrote, so this shows nothing");
}
