//! Order: who must wait for whom in the lane of one endpoint.
//!
//! With `ordering => 'key'` the events of one key go one after the other; `strict` is the same with one key for all. A key is
//! *busy* while a delivery of it is in flight, its outcome is not written, or it is pending. The queue holds one event of a
//! key; whatever else there is of it is *parked*, in the order of reading. A delivery that ends, however it ends, lets the
//! next one go.

use std::collections::hash_map::{DefaultHasher, Entry};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::hash::{Hash, Hasher};

use crate::endpoint::Ordering;
use crate::engine::task::{Origin, Task};
use crate::event::{Event, Place};

/// A key's hash. Should two keys share one, they wait for each other without need.
type Key = u64;

/// Numbers before transactions: the order in which a key's events were raised.
type Raised = (i64, u64);

/// Who waits for whom. For an endpoint without ordering it does nothing.
#[derive(Debug)]
pub struct Order {
    rule: Ordering,
    busy: HashMap<Key, BTreeSet<Raised>>,
    /// Keys of which the queue holds an event.
    queued: HashSet<Key>,
    parked: HashMap<Key, BTreeMap<Origin, Task>>,
    parked_count: usize,
}

impl Order {
    /// Nothing is busy and nothing parked.
    pub fn new(rule: Ordering) -> Self {
        Self { rule, busy: HashMap::new(), queued: HashSet::new(), parked: HashMap::new(), parked_count: 0 }
    }

    /// The rule.
    pub fn rule(&self) -> Ordering {
        self.rule
    }

    /// Events that wait for another one.
    pub fn parked(&self) -> usize {
        self.parked_count
    }

    /// Whether nothing is in flight or pending, as far as known.
    pub fn is_idle(&self) -> bool {
        self.busy.is_empty()
    }

    fn key(&self, text: &str) -> Option<Key> {
        match self.rule {
            Ordering::None => None,
            Ordering::Strict => Some(0),
            Ordering::Key => {
                let mut hasher = DefaultHasher::new();
                text.hash(&mut hasher);
                Some(hasher.finish())
            }
        }
    }

    /// A new event was read: it joins the queue, or waits.
    pub fn enqueue(&mut self, task: Task, queue: &mut VecDeque<Task>) {
        match self.key(task.event.order_key()) {
            Some(key) if self.busy.contains_key(&key) || !self.queued.insert(key) => self.park(key, task),
            _ => queue.push_back(task),
        }
    }

    /// The next event of the queue that may go now.
    pub fn next(&mut self, queue: &mut VecDeque<Task>) -> Option<Task> {
        loop {
            let task = queue.pop_front()?;
            let Some(key) = self.key(task.event.order_key()) else { return Some(task) };
            self.queued.remove(&key);
            if !self.busy.contains_key(&key) {
                return Some(task);
            }
            // Somebody has revived a delivery of the key.
            self.park(key, task);
        }
    }

    fn park(&mut self, key: Key, task: Task) {
        self.parked_count += 1;
        self.parked.entry(key).or_default().insert(task.origin, task);
    }

    /// A delivery is in flight, or pending.
    pub fn occupy(&mut self, place: Place, key: &str) {
        if let Some(key) = self.key(key) {
            self.busy.entry(key).or_default().insert((place.seq, place.xid));
        }
    }

    /// An event did not leave after all: it goes before the others of its key.
    pub fn take_back(&mut self, task: Task, queue: &mut VecDeque<Task>) {
        if let Some(key) = self.key(task.event.order_key()) {
            self.vacate(key, task.event.place);
            if self.busy.contains_key(&key) {
                return self.park(key, task);
            }
            self.queued.insert(key);
        }
        queue.push_front(task);
    }

    /// An event did not leave after all, and will be read again.
    pub fn drop_back(&mut self, event: &Event) {
        if let Some(key) = self.key(event.order_key()) {
            self.vacate(key, event.place);
        }
    }

    /// A delivery has ended: the next event of its key goes to the head of the queue.
    pub fn ended(&mut self, event: &Event, queue: &mut VecDeque<Task>) {
        let Some(key) = self.key(event.order_key()) else { return };
        if !self.vacate(key, event.place) || self.queued.contains(&key) {
            return;
        }
        let Entry::Occupied(mut parked) = self.parked.entry(key) else { return };
        if let Some((_, task)) = parked.get_mut().pop_first() {
            self.parked_count -= 1;
            self.queued.insert(key);
            queue.push_front(task);
        }
        if parked.get().is_empty() {
            parked.remove();
        }
    }

    /// True: its key is free.
    fn vacate(&mut self, key: Key, place: Place) -> bool {
        let Entry::Occupied(mut places) = self.busy.entry(key) else { return true };
        places.get_mut().remove(&(place.seq, place.xid));
        let is_free = places.get().is_empty();
        if is_free {
            places.remove();
        }
        is_free
    }

    /// The first delivery of each key, where none is in flight: those that may be tried again. `None`: any may.
    pub fn first_pending(&self, is_flying: impl Fn(Place) -> bool) -> Option<Vec<Place>> {
        if self.rule == Ordering::None {
            return None;
        }
        let place = |&(seq, xid): &Raised| Place { xid, seq };
        let at_rest = self.busy.values().filter(|places| !places.iter().map(place).any(&is_flying));
        Some(at_rest.filter_map(|places| places.first().map(place)).collect())
    }

    /// Whether a delivery may be tried again: no other of its key is in flight or comes before it.
    pub fn admits_retry(&self, event: &Event, is_flying: impl Fn(Place) -> bool) -> bool {
        let Some(places) = self.key(event.order_key()).and_then(|key| self.busy.get(&key)) else {
            return true;
        };
        let own = (event.place.seq, event.place.xid);
        places.first().is_none_or(|first| *first >= own)
            && !places.iter().any(|&(seq, xid)| is_flying(Place { xid, seq }))
    }

    /// Begins anew with what is in flight or pending now, as somebody may have cancelled or revived deliveries: what waits
    /// is sorted again.
    pub fn rebuild<'a>(&mut self, busy: impl Iterator<Item = (Place, &'a str)>, queue: &mut VecDeque<Task>) {
        if self.rule == Ordering::None {
            return;
        }
        self.busy.clear();
        busy.for_each(|(place, key)| self.occupy(place, key));
        let parked = std::mem::take(&mut self.parked).into_values().flat_map(BTreeMap::into_values);
        let mut waiting: Vec<Task> = queue.drain(..).chain(parked).collect();
        self.parked_count = 0;
        self.queued.clear();
        waiting.sort_by_key(|task| task.origin);
        waiting.into_iter().for_each(|task| self.enqueue(task, queue));
    }

    /// Forgets what waits: it will be read again.
    pub fn forget(&mut self, queue: &mut VecDeque<Task>) {
        queue.clear();
        self.queued.clear();
        self.parked.clear();
        self.parked_count = 0;
    }
}
