//! Who may take a slot. The slots of all endpoints are few (`max_in_flight`), and an endpoint that hangs holds one for its
//! whole timeout. So that the others find one:
//!
//! - endpoints that do not answer promptly hold three quarters of the slots at most, all together, and those of them that do
//!   not answer at all one half: the rest is for those that answer promptly, which hold it for moments;
//! - nobody takes more slots than are left free: one share is always there for a newcomer (the rule by which switches share
//!   their buffers: Choudhury and Hahne, Dynamic Queue Length Thresholds, 1998).
//!
//! An endpoint that is alone may take everything.

use std::time::Duration;

use crate::event::Timestamp;

/// An endpoint answers promptly if it takes no longer than this.
const PROMPT: Timestamp = 1_000_000;

/// How promptly an endpoint answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Within a second.
    Prompt,
    /// It answers.
    Slow,
    /// It has not answered yet, or its last attempt was not answered, or it has been silent for a second.
    Silent,
}

/// What is remembered of an endpoint's answers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pace {
    /// A mean of the times that attempts took, in microseconds: the good count more, so that it recovers soon.
    mean: Option<Timestamp>,
    /// The last attempt was answered.
    answers: bool,
    /// The last answer, or the first request since then.
    heard_at: Timestamp,
}

impl Pace {
    /// A request leaves; `others` are in flight.
    pub fn started(&mut self, others: usize, now: Timestamp) {
        if others == 0 {
            self.heard_at = now;
        }
    }

    /// The clock was put back so far.
    pub fn put_back(&mut self, by: Timestamp) {
        self.heard_at = self.heard_at.saturating_sub(by);
    }

    /// An attempt ended.
    pub fn ended(&mut self, took: Duration, is_answered: bool, now: Timestamp) {
        let took = Timestamp::try_from(took.as_micros()).unwrap_or(Timestamp::MAX / 4);
        self.mean = Some(match self.mean {
            None => took,
            Some(mean) if took < mean => (mean + took) / 2,
            Some(mean) => mean + (took - mean) / 4,
        });
        self.answers = is_answered;
        self.heard_at = now;
    }

    /// How long it has been silent with something in flight.
    pub fn silence(&self, in_flight: usize, now: Timestamp) -> Timestamp {
        if in_flight == 0 { 0 } else { now.saturating_sub(self.heard_at) }
    }

    /// When it will have been silent for so long.
    pub fn silent_at(&self, silence: Timestamp) -> Timestamp {
        self.heard_at.saturating_add(silence)
    }

    /// Its class.
    pub fn class(&self, in_flight: usize, now: Timestamp) -> Class {
        let is_silent = self.silence(in_flight, now) > PROMPT;
        match self.mean {
            Some(mean) if mean <= PROMPT && !is_silent => Class::Prompt,
            Some(mean) if self.answers && self.silence(in_flight, now) <= mean.saturating_mul(2) => {
                Class::Slow
            }
            _ => Class::Silent,
        }
    }
}

/// The slots of all endpoints, and who holds them.
#[derive(Debug, Clone, Copy)]
pub struct Slots {
    max: usize,
    /// Only one endpoint is served.
    alone: bool,
    prompt: usize,
    slow: usize,
    silent: usize,
}

impl Slots {
    /// All slots, free. `alone`: only one endpoint is served.
    pub fn new(max: usize, alone: bool) -> Self {
        Self { max, alone, prompt: 0, slow: 0, silent: 0 }
    }

    /// An endpoint of this class holds one more.
    pub fn take(&mut self, class: Class) {
        match class {
            Class::Prompt => self.prompt += 1,
            Class::Slow => self.slow += 1,
            Class::Silent => self.silent += 1,
        }
    }

    /// Whether an endpoint of this class that holds so many may take another.
    pub fn admits(&self, class: Class, held: usize) -> bool {
        let free = self.max.saturating_sub(self.prompt + self.slow + self.silent);
        if self.alone {
            return free > 0;
        }
        let of_slow = (self.max - self.max / 4).saturating_sub(self.slow + self.silent);
        let room = match class {
            Class::Prompt => free,
            Class::Slow => free.min(of_slow),
            Class::Silent => free.min(of_slow).min((self.max - self.max / 2).saturating_sub(self.silent)),
        };
        held < room
    }

    /// Whether less than half of what silent endpoints leave is taken.
    pub fn is_roomy(&self) -> bool {
        2 * (self.prompt + self.slow) + self.silent < self.max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Timestamp = 1000;

    fn pace(answers: &[u64]) -> Pace {
        let mut pace = Pace::default();
        answers.iter().for_each(|&ms| pace.ended(Duration::from_millis(ms), true, 0));
        pace
    }

    #[test]
    fn whoever_has_not_answered_yet_is_silent() {
        assert_eq!(Pace::default().class(0, 0), Class::Silent);
    }

    #[test]
    fn one_slow_answer_among_prompt_ones_is_forgiven() {
        assert_eq!(pace(&[10, 10, 3000]).class(0, 0), Class::Prompt);
        assert_eq!(pace(&[3000, 3000]).class(0, 0), Class::Slow);
    }

    #[test]
    fn two_prompt_answers_make_up_for_a_timeout() {
        let mut pace = pace(&[10, 10]);
        pace.ended(Duration::from_secs(15), false, 0);
        assert_eq!(pace.class(0, 0), Class::Silent);
        (0..2).for_each(|_| pace.ended(Duration::from_millis(10), true, 0));
        assert_eq!(pace.class(0, 0), Class::Prompt);
    }

    #[test]
    fn a_prompt_endpoint_that_falls_silent_is_silent_after_a_second() {
        let mut pace = pace(&[10]);
        pace.started(0, 0);
        pace.started(1, 500 * MILLISECOND);
        assert_eq!(pace.class(2, 900 * MILLISECOND), Class::Prompt);
        assert_eq!(pace.class(2, 1100 * MILLISECOND), Class::Silent);
    }

    #[test]
    fn silent_endpoints_hold_half_of_the_slots_slow_ones_three_quarters_and_prompt_ones_all_but_a_share() {
        let mut slots = Slots::new(64, false);
        let mut fill = |class| {
            let mut taken = 0;
            while slots.admits(class, 0) {
                slots.take(class);
                taken += 1;
            }
            taken
        };
        assert_eq!([fill(Class::Silent), fill(Class::Slow), fill(Class::Prompt)], [32, 16, 16]);
    }

    #[test]
    fn eight_endpoints_with_a_limit_of_eight_leave_slots_free() {
        let (mut slots, mut held) = (Slots::new(64, false), [0_usize; 8]);
        for _ in 0..8 {
            for lane in &mut held {
                if slots.admits(Class::Prompt, *lane) {
                    slots.take(Class::Prompt);
                    *lane += 1;
                }
            }
        }
        assert_eq!(held.iter().sum::<usize>(), 57);
    }

    #[test]
    fn whoever_is_alone_may_take_everything() {
        let mut slots = Slots::new(64, true);
        (0..64).for_each(|held| {
            assert!(slots.admits(Class::Silent, held));
            slots.take(Class::Silent);
        });
        assert!(!slots.admits(Class::Silent, 64));
    }

    #[test]
    fn a_single_slot_is_for_everybody() {
        for class in [Class::Prompt, Class::Slow, Class::Silent] {
            assert!(Slots::new(1, false).admits(class, 0));
        }
    }
}
