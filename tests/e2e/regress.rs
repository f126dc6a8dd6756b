//! SQL whose output is compared with files: `tests/pg_regress`, in the layout and the way of pg_regress, so that
//! `cargo pgrx regress --postgresql-conf webhook_pg.allow_http=on` runs the same files. `UPDATE_EXPECTED=1` writes the
//! expected files anew, and before them those that are made from documents.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::cluster::{Cluster, server_bin};
use crate::documents::{documents, was_made};
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
    // Not the shared one: documents may change settings of the server.
    let cluster = Cluster::start(&[]);
    let mut client = cluster.connect();
    client.batch_execute(&format!("CREATE DATABASE {DATABASE}")).unwrap();
    if updating() {
        write_scripts();
    }
    let documents = documents();
    let mut diffs = String::new();
    for name in tests() {
        let results = output_of(&cluster, &name);
        if updating() {
            let path = root().join("expected").join(format!("{name}.out"));
            fs::write(path, &results).expect("write the expected file");
        }
        diffs.extend(difference(&name, &results));
        let document = documents.iter().find(|document| document.test == name);
        diffs.extend(document.into_iter().flat_map(|d| d.complaints(&results)).map(|c| c + "\n"));
    }
    cluster.assert_calm();
    let path = results_dir().join("regression.diffs");
    fs::write(&path, &diffs).expect("write the differences");
    assert!(diffs.is_empty(), "not as expected (also in {}):\n{diffs}", path.display());
}

fn updating() -> bool {
    std::env::var_os("UPDATE_EXPECTED").is_some()
}

/// The files that were made from documents, made anew.
fn write_scripts() {
    for name in tests() {
        let path = script_of(&name);
        if was_made(&fs::read_to_string(&path).expect("a script")) {
            fs::remove_file(path).expect("remove an old script");
            let _ = fs::remove_file(root().join("expected").join(format!("{name}.out")));
        }
    }
    for document in documents() {
        fs::write(script_of(&document.test), document.script()).expect("write a script");
    }
}

fn script_of(name: &str) -> PathBuf {
    root().join("sql").join(format!("{name}.sql"))
}

#[test]
fn the_sql_of_the_readme_and_of_all_docs_is_what_pg_regress_runs() {
    // They are being written at this moment.
    if updating() {
        return;
    }
    let documents = documents();
    for document in &documents {
        let script = fs::read_to_string(script_of(&document.test)).unwrap_or_default();
        assert!(
            script == document.script(),
            "{} changed: run this test file with UPDATE_EXPECTED=1 and look at what changed in tests/pg_regress",
            document.path
        );
    }
    for name in tests() {
        let made = was_made(&fs::read_to_string(script_of(&name)).expect("a script"));
        let has_document = documents.iter().any(|document| document.test == name);
        assert_eq!(made, has_document, "{name}.sql has lost its document, or a document took its name");
    }
}
