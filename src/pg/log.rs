//! The log of a background process.

use std::time::Instant;

use pgrx::prelude::*;

use crate::complaints::Complaints;

/// What one process says in the server's log.
pub struct Log {
    process: &'static str,
    complaints: Complaints,
}

impl Log {
    /// The log of a process of this name.
    pub fn new(process: &'static str) -> Self {
        Self { process, complaints: Complaints::default() }
    }

    /// Logs a trouble, unless it was logged within the last minute.
    pub fn warn(&mut self, trouble: &str) {
        self.warn_once(trouble, trouble);
    }

    /// The same for a trouble whose text changes while it lasts: `subject` says which it is.
    pub fn warn_once(&mut self, subject: &str, trouble: &str) {
        if self.complaints.admits(subject, Instant::now()) {
            warning!("{}: {trouble}", self.process);
        }
    }
}
