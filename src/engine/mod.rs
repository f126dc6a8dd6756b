//! The dispatcher: lanes, limits, ordering; generic over a [`Store`] and a [`Transport`].

use std::sync::Arc;
use std::time::Duration;

use crate::endpoint::Endpoint;
use crate::event::Event;
use crate::outcome::Attempt;
use crate::settings::Egress;

/// One HTTP try to make. Everything a thread needs, owned.
#[derive(Debug, Clone)]
pub struct Job {
    /// Names the job in its [`Completion`].
    pub ticket: u64,
    /// Where and how to send.
    pub endpoint: Arc<Endpoint>,
    /// What to send.
    pub event: Arc<Event>,
    /// Number of this attempt, from 1.
    pub attempt: u32,
    /// Total time of this attempt.
    pub timeout: Duration,
}

/// A finished [`Job`].
#[derive(Debug)]
pub struct Completion {
    /// The job's ticket.
    pub ticket: u64,
    /// How it went.
    pub attempt: Attempt,
}

/// Makes HTTP tries. Never blocks: jobs are handed over, completions are collected.
pub trait Transport {
    /// Puts a new network policy in force for every job that starts from now on.
    fn configure(&mut self, egress: &Egress, threads: usize);
    /// Hands a job over. The transport completes every job exactly once.
    fn submit(&mut self, job: Job);
    /// Moves what has finished to `into`.
    fn collect(&mut self, into: &mut Vec<Completion>);
}
