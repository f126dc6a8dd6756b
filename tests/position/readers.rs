//! Who reads the model: one reader on its own, or a head with the lanes that follow or have left it.

use std::sync::Arc;

use webhook_pg::event::Place;
use webhook_pg::position::{Position, Snapshot};

use crate::database::{Database, Op};

/// More steps than any reader needs to come to the end.
const MANY: usize = 5_000;

/// The position as the table keeps it, and back.
pub(crate) fn reloaded(position: &Position) -> Position {
    let upto = position.upto.as_ref().map(ToString::to_string);
    Position::from_columns(&position.done.to_string(), upto.as_deref(), position.seq).unwrap()
}

/// Reads on its own, chunk by chunk.
pub(crate) struct Reader {
    pub(crate) position: Position,
    pub(crate) chunk: usize,
    /// Save and reload at every point.
    pub(crate) reloads: bool,
    pub(crate) got: Vec<Place>,
}

impl Reader {
    pub(crate) fn new(chunk: usize) -> Self {
        let position = Position::new(Snapshot::parse("101:101:").unwrap());
        Self { position, chunk, reloads: false, got: Vec::new() }
    }

    /// Opens a batch, or takes the next chunk of the open one. `take` is called with each event and the mark before it.
    pub(crate) fn step_with(&mut self, db: &Database, mut take: impl FnMut(Place, &Position)) {
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

    pub(crate) fn step(&mut self, db: &Database) {
        self.step_with(db, |_, _| {});
    }

    pub(crate) fn save_and_reload(&mut self) {
        if self.reloads {
            self.position = reloaded(&self.position);
        }
    }

    pub(crate) fn is_drained(&self, db: &Database) -> bool {
        self.position == Position::new(db.snapshot())
    }

    pub(crate) fn drain(mut self, db: &Database) -> Vec<Place> {
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
pub(crate) fn read(schedule: &[Op], mut reader: Reader) -> (Database, Vec<Place>) {
    let db = Database::run(schedule, |db, _| reader.step(db));
    let got = reader.drain(&db);
    (db, got)
}

/// An endpoint: follows the head, or reads on its own from a position of its own until it stands where the head stands.
pub(crate) struct Lane {
    pub(crate) own: Option<Position>,
    pub(crate) chunk: usize,
    pub(crate) got: Vec<Place>,
}

impl Lane {
    /// Takes the next chunk of what is missing, or joins.
    pub(crate) fn step(&mut self, db: &Database, head: &Position) {
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
pub(crate) struct Worker {
    pub(crate) head: Reader,
    pub(crate) lanes: Vec<Lane>,
}

impl Worker {
    pub(crate) fn new(chunk: usize) -> Self {
        let lane = |chunk| Lane { own: None, chunk, got: Vec::new() };
        Self { head: Reader::new(chunk), lanes: [1, 3, 1000].map(lane).into() }
    }

    /// The head takes a chunk. Lane number `leaver`, if it follows, leaves at the chunk's event number `at`, or behind it.
    pub(crate) fn step_head(&mut self, db: &Database, leaver: Option<(usize, usize)>) {
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
    pub(crate) fn step(&mut self, db: &Database, n: u8) {
        let (act, which, at) = (n % 4, usize::from(n / 4) % self.lanes.len(), usize::from(n / 16) % 5);
        match act {
            0 => self.step_head(db, None),
            1 => self.step_head(db, Some((which, at))),
            _ => self.lanes[which].step(db, &self.head.position),
        }
    }

    /// The head comes to the end, with the lanes at its heels; then every lane must join.
    pub(crate) fn drain(&mut self, db: &Database) {
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

    pub(crate) fn step_lanes(&mut self, db: &Database) {
        for lane in &mut self.lanes {
            lane.step(db, &self.head.position);
        }
    }
}

pub(crate) fn run_worker(schedule: &[Op], chunk: usize) -> (Database, Worker) {
    let mut worker = Worker::new(chunk);
    let db = Database::run(schedule, |db, n| worker.step(db, n));
    worker.drain(&db);
    (db, worker)
}
