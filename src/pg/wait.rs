//! What the main thread waits on, and nothing else: its latch, the bell of the HTTP threads, the postmaster's death.

use std::time::Duration;

use pgrx::prelude::*;

use super::activity::WaitEvent;
use super::thread::Bell;

/// A set of wait events that lives as long as the process.
pub struct Waiter {
    set: *mut pg_sys::WaitEventSet,
    bell: Bell,
    event: WaitEvent,
}

/// Why the wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Woken {
    /// The latch was set: a commit, a signal, a changed configuration.
    pub by_latch: bool,
}

impl Waiter {
    /// Waits for this bell beside the latch.
    pub fn new(bell: Bell) -> Self {
        // SAFETY: called once by a process with a latch; the set is never freed.
        unsafe {
            #[cfg(any(feature = "pg15", feature = "pg16"))]
            let set = pg_sys::CreateWaitEventSet(pg_sys::TopMemoryContext, 3);
            // No resource owner: the set outlives every transaction.
            #[cfg(not(any(feature = "pg15", feature = "pg16")))]
            let set = pg_sys::CreateWaitEventSet(std::ptr::null_mut(), 3);
            let nobody = std::ptr::null_mut();
            let no_latch = std::ptr::null_mut();
            pg_sys::AddWaitEventToSet(
                set,
                pg_sys::WL_LATCH_SET,
                pg_sys::PGINVALID_SOCKET,
                pg_sys::MyLatch,
                nobody,
            );
            pg_sys::AddWaitEventToSet(
                set,
                pg_sys::WL_EXIT_ON_PM_DEATH,
                pg_sys::PGINVALID_SOCKET,
                no_latch,
                nobody,
            );
            pg_sys::AddWaitEventToSet(set, pg_sys::WL_SOCKET_READABLE, bell.fd(), no_latch, nobody);
            Self { set, bell, event: WaitEvent::new(c"WebhookWorkerMain") }
        }
    }

    /// Waits until something happens or the time is over. Ends the process when the postmaster is dead, without
    /// waiting for its threads.
    pub fn wait(&self, timeout: Duration) -> Woken {
        // Up: a wait that ends a moment early would only come back.
        let ms = i64::try_from(timeout.as_micros().div_ceil(1000)).unwrap_or(i64::MAX).min(3_600_000);
        let mut events = [pg_sys::WaitEvent::default(); 3];
        // SAFETY: the set from above and room for all its events.
        let count =
            unsafe { pg_sys::WaitEventSetWait(self.set, ms, events.as_mut_ptr(), 3, self.event.number()) };
        let happened = &events[..usize::try_from(count).unwrap_or(0)];
        let by_latch = happened.iter().any(|event| event.events & pg_sys::WL_LATCH_SET != 0);
        if happened.iter().any(|event| event.events & pg_sys::WL_SOCKET_READABLE != 0) {
            self.bell.silence();
        }
        if by_latch {
            // SAFETY: the latch of this process. Reset before looking for work, so that no wake-up is lost.
            unsafe { pg_sys::ResetLatch(pg_sys::MyLatch) };
        }
        Woken { by_latch }
    }
}
