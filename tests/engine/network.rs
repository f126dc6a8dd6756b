//! A model of the network: receivers that behave as a script says, and every promise that can be checked when a request
//! leaves.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use webhook_pg::endpoint::{Ordering, State as Mode};
use webhook_pg::engine::{Completion, Job, Ledger, Transport};
use webhook_pg::event::{Place, Timestamp};
use webhook_pg::outcome::{Answer, Attempt, Fault, State};
use webhook_pg::settings::{Egress, Settings};

use crate::database::Database;

pub const MILLISECOND: Timestamp = 1000;
pub const SECOND: Timestamp = 1000 * MILLISECOND;

/// How a receiver answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// 200 after 10 ms.
    Healthy,
    /// 200 after 3 s.
    Slow,
    /// 500 after 20 ms.
    Failing,
    /// No answer until the timeout.
    Hanging,
    /// Any of these, at random.
    Flaky,
    /// 410.
    Gone,
    /// 429 with Retry-After: 7.
    Busy,
    /// We have no file descriptors.
    Starved,
}

/// SplitMix64, by Steele, Lea and Flood.
#[derive(Debug, Clone)]
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

struct Flight {
    job: Job,
    started_at: Timestamp,
    ends_at: Timestamp,
    answer: Answer,
}

/// A request that left.
#[derive(Debug, Clone, Copy)]
pub struct Sent {
    pub at: Timestamp,
    pub endpoint: i64,
    pub place: Place,
    pub attempt: u32,
}

/// The model.
pub struct Network {
    pub now: Timestamp,
    /// The latest time that the clock has ever shown: what was due then may have been brought into memory.
    pub latest: Timestamp,
    pub dice: Dice,
    pub behaviours: BTreeMap<i64, Behaviour>,
    pub settings: Settings,
    database: Rc<RefCell<Database>>,
    flights: BTreeMap<u64, Flight>,
    /// Submitted, and their endpoint is at its limit.
    waiting: VecDeque<Job>,
    /// Collected, and not written yet.
    unwritten: BTreeMap<(i64, Place), bool>,
    /// Of these the ones whose rows an open transaction held when they were to be written.
    pub kept: BTreeSet<(i64, Place)>,
    /// Endpoints whose last answer was no success, until the recall.
    held: BTreeSet<i64>,
    /// Written, and not flushed yet.
    pub unflushed: usize,
    /// What a receiver has answered with 2xx.
    pub received: BTreeSet<(i64, Place)>,
    /// The same, in the order of arrival.
    pub arrivals: Vec<(i64, Place)>,
    /// Transactions never overlap: then the order of places is the order of events.
    pub serial: bool,
    /// Received, but nobody will know: may come a second time.
    at_risk: BTreeSet<(i64, Place)>,
    pub sent: Vec<Sent>,
    pub duplicates: usize,
    pub most_in_flight: usize,
}

impl Network {
    pub fn new(database: Rc<RefCell<Database>>, settings: Settings, now: Timestamp, seed: u64) -> Self {
        Self {
            now,
            latest: now,
            dice: Dice(seed),
            behaviours: BTreeMap::new(),
            settings,
            database,
            flights: BTreeMap::new(),
            waiting: VecDeque::new(),
            unwritten: BTreeMap::new(),
            kept: BTreeSet::new(),
            held: BTreeSet::new(),
            unflushed: 0,
            received: BTreeSet::new(),
            arrivals: Vec::new(),
            serial: false,
            at_risk: BTreeSet::new(),
            sent: Vec::new(),
            duplicates: 0,
            most_in_flight: 0,
        }
    }

    pub fn set_clock(&mut self, now: Timestamp) {
        self.now = now;
        self.latest = self.latest.max(now);
    }

    /// What is in flight takes as long as it takes.
    pub fn put_clock_back(&mut self, by: Timestamp) {
        self.now -= by;
        for flight in self.flights.values_mut() {
            flight.started_at -= by;
            flight.ends_at -= by;
        }
    }

    /// When the next answer comes.
    pub fn next_end(&self) -> Option<Timestamp> {
        self.flights.values().map(|flight| flight.ends_at).min()
    }

    pub fn in_flight(&self) -> usize {
        self.flights.len()
    }

    pub fn sent_to(&self, endpoint: i64) -> impl Iterator<Item = &Sent> {
        self.sent.iter().filter(move |sent| sent.endpoint == endpoint)
    }

    /// All threads die. What they had sent may have been received.
    pub fn crash(&mut self) {
        self.waiting.clear();
        self.held.clear();
        let unknown = std::mem::take(&mut self.flights)
            .into_values()
            .map(|flight| ((flight.job.endpoint.id, flight.job.event.place), is_success(&flight.answer)));
        let unknown: Vec<_> = unknown.chain(std::mem::take(&mut self.unwritten)).collect();
        self.kept.clear();
        let repeated = unknown.len() + std::mem::take(&mut self.unflushed);
        assert!(repeated <= self.settings.max_in_flight, "a crash repeats more than was in flight");
        self.at_risk.extend(unknown.into_iter().filter(|(_, received)| *received).map(|(pair, _)| pair));
    }

    /// The outcomes of a ledger are written.
    pub fn written(&mut self, ledger: &Ledger) {
        for settled in &ledger.settled {
            let was = self.unwritten.remove(&(settled.endpoint, settled.place));
            self.kept.remove(&(settled.endpoint, settled.place));
            let poison = matches!(settled.attempt.answer, Answer::Failed { fault: Fault::Poison, .. });
            assert_eq!(was.is_none(), poison, "an outcome was written twice, or nothing was sent");
            self.unflushed += 1;
        }
    }

    fn script(&mut self, job: &Job) -> (Answer, Timestamp) {
        let mut behaviour = self.behaviours.get(&job.endpoint.id).copied().unwrap_or(Behaviour::Healthy);
        if behaviour == Behaviour::Flaky {
            behaviour = [
                Behaviour::Healthy,
                Behaviour::Healthy,
                Behaviour::Healthy,
                Behaviour::Slow,
                Behaviour::Failing,
                Behaviour::Hanging,
                Behaviour::Busy,
                Behaviour::Starved,
            ][self.dice.roll() as usize % 8];
        }
        let status = |status, retry_after: Option<&str>| Answer::Status {
            status,
            body: String::new(),
            retry_after: retry_after.map(str::to_owned),
        };
        let failed = |fault| Answer::Failed { fault, message: String::new() };
        let noise = Timestamp::from((self.dice.roll() % 5000) as i32);
        let timeout = Timestamp::try_from(job.timeout.as_micros()).unwrap();
        let (answer, after) = match behaviour {
            Behaviour::Healthy | Behaviour::Flaky => (status(200, None), 10 * MILLISECOND),
            Behaviour::Slow => (status(204, None), 3 * SECOND),
            Behaviour::Failing => (status(500, None), 20 * MILLISECOND),
            Behaviour::Hanging => (failed(Fault::Timeout), timeout),
            Behaviour::Gone => (status(410, None), 15 * MILLISECOND),
            Behaviour::Busy => (status(429, Some("7")), 15 * MILLISECOND),
            Behaviour::Starved => (failed(Fault::Internal), 0),
        };
        (answer, after + noise)
    }

    fn check(&mut self, job: &Job) {
        let (id, place) = (job.endpoint.id, job.event.place);
        let pair = (id, place);
        let database = self.database.borrow();
        assert!(database.outbox.contains_key(&place), "ghost: {pair:?} is not committed");
        assert!(database.allowed.contains(&pair), "{pair:?} was never wanted");
        assert_eq!(
            database.mode(id),
            Some(Mode::Active),
            "{pair:?} is sent to an endpoint that is not active"
        );
        assert!(
            !self.flights.values().any(|f| (f.job.endpoint.id, f.job.event.place) == pair),
            "{pair:?} is in flight"
        );
        assert!(!self.waiting.iter().any(|w| (w.endpoint.id, w.event.place) == pair), "{pair:?} is in store");
        assert!(!self.unwritten.contains_key(&pair), "{pair:?} is sent again before its outcome is written");
        let attempts = match database.deliveries.get(&pair) {
            None => 0,
            Some(row) => match row.state {
                State::Pending { next_attempt_at } => {
                    assert!(next_attempt_at <= self.latest, "{pair:?} is retried too early");
                    row.attempts
                }
                ended => panic!("{pair:?} has ended: {ended:?}"),
            },
        };
        assert_eq!(job.attempt, attempts + 1, "number of the attempt of {pair:?}");
        self.check_order(job, &database);
        // A crash would repeat all of these.
        let all = self.flights.len() + self.waiting.len() + self.unwritten.len() + self.unflushed;
        assert!(all < self.settings.max_in_flight, "too many requests in flight");
        let limit = job.endpoint.max_in_flight.unwrap_or(self.settings.endpoint_max_in_flight);
        assert_eq!(job.limit, limit);
    }

    /// Nothing of a key leaves while something else of it is in flight, or pending, or, as far as it can be told, before it.
    fn check_order(&self, job: &Job, database: &Database) {
        let (id, place) = (job.endpoint.id, job.event.place);
        let same_key = |other: Place| match job.endpoint.ordering {
            Ordering::None => false,
            Ordering::Key => database.outbox[&other].order_key() == job.event.order_key(),
            Ordering::Strict => true,
        };
        let in_flight = self.flights.values().map(|flight| &flight.job).chain(&self.waiting);
        let in_flight = in_flight.map(|job| (job.endpoint.id, job.event.place));
        let at_work: Vec<_> = in_flight.chain(self.unwritten.keys().copied()).collect();
        let overlaps = at_work.iter().any(|&(other, at)| other == id && same_key(at));
        assert!(!overlaps, "{id}: {place:?} overlaps another of its key");
        for &(other, _, at) in database.pending.iter().filter(|(other, _, at)| *other == id && *at != place) {
            // What somebody revived is known at the next poll.
            let row = database.deliveries[&(other, at)];
            let overtakes = job.attempt == 1 || at.seq < place.seq;
            let wrong = same_key(at) && overtakes && row.attempts_before == 0;
            assert!(!wrong, "{id}: {place:?} overtakes {at:?}, which is pending");
        }
        if self.serial && job.attempt == 1 {
            let before = database.owed.range((id, Place { xid: 0, seq: 0 })..(id, place));
            let overtaken: Vec<_> = before.filter(|(_, at)| same_key(*at)).collect();
            assert!(overtaken.is_empty(), "{id}: {place:?} overtakes {overtaken:?}");
        }
    }

    /// Starts what may start.
    fn start(&mut self, now: Timestamp) {
        let running = |id: i64| self.flights.values().filter(|flight| flight.job.endpoint.id == id).count();
        let may_start =
            |job: &Job| running(job.endpoint.id) < job.limit && !self.held.contains(&job.endpoint.id);
        let next = self.waiting.iter().position(may_start);
        let Some(job) = next.and_then(|at| self.waiting.remove(at)) else { return };
        let (id, place) = (job.endpoint.id, job.event.place);
        let (answer, after) = self.script(&job);
        self.sent.push(Sent { at: now, endpoint: id, place, attempt: job.attempt });
        if is_success(&answer) {
            if self.received.insert((id, place)) {
                self.arrivals.push((id, place));
            } else {
                assert!(self.at_risk.remove(&(id, place)), "{id} gets {place:?} twice without a crash");
                self.duplicates += 1;
            }
        }
        let flight = Flight { started_at: now, ends_at: now + after, answer, job };
        assert!(self.flights.insert(flight.job.ticket, flight).is_none(), "a ticket was used twice");
        self.most_in_flight = self.most_in_flight.max(self.flights.len());
        self.start(now);
    }
}

fn is_success(answer: &Answer) -> bool {
    matches!(answer, Answer::Status { status: 200..=299, .. })
}

/// The transport as the engine has it.
pub struct Wire(pub Rc<RefCell<Network>>);

impl Transport for Wire {
    fn configure(&mut self, _: &Egress, _: usize) {}

    fn submit(&mut self, job: Job) {
        let mut network = self.0.borrow_mut();
        network.check(&job);
        network.waiting.push_back(job);
        let now = network.now;
        network.start(now);
    }

    fn recall(&mut self, endpoint: i64) -> Vec<u64> {
        let mut network = self.0.borrow_mut();
        network.held.remove(&endpoint);
        let waiting = &mut network.waiting;
        let tickets =
            waiting.iter().filter(|job| job.endpoint.id == endpoint).map(|job| job.ticket).collect();
        waiting.retain(|job| job.endpoint.id != endpoint);
        tickets
    }

    fn collect(&mut self, into: &mut Vec<Completion>) {
        let mut network = self.0.borrow_mut();
        let now = network.now;
        while let Some((ends_at, ticket)) =
            network.flights.iter().map(|(ticket, f)| (f.ends_at, *ticket)).min().filter(|(at, _)| *at <= now)
        {
            let Some(Flight { job, started_at, answer, .. }) = network.flights.remove(&ticket) else {
                continue;
            };
            if !is_success(&answer) {
                network.held.insert(job.endpoint.id);
            }
            if !matches!(answer, Answer::Failed { fault: Fault::Internal, .. }) {
                network.unwritten.insert((job.endpoint.id, job.event.place), is_success(&answer));
            }
            let duration = Duration::from_micros(u64::try_from(ends_at - started_at).unwrap());
            into.push(Completion { ticket, attempt: Attempt { started_at, duration, answer } });
            network.start(ends_at);
        }
    }
}
