//! The figures of one endpoint: what became of its attempts, and how long they took.
//!
//! Totals count for ever; the worker writes them to `webhook.endpoint_figures` about once a second, never with an outcome. A
//! crash may lose what was counted since.

use std::time::Duration;

use crate::event::Timestamp;
use crate::outcome::{Attempt, State};

/// Upper bounds of the histogram of durations, in seconds; one more bucket has no bound. `sql/install/stats.sql` has the same.
pub const BOUNDS: [f64; 12] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// Attempts whose durations the percentiles are taken of.
const RECENT: usize = 500;

/// What became of the attempts for one endpoint.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Figures {
    /// Attempts that were answered 2xx.
    pub delivered: u64,
    /// All others, but for faults of our own.
    pub failed_attempts: u64,
    /// Deliveries that ran out of attempts.
    pub died: u64,
    /// When the last attempt succeeded.
    pub last_success_at: Option<Timestamp>,
    /// When the last one failed.
    pub last_failure_at: Option<Timestamp>,
    /// Seconds that all attempts took together.
    pub seconds: f64,
    /// Attempts by duration, each in the first bucket of [`BOUNDS`] that holds it.
    pub buckets: [u64; BOUNDS.len() + 1],
    /// The median and the 99th percentile of the last attempts, in milliseconds.
    pub percentiles: Option<[f32; 2]>,
    /// What they are taken of.
    pub recent: Recent,
}

/// The durations of the last attempts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Recent {
    milliseconds: Vec<f32>,
    next: usize,
    /// Attempts until the percentiles are taken again.
    stale_in: usize,
}

impl Figures {
    /// Counts an attempt that ended with this state of its delivery.
    pub fn count(&mut self, attempt: &Attempt, state: State, now: Timestamp) {
        match state {
            State::Delivered => {
                self.delivered += 1;
                self.last_success_at = Some(now);
            }
            State::Pending { .. } | State::Dead => {
                self.failed_attempts += 1;
                self.last_failure_at = Some(now);
            }
        }
        self.died += u64::from(state == State::Dead);
        self.took(attempt.duration);
    }

    fn took(&mut self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        self.seconds += seconds;
        let bucket = BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len());
        if let Some(count) = self.buckets.get_mut(bucket) {
            *count += 1;
        }
        if let Some(percentiles) = self.recent.add(duration.as_secs_f32() * 1000.0) {
            self.percentiles = Some(percentiles);
        }
    }

    /// Takes over what somebody else knows better: totals never go back.
    pub fn raise(&mut self, other: &Self) {
        self.delivered = self.delivered.max(other.delivered);
        self.failed_attempts = self.failed_attempts.max(other.failed_attempts);
        self.died = self.died.max(other.died);
        self.last_success_at = self.last_success_at.max(other.last_success_at);
        self.last_failure_at = self.last_failure_at.max(other.last_failure_at);
        self.percentiles = self.percentiles.or(other.percentiles);
    }
}

impl Recent {
    /// Adds a duration. Answers the percentiles when it is time to take them anew: for each of the first attempts, then when a
    /// quarter is new.
    fn add(&mut self, milliseconds: f32) -> Option<[f32; 2]> {
        match self.milliseconds.get_mut(self.next) {
            Some(oldest) => *oldest = milliseconds,
            None => self.milliseconds.push(milliseconds),
        }
        self.next = (self.next + 1) % RECENT;
        if self.stale_in > 1 {
            self.stale_in -= 1;
            return None;
        }
        self.stale_in = self.milliseconds.len() / 4;
        Some(percentiles(&self.milliseconds))
    }
}

/// The nearest-rank median and 99th percentile.
fn percentiles(values: &[f32]) -> [f32; 2] {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f32::total_cmp);
    [50, 99].map(|percent| {
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        sorted.get(rank - 1).copied().unwrap_or(0.0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Answer;

    fn attempt(milliseconds: u64) -> Attempt {
        let answer = Answer::Status { status: 200, body: String::new(), retry_after: None };
        Attempt { started_at: 0, duration: Duration::from_millis(milliseconds), answer }
    }

    #[test]
    fn an_attempt_is_a_success_or_a_failure_and_the_last_failure_is_a_death_too() {
        let mut figures = Figures::default();
        figures.count(&attempt(1), State::Pending { next_attempt_at: 9 }, 1);
        figures.count(&attempt(1), State::Dead, 2);
        figures.count(&attempt(1), State::Delivered, 3);
        assert_eq!((figures.delivered, figures.failed_attempts, figures.died), (1, 2, 1));
        assert_eq!((figures.last_success_at, figures.last_failure_at), (Some(3), Some(2)));
    }

    #[test]
    fn every_attempt_stands_in_one_bucket_the_bound_included() {
        let mut figures = Figures::default();
        for ms in [0, 10, 11, 60_000, 60_001] {
            figures.count(&attempt(ms), State::Delivered, 0);
        }
        assert_eq!(
            (figures.buckets[0], figures.buckets[1], figures.buckets[11], figures.buckets[12]),
            (2, 1, 1, 1)
        );
        assert_eq!(figures.buckets.iter().sum::<u64>(), 5);
        assert!((figures.seconds - 120.022).abs() < 1e-6);
    }

    #[test]
    fn percentiles_are_those_of_the_last_attempts() {
        let mut figures = Figures::default();
        (1..=100).for_each(|ms| figures.count(&attempt(ms), State::Delivered, 0));
        figures.recent.stale_in = 0;
        figures.count(&attempt(50), State::Delivered, 0);
        assert_eq!(figures.percentiles, Some([50.0, 99.0]));
        (0..600).for_each(|_| figures.count(&attempt(7), State::Delivered, 0));
        assert_eq!(figures.percentiles, Some([7.0, 7.0]));
    }

    #[test]
    fn the_first_attempt_has_percentiles_already() {
        let mut figures = Figures::default();
        figures.count(&attempt(5), State::Dead, 0);
        assert_eq!(figures.percentiles, Some([5.0, 5.0]));
    }

    #[test]
    fn totals_never_go_back() {
        let mut figures = Figures { delivered: 5, died: 1, ..Figures::default() };
        figures.raise(&Figures { delivered: 3, died: 2, last_success_at: Some(4), ..Figures::default() });
        assert_eq!((figures.delivered, figures.died, figures.last_success_at), (5, 2, Some(4)));
    }
}
