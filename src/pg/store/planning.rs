//! Planning: what to read of a leg next.
//!
//! | leg | statement | cost |
//! |---|---|---|
//! | short: nearly every one | `plan` | its rows |
//! | long, of few transactions (one wrote a million rows) | `transactions`, `plan_part` | [`PART`] rows, however long it is; none of a transaction of which nobody wants anything |
//! | long, of many (an endpoint was away) | `transactions`, `plan_long` | the rows that are left of it |

use pgrx::datum::DatumWithOid;
use pgrx::spi::SpiHeapTupleData;

use super::SpiReading;
use crate::engine::{Audience, Kind, Plan};
use crate::pg::encoding::Text;
use crate::pg::rows::*;
use crate::position::Leg;

/// Rows of a short leg at most.
const SHORT: usize = 1024;
/// Transactions that are few.
const FEW: usize = 16;
/// Rows to look at of a long leg of few transactions, all of them together: some milliseconds.
const PART: usize = 16 * 1024;
/// The same while all types are wanted, as far as known: whoever wants them may soon have enough.
const FIRST_PART: usize = 1024;

impl SpiReading<'_, '_> {
    pub(super) fn plan_leg(&mut self, leg: &Leg, limit: usize, audience: &mut dyn Audience) -> Plan {
        let (lows, highs): (Vec<i64>, Vec<i64>) =
            leg.ranges().into_iter().map(|(low, high)| (xid_to_sql(low), xid_to_sql(high))).unzip();
        if lows.is_empty() {
            return Plan::default();
        }
        let range = |limit: usize| -> [DatumWithOid<'_>; 5] {
            let (lows, highs) = (lows.clone(), highs.clone());
            [lows.into(), highs.into(), leg.from.seq.into(), leg.last.into(), int8(limit).into()]
        };
        // Not in the middle of a long leg: it would look at what is consumed again and again.
        if leg.from.seq == 0 {
            let mut places = self.places(&self.statements.plan, &range(SHORT + 1)).0;
            if places.len() <= SHORT.min(limit) {
                places.sort_unstable_by_key(|place| place.seq);
                return Plan { places, ..Plan::default() };
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
            let (places, reaches) = self.places(&self.statements.plan_part, &part);
            return Plan { places, reaches, left_out };
        }
        let long: Vec<DatumWithOid<'_>> = range(limit).into_iter().chain([types.into()]).collect();
        let (places, _) = self.places(&self.statements.plan_long, &long);
        let reaches = if places.len() < limit { None } else { places.last().map(|place| place.seq) };
        Plan { places, reaches, left_out }
    }
}

/// What a large transaction wrote of.
fn written_of(row: &SpiHeapTupleData<'_>) -> Option<Vec<Kind>> {
    let types: Vec<Text> = cell(row, 2)?;
    let targets: Vec<i64> = cell(row, 3)?;
    let types = types.iter().map(|name| Kind::Type(name.plain()));
    Some(types.chain(targets.into_iter().map(Kind::Target)).collect())
}
