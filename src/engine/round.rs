//! A round: one turn of the dispatcher. Collect, write, read, start; short, and never waiting for a receiver.

mod writing;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::feed::{self, Desk};
use super::lane::{Feed, Lane, Task};
use super::limits::{Limits, Load};
use super::reader::Reader;
use super::store::{Ledger, Settled, Store};
use super::{Completion, Job, Transport};
use crate::event::Timestamp;
use crate::outcome::{self, Answer, Attempt, Fault, State, Verdict};
use crate::position::Position;
use crate::settings::Settings;

/// An answer that takes longer than this is not brisk.
const BRISK: Duration = Duration::from_millis(20);
/// A brisk endpoint has this many times its limit in store.
const IN_STORE: usize = 3;

/// What the edge tells a round.
#[derive(Debug, Clone, Copy)]
pub struct Turn {
    /// The wall clock.
    pub now: Timestamp,
    /// Something was committed since the last turn, or nobody knows.
    pub woken: bool,
    /// Endpoints changed since the last turn, or nobody knows.
    pub endpoints_changed: bool,
    /// Time for the safety scan.
    pub poll: bool,
}

/// A request in flight.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) lane: i64,
    pub(super) task: Task,
    attempt: u32,
}

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
    lanes: BTreeMap<i64, Lane>,
    flights: HashMap<u64, Flight>,
    next_ticket: u64,
    /// Attempts that ended before they began: their events cannot be read.
    unsent: Vec<Completion>,
    /// Outcomes to write, and whom to tell afterwards.
    ledger: Ledger,
    landed: Vec<(i64, Task)>,
    /// Outcomes that are written and that a crash may undo all the same.
    at_risk: usize,
    write_after: Timestamp,
    /// Where the last turn stopped handing out slots.
    turn_of: i64,
    /// Events to fetch at a time.
    chunk: usize,
    /// The last round stopped reading although there was more.
    unfinished: bool,
    /// A failure that was met since the last question, for the log.
    trouble: Option<String>,
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
            lanes: BTreeMap::new(),
            flights: HashMap::new(),
            next_ticket: 0,
            unsent: Vec::new(),
            ledger: Ledger::default(),
            landed: Vec::new(),
            at_risk: 0,
            write_after: Timestamp::MIN,
            turn_of: 0,
            chunk: Limits::default().first_chunk,
            unfinished: false,
            trouble: None,
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
            let ids: Vec<i64> = self.lanes.keys().copied().collect();
            ids.into_iter().for_each(|id| self.recall(id));
        }
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> usize {
        self.flights.len()
    }

    /// Whether new events would be read at once. Else it is enough to say in the next round that there are some.
    pub fn wants_news(&self) -> bool {
        self.settings.enabled && self.lanes.values().any(|lane| feed::is_fed(lane, &self.limits))
    }

    /// What is held in memory.
    pub fn load(&self) -> Load {
        let readers = || self.lanes.values().filter_map(|lane| lane.reader.as_ref()).chain([&self.head]);
        Load {
            longest_queue: self.lanes.values().map(|lane| lane.queue.len()).max().unwrap_or(0),
            unsettled: readers().map(|reader| reader.window.len()).max().unwrap_or(0),
            head_bytes: self.head.window.bytes(),
            chunk: self.chunk,
            following: self.lanes.values().filter(|lane| lane.follows()).count(),
            lanes: self.lanes.len(),
        }
    }

    /// A failed write since the last question, for the log.
    pub fn take_trouble(&mut self) -> Option<String> {
        self.trouble.take()
    }

    /// One turn. Answers how long nothing will happen by itself.
    ///
    /// # Errors
    /// The store cannot be read. The dispatcher is to be dropped and started anew; nothing is lost, and what was in
    /// flight is sent again.
    pub fn round(&mut self, turn: Turn) -> Result<Duration, S::Error> {
        self.fresh |= turn.woken || turn.poll;
        // Remembered: while writes fail or sending is off, nothing is read.
        self.endpoints_changed |= turn.endpoints_changed;
        let turn = Turn { endpoints_changed: self.endpoints_changed, ..turn };
        self.collect(turn.now);
        // What is read must show what has ended.
        let reads = turn.endpoints_changed || turn.poll || self.has_work(turn.now);
        let written =
            if reads || self.is_group_due(turn.now) { self.write(turn) } else { self.may_write(turn) };
        if written && self.settings.enabled {
            self.read(turn)?;
            if turn.endpoints_changed {
                self.recall_stopped();
            }
            if self.hand_out_slots(turn.now) && self.make_durable(turn) {
                self.hand_out_slots(turn.now);
            }
        }
        Ok(self.wait(turn.now))
    }

    fn has_work(&self, now: Timestamp) -> bool {
        feed::has_work(&self.lanes, &self.head, self.fresh, &self.limits, now)
    }

    // ---- collect ------------------------------------------------------------------------------------------------

    fn collect(&mut self, now: Timestamp) {
        let mut completions = std::mem::take(&mut self.unsent);
        self.transport.collect(&mut completions);
        for Completion { ticket, attempt } in completions {
            let Some(Flight { lane: id, task, attempt: number }) = self.flights.remove(&ticket) else {
                continue;
            };
            let verdict = outcome::judge(&attempt.answer);
            let mut slackened = false;
            let mut lane = self.lanes.get_mut(&id);
            if let Some(lane) = &mut lane {
                lane.in_flight = lane.in_flight.saturating_sub(1);
                let brisk = attempt.duration <= BRISK && verdict == Verdict::Delivered;
                slackened = std::mem::replace(&mut lane.brisk, brisk) && !brisk;
            }
            let own_schedule = lane.as_ref().and_then(|lane| lane.endpoint.schedule.as_ref());
            let schedule = own_schedule.unwrap_or(&self.settings.retry_schedule);
            let before = task.row.map_or(0, |row| row.attempts_before);
            let chance = (self.chance)();
            let mut decision =
                outcome::decide(&attempt.answer, number.saturating_sub(before), schedule, now, chance);
            if let (Some(lane), Some(until)) = (&mut lane, decision.hold_until) {
                lane.hold_until = lane.hold_until.max(until);
            }
            let is_gone = lane.is_none();
            if verdict == Verdict::OwnFault {
                if let Some(lane) = lane {
                    lane.hold_until =
                        lane.hold_until.max(now.saturating_add(micros(outcome::OWN_FAULT_WAIT)));
                    lane.take_back(task);
                }
                self.recall(id);
                continue;
            }
            if slackened || verdict != Verdict::Delivered {
                self.recall(id);
            }
            if is_gone && task.row.is_none() && decision.state != State::Delivered {
                // Its endpoint is gone or inactive: nobody will try again.
                decision.state = State::Dead;
            }
            if decision.disable {
                self.ledger.disabled.push((id, "410 Gone".to_owned()));
            }
            self.ledger.settled.push(Settled {
                endpoint: id,
                place: task.event.place,
                event: task.event.id,
                delivery: task.row.map(|row| row.id),
                attempts: number,
                state: decision.state,
                attempt,
                ended_at: now,
            });
            self.landed.push((id, task));
        }
    }

    /// Takes back what the transport has in store for an endpoint.
    fn recall(&mut self, id: i64) {
        for ticket in self.transport.recall(id).into_iter().rev() {
            let Some(flight) = self.flights.remove(&ticket) else { continue };
            if let Some(lane) = self.lanes.get_mut(&id) {
                lane.in_flight = lane.in_flight.saturating_sub(1);
                lane.take_back(flight.task);
            }
        }
    }

    /// Nothing more leaves for endpoints that were paused, disabled or removed.
    fn recall_stopped(&mut self) {
        let stops = |id: &i64| self.lanes.get(id).is_none_or(|lane| lane.feed == Feed::Stopped);
        let stopped: BTreeSet<i64> = self.flights.values().map(|flight| flight.lane).filter(stops).collect();
        stopped.into_iter().for_each(|id| self.recall(id));
    }

    // ---- read ---------------------------------------------------------------------------------------------------

    fn read(&mut self, turn: Turn) -> Result<(), S::Error> {
        self.unfinished = false;
        // Asked again: what was written may have freed something.
        let reads = turn.endpoints_changed || turn.poll || self.has_work(turn.now);
        // The store lends its transaction to the closure, which needs the rest of `self`.
        let mut desk = Desk {
            settings: &self.settings,
            limits: self.limits,
            head: &mut self.head,
            lanes: &mut self.lanes,
            flights: &mut self.flights,
            fresh: &mut self.fresh,
            chunk: &mut self.chunk,
            unfinished: false,
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

    // ---- start --------------------------------------------------------------------------------------------------

    /// Slots that are taken: by requests in flight, and by outcomes that a crash would undo. So a crash repeats at most
    /// `max_in_flight` deliveries, however outcomes are grouped.
    fn taken(&self) -> usize {
        self.flights.len() + self.ledger.settled.len() + self.at_risk
    }

    /// Starts requests while there are free slots, one lane after the other. True: slots would be free if all outcomes
    /// were durable.
    fn hand_out_slots(&mut self, now: Timestamp) -> bool {
        let mut ids: Vec<i64> = self.lanes.range(self.turn_of..).map(|(&id, _)| id).collect();
        ids.extend(self.lanes.range(..self.turn_of).map(|(&id, _)| id));
        let mut went = true;
        while went {
            went = false;
            for &id in &ids {
                if self.taken() >= self.settings.max_in_flight {
                    self.turn_of = id;
                    return self.flights.len() < self.settings.max_in_flight;
                }
                went |= self.start_request(id, now);
            }
        }
        false
    }

    /// Starts one request of a lane, if it may.
    fn start_request(&mut self, id: i64, now: Timestamp) -> bool {
        // What is in store takes slots too: never so many that another endpoint would miss them.
        let roomy = 2 * self.flights.len() < self.settings.max_in_flight;
        let Some(lane) = self.lanes.get_mut(&id) else { return false };
        let limit = lane.endpoint.max_in_flight.unwrap_or(self.settings.endpoint_max_in_flight);
        let store = if lane.brisk && roomy { IN_STORE * limit } else { 0 };
        if lane.feed == Feed::Stopped || lane.in_flight >= limit + store || lane.hold_until > now {
            return false;
        }
        let Some(task) = lane.retries.pop_front().or_else(|| lane.queue.pop_front()) else { return false };
        self.next_ticket += 1;
        let ticket = self.next_ticket;
        let attempt = task.row.map_or(0, |row| row.attempts).saturating_add(1);
        lane.flying.insert(task.event.place, ticket);
        lane.in_flight += 1;
        if let Some(reason) = &task.event.unreadable {
            let answer = Answer::Failed { fault: Fault::Poison, message: reason.clone() };
            let attempt = Attempt { started_at: now, duration: Duration::ZERO, answer };
            self.unsent.push(Completion { ticket, attempt });
        } else {
            self.transport.submit(Job {
                ticket,
                endpoint: Arc::clone(&lane.endpoint),
                event: Arc::clone(&task.event),
                attempt,
                timeout: lane.endpoint.timeout.unwrap_or(self.settings.request_timeout),
                limit,
            });
        }
        self.flights.insert(ticket, Flight { lane: id, task, attempt });
        true
    }

    // ---- wait ---------------------------------------------------------------------------------------------------

    fn wait(&self, now: Timestamp) -> Duration {
        if self.write_after > now {
            return until(self.write_after, now);
        }
        if !self.unsent.is_empty() || (self.unfinished && self.settings.enabled) {
            return Duration::ZERO;
        }
        let lanes = self.lanes.values().filter(|lane| self.settings.enabled && lane.feed != Feed::Stopped);
        let timers = lanes.flat_map(|lane| {
            let held = lane.hold_until > now && !(lane.queue.is_empty() && lane.retries.is_empty());
            let due = lane.next_due.filter(|_| lane.retries.is_empty());
            [held.then_some(lane.hold_until), due]
        });
        let next = timers.flatten().chain(self.group_due_at()).map(|at| until(at, now)).min();
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
