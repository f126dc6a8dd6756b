//! The model of PostgreSQL: random schedules of transactions, and what a reader can see of them.
//!
//! It keeps to what PostgreSQL does: ids are given out in order, a snapshot's xmax is the latest completed id plus one, xip
//! lists what runs below it except the transaction that asks, a prepared transaction goes on running, a row lock is held
//! to the end, numbers come in blocks after the lock, and a query sees the rows of committed transactions only.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use webhook_pg::event::Place;
use webhook_pg::position::{Leg, Snapshot};

pub(crate) const SESSIONS: usize = 6;
pub(crate) const KEYS: u8 = 5;

/// One step of a schedule. Numbers choose a session, a prepared transaction or whatever a test reads from them.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    TakeXid(usize),
    /// Lock these rows, then take a number for each.
    Draw(usize, Vec<u8>),
    /// Write what was drawn.
    Insert(usize),
    End(usize, End),
    EndPrepared(usize, End),
    /// A point where a test may read.
    Point(u8),
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum End {
    Commit,
    Abort,
    Prepare,
}

pub(crate) fn schedules() -> impl Strategy<Value = Vec<Op>> {
    let session = 0..SESSIONS;
    // The first session is never ended by a step: its transaction runs from its first write to the end of the schedule.
    let ending = 1..SESSIONS;
    let end = prop_oneof![4 => Just(End::Commit), 1 => Just(End::Abort), 1 => Just(End::Prepare)];
    let end_prepared = prop_oneof![2 => Just(End::Commit), 1 => Just(End::Abort)];
    let op = prop_oneof![
        1 => session.clone().prop_map(Op::TakeXid),
        5 => (session.clone(), prop::collection::vec(0..KEYS, 1..5)).prop_map(|(s, keys)| Op::Draw(s, keys)),
        2 => session.prop_map(Op::Insert),
        4 => (ending, end).prop_map(|(s, end)| Op::End(s, end)),
        1 => (0..4_usize, end_prepared).prop_map(|(n, end)| Op::EndPrepared(n, end)),
        6 => any::<u8>().prop_map(Op::Point),
    ];
    prop::collection::vec(op, 0..150)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) place: Place,
    pub(crate) key: u8,
}

#[derive(Debug, Default)]
pub(crate) struct Transaction {
    pub(crate) xid: u64,
    pub(crate) drawn: Vec<Row>,
    pub(crate) written: Vec<Row>,
}

/// The model of PostgreSQL.
#[derive(Debug)]
pub(crate) struct Database {
    pub(crate) last_xid: u64,
    pub(crate) last_completed: u64,
    pub(crate) last_seq: i64,
    pub(crate) sessions: BTreeMap<usize, Transaction>,
    pub(crate) prepared: Vec<Transaction>,
    pub(crate) running: BTreeSet<u64>,
    pub(crate) locks: BTreeMap<u8, u64>,
    /// What is visible now, in the order of commit.
    pub(crate) committed: Vec<Row>,
}

impl Database {
    /// Runs the schedule, calls `at_point` at each of its points, and ends every transaction that still runs.
    pub(crate) fn run(schedule: &[Op], mut at_point: impl FnMut(&mut Self, u8)) -> Self {
        let mut db = Self {
            last_xid: 100,
            last_completed: 100,
            last_seq: 0,
            sessions: BTreeMap::new(),
            prepared: Vec::new(),
            running: BTreeSet::new(),
            locks: BTreeMap::new(),
            committed: Vec::new(),
        };
        for op in schedule {
            match op {
                Op::TakeXid(session) => _ = db.transaction(*session),
                Op::Draw(session, keys) => db.draw(*session, keys),
                Op::Insert(session) => db.insert(*session),
                Op::End(session, end) => db.end(*session, *end),
                Op::EndPrepared(n, end) if *n < db.prepared.len() => {
                    let transaction = db.prepared.remove(*n);
                    db.complete(transaction, *end);
                }
                Op::EndPrepared(..) => {}
                Op::Point(n) => at_point(&mut db, *n),
            }
        }
        for session in 0..SESSIONS {
            db.end(session, if session == SESSIONS - 1 { End::Abort } else { End::Commit });
        }
        for transaction in std::mem::take(&mut db.prepared) {
            db.complete(transaction, End::Commit);
        }
        db
    }

    pub(crate) fn transaction(&mut self, session: usize) -> &mut Transaction {
        self.sessions.entry(session).or_insert_with(|| {
            self.last_xid += 1;
            self.running.insert(self.last_xid);
            Transaction { xid: self.last_xid, ..Transaction::default() }
        })
    }

    pub(crate) fn draw(&mut self, session: usize, keys: &[u8]) {
        let xid = self.transaction(session).xid;
        // A row that somebody else has locked would make the session wait; here it writes the others only.
        let locks = &mut self.locks;
        let keys = keys.iter().filter(|key| *locks.entry(**key).or_insert(xid) == xid);
        let rows = (self.last_seq + 1..).zip(keys).map(|(seq, &key)| Row { place: Place { xid, seq }, key });
        let rows: Vec<_> = rows.collect();
        self.last_seq += 8; // a block
        self.transaction(session).drawn.extend(rows);
    }

    pub(crate) fn insert(&mut self, session: usize) {
        if let Some(transaction) = self.sessions.get_mut(&session) {
            transaction.written.append(&mut transaction.drawn);
        }
    }

    pub(crate) fn end(&mut self, session: usize, end: End) {
        self.insert(session);
        if let Some(transaction) = self.sessions.remove(&session) {
            match end {
                End::Prepare => self.prepared.push(transaction),
                End::Commit | End::Abort => self.complete(transaction, end),
            }
        }
    }

    pub(crate) fn complete(&mut self, transaction: Transaction, end: End) {
        self.running.remove(&transaction.xid);
        self.last_completed = self.last_completed.max(transaction.xid);
        self.locks.retain(|_, holder| *holder != transaction.xid);
        if matches!(end, End::Commit) {
            self.committed.extend(transaction.written);
        }
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        self.snapshot_in(None)
    }

    /// What the transaction `own` would get.
    pub(crate) fn snapshot_in(&self, own: Option<u64>) -> Snapshot {
        let xmax = self.last_completed + 1;
        let xip: Vec<_> = self.running.range(..xmax).copied().filter(|xid| Some(*xid) != own).collect();
        let xmin = xip.iter().copied().chain(own).chain([xmax]).min().unwrap();
        Snapshot::new(xmin, xmax, xip).unwrap()
    }

    /// The first rows of a leg that are visible now.
    pub(crate) fn plan(&self, leg: &Leg, limit: usize) -> Vec<Place> {
        let mut places: Vec<_> =
            self.committed.iter().map(|row| row.place).filter(|p| leg.wants(*p)).collect();
        places.sort_by_key(|place| place.seq);
        places.truncate(limit);
        places
    }

    pub(crate) fn committed_places(&self) -> Vec<Place> {
        self.committed.iter().map(|row| row.place).collect()
    }

    /// Every committed event, and none of them twice.
    pub(crate) fn assert_exactly_once(&self, got: &[Place]) {
        assert_same(got, &self.committed_places());
    }

    /// Each key's events as its writers committed them.
    pub(crate) fn assert_key_order(&self, got: &[Place]) {
        let key_of: BTreeMap<_, _> = self.committed.iter().map(|row| (row.place, row.key)).collect();
        for key in 0..KEYS {
            let got: Vec<_> = got.iter().filter(|place| key_of.get(place) == Some(&key)).collect();
            let expected: Vec<_> =
                self.committed.iter().filter(|row| row.key == key).map(|row| &row.place).collect();
            assert_eq!(got, expected, "order of key {key}");
        }
    }
}

pub(crate) fn assert_same(got: &[Place], expected: &[Place]) {
    let sorted = |places: &[Place]| {
        let mut places = places.to_vec();
        places.sort();
        places
    };
    assert_eq!(sorted(got), sorted(expected));
}
