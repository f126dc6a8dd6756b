//! What the engine asks of the database.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use uuid::Uuid;

use crate::endpoint::Endpoint;
use crate::event::{Event, Place, Timestamp};
use crate::figures::Figures;
use crate::outcome::{Attempt, State};
use crate::position::{Leg, Position, Snapshot};
use crate::settings::Settings;

/// An endpoint as the store has it.
#[derive(Debug, Clone)]
pub struct Registered {
    /// Where and how to send.
    pub endpoint: Arc<Endpoint>,
    /// Its own position; `None` follows the head.
    pub position: Option<Position>,
    /// Since when it has only failed, as the engine wrote it (`Ledger::failing`).
    pub failing_since: Option<Timestamp>,
}

/// A delivery whose time for the next attempt has come.
#[derive(Debug, Clone)]
pub struct DueDelivery {
    /// `webhook.deliveries.id`.
    pub id: i64,
    /// Attempts so far.
    pub attempts: u32,
    /// Attempts before the schedule began anew (`webhook_retry`).
    pub attempts_before: u32,
    /// The event.
    pub event: Event,
}

/// How to go on with a leg.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// With these places.
    Read(Part),
    /// It is long and has many transactions: it must be searched for its lowest numbers, without these kinds.
    Search(Vec<Kind>),
}

/// What is looked at of a long leg at a time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Slice {
    /// Places of the leg, in any order.
    pub places: Vec<Place>,
    /// The place up to which the index was looked at; `None`: to the end.
    pub reaches: Option<Place>,
}

/// What to read of a leg next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Part {
    /// Lowest numbers first.
    pub places: Vec<Place>,
    /// The number up to which nothing else is to be read; `None`: to the end of the leg.
    pub reaches: Option<i64>,
    /// Whose places were left out.
    pub left_out: Vec<Kind>,
}

/// What decides who may want an event before it is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// It is of this type, and for whoever wants it.
    Type(String),
    /// It is for this endpoint alone.
    Target(i64),
}

/// Those for whom a plan is made.
pub trait Audience {
    /// Whether one of them may want such an event.
    fn wants(&mut self, kind: &Kind) -> bool;
    /// Event types that none of them wants, as far as they have met them.
    fn unwanted(&mut self) -> Vec<String>;
}

/// What is pending for one endpoint.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pending {
    /// The endpoint.
    pub endpoint: i64,
    /// Deliveries that have failed.
    pub failed: usize,
    /// When the first of them is due.
    pub due: Option<Timestamp>,
    /// Deliveries that somebody asked for (`webhook_retry`, `webhook_replay`) and that have not been tried since, as far as
    /// they were counted.
    pub asked: usize,
}

/// Where a delivery stands among those that were asked for: when that was, and the event's number.
pub type Asked = (Timestamp, i64);

/// One read-only transaction with one snapshot.
pub trait Reading {
    /// The head position.
    fn head(&mut self) -> Position;
    /// Whether endpoints changed that this transaction sees, and nobody has said so yet.
    fn endpoints_changed(&mut self) -> bool;
    /// All endpoints that are not inactive.
    fn endpoints(&mut self) -> Vec<Registered>;
    /// What had completed when this transaction began.
    fn snapshot(&mut self) -> Arc<Snapshot>;
    /// What became of the attempts for these endpoints until now, as far as any were made.
    fn figures(&mut self, endpoints: &[i64]) -> Vec<(i64, Figures)>;
    /// The next places of the leg, lowest numbers first, at most `limit`. When the leg is long it may look at a part of it
    /// only, find no place in that, and leave out what nobody in the audience wants.
    fn plan(&mut self, leg: &Leg, limit: usize, audience: &mut dyn Audience) -> Plan;
    /// Looks at the next places of the leg in the order of the index: by transaction, then by number.
    fn search(&mut self, leg: &Leg, after: Option<Place>, left_out: &[Kind]) -> Slice;
    /// The events at these places, in the same order. What is no longer there is left out. Their transactions are
    /// durable when this returns: a commit that is visible but not flushed could still be undone by a crash.
    fn fetch(&mut self, places: &[Place]) -> Vec<Event>;
    /// Which of these pairs of endpoint and place have a delivery already.
    fn settled(&mut self, pairs: &[(i64, Place)]) -> Vec<(i64, Place)>;
    /// What is pending; of what was asked for it counts up to `limit` for each endpoint.
    fn pending(&mut self, limit: usize) -> Vec<Pending>;
    /// The places and order keys (`event::order_key`) of the pending deliveries of these endpoints: all that have failed, and
    /// the first `limit` that were asked for.
    fn pending_keys(&mut self, endpoints: &[i64], limit: usize) -> Vec<(i64, Place, String)>;
    /// Deliveries of one endpoint that have failed and are due, oldest first, without those that are at work; and when the
    /// first of those that are not due yet will be. `among`: no others than these, be it that they were asked for.
    fn due(
        &mut self,
        endpoint: i64,
        now: Timestamp,
        limit: usize,
        at_work: &[i64],
        among: Option<&[Place]>,
    ) -> (Vec<DueDelivery>, Option<Timestamp>);
    /// Deliveries of one endpoint that were asked for, in their order, behind this one (none: from the first one on), without
    /// those that are at work; and the last of them, if there may be more.
    fn asked(
        &mut self,
        endpoint: i64,
        after: Option<Asked>,
        now: Timestamp,
        limit: usize,
        at_work: &[i64],
    ) -> (Vec<DueDelivery>, Option<Asked>);
}

/// The outcome of one attempt, to be written.
#[derive(Debug, Clone)]
pub struct Settled {
    /// The endpoint.
    pub endpoint: i64,
    /// The event's place.
    pub place: Place,
    /// The event's id.
    pub event: Uuid,
    /// The delivery row, if there is one already.
    pub delivery: Option<i64>,
    /// Attempts made, this one included.
    pub attempts: u32,
    /// The state of the delivery from now on.
    pub state: State,
    /// The attempt.
    pub attempt: Attempt,
    /// When it ended.
    pub ended_at: Timestamp,
}

/// What one turn must make durable, all or nothing.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    /// Outcomes.
    pub settled: Vec<Settled>,
    /// New positions; endpoint 0 is the head.
    pub positions: Vec<(i64, Position)>,
    /// Endpoints whose own position is to be removed.
    pub joined: Vec<i64>,
    /// Endpoints to disable, with the reason: the event `webhook.endpoint_disabled` is raised with it.
    pub disabled: Vec<(i64, String)>,
    /// Since when endpoints have only failed; `None`: they do no more.
    pub failing: BTreeMap<i64, Option<Timestamp>>,
}

impl Ledger {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.settled.is_empty()
            && self.positions.is_empty()
            && self.joined.is_empty()
            && self.disabled.is_empty()
            && self.failing.is_empty()
    }

    /// The endpoints of which it says more than outcomes; the head is none.
    pub fn endpoints(&self) -> impl Iterator<Item = i64> + '_ {
        let moved = self.positions.iter().map(|(id, _)| *id).filter(|id| *id != 0);
        let disabled = self.disabled.iter().map(|(id, _)| *id);
        moved.chain(self.joined.iter().copied()).chain(disabled).chain(self.failing.keys().copied())
    }

    /// Whether its positions may be written. They hold only together: one that has left the head and has no position of
    /// its own in the store would after a crash go on where the head stands.
    pub fn may_move(&self, held: &Held) -> bool {
        let moved = self.positions.iter().map(|(id, _)| id).chain(&self.joined);
        moved.into_iter().all(|id| !held.endpoints.contains(id))
    }
}

/// What was not written of a ledger because a transaction that is open holds it: nobody waits for somebody's COMMIT.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Held {
    /// Outcomes of these deliveries.
    pub deliveries: HashSet<(i64, Place)>,
    /// All that concerns these endpoints otherwise.
    pub endpoints: HashSet<i64>,
}

/// The database. Each call is a transaction of its own; none stays open.
pub trait Store {
    /// Why the database refused, in one line.
    type Error: std::fmt::Display;
    /// Takes over what it needs of new settings.
    fn configure(&mut self, settings: &Settings);
    /// Reads in one short transaction.
    ///
    /// # Errors
    /// The database refused, or the extension is gone. What `read` had begun must be given up: the engine is to be
    /// started anew.
    fn read<R>(&mut self, read: impl FnOnce(&mut dyn Reading) -> R) -> Result<R, Self::Error>;
    /// Writes the ledger in one short transaction, but for what is held. A crash may undo it until it is flushed.
    ///
    /// # Errors
    /// Nothing was written (disk full, lock timeout, read-only). The engine keeps the ledger and tries again.
    fn write(&mut self, ledger: &Ledger) -> Result<Held, Self::Error>;
    /// The clock was put back by this: what is stored to be due later than now becomes due so much earlier.
    ///
    /// # Errors
    /// Nothing was changed.
    fn put_back(&mut self, now: Timestamp, by: Timestamp) -> Result<(), Self::Error>;
    /// Makes durable what was written.
    fn flush(&mut self);
    /// Lets everybody see the figures of an endpoint at once, and how many requests to it are in flight; `is_saved`: they are
    /// written, too. Cheap, and never fails.
    fn show(&mut self, endpoint: i64, in_flight: usize, figures: &Figures, is_saved: bool);
    /// Writes figures, in a transaction of their own. What somebody's open transaction holds is left out.
    ///
    /// # Errors
    /// Nothing was written.
    fn save_figures(&mut self, figures: &[(i64, &Figures)]) -> Result<(), Self::Error>;
}
