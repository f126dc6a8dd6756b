//! SQL whose output is compared with files: `tests/pg_regress`, in the layout and the way of pg_regress, so that
//! `cargo pgrx regress` runs the same files. `UPDATE_EXPECTED=1` writes the expected files anew.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::cluster::{Cluster, server_bin};
use crate::os::forget_libpq_settings;

/// Database of the run.
const DATABASE: &str = "webhook_pg_regress";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pg_regress")
}

/// The tests in the order pg_regress gets them: `setup` first, the rest by name, all in one database.
fn tests() -> Vec<String> {
    let files = fs::read_dir(root().join("sql")).expect("tests/pg_regress/sql");
    let names = files.filter_map(|f| Some(f.ok()?.file_name().to_str()?.strip_suffix(".sql")?.to_owned()));
    let mut names: Vec<String> = names.collect();
    names.sort_by_key(|name| (name != "setup", name.clone()));
    names
}

/// psql of the PostgreSQL under test, or any other one: Debian's server packages go without.
pub fn psql() -> PathBuf {
    let own = server_bin().join("psql");
    if own.exists() {
        return own;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let debian = versions.filter_map(|entry| Some(entry.ok()?.path().join("bin")));
    let found = std::env::split_paths(&path).chain(debian).map(|dir| dir.join("psql")).find(|p| p.exists());
    found.expect("psql in WEBHOOK_PG_BIN, in PATH or under /usr/lib/postgresql")
}

/// What psql says to a file, with the environment and arguments of pg_regress and the terse messages of cargo pgrx.
fn output_of(cluster: &Cluster, name: &str) -> String {
    let input = fs::File::open(root().join("sql").join(format!("{name}.sql"))).expect("the test's file");
    let results = results_dir().join(format!("{name}.out"));
    let output = fs::File::create(&results).expect("the results file");
    let mut command = Command::new(psql());
    forget_libpq_settings(&mut command);
    command
        .args(["-X", "-a", "-q", "-d", DATABASE])
        .args(["-v", "HIDE_TABLEAM=on", "-v", "HIDE_TOAST_COMPRESSION=on", "-v", "VERBOSITY=terse"])
        .current_dir(root())
        .env("PGHOST", cluster.home())
        .env("PGUSER", "postgres")
        .env("PGAPPNAME", format!("pg_regress/{name}"))
        .env("PGTZ", "PST8PDT")
        .env("PGDATESTYLE", "Postgres, MDY")
        .env("PGOPTIONS", "-c intervalstyle=postgres_verbose")
        .env("LC_MESSAGES", "C")
        .env_remove("LC_ALL")
        .stdin(input)
        .stdout(output.try_clone().expect("the results file"))
        .stderr(output);
    command.status().expect("run psql");
    fs::read_to_string(results).expect("the results file")
}

fn results_dir() -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pg_regress");
    fs::create_dir_all(&dir).expect("a directory for results");
    dir
}

/// A unified diff, or nothing when they agree. As in pg_regress, `name_1.out` and so on are alternatives.
fn difference(name: &str, results: &str) -> Option<String> {
    let expected = root().join("expected");
    let files = std::iter::once(format!("{name}.out")).chain((0..10).map(|n| format!("{name}_{n}.out")));
    if files.map(|file| expected.join(file)).any(|path| fs::read_to_string(path).is_ok_and(|e| e == results))
    {
        return None;
    }
    let actual = results_dir().join(format!("{name}.out"));
    let mut diff = Command::new("diff");
    diff.args(["-U3", "-N"]).arg(expected.join(format!("{name}.out"))).arg(actual).stdin(Stdio::null());
    let diff = diff.output().map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
    Some(diff)
}

#[test]
fn sql_files_say_what_is_expected() {
    let cluster = Cluster::shared();
    let mut client = cluster.connect();
    client.batch_execute(&format!("CREATE DATABASE {DATABASE}")).unwrap();
    let mut diffs = String::new();
    for name in tests() {
        let results = output_of(cluster, &name);
        if std::env::var_os("UPDATE_EXPECTED").is_some() {
            let path = root().join("expected").join(format!("{name}.out"));
            fs::write(path, &results).expect("write the expected file");
        }
        diffs.extend(difference(&name, &results));
    }
    client.batch_execute(&format!("DROP DATABASE {DATABASE}")).unwrap();
    cluster.assert_calm();
    let path = results_dir().join("regression.diffs");
    fs::write(&path, &diffs).expect("write the differences");
    assert!(diffs.is_empty(), "not as expected (also in {}):\n{diffs}", path.display());
}

#[test]
fn the_sql_of_the_readme_and_of_the_docs_is_tested() {
    for (document, test) in [
        ("README.md", "readme"),
        ("docs/crm.md", "crm"),
        ("docs/formats.md", "formats"),
        ("docs/monitoring.md", "monitoring"),
        ("docs/selection.md", "selection"),
        ("docs/security.md", "security"),
    ] {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(document)).expect(document);
        let tested = fs::read_to_string(root().join(format!("sql/{test}.sql"))).expect(test);
        let mut rest = tested.as_str();
        for block in sql_blocks(&text) {
            let at = rest.find(&block);
            let at = at.unwrap_or_else(|| {
                panic!("{test}.sql does not have this block of {document}, or not here:\n{block}")
            });
            rest = &rest[at + block.len()..];
        }
    }
}

/// The contents of the fenced blocks marked `sql`.
pub fn sql_blocks(markdown: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut lines = markdown.lines();
    while let Some(line) = lines.next() {
        if line.trim_start() == "```sql" {
            let body: Vec<&str> = lines.by_ref().take_while(|l| l.trim_start() != "```").collect();
            blocks.push(body.join("\n"));
        }
    }
    blocks
}
