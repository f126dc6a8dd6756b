//! State that belongs to one backend: a cell for statics.
//!
//! Not a `thread_local!`: its destructors would run while the process exits, after PostgreSQL has torn down what they use.

use std::cell::RefCell;

/// A `RefCell` in a static.
pub(super) struct Backend<T>(RefCell<T>);

// SAFETY: a backend has one thread that runs PostgreSQL's code, and pgrx panics when another one calls into it.
unsafe impl<T> Sync for Backend<T> {}

impl<T> Backend<T> {
    /// A cell with its first value.
    pub(super) const fn new(value: T) -> Self {
        Self(RefCell::new(value))
    }

    /// Runs `act` with the state. It must not call anything that could come back here: user code, invalidations.
    pub(super) fn with<R>(&self, act: impl FnOnce(&mut T) -> R) -> R {
        act(&mut self.0.borrow_mut())
    }

    /// Like [`with`](Self::with), for callbacks that may interrupt it: `None` then.
    pub(super) fn try_with<R>(&self, act: impl FnOnce(&mut T) -> R) -> Option<R> {
        self.0.try_borrow_mut().ok().map(|mut state| act(&mut state))
    }
}
