//! Commands that concern a whole database, or the extension, seen before they run.
//!
//! DROP DATABASE, ALTER DATABASE … RENAME and … SET TABLESPACE, and CREATE DATABASE … TEMPLATE want the database to
//! themselves. PostgreSQL waits five seconds for other sessions to leave and ends autovacuum workers only, so whoever runs
//! one of these here has the worker end first, and holds the database until the transaction is over.

use std::ffi::{CStr, c_char, c_void};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pgrx::prelude::*;

use super::{roster, wake};

/// A worker that does not end by itself within this time is terminated.
const PATIENCE: Duration = Duration::from_secs(1);
/// Then PostgreSQL says what is the matter.
const LIMIT: Duration = Duration::from_secs(5);
/// Between two looks at a worker that is to end, in milliseconds.
const LOOK_MS: std::ffi::c_long = 10;

type Hook = unsafe extern "C-unwind" fn(
    *mut pg_sys::PlannedStmt,
    *const c_char,
    bool,
    pg_sys::ProcessUtilityContext::Type,
    pg_sys::ParamListInfo,
    *mut pg_sys::QueryEnvironment,
    *mut pg_sys::DestReceiver,
    *mut pg_sys::QueryCompletion,
);

/// Whoever hooked in before.
static PREVIOUS: OnceLock<Hook> = OnceLock::new();
/// This session holds a database.
static HOLDS: AtomicBool = AtomicBool::new(false);
/// The callback that releases it is registered.
static REGISTERED: AtomicBool = AtomicBool::new(false);

// The function itself. What pgrx offers under this name turns every error into one of its own, which has lost its schema,
// table, column and constraint, and any byte of its message that is not UTF-8.
unsafe extern "C-unwind" {
    fn standard_ProcessUtility(
        statement: *mut pg_sys::PlannedStmt,
        query: *const c_char,
        read_only_tree: bool,
        context: pg_sys::ProcessUtilityContext::Type,
        params: pg_sys::ParamListInfo,
        environment: *mut pg_sys::QueryEnvironment,
        destination: *mut pg_sys::DestReceiver,
        completion: *mut pg_sys::QueryCompletion,
    );
}

/// Hooks in. To be called from `_PG_init` while the postmaster preloads libraries.
pub fn init() {
    // SAFETY: a plain global of the postmaster.
    unsafe {
        if let Some(previous) = pg_sys::ProcessUtility_hook {
            let _ = PREVIOUS.set(previous);
        }
        pg_sys::ProcessUtility_hook = Some(on_command);
    }
}

/// Called by PostgreSQL for every command that is no query. Without `pg_guard`, so that errors of the command pass as they
/// are: they jump over this function, and nothing in it has to be dropped.
unsafe extern "C-unwind" fn on_command(
    statement: *mut pg_sys::PlannedStmt,
    query: *const c_char,
    read_only_tree: bool,
    context: pg_sys::ProcessUtilityContext::Type,
    params: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
    destination: *mut pg_sys::DestReceiver,
    completion: *mut pg_sys::QueryCompletion,
) {
    use pg_sys::NodeTag::*;
    // SAFETY: PostgreSQL hands over the statement, and everything else is passed on as it is.
    unsafe {
        let command = (*statement).utilityStmt;
        if matches!(
            (*command).type_,
            T_DropdbStmt
                | T_RenameStmt
                | T_AlterDatabaseStmt
                | T_CreatedbStmt
                | T_DropStmt
                | T_TransactionStmt
        ) {
            prepare(command);
        }
        match PREVIOUS.get() {
            Some(previous) => previous(
                statement,
                query,
                read_only_tree,
                context,
                params,
                environment,
                destination,
                completion,
            ),
            None => standard_ProcessUtility(
                statement,
                query,
                read_only_tree,
                context,
                params,
                environment,
                destination,
                completion,
            ),
        }
    }
}

/// What is to be done before the command runs.
///
/// # Safety
/// The command is a node of the parser of one of the kinds above.
#[pg_guard]
unsafe extern "C-unwind" fn prepare(command: *mut pg_sys::Node) {
    use pg_sys::NodeTag::*;
    // SAFETY: the tag says which struct the node is; names and lists are the parser's.
    unsafe {
        match (*command).type_ {
            T_TransactionStmt => {
                let kind = (*command.cast::<pg_sys::TransactionStmt>()).kind;
                if kind == pg_sys::TransactionStmtKind::TRANS_STMT_COMMIT_PREPARED {
                    wake::at_commit();
                }
            }
            T_DropStmt => {
                let kind = (*command.cast::<pg_sys::DropStmt>()).removeType;
                if kind == pg_sys::ObjectType::OBJECT_EXTENSION {
                    wake::endpoints_at_commit();
                    wake::recheck_at_commit();
                }
            }
            T_RenameStmt => {
                let rename = command.cast::<pg_sys::RenameStmt>();
                if (*rename).renameType == pg_sys::ObjectType::OBJECT_DATABASE {
                    vacate_own((*rename).subname);
                }
            }
            // PostgreSQL refuses the others in a transaction block.
            _ if pg_sys::IsTransactionBlock() => {}
            T_DropdbStmt => vacate_own((*command.cast::<pg_sys::DropdbStmt>()).dbname),
            T_AlterDatabaseStmt => {
                let alter = command.cast::<pg_sys::AlterDatabaseStmt>();
                if option((*alter).options, c"tablespace").is_some() {
                    vacate_own((*alter).dbname);
                }
            }
            T_CreatedbStmt => {
                let template = option((*command.cast::<pg_sys::CreatedbStmt>()).options, c"template");
                vacate_template(template.unwrap_or(c"template1".as_ptr()));
            }
            _ => {}
        }
    }
}

/// The text of an option, if it is given.
///
/// # Safety
/// The list is one of DefElem nodes.
unsafe fn option(options: *mut pg_sys::List, name: &CStr) -> Option<*const c_char> {
    // SAFETY: the parser's nodes; names are NUL-terminated.
    unsafe {
        let count = if options.is_null() { 0 } else { (*options).length };
        let mut nodes = (0..count).map(|at| pg_sys::list_nth(options, at).cast::<pg_sys::DefElem>());
        let node = nodes.find(|node| CStr::from_ptr((**node).defname) == name && !(**node).arg.is_null())?;
        Some(pg_sys::defGetString(node).cast_const())
    }
}

/// Has the worker of a database end, if the user may do what he is about to do: its owner may.
///
/// # Safety
/// The name is NUL-terminated; a transaction is open.
unsafe fn vacate_own(name: *const c_char) {
    // SAFETY: catalog look-ups in an open transaction.
    unsafe {
        let database = pg_sys::get_database_oid(name, true);
        // PostgreSQL refuses it for the database that the session is in.
        if database != pg_sys::InvalidOid && database != pg_sys::MyDatabaseId && owns(database) {
            vacate(database);
        }
    }
}

/// The same for a database that is to be copied: its owner may, and whoever may create databases, if it is a template.
///
/// # Safety
/// As [`vacate_own`].
unsafe fn vacate_template(name: *const c_char) {
    // SAFETY: as above.
    unsafe {
        let database = pg_sys::get_database_oid(name, true);
        if database != pg_sys::InvalidOid
            && (owns(database) || (is_template(database) && may_create_databases()))
        {
            vacate(database);
        }
    }
}

fn owns(database: pg_sys::Oid) -> bool {
    // SAFETY: catalog look-ups in an open transaction.
    unsafe {
        #[cfg(feature = "pg15")]
        return pg_sys::pg_database_ownercheck(database, pg_sys::GetUserId());
        #[cfg(not(feature = "pg15"))]
        pg_sys::object_ownercheck(pg_sys::DatabaseRelationId, database, pg_sys::GetUserId())
    }
}

fn is_template(database: pg_sys::Oid) -> bool {
    use pg_sys::SysCacheIdentifier::DATABASEOID;
    // SAFETY: a row of pg_database, copied from before the cache may drop it.
    unsafe { cached(DATABASEOID as _, database, |row: &pg_sys::FormData_pg_database| row.datistemplate) }
}

fn may_create_databases() -> bool {
    use pg_sys::SysCacheIdentifier::AUTHOID;
    // SAFETY: a row of pg_authid, as above.
    unsafe { cached(AUTHOID as _, pg_sys::GetUserId(), |row: &pg_sys::FormData_pg_authid| row.rolcreatedb) }
}

/// What the row of this oid says; false without one.
///
/// # Safety
/// The cache is keyed by oid, its rows begin with an `R`, and a transaction is open.
unsafe fn cached<R>(cache: std::ffi::c_int, oid: pg_sys::Oid, read: impl FnOnce(&R) -> bool) -> bool {
    // SAFETY: the row is valid until the cache is told that it is no longer used.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(cache, pg_sys::Datum::from(oid));
        if tuple.is_null() {
            return false;
        }
        let row = (*tuple).t_data.cast::<u8>().add(usize::from((*(*tuple).t_data).t_hoff));
        let answer = read(&*row.cast::<R>());
        pg_sys::ReleaseSysCache(tuple);
        answer
    }
}

/// Holds the database to the end of the transaction and waits until its worker is gone.
fn vacate(database: pg_sys::Oid) {
    if !REGISTERED.swap(true, Ordering::Relaxed) {
        // SAFETY: the callback is a plain function that lives as long as the process.
        unsafe { pg_sys::RegisterXactCallback(Some(on_transaction_end), std::ptr::null_mut()) };
    }
    if !roster::hold(database) {
        return;
    }
    HOLDS.store(true, Ordering::Relaxed);
    let began = Instant::now();
    let mut last = None;
    while began.elapsed() < LIMIT {
        let slot = roster::slot_of(database).filter(|slot| slot.state().is_alive());
        if let Some(slot) = slot {
            last = slot.pid().or(last);
            slot.stop(began.elapsed() > PATIENCE);
        }
        // SAFETY: looks the process up under a lock of its own. The worker counts as a session until it is off that list.
        let is_listed = last.is_some_and(|pid| unsafe { !pg_sys::BackendPidGetProc(pid).is_null() });
        if slot.is_none() && !is_listed {
            return;
        }
        let events = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
        // SAFETY: the latch of this process.
        unsafe {
            pg_sys::WaitLatch(pg_sys::MyLatch, events as _, LOOK_MS, pg_sys::PG_WAIT_EXTENSION);
            pg_sys::ResetLatch(pg_sys::MyLatch);
        }
        pgrx::check_for_interrupts!();
    }
}

/// Runs at the end of every transaction of this session, so it does nothing that can fail.
#[pg_guard]
unsafe extern "C-unwind" fn on_transaction_end(event: pg_sys::XactEvent::Type, _arg: *mut c_void) {
    use pg_sys::XactEvent::{XACT_EVENT_ABORT, XACT_EVENT_COMMIT, XACT_EVENT_PREPARE};
    if matches!(event, XACT_EVENT_COMMIT | XACT_EVENT_ABORT | XACT_EVENT_PREPARE)
        && HOLDS.swap(false, Ordering::Relaxed)
    {
        roster::release_holds();
    }
}
