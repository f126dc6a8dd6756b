//! Rates, and endpoints that leave each other room: one promise each.

use webhook_pg::endpoint::{Endpoint, State as Mode};
use webhook_pg::engine::Limits;
use webhook_pg::event::Timestamp;
use webhook_pg::settings::Settings;

use crate::network::{Behaviour, MILLISECOND, SECOND};
use crate::world::{MINUTE, World, endpoint, full_size, received, sent};

// ---- slots ------------------------------------------------------------------------------------------------------

/// Emits for the healthy endpoint 1, and answers by how much its requests left late, sorted.
fn latencies(world: &mut World, seconds: usize) -> Vec<Timestamp> {
    let mut latencies = Vec::new();
    for _ in 0..10 * seconds {
        let (start, before) = (world.now, world.net().sent.len());
        world.emit("healthy.created", 4);
        world.advance(100 * MILLISECOND);
        let net = world.net_ref();
        let sent = net.sent[before..].iter().filter(|sent| sent.endpoint == 1);
        latencies.extend(sent.map(|sent| sent.at - start));
    }
    latencies.sort_unstable();
    latencies
}

fn p99(latencies: &[Timestamp]) -> Timestamp {
    latencies[latencies.len() * 99 / 100]
}

/// Production's limits and default settings, and one endpoint that has answered.
fn healthy() -> World {
    let mut world = World::new(Settings::default(), Limits::default(), 1);
    world.register(endpoint(1, &["healthy.*"]));
    world.emit("healthy.created", 1);
    world.advance(SECOND);
    world
}

fn add_hanging(world: &mut World, count: i64) {
    for id in 2..2 + count {
        world.register(endpoint(id, &["a.*"]));
        world.behave(id, Behaviour::Hanging);
    }
    for _ in 0..10 {
        world.emit("a.created", 4);
    }
}

/// What the receiver itself takes, in the model of the network.
const ANSWER: Timestamp = 10 * MILLISECOND;

#[test]
fn many_endpoints_that_catch_up_are_read_for_in_turns() {
    let mut world = World::new(Settings::default(), Limits::default(), 1);
    (1..=40).for_each(|id| world.register(endpoint(id, &["a.*"])));
    world.register(endpoint(41, &["a.*"]));
    world.advance(SECOND);
    (1..=40).for_each(|id| world.db().set_mode(id, Mode::Paused));
    world.emit("a.created", 60);
    world.advance(SECOND);
    // Forty backlogs to read at once, whose first deliveries fail and are due at once again.
    (1..=40).for_each(|id| world.behave(id, Behaviour::Failing));
    (1..=40).for_each(|id| world.db().set_mode(id, Mode::Active));
    world.advance(2 * SECOND);
    (1..=40).for_each(|id| world.behave(id, Behaviour::Healthy));
    world.now += 10 * SECOND;
    world.advance(10 * MINUTE);
    assert!(world.is_drained());
    assert!((1..=41).all(|id| received(&world, id) == 60));
    // Six chunks: four of the head's, two of all others.
    let counts = world.db().counts;
    assert!(counts.most_fetched <= 6 * 64, "{} events in one read", counts.most_fetched);
    assert!(counts.most_asked <= 8, "{} endpoints in one read", counts.most_asked);
}

#[test]
fn a_hundred_hanging_endpoints_leave_a_healthy_one_within_twice_of_its_p99() {
    let alone = p99(&latencies(&mut healthy(), 10)) + ANSWER;
    let mut world = healthy();
    add_hanging(&mut world, 100);
    let among = latencies(&mut world, 40);
    assert_eq!(among.len(), 1600);
    assert!(p99(&among) + ANSWER <= 2 * alone, "{} µs instead of {alone}", p99(&among) + ANSWER);
    assert!(among[among.len() - 1] <= SECOND, "one waited {} µs", among[among.len() - 1]);
}

#[test]
fn endpoints_that_begin_to_hang_leave_room_for_the_others() {
    let mut world = healthy();
    for id in 2..14 {
        world.register(endpoint(id, &["a.*"]));
    }
    world.emit("a.created", 20);
    world.advance(5 * SECOND);
    (2..14).for_each(|id| world.behave(id, Behaviour::Hanging));
    world.emit("a.created", 200);
    let among = latencies(&mut world, 30);
    assert!(p99(&among) <= 2 * ANSWER, "{} µs", p99(&among));
}

#[test]
fn what_waits_in_store_for_an_endpoint_that_begins_to_hang_frees_its_slots() {
    let mut world = full_size();
    world.configure(Settings::default());
    world.emit("a.created", 500);
    world.advance(20 * MILLISECOND);
    world.behave(1, Behaviour::Hanging);
    world.advance(300 * MILLISECOND);
    assert_eq!(world.engine().in_flight(), 8);
}

#[test]
fn a_new_endpoint_among_a_hundred_hanging_ones_is_served_in_its_turn() {
    let mut world = World::new(Settings::default(), Limits::default(), 1);
    add_hanging(&mut world, 100);
    world.register(endpoint(1, &["healthy.*"]));
    world.advance(SECOND);
    world.emit("healthy.created", 5);
    world.advance(MINUTE);
    assert_eq!(received(&world, 1), 5);
}

#[test]
fn hanging_endpoints_all_get_their_turn() {
    let mut world = healthy();
    add_hanging(&mut world, 100);
    world.advance(3 * MINUTE);
    for id in 2..102 {
        assert!(sent(&world, id) > 0, "{id} was never tried");
    }
}

#[test]
fn a_dead_endpoint_frees_its_slots_in_the_end() {
    let mut world = healthy();
    add_hanging(&mut world, 40);
    world.advance(20 * MINUTE);
    world.net().most_in_flight = 0;
    world.advance(5 * MINUTE);
    let most = world.net_ref().most_in_flight;
    assert!(most <= 16, "{most}");
}

// ---- rates ------------------------------------------------------------------------------------------------------

/// Most requests to an endpoint in any second.
fn busiest_second(world: &World, id: i64) -> usize {
    let times: Vec<Timestamp> = world.net_ref().sent_to(id).map(|sent| sent.at).collect();
    let in_second = |n: usize| times[n..].iter().take_while(|at| **at < times[n] + SECOND).count();
    (0..times.len()).map(in_second).max().unwrap_or(0)
}

fn limited(rate: u32) -> World {
    let mut world = full_size();
    world.register(Endpoint { rate_limit: Some(rate), ..endpoint(2, &["*"]) });
    world.advance(10 * SECOND);
    world
}

#[test]
fn a_rate_limit_holds_in_every_second_and_is_used_up() {
    for rate in [1, 7, 50, 300] {
        let mut world = limited(rate);
        world.emit("a.created", 2000);
        world.advance(20 * SECOND);
        let most = busiest_second(&world, 2);
        let rate = usize::try_from(rate).unwrap();
        assert!(most <= rate + rate.div_ceil(10), "{most} requests in a second instead of {rate}");
        assert!(received(&world, 2) >= (19 * rate).min(2000), "{} received at {rate}", received(&world, 2));
        assert_eq!(received(&world, 1), 2000, "it holds up another");
    }
}

#[test]
fn a_rate_limit_counts_retries() {
    let mut world = limited(5);
    world.behave(2, Behaviour::Flaky);
    world.emit("a.created", 200);
    world.advance(MINUTE);
    assert!(busiest_second(&world, 2) <= 5);
}

#[test]
fn a_rate_that_is_changed_holds_at_once() {
    let mut world = limited(5);
    world.emit("a.created", 200);
    world.advance(2 * SECOND);
    world.db().reconfigure(2, |endpoint| endpoint.rate_limit = None);
    world.advance(3 * SECOND);
    assert_eq!(received(&world, 2), 200);
}

#[test]
fn an_endpoint_that_is_slowed_down_keeps_the_worker_idle() {
    let mut world = limited(1);
    world.emit("a.created", 500);
    world.advance(10 * SECOND);
    let before = world.rounds;
    world.advance(MINUTE);
    assert!(world.rounds - before < 400, "{} rounds", world.rounds - before);
}
