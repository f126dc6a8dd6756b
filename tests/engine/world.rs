//! The world around a dispatcher: the clock, what happens in the database and on the network, crashes.

use std::cell::{Ref, RefCell, RefMut};
use std::rc::Rc;
use std::time::Duration;

use webhook_pg::endpoint::{Encoding, Endpoint, Format, Method, Ordering, Scheme, State as Mode};
use webhook_pg::engine::{Dispatcher, Limits, Turn};
use webhook_pg::event::{Pattern, Timestamp};
use webhook_pg::retry::Schedule;
use webhook_pg::settings::Settings;

use crate::database::Database;
use crate::network::{Behaviour, Dice, Network, SECOND, Wire};
use crate::store::Disk;

const START: Timestamp = 1_700_000_000 * SECOND;

/// Limits so small that a few events meet all of them.
pub const TINY: Limits = Limits {
    first_chunk: 2,
    max_chunk: 3,
    large_chunk_bytes: 400,
    small_chunk_bytes: 100,
    chunks_per_round: 2,
    own_chunks_per_round: 2,
    due_lanes_per_round: 2,
    hungry: 3,
    full: 5,
    window: 8,
    window_bytes: 1500,
    planned: 12,
    pending: 4,
    failing_pending: 3,
    failures: 10,
    parked: 4,
};

/// Settings with a few slots and three attempts.
pub fn settings() -> Settings {
    Settings {
        max_in_flight: 6,
        endpoint_max_in_flight: 3,
        retry_schedule: Schedule::parse("1s 4s").unwrap(),
        ..Settings::default()
    }
}

/// An endpoint that wants these events.
pub fn endpoint(id: i64, patterns: &[&str]) -> Endpoint {
    Endpoint {
        id,
        name: format!("endpoint {id}"),
        url: url::Url::parse("https://receiver.example/").unwrap(),
        method: Method::Post,
        format: Format::Standard,
        encoding: Encoding::Json,
        is_selective: false,
        scope: None,
        expands: vec![],
        events: patterns.iter().map(|p| Pattern::parse(p).unwrap()).collect(),
        headers: Vec::new(),
        basic_auth: None,
        scheme: Scheme::None,
        secrets: Vec::new(),
        schedule: None,
        timeout: None,
        max_in_flight: None,
        rate_limit: None,
        ordering: Ordering::None,
        state: Mode::Active,
    }
}

/// A dispatcher and all that is around it.
pub struct World {
    pub now: Timestamp,
    database: Rc<RefCell<Database>>,
    network: Rc<RefCell<Network>>,
    engine: Option<Dispatcher<Disk, Wire>>,
    pub settings: Settings,
    pub limits: Limits,
    poll_at: Timestamp,
    wake_at: Timestamp,
    seed: u64,
    /// What the log is told.
    pub troubles: Vec<String>,
    pub crashes: usize,
    pub rounds: usize,
}

impl World {
    pub fn new(settings: Settings, limits: Limits, seed: u64) -> Self {
        let database = Rc::new(RefCell::new(Database::new()));
        let network = Network::new(Rc::clone(&database), settings.clone(), START, seed);
        Self {
            now: START,
            database,
            network: Rc::new(RefCell::new(network)),
            engine: None,
            settings,
            limits,
            poll_at: START,
            wake_at: START,
            troubles: Vec::new(),
            seed,
            crashes: 0,
            rounds: 0,
        }
    }

    pub fn db(&self) -> RefMut<'_, Database> {
        self.database.borrow_mut()
    }

    pub fn net(&self) -> RefMut<'_, Network> {
        self.network.borrow_mut()
    }

    pub fn net_ref(&self) -> Ref<'_, Network> {
        self.network.borrow()
    }

    pub fn engine(&self) -> &Dispatcher<Disk, Wire> {
        self.engine.as_ref().unwrap()
    }

    /// What webhook_status() would say.
    pub fn fault(&mut self) -> Option<(Timestamp, String)> {
        let (since, message) = self.engine.as_mut()?.fault()?;
        Some((since, message.to_owned()))
    }

    // ---- short forms --------------------------------------------------------------------------------------------

    pub fn register(&self, endpoint: Endpoint) {
        let mut db = self.db();
        db.register(99, endpoint);
        db.commit(99, true);
    }

    pub fn configure(&mut self, settings: Settings) {
        self.settings = settings.clone();
        self.network.borrow_mut().settings = settings.clone();
        if let Some(engine) = &mut self.engine {
            engine.configure(settings);
        }
        // As the worker does it after a reload.
        self.db().changed = true;
    }

    pub fn behave(&self, id: i64, behaviour: Behaviour) {
        self.net().behaviours.insert(id, behaviour);
    }

    /// One transaction with an event of each of these keys.
    pub fn emit_keys<'a>(&self, keys: impl IntoIterator<Item = &'a str>) {
        let mut db = self.db();
        for key in keys {
            db.emit_keyed(99, "a.created", Some(key), 10);
        }
        db.commit(99, true);
    }

    /// One transaction with this many events.
    pub fn emit(&self, event_type: &str, count: usize) {
        self.emit_sized(event_type, count, 10);
    }

    pub fn emit_sized(&self, event_type: &str, count: usize, bytes: usize) {
        let mut db = self.db();
        for _ in 0..count {
            db.emit(99, event_type, bytes);
        }
        db.commit(99, true);
    }

    // ---- time ---------------------------------------------------------------------------------------------------

    /// The worker is gone, and what it knew.
    pub fn crash(&mut self) {
        if self.engine.take().is_some() {
            self.network.borrow_mut().crash();
            self.crashes += 1;
        }
    }

    fn start(&mut self) -> Result<(), String> {
        let disk = Disk { database: Rc::clone(&self.database), network: Rc::clone(&self.network) };
        let mut dice = Dice(self.seed);
        let chance = Box::new(move || (dice.roll() % 1001) as f64 / 1000.0);
        let engine = Dispatcher::start(disk, Wire(Rc::clone(&self.network)), self.settings.clone(), chance)?;
        self.engine = Some(engine.with_limits(self.limits));
        Ok(())
    }

    /// One turn, as the worker's main loop does it.
    pub fn round(&mut self) {
        self.rounds += 1;
        self.network.borrow_mut().set_clock(self.now);
        let mut poll = self.now >= self.poll_at;
        if poll {
            self.poll_at = self.now + micros(self.settings.poll_interval);
        }
        let (mut woken, mut changed) = {
            let mut db = self.database.borrow_mut();
            (std::mem::take(&mut db.woken), std::mem::take(&mut db.changed))
        };
        if self.engine.is_none() {
            if self.start().is_err() {
                self.wake_at = self.poll_at;
                return;
            }
            (poll, woken, changed) = (true, true, true);
        }
        let Some(engine) = &mut self.engine else { return };
        let turn = Turn { now: self.now, woken, endpoints_changed: changed, poll };
        match engine.round(turn) {
            Ok(wait) => {
                self.wake_at = self.now.saturating_add(micros(wait));
                self.troubles.extend(engine.take_trouble());
                self.assert_memory_is_bounded();
            }
            Err(_) => {
                self.crash();
                self.wake_at = self.poll_at;
            }
        }
    }

    fn assert_memory_is_bounded(&self) {
        let (load, limits) = (self.engine().load(), &self.limits);
        let in_flight = self.settings.max_in_flight;
        let queue = limits.full.max(limits.hungry + limits.max_chunk) + in_flight;
        assert!(load.longest_queue <= queue, "a queue is too long: {load:?}");
        let parked = limits.parked + limits.max_chunk + limits.full;
        assert!(load.most_parked <= parked, "too many are parked: {load:?}");
        assert!(
            load.unsettled <= limits.window + limits.max_chunk + in_flight,
            "a window is too long: {load:?}"
        );
        let largest = self.db().largest_event;
        let bytes = limits.window_bytes + (limits.max_chunk + in_flight) * largest;
        assert!(load.head_bytes <= bytes, "too many bytes: {load:?}");
    }

    /// Lets the time pass; the worker wakes up whenever something happens.
    pub fn advance(&mut self, by: Timestamp) {
        let end = self.now + by;
        let mut rounds_now = 0;
        loop {
            let next_end = self.network.borrow().next_end().unwrap_or(Timestamp::MAX);
            let rung = {
                let db = self.database.borrow();
                let listens = self.engine.as_ref().is_some_and(Dispatcher::wants_news);
                (db.woken && listens) || db.changed
            };
            let next = if rung { self.now } else { self.wake_at.min(self.poll_at).min(next_end) };
            if next > end {
                self.now = end;
                return;
            }
            rounds_now = if next > self.now { 0 } else { rounds_now + 1 };
            assert!(rounds_now < 5000, "the engine spins: {:?}", self.engine().load());
            self.now = self.now.max(next);
            self.round();
        }
    }

    /// Somebody puts the clock back. Latches and answers know nothing of clocks.
    pub fn put_clock_back(&mut self, by: Timestamp) {
        self.now -= by;
        self.poll_at -= by;
        self.wake_at -= by;
        self.network.borrow_mut().put_clock_back(by);
    }

    /// All receivers recover, all transactions end, all endpoints are resumed; then everything must arrive.
    pub fn drain(&mut self) {
        {
            let mut db = self.db();
            db.commit_all();
            (db.failing_writes, db.failing_reads) = (0, 0);
            db.release();
        }
        self.net().behaviours.clear();
        let mut rounds = 0;
        loop {
            let stopped: Vec<i64> = {
                let db = self.db();
                let stopped = db.endpoints.values().map(|e| &e.endpoint);
                stopped.filter(|e| matches!(e.state, Mode::Paused | Mode::Disabled)).map(|e| e.id).collect()
            };
            for id in stopped {
                self.db().set_mode(id, Mode::Active);
            }
            if self.is_drained() {
                return;
            }
            rounds += 1;
            assert!(rounds < 2000, "it does not drain: {}", self.debts());
            self.advance(SECOND);
        }
    }

    fn debts(&self) -> String {
        let db = self.db();
        let owed: Vec<_> = db.owed.iter().take(5).collect();
        format!(
            "owed {} {owed:?}, pending {}, positions {:?}, load {:?}",
            db.owed.len(),
            db.pending.len(),
            db.positions,
            self.engine.as_ref().map(Dispatcher::load),
        )
    }

    /// Nothing is owed, nothing pending, every endpoint follows the head.
    pub fn is_drained(&self) -> bool {
        let db = self.db();
        let serves = |id: &i64| db.mode(*id) == Some(Mode::Active);
        db.owed.is_empty()
            && !db.pending.iter().any(|(id, _, _)| serves(id))
            && self.network.borrow().in_flight() == 0
            && !db.positions.keys().any(serves)
    }
}

pub fn micros(duration: Duration) -> Timestamp {
    Timestamp::try_from(duration.as_micros()).unwrap_or(Timestamp::MAX / 4)
}

pub const MINUTE: i64 = 60 * SECOND;

/// A world of tiny limits with one endpoint for everything, which follows the head.
pub fn tiny() -> World {
    let mut world = World::new(settings(), TINY, 7);
    world.register(endpoint(1, &["*"]));
    world.advance(10 * SECOND);
    assert!(world.is_drained());
    world
}

/// The same with production's limits.
pub fn full_size() -> World {
    let mut world = World::new(Settings { max_in_flight: 64, ..settings() }, Limits::default(), 1);
    world.register(endpoint(1, &["*"]));
    world.advance(10 * SECOND);
    world
}

pub fn received(world: &World, id: i64) -> usize {
    world.net_ref().received.iter().filter(|(endpoint, _)| *endpoint == id).count()
}

pub fn sent(world: &World, id: i64) -> usize {
    world.net_ref().sent_to(id).count()
}
