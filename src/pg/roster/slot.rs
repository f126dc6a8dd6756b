//! A slot: one database and its worker.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst};

use super::set_latch;
use crate::pg::notice::Notice;

/// What became of the worker of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum State {
    /// It has not been started yet.
    None,
    /// The postmaster was asked to start it.
    Starting,
    /// It runs and looks for the extension.
    Looking,
    /// It serves the database.
    Serving,
    /// It ended: the extension is not there.
    Absent,
    /// It ended: the database is a copy.
    Copy,
    /// It ended because it was told to.
    Stopped,
    /// It was terminated.
    Terminated,
    /// It failed, or never came.
    Failed,
    /// It could not be started: all of `max_worker_processes` are in use.
    NoRoom,
}

impl State {
    /// Whether there is a process, or may be one in a moment.
    pub fn is_alive(self) -> bool {
        matches!(self, Self::Starting | Self::Looking | Self::Serving)
    }

    pub(super) fn of(number: u32) -> Self {
        use State::*;
        let all = [None, Starting, Looking, Serving, Absent, Copy, Stopped, Terminated, Failed, NoRoom];
        usize::try_from(number).ok().and_then(|n| all.get(n).copied()).unwrap_or(None)
    }
}

/// A database that has a worker or waits for one.
#[derive(Default)]
pub struct Slot {
    /// Its oid; 0 in a free slot.
    pub(super) database: AtomicU32,
    /// A [`State`].
    pub(super) state: AtomicU32,
    /// Counts the starts, so that a worker that comes too late is not taken for its successor.
    pub(super) ticket: AtomicU32,
    /// Process id of its worker.
    pub(super) pid: AtomicU32,
    /// Address of its worker's latch.
    pub(super) latch: AtomicU64,
    /// Its worker is to end.
    pub(super) stop: AtomicBool,
    /// Something changed that the worker looks at only now and then.
    pub recheck: AtomicBool,
    /// Endpoints were changed since the worker looked last.
    pub endpoints: AtomicBool,
    /// Events were committed since the worker looked last.
    pub news: AtomicBool,
    /// The worker wants to be woken for events.
    pub listening: AtomicBool,
    /// Why the worker sends nothing, or not everything.
    pub(in crate::pg) fault: Notice,
}

impl Slot {
    /// What became of its worker.
    pub fn state(&self) -> State {
        State::of(self.state.load(SeqCst))
    }

    pub(super) fn becomes(&self, state: State) {
        self.state.store(state as u32, SeqCst);
    }

    pub(super) fn changes(&self, from: State, to: State) -> bool {
        self.state.compare_exchange(from as u32, to as u32, SeqCst, SeqCst).is_ok()
    }

    /// Wakes its worker, if there is one.
    pub fn wake(&self) {
        set_latch(&self.latch);
    }

    /// Tells its worker to end: as soon as its turn is over, or, `at_once`, wherever it can be interrupted.
    pub fn stop(&self, at_once: bool) {
        self.stop.store(true, SeqCst);
        self.wake();
        if let Some(pid) = self.pid().filter(|_| at_once) {
            // SAFETY: no pointers. The worker takes its id out before it exits, so this is no other process.
            unsafe { libc::kill(pid, libc::SIGTERM) };
        }
    }

    /// Process id of its worker.
    pub fn pid(&self) -> Option<i32> {
        i32::try_from(self.pid.load(SeqCst)).ok().filter(|pid| *pid != 0)
    }
}
