//! What the functions of `sql/install/api.sql` need from the library. Declared there, with every right in sight.

use std::ffi::CStr;

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use uuid::{NoContext, Timestamp, Uuid};

use super::board;
use super::databases::Wanted;
use super::encoding::Text;
use super::roster::{self, State};
use super::{guc, trigger_call, wake};
use crate::config::{self, Config, postback};
use crate::error::{Error, Kind};
use crate::position::Snapshot;
use crate::secret::{self, Secret};
use crate::signature;

/// The role that called: what SET ROLE says, outside of all SECURITY DEFINER functions.
#[pg_extern(sql = false)]
pub(super) fn caller() -> Result<pg_sys::Oid, ErrorReport> {
    // In index expressions, materialized views and the like PostgreSQL runs code of a table's owner, and the outer
    // role is whoever maintains the table: its rights must not be lent.
    // SAFETY: reads globals of this backend.
    if unsafe { pg_sys::InSecurityRestrictedOperation() } {
        return Err(Error::new(
            Kind::NotAllowed,
            "webhook functions cannot be called within a security-restricted operation",
        )
        .into());
    }
    // SAFETY: reads a global of this backend.
    Ok(unsafe { pg_sys::GetOuterUserId() })
}

/// The whole configuration after changes, checked.
#[pg_extern(sql = false)]
fn checked_config(stored: Option<Text>, changes: Option<Text>) -> Result<Text, ErrorReport> {
    let (stored, changes) = (stored.map(|text| text.json()), changes.map(|text| text.json()));
    if changes.as_deref().is_some_and(has_secret) {
        hide_statement();
    }
    let config = Config::changed(stored.as_deref(), changes.as_deref().unwrap_or("null"), guc::allow_http())?;
    Ok(Text::of(&config.to_json()))
}

/// Whether these changes may name a secret, a password or the value of a header.
fn has_secret(changes: &str) -> bool {
    let changes: serde_json::Value = serde_json::from_str(changes).unwrap_or_default();
    let given = |key: &str| changes.get(key).is_some_and(|value| !value.is_null());
    given("secret")
        || given("basic_auth_password")
        || changes["headers"].as_object().is_some_and(|headers| !headers.is_empty())
}

/// The text of the statement that runs shows a secret: whoever may look at other sessions must not see it in pg_stat_activity, nor
/// the log when the statement fails.
fn hide_statement() {
    const HIDDEN: &CStr = c"<a call of webhook_pg with secrets>";
    // SAFETY: PostgreSQL copies the one text; the other is one that it only reads, until the next statement sets its own.
    unsafe {
        pg_sys::debug_query_string = HIDDEN.as_ptr();
        pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_RUNNING, HIDDEN.as_ptr());
    }
}

#[pg_extern(sql = false)]
fn check_event_type(event_type: Text) -> Result<(), ErrorReport> {
    Ok(config::checked_event_type(&event_type.plain())?)
}

/// Bytes straight from the operating system.
pub(super) fn random<const N: usize>() -> Result<[u8; N], ErrorReport> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|e| Error::new(Kind::WrongState, "no randomness available").detail(format!("{e}.")))?;
    Ok(bytes)
}

#[pg_extern(sql = false)]
fn new_secret(signature: Text) -> Result<Text, ErrorReport> {
    let secret = match signature.plain().as_str() {
        "ed25519" => signature::generate_private(random()?)?,
        _ => secret::generate(random()?),
    };
    Ok(Text::of(secret.reveal()))
}

/// The public key of a private one.
#[pg_extern(sql = false)]
fn public_key(secret: Text) -> Option<Text> {
    signature::public_key(&Secret::new(secret.plain())).as_deref().map(Text::of)
}

/// JSON text that jsonb takes.
#[pg_extern(sql = false)]
fn comparable(text: Text) -> Text {
    Text::of(&crate::comparable::comparable(&text.json()))
}

/// What a postback configuration changes.
#[pg_extern(sql = false)]
fn postback_changes(stored: Option<Text>, postback: Option<Text>) -> Result<Text, ErrorReport> {
    let (stored, postback) = (stored.map(|text| text.json()), postback.map(|text| text.json()));
    Ok(Text::of(&postback::changes(stored.as_deref(), postback.as_deref().unwrap_or("null"))?))
}

/// An endpoint in the shape of a postback configuration.
#[pg_extern(sql = false)]
fn postback_answer(id: i64, stored: Text, created: i64, modified: i64) -> Result<Text, ErrorReport> {
    Ok(Text::of(&postback::answer(id, &stored.json(), created, modified)?))
}

/// A UUID of version 7.
pub(crate) fn new_uuid() -> Result<Uuid, ErrorReport> {
    let now = Timestamp::now(NoContext);
    let (seconds, nanoseconds) = now.to_unix();
    let millis = seconds.saturating_mul(1000).saturating_add(u64::from(nanoseconds / 1_000_000));
    Ok(uuid::Builder::from_unix_timestamp_millis(millis, &random()?).into_uuid())
}

#[pg_extern(sql = false)]
fn new_event_id() -> Result<pgrx::Uuid, ErrorReport> {
    Ok(pgrx::Uuid::from_bytes(new_uuid()?.into_bytes()))
}

#[pg_extern(sql = false)]
fn max_payload_bytes() -> i64 {
    i64::try_from(guc::max_payload_bytes()).unwrap_or(i64::MAX)
}

/// The present snapshot, in which this transaction is still running. PostgreSQL leaves the own transaction out of the
/// list of running ones, so other readers of the text would take it for finished.
#[pg_extern(sql = false)]
fn own_snapshot() -> Result<String, ErrorReport> {
    // SAFETY: assigns the transaction's id, if need be; raises in a read-only transaction or during recovery.
    let xid = unsafe { pg_sys::GetTopFullTransactionId() }.value;
    // SAFETY: an active snapshot is pushed and popped around the call that looks at it; an error in between is the
    // transaction's abort, which cleans the stack. The text is copied before the memory context can go.
    let text = unsafe {
        pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot());
        let snapshot = pgrx::direct_function_call_as_datum(pg_sys::pg_current_snapshot, &[]);
        let text =
            snapshot.and_then(|s| pgrx::direct_function_call::<&CStr>(pg_sys::pg_snapshot_out, &[Some(s)]));
        pg_sys::PopActiveSnapshot();
        text.map(|t| t.to_string_lossy().into_owned()).unwrap_or_default()
    };
    Ok(Snapshot::parse(&text)?.without(xid).to_string())
}

#[pg_extern(sql = false)]
fn wake() {
    super::capture::wrote_elsewhere();
    wake::at_commit();
}

#[pg_extern(sql = false)]
fn recheck() {
    wake::recheck_at_commit();
}

#[pg_extern(sql = false)]
fn is_preloaded() -> bool {
    roster::preloaded()
}

#[pg_extern(sql = false)]
fn worker_pid() -> Option<i32> {
    let slot = roster::preloaded().then(roster::own_slot).flatten()?;
    slot.pid().filter(|_| slot.state() == State::Serving)
}

#[pg_extern(sql = false)]
fn why_no_worker() -> Text {
    // SAFETY: the name of this session's database, in memory of the transaction; NUL-terminated if it is not null.
    let name = unsafe {
        let name = pg_sys::get_database_name(pg_sys::MyDatabaseId);
        if name.is_null() { c"" } else { CStr::from_ptr(name) }
    };
    let state = || roster::own_slot().map_or(State::None, |slot| slot.state());
    Text::of(match roster::preloaded() {
        false => "The library is not preloaded, so there is no worker.",
        _ if roster::launcher_pid().is_none() => {
            "The launcher does not run: see max_worker_processes and the server log. Events are kept meanwhile."
        }
        _ if !Wanted::now().has(name.to_bytes()) => {
            "webhook_pg.databases does not name this database. Events are kept meanwhile."
        }
        _ => match state() {
            State::Starting | State::Looking => "A worker is starting.",
            State::NoRoom => {
                "No background worker is left for this database: raise max_worker_processes and restart PostgreSQL. \
                 Events are kept meanwhile."
            }
            State::Failed | State::Terminated => {
                "The worker ended and will be started again: see the server log. Events are kept meanwhile."
            }
            _ => "No worker serves this database: see the server log. Events are kept meanwhile.",
        },
    })
}

/// Whether another transaction of this id, or a subtransaction, is open; also a prepared one. The number of a multixact, which
/// looks the same, may be taken for one: then its row waits a little longer.
#[pg_extern(sql = false)]
fn is_held(xmax: pg_sys::TransactionId) -> bool {
    // SAFETY: look-ups in shared memory; an id that was not given out yet has no place in pg_xact to look at.
    unsafe {
        let next = pg_sys::TransactionId::from(pg_sys::ReadNextFullTransactionId().value as u32);
        pg_sys::TransactionIdPrecedes(xmax, next)
            && !pg_sys::TransactionIdIsCurrentTransactionId(xmax)
            && pg_sys::TransactionIdIsInProgress(xmax)
    }
}

/// What the worker shows of endpoints, as JSON: times in seconds since 1970.
#[pg_extern(sql = false)]
fn board() -> Option<Text> {
    let slot = roster::preloaded().then(roster::own_slot).flatten();
    let serves = slot.is_some_and(|slot| slot.state() == State::Serving);
    // SAFETY: a plain global, set before any transaction starts.
    let database = unsafe { pg_sys::MyDatabaseId }.to_u32();
    let seconds = |at: Option<i64>| at.map(|at| at as f64 / 1e6);
    let entry = |shown: board::Shown| {
        let figures = shown.figures;
        serde_json::json!({
            "endpoint_id": shown.endpoint,
            "in_flight": if serves { shown.in_flight } else { 0 },
            "delivered": figures.delivered,
            "failed_attempts": figures.failed_attempts,
            "died": figures.died,
            "last_success_at": seconds(figures.last_success_at),
            "last_failure_at": seconds(figures.last_failure_at),
            "p50_ms": figures.percentiles.map(|p| p[0]),
            "p99_ms": figures.percentiles.map(|p| p[1]),
        })
    };
    let shown = || board::read(database).map(entry).collect::<Vec<_>>();
    slot.map(|_| Text::of(&serde_json::Value::Array(shown()).to_string()))
}

/// What holds up sending, as JSON: `since` in seconds since 1970, and `message`. Null: nothing does.
#[pg_extern(sql = false)]
fn sending_fault() -> Option<Text> {
    let slot = roster::preloaded().then(roster::own_slot).flatten()?;
    let (since, message) = slot.fault.get()?;
    // Numbers of this size lose less than a microsecond.
    Some(Text::of(&serde_json::json!({ "since": since as f64 / 1e6, "message": message }).to_string()))
}

/// Tells PostgreSQL that [`webhook_pg_changed`] follows the version 1 calling convention.
#[unsafe(no_mangle)]
#[doc(hidden)]
pub extern "C" fn pg_finfo_webhook_pg_changed() -> &'static pg_sys::Pg_finfo_record {
    const RECORD: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
    &RECORD
}

/// The trigger function `webhook.changed()`: fires after any statement that changed endpoints, their secrets or
/// attachments.
///
/// # Safety
/// Called by PostgreSQL's function manager.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn webhook_pg_changed(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: a trigger's context is its TriggerData, whose relation is open; the name is NUL-terminated.
    unsafe {
        let relation = trigger_call::data(fcinfo, "webhook.changed").tg_relation;
        pg_sys::CacheInvalidateRelcacheByRelid((*relation).rd_id);
        // Whoever caches endpoints listens to their table alone, and secrets are part of an endpoint.
        let endpoints = pg_sys::get_relname_relid(c"endpoint".as_ptr(), (*(*relation).rd_rel).relnamespace);
        if endpoints != pg_sys::InvalidOid {
            pg_sys::CacheInvalidateRelcacheByRelid(endpoints);
        }
    }
    wake::endpoints_at_commit();
    pg_sys::Datum::null()
}
