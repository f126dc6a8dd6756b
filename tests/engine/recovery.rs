//! An endpoint that was down is up again: nobody overruns it, and it gets everything at its limits. One promise each.

use webhook_pg::endpoint::{Endpoint, Ordering};
use webhook_pg::engine::Limits;
use webhook_pg::event::{Place, Timestamp};
use webhook_pg::retry::Schedule;
use webhook_pg::settings::Settings;

use crate::network::{Behaviour, SECOND};
use crate::world::{MINUTE, World, endpoint, received};

/// A world of production's settings in which endpoint 2 is the only one, and is down.
fn down(limits: Limits, endpoint_2: Endpoint, schedule: &str) -> World {
    let retry_schedule = Schedule::parse(schedule).unwrap();
    let mut world = World::new(Settings { retry_schedule, ..Settings::default() }, limits, 1);
    world.net().serial = true;
    world.register(endpoint_2);
    world.advance(10 * SECOND);
    world.behave(2, Behaviour::Failing);
    world
}

/// Endpoint 2 is up: lets the time pass until it gets the first event, and says when that was.
fn recover(world: &mut World) -> Timestamp {
    world.behave(2, Behaviour::Healthy);
    while world.net_ref().arrivals.is_empty() {
        world.advance(SECOND / 10);
    }
    world.now - SECOND / 10
}

/// When requests left for endpoint 2.
fn times(world: &World, since: Timestamp) -> Vec<Timestamp> {
    world.net_ref().sent_to(2).map(|sent| sent.at).filter(|at| *at >= since).collect()
}

/// Requests in each second from the first of these times to the last, which need not be a whole one.
fn by_second(times: &[Timestamp]) -> Vec<usize> {
    let (first, last) = (times[0], times[times.len() - 1]);
    let mut seconds = vec![0; usize::try_from((last - first) / SECOND).unwrap() + 1];
    for at in times {
        seconds[usize::try_from((at - first) / SECOND).unwrap()] += 1;
    }
    seconds
}

/// The most requests within any second.
fn busiest_second(times: &[Timestamp]) -> usize {
    let within = |n: usize| times[n..].iter().take_while(|at| **at < times[n] + SECOND).count();
    (0..times.len()).map(within).max().unwrap_or_default()
}

#[test]
fn a_dead_endpoint_with_a_big_backlog_recovers_and_gets_it_in_order_at_its_rate() {
    const RATE: u32 = 50;
    // PROPTEST_CASES asks for more.
    let events = if std::env::var_os("PROPTEST_CASES").is_some() { 100_000 } else { 10_000 };
    for (ordering, max_in_flight) in [(Ordering::Strict, None), (Ordering::None, Some(1))] {
        let limited = Endpoint { ordering, max_in_flight, rate_limit: Some(RATE), ..endpoint(2, &["*"]) };
        let mut world = down(Limits::default(), limited, "5s 5m 30m 2h 5h 10h");
        world.emit("a.created", events);
        world.advance(10 * MINUTE);
        let rows = world.db().deliveries.len();
        assert!(rows <= 100, "{rows} rows");
        let since = recover(&mut world);
        world.net().most_in_flight = 0;
        let wanted = events as Timestamp * SECOND / Timestamp::from(RATE);
        world.advance(wanted * 11 / 10);
        assert_eq!(world.db().owed.len(), 0, "not tried after {wanted} µs and a tenth more");
        let (busiest, most) = (busiest_second(&times(&world, since)), (RATE + RATE / 10) as usize);
        assert!(busiest <= most, "{busiest} requests within a second");
        assert_eq!(world.net().most_in_flight, 1);
        let first_tries: Vec<Place> =
            world.net_ref().sent_to(2).filter(|sent| sent.attempt == 1).map(|sent| sent.place).collect();
        assert!(first_tries.is_sorted(), "they were overtaken");
        if ordering == Ordering::Strict {
            assert!(world.net_ref().arrivals.is_sorted(), "they were overtaken");
        }
        world.drain();
        assert_eq!((received(&world, 2), world.net().duplicates), (events, 0));
    }
}

#[test]
fn an_endpoint_that_was_down_for_ten_minutes_is_caught_up_without_a_pause_a_herd_or_more_than_its_limit() {
    const EVENTS: usize = 30_000;
    let limited = Endpoint { max_in_flight: Some(5), ..endpoint(2, &["*"]) };
    let mut world = down(Limits::default(), limited, "5s 5m 30m 2h 5h 10h");
    for _ in 0..2 {
        world.emit("a.created", EVENTS / 2);
        world.advance(5 * MINUTE);
    }
    let since = recover(&mut world);
    world.net().most_in_flight = 0;
    let mut before = received(&world, 2);
    while !world.db().owed.is_empty() {
        world.advance(SECOND);
        let now = received(&world, 2);
        assert!(now > before, "nothing arrived for a second after {before}");
        before = now;
    }
    let limit = world.net().most_in_flight;
    assert!(limit <= 5, "{limit} at once");
    let seconds = by_second(&times(&world, since));
    let (most, all) = (*seconds.iter().max().unwrap(), seconds.iter().sum::<usize>());
    assert!(most * seconds.len() <= 2 * all, "{most} in a second of {} with {all}", seconds.len());
    world.drain();
    assert_eq!((received(&world, 2), world.net().duplicates), (EVENTS, 0));
}

#[test]
fn retries_of_what_failed_together_are_spread_and_no_second_sees_twice_their_mean() {
    const EVENTS: usize = 3000;
    // Without the breaker, which would let a hundred fail.
    let limits = Limits { failures: u32::MAX, pending: EVENTS, ..Limits::default() };
    let mut world = down(limits, endpoint(2, &["*"]), "2m");
    world.emit("a.created", EVENTS);
    while world.db().deliveries.len() < EVENTS {
        world.advance(SECOND);
    }
    world.behave(2, Behaviour::Healthy);
    let since = world.now;
    world.advance(3 * MINUTE);
    assert_eq!(received(&world, 2), EVENTS);
    let times = times(&world, since);
    let spread = times[times.len() - 1] - times[0];
    assert!(spread > 46 * SECOND, "two minutes ± 20 % are {spread} µs");
    let seconds = by_second(&times);
    let most = *seconds.iter().max().unwrap();
    assert!(most * seconds.len() <= 2 * EVENTS, "{most} in a second of {}", seconds.len());
}
