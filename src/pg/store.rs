//! The engine's store: the statements of `sql/statements/`, run through SPI in short transactions.

mod fetching;
mod figures;
mod planning;
mod reading;
mod registry;

use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;
use pgrx::spi::{SpiClient, SpiHeapTupleData};

use self::reading::SpiReading;
use self::registry::Registry;

use super::board;
use super::deliveries;
use super::durability::Durability;
use super::rows::*;
use super::selection::Selection;
use super::statement::Statement;
use super::transaction::{limit_waiting, transaction};
use crate::engine::{Held, Ledger, Reading, Settled, Store};
use crate::event::{Place, Timestamp};
use crate::figures::Figures;
use crate::outcome::State;
use crate::position::Position;
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
    endpoint_configs: Statement,
    plan: Statement,
    plan_part: Statement,
    search: Statement,
    transactions: Statement,
    fetch: Statement,
    fetch_unreadable: Statement,
    settled: Statement,
    pending: Statement,
    pending_places: Statement,
    keys: Statement,
    due: Statement,
    asked: Statement,
    due_among: Statement,
    next_due: Statement,
    next_due_among: Statement,
    held_deliveries: Statement,
    held_endpoints: Statement,
    write_deliveries: Statement,
    write_attempts: Statement,
    write_positions: Statement,
    put_back: Statement,
    join_head: Statement,
    disable: Statement,
    write_failing: Statement,
    clear_failing: Statement,
    figures: Statement,
    write_figures: Statement,
}

/// The store of this process's database.
pub struct SpiStore {
    statements: Statements,
    durability: Durability,
    selection: Selection,
    registry: Registry,
    board: board::Desk,
    /// The setting `retry_schedule`, which `max_attempts` of an endpoint cuts or repeats.
    schedule: Schedule,
    log_attempts: LogAttempts,
    is_current: fn() -> bool,
    endpoints_changed: fn() -> bool,
}

impl SpiStore {
    /// A store. `is_current` is asked at the start of every transaction whether the extension is still the one that
    /// the engine was started for; `endpoints_changed` after that, whether endpoints changed since the engine was told.
    pub fn new(is_current: fn() -> bool, endpoints_changed: fn() -> bool) -> Self {
        Self {
            statements: Statements {
                head: statement!("head"),
                endpoints: statement!("endpoints"),
                endpoint_configs: statement!("endpoint_configs"),
                plan: statement!("plan"),
                plan_part: statement!("plan_part"),
                search: statement!("search"),
                transactions: statement!("transactions"),
                fetch: statement!("fetch"),
                fetch_unreadable: statement!("fetch_unreadable"),
                settled: statement!("settled"),
                pending: statement!("pending"),
                pending_places: statement!("pending_places"),
                keys: statement!("keys"),
                due: statement!("due"),
                asked: statement!("asked"),
                due_among: statement!("due_among"),
                next_due: statement!("next_due"),
                next_due_among: statement!("next_due_among"),
                held_deliveries: statement!("held_deliveries"),
                held_endpoints: statement!("held_endpoints"),
                write_deliveries: statement!("write_deliveries"),
                write_attempts: statement!("write_attempts"),
                write_positions: statement!("write_positions"),
                put_back: statement!("put_back"),
                join_head: statement!("join_head"),
                disable: statement!("disable"),
                write_failing: statement!("write_failing"),
                clear_failing: statement!("clear_failing"),
                figures: statement!("figures"),
                write_figures: statement!("write_figures"),
            },
            durability: Durability::default(),
            selection: Selection::new(statement!("select"), statement!("write_filter_errors")),
            registry: Registry::default(),
            board: board::Desk::take_over(),
            schedule: Schedule::new(Vec::new()),
            log_attempts: LogAttempts::All,
            is_current,
            endpoints_changed,
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
        // Endpoints that set `max_attempts` follow it.
        self.registry.clear();
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
                    endpoints_changed: (self.endpoints_changed)(),
                    registry: &mut self.registry,
                }))
            })
        })
    }

    fn write(&mut self, ledger: &Ledger) -> Result<Held, String> {
        let write = |known| {
            transaction(|| {
                self.ensure_current()?;
                limit_waiting();
                Spi::connect_mut(|client| {
                    self.write_ledger(client, ledger, known).map_err(|error| error.to_string())
                })
            })
        };
        // A first outcome whose delivery has a row already is refused, and written as a change of that row.
        let held = write(false).or_else(|_| write(true))?;
        self.durability.committed();
        for (id, reason) in ledger.disabled.iter().filter(|(id, _)| !held.endpoints.contains(id)) {
            log!("webhook_pg: endpoint {id} is disabled: {reason}");
        }
        self.selection.written();
        Ok(held)
    }

    fn put_back(&mut self, now: Timestamp, by: Timestamp) -> Result<(), String> {
        transaction(|| {
            self.ensure_current()?;
            limit_waiting();
            Spi::connect_mut(|client| {
                self.statements.put_back.write(client, &[timestamptz(now).into(), by.into()])
            })
            .map_err(|error| error.to_string())
        })
    }

    fn flush(&mut self) {
        self.durability.flush_committed();
    }

    fn show(&mut self, endpoint: i64, in_flight: usize, figures: &Figures, is_saved: bool) {
        self.board.show(endpoint, in_flight, figures, is_saved);
    }

    fn save_figures(&mut self, figures: &[(i64, &Figures)]) -> Result<(), String> {
        if figures.is_empty() {
            return Ok(());
        }
        transaction(|| {
            self.ensure_current()?;
            limit_waiting();
            let args = figures::arguments(figures);
            Spi::connect_mut(|client| self.statements.write_figures.write(client, &args))
                .map_err(|error| error.to_string())
        })
    }
}

impl SpiStore {
    /// `known`: expect a row for every delivery. Answers what is held, and so was not written.
    fn write_ledger(&self, client: &mut SpiClient<'_>, ledger: &Ledger, known: bool) -> spi::SpiResult<Held> {
        let s = &self.statements;
        let (mut again, first): (Vec<&Settled>, Vec<&Settled>) =
            ledger.settled.iter().partition(|row| known || row.delivery.is_some());
        let held = self.held(client, ledger, &again);
        again.retain(|row| !held.deliveries.contains(&(row.endpoint, row.place)));
        if !first.is_empty() {
            deliveries::insert(&first, |row| self.is_logged(row));
        }
        if !again.is_empty() {
            self.write_deliveries(client, &again)?;
        }
        self.write_attempts(client, first.iter().chain(&again).copied())?;
        self.selection.write(client)?;
        let is_free = |id: &i64| !held.endpoints.contains(id);
        let (positions, joined): (&[_], &[_]) =
            if ledger.may_move(&held) { (&ledger.positions, &ledger.joined) } else { (&[], &[]) };
        let (ids, positions): (Vec<i64>, Vec<&Position>) =
            positions.iter().map(|(id, position)| (*id, position)).unzip();
        if !ids.is_empty() {
            let done: Vec<String> = positions.iter().map(|p| p.done.to_string()).collect();
            let upto: Vec<Option<String>> =
                positions.iter().map(|p| p.upto.as_ref().map(|s| s.to_string())).collect();
            let seq: Vec<i64> = positions.iter().map(|p| p.seq).collect();
            s.write_positions.write(client, &[ids.into(), done.into(), upto.into(), seq.into()])?;
        }
        if !joined.is_empty() {
            s.join_head.write(client, &[joined.to_vec().into()])?;
        }
        let disabled: Vec<&(i64, String)> = ledger.disabled.iter().filter(|(id, _)| is_free(id)).collect();
        for (id, reason) in &disabled {
            s.disable.write(client, &[(*id).into(), outside(reason).into()])?;
        }
        let failing = ledger.failing.iter().filter(|(id, _)| is_free(id)).map(|(id, since)| (*id, *since));
        let disabled = disabled.iter().map(|(id, _)| (*id, None));
        self.write_failing(client, failing.chain(disabled))?;
        Ok(held)
    }

    /// What open transactions hold of this ledger; of deliveries only those that have a row.
    fn held(&self, client: &SpiClient<'_>, ledger: &Ledger, again: &[&Settled]) -> Held {
        let mut held = Held::default();
        if !again.is_empty() {
            let args = [
                column(again, |row| row.endpoint),
                column(again, |row| xid_to_sql(row.place.xid)),
                column(again, |row| row.place.seq),
            ];
            let rows = fine(self.statements.held_deliveries.read(client, &args));
            let place = |row: &SpiHeapTupleData<'_>| Place {
                xid: xid_from_sql(required(row, 2)),
                seq: required(row, 3),
            };
            held.deliveries = rows.map(|row| (required(&row, 1), place(&row))).collect();
        }
        let endpoints: Vec<i64> = ledger.endpoints().collect();
        if !endpoints.is_empty() {
            let rows = fine(self.statements.held_endpoints.read(client, &[endpoints.into()]));
            held.endpoints = rows.map(|row| required(&row, 1)).collect();
        }
        held
    }

    /// Since when endpoints have only failed; `None`: they do no more.
    fn write_failing(
        &self,
        client: &mut SpiClient<'_>,
        failing: impl Iterator<Item = (i64, Option<Timestamp>)>,
    ) -> spi::SpiResult<()> {
        let s = &self.statements;
        let (begun, over): (Vec<_>, Vec<_>) = failing.partition(|(_, since)| since.is_some());
        let (ids, since): (Vec<i64>, Vec<_>) =
            begun.into_iter().filter_map(|(id, since)| Some((id, timestamptz(since?)))).unzip();
        if !ids.is_empty() {
            s.write_failing.write(client, &[ids.into(), since.into()])?;
        }
        let over: Vec<i64> = over.into_iter().map(|(id, _)| id).collect();
        if !over.is_empty() {
            s.clear_failing.write(client, &[over.into()])?;
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
    fn write_attempts<'a>(
        &self,
        client: &mut SpiClient<'_>,
        settled: impl Iterator<Item = &'a Settled>,
    ) -> spi::SpiResult<()> {
        let failed: Vec<&Settled> =
            settled.filter(|row| row.state != State::Delivered && self.is_logged(row)).collect();
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
