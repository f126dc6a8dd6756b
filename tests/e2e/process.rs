//! The worker as a process of the server: visible, quiet, quick to go.

use std::time::Instant;

use crate::cluster::{Cluster, Stop};
use crate::scene::Scene;
use crate::wait::{holds, secs, wait_until};
use crate::wire::Reply;

/// Numbers of HUP INT QUIT USR1 USR2 ALRM TERM CHLD URG: whatever PostgreSQL may send to a process.
const SIGNALS: [u32; 9] = [1, 2, 3, 10, 12, 14, 15, 17, 23];

#[test]
fn the_worker_shows_with_its_database() {
    // Cluster::worker looks for the backend type and the database.
    assert!(Cluster::shared().worker() > 0);
}

#[test]
fn threads_of_the_worker_block_all_signals() {
    let cluster = Cluster::start(&[]);
    let mut scene = Scene::new(&cluster, "process_signals", ", timeout => '60 s'", |_, _| Reply::Hang);
    scene.insert(1..=20);
    scene.receiver.wait_for_hanging(8, secs(20));
    let worker = cluster.worker();
    let mut threads = 0;
    for entry in std::fs::read_dir(format!("/proc/{worker}/task")).expect("the worker's threads") {
        let thread = entry.unwrap().file_name().into_string().unwrap();
        if thread == worker.to_string() {
            continue;
        }
        let status = std::fs::read_to_string(format!("/proc/{worker}/task/{thread}/status")).unwrap();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).expect("SigBlk");
        let mask = u64::from_str_radix(mask.trim(), 16).unwrap();
        let open: Vec<u32> = SIGNALS.into_iter().filter(|signal| mask & (1 << (signal - 1)) == 0).collect();
        assert!(open.is_empty(), "a thread takes signals {open:?}");
        threads += 1;
    }
    assert!(threads > 0, "the worker has no thread, so this shows nothing");
}

#[test]
fn a_fast_stop_does_not_wait_for_hanging_requests() {
    let cluster = Cluster::start(&[]);
    let options = ", timeout => '60 s', max_in_flight => 64";
    let mut scene = Scene::new(&cluster, "process_stop", options, |_, _| Reply::Hang);
    scene.insert(1..=100);
    scene.receiver.wait_for_hanging(64, secs(20));
    let started = Instant::now();
    cluster.stop_server(Stop::Fast);
    let took = started.elapsed();
    assert!(took <= secs(3), "a fast stop took {took:?}");
    cluster.start_server();
    scene.reconnect();
    scene.receiver.release();
    scene.wait_until_drained(secs(30));
    assert!(scene.receiver.duplicates() <= 64);
}

#[test]
fn a_signal_storm_hurts_nobody() {
    let cluster = Cluster::start(&[]);
    let mut scene = Scene::new(&cluster, "process_storm", "", |_, _| Reply::ok());
    scene.fence(1);
    let worker = cluster.worker();
    for id in 2..=200 {
        for signal in ["HUP", "USR1", "URG"] {
            crate::os::kill(signal, worker);
        }
        scene.insert([id]);
    }
    scene.wait_until_drained(secs(20));
    assert_eq!(cluster.worker(), worker, "the worker was replaced");
    assert_eq!(scene.receiver.duplicates(), 0);
}

#[test]
fn a_changed_setting_is_in_force_within_2_seconds() {
    let cluster = Cluster::start(&[]);
    let mut scene = Scene::new(&cluster, "process_reload", "", |_, _| Reply::ok());
    scene.fence(1);
    cluster.set("webhook_pg.enabled", "off");
    let off = Instant::now();
    // Whether the worker has noticed shows only in a row that is not sent.
    let mut id = 2;
    let quiet = loop {
        scene.insert([id]);
        std::thread::sleep(crate::wait::millis(500));
        if !scene.receiver.accepted().contains(&id) {
            break id;
        }
        assert!(off.elapsed() < secs(4), "it still sends {:?} after enabled was turned off", off.elapsed());
        id += 1;
    };
    cluster.set("webhook_pg.enabled", "on");
    scene.receiver.wait_for_rows([quiet], secs(2));
    scene.wait_until_drained(secs(10));
    assert_eq!(scene.receiver.duplicates(), 0);
}

#[test]
fn a_read_only_database_pauses_the_worker_and_nothing_is_lost() {
    let cluster = Cluster::start(&[("webhook_pg.poll_interval", "1s")]);
    let mut scene = Scene::new(&cluster, "process_read_only", "", |_, _| Reply::ok());
    scene.fence(1);
    scene.run("ALTER DATABASE postgres SET default_transaction_read_only = on");
    wait_until("the worker says that it pauses", secs(10), || {
        holds(cluster.log().contains("this database is read only"), || "it does not".to_owned())
    });
    // This session began before.
    scene.insert(2..=9);
    assert_eq!(scene.receiver.rows(), [1]);
    scene.run("ALTER DATABASE postgres RESET default_transaction_read_only");
    scene.receiver.wait_for_rows(2..=9, secs(20));
    scene.wait_until_drained(secs(20));
}

/// What pg_stat_activity says of a process: state, wait event, text.
fn activity(scene: &mut Scene<'_>, backend_type: &str) -> (String, String, String) {
    let query = "SELECT coalesce(state, ''), coalesce(wait_event, ''), query FROM pg_stat_activity WHERE backend_type = $1";
    let row = scene.client.query_one(query, &[&backend_type]).expect("one such process");
    (row.get(0), row.get(1), row.get(2))
}

#[test]
fn pg_stat_activity_says_what_the_worker_does_and_waits_for() {
    let cluster = Cluster::start(&[]);
    let mut scene = Scene::new(&cluster, "process_activity", ", timeout => '60 s'", |_, _| Reply::Hang);
    // From PostgreSQL 17 on extensions have wait events of their own.
    let has_names = scene.number("SELECT current_setting('server_version_num')::bigint") >= 170_000;
    let named = |name: &str| if has_names { name.to_owned() } else { "Extension".to_owned() };
    let expected = |state: &str, text: &str| (state.to_owned(), named("WebhookWorkerMain"), text.to_owned());
    let becomes = |scene: &mut Scene<'_>, wanted: (String, String, String)| {
        wait_until(&format!("it is {wanted:?}"), secs(10), || {
            let seen = activity(scene, "webhook_pg worker");
            holds(seen == wanted, || format!("{seen:?}"))
        });
    };
    becomes(&mut scene, expected("idle", "idle"));
    scene.insert(1..=3);
    scene.receiver.wait_for_hanging(3, secs(20));
    becomes(&mut scene, expected("active", "3 requests in flight"));
    scene.receiver.release();
    scene.wait_until_drained(secs(20));
    becomes(&mut scene, expected("idle", "idle"));
    let launcher = activity(&mut scene, "webhook_pg launcher");
    assert_eq!(launcher, ("idle".to_owned(), named("WebhookLauncherMain"), "databases served: 1".to_owned()));
}

#[test]
fn what_the_worker_writes_is_counted_within_2_seconds_and_vacuumed_by_autovacuum() {
    let cluster = Cluster::start(&[("autovacuum_naptime", "1s")]);
    let mut scene = Scene::new(&cluster, "process_pgstat", "", |_, _| Reply::ok());
    scene.run("INSERT INTO {} SELECT n, 'note' FROM generate_series(1, 3000) AS n");
    scene.wait_for_deliveries("delivered", 3000);
    let written = "SELECT n_tup_ins FROM pg_stat_user_tables WHERE relname = 'delivery'";
    wait_until("the statistics know of them", secs(2), || {
        let seen = scene.number(written);
        holds(seen >= 3000, || format!("{seen}"))
    });
    wait_until("autovacuum has come by", secs(60), || {
        let seen =
            scene.number("SELECT autovacuum_count FROM pg_stat_user_tables WHERE relname = 'delivery'");
        holds(seen >= 1, || format!("{seen}"))
    });
}
