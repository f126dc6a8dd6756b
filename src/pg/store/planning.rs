//! Planning: what to read of a leg next.
//!
//! | leg | statement | cost |
//! |---|---|---|
//! | short: nearly every one | `plan` | its rows |
//! | long, of few transactions (one wrote a million rows) | `transactions`, `plan_part` | [`PART`] rows, however long it is; none of a transaction of which nobody wants anything |
//! | long, of many (an endpoint was away) | `transactions`, `search` | [`PART`] rows at a time, all that are left of it for one plan |

use pgrx::datum::DatumWithOid;
use pgrx::spi::SpiHeapTupleData;

use super::SpiReading;
use crate::engine::{Audience, Kind, Part, Plan, Slice};
use crate::event::Place;
use crate::pg::encoding::Text;
use crate::pg::rows::*;
use crate::position::Leg;

/// Rows of a short leg at most.
const SHORT: usize = 1024;
/// Transactions that are few.
const FEW: usize = 16;
/// Rows to look at of a long leg at a time: some milliseconds.
const PART: usize = 4 * 1024;
/// The same while all types are wanted, as far as known: whoever wants them may soon have enough.
const FIRST_PART: usize = 1024;

impl SpiReading<'_, '_> {
    pub(super) fn plan_leg(&mut self, leg: &Leg, limit: usize, audience: &mut dyn Audience) -> Plan {
        let (lows, highs): (Vec<i64>, Vec<i64>) =
            leg.ranges().into_iter().map(|(low, high)| (xid_to_sql(low), xid_to_sql(high))).unzip();
        if lows.is_empty() {
            return Plan::Read(Part::default());
        }
        // Not in the middle of a long leg: it would look at what is consumed again and again.
        if leg.from.seq == 0 {
            let short: [DatumWithOid<'_>; 5] = [
                lows.clone().into(),
                highs.clone().into(),
                leg.from.seq.into(),
                leg.last.into(),
                int8(SHORT + 1).into(),
            ];
            let rows = self.rows(&self.statements.plan, &short);
            let mut places = rows.first().map(places).unwrap_or_default();
            if places.len() <= SHORT.min(limit) {
                places.sort_unstable_by_key(|place| place.seq);
                return Plan::Read(Part { places, ..Part::default() });
            }
        }
        let unwanted = audience.unwanted();
        let types: Vec<Text> = unwanted.iter().map(|name| outside(name)).collect();
        let mut left_out: Vec<Kind> = unwanted.into_iter().map(Kind::Type).collect();
        let few = [lows.clone().into(), highs.clone().into(), int8(FEW + 1).into()];
        let rows = self.rows(&self.statements.transactions, &few);
        if rows.len() <= FEW {
            let mut transactions: Vec<i64> = Vec::with_capacity(rows.len());
            for row in &rows {
                match written_of(row) {
                    Some(kinds) if !kinds.iter().any(|kind| audience.wants(kind)) => left_out.extend(kinds),
                    _ => transactions.push(required(row, 1)),
                }
            }
            let part = if types.is_empty() { FIRST_PART } else { PART };
            let rows_of_each = limit.min(part) / transactions.len().max(1);
            let part: [DatumWithOid<'_>; 5] = [
                transactions.into(),
                leg.from.seq.into(),
                leg.last.into(),
                int8(rows_of_each.max(1)).into(),
                types.into(),
            ];
            let rows = self.rows(&self.statements.plan_part, &part);
            let Some(row) = rows.first() else { return Plan::Read(Part::default()) };
            return Plan::Read(Part { places: places(row), reaches: cell(row, 3), left_out });
        }
        Plan::Search(left_out)
    }

    pub(super) fn search_leg(&mut self, leg: &Leg, after: Option<Place>, left_out: &[Kind]) -> Slice {
        let after = after.unwrap_or(Place { xid: 0, seq: 0 });
        let ahead = leg.ranges().into_iter().filter(|(_, high)| *high > after.xid);
        let (lows, highs): (Vec<i64>, Vec<i64>) =
            ahead.map(|(low, high)| (xid_to_sql(low), xid_to_sql(high))).unzip();
        let unwanted = left_out.iter().filter_map(|kind| match kind {
            Kind::Type(name) => Some(outside(name)),
            Kind::Target(_) => None,
        });
        let args: [DatumWithOid<'_>; 8] = [
            lows.into(),
            highs.into(),
            xid_to_sql(after.xid).into(),
            after.seq.into(),
            int8(PART).into(),
            leg.from.seq.into(),
            leg.last.into(),
            unwanted.collect::<Vec<Text>>().into(),
        ];
        let rows = self.rows(&self.statements.search, &args);
        let Some(row) = rows.first() else { return Slice::default() };
        let last: Option<i64> = cell(row, 3);
        let reaches = last.map(|xid| Place { xid: xid_from_sql(xid), seq: required(row, 4) });
        Slice { places: places(row), reaches }
    }
}

/// What a large transaction wrote of.
fn written_of(row: &SpiHeapTupleData<'_>) -> Option<Vec<Kind>> {
    let types: Vec<Text> = cell(row, 2)?;
    let targets: Vec<i64> = cell(row, 3)?;
    let types = types.iter().map(|name| Kind::Type(name.plain()));
    Some(types.chain(targets.into_iter().map(Kind::Target)).collect())
}

/// The places that the first two columns name.
fn places(row: &SpiHeapTupleData<'_>) -> Vec<Place> {
    let xids: Vec<i64> = cell(row, 1).unwrap_or_default();
    let seqs: Vec<i64> = cell(row, 2).unwrap_or_default();
    xids.into_iter().zip(seqs).map(|(xid, seq)| Place { xid: xid_from_sql(xid), seq }).collect()
}
