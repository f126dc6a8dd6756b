//! The only user of pgrx. What crosses its walls is owned and plain: no datum, tuple, GUC or SPI lifetime leaves.
// `ErrorReport` is the one error type that keeps SQLSTATE, DETAIL and HINT, and it is 208 bytes.
#![allow(clippy::result_large_err)]

mod activity;
pub mod api;
mod append;
pub mod attach;
mod board;
pub mod capture;
mod columns;
pub mod commands;
mod condition;
pub mod databases;
mod deliveries;
pub mod durability;
mod encoding;
mod expansion;
pub mod guc;
mod health;
pub mod keep_out;
mod key_file;
pub mod launcher;
pub mod log;
mod notice;
mod presence;
mod preview;
pub mod prune;
pub mod report;
pub mod roster;
mod rows;
mod selection;
pub mod statement;
pub mod store;
mod table;
pub mod thread;
pub mod transaction;
mod trigger_call;
mod triggers;
mod version;
pub mod wait;
pub mod wake;
pub mod worker;

#[cfg(feature = "pg_test")]
mod tests;

use pgrx::prelude::*;

extension_sql_file!("../../sql/install/tables.sql", name = "tables", bootstrap);
extension_sql_file!("../../sql/install/capture.sql", name = "capture", requires = ["tables"]);
extension_sql_file!("../../sql/install/secrets.sql", name = "secrets", requires = ["capture"]);
extension_sql_file!("../../sql/install/api.sql", name = "api", requires = ["secrets"]);
extension_sql_file!("../../sql/install/events.sql", name = "events", requires = ["api"]);
extension_sql_file!("../../sql/install/config.sql", name = "config", requires = ["events"]);
extension_sql_file!("../../sql/install/views.sql", name = "views", requires = ["config"]);
extension_sql_file!("../../sql/install/roles.sql", name = "roles", requires = ["views"]);
extension_sql_file!("../../sql/install/stats.sql", name = "stats", requires = ["roles"]);
extension_sql_file!("../../sql/install/checks.sql", name = "checks", requires = ["stats"]);
extension_sql_file!("../../sql/install/metrics.sql", name = "metrics", requires = ["checks"]);
extension_sql_file!("../../sql/install/copies.sql", name = "copies", requires = ["metrics"]);
extension_sql_file!("../../sql/install/privileges.sql", name = "privileges", requires = ["copies"]);

/// Runs when the library is loaded: by the postmaster, if it preloads it, else by the first session that needs it.
/// It must never raise: a session whose writes fire the capture trigger would fail with it.
#[pg_guard]
pub extern "C-unwind" fn _PG_init() {
    guc::init();
    capture::init();
    // pg_upgrade preloads the library while it must do nothing.
    // SAFETY: plain globals of the postmaster.
    if unsafe { pg_sys::IsBinaryUpgrade || !pg_sys::process_shared_preload_libraries_in_progress } {
        return;
    }
    roster::init();
    board::init();
    commands::init();
    launcher::register();
}
