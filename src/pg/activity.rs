//! What pg_stat_activity shows of our processes: state, what they do, what they wait for.

use std::ffi::{CStr, CString};
use std::time::Duration;

use pgrx::prelude::*;

/// A wait event of our own. PostgreSQL names such events from version 17 on; before, it says "Extension".
#[derive(Clone, Copy)]
pub(super) struct WaitEvent(u32);

impl WaitEvent {
    /// The event of this name, of at most 63 bytes. For a process that is attached to shared memory.
    pub(super) fn new(name: &'static CStr) -> Self {
        #[cfg(any(feature = "pg15", feature = "pg16"))]
        let number = {
            let _ = name;
            pg_sys::PG_WAIT_EXTENSION
        };
        // SAFETY: looks the name up in shared memory, or adds it; it is copied.
        #[cfg(not(any(feature = "pg15", feature = "pg16")))]
        let number = unsafe { pg_sys::WaitEventExtensionNew(name.as_ptr()) };
        Self(number)
    }

    /// What PostgreSQL's waiting functions take.
    pub(super) fn number(self) -> u32 {
        self.0
    }
}

/// A turn of the worker begins.
pub(super) fn begins() {
    report(pg_sys::BackendState::STATE_RUNNING, c"reading and writing");
}

/// A turn of the worker is over: it waits for answers, or for something to do; `in_flight`: requests, if it serves at all. Flushes
/// its statistics: a background worker that does not is invisible to autovacuum. Answers when to come back at the latest, for them.
pub(super) fn ends(in_flight: Option<usize>, wait: Duration) -> Duration {
    match in_flight {
        None => report(pg_sys::BackendState::STATE_IDLE, c"paused"),
        Some(0) => report(pg_sys::BackendState::STATE_IDLE, c"idle"),
        Some(count) => {
            let text = CString::new(format!("{count} requests in flight")).unwrap_or_default();
            report(pg_sys::BackendState::STATE_RUNNING, &text);
        }
    }
    // SAFETY: no transaction is open.
    let again_ms = unsafe { pg_sys::pgstat_report_stat(false) };
    match u64::try_from(again_ms) {
        Ok(ms @ 1..) => wait.min(Duration::from_millis(ms)),
        _ => wait,
    }
}

fn report(state: pg_sys::BackendState::Type, text: &CStr) {
    // SAFETY: no transaction is open; the text is copied.
    unsafe { pg_sys::pgstat_report_activity(state, text.as_ptr()) };
}
