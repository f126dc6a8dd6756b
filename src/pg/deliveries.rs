//! Writing first outcomes: deliveries that have no row yet, most of what the worker writes.
//!
//! One call below SQL costs a third of `write_deliveries.sql`, which evaluates constraints and looks for a row first. Should
//! there be one all the same, the unique index refuses, and the caller writes with that statement instead.

use std::rc::Rc;

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::append::{self, Rows, Target, text};
use super::rows::{error_text, int4, milliseconds, response, state_word, status, timestamptz, xid_to_sql};
use crate::engine::Settled;
use crate::outcome::State;

/// The columns of `webhook.delivery`, in the order of [`insert`].
const COLUMNS: [&str; 16] = [
    "id",
    "endpoint_id",
    "xid",
    "seq",
    "created_at",
    "finished_at",
    "next_attempt_at",
    "started_at",
    "event_id",
    "attempts",
    "attempts_before",
    "last_status",
    "duration_ms",
    "state",
    "last_error",
    "response",
];

/// Inserts outcomes, of which those that `logged` chooses show their attempt.
pub(super) fn insert(settled: &[&Settled], logged: impl Fn(&Settled) -> bool) {
    // SAFETY: catalog lookups by the worker, in a transaction with a snapshot.
    let (table, sequence) = unsafe {
        let schema = pg_sys::get_namespace_oid(c"webhook".as_ptr(), false);
        let oid = |name: &std::ffi::CStr| pg_sys::get_relname_relid(name.as_ptr(), schema);
        (oid(c"delivery"), oid(c"delivery_id_seq"))
    };
    // SAFETY: as above; SPI's memory context lives until the end of the transaction.
    unsafe {
        let target = |relation| Rc::new(Target::of(relation, &COLUMNS));
        append::append(table, target, |rows| {
            settled.iter().for_each(|row| fill(rows, sequence, row, logged(row)));
        });
        // The statements that follow see the rows.
        pg_sys::CommandCounterIncrement();
    }
}

fn fill(rows: &mut Rows<{ COLUMNS.len() }>, sequence: pg_sys::Oid, row: &Settled, logged: bool) {
    let started_at = logged.then_some(row.attempt.started_at);
    let time = |at| timestamptz(at).into_datum();
    let next = match row.state {
        State::Pending { next_attempt_at } => Some(next_attempt_at),
        State::Delivered | State::Dead => None,
    };
    let answer = &row.attempt.answer;
    let event = row.event.as_bytes();
    let values = [
        append::nextval(sequence).into_datum(),
        row.endpoint.into_datum(),
        xid_to_sql(row.place.xid).into_datum(),
        row.place.seq.into_datum(),
        time(started_at.unwrap_or(row.ended_at)),
        if next.is_none() { time(row.ended_at) } else { None },
        next.and_then(time),
        started_at.and_then(time),
        Some(pg_sys::Datum::from(event.as_ptr())),
        int4(row.attempts).into_datum(),
        0i32.into_datum(),
        status(answer).into_datum(),
        logged.then(|| milliseconds(row)).into_datum(),
        Some(text(state_word(row.state).as_bytes())),
        error_text(answer).into_datum(),
        response(answer).filter(|_| logged).into_datum(),
    ];
    // SAFETY: in the order and of the types of `COLUMNS`; an xid8 has the bits of the bigint.
    unsafe { rows.push(values) };
}
