//! Random schedules: what users, receivers and misfortune do.

use proptest::prelude::*;
use proptest::strategy::Union;
use webhook_pg::endpoint::{Endpoint, Ordering, State as Mode};
use webhook_pg::engine::Limits;
use webhook_pg::event::Timestamp;
use webhook_pg::settings::Settings;

use crate::network::{Behaviour, MILLISECOND, SECOND};
use crate::world::{TINY, World, endpoint, settings};

const SESSIONS: usize = 5;
const TYPES: [&str; 3] = ["a.created", "b.created", "a.deleted"];
const PATTERNS: [&[&str]; 4] = [&["*"], &["a.*"], &["b.*"], &["*.deleted", "b.created"]];

/// One step of a schedule. `usize` chooses an endpoint.
#[derive(Debug, Clone)]
pub enum Op {
    Begin(usize),
    Emit(usize, usize, u8),
    Commit(usize, bool),
    Abort(usize),
    Foreign,
    Burst(usize, u8),
    Register(usize, usize, Option<usize>, Ordering, Option<u32>),
    Unregister(usize),
    Pause(usize),
    Resume(usize),
    Deactivate(usize),
    Activate(usize, usize),
    Behave(usize, Behaviour),
    Round,
    Advance(Timestamp),
    Retry(usize),
    /// Somebody's open transaction holds the deliveries that the endpoint has now.
    Hold(usize),
    Release,
    Crash,
    FailWrites(u32),
    FailRead,
}

/// What may happen in a schedule.
#[derive(Debug, Clone, Copy)]
pub struct Mix {
    pub crashes: u32,
    pub failures: u32,
    pub modes: u32,
    pub length: usize,
}

pub const EVERYTHING: Mix = Mix { crashes: 3, failures: 2, modes: 2, length: 120 };
pub const NO_CRASHES: Mix = Mix { crashes: 0, ..EVERYTHING };

pub fn schedules(mix: Mix) -> impl Strategy<Value = Vec<Op>> {
    let session = 0..SESSIONS;
    let which = any::<usize>();
    let behaviour = prop::sample::select(vec![
        Behaviour::Healthy,
        Behaviour::Healthy,
        Behaviour::Slow,
        Behaviour::Failing,
        Behaviour::Hanging,
        Behaviour::Flaky,
        Behaviour::Flaky,
        Behaviour::Gone,
        Behaviour::Gone,
        Behaviour::Busy,
        Behaviour::Starved,
    ]);
    let time = prop_oneof![0..20 * MILLISECOND, 0..20 * MILLISECOND, Just(0), 0..2 * SECOND, 0..20 * SECOND];
    let mode = (which, 0..4_usize, session.clone()).prop_map(|(n, what, s)| match what {
        0 => Op::Pause(n),
        1 => Op::Deactivate(n),
        2 => Op::Activate(n, s),
        _ => Op::Unregister(n),
    });
    let ordering = prop::sample::select(vec![Ordering::None, Ordering::Key, Ordering::Strict]);
    let rate = prop::option::weighted(0.3, 1..30_u32);
    let limit = prop::option::of(1..4_usize);
    let register = (session.clone(), 0..PATTERNS.len(), limit, ordering, rate);
    let ops = [
        (2, session.clone().prop_map(Op::Begin).boxed()),
        (16, (session.clone(), 0..TYPES.len(), any::<u8>()).prop_map(|(s, t, n)| Op::Emit(s, t, n)).boxed()),
        (10, (session.clone(), prop::bool::weighted(0.8)).prop_map(|(s, loud)| Op::Commit(s, loud)).boxed()),
        (1, session.prop_map(Op::Abort).boxed()),
        (2, Just(Op::Foreign).boxed()),
        (3, (0..TYPES.len(), 1..25_u8).prop_map(|(t, n)| Op::Burst(t, n)).boxed()),
        (2, register.prop_map(|(s, p, l, o, r)| Op::Register(s, p, l, o, r)).boxed()),
        (2 * mix.modes, mode.boxed()),
        (2 * mix.modes, which.prop_map(Op::Resume).boxed()),
        (4, (which, behaviour).prop_map(|(n, b)| Op::Behave(n, b)).boxed()),
        (1, which.prop_map(Op::Retry).boxed()),
        (1, which.prop_map(Op::Hold).boxed()),
        (1, Just(Op::Release).boxed()),
        (10, Just(Op::Round).boxed()),
        (16, time.prop_map(Op::Advance).boxed()),
        (mix.crashes, Just(Op::Crash).boxed()),
        (mix.failures, (1..4_u32).prop_map(Op::FailWrites).boxed()),
        (mix.failures.min(mix.crashes), Just(Op::FailRead).boxed()),
    ];
    let op = Union::new_weighted(ops.into_iter().filter(|(weight, _)| *weight > 0).collect());
    prop::collection::vec(op, 1..mix.length)
}

/// A world with two endpoints, after the schedule; nothing is drained yet.
pub fn run(schedule: &[Op], seed: u64) -> World {
    run_with(settings(), schedule, seed)
}

pub fn run_with(settings: Settings, schedule: &[Op], seed: u64) -> World {
    let mut world = World::new(settings, Limits { failures: 3, ..TINY }, seed);
    world.register(endpoint(1, &["*"]));
    world.register(Endpoint { ordering: Ordering::Key, ..endpoint(2, &["a.*"]) });
    world.advance(SECOND);
    let mut last_id = 2;
    for op in schedule {
        step(&mut world, op, &mut last_id);
    }
    world
}

fn step(world: &mut World, op: &Op, last_id: &mut i64) {
    let chosen = |world: &World, n: usize| {
        let ids: Vec<i64> = world.db().endpoints.keys().copied().collect();
        ids.get(n % ids.len().max(1)).copied().unwrap_or(0)
    };
    match op {
        Op::Begin(s) => world.db().begin(*s),
        Op::Emit(s, t, bytes) => world.db().emit(*s, TYPES[*t], usize::from(*bytes)),
        Op::Commit(s, announced) => world.db().commit(*s, *announced),
        Op::Abort(s) => world.db().abort(*s),
        Op::Foreign => world.db().foreign(),
        Op::Burst(t, n) => world.emit(TYPES[*t], usize::from(*n)),
        Op::Register(s, p, limit, ordering, rate) => {
            *last_id += 1;
            let mut endpoint = endpoint(*last_id, PATTERNS[*p]);
            (endpoint.max_in_flight, endpoint.ordering, endpoint.rate_limit) = (*limit, *ordering, *rate);
            world.db().register(*s, endpoint);
        }
        Op::Unregister(n) => {
            let id = chosen(world, *n);
            // One stays, or the schedule has nothing to say.
            if id != 1 {
                world.db().unregister(id);
            }
        }
        Op::Pause(n) => {
            let id = chosen(world, *n);
            if world.db().mode(id) == Some(Mode::Active) {
                world.db().set_mode(id, Mode::Paused);
            }
        }
        Op::Resume(n) => {
            let id = chosen(world, *n);
            world.db().set_mode(id, Mode::Active);
        }
        Op::Deactivate(n) => {
            let id = chosen(world, *n);
            world.db().set_mode(id, Mode::Inactive);
        }
        Op::Activate(n, s) => {
            let id = chosen(world, *n);
            if world.db().mode(id) == Some(Mode::Inactive) {
                world.db().activate(*s, id);
            }
        }
        Op::Behave(n, behaviour) => {
            let id = chosen(world, *n);
            world.behave(id, *behaviour);
        }
        Op::Retry(n) => {
            let now = world.now;
            let mut db = world.db();
            let dead = db.deliveries.iter().filter(|(_, row)| row.state == webhook_pg::outcome::State::Dead);
            let dead: Vec<_> =
                dead.map(|(pair, _)| *pair).filter(|(id, _)| db.endpoints.contains_key(id)).collect();
            if let Some(pair) = dead.get(n % dead.len().max(1)) {
                db.retry(*pair, now);
            }
        }
        Op::Hold(n) => {
            let id = chosen(world, *n);
            world.db().hold(id);
        }
        Op::Release => world.db().release(),
        Op::Round => world.round(),
        Op::Advance(by) => world.advance(*by),
        Op::Crash => world.crash(),
        Op::FailWrites(n) => world.db().failing_writes = *n,
        Op::FailRead => world.db().failing_reads = 1,
    }
}
