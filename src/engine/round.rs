//! A round: one turn of the dispatcher. Collect, write, read, start; short, and never waiting for a receiver.

mod answers;
mod figures;
mod starting;
mod writing;

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use super::faults::{self, Faults};
use super::feed::{self, Desk};
use super::lane::{Feed, Lane};
use super::lanes::Lanes;
use super::limits::{Limits, Load};
use super::reader::Reader;
use super::store::{Ledger, Settled, Store};
use super::task::{Flight, Task};
use super::{Completion, Transport, Turn};
use crate::event::Timestamp;
use crate::outcome::State;
use crate::position::Position;
use crate::settings::Settings;

/// Which event goes to which endpoint when.
pub struct Dispatcher<S, T> {
    store: S,
    transport: T,
    settings: Settings,
    limits: Limits,
    chance: Box<dyn FnMut() -> f64>,
    head: Reader,
    saved_head: Position,
    /// A commit may have brought events that no snapshot of the head sees yet.
    fresh: bool,
    /// Endpoints changed, and have not been read since.
    endpoints_changed: bool,
    lanes: Lanes,
    flights: HashMap<u64, Flight>,
    next_ticket: u64,
    /// Attempts that ended before they began: their events cannot be read.
    unsent: Vec<Completion>,
    /// Outcomes to write, and whom to tell afterwards.
    ledger: Ledger,
    landed: Vec<(i64, Task)>,
    /// Outcomes that somebody's open transaction keeps from being written, and when to try again.
    held: Vec<(Settled, (i64, Task))>,
    held_until: Timestamp,
    /// Outcomes that are written and that a crash may undo all the same.
    at_risk: usize,
    write_after: Timestamp,
    /// When positions may be saved again.
    positions_after: Timestamp,
    /// Outcomes were written since positions were noted: there is something to save.
    settled_since: bool,
    /// Where the last turn stopped handing out slots, for each class of endpoints.
    turn_of: [i64; 3],
    /// The same of reading, for lanes that read for themselves and for those that are due.
    own_from: i64,
    due_from: i64,
    /// The clock of the last turn.
    clock: Timestamp,
    /// By how much it was put back, as far as the store does not know.
    put_back: Timestamp,
    /// Events to fetch at a time.
    chunk: usize,
    /// The last round stopped reading although there was more.
    unfinished: bool,
    /// A failure that was met since the last question, for the log.
    trouble: Option<String>,
    faults: Faults,
    /// Endpoints whose figures or requests in flight have changed and are not shown yet; whose figures are not saved yet, and
    /// when they are to be.
    touched: BTreeSet<i64>,
    unsaved: BTreeSet<i64>,
    figures_at: Timestamp,
}

impl<S: Store, T: Transport> Dispatcher<S, T> {
    /// A dispatcher that goes on where the store says. `chance` draws from 0 to 1.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn start(
        mut store: S,
        transport: T,
        settings: Settings,
        chance: Box<dyn FnMut() -> f64>,
    ) -> Result<Self, S::Error> {
        let saved_head = store.read(|db| db.head())?;
        let mut dispatcher = Self {
            store,
            transport,
            settings: settings.clone(),
            limits: Limits::default(),
            chance,
            head: Reader::at(saved_head.clone()),
            saved_head,
            fresh: true,
            endpoints_changed: true,
            lanes: Lanes::default(),
            flights: HashMap::new(),
            next_ticket: 0,
            unsent: Vec::new(),
            ledger: Ledger::default(),
            landed: Vec::new(),
            held: Vec::new(),
            held_until: Timestamp::MIN,
            at_risk: 0,
            write_after: Timestamp::MIN,
            positions_after: Timestamp::MIN,
            settled_since: false,
            turn_of: [0; 3],
            own_from: 0,
            due_from: 0,
            clock: Timestamp::MIN,
            put_back: 0,
            chunk: Limits::default().first_chunk,
            unfinished: false,
            trouble: None,
            faults: Faults::default(),
            touched: BTreeSet::new(),
            unsaved: BTreeSet::new(),
            figures_at: Timestamp::MIN,
        };
        dispatcher.configure(settings);
        Ok(dispatcher)
    }

    /// The same dispatcher with other limits.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, chunk: limits.first_chunk, ..self }
    }

    /// Puts new settings in force.
    pub fn configure(&mut self, settings: Settings) {
        self.transport.configure(&settings.egress, settings.max_in_flight);
        self.store.configure(&settings);
        self.settings = settings;
        if !self.settings.enabled {
            self.lanes.ids().into_iter().for_each(|id| self.recall(id));
        }
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> usize {
        self.flights.len()
    }

    /// Whether new events would be read at once. Else it is enough to say in the next round that there are some.
    pub fn wants_news(&self) -> bool {
        let is_fed = || self.lanes.active().any(|(_, lane)| lane.is_fed(&self.limits, self.clock));
        self.settings.enabled && (self.lanes.has_resting_follower() || is_fed())
    }

    /// What is held in memory.
    pub fn load(&self) -> Load {
        let readers = || self.lanes.all().filter_map(|lane| lane.reader.as_ref()).chain([&self.head]);
        Load {
            longest_queue: self.lanes.all().map(|lane| lane.queue.len()).max().unwrap_or(0),
            most_parked: self.lanes.all().map(|lane| lane.order.parked()).max().unwrap_or(0),
            unsettled: readers().map(|reader| reader.window.len()).max().unwrap_or(0),
            head_bytes: self.head.window.bytes(),
            chunk: self.chunk,
            following: self.lanes.all().filter(|lane| lane.follows()).count(),
            lanes: self.lanes.len(),
        }
    }

    /// A failed write since the last question, for the log.
    pub fn take_trouble(&mut self) -> Option<String> {
        self.trouble.take()
    }

    /// The fault of our own that holds up sending, and since when.
    pub fn fault(&mut self) -> Option<(Timestamp, &str)> {
        let (lanes, enabled) = (&self.lanes, self.settings.enabled);
        // One whose deliveries were cancelled or which was paused meanwhile would never tell that it has ended.
        let waits =
            |lane: &Lane| lane.feed != Feed::Stopped && (lane.in_flight > 0 || lane.ready_at().is_some());
        self.faults.retain(|id| enabled && (id == faults::STORE || lanes.get(id).is_some_and(waits)));
        self.faults.present()
    }

    /// One turn. Answers how long nothing will happen by itself.
    ///
    /// # Errors
    /// The store cannot be read. The dispatcher is to be dropped and started anew; nothing is lost, and what was in
    /// flight is sent again.
    pub fn round(&mut self, turn: Turn) -> Result<Duration, S::Error> {
        self.set_clock(turn.now);
        self.tell_clock();
        self.fresh |= turn.woken || turn.poll;
        // Remembered: while writes fail or sending is off, nothing is read.
        self.endpoints_changed |= turn.endpoints_changed;
        let turn = Turn { endpoints_changed: self.endpoints_changed, ..turn };
        self.collect(turn.now);
        self.show();
        // What is read must show what has ended.
        let reads = turn.endpoints_changed || turn.poll || self.has_work(turn.now);
        let written =
            if reads || self.is_group_due(turn.now) { self.write(turn) } else { self.may_write(turn) };
        if turn.endpoints_changed {
            // A lane that ends takes its figures along.
            self.figures_at = Timestamp::MIN;
            self.save_figures(turn);
        }
        if written && self.settings.enabled {
            self.read(turn)?;
            if turn.endpoints_changed {
                self.recall_stopped();
            }
            self.recall_silent(turn.now);
            if self.hand_out_slots(turn.now) && self.make_durable(turn) {
                self.hand_out_slots(turn.now);
            }
        }
        self.show();
        self.save_figures(turn);
        self.lanes.rest();
        Ok(self.wait(turn.now))
    }

    /// Takes the time. Where the clock was put back, what waits for a time waits as long as it would have.
    fn set_clock(&mut self, now: Timestamp) {
        let by = self.clock.saturating_sub(now);
        self.clock = now;
        if by <= 0 {
            return;
        }
        self.lanes.put_back(by);
        self.put_back += by;
        for at in
            [&mut self.write_after, &mut self.positions_after, &mut self.figures_at, &mut self.held_until]
        {
            *at = at.saturating_sub(by);
        }
        let held = self.held.iter_mut().map(|(settled, _)| settled);
        for settled in self.ledger.settled.iter_mut().chain(held) {
            settled.ended_at = settled.ended_at.saturating_sub(by);
            if let State::Pending { next_attempt_at } = &mut settled.state {
                *next_attempt_at = next_attempt_at.saturating_sub(by);
            }
        }
    }

    /// Tells the store that the clock was put back. Clocks that are adjusted all the time tremble by less than what is worth it.
    fn tell_clock(&mut self) {
        const WORTH_IT: Timestamp = 1_000_000;
        if self.put_back < WORTH_IT {
            return;
        }
        match self.store.put_back(self.clock, self.put_back) {
            Ok(()) => self.lanes.due_earlier(std::mem::take(&mut self.put_back)),
            Err(error) => self.trouble = Some(error.to_string()),
        }
    }

    fn has_work(&self, now: Timestamp) -> bool {
        feed::has_work(&self.lanes, &self.head, self.fresh, &self.limits, now)
    }

    // ---- read ---------------------------------------------------------------------------------------------------

    fn read(&mut self, turn: Turn) -> Result<(), S::Error> {
        self.unfinished = false;
        // Asked again: what was written may have freed something.
        let reads = turn.endpoints_changed || turn.poll || self.has_work(turn.now);
        // The store lends its transaction to the closure, which needs the rest of `self`.
        let mut desk = Desk {
            now: turn.now,
            settings: &self.settings,
            limits: self.limits,
            head: &mut self.head,
            lanes: &mut self.lanes,
            flights: &mut self.flights,
            held: &self.held,
            fresh: &mut self.fresh,
            chunk: &mut self.chunk,
            unfinished: false,
            own_from: &mut self.own_from,
            due_from: &mut self.due_from,
            touched: &mut self.touched,
        };
        if reads {
            self.unfinished = self.store.read(|db| {
                desk.read(db, turn);
                desk.unfinished
            })?;
            self.endpoints_changed = false;
        }
        Ok(())
    }

    // ---- wait ---------------------------------------------------------------------------------------------------

    fn wait(&self, now: Timestamp) -> Duration {
        if self.write_after > now {
            return until(self.write_after, now);
        }
        if !self.unsent.is_empty() || (self.unfinished && self.settings.enabled) {
            return Duration::ZERO;
        }
        let timers =
            self.lanes.active().filter(|(_, lane)| lane.feed != Feed::Stopped).flat_map(|(_, lane)| {
                let ready = lane.ready_at();
                let probe = lane.breaker.probe_at().filter(|_| ready.is_none() && lane.in_flight == 0);
                let due = lane.next_due.filter(|_| lane.retries.is_empty());
                // What is ready by now waits for a slot, and a probe for an event: not for the clock.
                let silent = self.silent_at(lane);
                [ready.filter(|at| *at > now), probe.filter(|at| *at > now), due, silent]
            });
        let timers = timers.filter(|_| self.settings.enabled);
        let next = timers
            .flatten()
            .chain(self.group_due_at())
            .chain(self.held_at())
            .chain(self.positions_at())
            .chain(self.figures_at())
            .map(|at| until(at, now))
            .min();
        next.map_or(self.settings.poll_interval, |at| at.min(self.settings.poll_interval))
    }
}

/// A duration in the unit of [`Timestamp`].
fn micros(duration: Duration) -> Timestamp {
    Timestamp::try_from(duration.as_micros()).unwrap_or(Timestamp::MAX)
}

/// How long it is until then.
fn until(then: Timestamp, now: Timestamp) -> Duration {
    Duration::from_micros(u64::try_from(then.saturating_sub(now)).unwrap_or(0))
}
