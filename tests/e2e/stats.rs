//! webhook.stats, webhook.progress and the checks of webhook_status() that tell of endpoints and attachments.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::cluster::{Cluster, Stop};
use crate::receiver::Receiver;
use crate::scene::{Scene, register};
use crate::site::status;
use crate::wait::{holds, millis, secs, wait_until};
use crate::wire::Reply;

/// One figure of the scene's endpoint.
fn figure(scene: &mut Scene<'_>, column: &str) -> i64 {
    scene.number(&format!("SELECT ({column})::bigint FROM webhook.stats WHERE endpoint = '{{}}'"))
}

/// Everything that waits for the scene's endpoint.
fn backlog(scene: &mut Scene<'_>) -> i64 {
    figure(scene, "pending + lag_events")
}

fn pause(scene: &mut Scene<'_>) {
    scene.run("SELECT webhook_pause(id) FROM webhook.endpoints WHERE name = '{}'");
}

fn resume(scene: &mut Scene<'_>) {
    scene.run("SELECT webhook_resume(id) FROM webhook.endpoints WHERE name = '{}'");
}

#[test]
fn an_outcome_that_is_seen_is_counted() {
    let broken = Arc::new(AtomicBool::new(true));
    let switch = Arc::clone(&broken);
    let options = ", max_attempts => 2, attempt_interval => '100 ms'";
    let mut scene = Scene::new(Cluster::shared(), "stats_counted", options, move |_, _| {
        Reply::status(if switch.load(Ordering::Relaxed) { 500 } else { 200 })
    });
    scene.insert([1, 2]);
    scene.wait_for_deliveries("dead", 2);
    assert_eq!((figure(&mut scene, "failed_attempts"), figure(&mut scene, "dead")), (4, 2));
    broken.store(false, Ordering::Relaxed);
    for id in 3..=12 {
        scene.insert([id]);
        scene.wait_for_deliveries("delivered", id - 2);
        assert_eq!(figure(&mut scene, "delivered"), id - 2);
    }
    let fresh = "SELECT count(*) FROM webhook.stats WHERE endpoint = '{}' AND p50_ms > 0 AND p99_ms >= p50_ms
                    AND last_failure_at < last_success_at AND last_success_at > now() - interval '1 minute'";
    assert_eq!(scene.number(fresh), 1);
    assert_eq!(backlog(&mut scene), 0);
    scene.run("SELECT webhook_retry(id) FROM webhook.deliveries WHERE endpoint = '{}' AND state = 'dead'");
    scene.wait_for_deliveries("delivered", 12);
    assert_eq!((figure(&mut scene, "delivered"), figure(&mut scene, "dead")), (12, 0));
}

#[test]
fn figures_survive_the_worker_and_the_server() {
    let cluster = Cluster::start(&[]);
    let mut scene = Scene::new(&cluster, "stats_survive", "", |_, _| Reply::ok());
    scene.insert(1..=20);
    scene.wait_until_drained(secs(20));
    let old = cluster.worker();
    scene.client.execute("SELECT pg_terminate_backend($1)", &[&i32::try_from(old).unwrap()]).unwrap();
    wait_until("another worker serves", secs(20), || {
        holds(cluster.try_worker().is_some_and(|new| new != old), String::new)
    });
    scene.fence(21);
    scene.wait_for_deliveries("delivered", 21);
    assert_eq!(figure(&mut scene, "delivered"), 21);
    let saved = "SELECT delivered FROM webhook.endpoint_figures";
    wait_until("they are saved", secs(5), || {
        let seen = scene.number(saved);
        holds(seen == 21, || format!("{seen}"))
    });
    cluster.stop_server(Stop::Fast);
    cluster.start_server();
    scene.reconnect();
    assert_eq!(figure(&mut scene, "delivered"), 21);
    scene.fence(22);
    scene.wait_for_deliveries("delivered", 22);
    assert_eq!(figure(&mut scene, "delivered"), 22);
}

#[test]
fn the_backlog_is_what_the_endpoint_wants_and_nothing_when_it_is_drained() {
    let mut scene = Scene::new(Cluster::shared(), "stats_backlog", "", |_, _| Reply::ok());
    scene.insert(1..=5);
    scene.wait_until_drained(secs(20));
    assert_eq!((backlog(&mut scene), figure(&mut scene, "lag_seconds * 1000")), (0, 0));
    pause(&mut scene);
    scene.run("SELECT webhook_send('stats_other.created', '[]') FROM generate_series(1, 20)");
    assert_eq!(backlog(&mut scene), 0, "events of other types");
    scene.insert(6..=15);
    assert_eq!((figure(&mut scene, "lag_events"), figure(&mut scene, "pending")), (10, 0));
    wait_until("they grow old", secs(5), || {
        holds(figure(&mut scene, "lag_seconds * 1000") >= 200, String::new)
    });
    let mut open = scene.cluster.connect();
    open.batch_execute("BEGIN; INSERT INTO stats_backlog VALUES (100, 'not committed')").unwrap();
    scene.insert([16]);
    assert_eq!(backlog(&mut scene), 11);
    open.batch_execute("COMMIT").unwrap();
    assert_eq!(backlog(&mut scene), 12);
    resume(&mut scene);
    scene.receiver.wait_for_rows((6..=16).chain([100]), secs(20));
    scene.wait_until_drained(secs(20));
    assert_eq!(backlog(&mut scene), 0);
}

#[test]
fn the_backlog_knows_scopes_filters_and_events_for_one_endpoint() {
    let options = r#", scope => '{"note": "mine"}', filter => '$.data.id < 100'"#;
    let mut scene = Scene::new(Cluster::shared(), "stats_chosen", options, |_, _| Reply::ok());
    pause(&mut scene);
    scene.run("INSERT INTO {} SELECT n, CASE WHEN n % 2 = 0 THEN 'mine' ELSE 'other' END FROM generate_series(1, 200) AS n");
    assert_eq!(backlog(&mut scene), 49);
    scene.run("SELECT webhook_test(id) FROM webhook.endpoints WHERE name = '{}'");
    assert_eq!(backlog(&mut scene), 50);
    resume(&mut scene);
    scene.wait_for_deliveries("delivered", 50);
    assert_eq!(backlog(&mut scene), 0);
}

#[test]
fn an_endpoint_that_disabled_itself_has_no_backlog_of_that() {
    let receiver = Receiver::start(|_, _| Reply::status(410));
    let cluster = Cluster::start(&[]);
    let mut client = cluster.connect();
    register(&mut client, "stats_gone", &receiver.url(), "*", "");
    let query = "SELECT state, pending, lag_events FROM webhook.stats";
    client.batch_execute("SELECT webhook_send('a.created', '{}')").unwrap();
    wait_until("it is disabled", secs(20), || {
        let row = client.query_one(query, &[]).unwrap();
        let (state, pending, lag): (String, i64, i64) = (row.get(0), row.get(1), row.get(2));
        holds((state.as_str(), pending, lag) == ("disabled", 1, 0), || format!("{state} {pending} {lag}"))
    });
}

#[test]
fn requests_in_flight_are_seen_while_they_are() {
    let mut scene =
        Scene::new(Cluster::shared(), "stats_flying", ", max_in_flight => 3, timeout => '60 s'", |_, _| {
            Reply::Hang
        });
    scene.insert(1..=10);
    scene.receiver.wait_for_hanging(3, secs(20));
    wait_until("three are shown", secs(1), || {
        let seen = figure(&mut scene, "in_flight");
        holds(seen == 3, || format!("{seen}"))
    });
    assert_eq!(backlog(&mut scene), 10, "what is in flight waits, too");
    scene.receiver.release();
    scene.wait_until_drained(secs(20));
    wait_until("none is shown", secs(1), || holds(figure(&mut scene, "in_flight") == 0, String::new));
}

#[test]
fn a_large_backlog_is_seen_within_a_second_and_beyond_50_000_estimated() {
    const EVENTS: i64 = 200_000;
    let cluster = Cluster::start(&[("webhook_pg.enabled", "off"), ("shared_buffers", "256MB")]);
    let mut scene = Scene::new(&cluster, "stats_large", "", |_, _| Reply::ok());
    pause(&mut scene);
    scene.run("INSERT INTO {} SELECT n, 'note' FROM generate_series(1, 40000) AS n");
    assert_eq!(figure(&mut scene, "lag_events"), 40_000);
    // Of one transaction and of many.
    scene.run("INSERT INTO {} SELECT n, 'note' FROM generate_series(40001, 150000) AS n");
    scene.run("DO $$ BEGIN FOR part IN 15..19 LOOP
                   INSERT INTO {} SELECT n, 'note' FROM generate_series(part * 10000 + 1, part * 10000 + 10000) AS n; COMMIT;
               END LOOP; END $$");
    scene.run("ANALYZE webhook.outbox");
    let began = Instant::now();
    let seen = figure(&mut scene, "lag_events");
    let took = began.elapsed();
    assert!((EVENTS / 2..=EVENTS * 2).contains(&seen), "{seen} of {EVENTS}");
    assert!(took < secs(1), "it took {took:?}");
}

#[test]
fn stats_status_and_metrics_answer_on_a_standby_and_without_the_preload() {
    let cluster = Cluster::start(&[]);
    let mut scene = Scene::new(&cluster, "stats_standby", "", |_, _| Reply::ok());
    scene.insert(1..=3);
    scene.wait_until_drained(secs(20));
    pause(&mut scene);
    scene.insert([4, 5]);
    wait_until("figures are saved", secs(5), || {
        holds(
            scene.number("SELECT count(*) FROM webhook.endpoint_figures WHERE delivered = 3") == 1,
            String::new,
        )
    });
    let look = |scene: &mut Scene<'_>| {
        assert_eq!(
            (figure(scene, "delivered"), figure(scene, "lag_events"), figure(scene, "in_flight")),
            (3, 2, 0)
        );
        assert!(scene.number("SELECT count(*) FROM webhook_status()") > 10);
        assert_eq!(
            scene.number(
                "SELECT count(*) FROM webhook_metrics() AS m WHERE m LIKE '%webhook_pg_worker_up 0%'"
            ),
            1
        );
    };
    cluster.stop_server(Stop::Fast);
    cluster.make_standby();
    cluster.start_server();
    scene.reconnect();
    look(&mut scene);
    cluster.stop_server(Stop::Fast);
    cluster.change(&[("shared_preload_libraries", "")]);
    cluster.start_server();
    scene.reconnect();
    look(&mut scene);
}

#[test]
fn a_replay_and_a_backfill_show_how_far_they_have_come() {
    let mut scene = Scene::new(Cluster::shared(), "stats_progress", "", |_, _| Reply::ok());
    scene.insert(1..=8);
    scene.wait_until_drained(secs(20));
    pause(&mut scene);
    scene.run("SELECT webhook_replay(id, '-infinity') FROM webhook.endpoints WHERE name = '{}'");
    let endpoint = scene.endpoint;
    scene.client.execute("SELECT webhook_backfill('stats_progress', $1)", &[&endpoint]).unwrap();
    let query = "SELECT string_agg(format('%s %s %s %s', kind, events, done, waiting), ', ' ORDER BY id) FROM webhook.progress WHERE endpoint_id = $1";
    let progress =
        |scene: &mut Scene<'_>| -> String { scene.client.query_one(query, &[&endpoint]).unwrap().get(0) };
    assert_eq!(progress(&mut scene), "replay 8 0 8, backfill 8 0 8");
    let (ok, detail) = status(&mut scene.client, "progress");
    assert!(ok && detail.contains("replay for stats_progress: 0 of 8 events done"), "{detail}");
    assert_eq!(backlog(&mut scene), 16);
    resume(&mut scene);
    wait_until("both are done", secs(20), || {
        let seen = progress(&mut scene);
        holds(seen == "replay 8 8 0, backfill 8 8 0", || seen)
    });
}

#[test]
fn whoever_reads_stats_is_not_stopped_by_an_open_unregistration_nor_is_the_worker() {
    let mut scene = Scene::new(Cluster::shared(), "stats_held", "", |_, _| Reply::ok());
    let mut other = Scene::new(Cluster::shared(), "stats_free", "", |_, _| Reply::ok());
    scene.insert([1]);
    scene.wait_until_drained(secs(20));
    wait_until("figures are saved", secs(5), || {
        holds(scene.number("SELECT count(*) FROM webhook.endpoint_figures AS f JOIN webhook.endpoints AS e ON e.id = f.endpoint_id WHERE name = '{}'") == 1, String::new)
    });
    let mut open = scene.cluster.connect();
    open.batch_execute(
        "BEGIN; SELECT webhook_unregister(id) FROM webhook.endpoints WHERE name = 'stats_held'",
    )
    .unwrap();
    for id in 2..=30 {
        scene.insert([id]);
        other.insert([id]);
        std::thread::sleep(millis(50));
    }
    other.receiver.wait_for_rows(2..=30, secs(2));
    assert_eq!(figure(&mut scene, "1"), 1);
    open.batch_execute("ROLLBACK").unwrap();
    scene.wait_until_drained(secs(20));
    assert_eq!(figure(&mut scene, "delivered"), 30);
}

// ---- Checks ---------------------------------------------------------------------------------------------------------

#[test]
fn the_status_names_endpoints_that_the_egress_policy_refuses() {
    let cluster = Cluster::start(&[]);
    let mut scene = Scene::new(&cluster, "checks_egress", "", |_, _| Reply::ok());
    assert!(status(&mut scene.client, "egress").0);
    cluster.set("webhook_pg.egress_allow", "");
    wait_until("it is refused", secs(10), || {
        scene.run("INSERT INTO {} SELECT coalesce(max(id), 0) + 1, 'note' FROM {}");
        let (ok, detail) = status(&mut scene.client, "egress");
        holds(!ok && detail.contains("checks_egress (egress:"), || detail)
    });
}

#[test]
fn the_status_names_active_endpoints_that_lag_behind() {
    let mut scene = Scene::new(Cluster::shared(), "checks_lag", ", timeout => '60 s'", |_, _| Reply::Hang);
    scene.insert([1]);
    scene.receiver.wait_for_hanging(1, secs(10));
    // Time is on our side: the event says when it happened.
    scene.run(
        "UPDATE webhook.outbox SET occurred_at = now() - interval '2 minutes' WHERE type = '{}.created'",
    );
    let (ok, detail) = status(&mut scene.client, "lag");
    assert!(!ok && detail.contains("checks_lag (1 events"), "{detail}");
    scene.receiver.release();
    scene.wait_until_drained(secs(20));
    let (_, detail) = status(&mut scene.client, "lag");
    assert!(!detail.contains("checks_lag"), "{detail}");
}

#[test]
fn the_status_names_columns_of_attachments_that_are_gone() {
    let cluster = Cluster::start(&[]);
    let mut scene = Scene::new(&cluster, "checks_columns", "", |_, _| Reply::ok());
    scene.client.batch_execute("SELECT webhook_attach('checks_columns', exclude => '{note}')").unwrap();
    assert!(status(&mut scene.client, "columns").0);
    scene.run("ALTER TABLE {} RENAME COLUMN note TO remark");
    let (ok, detail) = status(&mut scene.client, "columns");
    assert!(!ok && detail.contains("checks_columns.note (exclude)"), "{detail}");
}

#[test]
fn the_status_names_what_bypasses_triggers() {
    let cluster = Cluster::start(&[]);
    let mut client = cluster.connect();
    client
        .batch_execute(
            "CREATE TABLE checks_root (id bigint PRIMARY KEY) PARTITION BY RANGE (id);
             CREATE TABLE checks_leaf PARTITION OF checks_root FOR VALUES FROM (0) TO (100);
             CREATE TABLE checks_parent (id bigint PRIMARY KEY);
             SELECT webhook_attach('checks_root'), webhook_attach('checks_parent')",
        )
        .unwrap();
    assert!(status(&mut client, "bypasses").0, "{}", status(&mut client, "bypasses").1);
    client
        .batch_execute(
            "ALTER TABLE checks_leaf DISABLE TRIGGER ALL;
             CREATE TABLE checks_child () INHERITS (checks_parent);
             ALTER ROLE postgres SET session_replication_role = replica;
             ALTER DATABASE postgres SET webhook_pg.mute = on",
        )
        .unwrap();
    let (ok, detail) = status(&mut client, "bypasses");
    assert!(!ok, "{detail}");
    for part in [
        "partition public.checks_leaf",
        "checks_child inherits from public.checks_parent",
        "session_replication_role=replica is set for role postgres",
        "webhook_pg.mute=on is set for every role in this database",
    ] {
        assert!(detail.contains(part), "{part} is missing: {detail}");
    }
}

#[test]
fn the_status_names_attachments_whose_triggers_are_disabled_or_dropped() {
    let cluster = Cluster::start(&[]);
    let mut scene = Scene::new(&cluster, "checks_triggers", "", |_, _| Reply::ok());
    assert!(status(&mut scene.client, "attachments").0);
    scene.run("ALTER TABLE {} DISABLE TRIGGER ALL");
    let (ok, detail) = status(&mut scene.client, "attachments");
    assert!(!ok && detail.contains("checks_triggers"), "{detail}");
    scene.run("ALTER TABLE {} ENABLE TRIGGER ALL");
    assert!(status(&mut scene.client, "attachments").0);
    scene.run("DROP TABLE {}");
    assert!(!status(&mut scene.client, "attachments").0);
}

#[test]
fn the_status_names_attachments_whose_condition_lost_its_column() {
    let cluster = Cluster::start(&[]);
    let mut scene = Scene::new(&cluster, "checks_condition", "", |_, _| Reply::ok());
    scene.run(
        "SELECT webhook_attach('{}', condition => $$NEW.note <> 'quiet'$$, actions => '{created,updated}')",
    );
    scene.run("INSERT INTO {} VALUES (1, 'quiet')");
    scene.fence(2);
    assert_eq!(scene.receiver.rows(), [2]);
    let drop = "ALTER TABLE checks_condition DROP COLUMN note";
    let error = scene.client.batch_execute(drop).expect_err("the condition needs the column");
    assert_eq!(error.code().map(|code| code.code()), Some("2BP01"));
    assert!(status(&mut scene.client, "attachments").0);
    scene.run(&format!("{drop} CASCADE"));
    let (ok, detail) = status(&mut scene.client, "attachments");
    assert!(!ok && detail.contains("checks_condition"), "{detail}");
    // Writers go on, and what the status says to do mends it.
    scene.run("INSERT INTO {} VALUES (3)");
    scene.run("SELECT webhook_attach('{}', actions => '{created,updated}')");
    assert!(status(&mut scene.client, "attachments").0);
    scene.run("INSERT INTO {} VALUES (4)");
    scene.receiver.wait_for_rows([4], secs(10));
    assert_eq!(scene.receiver.rows(), [2, 4]);
}

#[test]
fn the_status_names_endpoints_whose_secrets_are_missing() {
    let cluster = Cluster::start(&[]);
    let mut scene = Scene::new(&cluster, "checks_secrets", "", |_, _| Reply::ok());
    assert!(status(&mut scene.client, "secrets").0);
    scene.run("DELETE FROM webhook.endpoint_secret");
    let (ok, detail) = status(&mut scene.client, "secrets");
    assert!(!ok && detail.contains("checks_secrets"), "{detail}");
}
