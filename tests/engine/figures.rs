//! Figures: what is counted, shown and saved. One promise each.

use webhook_pg::endpoint::State as Mode;

use crate::network::{Behaviour, MILLISECOND, SECOND};
use crate::world::{endpoint, full_size, received, sent, tiny};

#[test]
fn every_attempt_is_counted_once_and_shown_before_its_outcome_is_written() {
    let mut world = tiny();
    world.register(endpoint(2, &["*"]));
    world.behave(2, Behaviour::Failing);
    world.advance(SECOND);
    for _ in 0..20 {
        world.emit("a.created", 3);
        world.advance(50 * MILLISECOND);
        let delivered = world.db().deliveries.iter().filter(|((id, _), _)| *id == 1).count() as u64;
        let shown = world.db().shown[&1].1.delivered;
        assert!(shown >= delivered, "{shown} of {delivered} are shown");
    }
    world.advance(60 * SECOND);
    let shown = world.db().shown.clone();
    assert_eq!(shown[&1].1.delivered, received(&world, 1) as u64);
    assert_eq!(shown[&2].1.delivered, 0);
    assert_eq!(shown[&2].1.failed_attempts, sent(&world, 2) as u64);
    assert_eq!(shown[&2].1.died, world.db().counts.dead as u64);
    assert!(shown[&2].1.died > 0);
}

#[test]
fn figures_are_saved_once_a_second_however_many_outcomes_there_are() {
    let mut world = full_size();
    world.advance(SECOND);
    let before = world.db().counts;
    for _ in 0..100 {
        world.emit("a.created", 10);
        world.advance(100 * MILLISECOND);
    }
    let after = world.db().counts;
    let (figures, outcomes) = (after.figure_writes - before.figure_writes, after.writes - before.writes);
    assert!(outcomes > 50, "{outcomes} writes of outcomes");
    assert!((8..=12).contains(&figures), "{figures} times in 10 s");
    world.advance(2 * SECOND);
    assert_eq!(world.db().figures[&1].delivered, received(&world, 1) as u64);
    let saved = world.db().counts.figure_writes;
    world.advance(60 * SECOND);
    assert_eq!(world.db().counts.figure_writes, saved, "saved although nothing has changed");
}

#[test]
fn figures_go_on_after_a_crash_where_they_were_saved() {
    let mut world = full_size();
    world.emit("a.created", 10);
    world.advance(3 * SECOND);
    world.crash();
    world.advance(SECOND);
    world.emit("a.created", 5);
    world.advance(3 * SECOND);
    assert_eq!(world.db().figures[&1].delivered, 15);
}

#[test]
fn figures_of_an_endpoint_that_is_made_inactive_are_saved_and_go_on_when_it_is_active_again() {
    let mut world = full_size();
    world.emit("a.created", 10);
    world.advance(100 * MILLISECOND);
    world.emit("a.created", 1);
    world.advance(100 * MILLISECOND);
    world.db().set_mode(1, Mode::Inactive);
    world.advance(5 * SECOND);
    assert_eq!(world.db().figures[&1].delivered, 11);
    world.db().activate(0, 1);
    world.db().commit(0, true);
    world.advance(5 * SECOND);
    world.emit("a.created", 1);
    world.advance(5 * SECOND);
    assert_eq!(world.db().figures[&1].delivered, 12);
}

#[test]
fn requests_in_flight_are_shown_as_they_begin_and_end_and_are_never_more_than_the_limit() {
    let mut world = full_size();
    world.behave(1, Behaviour::Hanging);
    world.emit("a.created", 30);
    world.advance(SECOND);
    let limit = world.settings.endpoint_max_in_flight;
    assert_eq!(world.db().shown[&1].0, limit);
    world.behave(1, Behaviour::Healthy);
    world.advance(120 * SECOND);
    assert_eq!(world.db().shown[&1].0, 0);
}
