//! What the store says of endpoints and of deliveries that are pending.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::{Desk, leave};
use crate::endpoint::{self, Ordering};
use crate::engine::lane::{Feed, Lane, Origin, Row, Task};
use crate::engine::policy::order::Order;
use crate::engine::reader::Reader;
use crate::engine::store::{Reading, Registered};
use crate::event::{Place, Timestamp};

impl Desk<'_> {
    /// Takes over what changed in the endpoints.
    pub(super) fn load_endpoints(&mut self, registered: Vec<Registered>) {
        self.lanes.forget_takers();
        let known: HashSet<i64> = registered.iter().map(|entry| entry.endpoint.id).collect();
        for id in self.lanes.ids().into_iter().filter(|id| !known.contains(id)) {
            if let Some(mut lane) = self.lanes.remove(id) {
                // What it has in flight may find a new lane of the same endpoint when it lands.
                leave(&mut lane, id, self.head, self.flights, Feed::Stopped);
            }
        }
        for entry in registered {
            self.load_endpoint(entry);
        }
    }

    fn load_endpoint(&mut self, Registered { endpoint, position, failing_since }: Registered) {
        let id = endpoint.id;
        let runs = endpoint.state == endpoint::State::Active;
        let endpoint = Arc::new(endpoint);
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
            lane.retries.clear();
            let feed = if lane.feed == Feed::Stopped { Feed::Stopped } else { Feed::Own };
            leave(lane, id, self.head, self.flights, feed);
        }
        // Not what was written here: it was made inactive and active again, and starts at the present.
        if let Some(position) = position.filter(|position| lane.saved.as_ref() != Some(position)) {
            let feed = if lane.feed == Feed::Stopped { Feed::Stopped } else { Feed::Own };
            leave(lane, id, self.head, self.flights, feed);
            lane.retries.clear();
            lane.reader = Some(Reader::at(position.clone()));
            lane.saved = Some(position);
        }
        if !runs && lane.feed != Feed::Stopped {
            leave(lane, id, self.head, self.flights, Feed::Stopped);
            lane.retries.clear();
        } else if runs && lane.feed == Feed::Stopped {
            leave(lane, id, self.head, self.flights, Feed::Own);
        }
    }

    /// How many deliveries are pending, and which of them hold up others.
    pub(super) fn load_pending(&mut self, db: &mut dyn Reading) {
        for id in self.lanes.active_where(|_| true) {
            if let Some(lane) = self.lanes.get_mut(id) {
                (lane.pending, lane.next_due) = (0, None);
            }
        }
        for (id, count, due) in db.pending() {
            if let Some(lane) = self.lanes.get_mut(id) {
                (lane.pending, lane.next_due) = (count, Some(due));
            }
        }
        let ordered = self.lanes.active_where(|lane| lane.order.rule() != Ordering::None);
        let pends = |id: &i64| self.lanes.get(*id).is_some_and(|lane| lane.pending > 0);
        let mut pending: HashMap<i64, Vec<(Place, String)>> = HashMap::new();
        for (id, place, key) in db.pending_keys(&ordered.iter().copied().filter(pends).collect::<Vec<_>>()) {
            pending.entry(id).or_default().push((place, key));
        }
        for id in ordered {
            let Some(lane) = self.lanes.get_mut(id) else { continue };
            let pending = pending.get(&id).into_iter().flatten().map(|(place, key)| (*place, key.as_str()));
            let events =
                lane.flying.values().filter_map(|ticket| Some(&self.flights.get(ticket)?.task.event));
            let flying = events.map(|event| (event.place, event.order_key()));
            lane.order.rebuild(pending.chain(flying), &mut lane.queue);
        }
    }

    /// Brings deliveries whose time has come into their lanes.
    pub(super) fn load_due(&mut self, db: &mut dyn Reading, now: Timestamp) {
        let Self { settings, flights, lanes, .. } = self;
        for id in lanes.active_where(|lane| lane.is_due(now)) {
            let Some(lane) = lanes.get_mut(id) else { continue };
            let limit = lane.endpoint.max_in_flight.unwrap_or(settings.endpoint_max_in_flight);
            let limit = 2 * lane.slots(limit);
            let row_of = |ticket: &u64| flights.get(ticket)?.task.row.map(|row| row.id);
            let at_work: Vec<i64> = lane.flying.values().filter_map(row_of).collect();
            let among = lane.order.first_pending(|place| lane.flying.contains_key(&place));
            let (due, next) = db.due(id, now, limit, &at_work, among.as_deref());
            // As many as asked for: there may be more, to be asked for when these are gone.
            lane.next_due = if due.len() < limit { next } else { Some(now) };
            for row in due {
                lane.retries.push_back(Task {
                    row: Some(Row {
                        id: row.id,
                        attempts: row.attempts,
                        attempts_before: row.attempts_before,
                    }),
                    event: Arc::new(row.event),
                    origin: Origin::Loose,
                });
            }
        }
    }
}
