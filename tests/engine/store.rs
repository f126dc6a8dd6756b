//! The store as the engine has it: what the worker's statements read and write in the model database.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::rc::Rc;
use std::sync::Arc;

use webhook_pg::endpoint::State as Mode;
use webhook_pg::engine::{
    Asked, Audience, DueDelivery, Held, Kind, Ledger, Part, Pending, Plan, Reading, Registered, Slice, Store,
};
use webhook_pg::event::{Event, Place, Timestamp};
use webhook_pg::figures::Figures;
use webhook_pg::position::{Leg, Position, Snapshot};
use webhook_pg::settings::Settings;

use crate::database::Database;
use crate::network::Network;

/// Rows of a short leg at most.
const SHORT: usize = 2;
/// Events of a large transaction.
const LARGE: usize = 4;
/// Transactions that are few.
const FEW: usize = 2;
/// Rows of a slice.
const SLICE: usize = 3;

fn kind(event: &Event) -> Kind {
    match event.target {
        Some(target) => Kind::Target(target),
        None => Kind::Type(event.event_type.clone()),
    }
}

/// The store as the engine has it.
pub struct Disk {
    pub database: Rc<RefCell<Database>>,
    pub network: Rc<RefCell<Network>>,
}

impl Store for Disk {
    type Error = String;

    fn configure(&mut self, _: &Settings) {}

    fn read<R>(&mut self, read: impl FnOnce(&mut dyn Reading) -> R) -> Result<R, String> {
        let mut database = self.database.borrow_mut();
        database.counts.reads += 1;
        if database.failing_reads > 0 {
            database.failing_reads -= 1;
            return Err("out of shared memory".to_owned());
        }
        (database.fetched, database.asked) = (0, 0);
        let result = read(&mut *database);
        database.counts.most_fetched = database.counts.most_fetched.max(database.fetched);
        database.counts.most_asked = database.counts.most_asked.max(database.asked);
        Ok(result)
    }

    fn write(&mut self, ledger: &Ledger) -> Result<Held, String> {
        let mut database = self.database.borrow_mut();
        assert!(!ledger.is_empty(), "an empty ledger was written");
        if database.failing_writes > 0 {
            database.failing_writes -= 1;
            database.counts.failed_writes += 1;
            return Err("disk full".to_owned());
        }
        let held = Held {
            deliveries: ledger
                .settled
                .iter()
                .map(|row| (row.endpoint, row.place))
                .filter(|p| database.held.contains(p))
                .collect(),
            endpoints: ledger.endpoints().filter(|id| database.held_endpoints.contains(id)).collect(),
        };
        let mut ledger = ledger.clone();
        ledger.settled.retain(|row| !held.deliveries.contains(&(row.endpoint, row.place)));
        if !ledger.may_move(&held) {
            ledger.positions.clear();
            ledger.joined.clear();
        }
        ledger.disabled.retain(|(id, _)| !held.endpoints.contains(id));
        ledger.failing.retain(|id, _| !held.endpoints.contains(id));
        database.apply(&ledger);
        let mut network = self.network.borrow_mut();
        network.written(&ledger);
        network.kept.extend(&held.deliveries);
        Ok(held)
    }

    fn put_back(&mut self, now: Timestamp, by: Timestamp) -> Result<(), String> {
        let mut database = self.database.borrow_mut();
        if database.failing_writes > 0 {
            database.failing_writes -= 1;
            return Err("disk full".to_owned());
        }
        database.put_back(now, by);
        Ok(())
    }

    fn flush(&mut self) {
        self.network.borrow_mut().unflushed = 0;
    }

    fn show(&mut self, endpoint: i64, in_flight: usize, figures: &Figures, _: bool) {
        self.database.borrow_mut().shown.insert(endpoint, (in_flight, figures.clone()));
    }

    fn save_figures(&mut self, figures: &[(i64, &Figures)]) -> Result<(), String> {
        let mut database = self.database.borrow_mut();
        database.counts.figure_writes += 1;
        database.figures.extend(figures.iter().map(|(id, figures)| (*id, (*figures).clone())));
        Ok(())
    }
}

impl Reading for Database {
    fn head(&mut self) -> Position {
        self.positions[&0].clone()
    }

    fn endpoints_changed(&mut self) -> bool {
        self.changed
    }

    fn endpoints(&mut self) -> Vec<Registered> {
        let active = self.endpoints.values().filter(|entry| entry.endpoint.state != Mode::Inactive);
        active
            .map(|entry| Registered {
                endpoint: Arc::new(entry.endpoint.clone()),
                position: self.positions.get(&entry.endpoint.id).cloned(),
                failing_since: self.failing.get(&entry.endpoint.id).copied(),
            })
            .collect()
    }

    fn figures(&mut self, endpoints: &[i64]) -> Vec<(i64, Figures)> {
        endpoints.iter().filter_map(|id| Some((*id, self.figures.get(id)?.clone()))).collect()
    }

    fn snapshot(&mut self) -> Arc<Snapshot> {
        Arc::new(Database::snapshot(self))
    }

    fn plan(&mut self, leg: &Leg, limit: usize, audience: &mut dyn Audience) -> Plan {
        let ranges = leg.ranges();
        let in_range = |place: &Place| ranges.iter().any(|&(from, to)| (from..to).contains(&place.xid));
        let mut rows: Vec<(Place, &Event)> = self
            .outbox
            .iter()
            .filter(|(p, _)| in_range(p) && leg.wants(**p))
            .map(|(p, e)| (*p, &**e))
            .collect();
        rows.sort_by_key(|(place, _)| place.seq);
        // Of a leg that is not short, as the real store: a part, without what nobody wants.
        if rows.len() <= limit.min(SHORT) {
            let places = rows.into_iter().map(|(place, _)| place).collect();
            return Plan::Read(Part { places, ..Part::default() });
        }
        let mut left_out: Vec<Kind> = audience.unwanted().into_iter().map(Kind::Type).collect();
        // Large transactions say what they wrote of.
        let xids: BTreeSet<u64> = rows.iter().map(|(place, _)| place.xid).collect();
        if xids.len() > FEW {
            self.counts.searches += 1;
            return Plan::Search(left_out);
        }
        for xid in xids {
            let whole: Vec<&Arc<Event>> =
                self.outbox.iter().filter(|(place, _)| place.xid == xid).map(|(_, event)| event).collect();
            if whole.len() >= LARGE && !whole.iter().any(|event| audience.wants(&kind(event))) {
                left_out.extend(whole.iter().map(|event| kind(event)));
                let before = rows.len();
                rows.retain(|(place, _)| place.xid != xid);
                self.counts.passed += before - rows.len();
            }
        }
        let reaches = rows.get(limit).map(|_| rows[limit - 1].0.seq);
        rows.truncate(limit);
        let is_left_out = |event: &Event| event.target.is_none() && left_out.contains(&kind(event));
        let places: Vec<Place> =
            rows.iter().filter(|(_, event)| !is_left_out(event)).map(|(place, _)| *place).collect();
        self.counts.left_out += rows.len() - places.len();
        Plan::Read(Part { places, reaches, left_out })
    }

    fn search(&mut self, leg: &Leg, after: Option<Place>, left_out: &[Kind]) -> Slice {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rows = self.outbox.range((start, Bound::Unbounded));
        let looked: Vec<(&Place, &Arc<Event>)> = rows.by_ref().take(SLICE).collect();
        let reaches = looked.last().map(|(place, _)| **place).filter(|_| rows.next().is_some());
        let belongs =
            |(place, event): &&(&Place, &Arc<Event>)| leg.wants(**place) && !left_out.contains(&kind(event));
        let places: Vec<Place> = looked.iter().filter(belongs).map(|(place, _)| **place).collect();
        Slice { places, reaches }
    }

    fn fetch(&mut self, places: &[Place]) -> Vec<Event> {
        self.largest_fetch = self.largest_fetch.max(places.len());
        self.fetched += places.len();
        places.iter().filter_map(|place| self.outbox.get(place)).map(|e| Event::clone(e)).collect()
    }

    fn settled(&mut self, pairs: &[(i64, Place)]) -> Vec<(i64, Place)> {
        let found: Vec<_> = pairs.iter().copied().filter(|pair| self.deliveries.contains_key(pair)).collect();
        self.counts.verified += found.len();
        found
    }

    fn pending(&mut self, limit: usize) -> Vec<Pending> {
        let mut found: BTreeMap<i64, Pending> = BTreeMap::new();
        for &(endpoint, due, place) in &self.pending {
            let entry = found.entry(endpoint).or_insert(Pending { endpoint, ..Pending::default() });
            if self.is_asked(endpoint, place) {
                entry.asked = limit.min(entry.asked + 1);
            } else {
                entry.failed += 1;
                entry.due = entry.due.or(Some(due));
            }
        }
        found.into_values().collect()
    }

    fn pending_keys(&mut self, endpoints: &[i64], limit: usize) -> Vec<(i64, Place, String)> {
        let mut asked: BTreeMap<i64, usize> = BTreeMap::new();
        let known = self.pending.iter().filter(|(id, _, place)| {
            let count = asked.entry(*id).or_default();
            *count += usize::from(self.is_asked(*id, *place));
            endpoints.contains(id) && (!self.is_asked(*id, *place) || *count <= limit)
        });
        known.map(|&(id, _, place)| (id, place, self.outbox[&place].order_key().to_owned())).collect()
    }

    fn due(
        &mut self,
        endpoint: i64,
        now: Timestamp,
        limit: usize,
        at_work: &[i64],
        among: Option<&[Place]>,
    ) -> (Vec<DueDelivery>, Option<Timestamp>) {
        self.asked += 1;
        let start = Place { xid: 0, seq: 0 };
        let of_endpoint =
            self.pending.range((endpoint, Timestamp::MIN, start)..(endpoint + 1, Timestamp::MIN, start));
        let of_endpoint = of_endpoint.filter(|(_, _, place)| match among {
            Some(among) => among.contains(place),
            None => !self.is_asked(endpoint, *place),
        });
        let (due, later): (Vec<_>, Vec<_>) = of_endpoint.partition(|(_, at, _)| *at <= now);
        let due = due.into_iter().map(|&(_, _, place)| self.due_delivery(endpoint, place));
        let free = |due: &DueDelivery| !self.held.contains(&(endpoint, due.event.place));
        let due = due.filter(|due| !at_work.contains(&due.id)).filter(free);
        (due.take(limit).collect(), later.first().map(|(_, at, _)| *at))
    }

    fn asked(
        &mut self,
        endpoint: i64,
        after: Option<Asked>,
        now: Timestamp,
        limit: usize,
        at_work: &[i64],
    ) -> (Vec<DueDelivery>, Option<Asked>) {
        let mut asked: Vec<(Timestamp, i64, Place)> =
            self.pending.iter().filter(|(id, _, _)| *id == endpoint).map(|p| (p.1, p.2.seq, p.2)).collect();
        asked.sort();
        asked.retain(|(at, seq, place)| {
            self.is_asked(endpoint, *place)
                && *at <= now
                && !self.held.contains(&(endpoint, *place))
                && after.is_none_or(|after| (*at, *seq) > after)
                && !at_work.contains(&self.deliveries[&(endpoint, *place)].id)
        });
        asked.truncate(limit);
        let last = asked.last().filter(|_| asked.len() == limit).map(|(at, seq, _)| (*at, *seq));
        (asked.into_iter().map(|(_, _, place)| self.due_delivery(endpoint, place)).collect(), last)
    }
}

impl Database {
    fn is_asked(&self, endpoint: i64, place: Place) -> bool {
        let row = self.deliveries[&(endpoint, place)];
        row.attempts == row.attempts_before
    }

    fn due_delivery(&self, endpoint: i64, place: Place) -> DueDelivery {
        let row = self.deliveries[&(endpoint, place)];
        let event = Event::clone(&self.outbox[&place]);
        DueDelivery { id: row.id, attempts: row.attempts, attempts_before: row.attempts_before, event }
    }
}
