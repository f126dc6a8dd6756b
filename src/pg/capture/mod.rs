//! Capture: the trigger that turns changed rows into events, inside the user's transaction.
//!
//! ```text
//! row trigger ─▶ plan (cached per backend) ─▶ row as JSON, as the invoker ─▶ buffer
//!    ─▶ end of the statement, a size limit, or the commit ─▶ one multi-row insert into webhook.outbox
//! ```
//!
//! Writers must never notice us: nothing here waits, and nothing about a value may fail their statement. What may fail is
//! the insert itself (no space, a lock), and then the statement fails with it, so that no change is missed.

mod backend;
mod backfill;
mod buffer;
mod cache;
mod catalog;
mod column;
mod expand;
mod late;
mod pinned;
mod plan;
mod query;
mod row;
mod tally;
mod value;

mod outbox;

use std::ffi::CStr;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};

use pgrx::prelude::*;

use self::backend::Backend;
use self::buffer::Texts;
use self::expand::Changed;
pub(super) use self::expand::foreign_key;
use self::plan::Plan;
use self::row::Values;
pub(super) use self::tally::wrote_elsewhere;
use super::{guc, roster, trigger_call, wake};

/// Tells PostgreSQL that [`webhook_pg_capture`] follows the version 1 calling convention.
#[unsafe(no_mangle)]
#[doc(hidden)]
pub extern "C" fn pg_finfo_webhook_pg_capture() -> &'static pg_sys::Pg_finfo_record {
    const RECORD: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
    &RECORD
}

/// The trigger function `webhook.capture()`. Its symbol is stable for ever: were it gone, attached tables would refuse
/// writes.
///
/// # Safety
/// Called by PostgreSQL's function manager.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn webhook_pg_capture(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    const TIMING: u32 = pg_sys::TRIGGER_EVENT_TIMINGMASK;
    // SAFETY: a trigger's context is its TriggerData; the executor keeps what it points to.
    unsafe {
        let trigger = trigger_call::data(fcinfo, "webhook.capture");
        if trigger.tg_event & pg_sys::TRIGGER_EVENT_ROW != 0 {
            if trigger.tg_event & TIMING == pg_sys::TRIGGER_EVENT_AFTER {
                capture(trigger);
            } else {
                // A BEFORE trigger that somebody made by hand: the row goes on as it is.
                return trigger_call::row_as_it_is(trigger);
            }
        } else if trigger.tg_event & TIMING == pg_sys::TRIGGER_EVENT_AFTER {
            capture_truncate(trigger);
        }
        pg_sys::Datum::null()
    }
}

/// Rows and texts of the last call, kept for their memory.
#[derive(Default)]
struct Scratch {
    old: Values,
    new: Values,
    texts: Texts,
}

static SCRATCH: Backend<Option<Scratch>> = Backend::new(None);
/// Texts over this many bytes are not kept between calls.
const KEPT_BYTES: usize = 1 << 20;

/// The index of [`Operation::Truncated`](crate::event::Operation) in the plan's events.
const TRUNCATED: usize = 3;

/// Captures TRUNCATE: an event without key and row.
///
/// # Safety
/// The data of an AFTER STATEMENT trigger.
unsafe fn capture_truncate(trigger: &pg_sys::TriggerData) {
    if trigger.tg_event & pg_sys::TRIGGER_EVENT_OPMASK != pg_sys::TRIGGER_EVENT_TRUNCATE {
        return;
    }
    // SAFETY: an endpoint may have been registered since this statement's locks.
    unsafe { pg_sys::AcceptInvalidationMessages() };
    // SAFETY: from the executor.
    let Some(plan) = (unsafe { cache::plan(trigger.tg_relation, &*trigger.tg_trigger) }) else { return };
    // A transaction that truncated before anybody listened keeps that to itself: there is no row to come back to.
    if plan.events[TRUNCATED].is_some() && plan.heard[TRUNCATED] && !is_muted() {
        buffer::push(plan, TRUNCATED, now(), None, &Texts::default());
        wake::at_commit();
    }
}

/// Captures one row.
///
/// # Safety
/// The data of an AFTER ROW trigger.
unsafe fn capture(trigger: &pg_sys::TriggerData) {
    let operation = match trigger.tg_event & pg_sys::TRIGGER_EVENT_OPMASK {
        pg_sys::TRIGGER_EVENT_INSERT => 0,
        pg_sys::TRIGGER_EVENT_UPDATE => 1,
        pg_sys::TRIGGER_EVENT_DELETE => 2,
        _ => return,
    };
    // SAFETY: an endpoint may have been registered since this statement's locks; cheap when nothing happened.
    unsafe { pg_sys::AcceptInvalidationMessages() };
    // SAFETY: from the executor.
    let Some(plan) = (unsafe { cache::plan(trigger.tg_relation, &*trigger.tg_trigger) }) else { return };
    if plan.events[operation].is_none() || is_muted() {
        return;
    }
    warn_without_preload();
    let tuples = match operation {
        1 => (trigger.tg_trigtuple, trigger.tg_newtuple),
        _ => (trigger.tg_trigtuple, std::ptr::null_mut()),
    };
    // SAFETY: from the executor.
    unsafe {
        if !plan.heard[operation] {
            late::note(trigger.tg_relation, (*trigger.tg_trigger).tgoid, operation, tuples);
        } else {
            raise(plan, operation, now(), None, (*trigger.tg_relation).rd_att, tuples);
        }
    }
}

/// Whether this session raises no events: it was told to, or it is pg_restore, which puts back what was there. By jobs it makes
/// the triggers of a partitioned table while rows of partitions are still being loaded, and a load of data alone finds them there.
fn is_muted() -> bool {
    // SAFETY: a setting's text, set at the start and never null.
    guc::mute() || unsafe { CStr::from_ptr(pg_sys::application_name) } == c"pg_restore"
}

/// Says, once a session, that nobody sends what is captured.
fn warn_without_preload() {
    static WARNED: AtomicBool = AtomicBool::new(false);
    if roster::preloaded() || WARNED.swap(true, Ordering::Relaxed) {
        return;
    }
    ereport!(
        WARNING,
        PgSqlErrorCode::ERRCODE_WARNING,
        "webhook_pg is not in shared_preload_libraries",
        "Events are kept and nothing sends them. Add it and restart PostgreSQL."
    );
}

/// Makes the event of a changed row.
///
/// # Safety
/// The row, or the old and the new one of an update, are of the plan's table, whose descriptor this is.
unsafe fn raise(
    plan: Rc<Plan>,
    operation: usize,
    occurred_at: i64,
    seq: Option<i64>,
    desc: pg_sys::TupleDesc,
    tuples: (pg_sys::HeapTuple, pg_sys::HeapTuple),
) {
    let mut scratch = SCRATCH.with(Option::take).unwrap_or_default();
    // SAFETY: the caller's promise.
    if unsafe { write(desc, tuples, &plan, operation, &mut scratch) } {
        buffer::push(plan, operation, occurred_at, seq, &scratch.texts);
        wake::at_commit();
    }
    if scratch.texts.bytes.capacity() <= KEPT_BYTES {
        SCRATCH.with(|kept| *kept = Some(scratch));
    }
}

/// Writes the texts of an event. False: the row did not change.
///
/// # Safety
/// As for [`raise`].
unsafe fn write(
    desc: pg_sys::TupleDesc,
    (first, second): (pg_sys::HeapTuple, pg_sys::HeapTuple),
    plan: &Rc<Plan>,
    operation: usize,
    scratch: &mut Scratch,
) -> bool {
    let Scratch { old, new, texts } = scratch;
    let limit = guc::max_payload_bytes();
    texts.bytes.clear();
    (texts.previous, texts.expanded, texts.truncated) = (None, None, false);
    // SAFETY: the caller's promise; the tuples stay where they are for the length of the call.
    unsafe {
        let updated = operation == 1;
        new.read(if updated { second } else { first }, desc);
        if updated {
            old.read(first, desc);
            if !plan.wants_update(old, new) {
                return false;
            }
        }
        texts.key = if plan.key.is_empty() {
            None
        } else {
            texts.append(|out| row::write_object(out, plan.key.iter(), new, limit))
        };
        texts.data = texts.append(|out| row::write_object(out, plan.columns.iter(), new, limit));
        texts.truncated = texts.data.is_none();
        if !texts.truncated && !plan.expansions.is_empty() {
            let tuple = if updated { second } else { first };
            let row = Changed { tuple, desc, values: new };
            texts.expanded = texts.append(|out| expand::write(out, &plan.expansions, &row, limit));
            texts.truncated = texts.expanded.is_none();
        }
        if updated && !texts.truncated {
            let mut changed = plan.columns.iter().filter(|column| row::changed(column, old, new)).peekable();
            if changed.peek().is_some() {
                texts.previous = texts.append(|out| row::write_object(out, changed, old, limit));
                if texts.previous.is_none() {
                    texts.truncated = true;
                }
            }
        }
        if texts.truncated {
            // Half an event would be worse than none: the whole of it is thin.
            (texts.data, texts.previous, texts.expanded) = (None, None, None);
        }
    }
    true
}

/// Microseconds since 2000-01-01.
fn now() -> i64 {
    const EPOCH: u64 = 946_684_800;
    let epoch = std::time::UNIX_EPOCH + std::time::Duration::from_secs(EPOCH);
    let micros = std::time::SystemTime::now().duration_since(epoch).unwrap_or_default().as_micros();
    i64::try_from(micros).unwrap_or(i64::MAX)
}

static mut NEXT_EXECUTOR_FINISH: pg_sys::ExecutorFinish_hook_type = None;
static mut NEXT_PROCESS_UTILITY: pg_sys::ProcessUtility_hook_type = None;

/// Hooks the ends of statements. To be called once, from `_PG_init`.
pub fn init() {
    // SAFETY: the usual chain of hooks, set while a single thread runs.
    unsafe {
        NEXT_EXECUTOR_FINISH = pg_sys::ExecutorFinish_hook;
        pg_sys::ExecutorFinish_hook = Some(executor_finish);
        NEXT_PROCESS_UTILITY = pg_sys::ProcessUtility_hook;
        pg_sys::ProcessUtility_hook = Some(process_utility);
    }
}

// What pgrx offers under these names catches an error and raises a copy of it that lacks the constraint's name, the position, the
// context and all text that is not UTF-8. The errors of a user's statement are none of our business: like any C function,
// the two hooks below let them jump over their frames, in which nothing waits to be dropped.
mod standard {
    use pgrx::pg_sys;

    #[allow(non_snake_case)] // PostgreSQL's names
    unsafe extern "C-unwind" {
        /// executor/executor.h
        pub(super) fn standard_ExecutorFinish(query: *mut pg_sys::QueryDesc);
        /// tcop/utility.h
        pub(super) fn standard_ProcessUtility(
            statement: *mut pg_sys::PlannedStmt,
            query: *const std::ffi::c_char,
            read_only_tree: bool,
            context: pg_sys::ProcessUtilityContext::Type,
            params: pg_sys::ParamListInfo,
            environment: *mut pg_sys::QueryEnvironment,
            dest: *mut pg_sys::DestReceiver,
            completion: *mut pg_sys::QueryCompletion,
        );
    }
}

/// Inserts what was captured; our own errors need the guard.
#[pg_guard]
unsafe extern "C-unwind" fn flush() {
    buffer::flush();
}

/// A statement's row triggers run in here. A statement that captured something inserts it at its end, so that the next
/// one of the same transaction sees it; a query of a user's trigger that captured nothing leaves the buffer alone.
unsafe extern "C-unwind" fn executor_finish(query: *mut pg_sys::QueryDesc) {
    let before = buffer::captured();
    // SAFETY: passes on what it got.
    unsafe {
        match NEXT_EXECUTOR_FINISH {
            Some(next) => next(query),
            None => standard::standard_ExecutorFinish(query),
        }
        if buffer::captured() != before {
            flush();
        }
    }
}

/// COPY fires row triggers outside of any executor run.
#[allow(clippy::too_many_arguments)] // PostgreSQL's hook
unsafe extern "C-unwind" fn process_utility(
    statement: *mut pg_sys::PlannedStmt,
    query: *const std::ffi::c_char,
    read_only_tree: bool,
    context: pg_sys::ProcessUtilityContext::Type,
    params: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
    dest: *mut pg_sys::DestReceiver,
    completion: *mut pg_sys::QueryCompletion,
) {
    let before = buffer::captured();
    // SAFETY: passes on what it got.
    unsafe {
        match NEXT_PROCESS_UTILITY {
            Some(next) => {
                next(statement, query, read_only_tree, context, params, environment, dest, completion);
            }
            None => standard::standard_ProcessUtility(
                statement,
                query,
                read_only_tree,
                context,
                params,
                environment,
                dest,
                completion,
            ),
        }
        if buffer::captured() != before {
            flush();
        }
    }
}
