//! The breaker, and what becomes of an endpoint that only fails: one promise each.

use std::time::Duration;

use webhook_pg::endpoint::{Endpoint, Ordering, State as Mode};
use webhook_pg::event::{ENDPOINT_DISABLED, Timestamp};
use webhook_pg::outcome::State;
use webhook_pg::retry::Schedule;
use webhook_pg::settings::Settings;

use crate::network::{Behaviour, MILLISECOND, SECOND};
use crate::world::{MINUTE, World, endpoint, full_size, received, sent, tiny};

const DAY: Timestamp = 24 * 60 * MINUTE;

/// A world of production's limits in which endpoint 1 is healthy and endpoint 2 behaves so. Settings are the defaults.
fn with_dead(behaviour: Behaviour) -> World {
    let mut world = full_size();
    world.configure(Settings::default());
    world.register(endpoint(2, &["*"]));
    world.behave(2, behaviour);
    world.advance(SECOND);
    world
}

fn schedule(world: &mut World, text: &str) {
    let retry_schedule = Schedule::parse(text).unwrap();
    world.configure(Settings { retry_schedule, ..world.settings.clone() });
}

#[test]
fn a_dead_endpoint_with_many_waiting_events_has_a_hundred_rows_at_most_after_a_day() {
    let mut world = with_dead(Behaviour::Failing);
    world.db().set_mode(1, Mode::Paused);
    world.emit("a.created", 5000);
    world.advance(MINUTE);
    let rows = world.db().deliveries.len();
    assert!(rows <= 30, "{rows} rows after a minute");
    world.advance(DAY);
    let rows = world.db().deliveries.len();
    assert!((20..=100).contains(&rows), "{rows} rows after a day");
    assert_eq!(world.engine().load().following, 0);
}

#[test]
fn a_dead_endpoint_keeps_the_worker_idle() {
    let mut world = with_dead(Behaviour::Failing);
    world.emit("a.created", 5000);
    world.advance(60 * MINUTE);
    let (rounds, requests) = (world.rounds, sent(&world, 2));
    world.advance(60 * MINUTE);
    let polls = 60 * 60 / 5;
    assert!(world.rounds - rounds < polls + 200, "{} rounds", world.rounds - rounds);
    assert!(sent(&world, 2) - requests < 60, "{} requests", sent(&world, 2) - requests);
}

#[test]
fn while_the_breaker_is_open_one_request_at_a_time_leaves() {
    let mut world = with_dead(Behaviour::Hanging);
    schedule(&mut world, "1s");
    world.emit("a.created", 500);
    world.advance(2 * MINUTE);
    world.net().most_in_flight = 0;
    let before = sent(&world, 2);
    world.advance(10 * MINUTE);
    assert!(sent(&world, 2) > before);
    assert_eq!(world.net().most_in_flight, 1);
}

#[test]
fn an_open_breaker_does_not_change_when_a_delivery_is_tried_again() {
    let mut world = with_dead(Behaviour::Failing);
    schedule(&mut world, "2s 4s 8s");
    world.emit("a.created", 16);
    world.advance(MINUTE);
    let net = world.net_ref();
    for row in world.db().deliveries.iter().filter(|((id, _), _)| *id == 2) {
        let ((_, place), row) = row;
        let times: Vec<Timestamp> = net.sent_to(2).filter(|s| s.place == *place).map(|s| s.at).collect();
        assert_eq!((times.len(), row.state), (4, State::Dead));
        for (pair, wait) in times.windows(2).zip([2, 4, 8]) {
            let gap = pair[1] - pair[0];
            let most = wait * SECOND * 12 / 10 + SECOND / 2;
            assert!((wait * SECOND * 8 / 10..most).contains(&gap), "{wait} s took {gap} µs");
        }
    }
}

#[test]
fn an_endpoint_that_recovers_is_noticed_within_the_length_of_its_outage() {
    for outage in [20 * SECOND, 2 * MINUTE, 10 * MINUTE] {
        let mut world = with_dead(Behaviour::Failing);
        schedule(&mut world, "1d");
        world.emit("a.created", 2000);
        world.advance(outage);
        world.behave(2, Behaviour::Healthy);
        world.advance(outage + 10 * SECOND);
        assert!(received(&world, 2) >= 1950, "{outage}: {}", received(&world, 2));
        assert!(
            world.db().positions.is_empty() || !world.db().positions.contains_key(&2),
            "it has not joined"
        );
    }
}

#[test]
fn an_endpoint_that_recovers_is_not_overrun() {
    let mut world = with_dead(Behaviour::Failing);
    world.emit("a.created", 2000);
    world.advance(10 * MINUTE);
    world.behave(2, Behaviour::Healthy);
    let (before, arrivals) = (sent(&world, 2), world.net().arrivals.len());
    while world.net().arrivals.len() == arrivals {
        world.advance(5 * MILLISECOND);
    }
    world.advance(12 * MILLISECOND);
    let at_first = sent(&world, 2) - before;
    assert!(at_first <= 4, "{at_first} requests in the first round");
    world.drain();
    assert_eq!(received(&world, 2), 2000);
}

#[test]
fn a_fault_of_our_own_does_not_open_the_breaker() {
    let mut world = with_dead(Behaviour::Starved);
    world.emit("a.created", 100);
    world.advance(5 * MINUTE);
    world.behave(2, Behaviour::Healthy);
    world.advance(5 * SECOND);
    assert_eq!(received(&world, 2), 100);
    assert_eq!(world.db().counts.failing_written, 0);
}

#[test]
fn an_endpoint_whose_configuration_changes_gets_a_new_chance_at_once() {
    let mut world = with_dead(Behaviour::Failing);
    schedule(&mut world, "1d");
    world.emit("a.created", 100);
    world.advance(60 * MINUTE);
    world.behave(2, Behaviour::Healthy);
    world.db().reconfigure(2, |endpoint| endpoint.max_in_flight = Some(4));
    world.advance(5 * SECOND);
    let waits = world.db().owed.len();
    assert_eq!(waits, 0, "events that were not tried");
}

// ---- disabling --------------------------------------------------------------------------------------------------

fn disable_after(world: &mut World, seconds: u64) {
    let disable_after = (seconds > 0).then(|| Duration::from_secs(seconds));
    world.configure(Settings { disable_after, ..world.settings.clone() });
}

#[test]
fn an_endpoint_that_only_failed_for_disable_after_is_disabled_and_keeps_everything() {
    for behaviour in [Behaviour::Failing, Behaviour::Hanging] {
        let mut world = with_dead(behaviour);
        disable_after(&mut world, 3600);
        world.emit("a.created", 300);
        world.advance(50 * MINUTE);
        assert_eq!(world.db().mode(2), Some(Mode::Active));
        world.advance(30 * MINUTE);
        assert_eq!(world.db().mode(2), Some(Mode::Disabled));
        let before = sent(&world, 2);
        world.advance(DAY);
        assert_eq!(sent(&world, 2), before);
        world.drain();
        assert_eq!(received(&world, 2), 300);
    }
}

#[test]
fn with_disable_after_off_an_endpoint_is_never_disabled() {
    let mut world = with_dead(Behaviour::Failing);
    disable_after(&mut world, 0);
    schedule(&mut world, "12h");
    world.emit("a.created", 50);
    world.advance(10 * DAY);
    assert_eq!(world.db().mode(2), Some(Mode::Active));
}

#[test]
fn a_success_begins_the_time_to_disable_anew() {
    let mut world = with_dead(Behaviour::Failing);
    disable_after(&mut world, 3600);
    for _ in 0..5 {
        world.emit("a.created", 5);
        world.advance(40 * MINUTE);
        world.behave(2, Behaviour::Healthy);
        world.emit("a.created", 1);
        world.advance(15 * MINUTE);
        world.behave(2, Behaviour::Failing);
    }
    assert_eq!(world.db().mode(2), Some(Mode::Active));
}

#[test]
fn the_first_failure_is_remembered_across_restarts() {
    let mut world = with_dead(Behaviour::Failing);
    disable_after(&mut world, 3600);
    world.emit("a.created", 300);
    for _ in 0..8 {
        world.advance(10 * MINUTE);
        world.crash();
    }
    assert_eq!(world.db().mode(2), Some(Mode::Disabled));
}

#[test]
fn restarts_do_not_cost_a_dead_endpoint_more_rows() {
    let mut world = with_dead(Behaviour::Failing);
    schedule(&mut world, "1d");
    world.emit("a.created", 1000);
    for _ in 0..20 {
        world.advance(MINUTE);
        world.crash();
    }
    let rows = world.db().pending.len();
    assert!(rows < 60, "{rows} pending");
}

#[test]
fn an_endpoint_that_now_and_then_fails_costs_no_writes() {
    let mut world = with_dead(Behaviour::Healthy);
    schedule(&mut world, "1s 1s 1s");
    for _ in 0..50 {
        world.behave(2, Behaviour::Failing);
        world.emit("a.created", 3);
        world.advance(500 * MILLISECOND);
        world.behave(2, Behaviour::Healthy);
        world.advance(5 * SECOND);
    }
    assert_eq!(world.db().counts.failing_written, 0);
}

#[test]
fn a_resumed_endpoint_begins_with_a_clean_record() {
    let mut world = with_dead(Behaviour::Failing);
    disable_after(&mut world, 3600);
    world.emit("a.created", 300);
    world.advance(80 * MINUTE);
    assert_eq!(world.db().mode(2), Some(Mode::Disabled));
    world.db().set_mode(2, Mode::Active);
    world.advance(30 * MINUTE);
    assert_eq!(world.db().mode(2), Some(Mode::Active));
    world.advance(60 * MINUTE);
    assert_eq!(world.db().mode(2), Some(Mode::Disabled));
}

#[test]
fn the_other_endpoints_hear_of_it_when_one_is_disabled() {
    for behaviour in [Behaviour::Failing, Behaviour::Gone] {
        let mut world = with_dead(behaviour);
        disable_after(&mut world, 3600);
        schedule(&mut world, "10m 10m 10m 10m 10m 10m 10m 10m 10m");
        world.emit("a.created", 3);
        world.advance(80 * MINUTE);
        assert_eq!(world.db().mode(2), Some(Mode::Disabled), "{behaviour:?}");
        let heard = |world: &World, id: i64| {
            let db = world.db();
            let arrivals = world.net_ref().arrivals.clone();
            let news = |at| db.outbox[at].event_type == ENDPOINT_DISABLED;
            arrivals.iter().filter(|(endpoint, at)| *endpoint == id && news(at)).count()
        };
        assert_eq!(heard(&world, 1), 1, "{behaviour:?}");
        world.drain();
        assert_eq!(heard(&world, 2), 0, "{behaviour:?}: it hears of itself");
    }
}

// ---- with other rules -------------------------------------------------------------------------------------------

#[test]
fn a_dead_endpoint_with_strict_order_holds_one_pending_delivery() {
    let mut world = tiny();
    world.register(Endpoint { ordering: Ordering::Strict, ..endpoint(2, &["*"]) });
    world.behave(2, Behaviour::Failing);
    schedule(&mut world, "5s 5m 10m 10m 10m 10m 10m 10m 10m 10m 10m");
    world.emit("a.created", 50);
    world.advance(60 * MINUTE);
    assert_eq!(world.db().pending.len(), 1);
    world.drain();
    assert_eq!(received(&world, 2), 50);
}
