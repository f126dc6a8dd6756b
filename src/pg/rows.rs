//! Rows of statements as plain values, and back.

use pgrx::datum::TimestampWithTimeZone;
use pgrx::prelude::*;
use pgrx::spi::SpiHeapTupleData;

use super::encoding::Text;
use crate::engine::Settled;
use crate::event::{Event, Operation, Place, Timestamp};
use crate::outcome::{Answer, State};
use crate::position::Position;

/// PostgreSQL counts from 2000-01-01, [`Timestamp`] from 1970-01-01.
const EPOCH_OFFSET_MICROS: i64 = 10_957 * 86_400 * 1_000_000;

/// A result that only a wrong call spoils; raised as PostgreSQL's ERROR, which costs this transaction.
pub(super) fn fine<T, E: std::fmt::Display>(result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| error!("webhook_pg: {error}"))
}

pub(super) fn cell<T: FromDatum + IntoDatum>(row: &SpiHeapTupleData<'_>, column: usize) -> Option<T> {
    fine(row.get(column))
}

/// A column that the table declares NOT NULL.
pub(super) fn required<T: FromDatum + IntoDatum>(row: &SpiHeapTupleData<'_>, column: usize) -> T {
    fine(cell(row, column).ok_or("unexpected null"))
}

/// A position in three columns: done, upto, seq. None where the row has none.
pub(super) fn position(row: &SpiHeapTupleData<'_>, first: usize) -> crate::error::Result<Option<Position>> {
    let done: Option<String> = cell(row, first);
    let upto: Option<String> = cell(row, first + 1);
    done.map(|done| Position::from_columns(&done, upto.as_deref(), cell(row, first + 2).unwrap_or(0)))
        .transpose()
}

/// An event in fourteen columns, in the order of `fetch.sql`.
pub(super) fn event(row: &SpiHeapTupleData<'_>, first: usize) -> Event {
    let text = |column| cell::<Text>(row, first + column).map(|text| text.plain());
    let json = |column| cell::<Text>(row, first + column).map(|text| text.json());
    let id: pgrx::Uuid = required(row, first + 4);
    Event {
        place: Place { xid: xid_from_sql(required(row, first)), seq: required(row, first + 1) },
        occurred_at: timestamp(required(row, first + 2)),
        target: cell(row, first + 3),
        id: uuid::Uuid::from_bytes(*id.as_bytes()),
        truncated: required(row, first + 5),
        selected_by: Vec::new(),
        unreadable: None,
        event_type: fine(text(6).ok_or("unexpected null")),
        operation: text(7).as_deref().and_then(Operation::parse),
        key: json(8),
        data: json(9),
        previous: json(10),
        context: json(11),
        traceparent: text(12),
        expanded: json(13),
    }
}

pub(super) fn timestamp(value: TimestampWithTimeZone) -> Timestamp {
    let since_2000: pg_sys::TimestampTz = value.into();
    since_2000.saturating_add(EPOCH_OFFSET_MICROS)
}

pub(super) fn timestamptz(value: Timestamp) -> TimestampWithTimeZone {
    let since_2000 = value.saturating_sub(EPOCH_OFFSET_MICROS);
    // Out of PostgreSQL's range only with a clock that is off by 290,000 years.
    TimestampWithTimeZone::try_from(since_2000).unwrap_or(TimestampWithTimeZone::positive_infinity())
}

/// xid8 travels as bigint, digit for digit; the highest bit is out of reach.
pub(super) fn xid_to_sql(xid: u64) -> i64 {
    i64::try_from(xid).unwrap_or(i64::MAX)
}

pub(super) fn xid_from_sql(xid: i64) -> u64 {
    u64::try_from(xid).unwrap_or(0)
}

pub(super) fn int4(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

pub(super) fn int8(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn state_word(state: State) -> &'static str {
    match state {
        State::Delivered => "delivered",
        State::Pending { .. } => "pending",
        State::Dead => "dead",
    }
}

pub(super) fn milliseconds(row: &Settled) -> f32 {
    row.attempt.duration.as_secs_f32() * 1000.0
}

pub(super) fn status(answer: &Answer) -> Option<i32> {
    match answer {
        Answer::Status { status, .. } => Some(i32::from(*status)),
        Answer::Failed { .. } => None,
    }
}

/// The class of the fault and what happened; nothing for a complete response, whose status says it.
pub(super) fn error_text(answer: &Answer) -> Option<Text> {
    match answer {
        Answer::Status { .. } => None,
        Answer::Failed { fault, message } => Some(outside(&format!("{}: {message}", fault.as_str()))),
    }
}

pub(super) fn response(answer: &Answer) -> Option<Text> {
    match answer {
        Answer::Status { body, .. } if !body.is_empty() => Some(outside(body)),
        _ => None,
    }
}

/// A text from the outside. PostgreSQL's text holds no NUL.
pub(super) fn outside(text: &str) -> Text {
    Text::of(&text.replace('\0', "\u{fffd}"))
}
