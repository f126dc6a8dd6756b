//! Commands that need a database for themselves, on a database that is served: the worker makes way.

use std::time::{Duration, Instant};

use crate::cluster::Cluster;
use crate::receiver::Receiver;
use crate::site::{Site, run};
use crate::size::size;
use crate::wait::{holds, millis, secs, wait_until};
use crate::wire::Reply;

/// No such command may take longer.
const LIMIT: Duration = secs(2);

/// Without fsync: the disk's moods are not what is timed.
fn start() -> Cluster {
    Cluster::start(&[("webhook_pg.databases", ""), ("fsync", "off")])
}

/// The same with a log in which [`starts`] shows.
fn start_watched() -> Cluster {
    Cluster::start(&[("webhook_pg.databases", ""), ("fsync", "off"), ("log_min_messages", "debug1")])
}

/// How many workers were started so far.
fn starts(cluster: &Cluster) -> usize {
    cluster.log().matches("starting background worker process \"webhook_pg worker").count()
}

/// What the log says of us, beside what it says to developers.
fn said(cluster: &Cluster) -> Vec<String> {
    let of_us = |line: &&str| line.contains("webhook_pg") && !line.contains(" DEBUG: ");
    cluster.log().lines().filter(of_us).map(str::to_owned).collect()
}

/// A served database whose requests hang.
fn hanging<'c>(cluster: &'c Cluster, name: &str) -> Site<'c> {
    let options = ", timeout => '60 s', max_in_flight => 64";
    let mut site = Site::with_receiver(cluster, name, options, Receiver::start(|_, _| Reply::Hang));
    site.insert(1..=100);
    site.receiver.wait_for_hanging(64, secs(20));
    site
}

#[test]
fn a_served_database_is_dropped_within_2_seconds_while_requests_hang() {
    let cluster = start();
    for (round, command) in
        ["DROP DATABASE doomed", "DROP DATABASE doomed WITH (FORCE)", "DROP DATABASE doomed"]
            .iter()
            .enumerate()
    {
        let mut site = hanging(&cluster, "doomed");
        let took = site.alone("postgres", command);
        assert!(took <= LIMIT, "{command} took {took:?} in round {round}");
        cluster.wait_until_served(&["postgres"], secs(5));
    }
    let log = cluster.log();
    let complaints: Vec<&str> =
        log.lines().filter(|line| line.contains("webhook_pg") && !line.contains(" LOG: ")).collect();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn a_served_database_is_renamed_and_moved_and_goes_on_delivering() {
    let cluster = start_watched();
    let place = cluster.home().join("place");
    run_as_owner("mkdir", &place);
    let mut site = Site::new(&cluster, "an_old_name");
    site.run(&format!("CREATE TABLESPACE place LOCATION '{}'", place.display()));
    site.deliver(1, secs(5));
    let steps = [
        ("a_new_name", "ALTER DATABASE an_old_name RENAME TO a_new_name"),
        ("a_new_name", "ALTER DATABASE a_new_name SET TABLESPACE place"),
        ("a_new_name", "ALTER DATABASE a_new_name SET TABLESPACE pg_default"),
        ("a_third_name", "DO 'BEGIN ALTER DATABASE a_new_name RENAME TO a_third_name; END'"),
    ];
    let said_before = said(&cluster).len();
    for (id, (name, command)) in (2..).zip(steps) {
        let before = starts(&cluster);
        // What ends before its answer was noted is sent again.
        site.wait_until_noted(secs(3));
        let took = site.alone(name, command);
        assert!(took <= LIMIT, "{command} took {took:?}");
        site.deliver(id, secs(3));
        cluster.wait_until_served(&[name, "postgres"], secs(3));
        assert_eq!(starts(&cluster) - before, 1, "workers were started after {command}");
    }
    let said = said(&cluster).split_off(said_before);
    assert!(said.len() <= 1, "more than a line within a minute:\n{}", said.join("\n"));
    assert_eq!(site.receiver.duplicates(), 0);
    site.alone("a_third_name", "DROP TABLESPACE place");
}

#[test]
fn a_renamed_database_that_the_setting_does_not_name_is_served_no_more() {
    let cluster = start();
    cluster.set("webhook_pg.databases", "postgres,known");
    let mut site = Site::new(&cluster, "known");
    site.deliver(1, secs(5));
    site.alone("unknown", "ALTER DATABASE known RENAME TO unknown");
    cluster.wait_until_served(&["postgres"], secs(3));
    site.insert(2..=2);
    site.alone("known", "ALTER DATABASE unknown RENAME TO known");
    site.receiver.wait_for_rows([2], secs(3));
}

#[test]
fn a_copy_of_a_served_database_sends_nothing_until_it_is_adopted() {
    let cluster = start_watched();
    let mut source = Site::new(&cluster, "source");
    source.deliver(1, secs(5));
    // Pending in both: the receiver gets them from the source alone.
    source.run("ALTER DATABASE source SET webhook_pg.context = ''; SELECT webhook_pause(1)");
    source.insert(2..=101);
    let (starts_before, said_before) = (starts(&cluster), said(&cluster).len());
    let took = source.alone("source", "CREATE DATABASE clone TEMPLATE source");
    assert!(took <= LIMIT, "the copy took {took:?}");
    let mut clone = cluster.connect_to("clone");
    let status = |client: &mut postgres::Client, check| crate::site::status(client, check);
    wait_until("the launcher has looked into the copy", secs(10), || {
        holds(cluster.log().contains("database \"clone\" is a copy"), || "nothing said".to_owned())
    });
    for check in ["clone guard", "worker"] {
        let (ok, detail) = status(&mut clone, check);
        assert!(!ok && detail.contains("copy"), "{check}: {detail}");
    }
    assert_eq!(cluster.served(), ["postgres", "source"]);
    run(&mut clone, "SELECT webhook_resume(1); INSERT INTO thing VALUES (1000, 'in the copy')");
    source.run("SELECT webhook_resume(1)");
    source.receiver.wait_for_rows(1..=101, secs(10));
    source.deliver(102, secs(5));
    assert_eq!(source.receiver.count(), 102, "something came twice");
    // One for the source, which made way, and one that looked into the copy; once more where an endpoint was changed.
    let started = starts(&cluster) - starts_before;
    assert!(started <= 3, "{started} workers were started");
    let said = said(&cluster).split_off(said_before);
    assert_eq!(said.len(), 1, "not just a line within a minute:\n{}", said.join("\n"));
    // From now on it is a database of its own.
    run(&mut clone, "SELECT webhook_adopt()");
    source.receiver.wait_for_rows([1000], secs(10));
    assert_eq!(cluster.served(), ["clone", "postgres", "source"]);
    assert!(status(&mut clone, "worker").0);
}

#[test]
fn a_command_that_fails_or_is_undone_leaves_the_database_served() {
    let cluster = start();
    let mut site = Site::new(&cluster, "kept");
    site.deliver(1, secs(5));
    let mut client = cluster.connect();
    // The session of the site is in the way.
    for command in ["DROP DATABASE kept", "ALTER DATABASE kept RENAME TO lost"] {
        let error = client.batch_execute(command).expect_err(command);
        assert_eq!(error.code().map(|code| code.code()), Some("55006"), "{command}: {error:?}");
        site.deliver(if command.starts_with("DROP") { 2 } else { 3 }, secs(3));
    }
    site.client = cluster.connect();
    run(&mut client, "BEGIN; ALTER DATABASE kept RENAME TO lost");
    cluster.wait_until_served(&["postgres"], secs(1));
    run(&mut client, "ROLLBACK");
    site.client = cluster.connect_to("kept");
    site.deliver(4, secs(3));
    // Not even begun.
    for command in ["BEGIN; DROP DATABASE kept", "ROLLBACK; DROP DATABASE nowhere"] {
        assert!(client.batch_execute(command).is_err());
    }
    site.deliver(5, secs(3));
}

#[test]
fn a_session_that_dies_in_the_middle_gives_the_database_back() {
    let cluster = start();
    let mut site = Site::new(&cluster, "given_back");
    site.deliver(1, secs(5));
    site.client = cluster.connect();
    let mut client = cluster.connect();
    run(&mut client, "BEGIN; ALTER DATABASE given_back RENAME TO lost");
    let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
    run(&mut cluster.connect(), &format!("SELECT pg_terminate_backend({pid})"));
    cluster.wait_until_served(&["given_back", "postgres"], secs(5));
}

#[test]
fn who_may_not_drop_or_copy_a_database_does_not_stop_its_worker() {
    let cluster = start();
    let mut site = Site::new(&cluster, "guarded");
    site.deliver(1, secs(5));
    let worker = |client: &mut postgres::Client| -> i32 {
        let query = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'webhook_pg worker' AND datname = 'guarded'";
        client.query_one(query, &[]).expect("the worker").get(0)
    };
    let mut client = cluster.connect();
    let before = worker(&mut client);
    run(&mut client, "CREATE ROLE stranger CREATEDB; SET ROLE stranger");
    for command in [
        "DROP DATABASE guarded",
        "DROP DATABASE guarded WITH (FORCE)",
        "ALTER DATABASE guarded RENAME TO mine",
        "ALTER DATABASE guarded SET TABLESPACE pg_global",
        "CREATE DATABASE mine TEMPLATE guarded",
    ] {
        let error = client.batch_execute(command).expect_err(command);
        assert_eq!(error.code().map(|code| code.code()), Some("42501"), "{command}: {error:?}");
    }
    run(&mut client, "RESET ROLE");
    assert_eq!(worker(&mut client), before);
    site.deliver(2, secs(3));
}

#[test]
fn databases_come_and_go_one_after_the_other_while_the_launcher_looks_into_them() {
    let settings = [("webhook_pg.databases", ""), ("webhook_pg.poll_interval", "100ms"), ("fsync", "off")];
    let cluster = Cluster::start(&settings);
    let mut client = cluster.connect();
    let place = cluster.home().join("place");
    run_as_owner("mkdir", &place);
    let create_tablespace = format!("CREATE TABLESPACE brief LOCATION '{}'", place.display());
    for round in 0..size(20, 50) {
        for command in [
            "CREATE DATABASE brief",
            "ALTER DATABASE brief RENAME TO short",
            "CREATE DATABASE brief TEMPLATE short",
            "DROP DATABASE brief",
            "DROP DATABASE short WITH (FORCE)",
            create_tablespace.as_str(),
            "DROP TABLESPACE brief",
        ] {
            let started = Instant::now();
            run(&mut client, command);
            let took = started.elapsed();
            // A copy takes its time on a busy machine; where we are in the way it fails after 5 seconds.
            let limit = if command.contains("TEMPLATE") { secs(5) } else { LIMIT };
            assert!(took <= limit, "{command} took {took:?} in round {round}");
            // Not a wait: it moves the next command to another moment of the launcher's.
            std::thread::sleep(millis(round % 20 * 7));
        }
    }
    assert_eq!(cluster.served(), ["postgres"]);
    assert!(!cluster.log().contains("ProcSignalBarrier"), "a backend waited for us");
}

#[test]
fn errors_of_other_commands_keep_every_field() {
    let mut client = Cluster::shared().connect();
    let error = client
        .batch_execute(
            "CREATE TEMPORARY TABLE keeps (id int CONSTRAINT keeps_id_small CHECK (id < 10));
             DO 'BEGIN INSERT INTO keeps VALUES (10); END'",
        )
        .expect_err("the row is refused");
    let error = error.as_db_error().expect("an error of the server");
    assert_eq!((error.table(), error.constraint()), (Some("keeps"), Some("keeps_id_small")));
}

fn run_as_owner(program: &str, argument: &std::path::Path) {
    crate::os::run(crate::os::as_owner(program).arg(argument));
}
