//! Faults of our own that hold up sending at present: they cost no endpoint an attempt, so nothing else would show them.

use std::collections::BTreeMap;

use crate::event::Timestamp;

/// Stands for the store, beside endpoints, which count from 1.
pub const STORE: i64 = 0;

/// Who waits for a fault to end.
#[derive(Debug, Default)]
pub struct Faults {
    since: BTreeMap<i64, Timestamp>,
    message: String,
}

impl Faults {
    /// This endpoint, or the store, met a fault, or still does. `message` is one line for people.
    pub fn met(&mut self, id: i64, message: String, now: Timestamp) {
        self.since.entry(id).or_insert(now);
        self.message = message;
    }

    /// It met none this time.
    pub fn ended(&mut self, id: i64) {
        self.since.remove(&id);
    }

    /// Forgets those that wait no longer.
    pub fn retain(&mut self, waits: impl Fn(i64) -> bool) {
        self.since.retain(|id, _| waits(*id));
    }

    /// Since when somebody waits, and what was met last.
    pub fn present(&self) -> Option<(Timestamp, &str)> {
        self.since.values().min().map(|since| (*since, self.message.as_str()))
    }
}
