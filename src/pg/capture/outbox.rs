//! Writing events to the outbox: many rows with one call of the table's access method.
//!
//! The rows go in below SQL, as COPY puts them, so no user code runs (the outbox has neither defaults nor triggers) and
//! the writer needs no right on the table.

use pgrx::pg_sys;

use super::backend::Backend;
use super::buffer::Events;
use super::catalog::{self, Tables};
use super::plan::OPERATIONS;
use crate::pg::guc;

/// Numbers in one step of the sequence (sql/install/tables.sql).
const BLOCK: usize = 1024;

/// The columns that capture fills, in the order of [`row`].
const COLUMNS: [&str; 12] = [
    "xid",
    "seq",
    "occurred_at",
    "id",
    "truncated",
    "type",
    "operation",
    "key",
    "data",
    "previous",
    "context",
    "traceparent",
];

unsafe extern "C-unwind" {
    /// commands/sequence.h: `nextval` without its check of rights.
    fn nextval_internal(relid: pg_sys::Oid, check_permissions: bool) -> i64;
}

/// Takes this many numbers, ascending.
pub(super) fn numbers(tables: &Tables, count: usize) -> Vec<i64> {
    let mut numbers = Vec::with_capacity(count);
    while numbers.len() < count {
        let sequence = tables.outbox_seq;
        // SAFETY: inside a transaction; the boundary turns errors into unwinding.
        let base = unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| nextval_internal(sequence, false)) };
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

/// A text in the current memory context.
fn text(value: &[u8]) -> pg_sys::Datum {
    // SAFETY: copies the bytes.
    unsafe {
        let size = value.len() + pg_sys::VARHDRSZ;
        let pointer: *mut pg_sys::varlena = pg_sys::palloc(size).cast();
        pgrx::varlena::set_varsize_4b(pointer, size as i32);
        pointer.cast::<u8>().add(pg_sys::VARHDRSZ).copy_from_nonoverlapping(value.as_ptr(), value.len());
        pg_sys::Datum::from(pointer)
    }
}

/// One UUID version 7 for each event. The randomness comes straight from the kernel: a generator in the process would
/// be copied by every fork.
fn ids(count: usize) -> Vec<[u8; 16]> {
    let mut random = vec![[0u8; 10]; count];
    if let Err(error) = getrandom::fill(random.as_flattened_mut()) {
        pgrx::error!("webhook_pg: no random bytes from the operating system: {error}");
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let millis = u64::try_from(now.as_millis()).unwrap_or(0);
    let id =
        |random: &[u8; 10]| *uuid::Builder::from_unix_timestamp_millis(millis, random).as_uuid().as_bytes();
    random.iter().map(id).collect()
}

/// Inserts the events, all of which have a number.
pub(super) fn insert(tables: &Tables, xid: u64, events: &Events) {
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
        let relation = pg_sys::table_open(tables.outbox, pg_sys::RowExclusiveLock as pg_sys::LOCKMODE);
        let mut slots = slots((*relation).rd_att, xid, events);
        pg_sys::heap_multi_insert(
            relation,
            slots.as_mut_ptr(),
            slots.len() as i32,
            pg_sys::GetCurrentCommandId(true),
            0,
            std::ptr::null_mut(),
        );
        index(relation, &slots);
        // Keeps the lock until the end of the transaction, like any INSERT.
        pg_sys::table_close(relation, pg_sys::NoLock as pg_sys::LOCKMODE);
        if snapshot {
            pg_sys::PopActiveSnapshot();
        }
        pg_sys::CurrentMemoryContext = before;
        pg_sys::MemoryContextReset(context);
    }
}

/// One slot with a tuple for each event, in the current memory context.
///
/// # Safety
/// `desc` describes the outbox.
unsafe fn slots(desc: pg_sys::TupleDesc, xid: u64, events: &Events) -> Vec<*mut pg_sys::TupleTableSlot> {
    // SAFETY: the descriptor is copied, so that the slots need no reference to the relation's own.
    unsafe {
        let desc = pg_sys::CreateTupleDescCopy(desc);
        let count = (*desc).natts as usize;
        let places = COLUMNS.map(|name| {
            (0..count).find(|at| catalog::attribute_name(catalog::attribute(desc, *at)) == name.as_bytes())
        });
        let (mut values, mut nulls) = (vec![pg_sys::Datum::null(); count], vec![true; count]);
        let operations = OPERATIONS.map(|operation| text(operation.as_str().as_bytes()));
        let session = [guc::context(), guc::traceparent()].map(|setting| setting.map(|s| text(s.as_bytes())));
        let ids = ids(events.pending.len());
        let mut event_type = None;
        let mut slots = Vec::with_capacity(events.pending.len());
        for (event, id) in events.pending.iter().zip(&ids) {
            let kind = event.plan.events[event.operation].as_deref().unwrap_or_default();
            let kind = match event_type {
                Some((known, datum)) if std::ptr::eq(known, kind) => datum,
                _ => {
                    let datum = text(kind);
                    event_type = Some((kind, datum));
                    datum
                }
            };
            let stored =
                |text: Option<usize>| text.map(|at| pg_sys::Datum::from(events.bytes.as_ptr().add(at)));
            let row = [
                Some(pg_sys::Datum::from(xid)),
                event.seq.map(pg_sys::Datum::from),
                Some(pg_sys::Datum::from(event.occurred_at)),
                Some(pg_sys::Datum::from(id.as_ptr())),
                Some(pg_sys::Datum::from(event.truncated)),
                Some(kind),
                Some(operations[event.operation]),
                stored(event.key),
                stored(event.data),
                stored(event.previous),
                session[0],
                session[1],
            ];
            for (place, value) in places.iter().zip(row) {
                if let Some(at) = *place {
                    values[at] = value.unwrap_or(pg_sys::Datum::null());
                    nulls[at] = value.is_none();
                }
            }
            let tuple = pg_sys::heap_form_tuple(desc, values.as_mut_ptr(), nulls.as_mut_ptr());
            let slot = pg_sys::MakeSingleTupleTableSlot(desc, &raw const pg_sys::TTSOpsHeapTuple);
            pg_sys::ExecStoreHeapTuple(tuple, slot, false);
            slots.push(slot);
        }
        slots
    }
}

/// Adds the inserted rows to the outbox's indexes.
///
/// # Safety
/// `heap_multi_insert` has put the rows' addresses into the slots.
unsafe fn index(relation: pg_sys::Relation, slots: &[*mut pg_sys::TupleTableSlot]) {
    // SAFETY: what COPY does.
    unsafe {
        let estate = pg_sys::CreateExecutorState();
        let info: *mut pg_sys::ResultRelInfo =
            pg_sys::palloc0(std::mem::size_of::<pg_sys::ResultRelInfo>()).cast();
        (*info).type_ = pg_sys::NodeTag::T_ResultRelInfo;
        pg_sys::InitResultRelInfo(info, relation, 0, std::ptr::null_mut(), 0);
        pg_sys::ExecOpenIndices(info, false);
        for slot in slots {
            pg_sys::ExecInsertIndexTuples(
                info,
                *slot,
                estate,
                false,
                false,
                std::ptr::null_mut(),
                std::ptr::null_mut(),
                #[cfg(not(feature = "pg15"))]
                false,
            );
        }
        pg_sys::ExecCloseIndices(info);
        pg_sys::FreeExecutorState(estate);
    }
}
