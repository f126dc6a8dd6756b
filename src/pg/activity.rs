//! What pg_stat_activity shows of our processes: state, what they do, what they wait for.

use std::ffi::{CStr, CString};
use std::time::{Duration, Instant};

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

/// How long statistics may wait, which PostgreSQL takes at most once in this time.
const FLUSHED_WITHIN: Duration = Duration::from_secs(1);

/// What the worker shows of itself, turn after turn.
#[derive(Default)]
pub(super) struct Activity {
    /// Since when PostgreSQL has not taken all statistics.
    owed: Option<Instant>,
}

impl Activity {
    /// A turn of the worker begins.
    pub(super) fn begins(&self) {
        report(pg_sys::BackendState::STATE_RUNNING, c"reading and writing");
    }

    /// A turn of the worker is over: it waits for answers, or for something to do; `in_flight`: requests, if it serves at all.
    /// Flushes its statistics: a background worker that does not is invisible to autovacuum. Answers when to come back at the
    /// latest, for them.
    pub(super) fn ends(&mut self, in_flight: Option<usize>, wait: Duration) -> Duration {
        match in_flight {
            None => report(pg_sys::BackendState::STATE_IDLE, c"paused"),
            Some(0) => report(pg_sys::BackendState::STATE_IDLE, c"idle"),
            Some(count) => {
                let text = CString::new(format!("{count} requests in flight")).unwrap_or_default();
                report(pg_sys::BackendState::STATE_RUNNING, &text);
            }
        }
        wait.min(self.flush())
    }

    /// Answers when to come back. As in an idle session, the last statistics must be forced upon PostgreSQL: it tells the time by
    /// the last transaction, and would refuse them until there is another.
    fn flush(&mut self) -> Duration {
        let waited = self.owed.map_or(Duration::ZERO, |since| since.elapsed());
        let is_late = waited >= FLUSHED_WITHIN;
        // SAFETY: no transaction is open.
        let is_owed = unsafe { pg_sys::pgstat_report_stat(is_late) } > 0 && !is_late;
        if !is_owed {
            self.owed = None;
            return Duration::MAX;
        }
        self.owed.get_or_insert_with(Instant::now);
        FLUSHED_WITHIN - waited
    }
}

fn report(state: pg_sys::BackendState::Type, text: &CStr) {
    // SAFETY: no transaction is open; the text is copied.
    unsafe { pg_sys::pgstat_report_activity(state, text.as_ptr()) };
}
