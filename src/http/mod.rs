//! Sockets: a fixed pool of threads that does HTTP with ureq and holds nothing of PostgreSQL.
//!
//! ```text
//! Job ─▶ pool (thread) ─▶ client: build + sign ─▶ origin (ureq agent) ─▶ resolver: name → vetted addresses
//!                                                                    └▶ connector: TCP, tunnel, TLS ─▶ wire
//! Completion ◀─ pool ◀─ client: status or fault ◀────────────────────────────────────────────────────┘
//! ```
//!
//! ureq speaks HTTP/1.1 and keeps idle connections; names, addresses, sockets, TLS and deadlines are ours, because
//! each of them carries a promise: a refused address is never connected to, a timeout is never overrun, a failure is
//! always of one class.

pub mod address;
mod client;
mod connector;
mod failure;
mod names;
mod pool;
mod resolver;
mod rest;
mod thread;
mod wire;

pub use pool::{Notify, Pool};
pub use thread::{Spawn, spawn_thread};
