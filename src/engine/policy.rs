//! What one endpoint may be sent, and when: one small machine for each rule, without clock and chance.
//!
//! - [`breaker`]: an endpoint that only fails is fed nothing new but a probe now and then, and recovers by degrees.
//! - [`rate`]: requests per second.
//! - [`order`]: who must wait for whom, when an endpoint wants its events in order.
//! - [`slots`]: how many of all slots it may hold, by how promptly it answers.

pub mod breaker;
pub mod order;
pub mod rate;
pub mod slots;
