//! How long a connection to one origin may rest and still be used again.
//!
//! A receiver closes idle connections when it likes and does not say when. A request sent at that very moment is lost
//! and its outcome unknown, so it must not be repeated silently. Sending is rather kept away from that moment: once a
//! connection was found closed after a rest, connections of that origin are used again only after clearly shorter ones.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Shorter than the keep-alive of common servers (5 s in Node.js, Apache, uvicorn).
pub(super) const LONGEST: Duration = Duration::from_secs(4);
/// A receiver that restarts closes connections that have hardly rested. What is in steady use stays open all the same.
const SHORTEST: Duration = Duration::from_millis(250);

/// What one origin has taught.
#[derive(Debug)]
pub(super) struct Rest {
    micros: AtomicU64,
}

impl Rest {
    pub(super) fn new() -> Self {
        Self { micros: AtomicU64::new(micros(LONGEST)) }
    }

    /// A connection that has rested for so long is not used again.
    pub(super) fn limit(&self) -> Duration {
        Duration::from_micros(self.micros.load(Ordering::Relaxed))
    }

    /// A connection was closed by the receiver during, or just after, a rest of this length.
    pub(super) fn closed_after(&self, rest: Duration) {
        let limit = (rest * 3 / 4).clamp(SHORTEST, LONGEST);
        self.micros.fetch_min(micros(limit), Ordering::Relaxed);
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rest_that_was_too_long_shortens_the_next_by_a_quarter() {
        let rest = Rest::new();
        rest.closed_after(Duration::from_secs(1));
        assert_eq!(rest.limit(), Duration::from_millis(750));
        rest.closed_after(Duration::from_secs(2));
        assert_eq!(rest.limit(), Duration::from_millis(750));
    }

    #[test]
    fn a_restart_of_the_receiver_does_not_end_the_reuse_of_connections() {
        let rest = Rest::new();
        rest.closed_after(Duration::ZERO);
        assert_eq!(rest.limit(), SHORTEST);
    }
}
