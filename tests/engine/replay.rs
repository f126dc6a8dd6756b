//! What somebody asked for: replays and retries by the thousand; and rows that somebody's open transaction holds.

use webhook_pg::endpoint::{Endpoint, Ordering, State as Mode};
use webhook_pg::event::Place;
use webhook_pg::outcome::State;

use crate::network::{Behaviour, MILLISECOND, SECOND};
use crate::world::{MINUTE, TINY, World, endpoint, full_size, received, sent, settings, tiny};

/// Where endpoint 1 was sent events, in the order of arrival.
fn arrivals(world: &World) -> Vec<Place> {
    world.net_ref().arrivals.iter().filter(|(id, _)| *id == 1).map(|(_, at)| *at).collect()
}

fn replay(world: &World) {
    let now = world.now;
    // Twice is as asked for.
    world.net().received.retain(|(id, _)| *id != 1);
    world.db().replay(1, now);
}

#[test]
fn a_replay_is_sent_completely_and_once() {
    let mut world = tiny();
    world.emit("a.created", 100);
    world.advance(MINUTE);
    replay(&world);
    world.advance(MINUTE);
    let arrived = arrivals(&world);
    assert_eq!(arrived.len(), 200);
    assert_eq!(arrived[100..], arrived[..100], "in the order of the events");
    assert!(world.is_drained());
}

#[test]
fn new_events_and_a_replay_take_turns() {
    let mut world = full_size();
    world.emit("a.created", 3000);
    world.advance(MINUTE);
    replay(&world);
    world.behave(1, Behaviour::Slow);
    world.advance(10 * SECOND);
    let before = arrivals(&world).len();
    world.emit("a.created", 20);
    world.advance(5 * MINUTE);
    let last = *world.db().outbox.keys().next_back().unwrap();
    let at = arrivals(&world).iter().position(|place| *place == last);
    let at = at.unwrap_or_else(|| panic!("it has not come among {}", arrivals(&world).len()));
    assert!(
        at < before + 300,
        "the last of 100 new events came as number {at}, the first could have at {before}"
    );
    world.behave(1, Behaviour::Healthy);
    world.drain();
    assert_eq!(arrivals(&world).len(), 6020);
}

#[test]
fn with_an_order_a_replay_comes_in_order_and_new_events_after_it() {
    let mut world = World::new(settings(), TINY, 7);
    world.register(Endpoint { ordering: Ordering::Strict, ..endpoint(1, &["*"]) });
    world.emit("a.created", 50);
    world.drain();
    let first = arrivals(&world);
    world.behave(1, Behaviour::Slow);
    replay(&world);
    // Known from the next poll on; webhook_replay brings that about at once.
    world.advance(10 * SECOND);
    world.emit("a.created", 5);
    world.drain();
    let all = arrivals(&world);
    assert_eq!((all.len(), &all[50..100]), (105, &first[..]));
}

#[test]
fn a_replay_to_a_dead_endpoint_costs_probes_and_no_more() {
    let mut world = full_size();
    world.emit("a.created", 2000);
    world.advance(MINUTE);
    world.behave(1, Behaviour::Failing);
    let before = sent(&world, 1);
    replay(&world);
    world.advance(10 * MINUTE);
    assert!(sent(&world, 1) - before < 300, "{} requests", sent(&world, 1) - before);
    world.drain();
    let dead = world.db().deliveries.values().filter(|row| row.state == State::Dead).count();
    assert_eq!(received(&world, 1) + dead, 2000, "events");
}

#[test]
fn an_outcome_whose_row_is_free_again_before_it_is_written_is_not_sent_a_second_time() {
    let mut world = tiny();
    world.behave(1, Behaviour::Failing);
    world.emit("a.created", 1);
    world.advance(100 * MILLISECOND);
    world.behave(1, Behaviour::Slow);
    while world.net_ref().in_flight() == 0 {
        world.advance(20 * MILLISECOND);
    }
    world.db().hold(1);
    // It has landed, and could not be written.
    while world.net_ref().kept.is_empty() {
        world.advance(MILLISECOND);
    }
    world.db().release();
    // As when another endpoint changes: what is due is looked for again.
    world.db().changed = true;
    world.advance(MINUTE);
    assert_eq!((sent(&world, 1), received(&world, 1)), (2, 1));
    assert!(world.is_drained());
}

#[test]
fn an_outcome_whose_row_is_held_is_written_when_it_is_free_and_holds_up_nothing() {
    let mut world = tiny();
    world.behave(1, Behaviour::Failing);
    world.emit("a.created", 3);
    world.advance(100 * MILLISECOND);
    world.behave(1, Behaviour::Slow);
    // They are in flight when somebody takes hold of them.
    while world.net_ref().in_flight() == 0 {
        world.advance(20 * MILLISECOND);
    }
    world.db().hold(1);
    world.behave(1, Behaviour::Healthy);
    world.emit("a.created", 50);
    world.advance(MINUTE);
    assert_eq!(world.db().pending.len(), 3);
    assert!(received(&world, 1) >= 51, "{}", received(&world, 1));
    world.db().release();
    world.advance(MINUTE);
    assert_eq!((world.db().pending.len(), received(&world, 1)), (0, 53));
    assert!(world.is_drained());
}

#[test]
fn what_is_cancelled_while_its_endpoint_is_paused_is_not_sent_afterwards() {
    let mut world = full_size();
    world.emit("a.created", 200);
    world.advance(MINUTE);
    replay(&world);
    // Some are with the transport and wait for a thread.
    world.behave(1, Behaviour::Slow);
    while world.net_ref().in_flight() == 0 {
        world.advance(MILLISECOND);
    }
    world.db().set_mode(1, Mode::Paused);
    world.advance(MINUTE);
    let before = sent(&world, 1);
    world.db().cancel_pending(1);
    world.behave(1, Behaviour::Healthy);
    world.db().set_mode(1, Mode::Active);
    world.advance(MINUTE);
    assert_eq!(sent(&world, 1), before);
    assert!(world.is_drained());
}
