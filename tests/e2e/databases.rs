//! One worker for each database that has the extension, and none elsewhere.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::cluster::{Cluster, Stop};
use crate::os::kill;
use crate::receiver::Receiver;
use crate::scene::Scene;
use crate::site::{Site, run, status};
use crate::size::size;
use crate::wait::{holds, millis, secs, wait_until};
use crate::wire::Reply;

/// All databases are served, and changes that nobody announces are seen within a second.
const ALL: [(&str, &str); 2] = [("webhook_pg.databases", ""), ("webhook_pg.poll_interval", "1s")];

fn start(settings: &[(&str, &str)]) -> Cluster {
    Cluster::start(&[&ALL, settings].concat())
}

/// Process id of the launcher.
#[track_caller]
fn launcher(cluster: &Cluster) -> u32 {
    let query =
        "SELECT pid FROM pg_stat_activity WHERE backend_type = 'webhook_pg launcher' AND datname IS NULL";
    wait_until("the launcher shows in pg_stat_activity", secs(10), || {
        let rows = cluster.connect().query(query, &[]).map_err(|e| e.to_string())?;
        rows.first().map(|row| row.get::<_, i32>(0).unsigned_abs()).ok_or("no launcher".into())
    })
}

/// Lines of the log that hold this text.
fn lines(cluster: &Cluster, text: &str) -> usize {
    cluster.log().lines().filter(|line| line.contains(text)).count()
}

#[test]
fn the_extension_can_be_created_in_any_database_without_a_restart() {
    let cluster = start(&[]);
    let mut first = Scene::new(&cluster, "databases_first", "", |_, _| Reply::ok());
    let mut second = Site::new(&cluster, "second");
    second.deliver(1, secs(5));
    let mut third = Site::new(&cluster, "third");
    third.deliver(1, secs(5));
    first.fence(1);
    assert_eq!(cluster.served(), ["postgres", "second", "third"]);
    assert!(launcher(&cluster) > 0);
    for site in [&second, &third] {
        assert_eq!(site.receiver.rows(), [1], "{} got what is not its own", site.database);
    }
}

#[test]
fn dropping_the_extension_ends_its_worker_and_creating_it_starts_one_twenty_times() {
    let cluster = start(&[]);
    let mut site = Site::new(&cluster, "again");
    for round in 1..=20 {
        site.deliver(round, secs(5));
        site.run("DROP EXTENSION webhook_pg CASCADE");
        if round % 5 == 0 {
            cluster.wait_until_served(&["postgres"], secs(5));
        }
        site.run("DROP TABLE thing; CREATE EXTENSION webhook_pg");
        site.furnish("");
    }
    site.deliver(21, secs(5));
    let complains = |line: &&str| line.contains("webhook_pg") && !line.contains(" LOG: ");
    let complaints: Vec<String> = cluster.log().lines().filter(complains).map(str::to_owned).collect();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn an_extension_that_goes_with_its_owner_takes_its_worker_along() {
    let cluster = start(&[]);
    let mut client = cluster.connect();
    run(&mut client, "CREATE DATABASE owned");
    let mut client = cluster.connect_to("owned");
    run(&mut client, "CREATE ROLE boss SUPERUSER; SET ROLE boss; CREATE EXTENSION webhook_pg; RESET ROLE");
    cluster.wait_until_served(&["owned", "postgres"], secs(5));
    run(&mut client, "DROP OWNED BY boss CASCADE");
    cluster.wait_until_served(&["postgres"], secs(5));
}

#[test]
fn a_database_without_the_extension_is_looked_into_once_and_left_alone() {
    let cluster = start(&[]);
    let mut client = cluster.connect();
    run(&mut client, "CREATE DATABASE plain_one");
    run(&mut client, "CREATE DATABASE plain_two");
    // A database that appeared later was looked into later.
    let mut site = Site::new(&cluster, "served");
    site.deliver(1, secs(10));
    let query = "SELECT sum(xact_commit + xact_rollback)::bigint FROM pg_stat_database
                  WHERE datname IN ('plain_one', 'plain_two', 'template1')";
    let mut count = || client.query_one(query, &[]).unwrap().get::<_, i64>(0);
    wait_until("nobody enters them for three polls", secs(30), || {
        let before = count();
        std::thread::sleep(secs(3));
        let after = count();
        holds(before == after, || format!("{before} transactions became {after}"))
    });
    assert_eq!(cluster.served(), ["postgres", "served"]);
}

#[test]
fn only_the_databases_that_the_setting_names_are_served() {
    let cluster = start(&[]);
    let mut site = Site::new(&cluster, "named");
    site.deliver(1, secs(5));
    cluster.set("webhook_pg.databases", " named ,");
    cluster.wait_until_served(&["named"], secs(5));
    let (ok, detail) = status(&mut cluster.connect(), "worker");
    assert!(!ok && detail.contains("webhook_pg.databases does not name"), "{detail}");
    site.deliver(2, secs(5));
    cluster.set("webhook_pg.databases", "*");
    cluster.wait_until_served(&["named", "postgres"], secs(5));
}

#[test]
fn a_database_that_is_missing_or_closed_is_reported_once_a_minute_and_served_when_it_comes() {
    let names = "postgres, later, closed";
    let cluster = start(&[("webhook_pg.databases", names)]);
    let mut first = Scene::new(&cluster, "databases_first", "", |_, _| Reply::ok());
    first.fence(1);
    run(&mut first.client, "CREATE DATABASE closed ALLOW_CONNECTIONS false");
    wait_until("the status names both", secs(5), || {
        let (ok, detail) = status(&mut first.client, "databases");
        let both = detail.contains("later (does not exist)") && detail.contains("closed (does not allow");
        holds(!ok && both, || detail)
    });
    // Five polls long, or two minutes.
    std::thread::sleep(secs(size(5, 130)));
    first.fence(2);
    let told = lines(&cluster, "webhook_pg.databases");
    assert!(size(1..=1, 2..=3).contains(&told), "{told} lines:\n{}", cluster.log());
    assert_eq!(lines(&cluster, "webhook_pg worker FATAL: "), 0, "{}", cluster.log());

    let mut later = Site::new(&cluster, "later");
    later.deliver(1, secs(10));
    run(&mut first.client, "ALTER DATABASE closed ALLOW_CONNECTIONS true");
    run(&mut cluster.connect_to("closed"), "CREATE EXTENSION webhook_pg");
    cluster.wait_until_served(&["closed", "later", "postgres"], secs(10));
    assert!(status(&mut first.client, "databases").0);
    // What is closed under its worker is served again when it opens.
    run(&mut first.client, "ALTER DATABASE closed ALLOW_CONNECTIONS false");
    cluster.wait_until_served(&["later", "postgres"], secs(10));
    run(&mut first.client, "ALTER DATABASE closed ALLOW_CONNECTIONS true");
    cluster.wait_until_served(&["closed", "later", "postgres"], secs(10));
}

#[test]
fn without_a_background_worker_slot_writes_go_on_and_are_delivered_when_there_is_one() {
    // PostgreSQL's own logical replication launcher takes the first.
    for (max, sentence) in [("1", "The launcher does not run"), ("2", "raise max_worker_processes")] {
        let cluster = start(&[("max_worker_processes", max)]);
        let mut scene = Scene::new(&cluster, "databases_room", "", |_, _| Reply::ok());
        scene.insert(1..=20);
        wait_until("the status says why", secs(10), || {
            let (ok, detail) = status(&mut scene.client, "worker");
            holds(!ok && detail.contains(sentence), || detail)
        });
        std::thread::sleep(secs(size(3, 130)));
        let told = lines(&cluster, "raise max_worker_processes");
        // Without a launcher nobody is there to tell.
        let expected = if max == "1" { 0..=1 } else { size(1..=1, 2..=3) };
        assert!(expected.contains(&told), "{told} lines:\n{}", cluster.log());
        assert_eq!(scene.receiver.count(), 0);
        cluster.stop_server(Stop::Fast);
        cluster.change(&[("max_worker_processes", "8")]);
        cluster.start_server();
        scene.reconnect();
        scene.receiver.wait_for_rows(1..=20, secs(10));
        scene.wait_until_drained(secs(10));
    }
}

#[test]
fn a_terminated_worker_is_back_within_3_seconds_and_the_others_do_not_notice() {
    let cluster = start(&[]);
    let mut scene = Scene::new(&cluster, "databases_first", "", |_, _| Reply::ok());
    let mut site = Site::new(&cluster, "other");
    site.deliver(1, secs(5));
    let terminate = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                      WHERE backend_type = 'webhook_pg worker' AND datname = 'other'";
    let kept = cluster.worker();
    for round in 2..=size(12, 51) {
        cluster.wait_until_served(&["other", "postgres"], secs(3));
        if round % 2 == 0 {
            // Some in their first moments, some at work.
            std::thread::sleep(millis(300));
        }
        run(&mut scene.client, terminate);
        site.deliver(round, secs(3));
        scene.fence(round);
    }
    assert_eq!(cluster.worker(), kept, "the other worker was replaced");
}

#[test]
fn a_terminated_launcher_is_back_within_3_seconds_and_workers_go_on_meanwhile() {
    let cluster = start(&[]);
    let mut scene = Scene::new(&cluster, "databases_first", "", |_, _| Reply::ok());
    scene.fence(1);
    let worker = cluster.worker();
    for round in 2..=4 {
        let before = launcher(&cluster);
        kill("TERM", before);
        scene.fence(round);
        wait_until("another launcher runs", secs(3), || {
            let now = cluster.connect().query(
                "SELECT pid FROM pg_stat_activity WHERE backend_type = 'webhook_pg launcher' AND pid <> $1",
                &[&before.cast_signed()],
            );
            holds(now.is_ok_and(|rows| rows.len() == 1), || "none".to_owned())
        });
        let mut site = Site::new(&cluster, &format!("later{round}"));
        site.deliver(1, secs(5));
    }
    assert_eq!(cluster.worker(), worker, "the worker was replaced");
    // The new launcher starts workers that the old one had started.
    run(&mut scene.client, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'later2'");
    cluster.wait_until_served(&["later2", "later3", "later4", "postgres"], secs(3));
}

#[test]
fn after_a_crash_all_databases_are_served_within_3_seconds_of_the_server_being_ready() {
    let cluster = start(&[]);
    cluster.expect_crash();
    let mut scene = Scene::new(&cluster, "databases_first", "", |_, _| Reply::ok());
    let mut site = Site::new(&cluster, "other");
    for round in 1..=3 {
        site.deliver(round, secs(5));
        scene.fence(round);
        kill("KILL", if round == 2 { launcher(&cluster) } else { cluster.worker() });
        wait_until("the server is ready again", secs(20), || {
            let ready = lines(&cluster, "ready to accept connections");
            holds(ready > usize::try_from(round).unwrap(), || format!("{ready} times ready"))
        });
        let ready = Instant::now();
        scene.reconnect();
        site.client = cluster.connect_to("other");
        site.deliver(100 + round, secs(3));
        scene.insert([100 + round]);
        scene.receiver.wait_for_rows([100 + round], secs(3));
        assert!(ready.elapsed() <= secs(3), "it took {:?}", ready.elapsed());
        cluster.wait_until_served(&["other", "postgres"], secs(3));
    }
}

#[test]
fn a_standby_sends_nothing_and_serves_within_5_seconds_of_its_promotion() {
    let cluster = start(&[("webhook_pg.enabled", "off")]);
    let mut scene = Scene::new(&cluster, "databases_first", "", |_, _| Reply::ok());
    let mut site = Site::new(&cluster, "other");
    scene.insert(1..=50);
    site.insert(1..=50);
    cluster.stop_server(Stop::Fast);
    cluster.change(&[("webhook_pg.enabled", "on")]);
    cluster.make_standby();
    cluster.start_server();
    scene.reconnect();
    site.client = cluster.connect_to("other");
    let (ok, detail) = site.status("worker");
    assert!(ok && detail.contains("standby"), "{detail}");
    std::thread::sleep(secs(3));
    let mut processes = cluster.connect();
    let query = "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'webhook_pg%'";
    assert_eq!(processes.query_one(query, &[]).unwrap().get::<_, i64>(0), 0);
    assert_eq!(scene.receiver.count() + site.receiver.count(), 0);
    let promoted = Instant::now();
    run(&mut processes, "SELECT pg_promote()");
    scene.receiver.wait_for_rows(1..=50, secs(5));
    site.receiver.wait_for_rows(1..=50, secs(5).saturating_sub(promoted.elapsed()));
    scene.wait_until_drained(secs(10));
    assert_eq!(scene.receiver.duplicates() + site.receiver.duplicates(), 0);
}

/// Delivers rows one after the other, each within a second. Answers the longest wait but one in a hundred.
fn deliver_each(site: &mut Site<'_>, ids: std::ops::RangeInclusive<i64>) -> Duration {
    let mut waits: Vec<Duration> = ids
        .map(|id| {
            let started = Instant::now();
            site.deliver(id, secs(1));
            started.elapsed()
        })
        .collect();
    waits.sort();
    waits[waits.len() * 99 / 100]
}

#[test]
fn a_backlog_in_one_database_holds_up_no_other_nor_one_that_goes_nor_one_that_comes() {
    let backlog = size(20_000, 100_000);
    // Without fsync: the disk's moods are not what is timed.
    let cluster = start(&[("fsync", "off")]);
    let slow = Receiver::start(|_, _| Reply::ok().after(millis(5)));
    let mut busy = Site::with_receiver(&cluster, "busy", "", slow);
    let mut calm = Site::new(&cluster, "calm");
    let mut doomed = Site::new(&cluster, "doomed");
    doomed.deliver(1, secs(5));
    calm.deliver(1, secs(5));
    let n = size(50, 300);
    let alone = deliver_each(&mut calm, 2..=n);
    busy.insert(1..=backlog);
    busy.receiver.wait_for_answers(100, secs(60));
    let beside = deliver_each(&mut calm, n + 1..=2 * n);
    let took = doomed.alone("postgres", "DROP DATABASE doomed");
    assert!(took <= secs(2), "DROP DATABASE took {took:?}");
    let started = Instant::now();
    let mut later = Site::new(&cluster, "later");
    later.deliver(1, secs(10).saturating_sub(started.elapsed()));
    deliver_each(&mut calm, 2 * n + 1..=2 * n + 10);
    let delivered = busy.receiver.accepted().len();
    assert!(i64::try_from(delivered).unwrap() < backlog, "the backlog is gone, so this shows nothing");
    assert_eq!(calm.receiver.accepted(), (1..=2 * n + 10).collect::<BTreeSet<i64>>());
    assert_eq!(calm.receiver.duplicates() + later.receiver.duplicates(), 0);
    if size(false, true) {
        eprintln!("p99 from commit to answer: {alone:?} alone, {beside:?} beside a backlog of {backlog}");
        busy.receiver.wait_for_answers(usize::try_from(backlog).unwrap(), secs(600));
    }
}

#[test]
fn a_fast_stop_with_several_databases_at_work_takes_less_than_3_seconds() {
    // Without fsync: the disk's moods are not what is timed.
    let cluster = start(&[("fsync", "off")]);
    let sites: Vec<Site<'_>> = (1..=3)
        .map(|nth| {
            let receiver = Receiver::start(|_, _| Reply::Hang);
            let options = ", timeout => '60 s', max_in_flight => 64";
            let mut site = Site::with_receiver(&cluster, &format!("stop{nth}"), options, receiver);
            site.insert(1..=100);
            site.receiver.wait_for_hanging(32, secs(20));
            site
        })
        .collect();
    let started = Instant::now();
    cluster.stop_server(Stop::Fast);
    assert!(started.elapsed() <= secs(3), "a fast stop took {:?}", started.elapsed());
    drop(sites);
}
