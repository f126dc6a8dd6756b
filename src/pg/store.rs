//! The engine's store: the statements of `sql/statements/`, run through SPI in short transactions.

mod fetching;

use std::collections::HashMap;
use std::sync::Arc;

use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;
use pgrx::spi::{SpiClient, SpiHeapTupleData, SpiTupleTable};

use super::deliveries;
use super::durability::Durability;
use super::rows::*;
use super::selection::Selection;
use super::statement::Statement;
use super::transaction::transaction;
use crate::config::Config;
use crate::engine::{DueDelivery, Ledger, Reading, Registered, Settled, Store};
use crate::event::{Event, Place, Timestamp};
use crate::outcome::State;
use crate::position::{Leg, Position, Snapshot};
use crate::retry::Schedule;
use crate::settings::LogAttempts;

macro_rules! statement {
    ($name:literal) => {
        Statement::new(include_str!(concat!("../../sql/statements/", $name, ".sql")))
    };
}

/// All statements of the worker.
struct Statements {
    head: Statement,
    endpoints: Statement,
    snapshot: Statement,
    plan: Statement,
    fetch: Statement,
    fetch_unreadable: Statement,
    settled: Statement,
    pending: Statement,
    due: Statement,
    next_due: Statement,
    write_deliveries: Statement,
    write_attempts: Statement,
    write_positions: Statement,
    join_head: Statement,
    disable: Statement,
}

/// The store of this process's database.
pub struct SpiStore {
    statements: Statements,
    durability: Durability,
    selection: Selection,
    /// The setting `retry_schedule`, which `max_attempts` of an endpoint cuts or repeats.
    schedule: Schedule,
    log_attempts: LogAttempts,
    is_current: fn() -> bool,
}

impl SpiStore {
    /// A store. `is_current` is asked at the start of every transaction whether the extension is still the one that
    /// the engine was started for.
    pub fn new(is_current: fn() -> bool) -> Self {
        Self {
            statements: Statements {
                head: statement!("head"),
                endpoints: statement!("endpoints"),
                snapshot: statement!("snapshot"),
                plan: statement!("plan"),
                fetch: statement!("fetch"),
                fetch_unreadable: statement!("fetch_unreadable"),
                settled: statement!("settled"),
                pending: statement!("pending"),
                due: statement!("due"),
                next_due: statement!("next_due"),
                write_deliveries: statement!("write_deliveries"),
                write_attempts: statement!("write_attempts"),
                write_positions: statement!("write_positions"),
                join_head: statement!("join_head"),
                disable: statement!("disable"),
            },
            durability: Durability::default(),
            selection: Selection::new(statement!("select"), statement!("write_filter_errors")),
            schedule: Schedule::new(Vec::new()),
            log_attempts: LogAttempts::All,
            is_current,
        }
    }

    fn ensure_current(&self) -> Result<(), String> {
        if (self.is_current)() { Ok(()) } else { Err("the extension was dropped or replaced".to_owned()) }
    }
}

impl Store for SpiStore {
    type Error = String;

    fn configure(&mut self, settings: &crate::settings::Settings) {
        self.schedule = settings.retry_schedule.clone();
        self.log_attempts = settings.log_attempts;
    }

    fn read<R>(&mut self, read: impl FnOnce(&mut dyn Reading) -> R) -> Result<R, String> {
        transaction(|| {
            self.ensure_current()?;
            Spi::connect(|client| {
                Ok(read(&mut SpiReading {
                    client,
                    statements: &self.statements,
                    durability: &mut self.durability,
                    selection: &mut self.selection,
                    schedule: &self.schedule,
                }))
            })
        })
    }

    fn write(&mut self, ledger: &Ledger) -> Result<(), String> {
        let write = |known| {
            transaction(|| {
                self.ensure_current()?;
                Spi::connect_mut(|client| {
                    self.write_ledger(client, ledger, known).map_err(|error| error.to_string())
                })
            })
        };
        // A first outcome whose delivery has a row already is refused, and written as a change of that row.
        write(false).or_else(|_| write(true))?;
        self.durability.committed();
        self.selection.written();
        Ok(())
    }

    fn flush(&mut self) {
        self.durability.flush_committed();
    }
}

impl SpiStore {
    /// `known`: expect a row for every delivery.
    fn write_ledger(&self, client: &mut SpiClient<'_>, ledger: &Ledger, known: bool) -> spi::SpiResult<()> {
        let s = &self.statements;
        let (again, first): (Vec<&Settled>, Vec<&Settled>) =
            ledger.settled.iter().partition(|row| known || row.delivery.is_some());
        if !first.is_empty() {
            deliveries::insert(&first, |row| self.is_logged(row));
        }
        if !again.is_empty() {
            self.write_deliveries(client, &again)?;
        }
        self.write_attempts(client, &ledger.settled)?;
        self.selection.write(client)?;
        if !ledger.positions.is_empty() {
            let (ids, positions): (Vec<i64>, Vec<&Position>) =
                ledger.positions.iter().map(|(id, position)| (*id, position)).unzip();
            let done: Vec<String> = positions.iter().map(|p| p.done.to_string()).collect();
            let upto: Vec<Option<String>> =
                positions.iter().map(|p| p.upto.as_ref().map(|s| s.to_string())).collect();
            let seq: Vec<i64> = positions.iter().map(|p| p.seq).collect();
            s.write_positions.write(client, &[ids.into(), done.into(), upto.into(), seq.into()])?;
        }
        if !ledger.joined.is_empty() {
            s.join_head.write(client, &[ledger.joined.clone().into()])?;
        }
        for (id, reason) in &ledger.disabled {
            s.disable.write(client, &[(*id).into(), reason.clone().into()])?;
        }
        Ok(())
    }

    fn is_logged(&self, row: &Settled) -> bool {
        match self.log_attempts {
            LogAttempts::All => true,
            LogAttempts::Failures => row.state != State::Delivered,
            LogAttempts::None => false,
        }
    }

    fn write_deliveries(&self, client: &mut SpiClient<'_>, rows: &[&Settled]) -> spi::SpiResult<()> {
        let logged = |row: &&Settled| self.is_logged(row);
        let next = |row: &&Settled| match row.state {
            State::Pending { next_attempt_at } => Some(timestamptz(next_attempt_at)),
            State::Delivered | State::Dead => None,
        };
        let args: [DatumWithOid<'_>; 13] = [
            column(rows, |row| row.endpoint),
            column(rows, |row| xid_to_sql(row.place.xid)),
            column(rows, |row| row.place.seq),
            column(rows, |row| pgrx::Uuid::from_bytes(*row.event.as_bytes())),
            column(rows, |row| state_word(row.state).to_owned()),
            column(rows, |row| int4(row.attempts)),
            column(rows, next),
            column(rows, |row| logged(row).then(|| timestamptz(row.attempt.started_at))),
            column(rows, |row| timestamptz(row.ended_at)),
            column(rows, |row| logged(row).then(|| milliseconds(row))),
            column(rows, |row| status(&row.attempt.answer)),
            column(rows, |row| error_text(&row.attempt.answer)),
            column(rows, |row| logged(row).then(|| response(&row.attempt.answer)).flatten()),
        ];
        self.statements.write_deliveries.write(client, &args)
    }

    /// Failed attempts; the last one that succeeded stands in its delivery row.
    fn write_attempts(&self, client: &mut SpiClient<'_>, settled: &[Settled]) -> spi::SpiResult<()> {
        let failed: Vec<&Settled> =
            settled.iter().filter(|row| row.state != State::Delivered && self.is_logged(row)).collect();
        if failed.is_empty() {
            return Ok(());
        }
        let args: [DatumWithOid<'_>; 9] = [
            column(&failed, |row| row.endpoint),
            column(&failed, |row| xid_to_sql(row.place.xid)),
            column(&failed, |row| row.place.seq),
            column(&failed, |row| int4(row.attempts)),
            column(&failed, |row| timestamptz(row.attempt.started_at)),
            column(&failed, |row| milliseconds(row)),
            column(&failed, |row| status(&row.attempt.answer)),
            column(&failed, |row| error_text(&row.attempt.answer)),
            column(&failed, |row| response(&row.attempt.answer)),
        ];
        self.statements.write_attempts.write(client, &args)
    }
}

/// The columns of a statement are arrays, one element a row.
fn column<'a, T: IntoDatum>(rows: &[&Settled], value: impl Fn(&&Settled) -> T) -> DatumWithOid<'a>
where
    Vec<T>: IntoDatum,
{
    rows.iter().map(value).collect::<Vec<T>>().into()
}

struct SpiReading<'a, 'conn> {
    client: &'a SpiClient<'conn>,
    statements: &'a Statements,
    durability: &'a mut Durability,
    selection: &'a mut Selection,
    schedule: &'a Schedule,
}

impl SpiReading<'_, '_> {
    /// Runs a statement. What PostgreSQL refuses unwinds to `transaction`, which catches it; so must what only a wrong
    /// call can bring about.
    fn rows(&self, statement: &Statement, args: &[DatumWithOid<'_>]) -> Vec<SpiHeapTupleData<'_>> {
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

    fn endpoints(&mut self) -> Vec<Registered> {
        let rows = self.rows(&self.statements.endpoints, &[]);
        let mut registered = Vec::with_capacity(rows.len());
        for row in &rows {
            let id: i64 = required(row, 1);
            let (state, config): (String, String) = (required(row, 2), required(row, 3));
            let endpoint = Config::endpoint(id, &state, &config, self.schedule);
            match endpoint.and_then(|endpoint| Ok(Registered { endpoint, position: position(row, 4)? })) {
                Ok(entry) if entry.endpoint.state != crate::endpoint::State::Inactive => {
                    registered.push(entry)
                }
                Ok(_) => {}
                // Its position stays where it is, and so do its events.
                Err(error) => warning!("webhook_pg: endpoint {id} is not served: {error}"),
            }
        }
        self.selection.learn(&registered);
        registered
    }

    fn snapshot(&mut self) -> Arc<Snapshot> {
        let text: String = fine(self.one(&self.statements.snapshot, &[]).ok_or("no snapshot"));
        Arc::new(fine(Snapshot::parse(&text)))
    }

    fn plan(&mut self, leg: &Leg, limit: usize) -> Vec<Place> {
        let Some(upto) = &leg.from.upto else { return Vec::new() };
        let done = &leg.from.done;
        let xip: Vec<String> = done.xip().iter().map(u64::to_string).collect();
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let args: [DatumWithOid<'_>; 6] = [
            done.xmax().to_string().into(),
            xip.into(),
            upto.to_string().into(),
            leg.from.seq.into(),
            leg.last.into(),
            limit.into(),
        ];
        let rows = self.rows(&self.statements.plan, &args);
        let Some(row) = rows.first() else { return Vec::new() };
        let xids: Vec<i64> = cell(row, 1).unwrap_or_default();
        let seqs: Vec<i64> = cell(row, 2).unwrap_or_default();
        xids.into_iter().zip(seqs).map(|(xid, seq)| Place { xid: xid_from_sql(xid), seq }).collect()
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

    fn pending(&mut self) -> Vec<(i64, usize, Timestamp)> {
        let rows = self.rows(&self.statements.pending, &[]);
        let count = |row: &SpiHeapTupleData<'_>| usize::try_from(required::<i64>(row, 2)).unwrap_or(0);
        rows.iter().map(|row| (required(row, 1), count(row), timestamp(required(row, 3)))).collect()
    }

    fn due(
        &mut self,
        endpoint: i64,
        now: Timestamp,
        limit: usize,
        at_work: &[i64],
    ) -> (Vec<DueDelivery>, Option<Timestamp>) {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let args = [endpoint.into(), timestamptz(now).into(), limit.into(), at_work.to_vec().into()];
        let rows = self.rows(&self.statements.due, &args);
        let number = |row: &SpiHeapTupleData<'_>, n| u32::try_from(required::<i32>(row, n)).unwrap_or(0);
        let place =
            |row: &SpiHeapTupleData<'_>| Place { xid: xid_from_sql(required(row, 4)), seq: required(row, 5) };
        let places: Vec<Place> = rows.iter().map(place).collect();
        let due: Vec<(i64, u32, u32, Place)> =
            rows.iter().map(|row| (required(row, 1), number(row, 2), number(row, 3), place(row))).collect();
        drop(rows);
        let mut events: HashMap<Place, Event> =
            self.fetch_durable(&places).into_iter().map(|event| (event.place, event)).collect();
        let due: Vec<DueDelivery> = due
            .into_iter()
            .filter_map(|(id, attempts, attempts_before, place)| {
                Some(DueDelivery { id, attempts, attempts_before, event: events.remove(&place)? })
            })
            .collect();
        let next =
            self.one(&self.statements.next_due, &[endpoint.into(), timestamptz(now).into()]).map(timestamp);
        (due, next)
    }
}
