//! When to try again.

use std::time::Duration;

/// The waits between the attempts of one delivery: n waits mean n + 1 attempts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    waits: Vec<Duration>,
}

impl Schedule {
    /// A schedule of these waits.
    pub fn new(waits: Vec<Duration>) -> Self {
        Self { waits }
    }
}

/// Placeholder until the retry branch lands.
pub fn parse_waits(_text: &str) -> crate::error::Result<Vec<Duration>> {
    Ok(Vec::new())
}
