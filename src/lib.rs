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

pub mod comparable;
pub mod complaints;
pub mod config;
pub mod endpoint;
pub mod error;
pub mod event;
pub mod figures;
pub mod json;
pub mod keyring;
pub mod secret;
pub mod settings;

pub mod encoding;
pub mod format;
pub mod outcome;
pub mod position;
pub mod request;
pub mod restart;
pub mod retention;
pub mod retry;
pub mod scope;
pub mod signature;
pub mod xml;

pub mod engine;
pub mod http;
#[cfg(feature = "postgres")]
pub mod pg;

#[cfg(feature = "postgres")]
pgrx::pg_module_magic!(name, version);

/// What `cargo pgrx test` wants at the crate root: the server's configuration.
#[cfg(all(test, feature = "pg_test"))]
pub mod pg_test {
    /// Nothing to prepare.
    pub fn setup(_options: Vec<&str>) {}

    /// Settings of the test server.
    pub fn postgresql_conf_options() -> Vec<&'static str> {
        // No worker in the database of the tests: they look for themselves at what it would do.
        vec!["shared_preload_libraries = 'webhook_pg'", "webhook_pg.databases = 'postgres'"]
    }
}
