//! What the HTTP threads promise, against real sockets on loopback.

// clippy.toml opens these in test functions only, and helpers of tests are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod answers;
mod bodies;
mod breaks;
mod delivery;
mod egress;
mod framing;
mod handshake;
mod injection;
mod name_server;
mod names;
mod oracle;
mod proxy;
mod receiver;
mod reuse;
mod sender;
mod slow;
mod threads;
mod tls;
