//! Who serves which database: what the launcher, the workers and all sessions know together, in shared memory.
//!
//! Each database that has a worker, or waits for one, has a slot. Only the launcher gives slots to databases and takes them
//! back. Whoever needs a database to itself *holds* it: its worker ends, and none is started until the hold is released.
//!
//! ```text
//!             launcher              worker: claim         the extension is here
//! (dead) ─────────────────▶ Starting ──────────▶ Looking ───────────────────────▶ Serving
//!    ▲                          │ never claimed      │ absent, copy, held             │ dropped, held, failed …
//!    └──────────────────────────┴────────────────────┴────────────────────────────────┘
//! ```
//!
//! No lock, because sessions look here at commit, where nothing may fail. The orders that matter are those of a hold (the
//! session stores it and then looks for a worker; the launcher stores *Starting* and then looks for a hold: one of them sees
//! the other) and of a request (stored before the launcher's latch is set, taken before it looks).
//!
//! Shared memory is mapped at one address in all children of the postmaster, so the address of a latch is good everywhere;
//! the latch belongs to a PGPROC, which never moves and is never freed. A latch of a process that is gone belongs to
//! whoever got its PGPROC: setting it wakes that process for nothing, which PostgreSQL allows. After a crash the postmaster
//! makes all of this anew.

mod slot;

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, Ordering::SeqCst};

use pgrx::prelude::*;
use pgrx::{PGRXSharedMemory, PgAtomic, pg_shmem_init};

pub use self::slot::{Slot, State};

use super::board;

/// Databases that have a worker or wait for one at the same time.
const SLOTS: usize = 256;
/// Databases that the launcher is asked to look into at the same time; should it be more, it looks into all.
const REQUESTS: usize = 32;
/// Sessions that hold a database at the same time; further ones do without.
const HOLDS: usize = 32;

/// A process that can be told things.
#[derive(Default)]
struct Listener {
    pid: AtomicU32,
    latch: AtomicU64,
}

/// A database that a session needs for itself.
#[derive(Default)]
struct Hold {
    /// Process id of the session; 0 when nobody holds.
    pid: AtomicU32,
    database: AtomicU32,
}

/// All of it.
pub struct Roster {
    launcher: Listener,
    /// The launcher is to look at pg_database and at the holds again.
    look_again: AtomicBool,
    /// The launcher is to look into all databases again.
    look_into_all: AtomicBool,
    requests: [AtomicU32; REQUESTS],
    holds: [Hold; HOLDS],
    slots: [Slot; SLOTS],
}

impl Default for Roster {
    fn default() -> Self {
        Self {
            launcher: Listener::default(),
            look_again: AtomicBool::default(),
            look_into_all: AtomicBool::default(),
            requests: std::array::from_fn(|_| AtomicU32::default()),
            holds: std::array::from_fn(|_| Hold::default()),
            slots: std::array::from_fn(|_| Slot::default()),
        }
    }
}

// SAFETY: only atomics, no pointers that are private to a process.
unsafe impl PGRXSharedMemory for Roster {}

// SAFETY: no other shared memory area has this name.
static ROSTER: PgAtomic<Roster> = unsafe { PgAtomic::new(c"webhook_pg roster") };

/// Set once in the postmaster, inherited by every child: the shared memory above exists.
static PRELOADED: AtomicBool = AtomicBool::new(false);
/// Where this process found the slot of its database last.
static FOUND_AT: AtomicUsize = AtomicUsize::new(0);
/// Why this worker ends, a [`State`]; `None`: it did not choose to.
static END: AtomicU32 = AtomicU32::new(State::None as u32);
/// This worker got SIGTERM.
static TERMINATED: AtomicBool = AtomicBool::new(false);

/// Asks for the shared memory. To be called from `_PG_init` while the postmaster preloads libraries.
pub fn init() {
    pg_shmem_init!(ROSTER);
    PRELOADED.store(true, Ordering::Relaxed);
}

/// Whether the library came in by `shared_preload_libraries`. Without it nothing else here may be called.
pub fn preloaded() -> bool {
    PRELOADED.load(Ordering::Relaxed)
}

fn my_pid() -> u32 {
    std::process::id()
}

fn my_latch() -> u64 {
    // SAFETY: a plain global of this process.
    unsafe { pg_sys::MyLatch as u64 }
}

fn set_latch(address: &AtomicU64) {
    let latch = address.load(SeqCst) as *mut pg_sys::Latch;
    if !latch.is_null() {
        // SAFETY: the address of a latch inside a PGPROC, see the module's doc.
        unsafe { pg_sys::SetLatch(latch) };
    }
}

// ---- For every session ---------------------------------------------------------------------------------------------

/// The slot of a database.
pub fn slot_of(database: pg_sys::Oid) -> Option<&'static Slot> {
    let database = database.to_u32();
    if database == 0 {
        return None;
    }
    let slots = &ROSTER.get().slots;
    let last = FOUND_AT.load(Ordering::Relaxed);
    if slots.get(last).is_some_and(|slot| slot.database.load(Ordering::Acquire) == database) {
        return slots.get(last);
    }
    let at = slots.iter().position(|slot| slot.database.load(Ordering::Acquire) == database)?;
    FOUND_AT.store(at, Ordering::Relaxed);
    slots.get(at)
}

/// The slot of this process's database.
pub fn own_slot() -> Option<&'static Slot> {
    // SAFETY: a plain global, set before any transaction starts.
    slot_of(unsafe { pg_sys::MyDatabaseId })
}

/// Process id of the launcher.
pub fn launcher_pid() -> Option<i32> {
    i32::try_from(ROSTER.get().launcher.pid.load(SeqCst)).ok().filter(|pid| *pid != 0)
}

/// Asks the launcher to look into this process's database: the extension may have come, or a copy been adopted.
pub fn request_look() {
    let roster = ROSTER.get();
    // SAFETY: a plain global, set before any transaction starts.
    let database = unsafe { pg_sys::MyDatabaseId }.to_u32();
    let takes = |entry: &AtomicU32| {
        entry.load(SeqCst) == database || entry.compare_exchange(0, database, SeqCst, SeqCst).is_ok()
    };
    if !roster.requests.iter().any(takes) {
        roster.look_into_all.store(true, SeqCst);
    }
    set_latch(&roster.launcher.latch);
}

/// Holds a database for this process. False: too many are held.
pub fn hold(database: pg_sys::Oid) -> bool {
    let free = |hold: &&Hold| hold.pid.compare_exchange(0, my_pid(), SeqCst, SeqCst).is_ok();
    let Some(hold) = ROSTER.get().holds.iter().find(free) else { return false };
    hold.database.store(database.to_u32(), SeqCst);
    true
}

/// Releases what this process holds, and has the launcher look at what became of the databases.
pub fn release_holds() {
    let roster = ROSTER.get();
    release_held_by(|pid| pid == my_pid());
    roster.look_again.store(true, SeqCst);
    set_latch(&roster.launcher.latch);
}

fn release_held_by(released: impl Fn(u32) -> bool) {
    for hold in &ROSTER.get().holds {
        let pid = hold.pid.load(SeqCst);
        if pid != 0 && released(pid) {
            hold.database.store(0, SeqCst);
            hold.pid.store(0, SeqCst);
        }
    }
}

/// Whether somebody holds the database.
pub fn is_held(database: u32) -> bool {
    ROSTER.get().holds.iter().any(|hold| hold.database.load(SeqCst) == database)
}

// ---- For the launcher ----------------------------------------------------------------------------------------------

/// What the launcher was asked to do.
#[derive(Debug, Default)]
pub struct Orders {
    /// Look at pg_database again.
    pub look_again: bool,
    /// Look into all databases again.
    pub look_into_all: bool,
    /// Look into these.
    pub look_into: Vec<u32>,
}

/// Announces this process as the launcher, until it exits.
pub fn announce_launcher() {
    let launcher = &ROSTER.get().launcher;
    launcher.latch.store(my_latch(), SeqCst);
    launcher.pid.store(my_pid(), SeqCst);
    // SAFETY: a plain function and no argument.
    unsafe { pg_sys::before_shmem_exit(Some(withdraw_launcher), pg_sys::Datum::from(0usize)) };
}

#[pg_guard]
unsafe extern "C-unwind" fn withdraw_launcher(_code: std::ffi::c_int, _arg: pg_sys::Datum) {
    let launcher = &ROSTER.get().launcher;
    launcher.latch.store(0, SeqCst);
    launcher.pid.store(0, SeqCst);
}

/// What sessions have asked for since the last time.
pub fn take_orders() -> Orders {
    let roster = ROSTER.get();
    Orders {
        look_again: roster.look_again.swap(false, SeqCst),
        look_into_all: roster.look_into_all.swap(false, SeqCst),
        look_into: roster.requests.iter().map(|r| r.swap(0, SeqCst)).filter(|oid| *oid != 0).collect(),
    }
}

/// Releases what sessions hold that are gone. They release it themselves, so this is for the case that one could not.
pub fn release_forgotten_holds() {
    let is_gone = |pid: u32| {
        // SAFETY: looks the process up under a lock of its own.
        i32::try_from(pid).map_or(true, |pid| unsafe { pg_sys::BackendPidGetProc(pid).is_null() })
    };
    release_held_by(is_gone);
}

/// All slots that belong to a database, with its oid.
pub fn slots() -> impl Iterator<Item = (u32, &'static Slot)> {
    let with_oid = |slot: &'static Slot| (slot.database.load(SeqCst), slot);
    ROSTER.get().slots.iter().map(with_oid).filter(|(oid, _)| *oid != 0)
}

/// Gives the database a slot. `None`: all are taken.
pub fn allocate(database: u32) -> Option<&'static Slot> {
    let slot = ROSTER.get().slots.iter().find(|slot| slot.database.load(SeqCst) == 0)?;
    slot.becomes(State::None);
    slot.latch.store(0, SeqCst);
    slot.pid.store(0, SeqCst);
    for flag in [&slot.stop, &slot.recheck, &slot.endpoints, &slot.news, &slot.listening] {
        flag.store(false, SeqCst);
    }
    slot.database.store(database, SeqCst);
    Some(slot)
}

impl Slot {
    /// Takes the slot from its database. Its worker must be gone.
    pub fn free(&self) {
        board::wipe(self.database.load(SeqCst));
        self.database.store(0, SeqCst);
    }

    /// A worker is about to be registered. Answers what it needs to claim the slot.
    pub fn starts(&'static self) -> u64 {
        let ticket = self.ticket.fetch_add(1, SeqCst).wrapping_add(1);
        self.stop.store(false, SeqCst);
        self.becomes(State::Starting);
        let slots = ROSTER.get().slots.iter();
        let index = slots.take_while(|slot| !std::ptr::eq(*slot, self)).count();
        u64::from(ticket) << 32 | index as u64
    }

    /// It was not registered after all, or nobody came. False: somebody did.
    pub fn did_not_start(&self, why: State) -> bool {
        self.changes(State::Starting, why)
    }
}

// ---- For the workers -----------------------------------------------------------------------------------------------

/// Takes the slot that the launcher chose for this process, until it exits, and answers the database to serve. `None`: the
/// process comes too late, or somebody holds the database; it must end, and with code 0, because nothing is wrong.
pub fn claim(argument: u64) -> Option<pg_sys::Oid> {
    let slot = usize::try_from(argument & 0xffff_ffff).ok().and_then(|n| ROSTER.get().slots.get(n))?;
    if u64::from(slot.ticket.load(SeqCst)) != argument >> 32 || !slot.changes(State::Starting, State::Looking)
    {
        return None;
    }
    slot.fault.put(None);
    slot.listening.store(true, SeqCst);
    slot.latch.store(my_latch(), SeqCst);
    slot.pid.store(my_pid(), SeqCst);
    // SAFETY: a plain function and no argument.
    unsafe { pg_sys::before_shmem_exit(Some(withdraw_worker), pg_sys::Datum::from(0usize)) };
    let database = slot.database.load(SeqCst);
    if is_held(database) {
        end_as(State::Stopped);
        return None;
    }
    Some(pg_sys::Oid::from(database))
}

/// This worker found what it is to serve.
pub fn serving() {
    if own_slot().is_some_and(|slot| slot.changes(State::Looking, State::Serving)) {
        set_latch(&ROSTER.get().launcher.latch);
    }
}

/// Whether this worker was told to end.
pub fn is_to_stop() -> bool {
    own_slot().is_none_or(|slot| slot.stop.load(SeqCst))
}

/// Says why this worker is about to end.
pub fn end_as(state: State) {
    END.store(state as u32, Ordering::Relaxed);
}

/// This worker got SIGTERM. May be called from a signal handler.
pub fn terminated() {
    TERMINATED.store(true, Ordering::Relaxed);
}

/// Leaves word why the worker ended, before its PGPROC goes to somebody else.
#[pg_guard]
unsafe extern "C-unwind" fn withdraw_worker(_code: std::ffi::c_int, _arg: pg_sys::Datum) {
    let roster = ROSTER.get();
    let pid = my_pid();
    for slot in roster.slots.iter().filter(|slot| slot.pid.load(SeqCst) == pid) {
        let state = match State::of(END.load(Ordering::Relaxed)) {
            State::None if slot.stop.load(SeqCst) => State::Stopped,
            State::None if TERMINATED.load(Ordering::Relaxed) => State::Terminated,
            State::None => State::Failed,
            chosen => chosen,
        };
        slot.latch.store(0, SeqCst);
        slot.pid.store(0, SeqCst);
        slot.becomes(state);
    }
    set_latch(&roster.launcher.latch);
}
