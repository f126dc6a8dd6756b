//! Figures as rows of `webhook.endpoint_figures`.

use std::collections::HashMap;

use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;
use pgrx::spi::SpiHeapTupleData;

use crate::figures::{BOUNDS, Figures};
use crate::pg::board;
use crate::pg::rows::{cell, required, timestamp, timestamptz};

/// Rows of `figures.sql`, and what a worker before this one has shown and not written.
pub(super) fn read(rows: &[SpiHeapTupleData<'_>]) -> Vec<(i64, Figures)> {
    // SAFETY: a plain global, set before any transaction starts.
    let database = unsafe { pg_sys::MyDatabaseId }.to_u32();
    let mut shown: HashMap<i64, Figures> =
        board::read(database).map(|entry| (entry.endpoint, entry.figures)).collect();
    let with_shown = |row| {
        let (id, mut figures) = of(row);
        if let Some(newer) = shown.remove(&id) {
            figures.raise(&newer);
        }
        (id, figures)
    };
    rows.iter().map(with_shown).collect()
}

fn of(row: &SpiHeapTupleData<'_>) -> (i64, Figures) {
    let count = |column| u64::try_from(cell::<i64>(row, column).unwrap_or(0)).unwrap_or(0);
    let mut buckets = [0; BOUNDS.len() + 1];
    let stored: Vec<i64> = cell(row, 8).unwrap_or_default();
    for (bucket, stored) in buckets.iter_mut().zip(stored) {
        *bucket = u64::try_from(stored).unwrap_or(0);
    }
    let figures = Figures {
        delivered: count(2),
        failed_attempts: count(3),
        died: count(4),
        last_success_at: cell(row, 5).map(timestamp),
        last_failure_at: cell(row, 6).map(timestamp),
        seconds: cell(row, 7).unwrap_or(0.0),
        buckets,
        percentiles: cell(row, 9).zip(cell(row, 10)).map(|(median, high)| [median, high]),
        ..Figures::default()
    };
    (required(row, 1), figures)
}

/// The arguments of `write_figures.sql`.
pub(super) fn arguments<'a>(figures: &[(i64, &Figures)]) -> [DatumWithOid<'a>; 10] {
    fn column<'a, T>(figures: &[(i64, &Figures)], value: impl Fn(&Figures) -> T) -> DatumWithOid<'a>
    where
        Vec<T>: IntoDatum,
    {
        figures.iter().map(|(_, figures)| value(figures)).collect::<Vec<T>>().into()
    }
    let count = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let buckets = |figures: &Figures| {
        let numbers: Vec<String> = figures.buckets.iter().map(u64::to_string).collect();
        format!("{{{}}}", numbers.join(","))
    };
    let ids: Vec<i64> = figures.iter().map(|(id, _)| *id).collect();
    [
        ids.into(),
        column(figures, |f| count(f.delivered)),
        column(figures, |f| count(f.failed_attempts)),
        column(figures, |f| count(f.died)),
        column(figures, |f| f.last_success_at.map(timestamptz)),
        column(figures, |f| f.last_failure_at.map(timestamptz)),
        column(figures, |f| f.seconds),
        column(figures, buckets),
        column(figures, |f| f.percentiles.map(|p| p[0])),
        column(figures, |f| f.percentiles.map(|p| p[1])),
    ]
}
