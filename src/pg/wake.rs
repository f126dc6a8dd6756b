//! Waking the worker when a transaction that concerns it commits: its latch, set after the commit is visible.
//!
//! No NOTIFY (it serialises commits and forbids PREPARE TRANSACTION) and no polling for latency. What no latch can
//! announce (COMMIT PREPARED, a backend that loaded the library without the preload) the worker's slow scan covers.
//!
//! A commit with events sets `news`, and the latch only while the worker listens: one that has enough to do, or nobody to
//! send to, is left alone. The order keeps every event: the writer sets `news` and then reads `listening`, the worker sets
//! `listening` and then reads `news`; at least one of them sees the other.
//!
//! Shared memory holds one slot for each served database: its oid, and the address of the latch of the worker that
//! serves it. Shared memory is mapped at one address in all children of the postmaster, so the address is good
//! everywhere; the latch belongs to a PGPROC, which never moves and is never freed. A latch of a worker that is gone
//! belongs to whoever got its PGPROC: setting it wakes that process for nothing, which PostgreSQL allows.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use pgrx::prelude::*;
use pgrx::{PGRXSharedMemory, PgAtomic, pg_shmem_init};

use super::notice::Notice;
use crate::event::Timestamp;

/// Databases that can be served at the same time.
const SLOTS: usize = 64;

/// A served database.
#[derive(Default)]
struct Slot {
    /// Its oid; 0 in a free slot.
    database: AtomicU32,
    /// Process id of its worker.
    pid: AtomicU32,
    /// Address of its worker's latch.
    latch: AtomicU64,
    /// Something changed that the worker looks at only now and then.
    recheck: AtomicBool,
    /// Events were committed since the worker looked last.
    news: AtomicBool,
    /// The worker wants to be woken for events.
    listening: AtomicBool,
    /// Why the worker sends nothing, or not everything.
    fault: Notice,
}

/// All slots.
pub struct Slots([Slot; SLOTS]);

impl Default for Slots {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Slot::default()))
    }
}

// SAFETY: only atomics, no pointers that are private to a process.
unsafe impl PGRXSharedMemory for Slots {}

// SAFETY: no other shared memory area has this name.
static WORKERS: PgAtomic<Slots> = unsafe { PgAtomic::new(c"webhook_pg workers") };

/// Set once in the postmaster, inherited by every child: the shared memory above exists.
static PRELOADED: AtomicBool = AtomicBool::new(false);
/// This backend's transaction has something for the worker.
static MARKED: AtomicBool = AtomicBool::new(false);
/// It has something that the worker must look at whether it listens or not: endpoints.
static URGENT: AtomicBool = AtomicBool::new(false);
/// It has more for it than that: deliveries to try again, the extension itself.
static RECHECK: AtomicBool = AtomicBool::new(false);
/// The callback is registered. Once per backend: pg_net's pile of one callback per transaction made sessions slow.
static REGISTERED: AtomicBool = AtomicBool::new(false);

/// Asks for the shared memory. To be called from `_PG_init` while the postmaster preloads libraries.
pub fn init() {
    pg_shmem_init!(WORKERS);
    PRELOADED.store(true, Ordering::Relaxed);
}

/// Whether the library came in by `shared_preload_libraries`.
pub fn preloaded() -> bool {
    PRELOADED.load(Ordering::Relaxed)
}

/// Tells the worker when, and only if, the current transaction commits that there are events.
#[inline]
pub fn at_commit() {
    if MARKED.load(Ordering::Relaxed) {
        return;
    }
    if !REGISTERED.swap(true, Ordering::Relaxed) {
        // SAFETY: the callback is a plain function that lives as long as the process.
        unsafe { pg_sys::RegisterXactCallback(Some(on_transaction_end), std::ptr::null_mut()) };
    }
    MARKED.store(true, Ordering::Relaxed);
}

/// As [`at_commit`], and wakes the worker even if it does not listen.
pub fn wake_at_commit() {
    at_commit();
    URGENT.store(true, Ordering::Relaxed);
}

/// As [`wake_at_commit`], and the worker looks at everything it otherwise looks at every `poll_interval`.
pub fn recheck_at_commit() {
    wake_at_commit();
    RECHECK.store(true, Ordering::Relaxed);
}

/// Whether anybody asked the worker of this database to look at everything since the last question.
pub fn take_recheck() -> bool {
    own_slot().is_some_and(|slot| slot.recheck.swap(false, Ordering::AcqRel))
}

/// Whether events were committed since the last question. To be asked before the snapshot that looks for them is taken.
pub fn take_news() -> bool {
    own_slot().is_some_and(|slot| slot.news.load(Ordering::SeqCst) && slot.news.swap(false, Ordering::SeqCst))
}

/// Says whether commits with events shall set the latch. True: there are some that nobody will announce any more.
pub fn listen(wanted: bool) -> bool {
    own_slot().is_some_and(|slot| {
        if slot.listening.load(Ordering::Relaxed) != wanted {
            slot.listening.store(wanted, Ordering::SeqCst);
        }
        wanted && slot.news.load(Ordering::SeqCst)
    })
}

/// The slot of this process's database.
fn own_slot() -> Option<&'static Slot> {
    // SAFETY: a plain global, set before any transaction starts.
    let database = unsafe { pg_sys::MyDatabaseId }.to_u32();
    slot_of(database)
}

/// Runs at the end of every transaction of this backend. An error here would take down the cluster, so it does
/// nothing but read atomics and set a latch.
#[pg_guard]
unsafe extern "C-unwind" fn on_transaction_end(event: pg_sys::XactEvent::Type, _arg: *mut std::ffi::c_void) {
    use pg_sys::XactEvent::{XACT_EVENT_ABORT, XACT_EVENT_COMMIT, XACT_EVENT_PREPARE};
    match event {
        XACT_EVENT_COMMIT => {
            let recheck = RECHECK.swap(false, Ordering::Relaxed);
            let urgent = URGENT.swap(false, Ordering::Relaxed);
            if MARKED.swap(false, Ordering::Relaxed) {
                tell(urgent, recheck);
            }
        }
        XACT_EVENT_ABORT | XACT_EVENT_PREPARE => {
            MARKED.store(false, Ordering::Relaxed);
            URGENT.store(false, Ordering::Relaxed);
            RECHECK.store(false, Ordering::Relaxed);
        }
        _ => {}
    }
}

/// Tells the worker that serves this backend's database, if there is one.
fn tell(urgent: bool, recheck: bool) {
    if !preloaded() {
        return;
    }
    if let Some(slot) = own_slot() {
        if recheck {
            slot.recheck.store(true, Ordering::Release);
        }
        // Read first: eight sessions that write the same line of memory at every commit slow each other down.
        if !slot.news.load(Ordering::SeqCst) {
            slot.news.store(true, Ordering::SeqCst);
        }
        if !urgent && !slot.listening.load(Ordering::SeqCst) {
            return;
        }
        let latch = slot.latch.load(Ordering::Acquire) as *mut pg_sys::Latch;
        if !latch.is_null() {
            // SAFETY: the address of a latch inside a PGPROC, see the module's doc.
            unsafe { pg_sys::SetLatch(latch) };
        }
    }
}

fn slot_of(database: u32) -> Option<&'static Slot> {
    WORKERS.get().0.iter().find(|slot| slot.database.load(Ordering::Acquire) == database)
}

/// Process id of the worker that serves a database.
pub fn worker_pid(database: pg_sys::Oid) -> Option<u32> {
    if !preloaded() {
        return None;
    }
    slot_of(database.to_u32()).map(|slot| slot.pid.load(Ordering::Acquire))
}

/// Says why this worker sends nothing, or not everything, and since when; `None`: it does.
pub fn report_fault(fault: Option<(Timestamp, &str)>) {
    if let Some(slot) = own_slot() {
        slot.fault.put(fault);
    }
}

/// What the worker of a database said last.
pub fn reported_fault(database: pg_sys::Oid) -> Option<(Timestamp, String)> {
    if !preloaded() {
        return None;
    }
    slot_of(database.to_u32())?.fault.get()
}

/// Announces this process as the worker of its database, until it exits. False: all slots are taken.
pub fn announce_worker() -> bool {
    // SAFETY: plain globals of a process that is connected to a database.
    let (database, pid, latch) =
        unsafe { (pg_sys::MyDatabaseId.to_u32(), std::process::id(), pg_sys::MyLatch as u64) };
    let slots = &WORKERS.get().0;
    // A worker that was killed left its slot behind; its successor takes it over.
    let Some(slot) = slots.iter().find(|s| s.database.load(Ordering::Acquire) == database).or_else(|| {
        slots
            .iter()
            .find(|s| s.database.compare_exchange(0, database, Ordering::AcqRel, Ordering::Acquire).is_ok())
    }) else {
        return false;
    };
    slot.pid.store(pid, Ordering::Release);
    slot.fault.put(None);
    slot.listening.store(true, Ordering::SeqCst);
    slot.latch.store(latch, Ordering::Release);
    // SAFETY: a plain function and no argument.
    unsafe { pg_sys::before_shmem_exit(Some(withdraw_worker), pg_sys::Datum::from(0usize)) };
    true
}

/// Gives the slot back when the worker exits, before its PGPROC goes to somebody else.
#[pg_guard]
unsafe extern "C-unwind" fn withdraw_worker(_code: std::ffi::c_int, _arg: pg_sys::Datum) {
    let pid = std::process::id();
    for slot in WORKERS.get().0.iter().filter(|s| s.pid.load(Ordering::Acquire) == pid) {
        slot.latch.store(0, Ordering::Release);
        slot.pid.store(0, Ordering::Release);
        slot.database.store(0, Ordering::Release);
    }
}
