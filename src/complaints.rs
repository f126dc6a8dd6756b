//! Complaints: what a background process says in the log of a trouble that lasts. The same once a minute, and not more than a few
//! different things.

use std::time::{Duration, Instant};

/// How often the same trouble is told at most.
const INTERVAL: Duration = Duration::from_secs(60);
/// Different troubles a minute.
const MAX_LINES: usize = 10;

/// What was told of late.
#[derive(Debug, Default)]
pub struct Complaints {
    told: Vec<(String, Instant)>,
}

impl Complaints {
    /// Whether to tell of this now. True counts as told.
    pub fn admits(&mut self, subject: &str, now: Instant) -> bool {
        self.told.retain(|(_, at)| now.saturating_duration_since(*at) < INTERVAL);
        let is_new = self.told.len() < MAX_LINES && !self.told.iter().any(|(told, _)| told == subject);
        if is_new {
            self.told.push((subject.to_owned(), now));
        }
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_trouble_that_lasts_is_told_once_a_minute() {
        let (start, mut complaints) = (Instant::now(), Complaints::default());
        let told: Vec<u32> =
            (0..180).filter(|second| complaints.admits("no room", start + *second * SECOND)).collect();
        assert_eq!(told, [0, 60, 120]);
    }

    #[test]
    fn another_trouble_is_told_at_once() {
        let (now, mut complaints) = (Instant::now(), Complaints::default());
        assert!(complaints.admits("no room", now));
        assert!(complaints.admits("a copy", now));
    }

    #[test]
    fn of_a_thousand_different_troubles_ten_are_told_in_a_minute() {
        let (start, mut complaints) = (Instant::now(), Complaints::default());
        let count = |complaints: &mut Complaints, at: Instant| {
            (0..1000).filter(|nth| complaints.admits(&format!("database {nth}"), at)).count()
        };
        assert_eq!(count(&mut complaints, start), 10);
        assert_eq!(count(&mut complaints, start + 59 * SECOND), 0);
        assert_eq!(count(&mut complaints, start + 60 * SECOND), 10);
    }
}
