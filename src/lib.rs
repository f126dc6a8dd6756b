//! Signed HTTP webhooks for every committed row change, delivered by PostgreSQL itself.
//!
//! ```text
//! row change ─▶ capture (trigger, in the user's transaction) ─▶ outbox ─commit─▶ wake (latch)
//!    ─▶ worker: read from a position ─▶ match endpoints ─▶ HTTP threads (no transaction open)
//!    ─▶ outcome ─▶ delivery row + position, one short transaction
//! ```
//!
//! Modules stand in the order of that path. The files directly in `src/` are pure: values in, values out; clock
//! and chance are arguments. `engine` decides, `http` owns sockets and threads, `pg` is the only user of pgrx.
//! `docs/architecture.md` argues the design; `tests/architecture.rs` holds the walls.

pub mod error;
pub mod event;
pub mod secret;
pub mod endpoint;
pub mod settings;

pub mod position;
pub mod request;
pub mod signature;
pub mod outcome;
pub mod retry;

pub mod engine;
pub mod http;
#[cfg(feature = "postgres")]
pub mod pg;

#[cfg(feature = "postgres")]
pgrx::pg_module_magic!(name, version);
