//! A model of PostgreSQL and of the extension's tables: what the engine's store shows of them.
//!
//! It keeps to what PostgreSQL does: ids are given out in order, a snapshot's xmax is the latest completed id plus one, xip
//! lists what runs below it, a query sees the rows of committed transactions only, and positions travel as text.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use uuid::Uuid;
use webhook_pg::endpoint::{Endpoint, State as Mode};
use webhook_pg::engine::{Ledger, Settled};
use webhook_pg::event::{ENDPOINT_DISABLED, Event, Place, Timestamp, endpoint_key};
use webhook_pg::figures::Figures;
use webhook_pg::outcome::State;
use webhook_pg::position::{Position, Snapshot};

/// The worker's session.
const WORKER: usize = 98;

/// Events of this type cannot be read.
pub const POISON: &str = "poison.created";

/// A row of `webhook.delivery`.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    pub id: i64,
    pub state: State,
    pub attempts: u32,
    /// Where a retry began the schedule anew.
    pub attempts_before: u32,
}

/// A row of `webhook.endpoint`, and since when it wants events.
#[derive(Debug)]
pub struct Entry {
    pub endpoint: Endpoint,
    pub start: Snapshot,
}

enum Change {
    Register(Box<Endpoint>, Snapshot),
    Activate(i64, Snapshot),
}

#[derive(Default)]
struct Transaction {
    xid: u64,
    events: Vec<Event>,
    changes: Vec<Change>,
}

/// How often something happened, so that a test can see that it did.
#[derive(Debug, Default, Clone, Copy)]
pub struct Counts {
    pub reads: usize,
    /// Most events fetched, and most endpoints asked for what is due, in one read.
    pub most_fetched: usize,
    pub most_asked: usize,
    pub writes: usize,
    pub failed_writes: usize,
    /// Changes of since when an endpoint has only failed.
    pub failing_written: usize,
    /// An active endpoint got a position of its own.
    pub left: usize,
    /// A position of its own was removed.
    pub joined: usize,
    pub delivered: usize,
    pub dead: usize,
    pub disabled: usize,
    /// Events that a plan left out because nobody wanted them.
    pub left_out: usize,
    /// Legs that had to be searched.
    pub searches: usize,
    /// Events of large transactions that were left out as a whole.
    pub passed: usize,
    pub verified: usize,
    /// Times that figures were saved.
    pub figure_writes: usize,
}

/// The model.
pub struct Database {
    last_xid: u64,
    last_completed: u64,
    last_seq: i64,
    last_row: i64,
    running: BTreeSet<u64>,
    sessions: BTreeMap<usize, Transaction>,
    pub outbox: BTreeMap<Place, Arc<Event>>,
    pub endpoints: BTreeMap<i64, Entry>,
    pub positions: BTreeMap<i64, Position>,
    pub deliveries: BTreeMap<(i64, Place), Row>,
    /// Deliveries that somebody's open transaction holds.
    pub held: HashSet<(i64, Place)>,
    /// Endpoints that somebody's open transaction holds.
    pub held_endpoints: HashSet<i64>,
    pub pending: BTreeSet<(i64, Timestamp, Place)>,
    /// Since when endpoints have only failed.
    pub failing: BTreeMap<i64, Timestamp>,
    /// What must still get a delivery row.
    pub owed: BTreeSet<(i64, Place)>,
    /// What was ever owed: nothing else may be sent.
    pub allowed: BTreeSet<(i64, Place)>,
    /// The latch is set.
    pub woken: bool,
    /// An invalidation of `webhook.endpoint` has been sent.
    pub changed: bool,
    pub failing_writes: u32,
    pub failing_reads: u32,
    /// Largest number of events fetched in one go since the last look.
    pub largest_fetch: usize,
    /// Of the read that is under way: events fetched, and endpoints asked for what is due.
    pub fetched: usize,
    pub asked: usize,
    /// Bytes of the largest event.
    pub largest_event: usize,
    pub counts: Counts,
    /// What is shown of endpoints: requests in flight, and figures.
    pub shown: BTreeMap<i64, (usize, Figures)>,
    /// Figures that are saved.
    pub figures: BTreeMap<i64, Figures>,
}

impl Database {
    pub fn new() -> Self {
        let snapshot = Snapshot::new(101, 101, Vec::new()).unwrap();
        Self {
            last_xid: 100,
            last_completed: 100,
            last_seq: 0,
            last_row: 0,
            running: BTreeSet::new(),
            sessions: BTreeMap::new(),
            outbox: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            positions: BTreeMap::from([(0, Position::new(snapshot))]),
            deliveries: BTreeMap::new(),
            held: HashSet::new(),
            held_endpoints: HashSet::new(),
            pending: BTreeSet::new(),
            failing: BTreeMap::new(),
            owed: BTreeSet::new(),
            allowed: BTreeSet::new(),
            woken: false,
            changed: false,
            failing_writes: 0,
            failing_reads: 0,
            largest_fetch: 0,
            fetched: 0,
            asked: 0,
            largest_event: 0,
            counts: Counts::default(),
            shown: BTreeMap::new(),
            figures: BTreeMap::new(),
        }
    }

    // ---- transactions -------------------------------------------------------------------------------------------

    fn new_xid(&mut self) -> u64 {
        self.last_xid += 1;
        self.running.insert(self.last_xid);
        self.last_xid
    }

    fn transaction(&mut self, session: usize) -> &mut Transaction {
        if !self.sessions.contains_key(&session) {
            let xid = self.new_xid();
            self.sessions.insert(session, Transaction { xid, ..Transaction::default() });
        }
        self.sessions.get_mut(&session).unwrap()
    }

    pub fn begin(&mut self, session: usize) {
        self.transaction(session);
    }

    pub fn emit(&mut self, session: usize, event_type: &str, bytes: usize) {
        self.emit_keyed(session, event_type, None, bytes);
    }

    pub fn emit_keyed(&mut self, session: usize, event_type: &str, key: Option<&str>, bytes: usize) {
        self.last_seq += 1;
        self.largest_event = self.largest_event.max(bytes + 100);
        let seq = self.last_seq;
        let transaction = self.transaction(session);
        let place = Place { xid: transaction.xid, seq };
        transaction.events.push(Event {
            place,
            id: Uuid::from_u64_pair(place.xid, seq.unsigned_abs()),
            event_type: event_type.to_owned(),
            operation: None,
            key: key.map(str::to_owned),
            occurred_at: 0,
            data: Some("x".repeat(bytes)),
            previous: None,
            expanded: None,
            truncated: false,
            context: None,
            traceparent: None,
            target: None,
            selected_by: Vec::new(),
            unreadable: (event_type == POISON).then(|| "missing chunk number 0 for toast value".to_owned()),
        });
    }

    /// Registers within the session's transaction; in force when that commits.
    pub fn register(&mut self, session: usize, endpoint: Endpoint) {
        let start = self.own_snapshot(session);
        self.transaction(session).changes.push(Change::Register(Box::new(endpoint), start));
    }

    /// Makes an inactive endpoint active, starting at the present.
    pub fn activate(&mut self, session: usize, id: i64) {
        let start = self.own_snapshot(session);
        self.transaction(session).changes.push(Change::Activate(id, start));
    }

    /// What `webhook.own_snapshot()` gives: the session's own transaction counts as running.
    fn own_snapshot(&mut self, session: usize) -> Snapshot {
        let xid = self.transaction(session).xid;
        self.snapshot().without(xid)
    }

    /// Commits. `announced`: the worker's latch is set (COMMIT PREPARED does not).
    pub fn commit(&mut self, session: usize, announced: bool) {
        let Some(Transaction { xid, events, changes }) = self.sessions.remove(&session) else { return };
        self.complete(xid);
        self.woken |= announced && !(events.is_empty() && changes.is_empty());
        for change in changes {
            self.changed = true;
            match change {
                Change::Register(endpoint, start) => {
                    self.positions.insert(endpoint.id, Position::new(start.clone()));
                    self.start(*endpoint, start);
                }
                Change::Activate(id, start) => {
                    if let Some(Entry { endpoint, .. }) = self.endpoints.remove(&id) {
                        if endpoint.state != Mode::Inactive {
                            self.endpoints.insert(id, Entry { endpoint, start });
                            continue;
                        }
                        self.positions.insert(id, Position::new(start.clone()));
                        self.start(Endpoint { state: Mode::Active, ..endpoint }, start);
                    }
                }
            }
        }
        for event in events {
            let takers = self.endpoints.values().filter(|e| {
                e.endpoint.state != Mode::Inactive && !e.start.sees(xid) && e.endpoint.wants(&event)
            });
            let takers: Vec<_> = takers.map(|e| (e.endpoint.id, event.place)).collect();
            self.owed.extend(&takers);
            self.allowed.extend(takers);
            self.outbox.insert(event.place, Arc::new(event));
        }
    }

    fn start(&mut self, endpoint: Endpoint, start: Snapshot) {
        let missing = self.outbox.values().filter(|e| !start.sees(e.place.xid) && endpoint.wants(e));
        let missing: Vec<_> = missing
            .map(|e| (endpoint.id, e.place))
            .filter(|pair| !self.deliveries.contains_key(pair))
            .collect();
        self.owed.extend(&missing);
        self.allowed.extend(missing);
        self.endpoints.insert(endpoint.id, Entry { endpoint, start });
    }

    pub fn abort(&mut self, session: usize) {
        if let Some(transaction) = self.sessions.remove(&session) {
            self.complete(transaction.xid);
        }
    }

    pub fn commit_all(&mut self) {
        for session in self.sessions.keys().copied().collect::<Vec<_>>() {
            self.commit(session, true);
        }
    }

    /// A transaction that has nothing to do with us.
    pub fn foreign(&mut self) {
        let xid = self.new_xid();
        self.complete(xid);
    }

    fn complete(&mut self, xid: u64) {
        self.running.remove(&xid);
        self.last_completed = self.last_completed.max(xid);
    }

    pub fn snapshot(&self) -> Snapshot {
        let xmax = self.last_completed + 1;
        let xip: Vec<_> = self.running.range(..xmax).copied().collect();
        Snapshot::new(xip.first().map_or(xmax, |xid| *xid), xmax, xip).unwrap()
    }

    // ---- the functions of the extension -------------------------------------------------------------------------

    pub fn mode(&self, id: i64) -> Option<Mode> {
        self.endpoints.get(&id).map(|e| e.endpoint.state)
    }

    /// Pauses, resumes or makes inactive.
    pub fn set_mode(&mut self, id: i64, mode: Mode) {
        let Some(entry) = self.endpoints.get_mut(&id) else { return };
        if entry.endpoint.state == Mode::Inactive {
            return;
        }
        entry.endpoint.state = mode;
        if mode == Mode::Active {
            self.failing.remove(&id);
        }
        if mode == Mode::Inactive {
            self.owed.retain(|(endpoint, _)| *endpoint != id);
        }
        self.foreign();
        (self.changed, self.woken) = (true, true);
    }

    /// `webhook_update`.
    pub fn reconfigure(&mut self, id: i64, change: impl FnOnce(&mut Endpoint)) {
        if let Some(entry) = self.endpoints.get_mut(&id) {
            change(&mut entry.endpoint);
        }
        self.failing.remove(&id);
        self.foreign();
        (self.changed, self.woken) = (true, true);
    }

    /// `webhook_cancel` for whatever is pending.
    pub fn cancel_pending(&mut self, id: i64) {
        self.pending.retain(|(endpoint, _, _)| *endpoint != id);
        // For the worker the same as dead.
        for (_, row) in self.deliveries.iter_mut().filter(|((endpoint, _), _)| *endpoint == id) {
            if let State::Pending { .. } = row.state {
                row.state = State::Dead;
            }
        }
        self.foreign();
        self.woken = true;
    }

    pub fn unregister(&mut self, id: i64) {
        self.endpoints.remove(&id);
        self.positions.remove(&id);
        self.failing.remove(&id);
        self.owed.retain(|(endpoint, _)| *endpoint != id);
        self.cancel_pending(id);
        self.changed = true;
    }

    /// `webhook_retry`.
    pub fn retry(&mut self, pair: (i64, Place), now: Timestamp) {
        let Some(row) = self.deliveries.get_mut(&pair) else { return };
        if row.state == State::Dead {
            row.attempts_before = row.attempts;
            row.state = State::Pending { next_attempt_at: now };
            self.pending.insert((pair.0, now, pair.1));
        }
        self.foreign();
        self.woken = true;
    }

    /// `webhook_replay`: what has ended is pending again.
    pub fn replay(&mut self, id: i64, now: Timestamp) {
        for (pair, row) in self.deliveries.iter_mut().filter(|((endpoint, _), _)| *endpoint == id) {
            if !matches!(row.state, State::Pending { .. }) {
                row.attempts_before = row.attempts;
                row.state = State::Pending { next_attempt_at: now };
                self.pending.insert((id, now, pair.1));
            }
        }
        self.foreign();
        self.woken = true;
    }

    /// Somebody's open transaction holds the endpoint and all deliveries that it has now.
    pub fn hold(&mut self, id: i64) {
        self.held.extend(self.deliveries.keys().filter(|(endpoint, _)| *endpoint == id));
        self.held_endpoints.insert(id);
    }

    /// That transaction has ended.
    pub fn release(&mut self) {
        self.held.clear();
        self.held_endpoints.clear();
    }

    // ---- the worker's statements --------------------------------------------------------------------------------

    fn settle(&mut self, settled: &Settled) {
        let pair = (settled.endpoint, settled.place);
        assert_eq!(self.outbox[&settled.place].id, settled.event, "the outcome names another event");
        let old = self.deliveries.get(&pair).copied();
        if let Some(id) = settled.delivery
            && let Some(old) = old
        {
            assert_eq!(old.id, id, "the outcome names another delivery");
        }
        if let Some(Row { state: State::Pending { next_attempt_at }, .. }) = old {
            self.pending.remove(&(pair.0, next_attempt_at, pair.1));
        } else if old.is_some() && settled.state != State::Delivered {
            return;
        }
        match settled.state {
            State::Pending { next_attempt_at } => {
                self.pending.insert((pair.0, next_attempt_at, pair.1));
            }
            State::Delivered => self.counts.delivered += 1,
            State::Dead => self.counts.dead += 1,
        }
        let fresh = self.last_row + 1;
        self.last_row += i64::from(old.is_none());
        self.deliveries.insert(
            pair,
            Row {
                id: old.map_or(fresh, |row| row.id),
                state: settled.state,
                attempts: settled.attempts,
                attempts_before: old.map_or(0, |row| row.attempts_before),
            },
        );
        self.owed.remove(&pair);
    }

    /// What is pending and due later becomes due earlier.
    pub fn put_back(&mut self, now: Timestamp, by: Timestamp) {
        let later: Vec<_> = self.pending.iter().copied().filter(|(_, due, _)| *due > now).collect();
        for (id, due, place) in later {
            self.pending.remove(&(id, due, place));
            self.pending.insert((id, due - by, place));
            if let Some(row) = self.deliveries.get_mut(&(id, place)) {
                row.state = State::Pending { next_attempt_at: due - by };
            }
        }
    }

    /// Writes what the worker writes in one transaction.
    pub fn apply(&mut self, ledger: &Ledger) {
        for settled in &ledger.settled {
            self.settle(settled);
        }
        for (id, position) in &ledger.positions {
            assert!(!ledger.joined.contains(id), "a position is written and removed at once");
            if *id != 0 && !self.endpoints.contains_key(id) {
                continue;
            }
            let upto = position.upto.as_ref().map(ToString::to_string);
            let reloaded =
                Position::from_columns(&position.done.to_string(), upto.as_deref(), position.seq).unwrap();
            let old = self.positions.insert(*id, reloaded);
            self.counts.left += usize::from(old.is_none() && self.mode(*id) == Some(Mode::Active));
        }
        for id in &ledger.joined {
            self.counts.joined += usize::from(self.positions.remove(id).is_some());
        }
        for (id, _) in &ledger.disabled {
            if self.mode(*id) == Some(Mode::Active) {
                self.endpoints.get_mut(id).unwrap().endpoint.state = Mode::Disabled;
                self.counts.disabled += 1;
                self.changed = true;
                self.failing.remove(id);
                self.emit_keyed(WORKER, ENDPOINT_DISABLED, Some(&endpoint_key(*id)), 10);
                self.commit(WORKER, true);
            }
        }
        for (id, since) in &ledger.failing {
            match since {
                Some(since) if self.endpoints.contains_key(id) => self.failing.insert(*id, *since),
                _ => self.failing.remove(id),
            };
            self.counts.failing_written += 1;
        }
        self.counts.writes += 1;
        // The worker's own transaction.
        self.foreign();
        self.assert_positions_hold();
    }

    /// The saved positions pass no event that is still owed, and the head hands out nothing that is not. With many of them, not
    /// at every write: that would be quadratic.
    pub fn assert_positions_hold(&self) {
        if !self.counts.writes.is_multiple_of(1 + self.owed.len() / 200) {
            return;
        }
        for (id, place) in &self.owed {
            let position = self.positions.get(id).unwrap_or(&self.positions[&0]);
            assert!(
                !position.consumed(*place),
                "lost: the position of {id} has passed {place:?}: {position:?}"
            );
        }
    }
}
