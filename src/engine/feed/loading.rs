//! What the store says of endpoints and of deliveries that are pending.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::{Desk, from, leave};
use crate::endpoint::{self, Ordering};
use crate::engine::lane::{Feed, Lane};
use crate::engine::policy::order::Order;
use crate::engine::reader::Reader;
use crate::engine::store::{DueDelivery, Pending, Reading, Registered};
use crate::engine::task::{Origin, Row, Task};
use crate::event::{Place, Timestamp};

impl Desk<'_> {
    /// Takes over what changed in the endpoints.
    pub(super) fn load_endpoints(&mut self, db: &mut dyn Reading, registered: Vec<Registered>) {
        self.lanes.forget_takers();
        let known: HashSet<i64> = registered.iter().map(|entry| entry.endpoint.id).collect();
        for id in self.lanes.ids().into_iter().filter(|id| !known.contains(id)) {
            if let Some(mut lane) = self.lanes.remove(id) {
                // What it has in flight may find a new lane of the same endpoint when it lands.
                leave(&mut lane, id, self.head, self.flights, Feed::Stopped);
            }
            self.touched.insert(id);
        }
        let new: Vec<i64> = known.into_iter().filter(|id| !self.lanes.contains(*id)).collect();
        for entry in registered {
            self.load_endpoint(entry);
        }
        if !new.is_empty() {
            for (id, figures) in db.figures(&new) {
                if let Some(lane) = self.lanes.get_mut(id) {
                    lane.figures = figures;
                }
            }
            self.touched.extend(new);
        }
    }

    fn load_endpoint(&mut self, Registered { endpoint, position, failing_since }: Registered) {
        let id = endpoint.id;
        let runs = endpoint.state == endpoint::State::Active;
        if !self.lanes.contains(id) {
            let mut lane = Lane::new(Arc::clone(&endpoint), position.clone(), failing_since);
            let own = self.flights.iter().filter(|(_, flight)| flight.lane == id);
            lane.flying = own.map(|(&ticket, flight)| (flight.task.event.place, ticket)).collect();
            lane.in_flight = lane.flying.len();
            self.lanes.insert(id, lane);
        }
        let Some(lane) = self.lanes.get_mut(id) else { return };
        lane.change(endpoint, failing_since);
        if lane.order.rule() != lane.endpoint.ordering {
            // What is busy is loaded after this; what waits is read again.
            lane.order = Order::new(lane.endpoint.ordering);
            lane.is_crowded = false;
            lane.forget_due();
            let feed = if lane.feed == Feed::Stopped { Feed::Stopped } else { Feed::Own };
            leave(lane, id, self.head, self.flights, feed);
        }
        // Not what was written here: it was made inactive and active again, and starts at the present.
        if let Some(position) = position.filter(|position| lane.saved.as_ref() != Some(position)) {
            let feed = if lane.feed == Feed::Stopped { Feed::Stopped } else { Feed::Own };
            leave(lane, id, self.head, self.flights, feed);
            lane.forget_due();
            lane.reader = Some(Reader::at(position.clone()));
            lane.saved = Some(position);
        }
        if !runs && lane.feed != Feed::Stopped {
            leave(lane, id, self.head, self.flights, Feed::Stopped);
            lane.forget_due();
        } else if runs && lane.feed == Feed::Stopped {
            leave(lane, id, self.head, self.flights, Feed::Own);
        }
    }

    /// How many deliveries are pending, and which of them hold up others.
    pub(super) fn load_pending(&mut self, db: &mut dyn Reading) {
        for id in self.lanes.active_where(|_| true) {
            if let Some(lane) = self.lanes.get_mut(id) {
                (lane.pending, lane.next_due) = (0, None);
                (lane.asked, lane.is_crowded) = (0, false);
            }
        }
        for Pending { endpoint, failed, due, asked } in db.pending(self.limits.pending) {
            let Some(lane) = self.lanes.get_mut(endpoint) else { continue };
            lane.pending += failed;
            lane.asked += asked;
            lane.next_due = lane.next_due.into_iter().chain(due).min();
        }
        let ordered = self.lanes.active_where(|lane| lane.order.rule() != Ordering::None);
        for &id in &ordered {
            let Some(lane) = self.lanes.get_mut(id) else { continue };
            if lane.asked > 0 {
                lane.pending += lane.asked;
                lane.next_due = Some(Timestamp::MIN);
            }
        }
        self.load_keys(db, &ordered);
    }

    /// Which pending deliveries of these endpoints hold up others.
    fn load_keys(&mut self, db: &mut dyn Reading, ordered: &[i64]) {
        let limit = self.limits.pending;
        let pends = |id: &i64| self.lanes.get(*id).is_some_and(|lane| lane.pending > 0);
        let mut pending: HashMap<i64, Vec<(Place, String)>> = HashMap::new();
        let endpoints: Vec<i64> = ordered.iter().copied().filter(pends).collect();
        for (id, place, key) in db.pending_keys(&endpoints, limit) {
            pending.entry(id).or_default().push((place, key));
        }
        for &id in ordered {
            let Some(lane) = self.lanes.get_mut(id) else { continue };
            let pending = pending.get(&id).map_or(&[][..], Vec::as_slice);
            lane.is_crowded = lane.asked >= limit && pending.len() >= limit;
            let pending = pending.iter().map(|(place, key)| (*place, key.as_str()));
            let events =
                lane.flying.values().filter_map(|ticket| Some(&self.flights.get(ticket)?.task.event));
            let flying = events.map(|event| (event.place, event.order_key()));
            lane.order.rebuild(pending.chain(flying), &mut lane.queue);
        }
    }

    /// Brings deliveries whose time has come into their lanes.
    pub(super) fn load_due(&mut self, db: &mut dyn Reading, now: Timestamp) {
        // Those that know the keys of a part only need the next part when that is used up.
        let used_up = |lane: &Lane| lane.is_crowded && lane.is_due(now) && lane.order.is_idle();
        let used_up = self.lanes.active_where(used_up);
        if !used_up.is_empty() {
            self.load_keys(db, &used_up);
        }
        let due = self.lanes.active_where(|lane| lane.is_due(now));
        for (nth, id) in from(&due, *self.due_from).enumerate() {
            if nth == self.limits.due_lanes_per_round {
                *self.due_from = id;
                self.unfinished = true;
                break;
            }
            let Some(lane) = self.lanes.get_mut(id) else { continue };
            let flights = &*self.flights;
            let row_of = |ticket: &u64| flights.get(ticket)?.task.row.map(|row| row.id);
            // What is held has landed, and its row may be free again by now.
            let held =
                self.held.iter().filter(|(row, _)| row.endpoint == id).filter_map(|(row, _)| row.delivery);
            let at_work: Vec<i64> = lane.flying.values().filter_map(row_of).chain(held).collect();
            if lane.retries.is_empty() && lane.next_due.is_some_and(|due| due <= now) {
                let limit = lane.endpoint.max_in_flight.unwrap_or(self.settings.endpoint_max_in_flight);
                let limit = 2 * lane.slots(limit);
                let among = lane.order.first_pending(|place| lane.flying.contains_key(&place));
                let (due, next) = db.due(id, now, limit, &at_work, among.as_deref());
                // As many as asked for: there may be more, to be asked for when these are gone.
                lane.next_due = if due.len() < limit { next } else { Some(now) };
                lane.retries.extend(due.into_iter().map(task));
            }
            if lane.wants_replays() {
                let limit = if lane.breaker.is_open() { 1 } else { *self.chunk };
                let waiting: Vec<i64> = lane.retries.iter().filter_map(|task| Some(task.row?.id)).collect();
                let at_work: Vec<i64> = at_work.into_iter().chain(waiting).collect();
                let (asked, last) = db.asked(id, lane.asked_upto, now, limit, &at_work);
                lane.asked_upto = last;
                // Nothing more behind these: what comes meanwhile is counted anew.
                if last.is_none() {
                    lane.asked = 0;
                }
                lane.replays.extend(asked.into_iter().map(task));
            }
        }
    }
}

fn task(due: DueDelivery) -> Task {
    Task {
        row: Some(Row { id: due.id, attempts: due.attempts, attempts_before: due.attempts_before }),
        event: Arc::new(due.event),
        origin: Origin::Loose,
    }
}
