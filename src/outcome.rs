//! What an attempt meant.

use std::time::Duration;

use crate::event::Timestamp;

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
