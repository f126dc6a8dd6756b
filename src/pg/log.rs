//! What a background process complains about: the same once a minute, and not more than a few different things.

use std::time::{Duration, Instant};

use pgrx::prelude::*;

/// How often the same trouble is logged at most.
const INTERVAL: Duration = Duration::from_secs(60);
/// Different troubles a minute.
const MAX_LINES: usize = 10;

/// The complaints of one process.
pub struct Log {
    process: &'static str,
    told: Vec<(String, Instant)>,
}

impl Log {
    /// The log of a process of this name.
    pub fn new(process: &'static str) -> Self {
        Self { process, told: Vec::new() }
    }

    /// Logs a trouble, unless it was logged within the last minute.
    pub fn warn(&mut self, trouble: &str) {
        self.warn_once(trouble, trouble);
    }

    /// The same for a trouble whose text changes while it lasts: `subject` says which it is.
    pub fn warn_once(&mut self, subject: &str, trouble: &str) {
        let now = Instant::now();
        self.told.retain(|(_, at)| now - *at < INTERVAL);
        if self.told.len() < MAX_LINES && !self.told.iter().any(|(told, _)| told == subject) {
            warning!("{}: {trouble}", self.process);
            self.told.push((subject.to_owned(), now));
        }
    }
}
