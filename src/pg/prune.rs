//! Pruning: deletes what is older than it is kept (`retention.rs` decides what that is), between two rounds of the engine, a few
//! rows at a time, each time in a transaction of its own that waits for nobody.

use std::time::{Duration, Instant};

use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use super::rows::{cell, fine, required, xid_from_sql, xid_to_sql};
use super::statement::Statement;
use super::transaction::transaction;
use crate::event::{Place, Timestamp};
use crate::position::Snapshot;
use crate::retention::{Horizon, Retention, Step, Walk};

/// Events looked at in a step: about ten milliseconds.
const EVENTS: u64 = 500;
/// Rows of other tables deleted in a step.
const ROWS: i64 = 500;
/// Events dropped in a step: each is compared with every endpoint that lags behind.
const DROPS: usize = 100;
/// A worker with much to prune does it in one part of so many of its time.
const SHARE: u32 = 5;
/// Wait after a step that another session stood in the way of.
const OBSTRUCTED: Duration = Duration::from_secs(1);
/// How often small tables are looked through.
const SELDOM: Duration = Duration::from_secs(60);
/// Milliseconds that a step waits for a row or table that somebody has locked.
const LOCK_TIMEOUT: &str = "100";

macro_rules! statement {
    ($name:literal) => {
        Statement::new(include_str!(concat!("../../sql/statements/", $name, ".sql")))
    };
}

/// Prunes the tables of one database.
pub struct Pruner {
    lock_timeout: Statement,
    snapshot: Statement,
    positions: Statement,
    events: Statement,
    dropped: Statement,
    dead: Statement,
    keys: Statement,
    filter_errors: Statement,
    is_current: fn() -> bool,
    walk: Option<Walk>,
    next: Option<Instant>,
    seldom: Instant,
    /// What the log should hear.
    trouble: Option<String>,
}

/// What a step found.
enum Found {
    /// What there was to do is done.
    Nothing,
    /// There may be more to do.
    More,
    /// Somebody stands in the way.
    Obstacle,
}

impl Pruner {
    /// A pruner. `is_current` as in [`SpiStore::new`](super::store::SpiStore::new).
    pub fn new(is_current: fn() -> bool) -> Self {
        Self {
            lock_timeout: statement!("lock_timeout"),
            snapshot: statement!("snapshot"),
            positions: statement!("prune_positions"),
            events: statement!("prune_events"),
            dropped: statement!("prune_dropped"),
            dead: statement!("prune_dead"),
            keys: statement!("prune_keys"),
            filter_errors: statement!("prune_filter_errors"),
            is_current,
            walk: None,
            next: None,
            seldom: Instant::now(),
            trouble: None,
        }
    }

    /// What went wrong, or was dropped, since the last question, for the log.
    pub fn take_trouble(&mut self) -> Option<String> {
        self.trouble.take()
    }

    /// One turn: at a poll, or when the last step left something, does a step. Answers how long it wants to rest. `serves`: the
    /// extension is here, and this database is no copy.
    pub fn turn(&mut self, serves: bool, poll: bool, now: Timestamp, retention: Retention) -> Duration {
        if !serves {
            (self.walk, self.next) = (None, None);
            return Duration::MAX;
        }
        let started = Instant::now();
        if let Some(next) = self.next.filter(|next| *next > started) {
            return next - started;
        }
        if self.next.is_none() && !poll {
            return Duration::MAX;
        }
        let goes_on = self.step(now, retention);
        let rest = match goes_on {
            Ok(Found::Nothing) => None,
            Ok(Found::More) => Some(started.elapsed() * (SHARE - 1)),
            Ok(Found::Obstacle) => Some(OBSTRUCTED),
            Err(trouble) => {
                self.trouble = Some(format!("pruning is put off: {trouble}"));
                Some(OBSTRUCTED)
            }
        };
        self.next = rest.map(|rest| Instant::now() + rest);
        rest.unwrap_or(Duration::MAX)
    }

    fn step(&mut self, now: Timestamp, retention: Retention) -> Result<Found, String> {
        let mut walk = self.walk.clone().unwrap_or_else(|| Walk::begin(now));
        walk.renew(now);
        let seldom = self.seldom <= Instant::now();
        let (found, dropped) = transaction(|| {
            if !(self.is_current)() || !may_prune() {
                return Ok((Found::Obstacle, false));
            }
            Spi::connect_mut(|client| {
                fine(self.lock_timeout.write(client, &[LOCK_TIMEOUT.into()]));
                let keep = seconds(retention.events);
                if seldom {
                    fine(self.filter_errors.write(client, &[keep.into()]));
                }
                let dead = self.count(client, &self.dead, seconds(retention.dead));
                let keys = self.count(client, &self.keys, keep);
                let (more, dropped) = self.events(client, &mut walk, retention)?;
                let more = more || dead >= ROWS || keys >= ROWS;
                Ok((if more { Found::More } else { Found::Nothing }, dropped))
            })
        })?;
        // Not after an error: what the step did is undone.
        self.walk = Some(walk);
        if seldom {
            self.seldom = Instant::now() + SELDOM;
        }
        if dropped {
            self.trouble = Some("events older than max_backlog_age are dropped undelivered".to_owned());
        }
        Ok(found)
    }

    fn count(&self, client: &mut SpiClient<'_>, statement: &Statement, keep: f64) -> i64 {
        let rows = fine(statement.change(client, &[keep.into(), ROWS.into()]));
        required(&fine(rows.into_iter().next().ok_or("no count")), 1)
    }

    /// A step of the walk through the outbox. Answers whether there may be more to do, and whether somebody lost an event.
    fn events(
        &self,
        client: &mut SpiClient<'_>,
        walk: &mut Walk,
        retention: Retention,
    ) -> Result<(bool, bool), String> {
        let began = Instant::now();
        let horizon = self.horizon(client);
        // Never before its time, even if it is not needed.
        let backlog = retention.backlog.map_or(f64::INFINITY, |age| seconds(age.max(retention.events)));
        let args: [DatumWithOid<'_>; 8] = [
            xid_to_sql(walk.after().xid).into(),
            walk.after().seq.into(),
            xid_to_sql(horizon.below).into(),
            horizon.except.iter().map(u64::to_string).collect::<Vec<_>>().into(),
            i64::try_from(EVENTS).unwrap_or(i64::MAX).into(),
            seconds(retention.events).into(),
            seconds(retention.dead.max(retention.events)).into(),
            // Interval arithmetic knows no infinity before PostgreSQL 17: about three thousand years.
            backlog.min(1e11).into(),
        ];
        let rows: Vec<_> = fine(self.events.change(client, &args)).collect();
        let row = fine(rows.first().ok_or("no answer"));
        let (passed, pruned): (i64, i64) = (required(row, 1), required(row, 4));
        if required::<i64>(row, 5) != 0 {
            return Err("a delivery was changed at the same time".to_owned());
        }
        let last = cell::<i64>(row, 2).zip(cell::<i64>(row, 3));
        let (xids, seqs): (Vec<i64>, Vec<i64>) =
            (cell(row, 6).unwrap_or_default(), cell(row, 7).unwrap_or_default());
        let expired = xids.len();
        let mut dropped = false;
        for (xids, seqs) in xids.chunks(DROPS).zip(seqs.chunks(DROPS)) {
            let args = [xids.to_vec().into(), seqs.to_vec().into()];
            let rows: Vec<_> = fine(self.dropped.change(client, &args)).collect();
            dropped |= required::<i64>(fine(rows.first().ok_or("no answer")), 1) > 0;
        }
        let count = |number: i64| u64::try_from(number).unwrap_or(0);
        let gone = count(pruned) + expired as u64;
        let step = Step {
            last: last.map(|(xid, seq)| Place { xid: xid_from_sql(xid), seq }),
            passed: count(passed),
            kept: count(passed).saturating_sub(gone),
            took: began.elapsed(),
        };
        Ok((walk.stepped(step, EVENTS), dropped))
    }

    fn horizon(&self, client: &SpiClient<'_>) -> Horizon {
        let texts = |statement: &Statement| -> Vec<Snapshot> {
            let rows = fine(statement.read(client, &[]));
            rows.map(|row| fine(Snapshot::parse(&required::<String>(&row, 1)))).collect()
        };
        let now = texts(&self.snapshot);
        let now = fine(now.first().ok_or("no snapshot"));
        Horizon::of(now, &texts(&self.positions))
    }
}

/// Whether nobody is just registering an endpoint, which might still want what nobody wants now, or replaying events. From
/// now on to the end of the transaction nobody can begin.
fn may_prune() -> bool {
    // SAFETY: catalog look-ups and locks, held to the end of the transaction that is open.
    unsafe {
        let schema = pg_sys::get_namespace_oid(c"webhook".as_ptr(), true);
        let lock = |name: &std::ffi::CStr, mode: u32| {
            let table = pg_sys::get_relname_relid(name.as_ptr(), schema);
            table != pg_sys::InvalidOid && pg_sys::ConditionalLockRelationOid(table, mode as pg_sys::LOCKMODE)
        };
        // Against the EXCLUSIVE of webhook.announce_listener and the SHARE of webhook_replay.
        lock(c"installation", pg_sys::RowShareLock) && lock(c"dropped", pg_sys::RowExclusiveLock)
    }
}

fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}
