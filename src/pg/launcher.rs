//! The launcher: keeps one worker for each database that has the extension.
//!
//! It is connected to no database and cannot see who has the extension; so it sends a worker to look. The worker ends at
//! once when there is nothing to serve, and that is remembered: a database without the extension costs one process start
//! when the launcher starts or the database appears. CREATE EXTENSION asks for another look when it commits.
//!
//! ```text
//!                    ┌──────────── asked: CREATE EXTENSION, webhook_adopt() ──────────────┐
//!                    ▼                                                                    │
//! appears ──▶ to be looked into ──▶ a worker runs ──absent, a copy────────────────▶ nothing to serve
//!                    ▲                   │
//!                    └───────────────────┘ stopped: at once · terminated: after 1 s · failed: after 1 s, 2 s, … 32 s
//!                                          no room: every poll_interval
//! ```
//!
//! Workers are registered for one start each and started anew from here, because after a crash the postmaster would start
//! them again without a launcher that knows of them. What the launcher knows of running workers stands in shared memory
//! ([`roster`]), so they outlive it and its successor finds them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use pgrx::bgworkers::{BackgroundWorkerBuilder, BgWorkerStartTime};
use pgrx::prelude::*;

use super::activity::WaitEvent;
use super::databases::{self, Wanted};
use super::log::Log;
use super::roster::{self, Slot, State};
use super::{guc, worker};
use crate::restart::{FIRST_WAIT, Restarts};

/// What pg_stat_activity shows as `backend_type`.
const LAUNCHER_TYPE: &str = "webhook_pg launcher";

/// Databases that are looked into at the same time: background worker slots are few, and others need them too.
const LOOKS_AT_ONCE: usize = 2;
/// A worker that has looked for so long without finding out keeps nobody else from looking.
const LONG_LOOK: Duration = Duration::from_secs(5);
/// A worker that did not come in this time will not come.
const START_LIMIT: Duration = Duration::from_secs(10);
/// A worker that was told to end and did not within this time is terminated.
const STOP_LIMIT: Duration = Duration::from_secs(1);
/// pg_database is looked at at least so often, whatever `poll_interval` is.
const MAX_POLL: Duration = Duration::from_secs(30);

/// Registers the launcher with the postmaster. To be called from `_PG_init` while the postmaster preloads libraries.
///
/// It starts when recovery has finished, so a standby runs none and promotion starts it. It comes back one second after
/// it ended for whatever reason, because it never exits with 0 (exit 0 unregisters it for ever).
pub fn register() {
    BackgroundWorkerBuilder::new(LAUNCHER_TYPE)
        .set_type(LAUNCHER_TYPE)
        .set_library("webhook_pg")
        .set_function("webhook_pg_launcher_main")
        .enable_spi_access()
        .set_start_time(BgWorkerStartTime::RecoveryFinished)
        .set_restart_time(Some(Duration::from_secs(1)))
        .load();
}

/// Asks the postmaster for a worker. False: all of `max_worker_processes` are in use.
fn register_worker(database: &str, argument: u64) -> bool {
    let mut name = format!("{} {database}", worker::WORKER_TYPE);
    // A name fills its field to the last byte but one; a name of the database has at most 63.
    let end = (0..=name.len().min(90)).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
    name.truncate(end);
    let builder = BackgroundWorkerBuilder::new(&name)
        .set_type(worker::WORKER_TYPE)
        .set_library("webhook_pg")
        .set_function("webhook_pg_worker_main")
        .enable_spi_access()
        .set_start_time(BgWorkerStartTime::RecoveryFinished)
        .set_restart_time(None)
        .set_argument(Some(pg_sys::Datum::from(argument)));
    let mut registration: pg_sys::BackgroundWorker = (&builder).into();
    // SAFETY: the registration is copied; without a place for a handle none is made.
    unsafe { pg_sys::RegisterDynamicBackgroundWorker(&mut registration, std::ptr::null_mut()) }
}

/// Entry point of the launcher process.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn webhook_pg_launcher_main(_arg: pg_sys::Datum) {
    worker::handle_signals();
    // SAFETY: a first step of every background worker. No database: shared catalogs only.
    unsafe { pg_sys::BackgroundWorkerInitializeConnection(std::ptr::null(), std::ptr::null(), 0) };
    worker::pin_session(c"webhook_pg launcher");
    roster::announce_launcher();
    Launcher::take_over().run()
}

/// What the launcher knows of a database.
struct Entry {
    name: String,
    /// It exists, the setting wants it and it takes connections.
    wanted: bool,
    slot: Option<&'static Slot>,
    /// A worker was started and its end has not been seen.
    running: bool,
    /// When it was started.
    since: Instant,
    /// When it was told to end.
    stopping: Option<Instant>,
    /// When to start a worker; `None`: when somebody asks.
    due: Option<Instant>,
    /// It had the extension when a worker looked last.
    has_extension: bool,
    /// Somebody asked for a look while a worker ran.
    asked: bool,
    restarts: Restarts,
}

impl Entry {
    fn new(name: String, now: Instant) -> Self {
        Self {
            name,
            wanted: true,
            slot: None,
            running: false,
            since: now,
            stopping: None,
            due: Some(now),
            has_extension: false,
            asked: false,
            restarts: Restarts::default(),
        }
    }

    /// What the end of its worker means.
    fn ended(&mut self, state: State, now: Instant) {
        self.running = false;
        self.stopping = None;
        self.restarts.ran_for(now - self.since);
        self.due = match state {
            State::Absent | State::Copy => {
                self.has_extension = false;
                self.asked.then_some(now)
            }
            State::Stopped => Some(now),
            State::Failed => Some(now + self.restarts.failed()),
            _ => Some(now + FIRST_WAIT),
        };
        self.asked = false;
    }

    fn free(&mut self) {
        if let Some(slot) = self.slot.take() {
            slot.free();
        }
    }

    /// Whether a start is wanted; when, if not now, see `due`.
    fn may_start(&self) -> bool {
        self.wanted && !self.running
    }

    fn is_looking(&self, now: Instant) -> bool {
        let looks = |slot: &Slot| matches!(slot.state(), State::Starting | State::Looking);
        self.running && self.slot.is_some_and(looks) && now - self.since < LONG_LOOK
    }
}

struct Launcher {
    entries: BTreeMap<u32, Entry>,
    scan_at: Instant,
    log: Log,
    wait_event: WaitEvent,
}

impl Launcher {
    /// Knows the workers that a launcher before this one has started.
    fn take_over() -> Self {
        let now = Instant::now();
        let mut entries = BTreeMap::new();
        for (oid, slot) in roster::slots() {
            if slot.state().is_alive() {
                let entry = Entry { slot: Some(slot), running: true, ..Entry::new(String::new(), now) };
                entries.insert(oid, entry);
            } else {
                slot.free();
            }
        }
        let wait_event = WaitEvent::new(c"WebhookLauncherMain");
        Self { entries, scan_at: now, log: Log::new(LAUNCHER_TYPE), wait_event }
    }

    fn run(mut self) -> ! {
        loop {
            pgrx::check_for_interrupts!();
            if worker::reload_if_asked() {
                self.scan_at = Instant::now();
            }
            let wait = self.turn();
            let events = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
            // Up: a wait that ends a moment early would only come back.
            let ms = std::ffi::c_long::try_from(wait.as_micros().div_ceil(1000)).unwrap_or(1000);
            // SAFETY: the latch of this process. Reset before looking for work, so that no wake-up is lost.
            unsafe {
                pg_sys::WaitLatch(pg_sys::MyLatch, events as _, ms, self.wait_event.number());
                pg_sys::ResetLatch(pg_sys::MyLatch);
            }
        }
    }

    /// One turn. Answers how long nothing will happen by itself.
    fn turn(&mut self) -> Duration {
        let now = Instant::now();
        let orders = roster::take_orders();
        let unknown = orders.look_into.iter().any(|oid| !self.entries.contains_key(oid));
        if orders.look_again || unknown || now >= self.scan_at {
            self.scan(now);
        }
        let asked = |oid: &u32| orders.look_into_all || orders.look_into.contains(oid);
        for (_, entry) in self.entries.iter_mut().filter(|(oid, _)| asked(oid)) {
            if entry.running {
                entry.asked = true;
            } else if entry.due.is_none() {
                entry.due = Some(now);
            }
        }
        roster::release_forgotten_holds();
        self.follow(now);
        self.start_due(now);
        self.show_activity();
        self.next_turn(now).saturating_duration_since(Instant::now())
    }

    /// Reads pg_database and the setting.
    fn scan(&mut self, now: Instant) {
        self.scan_at = now + guc::settings().poll_interval.min(MAX_POLL);
        let wanted = Wanted::now();
        let databases = match databases::all() {
            Ok(databases) => databases,
            Err(trouble) => return self.log.warn(&trouble),
        };
        for entry in self.entries.values_mut() {
            entry.wanted = false;
        }
        for database in &databases {
            let entry = self.entries.entry(database.oid).or_insert_with(|| Entry::new(database.shown(), now));
            entry.name = database.shown();
            entry.wanted = database.connectable && wanted.has(&database.name);
        }
        self.entries.retain(|oid, entry| {
            if !entry.wanted && !entry.running {
                entry.free();
            }
            entry.running || databases.iter().any(|database| database.oid == *oid)
        });
        let hopeless = wanted.hopeless(&databases);
        if !hopeless.is_empty() {
            self.log.warn_once("hopeless", &format!("webhook_pg.databases: {}", hopeless.join(", ")));
        }
    }

    /// Sees what became of the workers, and ends those that are not wanted.
    fn follow(&mut self, now: Instant) {
        for entry in self.entries.values_mut() {
            let Some(slot) = entry.slot.filter(|_| entry.running) else { continue };
            let mut state = slot.state();
            if state == State::Starting
                && now - entry.since > START_LIMIT
                && slot.did_not_start(State::Failed)
            {
                state = State::Failed;
            }
            entry.has_extension |= state == State::Serving;
            if !state.is_alive() {
                entry.ended(state, now);
                if state == State::Copy {
                    self.log.warn(&format!(
                        "database \"{}\" is a copy, nothing is sent from it; call webhook_adopt() there to make it send",
                        entry.name
                    ));
                }
            } else if !entry.wanted {
                let since = *entry.stopping.get_or_insert(now);
                slot.stop(now - since > STOP_LIMIT);
            }
            if !entry.running && (entry.due.is_none() || !entry.wanted) {
                entry.free();
                entry.due = entry.due.or((!entry.wanted).then_some(now));
            }
        }
    }

    /// Starts workers where they are due. Those that go to look only do so a few at a time.
    fn start_due(&mut self, now: Instant) {
        let mut looking = self.entries.values().filter(|entry| entry.is_looking(now)).count();
        let mut without_room = Vec::new();
        for (oid, entry) in &mut self.entries {
            if !entry.may_start() || entry.due.is_none_or(|due| due > now) || roster::is_held(*oid) {
                continue;
            }
            if !entry.has_extension {
                if looking >= LOOKS_AT_ONCE {
                    continue;
                }
                looking += 1;
            }
            let Some(slot) = entry.slot.or_else(|| roster::allocate(*oid)) else {
                self.log.warn("too many databases have the extension");
                entry.due = Some(now + MAX_POLL);
                continue;
            };
            entry.slot = Some(slot);
            let argument = slot.starts();
            // Whoever holds it may not have seen the worker.
            if roster::is_held(*oid) && slot.did_not_start(State::Stopped) {
                continue;
            }
            if register_worker(&entry.name, argument) {
                entry.running = true;
                entry.since = now;
            } else if slot.did_not_start(State::NoRoom) {
                entry.due = Some(now + guc::settings().poll_interval.min(MAX_POLL));
                without_room.push(entry.name.as_str());
            }
        }
        if !without_room.is_empty() {
            let text = format!(
                "no background worker is left for these databases: {}; raise max_worker_processes",
                without_room.join(", ")
            );
            self.log.warn_once("no room", &text);
        }
    }

    /// When something will have to be done that nobody announces.
    fn next_turn(&self, now: Instant) -> Instant {
        let next = |(oid, entry): (&u32, &Entry)| {
            let slot = entry.slot.filter(|_| entry.running);
            match slot {
                Some(_) if entry.stopping.is_some() => Some(now + STOP_LIMIT / 4),
                Some(slot) if slot.state() == State::Starting => Some(entry.since + START_LIMIT),
                Some(_) => None,
                // Whoever holds it releases it, and whoever looks ends.
                None if entry.may_start() && !roster::is_held(*oid) => {
                    entry.due.map(|due| if due > now { due } else { now + LONG_LOOK / 4 })
                }
                None => None,
            }
        };
        self.entries.iter().filter_map(next).min().map_or(self.scan_at, |at| at.min(self.scan_at))
    }

    fn show_activity(&self) {
        let serving = |entry: &&Entry| entry.slot.is_some_and(|slot| slot.state() == State::Serving);
        let count = self.entries.values().filter(serving).count();
        let text = std::ffi::CString::new(format!("databases served: {count}")).unwrap_or_default();
        // SAFETY: no transaction is open; the text is copied.
        unsafe { pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_IDLE, text.as_ptr()) };
    }
}
