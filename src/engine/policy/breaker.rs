//! The circuit breaker of one endpoint.
//!
//! ```text
//!            FAILURES in a row                     a success
//!   closed ────────────────────▶ open ─────────────────────▶ ramp ──▶ closed
//!                                 │ ▲                         slots double with each round of successes,
//!                           probe ▼ │ failure                 halve with a failure
//!                              half open
//! ```
//!
//! While it is open, deliveries that are due are tried by their schedule, but one at a time; and when nothing has been tried
//! for a while, one new event is: the probe. The wait for it is half of the time that the endpoint has been failing for,
//! so that a short outage is noticed soon after its end and a long one costs little.

use std::time::Duration;

use crate::event::Timestamp;
use crate::retry::jittered;

/// Failures in a row that open it. Small: each of them may be the first attempt of an event, and leave a row.
pub const FAILURES: u32 = 10;
/// What a failure counts that took the whole timeout: such an endpoint holds slots for long.
const TIMEOUT_COUNTS: u32 = 2;
/// The shortest and the longest wait for a probe, before jitter.
const MIN_WAIT: Timestamp = 1_000_000;
const MAX_WAIT: Timestamp = 600_000_000;

/// How an attempt failed, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// It was answered, or refused at once.
    Answered,
    /// The whole timeout passed.
    TimedOut,
}

/// The breaker of one endpoint.
#[derive(Debug, Clone, Default)]
pub struct Breaker {
    /// The first failure since the last success.
    failing_since: Option<Timestamp>,
    failures: u32,
    /// Open: no new event is tried before.
    probe_at: Option<Timestamp>,
    /// Closed a short while ago: requests that may be in flight.
    ramp: Option<usize>,
}

impl Breaker {
    /// The breaker of an endpoint of which the store says since when it has been failing: it is open, and probes at once.
    pub fn restored(failing_since: Option<Timestamp>) -> Self {
        Self { failing_since, probe_at: failing_since.map(|_| Timestamp::MIN), ..Self::default() }
    }

    /// Since when the endpoint has only failed.
    pub fn failing_since(&self) -> Option<Timestamp> {
        self.failing_since
    }

    /// Whether it is open.
    pub fn is_open(&self) -> bool {
        self.probe_at.is_some()
    }

    /// When an open breaker lets the next new event through.
    pub fn probe_at(&self) -> Option<Timestamp> {
        self.probe_at
    }

    /// The clock was put back so far.
    pub fn put_back(&mut self, by: Timestamp) {
        self.probe_at = self.probe_at.map(|at| at.saturating_sub(by));
    }

    /// Whether new events may be tried now, as far as the breaker is concerned.
    pub fn admits(&self, now: Timestamp) -> bool {
        self.probe_at.is_none_or(|at| at <= now)
    }

    /// How many requests may be in flight to an endpoint with this limit.
    pub fn slots(&self, limit: usize) -> usize {
        match (self.probe_at, self.ramp) {
            (Some(_), _) => limit.min(1),
            (None, Some(ramp)) => limit.min(ramp),
            (None, None) => limit,
        }
    }

    /// Whether it is as if nothing had ever failed.
    pub fn is_calm(&self) -> bool {
        self.failing_since.is_none() && self.ramp.is_none()
    }

    /// An attempt succeeded. `limit`: requests that may be in flight.
    pub fn succeeded(&mut self, limit: usize) {
        let ramp = if self.is_open() { Some(1) } else { self.ramp };
        // One more for each success: those in flight together double it.
        let ramp = ramp.map(|slots| slots + 1).filter(|&slots| slots < limit);
        *self = Self { ramp, ..Self::default() };
    }

    /// An attempt failed. `trips` as [`FAILURES`]; `chance` from 0 to 1. True: this opened it.
    pub fn failed(&mut self, failure: Failure, trips: u32, now: Timestamp, chance: f64) -> bool {
        let since = *self.failing_since.get_or_insert(now);
        let weight = if failure == Failure::TimedOut { TIMEOUT_COUNTS } else { 1 };
        self.failures = self.failures.saturating_add(weight);
        self.ramp = self.ramp.map(|slots| (slots / 2).max(1));
        let was_open = self.is_open();
        if was_open || self.failures >= trips {
            let half = now.saturating_sub(since) / 2;
            let wait = u64::try_from(half.clamp(MIN_WAIT, MAX_WAIT)).unwrap_or(0);
            let wait = jittered(Duration::from_micros(wait), chance).as_micros();
            self.probe_at = Some(now.saturating_add(Timestamp::try_from(wait).unwrap_or(MAX_WAIT)));
        }
        self.is_open() && !was_open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Timestamp = 1_000_000;
    const MIDDLE: f64 = 0.5;

    fn fail(breaker: &mut Breaker, now: Timestamp) -> bool {
        breaker.failed(Failure::Answered, FAILURES, now, MIDDLE)
    }

    #[test]
    fn it_opens_after_ten_failures_in_a_row_or_five_timeouts() {
        let mut breaker = Breaker::default();
        let opened: Vec<bool> = (0..12).map(|_| fail(&mut breaker, 0)).collect();
        assert_eq!(opened.iter().position(|opened| *opened), Some(9));
        assert_eq!(opened.iter().filter(|opened| **opened).count(), 1);
        let mut breaker = Breaker::default();
        let timeout = |b: &mut Breaker| b.failed(Failure::TimedOut, FAILURES, 0, MIDDLE);
        assert_eq!((0..5).map(|_| timeout(&mut breaker)).filter(|opened| *opened).count(), 1);
    }

    #[test]
    fn a_success_in_between_begins_the_count_anew() {
        let mut breaker = Breaker::default();
        for _ in 0..20 {
            (0..9).for_each(|_| assert!(!fail(&mut breaker, 0)));
            breaker.succeeded(8);
        }
        assert!(breaker.is_calm());
    }

    #[test]
    fn the_wait_for_a_probe_grows_with_the_outage_from_a_second_to_ten_minutes() {
        let mut breaker = Breaker::default();
        (0..10).for_each(|_| assert!(fail(&mut breaker, 0) || !breaker.is_open()));
        let mut wait = |now| {
            fail(&mut breaker, now);
            breaker.probe_at().unwrap() - now
        };
        assert_eq!(wait(0), SECOND);
        assert_eq!(wait(60 * SECOND), 30 * SECOND);
        assert_eq!(wait(86_400 * SECOND), 600 * SECOND);
    }

    #[test]
    fn the_wait_has_jitter() {
        let mut breaker = Breaker::restored(Some(0));
        breaker.failed(Failure::Answered, FAILURES, 100 * SECOND, 0.0);
        assert_eq!(breaker.probe_at(), Some(140 * SECOND));
        breaker.failed(Failure::Answered, FAILURES, 100 * SECOND, 1.0);
        assert_eq!(breaker.probe_at(), Some(160 * SECOND));
    }

    #[test]
    fn after_a_success_the_slots_double_with_each_round() {
        let mut breaker = Breaker::restored(Some(0));
        assert_eq!(breaker.slots(8), 1);
        let mut rounds = Vec::new();
        while !breaker.is_calm() {
            let in_flight = breaker.slots(8);
            rounds.push(in_flight);
            (0..in_flight).for_each(|_| breaker.succeeded(8));
        }
        assert_eq!((rounds, breaker.slots(8)), (vec![1, 2, 4], 8));
    }

    #[test]
    fn a_failure_during_recovery_halves_the_slots_and_does_not_open_it() {
        let mut breaker = Breaker::restored(Some(0));
        (0..5).for_each(|_| breaker.succeeded(8));
        assert_eq!(breaker.slots(8), 6);
        assert!(!fail(&mut breaker, SECOND));
        assert_eq!(breaker.slots(8), 3);
    }
}
