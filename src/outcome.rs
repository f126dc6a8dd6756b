//! What an attempt meant: from the answer of the receiver to the new state of the delivery.
//!
//! ```text
//! answer                                  verdict      the delivery becomes
//! 2xx                                     Delivered    delivered
//! 410                                     Gone         pending, due at once; the endpoint becomes disabled
//! 429, 503                                RetryLater   pending or dead by schedule; the endpoint rests for Retry-After
//! any other status, any fault but our own Retry        pending or dead by schedule
//! a fault of our own                      OwnFault     pending, due soon; the attempt does not count
//! ```

use std::time::Duration;

use crate::event::Timestamp;
use crate::retry::{Schedule, jittered, retry_after};

/// Why an attempt got no HTTP status, or none that can be trusted. The words are stored in `webhook.attempts.error`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The name does not resolve.
    Dns,
    /// The egress policy refuses the address or the scheme.
    Egress,
    /// No TCP connection: refused, unreachable or timed out.
    Connect,
    /// TLS could not be agreed on or the certificate is not trusted.
    Tls,
    /// The time for the whole attempt ran out.
    Timeout,
    /// The connection broke; whether the receiver got the event is unknown.
    Reset,
    /// The answer is not HTTP, or over a limit.
    Protocol,
    /// The endpoint cannot be used as it is configured (no secret, unreadable header).
    Config,
    /// Our own fault: no file descriptors, no thread, our resolver is down. Never consumes an attempt.
    Internal,
    /// The event itself breaks us: it cannot be read or made into a request. It must not stop the others.
    Poison,
}

impl Fault {
    /// The stored word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Egress => "egress",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Reset => "reset",
            Self::Protocol => "protocol",
            Self::Config => "config",
            Self::Internal => "internal",
            Self::Poison => "poison",
        }
    }
}

/// How one HTTP try ended, as the transport saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// A complete response head was read.
    Status {
        /// 100 to 999.
        status: u16,
        /// The first bytes of the body, lossily decoded, at most `store_response_bytes`.
        body: String,
        /// The Retry-After header as received.
        retry_after: Option<String>,
    },
    /// No usable response.
    Failed {
        /// The class.
        fault: Fault,
        /// One line for people; never a secret.
        message: String,
    },
}

/// One HTTP try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Wall clock at the start.
    pub started_at: Timestamp,
    /// How long it took.
    pub duration: Duration,
    /// How it ended.
    pub answer: Answer,
}

/// What an answer means, whatever has gone before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// 2xx and nothing else: the receiver has the event.
    Delivered,
    /// 410: the receiver wants no more events.
    Gone,
    /// 429 or 503: the receiver asks the whole endpoint to wait.
    RetryLater {
        /// The Retry-After header as received.
        after: Option<&'a str>,
    },
    /// Try again by the schedule.
    Retry,
    /// The receiver had no part in it.
    OwnFault,
    /// The receiver had no part in it, and the event is the reason.
    Poison,
}

/// What an answer means. Redirects are not followed, so 3xx is a failure like any other.
pub fn judge(answer: &Answer) -> Verdict<'_> {
    match answer {
        Answer::Status { status: 200..=299, .. } => Verdict::Delivered,
        Answer::Status { status: 410, .. } => Verdict::Gone,
        Answer::Status { status: 429 | 503, retry_after, .. } => {
            Verdict::RetryLater { after: retry_after.as_deref() }
        }
        Answer::Failed { fault: Fault::Internal, .. } => Verdict::OwnFault,
        Answer::Failed { fault: Fault::Poison, .. } => Verdict::Poison,
        Answer::Status { .. } | Answer::Failed { .. } => Verdict::Retry,
    }
}

/// The state of a delivery after an attempt. `cancelled` is never the result of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The receiver has the event.
    Delivered,
    /// To be tried again.
    Pending {
        /// Not before this time.
        next_attempt_at: Timestamp,
    },
    /// Out of attempts: kept and replayable.
    Dead,
}

/// All that follows from one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// The new state of the delivery.
    pub state: State,
    /// Whether the attempt counts in `attempts`.
    pub counted: bool,
    /// The endpoint becomes disabled.
    pub disable: bool,
    /// Nothing at all is sent to the endpoint before this time.
    pub hold_until: Option<Timestamp>,
}

/// A poison event is dead after this many attempts.
pub const POISON_ATTEMPTS: u32 = 3;

/// The wait after a fault of our own: long enough not to spin, short enough not to be noticed.
pub const OWN_FAULT_WAIT: Duration = Duration::from_secs(1);

/// What follows from the answer to attempt number `attempt`, counted from 1 (anew after `webhook_retry`).
///
/// `chance`, from 0 to 1, spreads the next attempt. A Retry-After makes it later, never earlier than the schedule says.
pub fn decide(answer: &Answer, attempt: u32, schedule: &Schedule, now: Timestamp, chance: f64) -> Decision {
    let pending = |wait| State::Pending { next_attempt_at: later(now, wait) };
    let by_schedule = |least: Duration| match schedule.wait_after(attempt) {
        Some(wait) => pending(jittered(wait, chance).max(least)),
        None => State::Dead,
    };
    let counted = Decision { state: State::Dead, counted: true, disable: false, hold_until: None };
    match judge(answer) {
        Verdict::Delivered => Decision { state: State::Delivered, ..counted },
        // Kept even after its last attempt: whoever resumes the endpoint wants this event too.
        Verdict::Gone => Decision { state: pending(Duration::ZERO), disable: true, ..counted },
        Verdict::RetryLater { after } => {
            let asked = after.and_then(|header| retry_after(header, now));
            Decision {
                state: by_schedule(asked.unwrap_or_default()),
                hold_until: asked.map(|wait| later(now, wait)),
                ..counted
            }
        }
        Verdict::Retry => Decision { state: by_schedule(Duration::ZERO), ..counted },
        Verdict::Poison if attempt >= POISON_ATTEMPTS => counted,
        Verdict::Poison => Decision { state: pending(jittered(OWN_FAULT_WAIT, chance)), ..counted },
        Verdict::OwnFault => {
            Decision { state: pending(jittered(OWN_FAULT_WAIT, chance)), counted: false, ..counted }
        }
    }
}

fn later(now: Timestamp, wait: Duration) -> Timestamp {
    now.saturating_add(Timestamp::try_from(wait.as_micros()).unwrap_or(Timestamp::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Sun, 06 Nov 1994 08:49:37 GMT.
    const NOW: Timestamp = 784_111_777_000_000;
    const SECOND: Timestamp = 1_000_000;
    const MIDDLE: f64 = 0.5;

    fn status(status: u16) -> Answer {
        Answer::Status { status, body: String::new(), retry_after: None }
    }

    fn asking(status: u16, retry_after: &str) -> Answer {
        Answer::Status { status, body: String::new(), retry_after: Some(retry_after.to_owned()) }
    }

    fn failed(fault: Fault) -> Answer {
        Answer::Failed { fault, message: String::new() }
    }

    /// Two waits, of 5 s and 5 min: three attempts.
    fn schedule() -> Schedule {
        Schedule::parse("5s 5m").unwrap()
    }

    fn after(answer: &Answer, attempt: u32) -> Decision {
        decide(answer, attempt, &schedule(), NOW, MIDDLE)
    }

    fn due_in(seconds: i64) -> State {
        State::Pending { next_attempt_at: NOW + seconds * SECOND }
    }

    #[test]
    fn success_is_2xx_and_nothing_else() {
        for code in 100..=999 {
            assert_eq!(judge(&status(code)) == Verdict::Delivered, (200..300).contains(&code), "{code}");
        }
    }

    #[test]
    fn a_poison_event_is_dead_after_three_attempts() {
        let poison = failed(Fault::Poison);
        assert_eq!((after(&poison, 1).state, after(&poison, 2).state), (due_in(1), due_in(1)));
        assert_eq!(after(&poison, 3).state, State::Dead);
    }

    #[test]
    fn a_success_on_the_last_attempt_is_a_success() {
        assert_eq!(after(&status(204), 3).state, State::Delivered);
    }

    #[test]
    fn a_failure_comes_back_by_the_schedule_and_is_dead_after_the_last_attempt() {
        for answer in [
            status(500),
            status(404),
            status(301),
            status(101),
            failed(Fault::Timeout),
            failed(Fault::Egress),
        ] {
            assert_eq!(after(&answer, 1).state, due_in(5), "{answer:?}");
            assert_eq!(after(&answer, 2).state, due_in(300), "{answer:?}");
            assert_eq!(after(&answer, 3).state, State::Dead, "{answer:?}");
        }
    }

    #[test]
    fn chance_moves_the_next_attempt_by_20_percent() {
        let next = |chance| decide(&status(500), 1, &schedule(), NOW, chance).state;
        assert_eq!((next(0.0), next(1.0)), (due_in(4), due_in(6)));
    }

    #[test]
    fn gone_disables_the_endpoint_and_keeps_the_delivery() {
        for attempt in 1..=3 {
            let decision = after(&status(410), attempt);
            assert_eq!((decision.state, decision.disable, decision.counted), (due_in(0), true, true));
        }
    }

    #[test]
    fn only_gone_disables_the_endpoint() {
        for code in (100..=999).filter(|code| *code != 410) {
            assert!(!after(&status(code), 1).disable, "{code}");
        }
        assert!(!after(&failed(Fault::Internal), 1).disable);
    }

    #[test]
    fn retry_after_delays_the_delivery_and_the_whole_endpoint() {
        for code in [429, 503] {
            for header in ["60", "Sun, 06 Nov 1994 08:50:37 GMT"] {
                let decision = after(&asking(code, header), 1);
                assert_eq!((decision.state, decision.hold_until), (due_in(60), Some(NOW + 60 * SECOND)));
            }
        }
    }

    #[test]
    fn retry_after_never_brings_an_attempt_forward() {
        let decision = after(&asking(503, "1"), 2);
        assert_eq!((decision.state, decision.hold_until), (due_in(300), Some(NOW + SECOND)));
    }

    #[test]
    fn retry_after_is_cut_to_a_day() {
        assert_eq!(after(&asking(429, "1000000000000"), 1).state, due_in(24 * 60 * 60));
    }

    #[test]
    fn retry_after_does_not_save_a_delivery_from_its_last_attempt_but_holds_the_endpoint() {
        let decision = after(&asking(429, "60"), 3);
        assert_eq!((decision.state, decision.hold_until), (State::Dead, Some(NOW + 60 * SECOND)));
    }

    #[test]
    fn retry_after_without_sense_or_with_another_status_is_ignored() {
        for answer in
            [asking(429, "-1"), asking(503, "soon"), status(429), asking(500, "60"), asking(301, "60")]
        {
            let decision = after(&answer, 1);
            assert_eq!((decision.state, decision.hold_until), (due_in(5), None), "{answer:?}");
        }
    }

    #[test]
    fn a_fault_of_our_own_consumes_no_attempt_and_comes_back_soon() {
        for attempt in [1, 3, 1000] {
            let decision = after(&failed(Fault::Internal), attempt);
            assert_eq!((decision.state, decision.counted), (due_in(1), false));
        }
    }

    #[test]
    fn every_answer_of_the_receiver_consumes_an_attempt() {
        for answer in
            [status(200), status(500), status(410), status(429), failed(Fault::Dns), failed(Fault::Tls)]
        {
            assert!(after(&answer, 1).counted, "{answer:?}");
        }
    }

    proptest! {
        #[test]
        fn no_input_brings_the_next_attempt_before_now(
            code: u16, header in "(\\PC{0,30}|[0-9]{1,30})", attempt: u32, secs: u64, max: u32, now: i64, chance: f64,
        ) {
            let schedule = Schedule::fixed(Duration::from_secs(secs), max);
            for answer in [asking(code, &header), asking(429, &header), failed(Fault::Internal)] {
                if let State::Pending { next_attempt_at } = decide(&answer, attempt, &schedule, now, chance).state {
                    prop_assert!(next_attempt_at >= now);
                }
            }
        }
    }
}
