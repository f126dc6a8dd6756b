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

use super::limits::Limits;
use super::policy::breaker::Breaker;
use super::policy::order::Order;
use super::policy::rate::Rate;
use super::policy::slots::Pace;
use super::reader::Reader;
use super::store::Asked;
use super::task::{Origin, Task};
use crate::endpoint::{Endpoint, Ordering};
use crate::event::{Place, Timestamp};
use crate::figures::Figures;
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
    /// Deliveries that failed and are to be tried again, before new events.
    pub retries: VecDeque<Task>,
    /// Deliveries that were asked for: they take turns with new events, so that a long replay holds up nothing. With an order
    /// they are among the retries.
    pub replays: VecDeque<Task>,
    /// Whether the last one was one of them.
    replayed: bool,
    /// What is in flight, or has landed and its outcome is not written yet: tickets by place.
    pub flying: HashMap<Place, u64>,
    /// Requests that the transport has.
    pub in_flight: usize,
    /// The last answer was a success and came at once. Then the transport may have requests in store, so that its threads
    /// need not wait for the main thread between two.
    pub brisk: bool,
    /// Entries of the head's window that it has not settled.
    pub head_open: BTreeSet<u64>,
    /// Pending rows that have failed, as far as known; with an order, those that were asked for as well.
    pub pending: usize,
    /// When the first of them is due.
    pub next_due: Option<Timestamp>,
    /// Rows that were asked for, as far as known.
    pub asked: usize,
    /// Up to where they have been brought in.
    pub asked_upto: Option<Asked>,
    /// With an order: more was asked for than is known by key, so that nobody knows which new event would overtake some of it.
    pub is_crowded: bool,
    /// Nothing is sent before.
    pub hold_until: Timestamp,
    /// Whether it only fails.
    pub breaker: Breaker,
    /// Since when it has only failed, as the store has it.
    pub saved_failing: Option<Timestamp>,
    /// Requests per second, if they are limited.
    pub rate: Option<Rate>,
    /// Who waits for whom.
    pub order: Order,
    /// How promptly it answers.
    pub pace: Pace,
    /// What became of its attempts.
    pub figures: Figures,
}

impl Lane {
    /// A lane of an endpoint that has this position row (none: it follows the head) and has only failed since then.
    pub fn new(endpoint: Arc<Endpoint>, saved: Option<Position>, failing_since: Option<Timestamp>) -> Self {
        Self {
            rate: endpoint.rate_limit.map(Rate::new),
            order: Order::new(endpoint.ordering),
            endpoint,
            feed: if saved.is_some() { Feed::Own } else { Feed::Head },
            reader: saved.clone().map(Reader::at),
            saved,
            queue: VecDeque::new(),
            retries: VecDeque::new(),
            replays: VecDeque::new(),
            replayed: false,
            flying: HashMap::new(),
            in_flight: 0,
            brisk: false,
            head_open: BTreeSet::new(),
            pending: 0,
            next_due: None,
            asked: 0,
            asked_upto: None,
            is_crowded: false,
            hold_until: Timestamp::MIN,
            breaker: Breaker::restored(failing_since),
            saved_failing: failing_since,
            pace: Pace::default(),
            figures: Figures::default(),
        }
    }

    /// Whether the head reader feeds it.
    pub fn follows(&self) -> bool {
        matches!(self.feed, Feed::Head | Feed::Joining)
    }

    /// Whether it can take new events. Too many pending ones mean that its endpoint fails.
    pub fn is_hungry(&self, limits: &Limits, now: Timestamp) -> bool {
        self.has_room(limits.hungry, limits, now)
    }

    /// Whether it can take an event that the head has read.
    pub fn can_follow(&self, limits: &Limits, now: Timestamp) -> bool {
        self.has_room(limits.full, limits, now)
    }

    fn has_room(&self, queue: usize, limits: &Limits, now: Timestamp) -> bool {
        let is_strict = self.order.rule() == Ordering::Strict;
        let parks = if is_strict { queue } else { limits.parked };
        if self.order.parked() >= parks || (is_strict && self.pending > 0) {
            return false;
        }
        if self.breaker.is_open() {
            return self.wants_probe(limits, now);
        }
        self.queue.len() < queue && self.pending < limits.pending
    }

    /// Whether its breaker is open, and it is time to try one new event, because there is nothing else to try.
    fn wants_probe(&self, limits: &Limits, now: Timestamp) -> bool {
        self.breaker.admits(now)
            && self.hold_until <= now
            && self.pending < limits.failing_pending
            && self.flying.is_empty()
            && self.queue.is_empty()
            && self.retries.is_empty()
            && self.replays.is_empty()
            && !self.is_due(now)
    }

    /// Whether it waits for events that may yet come.
    pub fn is_fed(&self, limits: &Limits, now: Timestamp) -> bool {
        self.feed != Feed::Stopped && self.is_hungry(limits, now)
    }

    /// Whether deliveries are to be brought into it whose time has come.
    pub fn is_due(&self, now: Timestamp) -> bool {
        let failed = self.retries.is_empty() && self.next_due.is_some_and(|due| due <= now);
        self.feed != Feed::Stopped && (failed || self.wants_replays())
    }

    /// Whether deliveries are to be brought in that were asked for.
    pub fn wants_replays(&self) -> bool {
        self.asked > 0 && self.replays.is_empty() && self.order.rule() == Ordering::None
    }

    /// What was brought in from the store is dropped, to be brought in again.
    pub fn forget_due(&mut self) {
        self.retries.clear();
        self.replays.clear();
        self.asked_upto = None;
    }

    /// Whether it has something to send, or will have to see to something without being asked.
    pub fn is_at_rest(&self) -> bool {
        let waits = !(self.queue.is_empty()
            && self.retries.is_empty()
            && self.replays.is_empty()
            && self.flying.is_empty()
            && self.head_open.is_empty());
        match (&self.feed, &self.reader) {
            _ if waits || self.order.parked() > 0 => false,
            (Feed::Head, None) => {
                self.next_due.is_none() && self.pending + self.asked == 0 && !self.breaker.is_open()
            }
            (Feed::Stopped, Some(reader)) => self.saved.as_ref() == Some(reader.low_water()),
            _ => false,
        }
    }

    /// Requests that may be in flight, when the endpoint's limit is so large.
    pub fn slots(&self, limit: usize) -> usize {
        let limit = if self.order.rule() == Ordering::Strict { limit.min(1) } else { limit };
        self.breaker.slots(limit)
    }

    /// When it may send what waits, as far as its own rules go; `None`: nothing waits that it could send.
    pub fn ready_at(&self) -> Option<Timestamp> {
        let waits = !(self.queue.is_empty() && self.replays.is_empty());
        let new = waits.then(|| self.breaker.probe_at().unwrap_or(Timestamp::MIN));
        let retry = (!self.retries.is_empty()).then_some(Timestamp::MIN);
        let at = retry.or(new)?.max(self.hold_until);
        Some(at.max(self.rate.map_or(Timestamp::MIN, |rate| rate.next_at())))
    }

    /// The next delivery to try: what is due before what is new or asked for, which take turns. `may_repeat`: also one that
    /// has a row.
    pub fn next_task(&mut self, now: Timestamp, may_repeat: bool) -> Option<Task> {
        let (order, flying) = (&mut self.order, &self.flying);
        let is_flying = |place| flying.contains_key(&place);
        let retry = self.retries.iter().position(|task| order.admits_retry(&task.event, is_flying));
        if let Some(at) = retry {
            if may_repeat {
                return self.retries.remove(at);
            }
            if order.rule() != Ordering::None {
                return None;
            }
        }
        if self.is_crowded || !self.breaker.admits(now) {
            return None;
        }
        let waits = !may_repeat || (self.replayed && !self.queue.is_empty());
        let replay = if waits { None } else { self.replays.pop_front() };
        self.replayed = replay.is_some();
        replay.or_else(|| self.order.next(&mut self.queue))
    }

    /// The clock was put back so far: nothing waits longer for it. What is stored: [`due_earlier`](Self::due_earlier).
    pub fn put_back(&mut self, by: Timestamp) {
        self.hold_until = self.hold_until.saturating_sub(by);
        self.breaker.put_back(by);
        self.pace.put_back(by);
        if let Some(rate) = &mut self.rate {
            rate.put_back(by);
        }
    }

    /// What is stored is due so much earlier.
    pub fn due_earlier(&mut self, by: Timestamp) {
        self.next_due = self.next_due.map(|due| due.saturating_sub(by));
        self.asked_upto = None;
    }

    /// A request leaves.
    pub fn started(&mut self, task: &Task, ticket: u64, now: Timestamp) {
        self.pace.started(self.in_flight, now);
        self.flying.insert(task.event.place, ticket);
        self.in_flight += 1;
        self.order.occupy(task.event.place, task.event.order_key());
        if let Some(rate) = &mut self.rate {
            rate.spend(now);
        }
    }

    /// Takes over a new configuration. What it has learned holds for the old one only.
    pub fn change(&mut self, endpoint: Arc<Endpoint>, failing_since: Option<Timestamp>) {
        let forgiven = self.saved_failing.is_some() && failing_since.is_none();
        if self.endpoint != endpoint || forgiven {
            self.breaker = Breaker::restored(failing_since);
            self.saved_failing = failing_since;
        }
        if self.endpoint.rate_limit != endpoint.rate_limit {
            self.rate = endpoint.rate_limit.map(Rate::new);
        }
        self.endpoint = endpoint;
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
        self.order.forget(&mut self.queue);
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
            // Whoever is stopped has nothing in memory: until it goes on, somebody may cancel it.
            if self.feed != Feed::Stopped {
                self.retries.push_front(task);
            }
            return;
        }
        match task.origin {
            Origin::Loose => self.order.drop_back(&task.event),
            Origin::Own(_) | Origin::Head(_) => self.order.take_back(task, &mut self.queue),
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
