//! A private PostgreSQL cluster: made for a test, gone after it, however the test ends.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, OnceLock};
use std::time::Duration;

use postgres::{Client, NoTls};

use crate::os::{as_owner, guard, kill, run};
use crate::wait::{holds, secs, wait_until};

/// Own clusters that run at once, beside the shared one.
const OWN_CLUSTERS: usize = 3;

/// How the server is stopped, in the words of `pg_ctl stop`.
#[derive(Debug, Clone, Copy)]
pub enum Stop {
    /// Sessions are ended, then a checkpoint: an orderly end.
    Fast,
    /// No checkpoint, nothing is flushed: what a power failure leaves.
    Immediate,
}

/// Settings of every cluster with the extension.
const PRELOADED: [(&str, &str); 4] = [
    ("shared_preload_libraries", "webhook_pg"),
    ("webhook_pg.databases", "postgres"),
    ("webhook_pg.allow_http", "on"),
    ("webhook_pg.egress_allow", "127.0.0.0/8"),
];

type Environment = Vec<(String, String)>;

/// A running cluster. It listens on a Unix socket in its own directory only, so no two can collide.
pub struct Cluster {
    bin: PathBuf,
    home: PathBuf,
    environment: Environment,
    crash_expected: AtomicBool,
    server: Mutex<Option<Child>>,
    guardian: Child,
    _slot: Option<Slot>,
}

impl Cluster {
    /// Starts a cluster with the extension preloaded and created in database `postgres`, with these lines of
    /// postgresql.conf on top. Waits for a free slot.
    pub fn start(settings: &[(&str, &str)]) -> Self {
        Self::with_extension(settings, Vec::new(), Some(Slot::take()))
    }

    /// The same with these variables in the environment of the server.
    pub fn start_with_environment(environment: &[(&str, &str)]) -> Self {
        let owned = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Self::with_extension(&[], owned.collect(), Some(Slot::take()))
    }

    /// Starts a cluster that knows nothing of the extension.
    pub fn plain() -> Self {
        Self::launch(&[], Vec::new(), Some(Slot::take()))
    }

    /// The cluster shared by all tests that do not hurt it.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        SHARED.get_or_init(|| Self::with_extension(&[], Vec::new(), None))
    }

    /// A second cluster of a test that has one, with a system identifier of its own: the extension is preloaded and created
    /// nowhere.
    pub fn another(settings: &[(&str, &str)]) -> Self {
        Self::another_of(&server_bin(), settings).started()
    }

    /// The same of this PostgreSQL, and down.
    pub fn another_of(bin: &Path, settings: &[(&str, &str)]) -> Self {
        let cluster = Self::empty(bin, Vec::new(), None);
        initdb(bin, &cluster.data());
        cluster.configure(&[&PRELOADED[..], settings].concat());
        cluster
    }

    /// A standby that follows this cluster, made by pg_basebackup.
    pub fn standby(&self, settings: &[(&str, &str)]) -> Self {
        let standby = Self::empty(&self.bin, Vec::new(), None);
        let mut pg_basebackup = standby.program("pg_basebackup");
        pg_basebackup.args(["-X", "stream", "-c", "fast", "--no-sync", "-R", "-U", "postgres", "-h"]);
        run(pg_basebackup.arg(&self.home).arg("-D").arg(standby.data()));
        standby.configure(settings);
        standby.started()
    }

    /// A cluster with a copy of the files of this one, which must be down.
    pub fn copy(&self, settings: &[(&str, &str)]) -> Self {
        let copy = Self::empty(&self.bin, Vec::new(), None);
        run(as_owner("cp").arg("-a").arg(self.data()).arg(copy.data()));
        copy.configure(settings);
        copy.started()
    }

    fn with_extension(settings: &[(&str, &str)], environment: Environment, slot: Option<Slot>) -> Self {
        let cluster = Self::launch(&[&PRELOADED[..], settings].concat(), environment, slot);
        cluster.connect().batch_execute("CREATE EXTENSION webhook_pg").expect("create the extension");
        cluster
    }

    /// A cluster of this PostgreSQL, with the extension preloaded and created in database `postgres`.
    pub fn start_of(bin: &Path, settings: &[(&str, &str)]) -> Self {
        let settings = [&PRELOADED[..], settings].concat();
        let cluster = Self::prepare(bin, &settings, Vec::new(), Some(Slot::take())).started();
        cluster.connect().batch_execute("CREATE EXTENSION webhook_pg").expect("create the extension");
        cluster
    }

    fn launch(settings: &[(&str, &str)], environment: Environment, slot: Option<Slot>) -> Self {
        Self::prepare(&server_bin(), settings, environment, slot).started()
    }

    /// A cluster that is down.
    fn prepare(bin: &Path, settings: &[(&str, &str)], environment: Environment, slot: Option<Slot>) -> Self {
        let cluster = Self::empty(bin, environment, slot);
        run(as_owner("cp").arg("-a").arg(fresh_data(bin)).arg(cluster.data()));
        cluster.configure(settings);
        cluster
    }

    /// A home without a data directory.
    fn empty(bin: &Path, environment: Environment, slot: Option<Slot>) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let home = std::env::temp_dir().join(format!("webhook_pg-e2e-{}-{number}", std::process::id()));
        run(as_owner("mkdir").arg("-m").arg("0755").arg(&home));
        let guardian = guard(bin, &home);
        Self {
            bin: bin.to_owned(),
            home,
            environment,
            crash_expected: AtomicBool::new(false),
            server: Mutex::new(None),
            guardian,
            _slot: slot,
        }
    }

    fn started(self) -> Self {
        self.start_server();
        self
    }

    /// What every cluster has, and these settings.
    fn configure(&self, settings: &[(&str, &str)]) {
        let home = self.home.to_str().expect("a temporary directory with a UTF-8 name");
        let base = [
            ("listen_addresses", ""),
            ("unix_socket_directories", home),
            ("shared_buffers", "16MB"),
            ("max_connections", "60"),
            ("max_prepared_transactions", "20"),
            ("log_line_prefix", "%m [%p] %b "),
        ];
        self.change(&base);
        self.change(settings);
    }

    /// Starts the server and waits until it accepts connections.
    pub fn start_server(&self) {
        let log = OpenOptions::new().create(true).append(true).open(self.home.join("log")).expect("the log");
        let mut postgres = self.program("postgres");
        postgres.envs(self.environment.iter().map(|(name, value)| (name, value)));
        // A process group of its own: an interrupt at the terminal ends the tests, and they end it.
        postgres.process_group(0).stdout(log.try_clone().expect("the log")).stderr(log);
        let mut server = self.server.lock().expect("the server");
        if let Some(mut killed) = server.take() {
            killed.wait().expect("reap the server");
        }
        let server = server.insert(postgres.spawn().expect("start postgres"));
        wait_until("the server accepts connections", secs(60), || {
            if let Ok(Some(status)) = server.try_wait() {
                panic!("the server does not start ({status}):\n{}", self.log());
            }
            self.try_connect().map(drop).map_err(|e| e.to_string())
        });
    }

    /// Stops the server and waits until it is gone.
    pub fn stop_server(&self, how: Stop) {
        let signal = match how {
            Stop::Fast => "INT",
            Stop::Immediate => "QUIT",
        };
        let mut server = self.server.lock().expect("the server");
        let mut process = server.take().expect("a server that runs");
        kill(signal, process.id());
        wait_until("the server is gone", secs(60), || match process.try_wait() {
            Ok(Some(_)) => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }

    /// Stops and starts the server.
    pub fn restart_server(&self, how: Stop) {
        self.stop_server(how);
        self.start_server();
    }

    /// Changes a setting of the running server for every session.
    pub fn set(&self, name: &str, value: &str) {
        let mut client = self.connect();
        let value = value.replace('\'', "''");
        client.batch_execute(&format!("ALTER SYSTEM SET {name} = '{value}'")).expect("ALTER SYSTEM");
        client.batch_execute("SELECT pg_catalog.pg_reload_conf()").expect("reload");
    }

    /// A session of the superuser in database `postgres`.
    #[track_caller]
    pub fn connect(&self) -> Client {
        self.try_connect().expect("connect")
    }

    /// The same in another database.
    #[track_caller]
    pub fn connect_to(&self, database: &str) -> Client {
        self.try_connect_to(database).unwrap_or_else(|e| panic!("connect to {database}: {e}"))
    }

    /// A session in database `postgres`, of a server that may be down.
    pub fn try_connect(&self) -> Result<Client, postgres::Error> {
        self.try_connect_to("postgres")
    }

    fn try_connect_to(&self, database: &str) -> Result<Client, postgres::Error> {
        Client::connect(&format!("host={} user=postgres dbname={database}", self.home.display()), NoTls)
    }

    /// Where its socket is.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Its data directory.
    pub fn data(&self) -> PathBuf {
        self.home.join("data")
    }

    /// A file that the server can read.
    pub fn write_file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.home.join(name);
        fs::write(&path, content).expect("write a file for the server");
        path
    }

    /// Process id of the postmaster.
    pub fn postmaster(&self) -> u32 {
        self.server.lock().expect("the server").as_ref().expect("a server that runs").id()
    }

    /// Process id of the worker, which may take a moment to show.
    #[track_caller]
    pub fn worker(&self) -> u32 {
        wait_until("a worker shows in pg_stat_activity", secs(20), || {
            self.try_worker().ok_or("no worker".into())
        })
    }

    /// Process id of the worker, if there is exactly one.
    pub fn try_worker(&self) -> Option<u32> {
        let query = "SELECT pid FROM pg_catalog.pg_stat_activity
                      WHERE backend_type = 'webhook_pg worker' AND datname = 'postgres'";
        match self.try_connect().ok()?.query(query, &[]).ok()?.as_slice() {
            [row] => Some(row.get::<_, i32>(0).unsigned_abs()),
            _ => None,
        }
    }

    /// The databases that a worker is in, in order.
    pub fn served(&self) -> Vec<String> {
        let query = "SELECT datname::text FROM pg_catalog.pg_stat_activity
                      WHERE backend_type = 'webhook_pg worker' ORDER BY datname";
        let rows = self.connect().query(query, &[]).expect("the workers");
        rows.iter().filter_map(|row| row.get::<_, Option<String>>(0)).collect()
    }

    /// Waits until exactly these databases, given in order, have a worker.
    #[track_caller]
    pub fn wait_until_served(&self, databases: &[&str], deadline: Duration) {
        wait_until(&format!("{databases:?} are served"), deadline, || {
            let served = self.served();
            holds(served == databases, || format!("{served:?}"))
        });
    }

    /// Appends to postgresql.conf, which the server reads when it starts; the last line for a name wins.
    pub fn change(&self, settings: &[(&str, &str)]) {
        let mut conf = String::new();
        for (name, value) in settings {
            conf.push_str(&format!("{name} = '{}'\n", value.replace('\'', "''")));
        }
        self.append("postgresql.conf", &conf);
    }

    /// The server, which must be down, comes up as a standby that follows nobody.
    pub fn make_standby(&self) {
        self.append("standby.signal", "");
    }

    fn append(&self, name: &str, text: &str) {
        let path = self.data().join(name);
        let file = OpenOptions::new().create(true).append(true).open(path);
        file.and_then(|mut file| file.write_all(text.as_bytes())).expect("write to the data directory");
    }

    /// A program of this PostgreSQL, run as the owner of the cluster, with PGDATA set.
    pub fn program(&self, name: &str) -> Command {
        let mut command = as_owner(self.bin.join(name));
        command.env("PGDATA", self.data()).current_dir(&self.home);
        command
    }

    /// The records between two places in the WAL, as text for people.
    pub fn wal_records(&self, from: &str, to: &str) -> String {
        let mut pg_waldump = self.program("pg_waldump");
        let output =
            pg_waldump.arg("-p").arg(self.data().join("pg_wal")).args(["-s", from, "-e", to]).output();
        output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default()
    }

    /// The server log so far.
    pub fn log(&self) -> String {
        fs::read(self.home.join("log")).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default()
    }

    /// From now on the log may say that a process was killed.
    pub fn expect_crash(&self) {
        self.crash_expected.store(true, Ordering::Relaxed);
    }

    /// Lines of the log that speak of a panic, or of a crash that no test caused.
    fn complaints(&self) -> String {
        let crash_expected = self.crash_expected.load(Ordering::Relaxed);
        let bad = |line: &&str| {
            line.contains(" PANIC: ")
                || line.contains("panicked")
                || (line.contains("was terminated by signal") && !crash_expected)
        };
        self.log().lines().filter(bad).collect::<Vec<_>>().join("\n")
    }

    /// Fails the test when the log has such lines.
    #[track_caller]
    pub fn assert_calm(&self) {
        let complaints = self.complaints();
        assert!(complaints.is_empty(), "the server log complains:\n{complaints}");
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let failed = std::thread::panicking();
        if failed {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!(
                "last lines of the server log:\n{}",
                lines[lines.len().saturating_sub(60)..].join("\n")
            );
        }
        if let Ok(Some(mut server)) = self.server.lock().map(|mut server| server.take()) {
            if server.try_wait().is_ok_and(|ended| ended.is_none()) {
                kill("QUIT", server.id());
            }
            let _ = server.wait();
        }
        let complaints = self.complaints();
        drop(self.guardian.stdin.take());
        let _ = self.guardian.wait();
        assert!(failed || complaints.is_empty(), "the server log complains:\n{complaints}");
    }
}

/// A data directory fresh from initdb, made once: copying it is a matter of milliseconds.
fn fresh_data(bin: &Path) -> PathBuf {
    static FRESH: Mutex<Vec<(PathBuf, PathBuf, Child)>> = Mutex::new(Vec::new());
    let mut fresh = FRESH.lock().expect("the fresh data directories");
    if let Some((_, home, _)) = fresh.iter().find(|(of, ..)| of == bin) {
        return home.join("data");
    }
    let name = format!("webhook_pg-e2e-{}-fresh{}", std::process::id(), fresh.len());
    let home = std::env::temp_dir().join(name);
    run(as_owner("mkdir").arg("-m").arg("0755").arg(&home));
    let guardian = guard(bin, &home);
    initdb(bin, &home.join("data"));
    fresh.push((bin.to_owned(), home.clone(), guardian));
    home.join("data")
}

fn initdb(bin: &Path, data: &Path) {
    let options = ["--no-sync", "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "-D"];
    run(as_owner(bin.join("initdb")).args(options).arg(data).current_dir("/"));
}

/// The bin directory of the PostgreSQL under test.
pub fn server_bin() -> PathBuf {
    if let Some(bin) = std::env::var_os("WEBHOOK_PG_BIN") {
        return bin.into();
    }
    let output = Command::new("pg_config").arg("--bindir").output().expect("WEBHOOK_PG_BIN or pg_config");
    String::from_utf8_lossy(&output.stdout).trim().into()
}

/// Leave to run an own cluster.
struct Slot;

static TAKEN: Mutex<usize> = Mutex::new(0);
static FREED: Condvar = Condvar::new();

impl Slot {
    fn take() -> Self {
        let taken = TAKEN.lock().expect("slots");
        let mut taken = FREED.wait_while(taken, |taken| *taken >= OWN_CLUSTERS).expect("slots");
        *taken += 1;
        Self
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Ok(mut taken) = TAKEN.lock() {
            *taken -= 1;
        }
        FREED.notify_one();
    }
}
