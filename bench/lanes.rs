//! What a turn of the engine costs when there are many endpoints: no network, no database, nothing but the engine.
//!
//! `cargo run --release --no-default-features --example lanes -- 10000`
#![allow(missing_docs, clippy::unwrap_used, reason = "a program for measuring")]

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use uuid::Uuid;
use webhook_pg::endpoint::{Encoding, Endpoint, Format, Method, Ordering, Scheme, State};
use webhook_pg::engine::{
    Asked, Audience, Completion, Dispatcher, DueDelivery, Held, Job, Kind, Ledger, Part, Pending, Plan,
    Reading, Registered, Slice, Store, Transport, Turn,
};
use webhook_pg::event::{Event, Pattern, Place, Timestamp};
use webhook_pg::figures::Figures;
use webhook_pg::outcome::{Answer, Attempt};
use webhook_pg::position::{Leg, Position, Snapshot};
use webhook_pg::settings::{Egress, Settings};

const FIRST: u64 = 100;

/// Every event is a transaction of its own: transaction and number count together.
struct Log {
    endpoints: usize,
    types: Vec<String>,
    settled: usize,
}

impl Log {
    fn next_xid(&self) -> u64 {
        FIRST + self.types.len() as u64
    }

    fn event(&self, place: Place) -> Event {
        Event {
            place,
            id: Uuid::from_u64_pair(place.xid, 0),
            event_type: self.types[(place.xid - FIRST) as usize].clone(),
            operation: None,
            key: None,
            occurred_at: 0,
            data: Some("{}".to_owned()),
            previous: None,
            expanded: None,
            truncated: false,
            context: None,
            traceparent: None,
            target: None,
            selected_by: Vec::new(),
            unreadable: None,
        }
    }
}

impl Reading for Log {
    fn head(&mut self) -> Position {
        Position::new(Snapshot::new(FIRST, FIRST, Vec::new()).unwrap())
    }
    fn endpoints(&mut self) -> Vec<Registered> {
        let endpoint = |id: usize| Endpoint {
            id: id as i64,
            name: format!("endpoint {id}"),
            url: url::Url::parse("https://receiver.example/").unwrap(),
            method: Method::Post,
            expands: vec![],
            format: Format::Standard,
            encoding: Encoding::Json,
            is_selective: false,
            scope: None,
            events: vec![
                Pattern::parse(&format!("t{id}.created")).unwrap(),
                Pattern::parse("all.*").unwrap(),
            ],
            headers: Vec::new(),
            basic_auth: None,
            scheme: Scheme::None,
            secrets: Vec::new(),
            schedule: None,
            timeout: None,
            max_in_flight: None,
            rate_limit: None,
            ordering: Ordering::None,
            state: State::Active,
        };
        let all = (1..=self.endpoints).map(endpoint);
        all.map(|endpoint| Registered { endpoint: Arc::new(endpoint), position: None, failing_since: None })
            .collect()
    }
    fn figures(&mut self, _: &[i64]) -> Vec<(i64, Figures)> {
        Vec::new()
    }
    fn snapshot(&mut self) -> Arc<Snapshot> {
        Arc::new(Snapshot::new(self.next_xid(), self.next_xid(), Vec::new()).unwrap())
    }
    fn endpoints_changed(&mut self) -> bool {
        false
    }
    fn plan(&mut self, leg: &Leg, _: usize, _: &mut dyn Audience) -> Plan {
        let from = leg.from.done.xmin().max(FIRST);
        let places = (from..self.next_xid()).map(|xid| Place { xid, seq: xid as i64 });
        let places = places.filter(|place| leg.wants(*place)).collect();
        Plan::Read(Part { places, ..Part::default() })
    }
    fn search(&mut self, _: &Leg, _: Option<Place>, _: &[Kind]) -> Slice {
        Slice::default()
    }
    fn fetch(&mut self, places: &[Place]) -> Vec<Event> {
        places.iter().map(|place| self.event(*place)).collect()
    }
    fn settled(&mut self, _: &[(i64, Place)]) -> Vec<(i64, Place)> {
        Vec::new()
    }
    fn pending(&mut self, _: usize) -> Vec<Pending> {
        Vec::new()
    }
    fn pending_keys(&mut self, _: &[i64], _: usize) -> Vec<(i64, Place, String)> {
        Vec::new()
    }
    fn due(
        &mut self,
        _: i64,
        _: Timestamp,
        _: usize,
        _: &[i64],
        _: Option<&[Place]>,
    ) -> (Vec<DueDelivery>, Option<Timestamp>) {
        (Vec::new(), None)
    }
    fn asked(
        &mut self,
        _: i64,
        _: Option<Asked>,
        _: Timestamp,
        _: usize,
        _: &[i64],
    ) -> (Vec<DueDelivery>, Option<Asked>) {
        (Vec::new(), None)
    }
}

struct Disk(Rc<RefCell<Log>>);

impl Store for Disk {
    type Error = String;
    fn configure(&mut self, _: &Settings) {}
    fn read<R>(&mut self, read: impl FnOnce(&mut dyn Reading) -> R) -> Result<R, String> {
        Ok(read(&mut *self.0.borrow_mut()))
    }
    fn write(&mut self, ledger: &Ledger) -> Result<Held, String> {
        self.0.borrow_mut().settled += ledger.settled.len();
        Ok(Held::default())
    }
    fn put_back(&mut self, _: Timestamp, _: Timestamp) -> Result<(), String> {
        Ok(())
    }
    fn flush(&mut self) {}
    fn show(&mut self, _: i64, _: usize, _: &Figures, _: bool) {}
    fn save_figures(&mut self, _: &[(i64, &Figures)]) -> Result<(), String> {
        Ok(())
    }
}

/// Answers everything at the next look.
#[derive(Default)]
struct Wire(Vec<u64>);

impl Transport for Wire {
    fn configure(&mut self, _: &Egress, _: usize) {}
    fn submit(&mut self, job: Job) {
        self.0.push(job.ticket);
    }
    fn recall(&mut self, _: i64) -> Vec<u64> {
        Vec::new()
    }
    fn collect(&mut self, into: &mut Vec<Completion>) {
        let answer = || Answer::Status { status: 200, body: String::new(), retry_after: None };
        let attempt = || Attempt { started_at: 0, duration: Duration::from_millis(1), answer: answer() };
        into.extend(self.0.drain(..).map(|ticket| Completion { ticket, attempt: attempt() }));
    }
}

/// Turns until everything is settled: how many, and how long one took.
fn turns(engine: &mut Dispatcher<Disk, Wire>, log: &Rc<RefCell<Log>>, goal: usize, now: &mut Timestamp) {
    let (start, first, mut turns) = (Instant::now(), log.borrow().settled, 0);
    while log.borrow().settled < first + goal {
        *now += 1000;
        engine.round(Turn { now: *now, woken: turns == 0, endpoints_changed: false, poll: false }).unwrap();
        turns += 1;
    }
    let took = start.elapsed();
    let per_second = goal as f64 / took.as_secs_f64();
    println!("{goal:>7} deliveries in {turns:>6} turns of {:>7.1?}: {per_second:.0}/s", took / turns);
}

fn main() {
    let endpoints = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(10_000);
    let log = Rc::new(RefCell::new(Log { endpoints, types: Vec::new(), settled: 0 }));
    let settings = Settings::default();
    let mut engine =
        Dispatcher::start(Disk(Rc::clone(&log)), Wire::default(), settings, Box::new(|| 0.5)).unwrap();
    let mut now = 1_700_000_000_000_000;
    let start = Instant::now();
    engine.round(Turn { now, woken: true, endpoints_changed: true, poll: true }).unwrap();
    println!("{endpoints} endpoints loaded in {:.1?}", start.elapsed());
    let raise = |count: usize, event_type: &str| {
        log.borrow_mut().types.extend((0..count).map(|_| event_type.to_owned()));
    };
    print!("one busy endpoint:  ");
    raise(10_000, "t1.created");
    turns(&mut engine, &log, 10_000, &mut now);
    print!("one event each:     ");
    for id in 1..=endpoints {
        raise(1, &format!("t{id}.created"));
    }
    turns(&mut engine, &log, endpoints, &mut now);
    print!("one event for all:  ");
    raise(1, "all.created");
    turns(&mut engine, &log, endpoints, &mut now);
}
