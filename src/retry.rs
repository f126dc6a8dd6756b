//! When to try again. No clock and no randomness here: both are arguments.

use std::time::{Duration, UNIX_EPOCH};

use crate::error::{Error, Result};
use crate::event::Timestamp;

/// The shortest wait that a schedule may have.
pub const MIN_WAIT: Duration = Duration::from_millis(1);
/// The longest wait that a schedule may have.
pub const MAX_WAIT: Duration = Duration::from_secs(366 * 24 * 60 * 60);
/// The most waits that a schedule may list.
pub const MAX_WAITS: usize = 100;
/// The longest Retry-After that is honoured: a receiver must not be able to park its events for years.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// The waits between the attempts of one delivery: n waits mean n + 1 attempts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// The last one repeats when `attempts` asks for more. Not one entry per attempt: `max_attempts` may be two billion.
    waits: Vec<Duration>,
    attempts: u32,
}

impl Schedule {
    /// A schedule of these waits, as they are. For input from people see [`Schedule::checked`].
    pub fn new(waits: Vec<Duration>) -> Self {
        let attempts = u32::try_from(waits.len()).unwrap_or(u32::MAX).saturating_add(1);
        Self { waits, attempts }
    }

    /// A schedule of these waits.
    ///
    /// # Errors
    /// There are none or over [`MAX_WAITS`], or one is not between [`MIN_WAIT`] and [`MAX_WAIT`].
    pub fn checked(waits: Vec<Duration>) -> Result<Self> {
        if waits.is_empty() || waits.len() > MAX_WAITS {
            return Err(Error::invalid("retry schedule must have 1 to 100 waits")
                .detail(format!("It has {}.", waits.len()))
                .hint("To try only once, use max_attempts."));
        }
        if let Some(wait) = waits.iter().find(|wait| !(MIN_WAIT..=MAX_WAIT).contains(*wait)) {
            return Err(out_of_range(&format!("{wait:?}")));
        }
        Ok(Self::new(waits))
    }

    /// Reads the text of the setting `retry_schedule`: waits separated by white space, each a whole number with a unit,
    /// one of `ms`, `s`, `m` or `min`, `h`, `d`.
    ///
    /// # Errors
    /// A word is not of that form, or [`Schedule::checked`] refuses the waits.
    pub fn parse(text: &str) -> Result<Self> {
        Self::checked(text.split_whitespace().map(wait).collect::<Result<_>>()?)
    }

    /// The same wait before every further attempt; at least one attempt.
    pub fn fixed(interval: Duration, attempts: u32) -> Self {
        Self { waits: vec![interval], attempts: attempts.max(1) }
    }

    /// This many attempts in all, at least one: the list is cut, or its last wait repeats. Without any wait it stays one.
    #[must_use]
    pub fn with_max_attempts(mut self, max_attempts: u32) -> Self {
        self.attempts = if self.waits.is_empty() { 1 } else { max_attempts.max(1) };
        self
    }

    /// Attempts in all.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The wait after the failure of this attempt, counted from 1 (anew after `webhook_retry`). `None`: it was the last,
    /// the delivery is dead.
    pub fn wait_after(&self, attempt: u32) -> Option<Duration> {
        if attempt >= self.attempts {
            return None;
        }
        let step = usize::try_from(attempt.saturating_sub(1)).unwrap_or(usize::MAX);
        self.waits.get(step).or(self.waits.last()).copied()
    }
}

/// One word of a schedule.
fn wait(word: &str) -> Result<Duration> {
    let malformed = || {
        Error::invalid("wait is not a number with a unit")
            .detail(format!("The wait is {word:?}."))
            .hint("Write for example 500ms, 5s, 30m, 2h or 1d.")
    };
    let (digits, unit) = word.split_at(word.find(|c: char| !c.is_ascii_digit()).unwrap_or(word.len()));
    let unit_ms: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(malformed()),
    };
    if digits.is_empty() {
        return Err(malformed());
    }
    // Only digits stand there, so what fails is too large.
    let ms =
        digits.parse::<u64>().ok().and_then(|n| n.checked_mul(unit_ms)).ok_or_else(|| out_of_range(word))?;
    Ok(Duration::from_millis(ms))
}

fn out_of_range(wait: &str) -> Error {
    Error::invalid("wait of a retry schedule must be between 1 ms and 366 days")
        .detail(format!("The wait is {wait}."))
}

/// The wait, 20 % shorter to 20 % longer as `chance` goes from 0 to 1 (beyond is cut, not a number counts as the middle). So
/// deliveries that failed together do not come back together.
pub fn jittered(wait: Duration, chance: f64) -> Duration {
    const MILLIONTHS: u32 = 1_000_000;
    let chance = if chance.is_nan() { 0.5 } else { chance.clamp(0.0, 1.0) };
    // 0.8 to 1.2 in millionths; integers, because Duration::mul_f64 panics when it overflows.
    let factor = MILLIONTHS / 5 * 4 + (chance * f64::from(MILLIONTHS / 5 * 2)) as u32;
    wait.saturating_mul(factor) / MILLIONTHS
}

/// How long a Retry-After header asks to wait: whole seconds or an HTTP date in any of its three forms (RFC 9110, 10.2.3
/// and 5.6.7). At most [`MAX_RETRY_AFTER`]; zero for a date that has passed. `None` for anything else: a sign, a
/// fraction, an exponent, words.
pub fn retry_after(header: &str, now: Timestamp) -> Option<Duration> {
    let header = header.trim_matches([' ', '\t']);
    if !header.is_empty() && header.bytes().all(|b| b.is_ascii_digit()) {
        // Only digits stand there, so what fails is too large.
        let seconds = header.parse().unwrap_or(u64::MAX);
        return Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER));
    }
    let date = httpdate::parse_http_date(header).ok()?.duration_since(UNIX_EPOCH).ok()?;
    let now = Duration::from_micros(u64::try_from(now).unwrap_or(0));
    Some(date.saturating_sub(now).min(MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::settings::{DEFAULT_RETRY_SCHEDULE, Settings};

    const SECOND: Duration = Duration::from_secs(1);
    /// Sun, 06 Nov 1994 08:49:37 GMT.
    const NOW: Timestamp = 784_111_777_000_000;

    fn waits(schedule: &Schedule) -> Vec<u64> {
        (1..).map_while(|attempt| schedule.wait_after(attempt)).map(|w| w.as_secs()).collect()
    }

    #[test]
    fn n_waits_mean_n_plus_one_attempts() {
        let schedule = Schedule::parse("5s 5m 2h").unwrap();
        assert_eq!(schedule.attempts(), 4);
        assert_eq!(waits(&schedule), [5, 300, 7200]);
    }

    #[test]
    fn the_text_of_the_default_is_the_default() {
        assert_eq!(Schedule::parse(DEFAULT_RETRY_SCHEDULE), Ok(Settings::default().retry_schedule));
        assert_eq!(Schedule::parse(DEFAULT_RETRY_SCHEDULE).unwrap().attempts(), 10);
    }

    #[test]
    fn every_unit_is_read() {
        let schedule = Schedule::parse(" 1ms\t2s  3m 4min\n5h 6d ").unwrap();
        let ms = [1, 2_000, 180_000, 240_000, 18_000_000, 518_400_000].map(Duration::from_millis);
        assert_eq!(schedule, Schedule::new(ms.to_vec()));
    }

    #[test]
    fn max_attempts_cuts_the_list_or_repeats_its_last_wait() {
        let schedule = Schedule::parse("5s 10s 20s").unwrap();
        assert_eq!(waits(&schedule.clone().with_max_attempts(2)), [5]);
        assert_eq!(waits(&schedule.clone().with_max_attempts(6)), [5, 10, 20, 20, 20]);
        assert_eq!(waits(&schedule.clone().with_max_attempts(1)), [0; 0]);
        assert_eq!(schedule.with_max_attempts(u32::MAX).wait_after(u32::MAX - 1), Some(20 * SECOND));
    }

    #[test]
    fn a_fixed_interval_repeats() {
        let schedule = Schedule::fixed(300 * SECOND, 4);
        assert_eq!((schedule.attempts(), waits(&schedule)), (4, vec![300; 3]));
        assert_eq!(Schedule::fixed(300 * SECOND, 1).wait_after(1), None);
    }

    #[test]
    fn a_malformed_schedule_is_refused_with_the_offending_word() {
        for bad in ["5", "s", "5 s", "-5s", "+5s", "5S", "1.5s", "5s,5m", "5y", "٥s", "5s 5x", "5sms", "1e3s"]
        {
            let error = Schedule::parse(bad).unwrap_err();
            assert!(error.detail.is_some() && error.hint.is_some(), "{bad:?}: {error:?}");
        }
    }

    #[test]
    fn a_wait_outside_1_ms_to_366_days_is_refused() {
        assert!(Schedule::parse("1ms 366d").is_ok());
        for bad in ["0ms", "0s", "367d", "31622401s", "18446744073709551616s", "18446744073709551615d"] {
            assert!(Schedule::parse(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn a_schedule_has_1_to_100_waits() {
        assert!(Schedule::parse("").is_err());
        assert!(Schedule::parse(&"1s ".repeat(100)).is_ok());
        assert!(Schedule::parse(&"1s ".repeat(101)).is_err());
    }

    #[test]
    fn jitter_spans_20_percent_to_both_sides() {
        assert_eq!(jittered(10 * SECOND, 0.0), 8 * SECOND);
        assert_eq!(jittered(10 * SECOND, 0.5), 10 * SECOND);
        assert_eq!(jittered(10 * SECOND, 1.0), 12 * SECOND);
        assert_eq!(jittered(10 * SECOND, f64::NAN), 10 * SECOND);
        assert_eq!(jittered(10 * SECOND, f64::INFINITY), 12 * SECOND);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(retry_after("120", NOW), Some(120 * SECOND));
        assert_eq!(retry_after(" 0 ", NOW), Some(Duration::ZERO));
        for date in
            ["Sun, 06 Nov 1994 08:50:37 GMT", "Sunday, 06-Nov-94 08:50:37 GMT", "Sun Nov  6 08:50:37 1994"]
        {
            assert_eq!(retry_after(date, NOW), Some(60 * SECOND), "{date}");
        }
    }

    #[test]
    fn retry_after_is_cut_to_a_day_and_never_negative() {
        let far = ["1000000000000", "99999999999999999999999999", "Fri, 31 Dec 9999 23:59:59 GMT"];
        for header in far {
            assert_eq!(retry_after(header, NOW), Some(MAX_RETRY_AFTER), "{header}");
        }
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:36 GMT", NOW), Some(Duration::ZERO));
        assert_eq!(retry_after("Thu, 01 Jan 1970 00:00:00 GMT", Timestamp::MAX), Some(Duration::ZERO));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:36 GMT", Timestamp::MIN), Some(MAX_RETRY_AFTER));
    }

    #[test]
    fn a_garbled_retry_after_is_ignored() {
        for header in
            ["", " ", "-1", "+1", "1.5", "1e12", "soon", "1 2", "1, 2", "٣", "Sun, 06 Nov 1994", "\u{0}"]
        {
            assert_eq!(retry_after(header, NOW), None, "{header:?}");
        }
    }

    proptest! {
        #[test]
        fn jitter_never_leaves_its_20_percent(ms in 1_u64..=MAX_WAIT.as_millis() as u64, chance in 0.0..1.0) {
            let wait = Duration::from_millis(ms);
            let got = jittered(wait, chance);
            prop_assert!(got >= wait * 4 / 5 && got <= wait * 6 / 5, "{wait:?} became {got:?}");
        }

        #[test]
        fn jitter_takes_any_input(secs: u64, chance: f64) {
            jittered(Duration::from_secs(secs), chance);
        }

        #[test]
        fn any_retry_after_is_none_or_at_most_a_day(header in "(\\PC{0,40}|[0-9]{1,30}|[-+.eE0-9]{1,8})", now: i64) {
            prop_assert!(retry_after(&header, now).is_none_or(|wait| wait <= MAX_RETRY_AFTER));
        }

        #[test]
        fn a_schedule_waits_exactly_before_every_attempt_but_the_first(
            list in prop::collection::vec(1_u64..1000, 1..20), max in 1_u32..60,
        ) {
            let schedule = Schedule::new(list.iter().copied().map(Duration::from_secs).collect());
            prop_assert_eq!(waits(&schedule), list.clone());
            let schedule = schedule.with_max_attempts(max);
            let expected: Vec<_> = (1..max).map(|n| list[(n as usize - 1).min(list.len() - 1)]).collect();
            prop_assert_eq!(waits(&schedule), expected);
        }

        #[test]
        fn any_text_is_a_schedule_within_the_limits_or_an_error(text in "([0-9]{1,21}(ms|s|m|min|h|d|x)? ?){0,5}|\\PC{0,20}") {
            if let Ok(schedule) = Schedule::parse(&text) {
                for attempt in 1..schedule.attempts() {
                    prop_assert!((MIN_WAIT..=MAX_WAIT).contains(&schedule.wait_after(attempt).unwrap()));
                }
            }
        }
    }
}
