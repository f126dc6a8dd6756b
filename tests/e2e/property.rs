//! Random writers: whatever they do, what the receiver holds in the end is what the table holds, and what it got is what a ledger
//! holds that a trigger of plain PL/pgSQL kept in the writers' own transactions.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use postgres::Client;

use crate::cluster::Cluster;
use crate::scene::Scene;
use crate::wait::{millis, secs};
use crate::wire::Reply;

const WRITERS: usize = 32;
/// Few rows, so that the writers meet.
const ROWS: u64 = 60;

/// Committed with the change: its operation, its row, and the versions after and before it.
const LEDGER: &str = "
    CREATE TABLE property_ledger (operation text, id bigint, version bigint, old bigint);
    CREATE FUNCTION property_ledger() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF TG_OP = 'INSERT' THEN INSERT INTO property_ledger VALUES ('created', NEW.id, NEW.version, NULL);
        ELSIF TG_OP = 'UPDATE' THEN INSERT INTO property_ledger VALUES ('updated', NEW.id, NEW.version, OLD.version);
        ELSE INSERT INTO property_ledger VALUES ('deleted', OLD.id, NULL, OLD.version);
        END IF;
        RETURN NULL;
    END $$;
    CREATE TRIGGER ledger AFTER INSERT OR UPDATE OR DELETE ON {} FOR EACH ROW EXECUTE FUNCTION property_ledger()";

/// Operation, row, version after and before.
type Change = (String, i64, Option<i64>, Option<i64>);

/// How long they write. `WEBHOOK_E2E_PROPERTY_SECONDS` changes it.
fn duration() -> Duration {
    let given = std::env::var("WEBHOOK_E2E_PROPERTY_SECONDS").ok().and_then(|s| s.parse().ok());
    secs(given.unwrap_or(60))
}

/// SplitMix64, by Steele, Lea and Flood.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

/// One random change of one random row. Every version is used once.
fn change(dice: &mut Dice) -> String {
    let id = dice.below(ROWS);
    match dice.below(6) {
        0 => format!("DELETE FROM property WHERE id = {id}"),
        1 => format!(
            "INSERT INTO property VALUES ({id}, 'new', nextval('property_version')) ON CONFLICT DO NOTHING"
        ),
        2 => format!(
            "INSERT INTO property VALUES ({id}, 'upserted', nextval('property_version'))
             ON CONFLICT (id) DO UPDATE SET note = 'again', version = excluded.version"
        ),
        // A row that is in the way stays as it is: locked, not changed.
        3 => format!(
            "INSERT INTO property VALUES ({id}, 'new', nextval('property_version'))
             ON CONFLICT (id) DO UPDATE SET version = excluded.version WHERE false"
        ),
        4 => format!(
            "MERGE INTO property p USING generate_series({id}, {}) AS s (id) ON p.id = s.id
             WHEN MATCHED AND s.id % 3 = 0 THEN DELETE
             WHEN MATCHED THEN UPDATE SET version = nextval('property_version')
             WHEN NOT MATCHED AND s.id % 2 = 0 THEN DO NOTHING
             WHEN NOT MATCHED THEN INSERT VALUES (s.id, 'merged', nextval('property_version'))",
            id + 2
        ),
        _ => format!(
            "UPDATE property SET version = nextval('property_version') WHERE id BETWEEN {id} AND {}",
            id + 2
        ),
    }
}

/// A random transaction: savepoints, 30 % rollbacks, some in two phases. An error (a deadlock) rolls back.
fn transaction(client: &mut Client, dice: &mut Dice, name: &str) -> Result<(), postgres::Error> {
    client.batch_execute("BEGIN")?;
    for _ in 0..=dice.below(4) {
        let change = change(dice);
        match dice.below(10) {
            0..5 => client.batch_execute(&change)?,
            5..8 => client.batch_execute(&format!("SAVEPOINT s; {change}; ROLLBACK TO s"))?,
            _ => client.batch_execute(&format!("SAVEPOINT s; {change}; RELEASE s"))?,
        }
    }
    match dice.below(20) {
        0..6 => client.batch_execute("ROLLBACK"),
        6..8 => {
            client.batch_execute(&format!("PREPARE TRANSACTION '{name}'"))?;
            client.batch_execute(&format!("COMMIT PREPARED '{name}'"))
        }
        _ => client.batch_execute("COMMIT"),
    }
}

#[test]
fn random_writers_leave_the_receiver_with_exactly_what_they_committed_in_order_of_each_row() {
    let cluster = Cluster::start(&[("deadlock_timeout", "20ms"), ("max_prepared_transactions", "40")]);
    let mut scene = Scene::new(&cluster, "property", ", max_in_flight => 1", |_, _| Reply::ok());
    scene.run("ALTER TABLE {} ADD COLUMN version bigint; CREATE SEQUENCE property_version");
    scene.run(LEDGER);
    let (stop, commits) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|threads| {
        for writer in 0..WRITERS {
            let (cluster, stop, commits) = (&cluster, &stop, &commits);
            threads.spawn(move || {
                let (mut client, mut dice) = (cluster.connect(), Dice(writer as u64));
                while !stop.load(Ordering::Relaxed) {
                    match transaction(&mut client, &mut dice, &format!("writer {writer}")) {
                        Ok(()) => {
                            commits.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(_) => client.batch_execute("ROLLBACK").unwrap(),
                    }
                    std::thread::sleep(millis(20));
                }
            });
        }
        std::thread::sleep(duration());
        stop.store(true, Ordering::Relaxed);
    });
    // One request at a time, in order: this one comes last.
    scene.insert([1_000_000]);
    scene.receiver.wait_for_rows([1_000_000], secs(300));
    scene.wait_for_deliveries("pending", 0);

    let mut received: BTreeMap<Change, i64> = BTreeMap::new();
    let mut rows: BTreeMap<i64, i64> = BTreeMap::new();
    for (n, request) in scene.receiver.requests().iter().enumerate() {
        let body = request.json();
        let id = body["key"]["id"].as_i64().unwrap();
        let version = body["data"]["version"].as_i64().unwrap_or(0);
        let known = match body["type"].as_str().unwrap() {
            "property.created" => rows.insert(id, version).is_none(),
            "property.updated" => rows.insert(id, version) == body["previous"]["version"].as_i64(),
            "property.deleted" => rows.remove(&id) == Some(version),
            other => panic!("{other}"),
        };
        assert!(known, "request {n} does not follow from those before: {body}");
        let operation = body["type"].as_str().unwrap().trim_start_matches("property.").to_owned();
        let data = body["data"]["version"].as_i64();
        let change = match operation.as_str() {
            "deleted" => (operation, id, None, data),
            _ => (operation, id, data, body["previous"]["version"].as_i64()),
        };
        *received.entry(change).or_default() += 1;
    }
    let table = scene.client.query("SELECT id, coalesce(version, 0) FROM property", &[]).unwrap();
    let table: BTreeMap<i64, i64> = table.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(rows, table, "after {} requests", scene.receiver.count());
    let ledger = scene.client.query("SELECT operation, id, version, old FROM property_ledger", &[]).unwrap();
    let mut committed: BTreeMap<Change, i64> = BTreeMap::new();
    for row in &ledger {
        *committed.entry((row.get(0), row.get(1), row.get(2), row.get(3))).or_default() += 1;
    }
    let without = |some: &BTreeMap<Change, i64>, others: &BTreeMap<Change, i64>| -> Vec<(Change, i64)> {
        let missing = some.iter().map(|(change, n)| (change.clone(), n - others.get(change).unwrap_or(&0)));
        missing.filter(|(_, n)| *n > 0).collect()
    };
    let (lost, ghosts) = (without(&committed, &received), without(&received, &committed));
    assert!(lost.is_empty() && ghosts.is_empty(), "lost: {lost:?}\nghosts: {ghosts:?}");
    for operation in ["created", "updated", "deleted"] {
        assert!(committed.keys().any(|change| change.0 == operation), "nothing was {operation}");
    }
    assert_eq!(scene.receiver.duplicates(), 0);
    let commits = commits.load(Ordering::Relaxed);
    assert!(commits > 20 * WRITERS, "only {commits} transactions ended: this shows nothing");
    scene.receiver.assert_all_signed();
}
