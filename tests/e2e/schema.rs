//! The installed schema: a committed picture of it, and upgrades that lead to it. `UPDATE_EXPECTED=1` draws the picture anew.
//!
//! Releasing a version adds one file, its install script, to `tests/data/released`; from then on every later version must have
//! an upgrade path from it (CONTRIBUTING.md).

use std::fs;
use std::path::{Path, PathBuf};

use crate::cluster::Cluster;
use crate::tree::Tree;

const QUERY: &str = include_str!("../data/schema.sql");

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// What the extension of this database consists of, a line each; the texts of functions and views if `whole`.
fn schema(cluster: &Cluster, database: &str, whole: bool) -> Vec<String> {
    let mut client = cluster.connect_to(database);
    client.batch_execute("SET search_path = pg_catalog").unwrap();
    client.query(QUERY, &[&whole]).expect("the schema").iter().map(|row| row.get(0)).collect()
}

/// The lines that only one of them has.
fn difference(fresh: &[String], other: &[String]) -> Vec<String> {
    let only = |mark: &'static str, of: &[String], in_other: &[String]| -> Vec<String> {
        of.iter().filter(|line| !in_other.contains(line)).map(|line| format!("{mark} {line}")).collect()
    };
    [only("-", fresh, other), only("+", other, fresh)].concat()
}

#[test]
fn a_fresh_installation_has_the_schema_that_is_expected() {
    // In a database of its own: other tests hand out rights.
    let cluster = Cluster::shared();
    let mut client = cluster.connect();
    client.batch_execute("CREATE DATABASE fresh_schema").unwrap();
    cluster.connect_to("fresh_schema").batch_execute("CREATE EXTENSION webhook_pg").unwrap();
    let found = schema(cluster, "fresh_schema", false);
    client.batch_execute("DROP DATABASE fresh_schema WITH (FORCE)").unwrap();
    let path = data("schema.txt");
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        fs::write(&path, found.join("\n") + "\n").expect("write the expected schema");
    }
    let expected: Vec<String> =
        fs::read_to_string(&path).unwrap_or_default().lines().map(str::to_owned).collect();
    let differences = difference(&expected, &found);
    assert!(
        differences.is_empty(),
        "not as in tests/data/schema.txt; if that is meant, write an upgrade script and run with UPDATE_EXPECTED=1:\n{}",
        differences.join("\n")
    );
}

/// Installs this version in a database of its own and upgrades it. Answers what is not as in a fresh installation.
fn upgrade(cluster: &Cluster, from: &str) -> Vec<String> {
    let database = format!("from_{}", from.replace(['.', '-'], "_"));
    cluster.connect().batch_execute(&format!("CREATE DATABASE {database}")).unwrap();
    let mut client = cluster.connect_to(&database);
    client
        .batch_execute(&format!("CREATE EXTENSION webhook_pg VERSION '{from}'"))
        .expect("install the old version");
    client.batch_execute("ALTER EXTENSION webhook_pg UPDATE").expect("upgrade it");
    difference(&schema(cluster, "postgres", true), &schema(cluster, &database, true))
}

#[test]
fn every_released_version_upgrades_to_what_a_fresh_installation_has() {
    let tree = Tree::copy("released");
    let (current, version) = tree.current();
    // So that the comparison is known to find what is missing: versions that were never released.
    tree.write(
        "webhook_pg--0.0.1.sql",
        &format!(
            "{current}\nDROP INDEX webhook.idempotency_by_age;
        ALTER TABLE webhook.dropped DROP COLUMN last_at; GRANT SELECT ON webhook.dropped TO PUBLIC;"
        ),
    );
    let good = "CREATE INDEX idempotency_by_age ON webhook.idempotency (created_at);
        ALTER TABLE webhook.dropped ADD COLUMN last_at timestamptz NOT NULL; REVOKE ALL ON webhook.dropped FROM PUBLIC;
        SELECT webhook.recheck();";
    tree.write(&format!("webhook_pg--0.0.1--{version}.sql"), good);
    tree.write("webhook_pg--0.0.2.sql", &format!("{current}\nDROP INDEX webhook.idempotency_by_age;
        GRANT SELECT ON webhook.dropped TO PUBLIC;
        CREATE OR REPLACE FUNCTION webhook.schema_version() RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 0';"));
    tree.write(&format!("webhook_pg--0.0.2--{version}.sql"), "SELECT 1;");
    let mut released = Vec::new();
    for entry in fs::read_dir(data("released")).into_iter().flatten().flatten() {
        let name = entry.file_name().into_string().expect("a name");
        let Some(old) = name.strip_prefix("webhook_pg--").and_then(|rest| rest.strip_suffix(".sql")) else {
            continue;
        };
        if old != version {
            tree.write(&name, &fs::read_to_string(entry.path()).expect("a released script"));
            released.push(old.to_owned());
        }
    }
    let cluster = Cluster::start_of(&tree.bin, &[]);

    let found = upgrade(&cluster, "0.0.1");
    assert!(found.is_empty(), "a complete upgrade differs:\n{}", found.join("\n"));
    let found = upgrade(&cluster, "0.0.2").join("\n");
    for missing in [
        "- index CREATE INDEX idempotency_by_age",
        "+ table webhook.dropped",
        "PUBLIC=SELECT",
        "schema_version",
    ] {
        assert!(found.contains(missing), "the comparison does not find {missing:?}:\n{found}");
    }
    for old in released {
        let found = upgrade(&cluster, &old);
        assert!(found.is_empty(), "an upgrade from {old} differs:\n{}", found.join("\n"));
    }
}
