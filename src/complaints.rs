//! Complaints: what a background process says in the log of a trouble that lasts. The same once a minute, and not more than a few
//! different things.

use std::time::{Duration, Instant};

/// How often the same trouble is told at most.
const INTERVAL: Duration = Duration::from_secs(60);
/// Different troubles a minute.
const MAX_LINES: usize = 10;
/// For so long nothing is said of what may end by itself.
const PATIENCE: Duration = Duration::from_secs(5);

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

/// What is no trouble if it ends soon: how long it has been met.
#[derive(Debug, Default)]
pub struct Patience {
    /// For the first and for the last time.
    met: Option<(Instant, Instant)>,
}

impl Patience {
    /// It is met. Whether it has been for so long that it is to be told of.
    pub fn is_over(&mut self, now: Instant) -> bool {
        let lasts = |last: Instant| now.saturating_duration_since(last) < 2 * PATIENCE;
        let first = self.met.filter(|(_, last)| lasts(*last)).map_or(now, |(first, _)| first);
        self.met = Some((first, now));
        now.saturating_duration_since(first) > PATIENCE
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

    #[test]
    fn what_may_end_by_itself_is_told_when_it_lasts_for_more_than_five_seconds() {
        let (start, mut patience) = (Instant::now(), Patience::default());
        let told: Vec<u32> = (0..8).filter(|second| patience.is_over(start + *second * SECOND)).collect();
        assert_eq!(told, [6, 7]);
        assert!(!patience.is_over(start + 60 * SECOND), "it is another one");
    }
}
