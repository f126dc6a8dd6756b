//! The rows that are there already, sent to an endpoint that comes later, while others write.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::cluster::Cluster;
use crate::receiver::Receiver;
use crate::scene::{Scene, register};
use crate::wait::{holds, secs, wait_until};
use crate::wire::Reply;

/// Who keeps the newest timestamp of a row holds the table.
#[test]
fn a_backfill_beside_writers_leaves_no_row_out_and_timestamps_tell_what_is_newer() {
    const ROWS: i64 = 2000;
    let cluster = Cluster::start(&[]);
    let mut scene = Scene::new(&cluster, "backfill", "", |_, _| Reply::ok());
    scene.run("INSERT INTO {} SELECT g, '0' FROM generate_series(1, 2000) g");
    let (stop, commits) = (AtomicBool::new(false), AtomicUsize::new(0));
    let wait_for_commits = |count: usize| {
        let aim = commits.load(Ordering::Relaxed) + count;
        wait_until("others have written", secs(60), || {
            let seen = commits.load(Ordering::Relaxed);
            holds(seen >= aim, || format!("{seen} of {aim} commits"))
        });
    };
    let (late, sent) = std::thread::scope(|threads| {
        for writer in 0..8 {
            let (cluster, stop, commits) = (&cluster, &stop, &commits);
            threads.spawn(move || {
                let mut client = cluster.connect();
                for n in (writer * 7919..).step_by(104_729) {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    // Some hold their change back for a while, before and after the backfill's snapshot.
                    let hold = if n % 5 == 0 { "SELECT pg_sleep(0.03);" } else { "" };
                    let (id, other) = (n % ROWS + 1, (n / 3) % ROWS + 1);
                    let written = client.batch_execute(&format!(
                        "BEGIN; UPDATE backfill SET note = note::int + 1 WHERE id = {id}; {hold}
                         DELETE FROM backfill WHERE id = {other} AND id % 3 = 0;
                         INSERT INTO backfill VALUES ({other}, '0') ON CONFLICT DO NOTHING; COMMIT"
                    ));
                    commits.fetch_add(usize::from(written.is_ok()), Ordering::Relaxed);
                }
            });
        }
        wait_for_commits(200);
        let late = Receiver::start(|_, _| Reply::ok());
        let mut client = cluster.connect();
        let (id, secret) = register(&mut client, "late", &late.url(), "backfill.*", "");
        late.trust(&secret);
        let sent: i64 = client.query_one("SELECT webhook_backfill('backfill', $1)", &[&id]).unwrap().get(0);
        wait_for_commits(200);
        stop.store(true, Ordering::Relaxed);
        (late, sent)
    });
    assert!(sent > ROWS / 2, "{sent} rows were there");
    wait_until("all is delivered to both", secs(60), || {
        let left = scene.number(
            "SELECT count(*) FROM webhook.outbox o, webhook.endpoint e
              WHERE (o.target IS NULL OR o.target = e.id) AND pg_visible_in_snapshot(o.xid, pg_current_snapshot())
                AND (e.name = 'backfill' OR o.target IS NOT NULL)
                AND NOT EXISTS (SELECT FROM webhook.delivery d WHERE d.event_id = o.id AND d.endpoint_id = e.id)",
        );
        let pending = scene.number("SELECT count(*) FROM webhook.deliveries WHERE state = 'pending'");
        holds(left + pending == 0, || format!("{left} not sent, {pending} pending"))
    });
    // A last change is the last thing that reaches the late endpoint, too.
    scene.run("INSERT INTO {} VALUES (0, 'fence')");
    late.wait_for_rows([0], secs(20));

    let newest = || {
        let mut rows: BTreeMap<i64, (String, Option<String>)> = BTreeMap::new();
        for request in late.requests() {
            let body = request.json();
            let (id, time) =
                (body["key"]["id"].as_i64().unwrap(), body["timestamp"].as_str().unwrap().to_owned());
            let gone = body["type"] == "backfill.deleted";
            let note = (!gone).then(|| body["data"]["note"].as_str().unwrap().to_owned());
            if rows.get(&id).is_none_or(|(known, _)| *known <= time) {
                rows.insert(id, (time, note));
            }
        }
        rows.into_iter().filter_map(|(id, (_, note))| Some((id, note?))).collect::<BTreeMap<_, _>>()
    };
    let table = scene.client.query("SELECT id, note FROM backfill", &[]).unwrap();
    let table: BTreeMap<i64, String> = table.iter().map(|row| (row.get(0), row.get(1))).collect();
    wait_until("the late endpoint holds the table", secs(20), || {
        let rows = newest();
        let wrong = table.iter().filter(|(id, note)| rows.get(id) != Some(note)).count();
        holds(rows == table, || format!("{} rows for {}, {wrong} wrong", rows.len(), table.len()))
    });
    let snapshots = late.requests().iter().filter(|r| r.json()["type"] == "backfill.snapshot").count();
    assert_eq!(i64::try_from(snapshots), Ok(sent));
    late.assert_all_signed();
}

#[test]
fn a_backfill_waits_for_transactions_that_write_to_the_table() {
    let mut scene = Scene::accepting("backfill_waits");
    let mut writer = scene.cluster.connect();
    writer.batch_execute("BEGIN; INSERT INTO backfill_waits VALUES (1, 'not committed yet')").unwrap();
    let endpoint = scene.endpoint;
    let mut client = scene.cluster.connect();
    let backfill = std::thread::spawn(move || -> i64 {
        client.query_one("SELECT webhook_backfill('backfill_waits', $1)", &[&endpoint]).unwrap().get(0)
    });
    wait_until("the backfill waits", secs(20), || {
        let waiting = scene.number(
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT webhook_backfill%' AND wait_event_type = 'Lock'",
        );
        holds(waiting == 1, || format!("{waiting} wait"))
    });
    writer.batch_execute("COMMIT").unwrap();
    assert_eq!(backfill.join().unwrap(), 1);
    scene.receiver.wait_for_answers(2, secs(10));
}
