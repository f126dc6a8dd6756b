//! Late listeners: an endpoint that is registered while a transaction runs gets what that transaction has already changed.
//!
//! What nobody wants is not written. So that a change is not missed when somebody comes to want it before the commit, the
//! backend notes where the row stands (64 bytes, no text), and looks again just before it commits: the rows that a running
//! transaction made or replaced are still in the table, whatever has happened to them since.
//!
//! **No gap.** Whoever changes endpoints holds a lock on `webhook.installation` until the end of the transaction
//! (`webhook.announce_listener`), and takes the snapshot at which the endpoint starts after it. The writer asks for that lock in a
//! mode that only this one conflicts with, without waiting. If it gets it, every change of endpoints either has committed, and
//! then the writer knows of it, or takes its snapshot after the writer's commit, and then the writer's events are not for it.
//! If not, it writes everything.
//!
//! **Order.** Notes and events get their numbers together, in the order of capture ([`buffer::number`]).

use pgrx::prelude::*;

use super::backend::Backend;
use super::{buffer, cache, raise};

/// A transaction that changed more rows than this keeps no notes: their memory must be bounded.
const MAX_NOTES: usize = 100_000;

/// A changed row that nobody wants so far.
struct Note {
    /// Its place among all changes of this backend.
    order: u64,
    /// Its number, if it has one.
    seq: Option<i64>,
    subtransaction: pg_sys::SubTransactionId,
    table: pg_sys::Oid,
    /// The table's file: TRUNCATE and rewrites begin a new one, in which the places mean nothing.
    file: pg_sys::Oid,
    trigger: pg_sys::Oid,
    operation: usize,
    /// Microseconds since 2000-01-01.
    occurred_at: i64,
    /// Where the row stands, or the old and the new one.
    places: (pg_sys::ItemPointerData, pg_sys::ItemPointerData),
}

#[derive(Default)]
struct Notes {
    list: Vec<Note>,
    /// Of the cache, at the first note.
    generation: u64,
    /// There were too many.
    given_up: bool,
}

static NOTES: Backend<Notes> = Backend::new(Notes { list: Vec::new(), generation: 0, given_up: false });

/// Notes a change that nobody wants so far.
///
/// # Safety
/// An open table, and tuples from the executor; the second one may be null.
pub(super) unsafe fn note(
    relation: pg_sys::Relation,
    trigger: pg_sys::Oid,
    operation: usize,
    (first, second): (pg_sys::HeapTuple, pg_sys::HeapTuple),
) {
    buffer::follow_transactions();
    // SAFETY: the caller's promise.
    let (note, generation) = unsafe {
        let place = |tuple: pg_sys::HeapTuple| {
            if tuple.is_null() { pg_sys::ItemPointerData::default() } else { (*tuple).t_self }
        };
        let note = Note {
            order: buffer::next_order(),
            seq: None,
            subtransaction: pg_sys::GetCurrentSubTransactionId(),
            table: (*relation).rd_id,
            file: (*(*relation).rd_rel).relfilenode,
            trigger,
            operation,
            occurred_at: super::now(),
            places: (place(first), place(second)),
        };
        (note, cache::generation())
    };
    NOTES.with(|notes| {
        if notes.given_up {
            return;
        }
        if notes.list.len() >= MAX_NOTES {
            *notes = Notes { given_up: true, ..Notes::default() };
            return;
        }
        if notes.list.is_empty() {
            notes.generation = generation;
        }
        notes.list.push(note);
    });
}

/// How many notes have no number.
pub(super) fn unnumbered() -> usize {
    NOTES.with(|notes| notes.list.iter().filter(|note| note.seq.is_none()).count())
}

/// Hands every note that has no number to `give`, with its place among all changes.
pub(super) fn number(mut give: impl FnMut(u64, &mut Option<i64>)) {
    NOTES.with(|notes| {
        for note in notes.list.iter_mut().filter(|note| note.seq.is_none()) {
            give(note.order, &mut note.seq);
        }
    });
}

/// Forgets all notes: the transaction is over.
pub(super) fn forget() {
    NOTES.try_with(|notes| {
        if notes.given_up || !notes.list.is_empty() {
            *notes = Notes::default();
        }
    });
}

/// Forgets the notes of a subtransaction that was rolled back.
pub(super) fn rolled_back(own: pg_sys::SubTransactionId) {
    NOTES.try_with(|notes| {
        let kept = notes.list.iter().rposition(|note| note.subtransaction != own).map_or(0, |at| at + 1);
        notes.list.truncate(kept);
    });
}

/// Hands the notes of a subtransaction to its parent.
pub(super) fn released(own: pg_sys::SubTransactionId, parent: pg_sys::SubTransactionId) {
    NOTES.try_with(|notes| {
        let own_notes = notes.list.iter_mut().rev().take_while(|note| note.subtransaction == own);
        own_notes.for_each(|note| note.subtransaction = parent);
    });
}

/// Makes events of the notes that somebody wants by now, or of all.
pub(super) fn settle(all: bool) {
    let Some(generation) = NOTES.with(|notes| (!notes.list.is_empty()).then_some(notes.generation)) else {
        return;
    };
    let Some(tables) = cache::tables() else { return forget() };
    // SAFETY: in a transaction; the lock is kept until its end.
    let known = unsafe {
        !all && pg_sys::ConditionalLockRelationOid(
            tables.installation,
            pg_sys::RowShareLock as pg_sys::LOCKMODE,
        )
    };
    // SAFETY: in a transaction. What was committed before the lock was free is heard of here.
    unsafe { pg_sys::AcceptInvalidationMessages() };
    if known && cache::generation() == generation {
        return forget();
    }
    buffer::number(&tables);
    let notes = NOTES.with(std::mem::take);
    let mut rest = notes.list.as_slice();
    while let Some(first) = rest.first() {
        let count = rest.iter().take_while(|note| note.table == first.table).count();
        let (of_table, others) = rest.split_at(count);
        rest = others;
        // SAFETY: in a transaction that may write, before its commit.
        unsafe { settle_table(first.table, of_table, known) };
    }
}

/// # Safety
/// In a transaction that may write.
unsafe fn settle_table(table: pg_sys::Oid, notes: &[Note], known: bool) {
    // SAFETY: the caller's promise. The writer has a stronger lock on the table already, unless it dropped it.
    unsafe {
        let relation = pg_sys::try_relation_open(table, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
        if relation.is_null() {
            return;
        }
        for note in notes {
            let Some(trigger) = find_trigger(relation, note.trigger) else { continue };
            let Some(plan) = cache::plan(relation, trigger) else { continue };
            if plan.events[note.operation].is_none() || (known && !plan.heard[note.operation]) {
                continue;
            }
            let first = fetch(relation, note.file, note.places.0);
            let second = if note.operation == 1 {
                fetch(relation, note.file, note.places.1)
            } else {
                Some(std::ptr::null_mut())
            };
            if let (Some(first), Some(second)) = (first, second) {
                raise(plan, note.operation, note.occurred_at, note.seq, (*relation).rd_att, (first, second));
                for tuple in [first, second].into_iter().filter(|tuple| !tuple.is_null()) {
                    pg_sys::heap_freetuple(tuple);
                }
            }
        }
        pg_sys::relation_close(relation, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
    }
}

/// # Safety
/// An open table.
unsafe fn find_trigger<'a>(relation: pg_sys::Relation, oid: pg_sys::Oid) -> Option<&'a pg_sys::Trigger> {
    // SAFETY: the caller's promise; the array has `numtriggers` elements.
    unsafe {
        let all = (*relation).trigdesc;
        if all.is_null() {
            return None;
        }
        let count = usize::try_from((*all).numtriggers).unwrap_or(0);
        (0..count).map(|at| &*(*all).triggers.add(at)).find(|trigger| trigger.tgoid == oid)
    }
}

/// A copy of the row that stands at this place, visible or not.
///
/// # Safety
/// An open table, and a place in `file` where this transaction made or replaced a row.
unsafe fn fetch(
    relation: pg_sys::Relation,
    file: pg_sys::Oid,
    place: pg_sys::ItemPointerData,
) -> Option<pg_sys::HeapTuple> {
    // SAFETY: the caller's promise; heap_fetch pins the page only if it answers true.
    unsafe {
        let is_heap = (*relation).rd_tableam == pg_sys::GetHeapamTableAmRoutine();
        if !is_heap || (*(*relation).rd_rel).relfilenode != file || place.ip_posid == 0 {
            return None;
        }
        let mut tuple = pg_sys::HeapTupleData { t_self: place, ..pg_sys::HeapTupleData::default() };
        let mut buffer = pg_sys::InvalidBuffer as pg_sys::Buffer;
        let any = &raw mut pg_sys::SnapshotAnyData;
        if !pg_sys::heap_fetch(relation, any, &mut tuple, &mut buffer, false) {
            return None;
        }
        let copy = pg_sys::heap_copytuple(&mut tuple);
        pg_sys::ReleaseBuffer(buffer);
        Some(copy)
    }
}
