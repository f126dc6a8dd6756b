//! Requests per second: a token bucket, kept as the time at which it will be full (GCRA, ITU-T I.371).

use crate::event::Timestamp;

const SECOND: Timestamp = 1_000_000;
/// How much of a second's requests may go at once. Small, so that no second sees much more than its rate; not one request,
/// or every late turn would be lost.
const BURST: Timestamp = SECOND / 10;

/// The bucket of one endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Microseconds for a request.
    interval: Timestamp,
    full_at: Timestamp,
}

impl Rate {
    /// A full bucket for so many requests per second, at least one.
    pub fn new(per_second: u32) -> Self {
        Self { interval: SECOND / Timestamp::from(per_second.max(1)), full_at: Timestamp::MIN }
    }

    /// When the next request may leave.
    pub fn next_at(&self) -> Timestamp {
        // A bucket of less than one request would never give one.
        self.full_at.saturating_sub((BURST - self.interval).max(0))
    }

    /// The clock was put back so far.
    pub fn put_back(&mut self, by: Timestamp) {
        self.full_at = self.full_at.saturating_sub(by);
    }

    /// A request leaves.
    pub fn spend(&mut self, now: Timestamp) {
        self.full_at = self.full_at.max(now).saturating_add(self.interval);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Each turn comes as late as it does, and sends what may be sent then. Answers when.
    fn times(per_second: u32, lateness: &[Timestamp]) -> Vec<Timestamp> {
        let mut rate = Rate::new(per_second);
        let (mut now, mut times) = (1_000_000 * SECOND, Vec::new());
        for late in lateness {
            now = now.max(rate.next_at()) + late;
            while rate.next_at() <= now && times.len() < 2000 {
                rate.spend(now);
                times.push(now);
            }
        }
        times
    }

    proptest! {
        #[test]
        fn no_second_sees_more_than_its_rate_and_a_tenth(
            per_second in 1_u32..2000, late in prop::collection::vec(0..200_000_i64, 1..500),
        ) {
            let times = times(per_second, &late);
            let most = (per_second + per_second / 10 + 1) as usize;
            for (n, start) in times.iter().enumerate() {
                let in_second = times[n..].iter().take_while(|at| **at < start + SECOND).count();
                prop_assert!(in_second <= most, "{in_second} in a second");
            }
        }

        #[test]
        fn turns_that_are_a_little_late_lose_nothing(
            per_second in 20_u32..1000, late in prop::collection::vec(0..40_000_i64, 100),
        ) {
            let times = times(per_second, &late);
            let took = times.last().unwrap() - times[0];
            let wanted = times.len() as Timestamp * SECOND / Timestamp::from(per_second);
            prop_assert!(took <= wanted, "{took} instead of {wanted}");
        }
    }

    #[test]
    fn a_rate_below_ten_never_lets_two_go_together() {
        let times = times(5, &[0; 20]);
        assert!(times.windows(2).all(|pair| pair[1] - pair[0] == SECOND / 5));
    }
}
