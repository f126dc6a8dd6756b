//! pg_upgrade: nothing that waits is lost, and nothing is sent before webhook_adopt().
//!
//! `WEBHOOK_PG_UPGRADE_FROM` names the bin directory of an older PostgreSQL in which the same extension is installed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::cluster::{Cluster, Stop, server_bin};
use crate::os::run;
use crate::receiver::Receiver;
use crate::scene::{create_table, register};
use crate::site::{self, status};
use crate::size::not_tested;
use crate::wait::{holds, secs, wait_until};
use crate::wire::Reply;

const SETTINGS: [(&str, &str); 1] = [("webhook_pg.poll_interval", "1s")];

/// The script that CREATE EXTENSION runs in this PostgreSQL.
fn script(bin: &Path) -> Option<String> {
    let output = run(std::process::Command::new(bin.join("pg_config")).arg("--sharedir"));
    let share = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    std::fs::read_to_string(share.join(format!("extension/webhook_pg--{}.sql", env!("CARGO_PKG_VERSION"))))
        .ok()
}

/// What a program calls its version.
fn version(bin: &Path, name: &str) -> String {
    let output = run(std::process::Command::new(bin.join(name)).arg("--version"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_once(") ").map_or(text.clone(), |(_, version)| version.trim().to_owned())
}

#[test]
fn pg_upgrade_keeps_everything_that_waits_and_sends_nothing_before_it_is_adopted() {
    let new_bin = server_bin();
    let Some(old_bin) = std::env::var_os("WEBHOOK_PG_UPGRADE_FROM").map(PathBuf::from) else {
        return not_tested("pg_upgrade, because WEBHOOK_PG_UPGRADE_FROM names no older PostgreSQL");
    };
    if script(&old_bin) != script(&new_bin) {
        let old = old_bin.display();
        return not_tested(&format!("pg_upgrade, because {old} has another build of the extension"));
    }
    // pg_upgrade insists on a psql of its own version, which some packages go without.
    let [server, psql] = ["postgres", "psql"].map(|name| version(&new_bin, name));
    if server != psql {
        return not_tested(&format!(
            "pg_upgrade, because psql is of version {psql} and the server of {server}"
        ));
    }
    let old = Cluster::another_of(&old_bin, &SETTINGS);
    // Transaction ids beyond 32 bits: positions are full of them.
    run(old.program("pg_resetwal").args(["-e", "1", "-D"]).arg(old.data()));
    old.start_server();
    let mut client = old.connect();
    site::run(&mut client, "CREATE EXTENSION webhook_pg");
    let well = Arc::new(AtomicBool::new(false));
    let is_well = Arc::clone(&well);
    let receiver = Receiver::start(move |request, _| match request.row() {
        Some(id) if (500..510).contains(&id) && !is_well.load(Ordering::Relaxed) => Reply::status(500),
        _ => Reply::ok(),
    });
    create_table(&mut client, "upgraded");
    let options = ", retry_schedule => '{1h,1h,1h}'";
    for name in ["follows", "paused"] {
        let (_, secret) = register(&mut client, name, &receiver.url(), "upgraded.*", options);
        receiver.trust(&secret);
    }
    site::run(
        &mut client,
        "SELECT webhook_pause(2); INSERT INTO upgraded SELECT g, 'delivered' FROM generate_series(1, 50) g",
    );
    receiver.wait_for_rows(1..=50, secs(20));
    site::run(&mut client, "INSERT INTO upgraded SELECT g, 'pending' FROM generate_series(500, 509) g");
    wait_until("ten deliveries are pending", secs(20), || {
        let query = "SELECT count(*) FROM webhook.deliveries WHERE state = 'pending'";
        let n: i64 = client.query_one(query, &[]).map_err(|e| e.to_string())?.get(0);
        holds(n == 10, || format!("{n}"))
    });
    old.set("webhook_pg.enabled", "off");
    std::thread::sleep(secs(2));
    site::run(&mut client, "INSERT INTO upgraded SELECT g, 'in the outbox' FROM generate_series(100, 199) g");
    let xid = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint";
    let before: i64 = client.query_one(xid, &[]).unwrap().get(0);
    assert!(before > 1 << 32);
    old.stop_server(Stop::Fast);
    let requests = receiver.count();
    drop(client);

    let new = Cluster::another_of(&new_bin, &SETTINGS);
    // PostgreSQL 18 makes clusters with checksums, which the old one does not have.
    let _ = new.program("pg_checksums").args(["--disable", "--no-sync", "-D"]).arg(new.data()).output();
    let mut pg_upgrade = new.program("pg_upgrade");
    pg_upgrade.arg("-b").arg(&old_bin).arg("-B").arg(&new_bin).arg("-d").arg(old.data());
    pg_upgrade.arg("-D").arg(new.data()).args(["-U", "postgres", "--retain"]).env_remove("PGDATA");
    let upgraded = pg_upgrade.output().expect("pg_upgrade");
    if !upgraded.status.success() {
        let logs = run(crate::os::as_owner("find").arg(new.data()).args([
            "-name",
            "pg_upgrade_dump_*.log",
            "-exec",
            "grep",
            "-A5",
            "error:",
            "{}",
            "+",
        ]));
        panic!("{}{}", String::from_utf8_lossy(&upgraded.stdout), String::from_utf8_lossy(&logs.stdout));
    }
    // While pg_upgrade runs the servers the library does nothing.
    let log = run(crate::os::as_owner("find").arg(new.data()).args([
        "-name",
        "pg_upgrade_server.log",
        "-exec",
        "cat",
        "{}",
        "+",
    ]));
    let log = String::from_utf8_lossy(&log.stdout).into_owned();
    assert!(log.contains("starting PostgreSQL"), "no log of the servers");
    assert!(!log.contains("webhook_pg launcher") && !log.contains("webhook_pg worker"), "{log}");
    new.start_server();
    let mut client = new.connect();
    let after: i64 = client.query_one(xid, &[]).unwrap().get(0);
    assert!(after >= before, "the transaction ids went back from {before} to {after}");
    wait_until("the launcher has looked into it", secs(20), || {
        holds(new.log().contains("database \"postgres\" is a copy"), || "nothing said".to_owned())
    });
    assert!(!status(&mut client, "clone guard").0);
    // Writers do not wait for the operator.
    site::run(
        &mut client,
        "INSERT INTO upgraded SELECT g, 'before it is adopted' FROM generate_series(300, 309) g",
    );
    assert_eq!(receiver.count(), requests, "something was sent");

    well.store(true, Ordering::Relaxed);
    site::run(&mut client, "SELECT webhook_adopt()");
    receiver.wait_for_rows((100..200).chain(300..310), secs(30));
    site::run(&mut client, "SELECT webhook_retry(id) FROM webhook.deliveries WHERE state = 'pending'");
    receiver.wait_for_rows(500..510, secs(30));
    assert_eq!(receiver.duplicates(), 0);
    // The paused endpoint has the same ids for the same events, so it counts as duplicates: one each.
    site::run(&mut client, "SELECT webhook_resume(2); INSERT INTO upgraded VALUES (1000, 'after')");
    wait_until("the paused endpoint catches up", secs(30), || {
        let query = "SELECT count(*) FROM webhook.deliveries WHERE endpoint_id = 2 AND state = 'delivered'";
        let n: i64 = client.query_one(query, &[]).map_err(|e| e.to_string())?.get(0);
        holds(n == 171 && receiver.duplicates() >= 171, || format!("{n}"))
    });
    assert_eq!(receiver.duplicates(), 171);
    let log = new.log();
    assert!(!log.contains("ahead of the database"), "{log}");
    new.assert_calm();
}
