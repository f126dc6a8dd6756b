//! Ordering: who must wait for whom. The network model checks at every request that nothing of a key overlaps or overtakes.

use proptest::prelude::*;
use webhook_pg::endpoint::{Endpoint, Ordering, State as Mode};
use webhook_pg::engine::Limits;
use webhook_pg::event::{Place, Timestamp};
use webhook_pg::outcome::State;
use webhook_pg::retry::Schedule;
use webhook_pg::settings::Settings;

use crate::network::{Behaviour, MILLISECOND, SECOND};
use crate::world::{MINUTE, TINY, World, endpoint, received, settings};

/// A world of tiny limits with one endpoint of this ordering, whose writers never overlap.
fn ordered(ordering: Ordering) -> World {
    world_of(Limits { failures: 4, ..TINY }, ordering, "1s 4s")
}

fn world_of(limits: Limits, ordering: Ordering, schedule: &str) -> World {
    let retry_schedule = Schedule::parse(schedule).unwrap();
    let mut world = World::new(Settings { retry_schedule, ..settings() }, limits, 7);
    world.net().serial = true;
    world.register(Endpoint { ordering, ..endpoint(1, &["*"]) });
    world.advance(10 * SECOND);
    world
}

/// The keys of what endpoint 1 has received, in the order of arrival.
fn keys(world: &World) -> Vec<String> {
    let db = world.db();
    let arrivals = world.net_ref().arrivals.clone();
    arrivals.iter().filter(|(id, _)| *id == 1).map(|(_, at)| db.outbox[at].order_key().to_owned()).collect()
}

fn places(world: &World) -> Vec<Place> {
    world.net_ref().arrivals.iter().filter(|(id, _)| *id == 1).map(|(_, at)| *at).collect()
}

#[test]
fn strict_sends_one_event_at_a_time_in_order() {
    let mut world = ordered(Ordering::Strict);
    world.emit_keys(["x", "y", "z"]);
    world.emit("b.created", 20);
    world.advance(MINUTE);
    assert_eq!((received(&world, 1), world.net_ref().most_in_flight), (23, 1));
    assert!(places(&world).is_sorted());
}

#[test]
fn with_a_key_events_of_different_keys_go_together_and_those_of_one_do_not() {
    let mut world = ordered(Ordering::Key);
    world.emit_keys(["x", "y", "z"]);
    world.advance(5 * MILLISECOND);
    assert_eq!(world.net().most_in_flight, 3);
    world.advance(SECOND);
    world.net().most_in_flight = 0;
    world.emit_keys(["x", "x", "x"]);
    world.advance(SECOND);
    assert_eq!((world.net_ref().most_in_flight, received(&world, 1)), (1, 6));
}

#[test]
fn events_without_a_key_wait_for_those_of_their_resource() {
    let mut world = ordered(Ordering::Key);
    world.emit("a.created", 2);
    world.emit("b.created", 1);
    world.advance(5 * MILLISECOND);
    assert_eq!(world.net().most_in_flight, 2);
}

/// Fails the first event of key x, and lets everything else succeed.
fn fail_x(world: &mut World) {
    world.behave(1, Behaviour::Failing);
    world.emit_keys(["x"]);
    world.advance(100 * MILLISECOND);
    world.behave(1, Behaviour::Healthy);
    assert_eq!(world.db().pending.len(), 1);
}

#[test]
fn a_failing_key_holds_back_only_itself_until_it_is_delivered() {
    let mut world = ordered(Ordering::Key);
    fail_x(&mut world);
    world.emit_keys(["x", "y", "x", "z"]);
    world.advance(300 * MILLISECOND);
    assert_eq!(keys(&world), ["y", "z"]);
    world.advance(5 * SECOND);
    assert_eq!(keys(&world), ["y", "z", "x", "x", "x"]);
}

#[test]
fn a_failing_event_holds_back_everything_when_the_order_is_strict() {
    let mut world = ordered(Ordering::Strict);
    fail_x(&mut world);
    world.emit_keys(["x", "y"]);
    world.advance(300 * MILLISECOND);
    assert_eq!(received(&world, 1), 0);
    world.advance(5 * SECOND);
    assert_eq!(keys(&world), ["x", "x", "y"]);
    assert!(places(&world).is_sorted());
}

#[test]
fn a_pending_delivery_holds_back_its_key_after_a_crash() {
    for ordering in [Ordering::Key, Ordering::Strict] {
        let mut world = ordered(ordering);
        fail_x(&mut world);
        world.crash();
        world.emit_keys(["x", "x"]);
        world.advance(300 * MILLISECOND);
        assert_eq!(received(&world, 1), 0);
        world.advance(10 * SECOND);
        assert_eq!(keys(&world), ["x", "x", "x"]);
        assert!(places(&world).is_sorted());
    }
}

#[test]
fn a_dead_delivery_lets_the_next_of_its_key_go() {
    for ordering in [Ordering::Key, Ordering::Strict] {
        let mut world = world_of(TINY, ordering, "1s");
        fail_x(&mut world);
        world.emit_keys(["x"]);
        world.behave(1, Behaviour::Failing);
        while world.net().sent.len() < 2 {
            world.advance(100 * MILLISECOND);
        }
        world.behave(1, Behaviour::Healthy);
        world.advance(SECOND);
        assert_eq!(received(&world, 1), 1);
        let dead = world.db().deliveries.values().filter(|row| row.state == State::Dead).count();
        assert_eq!(dead, 1);
    }
}

#[test]
fn a_cancelled_delivery_lets_the_next_of_its_key_go() {
    let mut world = world_of(TINY, Ordering::Key, "1d");
    fail_x(&mut world);
    world.emit_keys(["x", "x"]);
    world.advance(20 * SECOND);
    assert_eq!(received(&world, 1), 0);
    world.db().cancel_pending(1);
    world.advance(10 * SECOND);
    assert_eq!(keys(&world), ["x", "x"]);
}

#[test]
fn behind_a_failing_key_only_so_many_events_wait_in_memory_and_none_is_lost() {
    let mut world = world_of(TINY, Ordering::Key, "60s");
    fail_x(&mut world);
    for _ in 0..20 {
        world.emit_keys(["x", "x", "x"]);
        world.advance(SECOND);
    }
    // The bound is checked at every turn.
    assert!(world.engine().load().most_parked >= TINY.parked);
    world.drain();
    assert_eq!(received(&world, 1), 61);
    assert!(places(&world).is_sorted());
}

#[test]
fn an_endpoint_that_is_given_an_order_keeps_it_from_then_on() {
    let mut world = world_of(TINY, Ordering::None, "3s");
    world.behave(1, Behaviour::Failing);
    world.emit_keys(["x", "x", "y"]);
    world.advance(100 * MILLISECOND);
    world.behave(1, Behaviour::Healthy);
    world.db().reconfigure(1, |endpoint| endpoint.ordering = Ordering::Key);
    world.emit_keys(["x", "y"]);
    world.advance(MINUTE);
    let x: Vec<Place> =
        places(&world).into_iter().filter(|at| world.db().outbox[at].order_key() == "x").collect();
    assert_eq!((x.len(), received(&world, 1)), (3, 5));
    assert!(x.is_sorted());
}

#[derive(Debug, Clone)]
enum Op {
    Emit(Vec<usize>),
    Behave(Behaviour),
    Advance(Timestamp),
    Crash,
    Pause,
    Resume,
    FailWrites,
}

const KEYS: [&str; 4] = ["w", "x", "y", "z"];

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let behaviour = prop::sample::select(vec![
        Behaviour::Healthy,
        Behaviour::Healthy,
        Behaviour::Flaky,
        Behaviour::Flaky,
        Behaviour::Slow,
        Behaviour::Failing,
        Behaviour::Starved,
        Behaviour::Busy,
    ]);
    let time = prop_oneof![0..20 * MILLISECOND, 0..2 * SECOND, 0..20 * SECOND];
    let op = prop_oneof![
        6 => prop::collection::vec(0..KEYS.len(), 1..12).prop_map(Op::Emit),
        3 => behaviour.prop_map(Op::Behave),
        8 => time.prop_map(Op::Advance),
        1 => Just(Op::Crash),
        1 => Just(Op::Pause),
        2 => Just(Op::Resume),
        1 => Just(Op::FailWrites),
    ];
    prop::collection::vec(op, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_no_event_overtakes_one_of_its_key(
        ops in ops(), ordering in prop::sample::select(vec![Ordering::Key, Ordering::Strict]), seed: u64,
    ) {
        let retry_schedule = Schedule::parse("1s 4s").unwrap();
        let limits = Limits { failures: 4, ..TINY };
        let mut world = World::new(Settings { retry_schedule, ..settings() }, limits, seed);
        world.net().serial = true;
        world.register(Endpoint { ordering, ..endpoint(1, &["*"]) });
        // Keeps the head going, so that the other leaves it and joins it again.
        world.register(endpoint(2, &["*"]));
        world.advance(SECOND);
        for op in ops {
            match op {
                Op::Emit(keys) => world.emit_keys(keys.into_iter().map(|key| KEYS[key])),
                Op::Behave(behaviour) => world.behave(1, behaviour),
                Op::Advance(by) => world.advance(by),
                Op::Crash => world.crash(),
                Op::Pause if world.db().mode(1) == Some(Mode::Active) => world.db().set_mode(1, Mode::Paused),
                Op::Pause => {}
                Op::Resume => world.db().set_mode(1, Mode::Active),
                Op::FailWrites => world.db().failing_writes = 2,
            }
        }
        world.drain();
    }
}
