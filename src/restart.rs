//! Restarts: how long to wait before a process that failed is started again. 1, 2, 4 … 32 seconds; after a good run it begins anew.

use std::time::Duration;

/// Wait after the first failure in a row; it doubles with each, five times.
pub const FIRST_WAIT: Duration = Duration::from_secs(1);
/// After a run of more than this, failures are counted anew.
const GOOD_RUN: Duration = Duration::from_secs(10);
const DOUBLINGS: u32 = 5;

/// Failures in a row.
#[derive(Debug, Default)]
pub struct Restarts {
    failures: u32,
}

impl Restarts {
    /// It ended after it ran for so long, for whatever reason.
    pub fn ran_for(&mut self, run: Duration) {
        if run > GOOD_RUN {
            self.failures = 0;
        }
    }

    /// It failed. Answers how long to wait.
    pub fn failed(&mut self) -> Duration {
        let wait = FIRST_WAIT * (1 << self.failures.min(DOUBLINGS));
        self.failures = self.failures.saturating_add(1);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fail(restarts: &mut Restarts, run: u64) -> u64 {
        restarts.ran_for(Duration::from_secs(run));
        restarts.failed().as_secs()
    }

    #[test]
    fn the_wait_doubles_with_each_failure_up_to_32_seconds() {
        let mut restarts = Restarts::default();
        let waits: Vec<u64> = (0..100).map(|_| fail(&mut restarts, 0)).collect();
        assert_eq!(waits[..7], [1, 2, 4, 8, 16, 32, 32]);
        assert!(waits[6..].iter().all(|wait| *wait == 32));
    }

    #[test]
    fn after_a_good_run_the_wait_begins_anew() {
        let mut restarts = Restarts::default();
        (0..5).for_each(|_| _ = fail(&mut restarts, 10));
        assert_eq!(fail(&mut restarts, 10), 32);
        assert_eq!(fail(&mut restarts, 11), 1);
        assert_eq!(fail(&mut restarts, 1), 2);
    }
}
