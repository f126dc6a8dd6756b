//! A lane: one endpoint at work.
//!
//! ```text
//!            falls behind, paused, disabled                         caught up
//!   Head ───────────────────────────────────▶ Own ────────────────────────────────▶ Joining ──▶ Head
//!    fed by the head reader        reads for itself, position row        fed by the head; the row stays until
//!                                        │    ▲                          what it read itself is settled
//!                                  pause ▼    │ resume
//!                                       Stopped
//! ```

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use super::reader::Reader;
use crate::endpoint::Endpoint;
use crate::event::{Event, Place, Timestamp};
use crate::position::Position;

/// Who feeds a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feed {
    /// The head reader.
    Head,
    /// The head reader, while events of its own reader are not settled yet.
    Joining,
    /// Its own reader.
    Own,
    /// Nobody: paused or disabled. Its position waits.
    Stopped,
}

/// Which window must hear that an event is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Entry of the head's window.
    Head(u64),
    /// Entry of the lane's own window.
    Own(u64),
    /// None: a retry, or a flight whose lane left the reader that fed it.
    Loose,
}

/// A delivery row that is tried again.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// `webhook.deliveries.id`.
    pub id: i64,
    /// Attempts so far.
    pub attempts: u32,
    /// Attempts before the schedule began anew.
    pub attempts_before: u32,
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

/// One endpoint at work.
#[derive(Debug)]
pub struct Lane {
    /// Where and how to send.
    pub endpoint: Arc<Endpoint>,
    /// Who feeds it.
    pub feed: Feed,
    /// Its own reader, unless it simply follows the head.
    pub reader: Option<Reader>,
    /// The position row in the store.
    pub saved: Option<Position>,
    /// New events.
    pub queue: VecDeque<Task>,
    /// Deliveries to try again, before new events.
    pub retries: VecDeque<Task>,
    /// What is in flight, or has landed and its outcome is not written yet: tickets by place.
    pub flying: HashMap<Place, u64>,
    /// Requests that the transport has.
    pub in_flight: usize,
    /// The last answer was a success and came at once. Then the transport may have requests in store, so that its threads
    /// need not wait for the main thread between two.
    pub brisk: bool,
    /// Entries of the head's window that it has not settled.
    pub head_open: BTreeSet<u64>,
    /// Pending rows, as far as known.
    pub pending: usize,
    /// When the first pending row is due.
    pub next_due: Option<Timestamp>,
    /// Nothing is sent before.
    pub hold_until: Timestamp,
}

impl Lane {
    /// A lane of an endpoint that has this position row (none: it follows the head).
    pub fn new(endpoint: Arc<Endpoint>, saved: Option<Position>) -> Self {
        Self {
            endpoint,
            feed: if saved.is_some() { Feed::Own } else { Feed::Head },
            reader: saved.clone().map(Reader::at),
            saved,
            queue: VecDeque::new(),
            retries: VecDeque::new(),
            flying: HashMap::new(),
            in_flight: 0,
            brisk: false,
            head_open: BTreeSet::new(),
            pending: 0,
            next_due: None,
            hold_until: Timestamp::MIN,
        }
    }

    /// Whether the head reader feeds it.
    pub fn follows(&self) -> bool {
        matches!(self.feed, Feed::Head | Feed::Joining)
    }

    /// Stops being fed by whoever feeds it, and stands alone where its first unsettled event is. What waits in memory is
    /// dropped, to be read again; what is in flight goes on.
    pub fn leave(&mut self, head: &mut Reader, feed: Feed) {
        // What its own reader has not settled lies before anything the head fed it.
        let own =
            self.reader.as_ref().filter(|r| !self.follows() || !r.window.is_empty()).map(Reader::low_water);
        let from_head =
            || self.head_open.first().and_then(|&n| head.window.mark(n)).unwrap_or(&head.position);
        let position = own.unwrap_or_else(from_head).clone();
        self.forget_head(head);
        self.queue.clear();
        self.reader = Some(Reader::at(position));
        self.feed = feed;
    }

    /// The head's window waits for this lane no longer.
    pub fn forget_head(&mut self, head: &mut Reader) {
        for number in std::mem::take(&mut self.head_open) {
            head.window.settle(number);
        }
    }

    /// A request failed by no fault of the receiver's, or did not leave: the event waits here, and no attempt is counted. If
    /// the lane has left the reader that fed it, it will be read again.
    pub fn take_back(&mut self, task: Task) {
        self.flying.remove(&task.event.place);
        if task.row.is_some() {
            self.retries.push_front(task);
        } else if task.origin != Origin::Loose {
            self.queue.push_front(task);
        }
    }

    /// An event that was fed to it is settled.
    pub fn settle(&mut self, origin: Origin, head: &mut Reader) {
        match origin {
            Origin::Head(number) => {
                // Not there: the lane has left the head meanwhile.
                if self.head_open.remove(&number) {
                    head.window.settle(number);
                }
            }
            Origin::Own(number) => {
                if let Some(reader) = &mut self.reader {
                    reader.window.settle(number);
                }
            }
            Origin::Loose => {}
        }
    }

    /// Where the store must say it stands; `None` when it follows the head and the head's position says it all. It does not
    /// while something of its own is open, nor while the head, started anew, would hand out what lies before the lane:
    /// events from before its registration.
    pub fn position_to_save(&self, head: &Reader) -> Option<&Position> {
        let reader = self.reader.as_ref()?;
        match self.feed {
            Feed::Head => None,
            Feed::Joining if reader.window.is_empty() => {
                let joined_at = &reader.position;
                joined_at.legs_to(head.low_water()).is_none().then_some(joined_at)
            }
            Feed::Joining | Feed::Own | Feed::Stopped => Some(reader.low_water()),
        }
    }
}
