//! What the engine reads: one short transaction at a time.

use std::collections::HashMap;
use std::sync::Arc;

use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;
use pgrx::spi::{SpiClient, SpiHeapTupleData, SpiTupleTable};

use super::Statements;
use super::figures;
use super::registry::Registry;
use crate::engine::{Asked, Audience, DueDelivery, Kind, Pending, Plan, Reading, Registered, Slice};
use crate::event::{Event, Place, Timestamp, order_key};
use crate::figures::Figures;
use crate::pg::durability::Durability;
use crate::pg::encoding::Text;
use crate::pg::rows::*;
use crate::pg::selection::Selection;
use crate::pg::statement::Statement;
use crate::pg::transaction::{current_snapshot, subtransaction};
use crate::position::{Leg, Position, Snapshot};
use crate::retry::Schedule;

/// One transaction in which the engine reads.
pub(super) struct SpiReading<'a, 'conn> {
    pub(super) client: &'a SpiClient<'conn>,
    pub(super) statements: &'a Statements,
    pub(super) durability: &'a mut Durability,
    pub(super) selection: &'a mut Selection,
    pub(super) schedule: &'a Schedule,
    pub(super) endpoints_changed: bool,
    pub(super) registry: &'a mut Registry,
}

impl SpiReading<'_, '_> {
    /// Runs a statement. What PostgreSQL refuses unwinds to `transaction`, which catches it; so must what only a wrong
    /// call can bring about.
    pub(super) fn rows(&self, statement: &Statement, args: &[DatumWithOid<'_>]) -> Vec<SpiHeapTupleData<'_>> {
        let table: SpiTupleTable<'_> = fine(statement.read(self.client, args));
        table.collect()
    }

    fn one<T: FromDatum + IntoDatum>(&self, statement: &Statement, args: &[DatumWithOid<'_>]) -> Option<T> {
        self.rows(statement, args).first().and_then(|row| cell(row, 1))
    }
}

impl Reading for SpiReading<'_, '_> {
    fn head(&mut self) -> Position {
        let rows = self.rows(&self.statements.head, &[]);
        let row = fine(rows.first().ok_or("the head's position is missing"));
        fine(
            position(row, 1)
                .map(|p| p.ok_or("the head's position is missing"))
                .and_then(|p| p.map_err(crate::error::Error::invalid)),
        )
    }

    fn endpoints_changed(&mut self) -> bool {
        self.endpoints_changed
    }

    fn endpoints(&mut self) -> Vec<Registered> {
        self.registered()
    }

    fn figures(&mut self, endpoints: &[i64]) -> Vec<(i64, Figures)> {
        let rows = self.rows(&self.statements.figures, &[endpoints.to_vec().into()]);
        figures::read(&rows)
    }

    fn snapshot(&mut self) -> Arc<Snapshot> {
        Arc::new(fine(Snapshot::parse(&current_snapshot())))
    }

    fn plan(&mut self, leg: &Leg, limit: usize, audience: &mut dyn Audience) -> Plan {
        self.plan_leg(leg, limit, audience)
    }

    fn search(&mut self, leg: &Leg, after: Option<Place>, left_out: &[Kind]) -> Slice {
        self.search_leg(leg, after, left_out)
    }

    fn fetch(&mut self, places: &[Place]) -> Vec<Event> {
        let mut events = self.fetch_durable(places);
        self.selection.apply(self.client, &mut events);
        events
    }

    fn settled(&mut self, pairs: &[(i64, Place)]) -> Vec<(i64, Place)> {
        if pairs.is_empty() {
            return Vec::new();
        }
        let ids: Vec<i64> = pairs.iter().map(|(id, _)| *id).collect();
        let xids: Vec<i64> = pairs.iter().map(|(_, place)| xid_to_sql(place.xid)).collect();
        let seqs: Vec<i64> = pairs.iter().map(|(_, place)| place.seq).collect();
        let rows = self.rows(&self.statements.settled, &[ids.into(), xids.into(), seqs.into()]);
        rows.iter()
            .map(|row| {
                (required(row, 1), Place { xid: xid_from_sql(required(row, 2)), seq: required(row, 3) })
            })
            .collect()
    }

    fn pending(&mut self, limit: usize) -> Vec<Pending> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = self.rows(&self.statements.pending, &[limit.into()]);
        let count = |row: &SpiHeapTupleData<'_>, n| usize::try_from(required::<i64>(row, n)).unwrap_or(0);
        let pending = rows.iter().map(|row| Pending {
            endpoint: required(row, 1),
            failed: count(row, 2),
            due: cell(row, 3).map(timestamp),
            asked: count(row, 4),
        });
        pending.collect()
    }

    fn pending_keys(&mut self, endpoints: &[i64], limit: usize) -> Vec<(i64, Place, String)> {
        if endpoints.is_empty() {
            return Vec::new();
        }
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let found: Vec<(i64, Place)> = self
            .rows(&self.statements.pending_places, &[endpoints.to_vec().into(), limit.into()])
            .iter()
            .map(|row| {
                let place = Place { xid: xid_from_sql(required(row, 2)), seq: required(row, 3) };
                (required(row, 1), place)
            })
            .collect();
        let (xids, seqs): (Vec<i64>, Vec<i64>) =
            found.iter().map(|(_, place)| (xid_to_sql(place.xid), place.seq)).unzip();
        let read = || -> Vec<String> {
            let key = |row: &SpiHeapTupleData<'_>| {
                let (key, event_type): (Option<Text>, Text) = (cell(row, 1), required(row, 2));
                order_key(key.map(|key| key.json()).as_deref(), &event_type.plain()).to_owned()
            };
            self.rows(&self.statements.keys, &[xids.into(), seqs.into()]).iter().map(key).collect()
        };
        // SAFETY: reading leaves nothing half done.
        match unsafe { subtransaction(read) } {
            Ok(keys) if keys.len() == found.len() => {
                found.into_iter().zip(keys).map(|((id, place), key)| (id, place, key)).collect()
            }
            // One that cannot be read must not stop the others, nor one that is gone.
            _ => {
                let key = |place| self.fetch_one(place).map(|event| event.order_key().to_owned());
                found.into_iter().filter_map(|(id, place)| Some((id, place, key(place)?))).collect()
            }
        }
    }

    fn due(
        &mut self,
        endpoint: i64,
        now: Timestamp,
        limit: usize,
        at_work: &[i64],
        among: Option<&[Place]>,
    ) -> (Vec<DueDelivery>, Option<Timestamp>) {
        let limit = int8(limit);
        let columns = |places: &[Place]| -> (Vec<i64>, Vec<i64>) {
            places.iter().map(|place| (xid_to_sql(place.xid), place.seq)).unzip()
        };
        let (id, at) = (endpoint, timestamptz(now));
        let rows = match among.map(columns) {
            None => {
                let args = [id.into(), at.into(), limit.into(), at_work.to_vec().into()];
                self.rows(&self.statements.due, &args)
            }
            Some((xids, seqs)) => {
                let at_work = at_work.to_vec();
                let args = [id.into(), at.into(), limit.into(), at_work.into(), xids.into(), seqs.into()];
                self.rows(&self.statements.due_among, &args)
            }
        };
        let due = deliveries(&rows);
        drop(rows);
        let due = self.with_events(due);
        let next = match among.map(columns) {
            None => self.one(&self.statements.next_due, &[id.into(), at.into()]),
            Some((xids, seqs)) => {
                let args = [id.into(), at.into(), xids.into(), seqs.into()];
                self.one(&self.statements.next_due_among, &args)
            }
        };
        (due, next.map(timestamp))
    }
    fn asked(
        &mut self,
        endpoint: i64,
        after: Option<Asked>,
        now: Timestamp,
        limit: usize,
        at_work: &[i64],
    ) -> (Vec<DueDelivery>, Option<Asked>) {
        let (at, seq) = after.unwrap_or((0, 0));
        let count = i64::try_from(limit).unwrap_or(i64::MAX);
        let args: [DatumWithOid<'_>; 6] = [
            endpoint.into(),
            timestamptz(at).into(),
            seq.into(),
            timestamptz(now).into(),
            count.into(),
            at_work.to_vec().into(),
        ];
        let rows = self.rows(&self.statements.asked, &args);
        let last =
            rows.get(limit.saturating_sub(1)).map(|row| (timestamp(required(row, 6)), required(row, 5)));
        let asked = deliveries(&rows);
        drop(rows);
        (self.with_events(asked), last)
    }
}

/// A delivery without its event.
type Bare = (i64, u32, u32, Place);

/// Deliveries in five columns: id, attempts, attempts before, xid, number.
fn deliveries(rows: &[SpiHeapTupleData<'_>]) -> Vec<Bare> {
    let number = |row: &SpiHeapTupleData<'_>, n| u32::try_from(required::<i32>(row, n)).unwrap_or(0);
    let place = |row| Place { xid: xid_from_sql(required(row, 4)), seq: required(row, 5) };
    rows.iter().map(|row| (required(row, 1), number(row, 2), number(row, 3), place(row))).collect()
}

impl SpiReading<'_, '_> {
    /// What is no longer there is left out.
    fn with_events(&mut self, deliveries: Vec<Bare>) -> Vec<DueDelivery> {
        let places: Vec<Place> = deliveries.iter().map(|(.., place)| *place).collect();
        let mut events: HashMap<Place, Event> =
            self.fetch_durable(&places).into_iter().map(|event| (event.place, event)).collect();
        let found = deliveries.into_iter().filter_map(|(id, attempts, attempts_before, place)| {
            Some(DueDelivery { id, attempts, attempts_before, event: events.remove(&place)? })
        });
        found.collect()
    }
}
