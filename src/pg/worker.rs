//! The worker: the main thread that alone talks to PostgreSQL.
//!
//! It waits on its latch and on the bell of the HTTP threads, and does a round of the engine when either goes. It never
//! blocks on a thread, a channel or a receiver, checks for interrupts at every turn (a silent worker hangs DROP DATABASE
//! cluster-wide), and holds no transaction, snapshot or lock between rounds.
//!
//! ```text
//! started ──the extension is here, and is no copy──▶ serving ──read failed, read only──▶ paused ──▶ serving
//!    └──absent, a copy──▶ ended ◀──dropped, told to end──┘
//! ```
//!
//! It ends with exit code 0 where there is nothing to serve or somebody needs the database, by SIGTERM (`die`: FATAL), or with
//! the postmaster, never by joining threads. The launcher starts the next one.

use std::ffi::CStr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use pgrx::prelude::*;

use super::activity::Activity;
use super::board;
use super::health::Health;
use super::log::Log;
use super::presence::{endpoint_table, endpoint_table_after, is_own_installation, private_table};
use super::prune::Pruner;
use super::roster::State;
use super::statement::Statement;
use super::store::SpiStore;
use super::thread::{Bell, spawner};
use super::transaction::{accept_invalidations, transaction};
use super::wait::Waiter;
use super::{guc, key_file, roster, version, wake};
use crate::complaints::Patience;
use crate::engine::{Dispatcher, Turn};
use crate::event::Timestamp;
use crate::http::Pool;
#[cfg(not(feature = "pg18"))]
use pg_sys::pqsignal;
#[cfg(feature = "pg18")]
use pg_sys::pqsignal_be as pqsignal;

/// Oid of `webhook.endpoint` of the extension that is being served, 0 when none is.
static ENDPOINT_TABLE: AtomicU32 = AtomicU32::new(0);
/// The same of `webhook.installation`, which a restore loads after the endpoints.
static INSTALLATION_TABLE: AtomicU32 = AtomicU32::new(0);
/// The catalogs say that `webhook.endpoint` changed: its rows (webhook.changed() says so), or the table itself.
static ENDPOINTS_CHANGED: AtomicBool = AtomicBool::new(true);

/// What pg_stat_activity shows as `backend_type`.
pub const WORKER_TYPE: &str = "webhook_pg worker";

type Engine = Dispatcher<SpiStore, Pool>;

// PostgreSQL's own handlers, as C functions: what pgrx offers under these names cannot be installed as a handler. And
// proc_exit, which its bindings of PostgreSQL 18 take for a function that returns.
unsafe extern "C-unwind" {
    fn proc_exit(code: std::ffi::c_int) -> !;
    fn die(signal: std::ffi::c_int);
    fn SignalHandlerForConfigReload(signal: std::ffi::c_int);
}

/// Installs the handlers of a background process of ours, and lets signals in.
pub(super) fn handle_signals() {
    // SAFETY: PostgreSQL's own handlers, or one that calls them.
    unsafe {
        pqsignal(libc::SIGHUP, Some(SignalHandlerForConfigReload));
        pqsignal(libc::SIGTERM, Some(on_sigterm));
        pg_sys::BackgroundWorkerUnblockSignals();
    }
}

unsafe extern "C-unwind" fn on_sigterm(signal: std::ffi::c_int) {
    roster::terminated();
    // SAFETY: PostgreSQL's own handler of this signal.
    unsafe { die(signal) };
}

/// Entry point of the worker process.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn webhook_pg_worker_main(argument: pg_sys::Datum) {
    let Some(database) = roster::claim(argument.value() as u64) else { end() };
    handle_signals();
    // SAFETY: the first steps of every background worker, in this order.
    unsafe {
        pg_sys::BackgroundWorkerInitializeConnectionByOid(database, pg_sys::InvalidOid, 0);
        pg_sys::CacheRegisterRelcacheCallback(Some(on_relation_changed), pg_sys::Datum::from(0usize));
    }
    pin_session(c"webhook_pg worker");
    let bell = match Bell::new() {
        Ok(bell) => bell,
        Err(cause) => error!("webhook_pg: no eventfd: {cause}"),
    };
    Worker {
        bell,
        waiter: Waiter::new(bell),
        engine: None,
        pruner: Pruner::new(is_current),
        log: Log::new(WORKER_TYPE),
        health: Health::default(),
        activity: Activity::default(),
        looks_again: false,
        locked: Patience::default(),
    }
    .run()
}

/// Ends this process in silence: nothing is wrong, and the launcher knows what to do.
fn end() -> ! {
    // SAFETY: no transaction is open.
    unsafe { proc_exit(0) }
}

/// Settings that a database or role may carry and that must not reach the worker's own statements, as autovacuum does
/// it; and plans that do not depend on statistics, which a young outbox does not have.
pub(super) fn pin_session(application_name: &'static CStr) {
    let mut pins = vec![
        (c"search_path", c"pg_catalog"),
        (c"statement_timeout", c"0"),
        (c"lock_timeout", c"0"),
        (c"idle_in_transaction_session_timeout", c"0"),
        (c"default_transaction_isolation", c"read committed"),
        (c"session_replication_role", c"origin"),
        (c"row_security", c"off"),
        // Losing an outcome in a crash repeats a delivery, which the promise allows; waiting for each flush would not do.
        (c"synchronous_commit", c"off"),
        (c"enable_seqscan", c"off"),
        (c"enable_bitmapscan", c"off"),
        (c"enable_hashjoin", c"off"),
        (c"enable_mergejoin", c"off"),
        (c"jit", c"off"),
        (c"plan_cache_mode", c"force_generic_plan"),
        (c"work_mem", c"16MB"),
        (c"application_name", application_name),
    ];
    if cfg!(not(any(feature = "pg15", feature = "pg16"))) {
        pins.push((c"transaction_timeout", c"0"));
    }
    for (name, value) in pins {
        // SAFETY: NUL-terminated literals; the names exist in this version.
        unsafe {
            pg_sys::SetConfigOption(
                name.as_ptr(),
                value.as_ptr(),
                pg_sys::GucContext::PGC_SUSET,
                pg_sys::GucSource::PGC_S_OVERRIDE,
            );
        }
    }
}

/// Called by PostgreSQL for every relation whose catalog entry was invalidated; 0 means any.
#[pg_guard]
unsafe extern "C-unwind" fn on_relation_changed(_arg: pg_sys::Datum, relation: pg_sys::Oid) {
    let relation = relation.to_u32();
    let ours =
        [&ENDPOINT_TABLE, &INSTALLATION_TABLE].iter().any(|oid| oid.load(Ordering::Relaxed) == relation);
    if relation == 0 || ours {
        ENDPOINTS_CHANGED.store(true, Ordering::Relaxed);
    }
}

/// Whether the extension is still the one that the engine was started for. The lock keeps DROP EXTENSION away until the
/// transaction ends, so that its statements find what they need.
fn is_current() -> bool {
    let serving = ENDPOINT_TABLE.load(Ordering::Relaxed);
    // SAFETY: a lock on an oid, held to the end of the transaction that is open.
    unsafe {
        pg_sys::LockRelationOid(pg_sys::Oid::from(serving), pg_sys::AccessShareLock as pg_sys::LOCKMODE)
    };
    !ENDPOINTS_CHANGED.load(Ordering::Relaxed) || endpoint_table() == Some(serving)
}

/// Reads the configuration file again if somebody asked for it.
pub(super) fn reload_if_asked() -> bool {
    // SAFETY: flags of this process, set by its signal handler.
    unsafe {
        if pg_sys::ConfigReloadPending == 0 {
            return false;
        }
        pg_sys::ConfigReloadPending = 0;
        pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP);
    }
    true
}

struct Worker {
    bell: Bell,
    waiter: Waiter,
    engine: Option<Engine>,
    pruner: Pruner,
    log: Log,
    health: Health,
    activity: Activity,
    /// The extension, the installation row and the version are to be looked at again.
    looks_again: bool,
    /// Somebody has the table of endpoints locked.
    locked: Patience,
}

impl Worker {
    fn run(mut self) -> ! {
        let mut poll_at = Instant::now();
        let mut by_latch = true;
        loop {
            pgrx::check_for_interrupts!();
            if roster::is_to_stop() {
                end();
            }
            if reload_if_asked() {
                self.configure();
            }
            by_latch |= wake::take_news();
            if wake::take_endpoints_changed() {
                ENDPOINTS_CHANGED.store(true, Ordering::Relaxed);
            }
            let now = Instant::now();
            let asked = wake::take_recheck();
            let poll = asked || now >= poll_at;
            // Once more at the next poll: whoever asks is heard a moment before his changes of catalogs are.
            let recheck = asked || (poll && std::mem::take(&mut self.looks_again));
            self.looks_again |= asked;
            if poll {
                poll_at = now + guc::settings().poll_interval;
            }
            // A poll begins with a transaction anyway, which accepts them too; but after DROP EXTENSION that would fail.
            if recheck || (by_latch && !poll) {
                accept_invalidations();
            }
            self.activity.begins();
            let wait = self.turn(by_latch, poll, recheck).min(self.prune(poll));
            let wait = wait.min(poll_at.saturating_duration_since(Instant::now()));
            self.health.tell(self.engine.as_mut().and_then(Engine::fault));
            let wait = self.activity.ends(self.engine.as_ref().map(Engine::in_flight), wait);
            let listens = self.engine.as_ref().is_some_and(Engine::wants_news);
            // Invalidations that came in the middle of the turn are for the next one.
            let again = wake::listen(listens) || ENDPOINTS_CHANGED.load(Ordering::Relaxed);
            let wait = if again { Duration::ZERO } else { wait };
            by_latch = self.waiter.wait(wait).by_latch;
        }
    }

    /// Prunes, if it is time to. Answers when to come back.
    fn prune(&mut self, poll: bool) -> Duration {
        let wait = self.pruner.turn(self.engine.is_some(), poll, wall_clock(), guc::retention());
        if let Some(trouble) = self.pruner.take_trouble() {
            self.log.warn(&trouble);
        }
        wait
    }

    fn configure(&mut self) {
        if let Some(engine) = &mut self.engine {
            engine.configure(guc::settings());
        }
        if self.engine.is_some() {
            self.reseal();
        }
        // `retry_schedule` stands in endpoints that set `max_attempts`.
        ENDPOINTS_CHANGED.store(true, Ordering::Relaxed);
    }

    fn reseal(&mut self) {
        if let Err(trouble) = key_file::reseal() {
            self.log.warn(&trouble);
        }
    }

    /// One turn. Answers how long nothing will happen by itself.
    fn turn(&mut self, woken: bool, poll: bool, recheck: bool) -> Duration {
        let endpoints_changed = ENDPOINTS_CHANGED.swap(false, Ordering::Relaxed);
        let gone = (endpoints_changed || recheck) && self.engine.is_some() && self.is_gone();
        if gone {
            self.engine = None;
            board::wipe_own();
        }
        let table = if self.engine.is_none() && (poll || gone) { self.table_to_serve() } else { None };
        if poll && self.is_read_only() {
            self.stops("this database is read only, nothing is sent");
            self.engine = None;
            return Duration::MAX;
        }
        if let Some(table) = table {
            self.engine = self.start_engine(table);
            if self.engine.is_some() {
                ENDPOINTS_CHANGED.store(false, Ordering::Relaxed);
                return self.round(Turn {
                    now: wall_clock(),
                    woken: true,
                    endpoints_changed: true,
                    poll: true,
                });
            }
        }
        self.round(Turn { now: wall_clock(), woken, endpoints_changed, poll })
    }

    fn round(&mut self, turn: Turn) -> Duration {
        let Some(engine) = &mut self.engine else { return Duration::MAX };
        let (wait, failure) = match engine.round(turn) {
            Ok(wait) => (Some(wait), None),
            Err(trouble) => (None, Some(trouble)),
        };
        let troubles: Vec<String> = engine.take_trouble().into_iter().chain(failure).collect();
        // DROP EXTENSION in the middle of the turn is no trouble, nor is one that has begun, for a while.
        let dropped = if troubles.is_empty() { Ok(false) } else { is_dropped() };
        if dropped == Ok(true) {
            self.engine = None;
            board::wipe_own();
            self.table_to_serve();
            return Duration::ZERO;
        }
        if dropped.is_ok() || self.locked.is_over(Instant::now()) {
            troubles.iter().for_each(|trouble| self.log.warn(trouble));
        }
        if wait.is_some() {
            self.health.goes_on();
        }
        wait.unwrap_or_else(|| {
            // Started anew at the next poll; what was in flight is forgotten and sent again.
            if let Some(trouble) = troubles.last() {
                self.health.stops(trouble, wall_clock());
            }
            self.engine = None;
            Duration::MAX
        })
    }

    fn stops(&mut self, trouble: &str) {
        self.log.warn(trouble);
        self.health.stops(trouble, wall_clock());
    }

    /// Whether outcomes could not be written: `default_transaction_read_only` fences a database during a switchover. Its
    /// value for this database comes to a session at its start, so a worker that has an old one starts anew.
    fn is_read_only(&mut self) -> bool {
        let statement = Statement::new(include_str!("../../sql/statements/read_only.sql"));
        let found = transaction(|| {
            Spi::connect(|client| {
                statement.read(client, &[]).and_then(|table| table.first().get_two::<String, bool>())
            })
            .map_err(|error| error.to_string())
        });
        // SAFETY: a plain global of this process.
        let here = unsafe { pg_sys::DefaultXactReadOnly };
        match found {
            Ok((Some(value), _)) => matches!(value.to_lowercase().as_str(), "on" | "true" | "yes" | "1"),
            Ok((None, Some(true))) if here => {
                log!("{}: starting anew, because this database is read only no more", WORKER_TYPE);
                // SAFETY: no transaction is open. Not 0: a worker that exits with 0 is never started again.
                unsafe { proc_exit(1) }
            }
            Ok(_) => here,
            Err(trouble) => {
                self.log.warn(&trouble);
                false
            }
        }
    }

    /// Whether the extension, its installation row or its version is not as it was. Asked only when something changed or failed.
    fn is_gone(&mut self) -> bool {
        let gone = is_dropped().and_then(|dropped| Ok(dropped || !transaction(is_own_installation)?));
        gone.unwrap_or(false) || version::check().is_err()
    }

    /// Oid of `webhook.endpoint`. Where the extension is not installed, or in a copy of another database, the worker ends; the
    /// launcher sends another one when that may have changed.
    fn table_to_serve(&mut self) -> Option<u32> {
        // Two transactions: catalogs are seen as they are, tables as they were when the transaction began.
        let seen = transaction(|| Ok(endpoint_table()));
        let found = seen.clone().and_then(|table| match table {
            Some(table) => {
                let installation = transaction(|| Ok(private_table(c"installation")));
                INSTALLATION_TABLE.store(installation.ok().flatten().unwrap_or(0), Ordering::Relaxed);
                transaction(is_own_installation).map(|own| if own { Ok(table) } else { Err(State::Copy) })
            }
            None => Ok(Err(State::Absent)),
        });
        match found {
            Ok(Ok(table)) => {
                roster::serving();
                // At every poll anew: ALTER EXTENSION UPDATE makes it fit.
                match version::check() {
                    Ok(()) => Some(table),
                    Err(trouble) => self.cannot_serve(table, &trouble),
                }
            }
            Ok(Err(state)) => {
                roster::end_as(state);
                end()
            }
            Err(trouble) => self.cannot_serve(seen.ok().flatten().unwrap_or(0), &trouble),
        }
    }

    /// What is in the way may be that the extension with this table went a moment ago, and that there is another one by now.
    fn cannot_serve(&mut self, table: u32, trouble: &str) -> Option<u32> {
        match transaction(|| Ok(endpoint_table_after(table))) {
            Err(_) if !self.locked.is_over(Instant::now()) => None,
            Ok(None) => {
                roster::end_as(State::Absent);
                end()
            }
            Ok(Some(now)) if table != 0 && now != table => self.table_to_serve(),
            _ => {
                self.stops(trouble);
                None
            }
        }
    }

    fn start_engine(&mut self, table: u32) -> Option<Engine> {
        ENDPOINT_TABLE.store(table, Ordering::Relaxed);
        self.reseal();
        let pool = Pool::new(spawner(), self.bell.ringer());
        let store = SpiStore::new(is_current, || ENDPOINTS_CHANGED.load(Ordering::Relaxed));
        match Dispatcher::start(store, pool, guc::settings(), Box::new(chance)) {
            Ok(engine) => Some(engine),
            Err(trouble) => {
                self.stops(&trouble);
                None
            }
        }
    }
}

/// Whether the extension is not the one that is served.
fn is_dropped() -> Result<bool, String> {
    let serving = ENDPOINT_TABLE.load(Ordering::Relaxed);
    transaction(|| Ok(endpoint_table_after(serving) != Some(serving)))
}

fn wall_clock() -> Timestamp {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::try_from(since_1970.as_micros()).unwrap_or(Timestamp::MAX)
}

/// From 0 to 1, straight from the operating system.
fn chance() -> f64 {
    getrandom::u32().map_or(0.5, |n| f64::from(n) / f64::from(u32::MAX))
}
