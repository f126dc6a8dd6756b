//! Writing events to the outbox.

use pgrx::pg_sys;

use super::backend::Backend;
use super::buffer::{Events, Pending};
use super::catalog::Tables;
use super::plan::OPERATIONS;
use super::{cache, tally};
use crate::pg::append::{self, Rows, text};
use crate::pg::guc;

/// Numbers in one step of the sequence (sql/install/tables.sql).
const BLOCK: usize = 1024;

/// The columns that capture fills, in the order of [`row`].
pub(super) const COLUMNS: [&str; 14] = [
    "xid",
    "seq",
    "occurred_at",
    "id",
    "target",
    "truncated",
    "type",
    "operation",
    "key",
    "data",
    "previous",
    "expanded",
    "context",
    "traceparent",
];

/// Takes this many numbers, ascending.
pub(super) fn numbers(tables: &Tables, count: usize) -> Vec<i64> {
    let mut numbers = Vec::with_capacity(count);
    while numbers.len() < count {
        let base = append::nextval(tables.outbox_seq);
        numbers.extend((base..).take(BLOCK.min(count - numbers.len())));
    }
    numbers
}

/// Memory for the tuples of one call, kept between calls.
struct Scratch(pg_sys::MemoryContext);

static SCRATCH: Backend<Scratch> = Backend::new(Scratch(std::ptr::null_mut()));

fn scratch() -> pg_sys::MemoryContext {
    SCRATCH.with(|scratch| {
        if scratch.0.is_null() {
            // SAFETY: a child of the top context lives as long as the backend.
            scratch.0 = unsafe {
                pg_sys::AllocSetContextCreateInternal(
                    pg_sys::TopMemoryContext,
                    c"webhook_pg outbox".as_ptr(),
                    pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
                    pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
                    pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
                )
            };
        }
        scratch.0
    })
}

/// Random bytes for ids that are not used yet. A backend never forks, and the postmaster captures nothing, so no two processes
/// have the same.
static RANDOM: Backend<Vec<[u8; 10]>> = Backend::new(Vec::new());
/// Ids for which the operating system is asked at a time: a call costs as much as a tenth of a single-row capture.
const RANDOM_IDS: usize = 64;

/// One UUID version 7 for each event.
fn ids(count: usize) -> Vec<[u8; 16]> {
    let random = RANDOM.with(|kept| {
        if kept.len() < count {
            let mut fresh = vec![[0u8; 10]; count.max(RANDOM_IDS)];
            if let Err(error) = getrandom::fill(fresh.as_flattened_mut()) {
                pgrx::error!("webhook_pg: no random bytes from the operating system: {error}");
            }
            *kept = fresh;
        }
        kept.split_off(kept.len() - count)
    });
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let millis = u64::try_from(now.as_millis()).unwrap_or(0);
    let id =
        |random: &[u8; 10]| *uuid::Builder::from_unix_timestamp_millis(millis, random).as_uuid().as_bytes();
    random.iter().map(id).collect()
}

/// Inserts the events, all of which have a number.
pub(super) fn insert(tables: &Tables, xid: u64, events: &Events) {
    tally::count(events.pending.iter().map(|event| (kind(event), event.plan.target)));
    let context = scratch();
    // SAFETY: all of it is what COPY does to insert a batch. On error the abort releases locks and relations, and the
    // next call resets the memory.
    unsafe {
        pg_sys::MemoryContextReset(context);
        let before = pg_sys::CurrentMemoryContext;
        pg_sys::CurrentMemoryContext = context;
        // Before a commit there may be no snapshot, and TOAST wants one.
        let snapshot = !pg_sys::ActiveSnapshotSet();
        if snapshot {
            pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        }
        append::append(tables.outbox, cache::outbox, |rows| fill(rows, xid, events));
        if snapshot {
            pg_sys::PopActiveSnapshot();
        }
        pg_sys::CurrentMemoryContext = before;
        pg_sys::MemoryContextReset(context);
    }
}

/// The event's type, in the database's encoding.
fn kind(event: &Pending) -> &[u8] {
    event.plan.events[event.operation].as_deref().unwrap_or_default()
}

/// One row for each event, in the current memory context.
fn fill(rows: &mut Rows<{ COLUMNS.len() }>, xid: u64, events: &Events) {
    let session = [guc::context(), guc::traceparent()].map(|setting| setting.map(|s| text(s.as_bytes())));
    let ids = ids(events.pending.len());
    let mut event_type = None;
    let mut operation = None;
    for (event, id) in events.pending.iter().zip(&ids) {
        let kind = kind(event);
        let kind = match event_type {
            Some((known, datum)) if std::ptr::eq(known, kind) => datum,
            _ => {
                let datum = text(kind);
                event_type = Some((kind, datum));
                datum
            }
        };
        let operation = match operation {
            Some((known, datum)) if known == event.operation => datum,
            _ => {
                let datum = OPERATIONS.get(event.operation).map(|word| text(word.as_str().as_bytes()));
                operation = Some((event.operation, datum));
                datum
            }
        };
        // The buffer holds a varlena at each of these places.
        let stored =
            |text: Option<usize>| text.map(|at| pg_sys::Datum::from(events.bytes.as_ptr().wrapping_add(at)));
        let row = [
            Some(pg_sys::Datum::from(xid)),
            event.seq.map(pg_sys::Datum::from),
            Some(pg_sys::Datum::from(event.occurred_at)),
            Some(pg_sys::Datum::from(id.as_ptr())),
            event.plan.target.map(pg_sys::Datum::from),
            Some(pg_sys::Datum::from(event.truncated)),
            Some(kind),
            operation,
            stored(event.key),
            stored(event.data),
            stored(event.previous),
            stored(event.expanded),
            session[0],
            session[1],
        ];
        // SAFETY: in the order and of the types of `COLUMNS`.
        unsafe { rows.push(row) };
    }
}
