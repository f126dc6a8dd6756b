//! The starting half of a round: which lane gets the next slot.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::Dispatcher;
use crate::engine::lane::{Feed, Lane};
use crate::engine::policy::slots::{Class, Slots};
use crate::engine::task::Flight;
use crate::engine::{Completion, Job, Store, Transport};
use crate::event::Timestamp;
use crate::outcome::{Answer, Attempt, Fault};

/// A brisk endpoint has this many times its limit in store.
const IN_STORE: usize = 3;
/// An endpoint that is silent for so long, in microseconds, has nothing in store.
const STORE_SILENCE: Timestamp = 100_000;

const CLASSES: [Class; 3] = [Class::Prompt, Class::Slow, Class::Silent];

impl<S: Store, T: Transport> Dispatcher<S, T> {
    /// Slots that are taken: by requests in flight, and by outcomes that a crash would undo. So a crash repeats at most
    /// `max_in_flight` deliveries, however outcomes are grouped and whoever keeps them from being written.
    fn taken(&self) -> usize {
        self.flights.len() + self.ledger.settled.len() + self.at_risk + self.held.len()
    }

    /// Whether a delivery that has a row may be tried. Somebody's open transaction may keep its outcome from being written
    /// for long; what has no row yet nobody can hold, and a quarter of the slots stays for that.
    fn may_repeat(&self) -> bool {
        let again = self.flights.values().filter(|flight| flight.task.row.is_some()).count();
        let slots = self.settings.max_in_flight;
        self.held.len() + again < slots - slots / 4
    }

    /// Who holds the slots.
    fn slots(&self, now: Timestamp) -> Slots {
        let mut slots = Slots::new(self.settings.max_in_flight, self.lanes.len() <= 1);
        for flight in self.flights.values() {
            let lane = self.lanes.get(flight.lane);
            slots.take(lane.map_or(Class::Silent, |lane| lane.pace.class(lane.in_flight, now)));
        }
        slots
    }

    /// The lanes that could start a request now, by class, each beginning where its last turn stopped.
    fn ready(&self, now: Timestamp) -> [VecDeque<i64>; 3] {
        let mut ready = [VecDeque::new(), VecDeque::new(), VecDeque::new()];
        for (id, lane) in self.lanes.active() {
            if lane.feed != Feed::Stopped && lane.ready_at().is_some_and(|at| at <= now) {
                ready[index(lane.pace.class(lane.in_flight, now))].push_back(id);
            }
        }
        for (lanes, from) in ready.iter_mut().zip(self.turn_of) {
            let first = lanes.partition_point(|id| *id < from);
            lanes.rotate_left(first);
        }
        ready
    }

    /// Starts requests while there are free slots: lanes that answer promptly first, and of each class one after the other.
    /// True: slots would be free if all outcomes were durable.
    pub(super) fn hand_out_slots(&mut self, now: Timestamp) -> bool {
        if self.taken() >= self.settings.max_in_flight {
            return self.flights.len() < self.settings.max_in_flight;
        }
        let mut slots = self.slots(now);
        for (class, mut ready) in CLASSES.into_iter().zip(self.ready(now)) {
            while slots.admits(class, 0) {
                let Some(id) = ready.pop_front() else { break };
                if self.taken() >= self.settings.max_in_flight {
                    return self.flights.len() < self.settings.max_in_flight;
                }
                if self.start_request(id, class, &slots, now) {
                    slots.take(class);
                    self.turn_of[index(class)] = id.saturating_add(1);
                    ready.push_back(id);
                }
            }
        }
        false
    }

    pub(super) fn limit(&self, lane: &Lane) -> usize {
        lane.endpoint.max_in_flight.unwrap_or(self.settings.endpoint_max_in_flight)
    }

    /// Starts one request of a lane, if it may.
    fn start_request(&mut self, id: i64, class: Class, slots: &Slots, now: Timestamp) -> bool {
        let Some(lane) = self.lanes.get(id) else { return false };
        let limit = self.limit(lane);
        let own = lane.slots(limit);
        // What is in store takes slots too: never so many that another endpoint would miss them.
        let stores = lane.brisk && lane.rate.is_none() && own == limit && slots.is_roomy();
        let store = if stores { IN_STORE * limit } else { 0 };
        let may = lane.in_flight < own + store && slots.admits(class, lane.in_flight);
        if !may || lane.ready_at().is_none_or(|at| at > now) {
            return false;
        }
        let may_repeat = self.may_repeat();
        let Some(lane) = self.lanes.get_mut(id) else { return false };
        let Some(task) = lane.next_task(now, may_repeat) else { return false };
        self.next_ticket += 1;
        let ticket = self.next_ticket;
        let attempt = task.row.map_or(0, |row| row.attempts).saturating_add(1);
        lane.started(&task, ticket, now);
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
        self.touched.insert(id);
        self.flights.insert(ticket, Flight { lane: id, task, attempt });
        true
    }

    /// When the store of a lane is to be taken back unless an answer comes: what hangs has no answer that would say so.
    pub(super) fn silent_at(&self, lane: &Lane) -> Option<Timestamp> {
        let stores = lane.brisk && lane.in_flight > self.limit(lane);
        stores.then(|| lane.pace.silent_at(STORE_SILENCE))
    }

    /// Takes back what is in store for endpoints that have fallen silent.
    pub(super) fn recall_silent(&mut self, now: Timestamp) {
        for id in self.lanes.active_where(|lane| self.silent_at(lane).is_some_and(|at| at <= now)) {
            if let Some(lane) = self.lanes.get_mut(id) {
                lane.brisk = false;
            }
            self.recall(id);
        }
    }
}

fn index(class: Class) -> usize {
    match class {
        Class::Prompt => 0,
        Class::Slow => 1,
        Class::Silent => 2,
    }
}
