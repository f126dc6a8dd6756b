//! The dispatcher: which event goes to which endpoint when. Generic over a [`Store`] and a [`Transport`]; knows neither
//! PostgreSQL nor sockets, reads no clock and draws no chance.
//!
//! ```text
//!              ┌────────────── outbox ──────────────┐
//!   head reader│▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▪▶         │ one reader feeds all lanes that keep up
//!   own reader │▪▪▪▪▪▶                              │ a lane that fell behind reads for itself
//!              └─────────────────────────────────────┘
//!                   │ wants? ─▶ lane queue ─▶ job ─▶ transport ─▶ completion ─▶ ledger ─▶ store
//! ```
//!
//! - A **reader** ([`reader`]) walks the outbox from a position and knows how much of what it read is settled.
//! - A **lane** ([`lane`]) is one endpoint at work: its queue, its flights, its feed.
//! - A **task** ([`task`]) is one event on its way through a lane, a **flight** the request that carries it.
//! - A **policy** ([`policy`]) is one rule of what an endpoint may be sent and when: breaker, rate, order, slots.
//! - **Feeding** ([`feed`]) brings events from readers, and deliveries that are due, into lanes.
//! - A **round** ([`round`]) is one turn: collect, write, read, start. It is short and never blocks on a receiver.
//! - The **ledger** ([`store`]) is what one turn must make durable: outcomes and positions, in one transaction. A slot in
//!   flight is free only after its outcome is written.
//!
//! What survives a crash is in the store only: positions never pass an event that is not settled, and what was settled
//! beyond a position has a delivery row, which a reader looks for until it has consumed all that had been committed when
//! it started: no reader before it can have come further.

pub mod faults;
pub mod feed;
pub mod lane;
pub mod lanes;
pub mod limits;
pub mod policy;
pub mod reader;
pub mod round;
pub mod search;
pub mod store;
pub mod task;

use std::sync::Arc;
use std::time::Duration;

pub use limits::{Limits, Load};
pub use round::Dispatcher;
pub use store::{
    Asked, Audience, DueDelivery, Held, Kind, Ledger, Part, Pending, Plan, Reading, Registered, Settled,
    Slice, Store,
};

use crate::endpoint::Endpoint;
use crate::event::{Event, Timestamp};
use crate::outcome::Attempt;
use crate::settings::Egress;

/// What the edge tells a round.
#[derive(Debug, Clone, Copy)]
pub struct Turn {
    /// The wall clock.
    pub now: Timestamp,
    /// Something was committed since the last turn, or nobody knows.
    pub woken: bool,
    /// Endpoints changed since the last turn, or nobody knows.
    pub endpoints_changed: bool,
    /// Time for the safety scan.
    pub poll: bool,
}

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
    /// Requests that may be in flight to this endpoint at a time. The job waits for its turn.
    pub limit: usize,
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
    /// Hands a job over, to be started when there is a thread and the endpoint's limit allows it; jobs of one endpoint
    /// start in the order of submission. The transport completes every job exactly once.
    fn submit(&mut self, job: Job);
    /// Takes back what has not started of an endpoint's jobs, in the order of submission: their tickets. After an answer that
    /// is no success the transport starts no job of the endpoint until this was called.
    fn recall(&mut self, endpoint: i64) -> Vec<u64>;
    /// Moves what has finished to `into`.
    fn collect(&mut self, into: &mut Vec<Completion>);
}
