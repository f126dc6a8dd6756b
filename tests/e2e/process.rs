//! The worker as a process of the server: visible, quiet, quick to go.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use crate::cluster::{Cluster, Stop};
use crate::name_server::{Say, with_name_server};
use crate::scene::{Scene, create_table, register};
use crate::size::size;
use crate::wait::{holds, millis, secs, wait_until};
use crate::wire::Reply;
use crate::writers::Writers;

/// Numbers of HUP INT QUIT USR1 USR2 ALRM TERM CHLD URG: whatever PostgreSQL may send to a process.
const SIGNALS: [u32; 9] = [1, 2, 3, 10, 12, 14, 15, 17, 23];

#[test]
fn the_worker_shows_with_its_database() {
    // Cluster::worker looks for the backend type and the database.
    assert!(Cluster::shared().worker() > 0);
}

/// Names of the threads of a process beside its main thread, each of which must block all signals: then PostgreSQL's handlers
/// run in the main thread and nowhere else.
#[track_caller]
fn threads_that_block_all_signals(process: u32) -> Vec<String> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/{process}/task")).expect("the threads of the process") {
        let thread = entry.unwrap().file_name().into_string().unwrap();
        if thread == process.to_string() {
            continue;
        }
        // It may end at any time.
        let Ok(status) = std::fs::read_to_string(format!("/proc/{process}/task/{thread}/status")) else {
            continue;
        };
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).expect(name).trim();
        let set = |name: &str| u64::from_str_radix(field(name), 16).expect("a set of signals");
        let (blocked, pending) = (set("SigBlk:"), set("SigPnd:"));
        let open: Vec<u32> = SIGNALS.into_iter().filter(|n| blocked & (1 << (n - 1)) == 0).collect();
        assert!(open.is_empty(), "thread {} takes signals {open:?}", field("Name:"));
        assert_eq!(pending, 0, "thread {} got signals of its own", field("Name:"));
        names.push(field("Name:").to_owned());
    }
    names
}

#[test]
fn threads_of_the_worker_block_all_signals() {
    let cluster = Cluster::start(&[]);
    let mut scene = Scene::new(&cluster, "process_signals", ", timeout => '60 s'", |_, _| Reply::Hang);
    scene.insert(1..=20);
    scene.receiver.wait_for_hanging(8, secs(20));
    let threads = threads_that_block_all_signals(cluster.worker());
    assert!(threads.len() >= 8, "{threads:?} do not carry 8 requests, so this shows nothing");
}

#[test]
fn a_thread_that_looks_up_a_name_blocks_all_signals() {
    with_name_server(
        |_, _| Say::Silence,
        |_| {
            let cluster = Cluster::start(&[]);
            let mut client = cluster.connect();
            create_table(&mut client, "lookup");
            register(&mut client, "lookup", "http://silent.example/", "lookup.*", ", timeout => '20 s'");
            client.batch_execute("INSERT INTO public.lookup VALUES (1)").unwrap();
            let worker = cluster.worker();
            wait_until("a name is looked up", secs(10), || {
                let threads = threads_that_block_all_signals(worker);
                holds(threads.iter().any(|name| name.starts_with("webhook_pg dns")), || {
                    format!("threads {threads:?}")
                })
            });
        },
    );
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
fn two_thousand_signals_to_a_busy_worker_hurt_nobody_and_one_that_ends_it_loses_nothing() {
    const COUNT: u32 = 2000;
    let storm = secs(size(0, 60));
    let cluster = Cluster::start(&[]);
    // 64 requests in flight at any time, for longer than the storm lasts.
    let slow = Arc::new(AtomicBool::new(true));
    let switch = Arc::clone(&slow);
    let options = ", max_in_flight => 64";
    let mut scene = Scene::new(&cluster, "process_storm", options, move |_, _| {
        Reply::ok().after(millis(if switch.load(Ordering::Relaxed) { 500 } else { 0 }))
    });
    // At 128 a second more than a storm of a minute needs.
    let waiting = 10_000;
    scene.run(&format!("INSERT INTO public.{{}} SELECT n, 'note' FROM generate_series(1, {waiting}) AS n"));
    scene.receiver.wait_for_answers(64, secs(20));
    let worker = cluster.worker();
    let started = Instant::now();
    for n in 0..COUNT {
        crate::os::kill(["HUP", "USR1", "URG"][n as usize % 3], worker);
        if n % 20 == 0 {
            let threads = threads_that_block_all_signals(worker);
            assert!(threads.len() >= 64, "only {} threads", threads.len());
        }
        std::thread::sleep((storm * n / COUNT).saturating_sub(started.elapsed()));
    }
    let delivered = scene.receiver.accepted().len();
    assert!(delivered < waiting, "nothing was on its way any more after {:?}", started.elapsed());
    assert_eq!(cluster.worker(), worker, "the worker was replaced");
    assert_eq!(scene.receiver.duplicates(), 0);
    crate::os::kill("TERM", worker);
    wait_until("another worker runs", secs(3), || {
        let now = cluster.try_worker();
        holds(now.is_some_and(|pid| pid != worker), || format!("{now:?}, was {worker}"))
    });
    slow.store(false, Ordering::Relaxed);
    scene.wait_until_drained(secs(60));
    let ledger = scene.ledger();
    assert_eq!((ledger.committed.len(), ledger.lost.len(), ledger.ghosts.len()), (waiting, 0, 0));
    assert!(ledger.duplicates <= 64, "{} duplicates", ledger.duplicates);
}

/// Has the server read its configuration a hundred times a second until it is dropped.
struct Reloads {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<u32>>,
}

impl Reloads {
    fn start(cluster: &Cluster) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, mut client) = (Arc::clone(&stop), cluster.connect());
        let thread = std::thread::spawn(move || {
            let started = Instant::now();
            let mut n = 0;
            while !stopped.load(Ordering::Relaxed) {
                client.batch_execute("SELECT pg_catalog.pg_reload_conf()").expect("reload");
                n += 1;
                std::thread::sleep((millis(10) * n).saturating_sub(started.elapsed()));
            }
            n
        });
        Self { stop, thread: Some(thread) }
    }

    /// Ends them; answers how many there were.
    fn stop(mut self) -> u32 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().expect("the thread").join().expect("the reloads")
    }
}

impl Drop for Reloads {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_changed_setting_is_in_force_within_2_seconds_in_a_storm_of_reloads() {
    let storm = secs(size(3, 30));
    let cluster = Cluster::start(&[]);
    let mut scene = Scene::new(&cluster, "process_reload", "", |_, _| Reply::ok());
    let writers = Writers::start(&scene, 2, "", millis(5));
    scene.receiver.wait_for_answers(50, secs(20));
    let reloads = Reloads::start(&cluster);
    let started = Instant::now();
    while started.elapsed() < storm {
        cluster.set("webhook_pg.enabled", "off");
        // That nothing is sent shows in time alone.
        std::thread::sleep(secs(2));
        let (sent, written) = (scene.receiver.count(), writers.acknowledged().len());
        std::thread::sleep(millis(500));
        assert!(writers.acknowledged().len() > written, "nobody writes, so this shows nothing");
        assert_eq!(scene.receiver.count(), sent, "it still sends 2 s after enabled was turned off");
        cluster.set("webhook_pg.enabled", "on");
        wait_until("it sends again", secs(2), || {
            holds(scene.receiver.count() > sent, || format!("{sent} requests"))
        });
    }
    let storm = u32::try_from(started.elapsed().as_millis()).unwrap();
    let reloads = reloads.stop();
    assert!(reloads >= storm / 20, "{reloads} reloads in {storm} ms are no storm");
    writers.stop();
    scene.wait_until_drained(secs(30));
    let ledger = scene.ledger();
    assert_eq!((ledger.lost.len(), ledger.ghosts.len(), ledger.duplicates), (0, 0, 0));
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
    // No poll comes to its aid.
    let cluster = Cluster::start(&[("autovacuum_naptime", "1s"), ("webhook_pg.poll_interval", "30s")]);
    let mut scene = Scene::new(&cluster, "process_pgstat", "", |_, _| Reply::ok());
    scene.run("INSERT INTO {} SELECT n, 'note' FROM generate_series(1, 10000) AS n");
    scene.receiver.wait_for_answers(10_000, secs(60));
    scene.wait_for_deliveries("delivered", 10_000);
    let written = "SELECT n_tup_ins FROM pg_stat_user_tables WHERE relname = 'delivery'";
    wait_until("the statistics know of them", secs(2), || {
        let seen = scene.number(written);
        holds(seen >= 10_000, || format!("{seen}"))
    });
    wait_until("autovacuum has come by", secs(60), || {
        let seen =
            scene.number("SELECT autovacuum_count FROM pg_stat_user_tables WHERE relname = 'delivery'");
        holds(seen >= 1, || format!("{seen}"))
    });
}
