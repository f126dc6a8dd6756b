//! What is sent, and to whom: one promise each, in a world made for it.

use webhook_pg::endpoint::State as Mode;
use webhook_pg::engine::Limits;
use webhook_pg::outcome::State;
use webhook_pg::settings::Settings;

use crate::database::POISON;
use crate::network::{Behaviour, MILLISECOND, SECOND};
use crate::world::{MINUTE, TINY, World, endpoint, received, sent, settings, tiny};

#[test]
fn nothing_of_an_aborted_transaction_is_sent() {
    let mut world = tiny();
    world.db().emit(1, "a.created", 10);
    world.db().abort(1);
    world.emit("a.created", 1);
    world.advance(MINUTE);
    assert_eq!(sent(&world, 1), 1);
}

#[test]
fn a_long_transaction_delays_nothing_and_comes_when_it_commits() {
    let mut world = tiny();
    world.db().emit(1, "a.created", 10);
    world.emit("b.created", 20);
    world.advance(SECOND);
    assert_eq!(received(&world, 1), 20);
    world.db().commit(1, true);
    world.advance(SECOND);
    assert_eq!(received(&world, 1), 21);
}

#[test]
fn a_commit_that_nobody_announced_is_found_by_the_poll() {
    let mut world = tiny();
    world.db().emit(1, "a.created", 10);
    world.db().commit(1, false);
    world.advance(6 * SECOND);
    assert_eq!(received(&world, 1), 1);
}

#[test]
fn a_new_endpoint_gets_exactly_what_had_not_committed_when_it_registered() {
    let mut world = tiny();
    world.db().emit(1, "a.created", 10);
    world.emit("a.created", 7);
    world.register(endpoint(2, &["*"]));
    world.db().commit(1, true);
    world.emit("a.created", 5);
    world.advance(MINUTE);
    assert_eq!(received(&world, 2), 6);
}

#[test]
fn a_new_endpoint_gets_nothing_older_after_a_crash() {
    let mut world = tiny();
    world.behave(1, Behaviour::Hanging);
    world.emit("a.created", 4);
    world.register(endpoint(2, &["*"]));
    world.advance(6 * SECOND);
    world.crash();
    world.emit("a.created", 5);
    world.advance(MINUTE);
    assert_eq!(received(&world, 2), 5);
}

#[test]
fn a_new_endpoint_gets_nothing_older_after_a_crash_when_all_others_are_paused() {
    let mut world = tiny();
    world.db().set_mode(1, Mode::Paused);
    world.emit("a.created", 4);
    world.advance(6 * SECOND);
    world.register(endpoint(2, &["*"]));
    world.advance(6 * SECOND);
    world.crash();
    world.emit("a.created", 5);
    world.advance(MINUTE);
    assert_eq!(received(&world, 2), 5);
}

#[test]
fn a_paused_endpoint_gets_nothing_and_misses_nothing() {
    let mut world = tiny();
    world.behave(1, Behaviour::Slow);
    world.emit("a.created", 10);
    world.advance(SECOND);
    world.db().set_mode(1, Mode::Paused);
    let before = sent(&world, 1);
    world.emit("a.created", 10);
    world.advance(MINUTE);
    world.crash();
    world.emit("a.created", 10);
    world.advance(MINUTE);
    assert_eq!(sent(&world, 1), before);
    world.db().set_mode(1, Mode::Active);
    world.drain();
    assert_eq!(received(&world, 1), 30);
}

#[test]
fn an_endpoint_that_was_inactive_starts_at_the_present() {
    let mut world = tiny();
    world.db().set_mode(1, Mode::Inactive);
    world.advance(SECOND);
    world.emit("a.created", 10);
    world.advance(SECOND);
    world.db().activate(1, 1);
    world.db().commit(1, true);
    world.emit("a.created", 3);
    world.advance(MINUTE);
    assert_eq!(received(&world, 1), 3);
}

#[test]
fn an_endpoint_that_is_made_inactive_and_active_between_two_looks_starts_at_the_present() {
    let mut world = tiny();
    world.emit("a.created", 2);
    world.round();
    world.db().set_mode(1, Mode::Inactive);
    world.emit("a.created", 10);
    world.db().activate(1, 1);
    world.db().commit(1, true);
    world.emit("a.created", 3);
    world.drain();
    assert_eq!(received(&world, 1), 5);
}

#[test]
fn what_was_delivered_lies_before_the_saved_position_after_a_second_and_nothing_is_written_any_more() {
    // No poll comes in time.
    let patient = Settings { poll_interval: std::time::Duration::from_secs(3600), ..settings() };
    let mut world = World::new(patient, TINY, 7);
    world.register(endpoint(1, &["*"]));
    world.advance(SECOND);
    world.emit("a.created", 1);
    world.advance(100 * MILLISECOND);
    world.emit("a.created", 4);
    let emitted = world.db().snapshot();
    world.advance(2 * SECOND);
    assert_eq!(received(&world, 1), 5);
    assert!(emitted.is_within(&world.db().positions[&0].done), "events look unread");
    let writes = world.db().counts.writes;
    world.advance(MINUTE);
    assert_eq!(world.db().counts.writes, writes);
}

#[test]
fn a_position_that_starts_at_the_present_is_not_overwritten_before_it_was_read() {
    let mut world = tiny();
    // Keeps the head going, so that the other lags.
    world.register(endpoint(2, &["*"]));
    world.behave(1, Behaviour::Slow);
    world.advance(10 * SECOND);
    world.emit("a.created", 20);
    world.advance(4 * SECOND);
    assert!(world.engine().load().following == 1);
    let before = sent(&world, 1);
    world.db().set_mode(1, Mode::Inactive);
    world.emit("b.created", 10);
    world.db().activate(1, 1);
    world.db().commit(1, true);
    // Answers come in the same turn as the news.
    world.now += 4 * SECOND;
    world.drain();
    assert!(before < 20, "nothing was left to forget");
    assert_eq!(received(&world, 1), before);
}

#[test]
fn an_endpoint_that_comes_back_counts_what_it_still_has_in_flight() {
    let mut world = tiny();
    world.behave(1, Behaviour::Slow);
    world.emit("a.created", 3);
    world.advance(100 * MILLISECOND);
    world.db().set_mode(1, Mode::Inactive);
    world.advance(100 * MILLISECOND);
    world.db().activate(1, 1);
    world.db().commit(1, true);
    world.emit("a.created", 5);
    world.advance(SECOND);
    assert_eq!(sent(&world, 1), 3);
    world.drain();
    assert_eq!(received(&world, 1), 8);
}

#[test]
fn a_gone_endpoint_is_disabled_and_gets_everything_when_it_is_resumed() {
    let mut world = tiny();
    world.behave(1, Behaviour::Gone);
    world.emit("a.created", 12);
    world.advance(MINUTE);
    assert_eq!(world.db().mode(1), Some(Mode::Disabled));
    assert!(sent(&world, 1) <= 3, "more was sent after the first 410");
    world.drain();
    assert_eq!(received(&world, 1), 12);
}

#[test]
fn an_unregistered_endpoint_gets_nothing_more() {
    let mut world = tiny();
    world.behave(1, Behaviour::Slow);
    world.emit("a.created", 12);
    world.advance(SECOND);
    world.db().unregister(1);
    world.advance(MINUTE);
    assert_eq!(sent(&world, 1), 3);
    assert_eq!(world.engine().load().lanes, 0);
}

#[test]
fn switched_off_nothing_is_sent_and_nothing_is_forgotten() {
    let mut world = tiny();
    world.configure(Settings { enabled: false, ..settings() });
    world.emit("a.created", 5);
    world.register(endpoint(2, &["*"]));
    world.emit("a.created", 5);
    world.advance(MINUTE);
    assert_eq!(sent(&world, 1) + sent(&world, 2), 0);
    world.configure(settings());
    world.advance(MINUTE);
    assert_eq!((received(&world, 1), received(&world, 2)), (10, 5));
}

#[test]
fn an_event_that_cannot_be_read_ends_dead_after_three_attempts_and_stops_nobody() {
    let mut world = tiny();
    world.emit("a.created", 5);
    world.emit(POISON, 1);
    world.emit("a.created", 5);
    world.advance(5 * MINUTE);
    assert_eq!((sent(&world, 1), received(&world, 1)), (10, 10));
    let dead: Vec<u32> = world
        .db()
        .deliveries
        .values()
        .filter(|row| row.state == State::Dead)
        .map(|row| row.attempts)
        .collect();
    assert_eq!(dead, [3]);
}

#[test]
fn who_joins_the_head_in_the_middle_of_a_leg_gets_the_rest_of_it_whatever_was_unwanted_before() {
    let mut world = World::new(settings(), Limits { planned: 100, ..TINY }, 7);
    world.register(endpoint(1, &["a.*"]));
    world.register(endpoint(2, &["b.*"]));
    world.advance(10 * SECOND);
    world.db().set_mode(2, Mode::Paused);
    world.emit("b.created", 1);
    world.advance(SECOND);
    // One transaction for both. The head stops in the middle of it, because the only endpoint that follows hangs.
    world.behave(1, Behaviour::Hanging);
    {
        let mut db = world.db();
        for _ in 0..40 {
            db.emit(99, "a.created", 10);
            db.emit(99, "b.created", 10);
        }
        db.commit(99, true);
    }
    world.advance(SECOND);
    assert!(world.db().counts.left_out >= 40, "nothing was left out");
    world.db().set_mode(2, Mode::Active);
    world.advance(SECOND);
    world.drain();
    assert_eq!((received(&world, 1), received(&world, 2)), (40, 41));
}
