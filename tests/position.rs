//! Promises of `webhook_pg::position`, against a model of PostgreSQL that runs random schedules of transactions.
//!
//! The model keeps to what PostgreSQL does: ids are given out in order, a snapshot's xmax is the latest completed id plus
//! one, xip lists what runs below it except the transaction that asks, a prepared transaction goes on running, a row lock
//! is held to the end, numbers come in blocks after the lock, and a query sees the rows of committed transactions only.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "clippy takes helpers of a test file for production code"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use webhook_pg::event::Place;
use webhook_pg::position::{Leg, Position, Snapshot};

const SESSIONS: usize = 6;
const KEYS: u8 = 5;
/// More steps than any reader needs to come to the end.
const MANY: usize = 5_000;

/// One step of a schedule. Numbers choose a session, a prepared transaction or whatever a test reads from them.
#[derive(Debug, Clone)]
enum Op {
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
enum End {
    Commit,
    Abort,
    Prepare,
}

fn schedules() -> impl Strategy<Value = Vec<Op>> {
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
struct Row {
    place: Place,
    key: u8,
}

#[derive(Debug, Default)]
struct Transaction {
    xid: u64,
    drawn: Vec<Row>,
    written: Vec<Row>,
}

/// The model of PostgreSQL.
#[derive(Debug)]
struct Database {
    last_xid: u64,
    last_completed: u64,
    last_seq: i64,
    sessions: BTreeMap<usize, Transaction>,
    prepared: Vec<Transaction>,
    running: BTreeSet<u64>,
    locks: BTreeMap<u8, u64>,
    /// What is visible now, in the order of commit.
    committed: Vec<Row>,
}

impl Database {
    /// Runs the schedule, calls `at_point` at each of its points, and ends every transaction that still runs.
    fn run(schedule: &[Op], mut at_point: impl FnMut(&mut Self, u8)) -> Self {
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

    fn transaction(&mut self, session: usize) -> &mut Transaction {
        self.sessions.entry(session).or_insert_with(|| {
            self.last_xid += 1;
            self.running.insert(self.last_xid);
            Transaction { xid: self.last_xid, ..Transaction::default() }
        })
    }

    fn draw(&mut self, session: usize, keys: &[u8]) {
        let xid = self.transaction(session).xid;
        // A row that somebody else has locked would make the session wait; here it writes the others only.
        let locks = &mut self.locks;
        let keys = keys.iter().filter(|key| *locks.entry(**key).or_insert(xid) == xid);
        let rows = (self.last_seq + 1..).zip(keys).map(|(seq, &key)| Row { place: Place { xid, seq }, key });
        let rows: Vec<_> = rows.collect();
        self.last_seq += 8; // a block
        self.transaction(session).drawn.extend(rows);
    }

    fn insert(&mut self, session: usize) {
        if let Some(transaction) = self.sessions.get_mut(&session) {
            transaction.written.append(&mut transaction.drawn);
        }
    }

    fn end(&mut self, session: usize, end: End) {
        self.insert(session);
        if let Some(transaction) = self.sessions.remove(&session) {
            match end {
                End::Prepare => self.prepared.push(transaction),
                End::Commit | End::Abort => self.complete(transaction, end),
            }
        }
    }

    fn complete(&mut self, transaction: Transaction, end: End) {
        self.running.remove(&transaction.xid);
        self.last_completed = self.last_completed.max(transaction.xid);
        self.locks.retain(|_, holder| *holder != transaction.xid);
        if matches!(end, End::Commit) {
            self.committed.extend(transaction.written);
        }
    }

    fn snapshot(&self) -> Snapshot {
        self.snapshot_in(None)
    }

    /// What the transaction `own` would get.
    fn snapshot_in(&self, own: Option<u64>) -> Snapshot {
        let xmax = self.last_completed + 1;
        let xip: Vec<_> = self.running.range(..xmax).copied().filter(|xid| Some(*xid) != own).collect();
        let xmin = xip.iter().copied().chain(own).chain([xmax]).min().unwrap();
        Snapshot::new(xmin, xmax, xip).unwrap()
    }

    /// The first rows of a leg that are visible now.
    fn plan(&self, leg: &Leg, limit: usize) -> Vec<Place> {
        let mut places: Vec<_> =
            self.committed.iter().map(|row| row.place).filter(|p| leg.wants(*p)).collect();
        places.sort_by_key(|place| place.seq);
        places.truncate(limit);
        places
    }

    fn committed_places(&self) -> Vec<Place> {
        self.committed.iter().map(|row| row.place).collect()
    }

    /// Every committed event, and none of them twice.
    fn assert_exactly_once(&self, got: &[Place]) {
        assert_same(got, &self.committed_places());
    }

    /// Each key's events as its writers committed them.
    fn assert_key_order(&self, got: &[Place]) {
        let key_of: BTreeMap<_, _> = self.committed.iter().map(|row| (row.place, row.key)).collect();
        for key in 0..KEYS {
            let got: Vec<_> = got.iter().filter(|place| key_of.get(place) == Some(&key)).collect();
            let expected: Vec<_> =
                self.committed.iter().filter(|row| row.key == key).map(|row| &row.place).collect();
            assert_eq!(got, expected, "order of key {key}");
        }
    }
}

fn assert_same(got: &[Place], expected: &[Place]) {
    let sorted = |places: &[Place]| {
        let mut places = places.to_vec();
        places.sort();
        places
    };
    assert_eq!(sorted(got), sorted(expected));
}

/// The position as the table keeps it, and back.
fn reloaded(position: &Position) -> Position {
    let upto = position.upto.as_ref().map(ToString::to_string);
    Position::from_columns(&position.done.to_string(), upto.as_deref(), position.seq).unwrap()
}

/// Reads on its own, chunk by chunk.
struct Reader {
    position: Position,
    chunk: usize,
    /// Save and reload at every point.
    reloads: bool,
    got: Vec<Place>,
}

impl Reader {
    fn new(chunk: usize) -> Self {
        let position = Position::new(Snapshot::parse("101:101:").unwrap());
        Self { position, chunk, reloads: false, got: Vec::new() }
    }

    /// Opens a batch, or takes the next chunk of the open one. `take` is called with each event and the mark before it.
    fn step_with(&mut self, db: &Database, mut take: impl FnMut(Place, &Position)) {
        match self.position.rest() {
            None => self.position.begin(Arc::new(db.snapshot())).unwrap(),
            Some(leg) => {
                let places = db.plan(&leg, self.chunk);
                for place in &places {
                    take(*place, &self.position);
                    self.got.push(*place);
                    self.position.advance_to(place.seq);
                    self.save_and_reload();
                }
                if places.len() < self.chunk {
                    self.position.finish();
                }
            }
        }
        self.save_and_reload();
    }

    fn step(&mut self, db: &Database) {
        self.step_with(db, |_, _| {});
    }

    fn save_and_reload(&mut self) {
        if self.reloads {
            self.position = reloaded(&self.position);
        }
    }

    fn is_drained(&self, db: &Database) -> bool {
        self.position == Position::new(db.snapshot())
    }

    fn drain(mut self, db: &Database) -> Vec<Place> {
        for _ in 0..MANY {
            if self.is_drained(db) {
                return self.got;
            }
            self.step(db);
        }
        panic!("the reader never comes to the end, it stands at {:?}", self.position);
    }
}

/// Reads with a head step at every point.
fn read(schedule: &[Op], mut reader: Reader) -> (Database, Vec<Place>) {
    let db = Database::run(schedule, |db, _| reader.step(db));
    let got = reader.drain(&db);
    (db, got)
}

/// An endpoint: follows the head, or reads on its own from a position of its own until it stands where the head stands.
struct Lane {
    own: Option<Position>,
    chunk: usize,
    got: Vec<Place>,
}

impl Lane {
    /// Takes the next chunk of what is missing, or joins.
    fn step(&mut self, db: &Database, head: &Position) {
        let Some(own) = self.own.take() else { return };
        let leg = match own.legs_to(head) {
            Some(legs) if legs.is_empty() => return,
            Some(legs) => legs.into_iter().next(),
            None => own.rest(),
        };
        let Some(leg) = leg else {
            self.own = Some(own);
            return;
        };
        let places = db.plan(&leg, self.chunk);
        let mut position = leg.from.clone();
        for place in &places {
            self.got.push(*place);
            position.advance_to(place.seq);
        }
        if places.len() < self.chunk {
            position = leg.end();
        }
        self.own = Some(reloaded(&position));
    }
}

/// A head and the lanes that follow or have left it.
struct Worker {
    head: Reader,
    lanes: Vec<Lane>,
}

impl Worker {
    fn new(chunk: usize) -> Self {
        let lane = |chunk| Lane { own: None, chunk, got: Vec::new() };
        Self { head: Reader::new(chunk), lanes: [1, 3, 1000].map(lane).into() }
    }

    /// The head takes a chunk. Lane number `leaver`, if it follows, leaves at the chunk's event number `at`, or behind it.
    fn step_head(&mut self, db: &Database, leaver: Option<(usize, usize)>) {
        let (lanes, mut nth) = (&mut self.lanes, 0);
        self.head.step_with(db, |place, mark| {
            for (n, lane) in lanes.iter_mut().enumerate().filter(|(_, lane)| lane.own.is_none()) {
                if leaver == Some((n, nth)) {
                    lane.own = Some(mark.clone());
                } else {
                    lane.got.push(place);
                }
            }
            nth += 1;
        });
        if let Some((n, at)) = leaver
            && let Some(lane) = lanes.get_mut(n)
            && lane.own.is_none()
            && at >= nth
        {
            lane.own = Some(self.head.position.clone());
        }
    }

    /// What the schedule's number says: the head goes on (and a lane leaves it), or a lane goes on.
    fn step(&mut self, db: &Database, n: u8) {
        let (act, which, at) = (n % 4, usize::from(n / 4) % self.lanes.len(), usize::from(n / 16) % 5);
        match act {
            0 => self.step_head(db, None),
            1 => self.step_head(db, Some((which, at))),
            _ => self.lanes[which].step(db, &self.head.position),
        }
    }

    /// The head comes to the end, with the lanes at its heels; then every lane must join.
    fn drain(&mut self, db: &Database) {
        for _ in 0..MANY {
            if self.head.is_drained(db) && self.lanes.iter().all(|lane| lane.own.is_none()) {
                return;
            }
            if !self.head.is_drained(db) {
                self.step_head(db, None);
            }
            self.step_lanes(db);
        }
        panic!("a lane never joins the head, which stands at {:?}", self.head.position);
    }

    fn step_lanes(&mut self, db: &Database) {
        for lane in &mut self.lanes {
            lane.step(db, &self.head.position);
        }
    }
}

fn run_worker(schedule: &[Op], chunk: usize) -> (Database, Worker) {
    let mut worker = Worker::new(chunk);
    let db = Database::run(schedule, |db, n| worker.step(db, n));
    worker.drain(&db);
    (db, worker)
}

/// Two moments in the life of some transactions, the first seen within the second.
fn two_moments() -> impl Strategy<Value = (Snapshot, Snapshot)> {
    prop::collection::vec(0..3_u8, 0..20).prop_map(|fates| {
        let at = |moment: u8| {
            let completed = |n: usize| fates[n] <= moment;
            let xmax = (0..fates.len()).rev().find(|n| completed(*n)).map_or(0, |n| n + 1);
            let xip: Vec<_> = (0..xmax).filter(|n| !completed(*n)).map(|n| n as u64 + 5).collect();
            Snapshot::new(xip.first().map_or(xmax as u64 + 5, |xid| *xid), xmax as u64 + 5, xip).unwrap()
        };
        (at(0), at(1))
    })
}

/// Any snapshot over small ids, also with an xmin lower than need be.
fn snapshots() -> impl Strategy<Value = Snapshot> {
    (1..12_u64, prop::collection::vec(any::<bool>(), 0..12)).prop_map(|(xmin, runs)| {
        let xip = (xmin..).zip(&runs).filter(|(_, runs)| **runs).map(|(xid, _)| xid).collect();
        Snapshot::new(xmin, xmin + runs.len() as u64, xip).unwrap()
    })
}

proptest! {
    // A third of what PROPTEST_CASES says: one case is a long schedule, and there are many promises.
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 3, ..ProptestConfig::default() })]

    #[test]
    fn the_head_gets_every_committed_event_exactly_once(schedule in schedules()) {
        let (db, got) = read(&schedule, Reader::new(4));
        db.assert_exactly_once(&got);
    }

    #[test]
    fn a_lagging_position_gets_every_committed_event_exactly_once(schedule in schedules(), every in 2..50_u8) {
        let mut reader = Reader::new(2);
        let db = Database::run(&schedule, |db, n| if n % every == 0 { reader.step(db) });
        db.assert_exactly_once(&reader.drain(&db));
    }

    #[test]
    fn the_size_of_a_chunk_loses_and_repeats_nothing(schedule in schedules()) {
        for chunk in [1, 2, 3, 7, 20, 1000] {
            let (db, got) = read(&schedule, Reader::new(chunk));
            db.assert_exactly_once(&got);
        }
    }

    #[test]
    fn a_position_saved_and_reloaded_at_every_point_loses_and_repeats_nothing(schedule in schedules()) {
        let (db, got) = read(&schedule, Reader { reloads: true, ..Reader::new(3) });
        db.assert_exactly_once(&got);
    }

    #[test]
    fn a_position_knows_at_every_point_exactly_what_it_has_consumed(schedule in schedules()) {
        let mut reader = Reader::new(2);
        Database::run(&schedule, |db, _| {
            reader.step(db);
            for place in db.committed_places() {
                assert_eq!(reader.position.consumed(place), reader.got.contains(&place), "{place:?}");
            }
        });
    }

    #[test]
    fn the_events_of_a_key_arrive_in_the_order_of_its_writers(schedule in schedules(), chunk in 1..10_usize) {
        let (db, got) = read(&schedule, Reader::new(chunk));
        db.assert_key_order(&got);
    }

    #[test]
    fn an_event_of_an_aborted_or_running_transaction_never_arrives(schedule in schedules()) {
        let mut reader = Reader::new(2);
        Database::run(&schedule, |db, _| {
            reader.step(db);
            let committed = db.committed_places();
            assert!(reader.got.iter().all(|place| committed.contains(place)));
        });
    }

    #[test]
    fn a_running_transaction_holds_nothing_back(schedule in schedules()) {
        let mut reader = Reader::new(1000);
        Database::run(&schedule, |db, _| {
            // The rest of the open batch, then one that begins and ends now.
            for _ in 0..4 {
                reader.step(db);
            }
            db.assert_exactly_once(&reader.got);
        });
    }

    #[test]
    fn detach_and_join_lose_and_repeat_nothing(schedule in schedules(), chunk in 1..10_usize) {
        let (db, worker) = run_worker(&schedule, chunk);
        db.assert_exactly_once(&worker.head.got);
        for lane in worker.lanes {
            db.assert_exactly_once(&lane.got);
        }
    }

    #[test]
    fn detach_and_join_keep_the_order_of_a_key(schedule in schedules(), chunk in 1..10_usize) {
        let (db, worker) = run_worker(&schedule, chunk);
        for lane in worker.lanes {
            db.assert_key_order(&lane.got);
        }
    }

    #[test]
    fn the_legs_end_where_the_head_stands(schedule in schedules()) {
        let mut worker = Worker::new(2);
        Database::run(&schedule, |db, n| {
            worker.step(db, n);
            let head = &worker.head.position;
            for own in worker.lanes.iter().filter_map(|lane| lane.own.as_ref()) {
                if let Some(leg) = own.legs_to(head).and_then(|mut legs| legs.pop()) {
                    let end = leg.end();
                    assert_eq!((&end.done, end.seq), (&head.done, head.seq));
                }
            }
        });
    }

    #[test]
    fn a_head_that_restarts_from_an_older_mark_loses_nothing_for_any_lane(schedule in schedules(), every in 5..40_u8) {
        let mut worker = Worker::new(3);
        let mut saved = worker.head.position.clone();
        let db = Database::run(&schedule, |db, n| match n % every {
            0 => saved = worker.head.position.clone(),
            1 => worker.head.position = saved.clone(),
            _ => worker.step(db, n),
        });
        worker.drain(&db);
        for lane in worker.lanes {
            let got: BTreeSet<_> = lane.got.into_iter().collect();
            db.assert_exactly_once(&Vec::from_iter(got));
        }
    }

    #[test]
    fn an_endpoint_registered_in_the_middle_gets_exactly_what_had_not_committed_then(
        schedule in schedules(), point in 0..20_u32, session in 0..SESSIONS,
    ) {
        let mut worker = Worker { lanes: Vec::new(), ..Worker::new(3) };
        let mut countdown = point;
        // The transaction that registers, its snapshot, and what had committed before.
        let mut registration = None;
        let enter = |worker: &mut Worker, db: &Database, registration: &Option<(u64, Snapshot, Vec<Place>)>| {
            if let Some((xid, snapshot, _)) = registration
                && worker.lanes.is_empty()
                && !db.running.contains(xid)
            {
                worker.lanes.push(Lane { own: Some(Position::new(snapshot.clone())), chunk: 2, got: Vec::new() });
            }
        };
        let db = Database::run(&schedule, |db, n| {
            if countdown == 0 && registration.is_none() {
                let own = db.transaction(session).xid;
                let snapshot = db.snapshot_in(Some(own)).without(own);
                registration = Some((own, snapshot, db.committed_places()));
            }
            countdown = countdown.saturating_sub(1);
            enter(&mut worker, db, &registration);
            if worker.lanes.is_empty() { worker.head.step(db) } else { worker.step(db, n) }
        });
        enter(&mut worker, &db, &registration);
        worker.drain(&db);
        if let (Some((_, _, before)), Some(lane)) = (registration, worker.lanes.pop()) {
            let after: Vec<_> = db.committed_places().into_iter().filter(|p| !before.contains(p)).collect();
            assert_same(&lane.got, &after);
        }
    }
}

proptest! {
    #[test]
    fn a_leg_wants_what_the_ranges_of_the_index_and_the_database_say(
        (done, upto) in two_moments(), from in 0..8_i64, last in prop_oneof![0..8_i64, Just(i64::MAX)],
    ) {
        let mut position = Position::new(done.clone());
        position.begin(Arc::new(upto.clone())).unwrap();
        position.advance_to(from);
        let leg = Leg { from: position, last };
        for place in (1..30).flat_map(|xid| (1..9).map(move |seq| Place { xid, seq })) {
            let in_ranges = place.xid >= done.xmax() || done.xip().contains(&place.xid);
            // As the documentation of pg_snapshot says it.
            let visible = place.xid < upto.xmax() && !upto.xip().contains(&place.xid);
            prop_assert_eq!(leg.wants(place), in_ranges && visible && place.seq > from && place.seq <= last);
        }
    }

    #[test]
    fn is_within_agrees_with_its_definition(a in snapshots(), b in snapshots(), moments in two_moments()) {
        for (a, b) in [(&a, &b), (&b, &a), (&moments.0, &moments.1), (&moments.1, &moments.0), (&a, &moments.1)] {
            let by_definition = (0..60).all(|xid| !a.sees(xid) || b.sees(xid));
            prop_assert_eq!(a.is_within(b), by_definition, "{} within {}", a, b);
        }
    }

    #[test]
    fn without_hides_one_transaction_and_nothing_else(snapshot in snapshots(), own in 1..40_u64) {
        let hidden = snapshot.without(own);
        for xid in 0..60 {
            prop_assert_eq!(hidden.sees(xid), snapshot.sees(xid) && xid != own);
        }
        prop_assert_eq!(Snapshot::parse(&hidden.to_string()), Ok(hidden));
    }

    #[test]
    fn a_snapshot_survives_its_text_form(snapshot in snapshots()) {
        prop_assert_eq!(Snapshot::parse(&snapshot.to_string()), Ok(snapshot));
    }

    #[test]
    fn no_text_panics_the_parser(text in "\\PC{0,20}|[0-9:,]{0,30}") {
        _ = Snapshot::parse(&text);
    }
}

#[test]
fn the_text_form_is_that_of_pg_snapshot() {
    let snapshot = Snapshot::parse("10:20:10,14,15").unwrap();
    assert_eq!((snapshot.xmin(), snapshot.xmax(), snapshot.xip()), (10, 20, &[10, 14, 15][..]));
    assert_eq!(snapshot.to_string(), "10:20:10,14,15");
    assert_eq!(Snapshot::parse("7:7:").unwrap().to_string(), "7:7:");
    // PostgreSQL drops repeated ids, too.
    assert_eq!(Snapshot::parse("10:20:14,14").unwrap().to_string(), "10:20:14");
}

#[test]
fn what_postgresql_refuses_as_a_snapshot_is_refused() {
    for bad in [
        "",
        ":",
        "::",
        "1",
        "1:2",
        "31:12:",
        "0:1:",
        "12:13:0",
        "12:13:13",
        "12:16:14,13",
        "+1:2:",
        "1:2:x",
        "1:2:,",
        "-1:2:",
        " 1:2:",
        "1:2: ",
        "1:2:3:4",
        "99999999999999999999:1:",
    ] {
        assert!(Snapshot::parse(bad).is_err(), "{bad:?} was accepted");
    }
}

#[test]
fn an_open_batch_is_not_replaced() {
    let at = |text| Arc::new(Snapshot::parse(text).unwrap());
    let mut position = Position::new(Snapshot::parse("5:5:").unwrap());
    position.begin(at("7:7:")).unwrap();
    assert!(position.begin(at("9:9:")).is_err());
    assert_eq!(position.upto, Some(at("7:7:")));
}

#[test]
fn a_snapshot_that_does_not_see_what_is_consumed_begins_no_batch() {
    let position = Position::new(Snapshot::parse("7:9:7").unwrap());
    for text in ["6:6:", "7:9:7,8", "6:9:6,7"] {
        assert!(position.clone().begin(Arc::new(Snapshot::parse(text).unwrap())).is_err(), "{text}");
        assert!(Position::from_columns("7:9:7", Some(text), 3).is_err(), "{text}");
    }
}

#[test]
fn a_reader_that_is_ahead_of_the_head_does_not_join() {
    let at = |done, upto, seq| Position::from_columns(done, upto, seq).unwrap();
    let head = at("5:5:", Some("9:9:"), 3);
    for ahead in [at("5:5:", Some("9:9:"), 7), at("9:9:", None, 0), at("9:9:", Some("11:11:"), 1)] {
        assert_eq!(ahead.legs_to(&head), None, "{ahead:?}");
    }
    assert_eq!(head.legs_to(&head), Some(Vec::new()));
}

#[test]
fn a_batch_begins_before_its_first_event() {
    let mut position = Position { seq: 40, ..Position::new(Snapshot::parse("5:5:").unwrap()) };
    position.begin(Arc::new(Snapshot::parse("9:9:").unwrap())).unwrap();
    assert!(position.wants(Place { xid: 6, seq: 1 }));
}

#[test]
fn a_position_never_moves_back_and_moves_only_within_a_batch() {
    let mut position = Position::from_columns("5:5:", Some("9:9:"), 40).unwrap();
    position.advance_to(30);
    assert_eq!(position.seq, 40);
    position.finish();
    position.advance_to(50);
    assert_eq!(position, Position::from_columns("9:9:", None, 50).unwrap());
    assert_eq!(position.seq, 0);
}
