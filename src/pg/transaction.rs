//! The worker's transactions: short, each on its own, an error costs the transaction and not the process. And
//! subtransactions, in which an error costs even less.

use std::ffi::CStr;
use std::panic::AssertUnwindSafe;

use pgrx::pg_sys::panic::CaughtError;
use pgrx::prelude::*;

/// Runs `body` in a transaction with one snapshot, and commits.
///
/// # Errors
/// What `body` raised or returned, in one line. The transaction is rolled back; the process goes on. (pgrx's own
/// `BackgroundWorker::transaction` leaves the failed transaction open.)
pub fn transaction<R>(body: impl FnOnce() -> Result<R, String>) -> Result<R, String> {
    // SAFETY: the worker is connected to a database and has no transaction open; nothing nests these.
    unsafe {
        pg_sys::SetCurrentStatementStartTimestamp();
        pg_sys::StartTransactionCommand();
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
    }
    let run = AssertUnwindSafe(|| {
        let result = body();
        if result.is_ok() {
            // SAFETY: the snapshot and the transaction from above. A commit can fail (deferred work, full disk), which
            // is caught below like any other error.
            unsafe {
                pg_sys::PopActiveSnapshot();
                pg_sys::CommitTransactionCommand();
            }
        }
        result
    });
    let result = PgTryBuilder::new(run).catch_others(|error| Err(one_line(&error))).execute();
    if result.is_err() {
        // SAFETY: a transaction is open or failed; this ends it and releases its snapshot, locks and buffers.
        unsafe { pg_sys::AbortCurrentTransaction() };
    }
    result
}

/// Runs `act` in a subtransaction of its own, so that an error undoes what it did and nothing else. Cancelling and
/// shutting down go through.
///
/// # Errors
/// What `act` raised.
///
/// # Safety
/// `act` leaves nothing half done in memory when it unwinds.
pub unsafe fn subtransaction<R>(act: impl FnOnce() -> R) -> Result<R, String> {
    // SAFETY: the steps of PL/pgSQL's exception block; memory context and resource owner are put back as there.
    unsafe {
        let (memory, owner) = (pg_sys::CurrentMemoryContext, pg_sys::CurrentResourceOwner);
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        pg_sys::CurrentMemoryContext = memory;
        let result = PgTryBuilder::new(AssertUnwindSafe(|| Ok(act())))
            .catch_when(PgSqlErrorCode::ERRCODE_QUERY_CANCELED, |error| error.rethrow())
            .catch_when(PgSqlErrorCode::ERRCODE_ADMIN_SHUTDOWN, |error| error.rethrow())
            .catch_others(|error| Err(one_line(&error)))
            .execute();
        if result.is_ok() {
            pg_sys::ReleaseCurrentSubTransaction();
        } else {
            pg_sys::RollbackAndReleaseCurrentSubTransaction();
        }
        pg_sys::CurrentMemoryContext = memory;
        pg_sys::CurrentResourceOwner = owner;
        result
    }
}

/// This transaction waits for nobody for long: what can be known of locks is asked for (`webhook.is_held`), and this is for what
/// cannot, as a row that another session has inserted and not committed.
pub fn limit_waiting() {
    // SAFETY: NUL-terminated literals; a transaction is open.
    unsafe {
        pg_sys::set_config_option(
            c"lock_timeout".as_ptr(),
            c"200".as_ptr(),
            pg_sys::GucContext::PGC_SUSET,
            pg_sys::GucSource::PGC_S_OVERRIDE,
            pg_sys::GucAction::GUC_ACTION_LOCAL,
            true,
            0,
            false,
        );
    }
}

/// What had completed when the active snapshot was taken, in the text form of `pg_snapshot`. Without a statement, since an idle
/// worker asks at every poll.
pub fn current_snapshot() -> String {
    // SAFETY: built-in functions without arguments or with one of the right type; a snapshot is active in every transaction.
    unsafe {
        let snapshot = pg_sys::OidFunctionCall0Coll(
            pg_sys::Oid::from(pg_sys::F_PG_CURRENT_SNAPSHOT),
            pg_sys::InvalidOid,
        );
        let text = pg_sys::OidOutputFunctionCall(pg_sys::Oid::from(pg_sys::F_PG_SNAPSHOT_OUT), snapshot);
        CStr::from_ptr(text).to_string_lossy().into_owned()
    }
}

/// Accepts invalidation messages that came while no transaction was open.
pub fn accept_invalidations() {
    // SAFETY: no transaction is open; the pair opens and closes an empty one, as idle backends do.
    unsafe {
        pg_sys::StartTransactionCommand();
        pg_sys::CommitTransactionCommand();
    }
}

fn one_line(error: &CaughtError) -> String {
    let (CaughtError::PostgresError(report)
    | CaughtError::ErrorReport(report)
    | CaughtError::RustPanic { ereport: report, .. }) = error;
    report.message().lines().next().unwrap_or("unknown error").to_owned()
}
