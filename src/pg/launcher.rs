//! Starts the workers. For now one, for the database that `webhook_pg.databases` names first.

use std::time::Duration;

use pgrx::bgworkers::{BackgroundWorkerBuilder, BgWorkerStartTime};

/// What pg_stat_activity shows as `backend_type`.
pub const WORKER_TYPE: &str = "webhook_pg worker";

/// Registers the worker with the postmaster. To be called from `_PG_init` while the postmaster preloads libraries.
///
/// It starts when recovery has finished, so a standby runs none and promotion starts it. It comes back one second after
/// it ended for whatever reason, because it never exits with 0 (exit 0 unregisters a worker for ever).
pub fn register() {
    BackgroundWorkerBuilder::new(WORKER_TYPE)
        .set_type(WORKER_TYPE)
        .set_library("webhook_pg")
        .set_function("webhook_pg_worker_main")
        .enable_spi_access()
        .set_start_time(BgWorkerStartTime::RecoveryFinished)
        .set_restart_time(Some(Duration::from_secs(1)))
        .load();
}
