//! What the worker and the launcher cost when there is nothing to do.

use std::time::Duration;

use postgres::Client;

use crate::cluster::Cluster;
use crate::scene::Scene;
use crate::size::size;
use crate::wait::{holds, secs, wait_until};
use crate::wire::Reply;

/// Seconds of the default `poll_interval`.
const POLL: u64 = 5;

/// Processor time that a process has used so far, in hundredths of a second (`utime` and `stime` of proc(5)).
fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the worker's stat");
    // The name in brackets may contain anything.
    let fields: Vec<&str> = stat[stat.rfind(')').unwrap() + 2..].split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// End of the WAL, next transaction id, transactions so far.
fn footprint(client: &mut Client) -> (String, String, i64) {
    let query = "SELECT pg_catalog.pg_current_wal_insert_lsn()::text,
                        pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text,
                        xact_commit + xact_rollback
                   FROM pg_catalog.pg_stat_database WHERE datname = 'postgres'";
    let row = client.query_one(query, &[]).expect("the footprint");
    (row.get(0), row.get(1), row.get(2))
}

#[test]
fn an_idle_worker_takes_no_transaction_id_and_writes_no_wal() {
    // Whatever else writes WAL by itself is off: autovacuum, timed checkpoints, and the background writer's notes
    // for standbys, which wal_level = minimal spares.
    let cluster = Cluster::start(&[
        // The launcher looks at all databases.
        ("webhook_pg.databases", ""),
        ("autovacuum", "off"),
        ("checkpoint_timeout", "1h"),
        ("wal_level", "minimal"),
        ("max_wal_senders", "0"),
    ]);
    let mut scene = Scene::new(&cluster, "idle_worker", "", |_, _| Reply::ok());
    scene.insert(1..=50);
    scene.wait_until_drained(secs(20));
    let mut client = cluster.connect();
    // Else a later read could prune what the deliveries left behind, which writes WAL.
    client.batch_execute("VACUUM").unwrap();
    client.batch_execute("CHECKPOINT").unwrap();
    wait_until("it is quiet for two polls", secs(60), || {
        let before = footprint(&mut client);
        std::thread::sleep(secs(2 * POLL));
        let after = footprint(&mut client);
        holds((&before.0, &before.1) == (&after.0, &after.1), || format!("{before:?} became {after:?}"))
    });
    let worker = cluster.worker();
    let before = footprint(&mut client);
    let used = ticks(worker);
    let seconds = size(60, 300);
    std::thread::sleep(Duration::from_secs(seconds));
    let after = footprint(&mut client);
    let used = ticks(worker) - used;
    // A thousandth of one processor; five of them while other tests keep the caches of an unoptimised library cold.
    assert!(
        used <= size(seconds / 2, seconds / 10),
        "{used} hundredths of a second of processor time in {seconds} s"
    );
    assert_eq!(before.1, after.1, "the next transaction id moved");
    if before.0 != after.0 {
        let records = cluster.wal_records(&before.0, &after.0);
        // With checksums, the default since PostgreSQL 18, the first reader of a page after a checkpoint may write it.
        let is_hint = |line: &str| line.contains("FPI_FOR_HINT") || line.trim().is_empty();
        let only_hints = !records.trim().is_empty() && records.lines().all(is_hint);
        assert!(only_hints, "WAL was written:\n{records}");
    }
    let transactions = after.2 - before.2;
    // Two each poll, and one each minute that looks for what can be pruned.
    let limit = i64::try_from(2 * (seconds / POLL + 2) + seconds / 60 + 2).unwrap();
    assert!(transactions <= limit, "{transactions} transactions in {seconds} s without anything to do");
    // It was idle, not dead.
    scene.fence(51);
}
