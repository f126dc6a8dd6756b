//! Promises of `webhook_pg::engine`: a dispatcher between a model of PostgreSQL and a model of the network, with a clock that
//! only the tests move.
#![allow(missing_docs, unreachable_pub)]

mod database;
mod network;
mod schedule;
mod world;

use proptest::prelude::*;

use schedule::{EVERYTHING, NO_CRASHES, run, schedules};

proptest! {
    #[test]
    fn every_wanted_event_arrives_whatever_happens(schedule in schedules(EVERYTHING), seed: u64) {
        let mut world = run(&schedule, seed);
        world.drain();
    }

    #[test]
    fn without_a_crash_nothing_is_received_twice(schedule in schedules(NO_CRASHES), seed: u64) {
        let mut world = run(&schedule, seed);
        world.drain();
        assert_eq!(world.net().duplicates, 0);
    }
}
