//! Who waits for whom, what is held in memory, what is written: one promise each, in a world made for it.

use webhook_pg::endpoint::State as Mode;
use webhook_pg::engine::Limits;
use webhook_pg::outcome::State;
use webhook_pg::retry::Schedule;
use webhook_pg::settings::Settings;

use crate::network::{Behaviour, MILLISECOND, SECOND};
use crate::world::{MINUTE, TINY, World, endpoint, full_size, received, sent, settings, tiny};

// ---- who waits for whom -----------------------------------------------------------------------------------------

#[test]
fn a_failing_endpoint_never_delays_a_healthy_one() {
    for behaviour in
        [Behaviour::Hanging, Behaviour::Failing, Behaviour::Slow, Behaviour::Busy, Behaviour::Starved]
    {
        let mut world = full_size();
        for id in 2..8 {
            world.register(endpoint(id, &["*"]));
            world.behave(id, behaviour);
        }
        world.advance(SECOND);
        for n in 1..20 {
            world.emit("a.created", 20);
            world.advance(500 * MILLISECOND);
            assert_eq!(received(&world, 1), 20 * n, "{behaviour:?}, after {n} transactions");
        }
    }
}

#[test]
fn big_events_in_flight_to_hanging_endpoints_delay_no_healthy_one() {
    let mut world = World::new(Settings { max_in_flight: 20, ..settings() }, TINY, 7);
    world.register(endpoint(1, &["b.created"]));
    world.register(endpoint(2, &["a.created"]));
    world.behave(2, Behaviour::Hanging);
    world.advance(10 * SECOND);
    world.behave(1, Behaviour::Slow);
    world.emit("b.created", 1);
    for _ in 0..3 {
        world.emit_sized("a.created", 1, 800);
        world.advance(100 * MILLISECOND);
    }
    world.advance(4 * SECOND);
    world.behave(1, Behaviour::Healthy);
    world.emit("b.created", 5);
    world.advance(SECOND);
    assert_eq!(received(&world, 1), 6);
}

#[test]
fn a_new_endpoint_does_not_wait_for_the_big_events_of_hanging_ones() {
    let mut world = World::new(Settings { max_in_flight: 20, ..settings() }, TINY, 7);
    world.register(endpoint(2, &["a.created"]));
    world.behave(2, Behaviour::Hanging);
    world.advance(10 * SECOND);
    world.emit_sized("a.created", 6, 800);
    world.advance(SECOND);
    world.register(endpoint(1, &["b.created"]));
    world.emit("b.created", 5);
    world.advance(SECOND);
    assert_eq!(received(&world, 1), 5);
}

#[test]
fn a_full_window_is_waited_for_without_spinning() {
    let mut world = tiny();
    world.behave(1, Behaviour::Hanging);
    world.emit_sized("a.created", 2, 1000);
    world.advance(SECOND);
    world.emit_sized("a.created", 2, 1000);
    let before = world.rounds;
    world.advance(SECOND);
    assert!(world.rounds < before + 10, "{} rounds", world.rounds - before);
}

#[test]
fn events_that_nobody_wants_are_passed_without_a_pause() {
    let mut world = World::new(settings(), TINY, 7);
    world.register(endpoint(1, &["b.created"]));
    world.advance(10 * SECOND);
    for _ in 0..8 {
        world.emit("a.created", 13);
        world.emit("b.created", 1);
        world.advance(SECOND);
    }
    assert_eq!(received(&world, 1), 8);
}

#[test]
fn an_endpoint_that_asked_to_wait_goes_on_when_the_time_has_come() {
    let mut world = tiny();
    world.behave(1, Behaviour::Busy);
    world.emit("a.created", 1);
    world.advance(SECOND);
    world.emit("a.created", 20);
    world.advance(5 * SECOND);
    assert_eq!(sent(&world, 1), 1);
    world.behave(1, Behaviour::Healthy);
    world.advance(2 * SECOND);
    assert_eq!(received(&world, 1), 21);
}

#[test]
fn nearly_every_slot_is_used_and_none_twice() {
    let mut world = full_size();
    for id in 2..30 {
        world.register(endpoint(id, &["*"]));
    }
    world.emit("a.created", 20);
    world.advance(MINUTE);
    // One share is left for a newcomer.
    assert!(world.net().most_in_flight >= 60, "{}", world.net().most_in_flight);
    assert_eq!(world.net().duplicates, 0);
}

// ---- memory -----------------------------------------------------------------------------------------------------

#[test]
fn an_endpoint_that_lags_reads_for_itself_and_follows_the_head_again_when_it_has_caught_up() {
    let mut world = full_size();
    world.register(endpoint(2, &["*"]));
    world.behave(2, Behaviour::Slow);
    world.advance(10 * SECOND);
    for _ in 0..30 {
        world.emit("a.created", 100);
        world.advance(SECOND);
    }
    assert_eq!(received(&world, 1), 3000);
    assert!(world.db().positions.contains_key(&2), "it has no position of its own");
    assert_eq!(world.engine().load().following, 1);
    world.behave(2, Behaviour::Healthy);
    world.advance(MINUTE);
    assert_eq!(received(&world, 2), 3000);
    assert!(!world.db().positions.contains_key(&2), "it has not joined");
    assert_eq!(world.engine().load().following, 2);
}

#[test]
fn a_dead_endpoint_costs_rows_in_the_tens_and_little_memory() {
    for behaviour in [Behaviour::Failing, Behaviour::Hanging, Behaviour::Busy] {
        let mut world = full_size();
        world.register(endpoint(2, &["*"]));
        world.behave(2, behaviour);
        world.advance(SECOND);
        let retry_schedule = Schedule::parse("1d").unwrap();
        world.configure(Settings { retry_schedule, ..world.settings.clone() });
        for _ in 0..20 {
            world.emit("a.created", 300);
            world.advance(10 * SECOND);
        }
        assert_eq!(received(&world, 1), 6000);
        let rows = world.db().pending.len();
        assert!((5..40).contains(&rows), "{behaviour:?}: {rows} pending");
        assert!(world.engine().load().longest_queue <= 1, "{behaviour:?}: {:?}", world.engine().load());
    }
}

#[test]
fn big_events_are_read_in_small_portions_and_small_ones_in_large() {
    let mut world = full_size();
    world.emit_sized("a.created", 60, 1_000_000);
    world.advance(SECOND);
    assert_eq!(received(&world, 1), 60);
    assert!(world.engine().load().chunk <= 8, "{:?}", world.engine().load());
    world.emit("a.created", 2000);
    world.advance(10 * SECOND);
    assert_eq!(received(&world, 1), 2060);
    assert_eq!(world.engine().load().chunk, Limits::default().max_chunk);
}

// ---- writing ----------------------------------------------------------------------------------------------------

#[test]
fn while_writes_fail_no_more_is_sent_than_a_crash_may_repeat_and_nothing_twice() {
    let mut world = tiny();
    world.db().failing_writes = 30;
    world.emit("a.created", 20);
    world.advance(20 * SECOND);
    assert!((3..=6).contains(&sent(&world, 1)), "{} sent", sent(&world, 1));
    world.db().failing_writes = 0;
    world.advance(5 * SECOND);
    assert_eq!((sent(&world, 1), received(&world, 1)), (20, 20));
}

#[test]
fn endpoints_that_change_while_writes_fail_are_noticed() {
    let mut world = tiny();
    world.db().failing_writes = 3;
    world.emit("a.created", 1);
    world.advance(SECOND);
    world.register(endpoint(2, &["*"]));
    world.emit("a.created", 1);
    world.advance(10 * SECOND);
    assert_eq!(received(&world, 2), 1);
}

#[test]
fn an_idle_engine_writes_nothing_and_reads_only_at_its_polls() {
    let mut world = tiny();
    world.register(endpoint(2, &["*"]));
    world.db().set_mode(2, Mode::Paused);
    world.emit("a.created", 10);
    world.advance(MINUTE);
    let before = world.db().counts;
    for _ in 0..100 {
        world.db().foreign();
        world.advance(10 * SECOND);
    }
    let after = world.db().counts;
    assert_eq!(after.writes, before.writes);
    assert!(after.reads - before.reads <= 201, "{} reads in 200 polls", after.reads - before.reads);
}

#[test]
fn a_retry_comes_when_it_is_due_and_not_before() {
    let mut world = tiny();
    world.behave(1, Behaviour::Failing);
    world.emit("a.created", 3);
    for attempt in 2..=3 {
        world.advance(500 * MILLISECOND);
        let due: Vec<_> = world.db().pending.iter().copied().collect();
        assert_eq!(due.len(), 3);
        world.advance(if attempt == 2 { SECOND } else { 6 * SECOND });
        for (_, at, place) in due {
            let net = world.net_ref();
            let retry = net.sent_to(1).find(|sent| (sent.place, sent.attempt) == (place, attempt));
            assert_eq!(retry.map(|sent| sent.at), Some(at));
        }
    }
    assert!(world.db().deliveries.values().all(|row| (row.state, row.attempts) == (State::Dead, 3)));
}

#[test]
fn a_fault_of_our_own_costs_no_attempt_and_no_row() {
    let mut world = tiny();
    world.behave(1, Behaviour::Starved);
    world.emit("a.created", 4);
    world.advance(MINUTE);
    assert_eq!(world.db().deliveries.len(), 0);
    assert!(sent(&world, 1) < 4 * 65, "it does not rest");
    assert!(world.troubles.iter().any(|trouble| trouble.contains("fault of our own")), "nobody hears of it");
    world.behave(1, Behaviour::Healthy);
    world.advance(5 * SECOND);
    assert!(world.db().deliveries.values().all(|row| (row.state, row.attempts) == (State::Delivered, 1)));
    assert_eq!(world.db().deliveries.len(), 4);
}

#[test]
fn a_fault_of_our_own_is_told_from_its_beginning_to_its_end() {
    let mut world = tiny();
    world.register(endpoint(2, &["*"]));
    world.behave(1, Behaviour::Starved);
    assert_eq!(world.fault(), None);
    let began = world.now;
    world.emit("a.created", 4);
    world.advance(MINUTE);
    let (since, _) = world.fault().unwrap();
    assert!((began..began + SECOND).contains(&since), "{since} instead of {began}");
    world.behave(1, Behaviour::Healthy);
    world.advance(5 * SECOND);
    assert_eq!(world.fault(), None);
}

#[test]
fn a_fault_of_our_own_is_told_no_more_once_nobody_waits_for_it() {
    let mut world = tiny();
    world.behave(1, Behaviour::Starved);
    world.emit("a.created", 4);
    world.advance(MINUTE);
    assert!(world.fault().is_some());
    world.db().set_mode(1, Mode::Paused);
    world.advance(10 * SECOND);
    assert_eq!(world.fault(), None);
}

#[test]
fn outcomes_that_cannot_be_written_are_told_until_they_are() {
    let mut world = tiny();
    world.db().failing_writes = u32::MAX;
    world.emit("a.created", 1);
    world.advance(10 * SECOND);
    assert!(world.fault().is_some_and(|(_, message)| message.contains("cannot be written")));
    world.db().failing_writes = 0;
    world.advance(10 * SECOND);
    assert_eq!(world.fault(), None);
}
