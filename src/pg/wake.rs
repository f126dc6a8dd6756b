//! Waking the worker when a transaction that concerns it commits: its latch, set after the commit is visible.
//!
//! No NOTIFY (it serialises commits and forbids PREPARE TRANSACTION) and no polling for latency. What no latch announces (a
//! backend that loaded the library without the preload) the worker's slow scan covers. COMMIT PREPARED wakes the worker
//! whatever it commits.
//!
//! A commit with events sets `news`, and the latch only while the worker listens: one that has enough to do, or nobody to
//! send to, is left alone. The order keeps every event: the writer sets `news` and then reads `listening`, the worker sets
//! `listening` and then reads `news`; at least one of them sees the other.

use std::sync::atomic::{AtomicBool, Ordering};

use pgrx::prelude::*;

use super::roster::{self, own_slot};

/// This backend's transaction has something for the worker.
static MARKED: AtomicBool = AtomicBool::new(false);
/// It changed endpoints, which the worker must look at whether it listens or not.
static ENDPOINTS: AtomicBool = AtomicBool::new(false);
/// It has something for it that the worker looks at only now and then: deliveries to try again, the extension itself.
static RECHECK: AtomicBool = AtomicBool::new(false);
/// The callback is registered. Once per backend: pg_net's pile of one callback per transaction made sessions slow.
static REGISTERED: AtomicBool = AtomicBool::new(false);

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

/// As [`at_commit`], and the worker looks at the endpoints even if it does not listen. If this database has no worker, the
/// launcher looks whether it needs one.
///
/// The invalidation of a changed relation does not do: PostgreSQL sends it a moment after the callback in which the latch is
/// set, and a worker that was quicker slept on without it (2 of 25, on a busy machine).
pub fn endpoints_at_commit() {
    at_commit();
    ENDPOINTS.store(true, Ordering::Relaxed);
}

/// As [`at_commit`], and the worker looks at everything it otherwise looks at every `poll_interval`, or the launcher as above.
pub fn recheck_at_commit() {
    at_commit();
    RECHECK.store(true, Ordering::Relaxed);
}

/// Whether endpoints were changed since the last question. To be asked before the snapshot that looks at them is taken.
pub fn take_endpoints_changed() -> bool {
    own_slot().is_some_and(|slot| slot.endpoints.swap(false, Ordering::SeqCst))
}

/// Whether anybody asked the worker of this database to look at everything since the last question.
pub fn take_recheck() -> bool {
    own_slot().is_some_and(|slot| slot.recheck.swap(false, Ordering::SeqCst))
}

/// Whether events were committed since the last question. To be asked before the snapshot that looks for them is taken.
pub fn take_news() -> bool {
    own_slot().is_some_and(|slot| slot.news.load(Ordering::SeqCst) && slot.news.swap(false, Ordering::SeqCst))
}

/// Says whether commits with events shall set the latch. True: there is something that nobody will announce any more, also
/// because the latch served another wait in the meantime.
pub fn listen(wanted: bool) -> bool {
    own_slot().is_some_and(|slot| {
        if slot.listening.load(Ordering::Relaxed) != wanted {
            slot.listening.store(wanted, Ordering::SeqCst);
        }
        (wanted && slot.news.load(Ordering::SeqCst))
            || slot.endpoints.load(Ordering::SeqCst)
            || slot.recheck.load(Ordering::SeqCst)
    })
}

/// Runs at the end of every transaction of this backend. An error here would take down the cluster, so it does
/// nothing but read atomics and set a latch.
#[pg_guard]
unsafe extern "C-unwind" fn on_transaction_end(event: pg_sys::XactEvent::Type, _arg: *mut std::ffi::c_void) {
    use pg_sys::XactEvent::{XACT_EVENT_ABORT, XACT_EVENT_COMMIT, XACT_EVENT_PREPARE};
    match event {
        XACT_EVENT_COMMIT => {
            let recheck = RECHECK.swap(false, Ordering::Relaxed);
            let endpoints = ENDPOINTS.swap(false, Ordering::Relaxed);
            if MARKED.swap(false, Ordering::Relaxed) {
                tell(endpoints, recheck);
            }
        }
        XACT_EVENT_ABORT | XACT_EVENT_PREPARE => {
            MARKED.store(false, Ordering::Relaxed);
            ENDPOINTS.store(false, Ordering::Relaxed);
            RECHECK.store(false, Ordering::Relaxed);
        }
        _ => {}
    }
}

/// Tells the worker that serves this backend's database, if there is one; and the launcher, if there may have to be one.
fn tell(endpoints: bool, recheck: bool) {
    if !roster::preloaded() {
        return;
    }
    let slot = own_slot();
    if let Some(slot) = slot {
        if recheck {
            slot.recheck.store(true, Ordering::SeqCst);
        }
        if endpoints {
            slot.endpoints.store(true, Ordering::SeqCst);
        }
        // Read first: eight sessions that write the same line of memory at every commit slow each other down.
        if !slot.news.load(Ordering::SeqCst) {
            slot.news.store(true, Ordering::SeqCst);
        }
        if endpoints || recheck || slot.listening.load(Ordering::SeqCst) {
            slot.wake();
        }
    }
    if recheck || (endpoints && slot.is_none()) {
        roster::request_look();
    }
}
