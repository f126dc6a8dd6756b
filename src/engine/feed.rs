//! Feeding: brings events from readers, and deliveries that are due, into lanes. The reading half of a round; all of it
//! happens in one short read-only transaction.

mod loading;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::Turn;
use super::lane::{Feed, Lane};
use super::lanes::Lanes;
use super::limits::Limits;
use super::reader::Reader;
use super::search::Search;
use super::store::{Audience, Kind, Plan, Reading, Settled};
use super::task::{Flight, Origin, Task};
use crate::event::{Event, Place, Timestamp};
use crate::position::Position;
use crate::settings::Settings;

/// What feeding works on.
pub(super) struct Desk<'a> {
    pub(super) now: Timestamp,
    pub(super) settings: &'a Settings,
    pub(super) limits: Limits,
    pub(super) head: &'a mut Reader,
    pub(super) lanes: &'a mut Lanes,
    pub(super) flights: &'a mut HashMap<u64, Flight>,
    /// Outcomes that are not written yet because somebody's transaction holds their rows.
    pub(super) held: &'a [(Settled, (i64, Task))],
    /// A commit may have brought events that no snapshot of the head sees yet.
    pub(super) fresh: &'a mut bool,
    /// Events to fetch at a time.
    pub(super) chunk: &'a mut usize,
    /// There is more to read at once.
    pub(super) unfinished: bool,
    /// Where the last round stopped reading for lanes of their own, and for those that are due.
    pub(super) own_from: &'a mut i64,
    pub(super) due_from: &'a mut i64,
    /// Endpoints whose figures are to be shown.
    pub(super) touched: &'a mut BTreeSet<i64>,
}

/// These endpoints, beginning with this one, or the next higher.
fn from(endpoints: &[i64], first: i64) -> impl Iterator<Item = i64> {
    let (before, after) = endpoints.split_at(endpoints.partition_point(|id| *id < first));
    after.iter().chain(before).copied()
}

/// A lane leaves whatever feeds it. What it has in flight goes on, but belongs to no window any more.
pub(super) fn leave(
    lane: &mut Lane,
    id: i64,
    head: &mut Reader,
    flights: &mut HashMap<u64, Flight>,
    feed: Feed,
) {
    lane.leave(head, feed);
    for flight in flights.values_mut().filter(|flight| flight.lane == id) {
        flight.task.origin = Origin::Loose;
    }
}

/// Whether a transaction would find something to do. `fresh` as in [`Desk`].
pub(super) fn has_work(lanes: &Lanes, head: &Reader, fresh: bool, limits: &Limits, now: Timestamp) -> bool {
    let head_has_more = fresh || !head.is_between_legs();
    if head_has_more && lanes.has_resting_follower() {
        return true;
    }
    lanes.active().any(|(_, lane)| {
        let fed = match lane.feed {
            Feed::Head | Feed::Joining => head_has_more,
            Feed::Own => true,
            Feed::Stopped => false,
        };
        lane.is_due(now) || (fed && lane.is_hungry(limits, now))
    })
}

impl Desk<'_> {
    /// One pass.
    pub(super) fn read(&mut self, db: &mut dyn Reading, turn: Turn) {
        // Events that this transaction sees may be of types that an endpoint wants since a moment ago.
        let endpoints_changed = turn.endpoints_changed || db.endpoints_changed();
        if endpoints_changed {
            let registered = db.endpoints();
            self.load_endpoints(db, registered);
        }
        if endpoints_changed || turn.poll {
            self.load_pending(db);
        }
        self.load_due(db, turn.now);
        // A lane that registered after the head's snapshot cannot join before the head has moved on.
        let awaited = self.lanes.active().any(|(_, lane)| {
            let own = lane.reader.as_ref().filter(|_| lane.feed == Feed::Own);
            own.is_some_and(|own| {
                own.is_between_legs() && own.position.legs_to(&self.head.position).is_none()
            })
        });
        *self.fresh |= awaited;
        self.feed_from_head(db, awaited);
        // Those that left the head just now as well: nothing else might wake them soon.
        let own = self.lanes.active_where(|lane| lane.feed == Feed::Own);
        let mut chunks = self.limits.own_chunks_per_round;
        for id in from(&own, *self.own_from) {
            if chunks == 0 {
                *self.own_from = id;
                self.unfinished = true;
                break;
            }
            let share = (self.limits.own_chunks_per_round / own.len()).clamp(1, self.limits.chunks_per_round);
            chunks -= self.feed_from_own(db, id, own.len(), share.min(chunks));
        }
    }

    // ---- the head -----------------------------------------------------------------------------------------------

    /// Reads on for all lanes that keep up. `awaited`: also when none of them is hungry.
    fn feed_from_head(&mut self, db: &mut dyn Reading, awaited: bool) {
        if !self.lanes.has_follower() {
            return self.skip_head(db);
        }
        let (limits, now) = (self.limits, self.now);
        for _ in 0..limits.chunks_per_round {
            self.unburden_head(awaited);
            let is_hungry = |lane: &Lane| lane.follows() && lane.is_hungry(&limits, now);
            let hungry = awaited
                || self.lanes.has_resting_follower()
                || self.lanes.active().any(|(_, lane)| is_hungry(lane));
            if !hungry || self.head.window.bytes() > self.limits.window_bytes || !self.plan_head(db) {
                return;
            }
            let places = self.head.take(*self.chunk);
            if places.is_empty() {
                // A part of a long leg in which nobody wants anything: that was work enough for one round.
                break;
            }
            let events = self.fetch(db, &places);
            self.hand_out(db, &places, events);
            self.head.end_plan_if_done();
        }
        self.unfinished |= !self.head.is_between_legs() || *self.fresh;
    }

    /// Nobody follows the head: it goes to the present without reading.
    fn skip_head(&mut self, db: &mut dyn Reading) {
        if *self.fresh {
            let position = Position { done: db.snapshot(), upto: None, seq: 0 };
            // Never back: the position may come from a later time than the database (a restored copy).
            if self.head.low_water().legs_to(&position).is_some() {
                self.head.go_to(position);
            }
            *self.fresh = false;
        }
    }

    /// Sees to it that the head has a plan, or has gone a step further in a long leg. False: there is nothing to read.
    fn plan_head(&mut self, db: &mut dyn Reading) -> bool {
        // Who joined the head in the meantime may want what the plan leaves out.
        if self.head.left_out().iter().any(|kind| self.lanes.is_followed(kind)) {
            self.head.forget_plan();
        }
        while !self.head.has_plan() {
            if self.head.is_between_legs() {
                if !*self.fresh {
                    return false;
                }
                *self.fresh = false;
                let mut position = self.head.position.clone();
                if position.begin(db.snapshot()).is_err() {
                    return false;
                }
                let Some(leg) = position.rest() else { return false };
                self.head.begin(leg);
            }
            plan(self.head, db, self.limits.planned, |kind| self.lanes.is_followed(kind));
            if !self.head.is_between_legs() {
                break;
            }
        }
        true
    }

    /// Lanes that hold the head's memory leave it. `awaited`: somebody waits for the head to go on.
    fn unburden_head(&mut self, awaited: bool) {
        while self.head.window.len() > self.limits.window {
            let first = self.head.window.first();
            let holder = self.lanes.active().find(|(_, lane)| lane.head_open.contains(&first));
            let Some(id) = holder.map(|(id, _)| id) else { return };
            self.leave_head(id);
        }
        let starving = |lane: &Lane| lane.follows() && lane.queue.is_empty() && lane.flying.is_empty();
        let in_need = awaited
            || self.lanes.has_resting_follower()
            || self.lanes.active().any(|(_, lane)| starving(lane));
        if in_need && self.head.window.bytes() > self.limits.window_bytes {
            // What is in flight counts as well: a receiver that hangs holds it for the whole timeout.
            for id in self.lanes.active_where(|lane| !lane.head_open.is_empty()) {
                self.leave_head(id);
            }
        }
    }

    fn leave_head(&mut self, id: i64) {
        if let Some(lane) = self.lanes.get_mut(id) {
            leave(lane, id, self.head, self.flights, Feed::Own);
        }
    }

    /// Endpoints that follow the head and want this event.
    fn followers(&mut self, event: &Event) -> Vec<i64> {
        let unconditional: Arc<[i64]> = match event.target {
            Some(target) => Arc::from([target]),
            None => self.lanes.takers(&event.event_type).unconditional,
        };
        let selected = event.selected_by.iter().filter(|_| event.target.is_none());
        let wants =
            |id: &i64| self.lanes.get(*id).is_some_and(|lane| lane.follows() && lane.endpoint.wants(event));
        unconditional.iter().chain(selected).copied().filter(wants).collect()
    }

    /// Hands events to every lane that follows the head and wants them.
    fn hand_out(&mut self, db: &mut dyn Reading, places: &[Place], events: Vec<Arc<Event>>) {
        let settled = if self.head.must_verify(|| db.snapshot()) {
            let pairs: Vec<(i64, Place)> = events
                .iter()
                .flat_map(|event| self.followers(event).into_iter().map(|id| (id, event.place)))
                .collect();
            db.settled(&pairs).into_iter().collect()
        } else {
            HashSet::new()
        };
        let mut events = events.into_iter().peekable();
        for &place in places {
            if let Some(event) = events.next_if(|event| event.place == place) {
                self.hand_out_one(&event, &settled);
                if event.target.is_none() && !self.lanes.is_type_followed(&event.event_type) {
                    self.head.met_unwanted(&event.event_type);
                }
            }
            self.head.pass(place);
        }
    }

    fn hand_out_one(&mut self, event: &Arc<Event>, settled: &HashSet<(i64, Place)>) {
        let mut takers = Vec::new();
        for id in self.followers(event) {
            let can_follow = self.lanes.get(id).is_some_and(|lane| lane.can_follow(&self.limits, self.now));
            if settled.contains(&(id, event.place)) {
                continue;
            }
            if can_follow { takers.push(id) } else { self.leave_head(id) }
        }
        let Ok(count @ 1..) = u32::try_from(takers.len()) else { return };
        let number = self.head.window.open(self.head.position.clone(), count, event.bytes());
        for id in takers {
            if let Some(lane) = self.lanes.get_mut(id) {
                lane.head_open.insert(number);
                let task = Task { event: Arc::clone(event), row: None, origin: Origin::Head(number) };
                lane.order.enqueue(task, &mut lane.queue);
            }
        }
    }

    // ---- a lane of its own --------------------------------------------------------------------------------------

    /// Reads on for a lane that fell behind, until it stands where the head stands. Answers how many chunks it has read.
    fn feed_from_own(&mut self, db: &mut dyn Reading, id: i64, lanes: usize, chunks: usize) -> usize {
        let limits = self.limits;
        for read in 0..chunks {
            let Some(lane) = self.lanes.get_mut(id) else { return read };
            let full = |reader: &Reader| {
                reader.window.len() >= limits.window || reader.window.bytes() > limits.window_bytes / lanes
            };
            if !lane.is_hungry(&limits, self.now) || lane.reader.as_ref().is_none_or(full) {
                return read;
            }
            if !plan_own(lane, &self.head.position, db, &limits, lanes) {
                return read;
            }
            let Some(reader) = &mut lane.reader else { return read };
            let places = reader.take(*self.chunk);
            if places.is_empty() {
                break;
            }
            let events = self.fetch(db, &places);
            self.hand_to(db, id, &places, events);
        }
        self.unfinished = true;
        chunks
    }

    fn hand_to(&mut self, db: &mut dyn Reading, id: i64, places: &[Place], events: Vec<Arc<Event>>) {
        let Some(Lane { endpoint, reader: Some(reader), queue, flying, order, breaker, .. }) =
            self.lanes.get_mut(id)
        else {
            return;
        };
        let settled: HashSet<(i64, Place)> = if reader.must_verify(|| db.snapshot()) {
            let wanted = events.iter().filter(|event| endpoint.wants(event));
            db.settled(&wanted.map(|event| (id, event.place)).collect::<Vec<_>>()).into_iter().collect()
        } else {
            HashSet::new()
        };
        let mut events = events.into_iter().peekable();
        for (nth, &place) in places.iter().enumerate() {
            // An open breaker asks for one event; the others would only lie in memory.
            if breaker.is_open() && !queue.is_empty() {
                reader.put_back(&places[nth..]);
                break;
            }
            let event = events.next_if(|event| event.place == place);
            if let Some(other) = event.as_ref().filter(|event| !endpoint.wants_type(&event.event_type)) {
                reader.met_unwanted(&other.event_type);
            }
            if let Some(event) =
                event.filter(|event| endpoint.wants(event) && !settled.contains(&(id, place)))
            {
                let number = reader.window.open(reader.position.clone(), 1, event.bytes());
                // Sent before the lane left the head, and not answered yet: it must not be sent a second time.
                match flying.get(&place).and_then(|ticket| self.flights.get_mut(ticket)) {
                    Some(flight) => flight.task.origin = Origin::Own(number),
                    None => order.enqueue(Task { event, row: None, origin: Origin::Own(number) }, queue),
                }
            }
            reader.pass(place);
        }
        reader.end_plan_if_done();
    }

    /// Fetches, and lets the next chunk follow the size of the events.
    fn fetch(&mut self, db: &mut dyn Reading, places: &[Place]) -> Vec<Arc<Event>> {
        let events = db.fetch(places);
        let bytes: usize = events.iter().map(Event::bytes).sum();
        if bytes >= self.limits.large_chunk_bytes {
            *self.chunk = (*self.chunk / 4).max(1);
        } else if bytes < self.limits.small_chunk_bytes {
            *self.chunk = (*self.chunk * 2).min(self.limits.max_chunk);
        }
        events.into_iter().map(Arc::new).collect()
    }
}

/// Sees to it that a lane's own reader has a plan, or has looked at a part of a long leg. False: it stands where the head
/// stands and joins it, or it has to wait for the head.
fn plan_own(lane: &mut Lane, head: &Position, db: &mut dyn Reading, limits: &Limits, lanes: usize) -> bool {
    let Lane { endpoint, reader: Some(reader), .. } = lane else { return false };
    while !reader.has_plan() {
        if reader.is_between_legs() {
            let Some(legs) = reader.position.legs_to(head) else { return false };
            let Some(leg) = legs.into_iter().next() else {
                lane.feed = Feed::Joining;
                return false;
            };
            reader.begin(leg);
        }
        plan(reader, db, (limits.planned / lanes).max(1), |kind| match kind {
            Kind::Type(event_type) => endpoint.wants_type(event_type),
            Kind::Target(id) => *id == endpoint.id,
        });
        if !reader.is_between_legs() {
            break;
        }
    }
    true
}

/// Plans on in the reader's leg.
fn plan(reader: &mut Reader, db: &mut dyn Reading, limit: usize, wants: impl FnMut(&Kind) -> bool) {
    struct Readers<'a, W>(&'a mut Reader, W);
    impl<W: FnMut(&Kind) -> bool> Audience for Readers<'_, W> {
        fn wants(&mut self, kind: &Kind) -> bool {
            (self.1)(kind)
        }

        fn unwanted(&mut self) -> Vec<String> {
            let Self(reader, wants) = self;
            reader.unwanted(|event_type| wants(&Kind::Type(event_type.to_owned())))
        }
    }
    let Some(leg) = reader.unplanned() else { return };
    if reader.search().is_none() {
        match db.plan(&leg, limit, &mut Readers(reader, wants)) {
            Plan::Read(part) => return reader.planned(part),
            Plan::Search(left_out) => reader.begin_search(Search::new(limit, left_out)),
        }
    }
    if let Some(search) = reader.search() {
        let slice = db.search(&leg, search.after, &search.left_out);
        reader.found(slice);
    }
}
