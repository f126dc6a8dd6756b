//! A task: one event on its way through a lane.

use std::sync::Arc;

use crate::event::Event;

/// Which window must hear that an event is settled. In a lane the order of origins is the order of reading: what its own
/// reader fed it lies before what the head does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Entry of the lane's own window.
    Own(u64),
    /// Entry of the head's window.
    Head(u64),
    /// None: a retry, or a flight whose lane left the reader that fed it.
    Loose,
}

/// A delivery row that is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// `webhook.deliveries.id`.
    pub id: i64,
    /// Attempts so far.
    pub attempts: u32,
    /// Attempts before the schedule began anew.
    pub attempts_before: u32,
}

impl Row {
    /// Somebody asked for it (`webhook_retry`, `webhook_replay`), and it has not been tried since.
    pub fn is_asked(self) -> bool {
        self.attempts == self.attempts_before
    }
}

/// One event waiting in a lane.
#[derive(Debug, Clone)]
pub struct Task {
    /// What to send.
    pub event: Arc<Event>,
    /// Set when it is a retry.
    pub row: Option<Row>,
    /// Who hears of its end.
    pub origin: Origin,
}

/// A request in flight.
#[derive(Debug)]
pub struct Flight {
    /// Whose endpoint gets it.
    pub lane: i64,
    /// What was taken from the lane.
    pub task: Task,
    /// Number of this attempt, from 1.
    pub attempt: u32,
}
