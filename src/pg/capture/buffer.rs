//! Captured events that are not in the outbox yet.
//!
//! Each belongs to the subtransaction that raised it, and the list is a stack: while an inner subtransaction runs, only
//! it adds, and when it ends its events go or become its parent's. An event is inserted only while its own
//! subtransaction is the current one: under a child it would vanish when the child rolls back. So the events that may go
//! to the outbox are always a tail of the list.

use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use pgrx::prelude::*;

use super::backend::Backend;
use super::catalog::Tables;
use super::plan::Plan;
use super::{cache, late, outbox, tally};

/// Events and bytes of the current subtransaction at which they go to the outbox.
const MAX_EVENTS: usize = 1000;
const MAX_BYTES: usize = 1 << 20;

/// Where a text stands in [`Events::bytes`]: its varlena header.
pub(super) type Text = Option<usize>;

/// An event without its place in the outbox, its id and what the session attaches.
pub(super) struct Pending {
    subtransaction: pg_sys::SubTransactionId,
    /// Its place among all changes of this backend.
    order: u64,
    /// Its number, if it already has one: see [`number`].
    pub(super) seq: Option<i64>,
    pub(super) plan: Rc<Plan>,
    /// Index into [`OPERATIONS`](super::plan::OPERATIONS).
    pub(super) operation: usize,
    /// Microseconds since 2000-01-01.
    pub(super) occurred_at: i64,
    /// Where its texts begin.
    start: usize,
    pub(super) key: Text,
    pub(super) data: Text,
    pub(super) previous: Text,
    pub(super) expanded: Text,
    pub(super) truncated: bool,
}

/// Events and their texts.
#[derive(Default)]
pub(super) struct Events {
    pub(super) pending: Vec<Pending>,
    /// Varlenas, each aligned to 8 bytes.
    pub(super) bytes: Vec<u8>,
}

static EVENTS: Backend<Events> = Backend::new(Events { pending: Vec::new(), bytes: Vec::new() });
/// Events captured by this backend, ever: tells whether something happened in between.
static CAPTURED: AtomicU64 = AtomicU64::new(0);
/// Changes noted or captured by this backend, ever.
static ORDER: AtomicU64 = AtomicU64::new(0);
/// The callbacks are registered. Once per backend.
static REGISTERED: AtomicBool = AtomicBool::new(false);

/// How many events this backend captured so far.
pub(super) fn captured() -> u64 {
    CAPTURED.load(Ordering::Relaxed)
}

/// The place of the next change among all changes of this backend.
pub(super) fn next_order() -> u64 {
    ORDER.fetch_add(1, Ordering::Relaxed)
}

/// The texts of one event while it is written.
#[derive(Default)]
pub(super) struct Texts {
    pub(super) bytes: Vec<u8>,
    pub(super) key: Text,
    pub(super) data: Text,
    pub(super) previous: Text,
    pub(super) expanded: Text,
    pub(super) truncated: bool,
}

impl Texts {
    /// Appends a text that `write` makes. `None`, and nothing appended, if it answers false.
    pub(super) fn append(&mut self, write: impl FnOnce(&mut Vec<u8>) -> bool) -> Text {
        let end = self.bytes.len();
        let start = end.next_multiple_of(8);
        self.bytes.resize(start + pg_sys::VARHDRSZ, 0);
        if !write(&mut self.bytes) {
            self.bytes.truncate(end);
            return None;
        }
        let length = self.bytes.len() - start;
        // SAFETY: the header's four bytes are there.
        unsafe {
            pgrx::varlena::set_varsize_4b(self.bytes.as_mut_ptr().add(start).cast(), length as i32);
        }
        Some(start)
    }
}

/// Has the ends of transactions and subtransactions told to this module and to `late`.
pub(super) fn follow_transactions() {
    if !REGISTERED.swap(true, Ordering::Relaxed) {
        // SAFETY: the callbacks are plain functions that live as long as the process.
        unsafe {
            pg_sys::RegisterXactCallback(Some(on_transaction), std::ptr::null_mut());
            pg_sys::RegisterSubXactCallback(Some(on_subtransaction), std::ptr::null_mut());
        }
    }
}

/// Adds an event of the current subtransaction. `seq`: its number, if it has one.
pub(super) fn push(plan: Rc<Plan>, operation: usize, occurred_at: i64, seq: Option<i64>, texts: &Texts) {
    follow_transactions();
    // SAFETY: inside a transaction.
    let subtransaction = unsafe { pg_sys::GetCurrentSubTransactionId() };
    let full = EVENTS.with(|events| {
        let start = events.bytes.len().next_multiple_of(8);
        events.bytes.resize(start, 0);
        events.bytes.extend_from_slice(&texts.bytes);
        let moved = |text: Text| text.map(|at| at + start);
        events.pending.push(Pending {
            subtransaction,
            order: next_order(),
            seq,
            plan,
            operation,
            occurred_at,
            start,
            key: moved(texts.key),
            data: moved(texts.data),
            previous: moved(texts.previous),
            expanded: moved(texts.expanded),
            truncated: texts.truncated,
        });
        // The limits are meant for the current subtransaction, whose events are a tail; looking for its start
        // is only worth it when the whole is large.
        events.pending.len() >= MAX_EVENTS || events.bytes.len() >= MAX_BYTES
    });
    CAPTURED.fetch_add(1, Ordering::Relaxed);
    if full {
        flush_if_large(subtransaction);
    }
}

fn flush_if_large(subtransaction: pg_sys::SubTransactionId) {
    let large = EVENTS.with(|events| {
        let from = events.tail(subtransaction);
        let bytes = events.bytes.len() - events.pending.get(from).map_or(events.bytes.len(), |p| p.start);
        events.pending.len() - from >= MAX_EVENTS || bytes >= MAX_BYTES
    });
    if large {
        flush();
    }
}

impl Events {
    /// Where the events of a subtransaction, the current one, begin.
    fn tail(&self, subtransaction: pg_sys::SubTransactionId) -> usize {
        self.pending.iter().rposition(|p| p.subtransaction != subtransaction).map_or(0, |at| at + 1)
    }

    /// Takes the events from `from` on.
    fn split(&mut self, from: usize) -> Self {
        if from == 0 {
            return std::mem::take(self);
        }
        let Some(start) = self.pending.get(from).map(|p| p.start) else { return Self::default() };
        let mut pending = self.pending.split_off(from);
        for event in &mut pending {
            event.start -= start;
            let texts = [&mut event.key, &mut event.data, &mut event.previous, &mut event.expanded];
            texts.into_iter().flatten().for_each(|text| *text -= start);
        }
        Self { pending, bytes: self.bytes.split_off(start) }
    }

    fn clear(&mut self) {
        self.pending.clear();
        self.bytes.clear();
    }
}

/// Puts the events of the current subtransaction into the outbox.
///
/// Events of outer subtransactions stay, but get their numbers now, so that the order in the outbox is the order of
/// capture.
pub(super) fn flush() {
    if EVENTS.with(|events| events.pending.is_empty()) {
        return;
    }
    let Some(tables) = cache::tables() else {
        // The extension went away in this very transaction.
        EVENTS.with(Events::clear);
        return;
    };
    // SAFETY: inside a transaction that may write.
    let (xid, subtransaction) =
        unsafe { (pg_sys::GetTopFullTransactionId().value, pg_sys::GetCurrentSubTransactionId()) };
    number(&tables);
    let mut events = EVENTS.with(|events| {
        let from = events.tail(subtransaction);
        events.split(from)
    });
    if events.pending.is_empty() {
        return;
    }
    outbox::insert(&tables, xid, &events);
    // Keep the memory for the next events, unless a huge row made it huge.
    events.clear();
    if events.bytes.capacity() <= 4 * MAX_BYTES {
        EVENTS.with(|kept| {
            if kept.pending.is_empty() {
                *kept = events;
            }
        });
    }
}

/// Gives a number to every event, and to every note, that has none, in the order of capture. All numbers are taken after the
/// transaction's id, and after the row locks.
pub(super) fn number(tables: &Tables) {
    // SAFETY: inside a transaction that may write.
    unsafe { pg_sys::GetTopFullTransactionId() };
    let events = EVENTS.with(|events| events.pending.iter().filter(|p| p.seq.is_none()).count());
    let mut numbers = outbox::numbers(tables, events + late::unnumbered()).into_iter();
    EVENTS.with(|events| {
        let mut next = |seq: &mut Option<i64>| *seq = numbers.next();
        let mut pending = events.pending.iter_mut().filter(|p| p.seq.is_none());
        let mut waiting = pending.next();
        late::number(|order, seq| {
            while let Some(event) = waiting.take_if(|event| event.order < order) {
                next(&mut event.seq);
                waiting = pending.next();
            }
            next(seq);
        });
        waiting.into_iter().chain(pending).for_each(|event| next(&mut event.seq));
    });
}

/// The last chance to insert is before the commit (deferred triggers, logical apply); after it, nothing may be left.
#[pg_guard]
unsafe extern "C-unwind" fn on_transaction(event: pg_sys::XactEvent::Type, _arg: *mut std::ffi::c_void) {
    use pg_sys::XactEvent::{XACT_EVENT_PARALLEL_PRE_COMMIT, XACT_EVENT_PRE_COMMIT, XACT_EVENT_PRE_PREPARE};
    match event {
        XACT_EVENT_PRE_COMMIT => {
            late::settle(false);
            flush();
            tally::settle();
        }
        // Nobody can tell who will listen when it commits.
        XACT_EVENT_PRE_PREPARE => {
            late::settle(true);
            flush();
            tally::settle();
        }
        XACT_EVENT_PARALLEL_PRE_COMMIT => {}
        _ => {
            // An error here would be fatal: forgetting touches nothing but our own memory.
            EVENTS.try_with(Events::clear);
            late::forget();
            tally::forget();
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn on_subtransaction(
    event: pg_sys::SubXactEvent::Type,
    own: pg_sys::SubTransactionId,
    parent: pg_sys::SubTransactionId,
    _arg: *mut std::ffi::c_void,
) {
    match event {
        pg_sys::SubXactEvent::SUBXACT_EVENT_ABORT_SUB => late::rolled_back(own),
        pg_sys::SubXactEvent::SUBXACT_EVENT_COMMIT_SUB => late::released(own, parent),
        _ => {}
    }
    EVENTS.try_with(|events| match event {
        pg_sys::SubXactEvent::SUBXACT_EVENT_ABORT_SUB => {
            let from = events.tail(own);
            if let Some(start) = events.pending.get(from).map(|p| p.start) {
                events.pending.truncate(from);
                events.bytes.truncate(start);
            }
        }
        pg_sys::SubXactEvent::SUBXACT_EVENT_COMMIT_SUB => {
            let from = events.tail(own);
            events.pending[from..].iter_mut().for_each(|p| p.subtransaction = parent);
        }
        _ => {}
    });
}
