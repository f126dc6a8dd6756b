//! The clock of the machine is put forward and back: nobody gets anything twice, and nobody waits for it to catch up.

use webhook_pg::engine::Limits;
use webhook_pg::event::Timestamp;
use webhook_pg::retry::Schedule;
use webhook_pg::settings::Settings;

use crate::network::{Behaviour, MILLISECOND, SECOND};
use crate::world::{MINUTE, World, endpoint, received, settings};

const HOUR: Timestamp = 60 * MINUTE;

/// Endpoint 1 is healthy, 2 has a rate limit, 3 fails, 4 asked for patience. Each has events waiting.
fn busy() -> World {
    let retry_schedule = Schedule::parse("1s 10m 1h 1h 1h 1h").unwrap();
    let mut world = World::new(Settings { retry_schedule, ..settings() }, Limits::default(), 7);
    (1..=4).for_each(|id| world.register(endpoint(id, &["*"])));
    world.db().reconfigure(2, |endpoint| endpoint.rate_limit = Some(20));
    world.advance(10 * SECOND);
    world.behave(3, Behaviour::Failing);
    world.behave(4, Behaviour::Busy);
    world.emit("a.created", 40);
    world.advance(500 * MILLISECOND);
    assert_eq!(received(&world, 1), 40);
    assert!(received(&world, 2) < 40 && received(&world, 3) == 0);
    world
}

#[test]
fn a_clock_that_is_put_back_by_an_hour_holds_up_no_new_event() {
    let mut world = busy();
    world.put_clock_back(HOUR);
    for id in [3, 4] {
        world.behave(id, Behaviour::Healthy);
    }
    world.advance(MINUTE);
    let before: Vec<usize> = (1..=4).map(|id| received(&world, id)).collect();
    assert_eq!(&before[..2], [40, 40]);
    world.emit("b.created", 10);
    world.advance(MINUTE);
    for id in 1..=4 {
        assert_eq!(received(&world, id), before[id as usize - 1] + 10, "endpoint {id}");
    }
    // Nor does what has failed wait for the clock to catch up: the longest wait that any of it had left was ten minutes.
    world.advance(12 * MINUTE);
    assert_eq!((received(&world, 3), received(&world, 4)), (50, 50));
    assert_eq!(world.net_ref().duplicates, 0);
    assert!(world.is_drained());
}

#[test]
fn a_clock_that_is_put_forward_by_an_hour_repeats_nothing() {
    let mut world = busy();
    world.now += HOUR;
    for id in [3, 4] {
        world.behave(id, Behaviour::Healthy);
    }
    world.advance(2 * HOUR);
    assert_eq!((1..=4).map(|id| received(&world, id)).collect::<Vec<_>>(), [40; 4]);
    assert_eq!(world.net_ref().duplicates, 0);
}

#[test]
fn a_clock_that_trembles_by_five_seconds_costs_and_repeats_nothing() {
    let mut world = busy();
    for n in 0..40 {
        if n % 2 == 0 {
            world.put_clock_back(5 * SECOND)
        } else {
            world.now += 5 * SECOND
        }
        world.emit("b.created", 1);
        world.advance(SECOND);
    }
    assert_eq!((received(&world, 1), received(&world, 2)), (80, 80));
    assert_eq!(world.net_ref().duplicates, 0);
}
