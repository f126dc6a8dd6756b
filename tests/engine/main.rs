//! Promises of `webhook_pg::engine`: a dispatcher between a model of PostgreSQL and a model of the network, with a clock that
//! only the tests move.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::panic)]

mod breaker;
mod clock;
mod database;
mod figures;
mod isolation;
mod network;
mod order;
mod pace;
mod recovery;
mod replay;
mod schedule;
mod sending;
mod store;
mod world;

use std::cell::RefCell;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use schedule::{EVERYTHING, Mix, NO_CRASHES, run, schedules};
use world::World;

/// Runs random schedules, drains each world, and answers what happened in all of them together. Every request and every
/// write is checked on the way (`network.rs`, `database.rs`).
fn run_many(cases: u32, mix: Mix, check: impl Fn(&World)) -> Totals {
    let totals = RefCell::new(Totals::default());
    // PROPTEST_CASES asks for more.
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { Config::default().cases } else { cases };
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let result = TestRunner::new(config).run(&(schedules(mix), any::<u64>()), |(schedule, seed)| {
        let mut world = run(&schedule, seed);
        world.drain();
        check(&world);
        totals.borrow_mut().add(&world);
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    totals.into_inner()
}

#[derive(Debug, Default)]
struct Totals {
    crashes: usize,
    duplicates: usize,
    left: usize,
    joined: usize,
    delivered: usize,
    dead: usize,
    disabled: usize,
    left_out: usize,
    passed: usize,
    searches: usize,
    verified: usize,
    failed_writes: usize,
}

impl Totals {
    fn add(&mut self, world: &World) {
        let counts = world.db().counts;
        self.crashes += world.crashes;
        self.duplicates += world.net().duplicates;
        self.left += counts.left;
        self.joined += counts.joined;
        self.delivered += counts.delivered;
        self.dead += counts.dead;
        self.disabled += counts.disabled;
        self.left_out += counts.left_out;
        self.passed += counts.passed;
        self.searches += counts.searches;
        self.verified += counts.verified;
        self.failed_writes += counts.failed_writes;
    }
}

#[test]
fn every_wanted_event_arrives_whatever_happens() {
    let totals = run_many(60, EVERYTHING, |_| ());
    assert!(totals.crashes > 0 && totals.failed_writes > 0 && totals.disabled > 0, "{totals:?}");
    assert!(totals.left_out > 0 && totals.passed > 0 && totals.searches > 0, "{totals:?}");
    assert!(totals.left > 0 && totals.joined > 0 && totals.verified > 0, "{totals:?}");
    assert!(totals.delivered > 0 && totals.dead > 0, "{totals:?}");
}

#[test]
fn without_a_crash_nothing_is_received_twice() {
    let totals = run_many(60, NO_CRASHES, |world| assert_eq!(world.net().duplicates, 0));
    assert!(totals.delivered > 0 && totals.left > 0, "{totals:?}");
}

#[test]
fn a_crash_repeats_at_most_what_was_in_flight() {
    let totals = run_many(40, Mix { crashes: 12, ..EVERYTHING }, |world| {
        let net = world.net();
        assert!(net.duplicates <= world.crashes * world.settings.max_in_flight);
    });
    assert!(totals.crashes > 0 && totals.duplicates > 0, "{totals:?}");
}

#[test]
fn pausing_and_resuming_at_any_time_loses_and_repeats_nothing() {
    let mix = Mix { crashes: 0, failures: 0, modes: 14, ..EVERYTHING };
    let totals = run_many(80, mix, |world| assert_eq!(world.net().duplicates, 0));
    assert!(totals.left > 0 && totals.joined > 0, "{totals:?}");
}
