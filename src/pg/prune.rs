//! Pruning: deletes what is older than it is kept (`retention.rs` decides what that is), between two rounds of the engine, a few
//! rows at a time, each time in a transaction of its own that waits for nobody.

use std::time::{Duration, Instant};

use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use super::rows::{cell, fine, required, xid_from_sql, xid_to_sql};
use super::statement::Statement;
use super::transaction::{limit_waiting, transaction};
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

macro_rules! statement {
    ($name:literal) => {
        Statement::new(include_str!(concat!("../../sql/statements/", $name, ".sql")))
    };
}

/// Prunes the tables of one database.
pub struct Pruner {
    positions: Statement,
    due: Statement,
    events: Statement,
    delete: Statement,
    dropped: Statement,
    dead: Statement,
    keys: Statement,
    filter_errors: Statement,
    is_current: fn() -> bool,
    walk: Option<Walk>,
    next: Option<Instant>,
    /// When it last looked and found nothing.
    idle_since: Option<Instant>,
    /// What the log should hear.
    trouble: Option<String>,
}

/// What a step found.
enum Found {
    /// Nothing to do.
    Nothing,
    /// What there was to do is done.
    Something,
    /// There may be more to do.
    More,
    /// Somebody stands in the way.
    Obstacle,
}

/// What is to be deleted.
struct Sight {
    passed: u64,
    last: Option<Place>,
    /// Rows of events, of their deliveries, and the ids of these.
    events: Vec<String>,
    deliveries: Vec<String>,
    ids: Vec<i64>,
    /// Places of events that are older than the backlog may be.
    expired: (Vec<i64>, Vec<i64>),
    /// Whether there are dead deliveries, idempotency keys and records of failed filters.
    others: [bool; 3],
}

impl Sight {
    fn is_empty(&self) -> bool {
        self.events.is_empty() && self.expired.0.is_empty() && self.others == [false; 3]
    }

    fn step(&self, took: Duration) -> Step {
        let gone = u64::try_from(self.events.len() + self.expired.0.len()).unwrap_or(u64::MAX);
        Step { last: self.last, passed: self.passed, kept: self.passed.saturating_sub(gone), took }
    }
}

impl Pruner {
    /// A pruner. `is_current` as in [`SpiStore::new`](super::store::SpiStore::new).
    pub fn new(is_current: fn() -> bool) -> Self {
        Self {
            positions: statement!("prune_positions"),
            due: statement!("prune_due"),
            events: statement!("prune_events"),
            delete: statement!("prune_delete"),
            dropped: statement!("prune_dropped"),
            dead: statement!("prune_dead"),
            keys: statement!("prune_keys"),
            filter_errors: statement!("prune_filter_errors"),
            is_current,
            walk: None,
            next: None,
            idle_since: None,
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
        let rests = self.idle_since.is_some_and(|since| since.elapsed() < retention.patience());
        if self.next.is_none() && (!poll || rests) {
            return Duration::MAX;
        }
        self.idle_since = None;
        let goes_on = self.step(now, retention);
        let rest = match goes_on {
            Ok(Found::Nothing) => {
                self.idle_since = Some(started);
                None
            }
            Ok(Found::Something) => None,
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
        let began = Instant::now();
        let mut walk = self.walk.clone().unwrap_or_else(|| Walk::begin(now));
        walk.renew(now);
        let (found, dropped) = transaction(|| {
            if !(self.is_current)() || !may_prune() {
                return Ok((Found::Obstacle, false));
            }
            // Looks first: whoever may write takes a transaction id, and an idle worker takes none.
            let sight = Spi::connect(|client| self.look(client, &walk, retention));
            let (more, dropped) = if sight.is_empty() {
                (false, false)
            } else {
                limit_waiting();
                Spi::connect_mut(|client| self.delete(client, &sight, retention))?
            };
            let goes_on = walk.stepped(sight.step(began.elapsed()), EVENTS);
            let found = match (more || goes_on, sight.is_empty()) {
                (true, _) => Found::More,
                (false, true) => Found::Nothing,
                (false, false) => Found::Something,
            };
            Ok((found, dropped))
        })?;
        // Not after an error: what the step did is undone.
        self.walk = Some(walk);
        if dropped {
            self.trouble = Some("events older than max_backlog_age are dropped undelivered".to_owned());
        }
        Ok(found)
    }

    fn look(&self, client: &SpiClient<'_>, walk: &Walk, retention: Retention) -> Sight {
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
        let rows: Vec<_> = fine(self.events.read(client, &args)).collect();
        let row = fine(rows.first().ok_or("no answer"));
        let args = [seconds(retention.events).into(), seconds(retention.dead).into()];
        let due: Vec<_> = fine(self.due.read(client, &args)).collect();
        let due = fine(due.first().ok_or("no answer"));
        let last = cell::<i64>(row, 2).zip(cell::<i64>(row, 3));
        Sight {
            passed: u64::try_from(required::<i64>(row, 1)).unwrap_or(0),
            last: last.map(|(xid, seq)| Place { xid: xid_from_sql(xid), seq }),
            events: cell(row, 4).unwrap_or_default(),
            deliveries: cell(row, 5).unwrap_or_default(),
            ids: cell(row, 6).unwrap_or_default(),
            expired: (cell(row, 7).unwrap_or_default(), cell(row, 8).unwrap_or_default()),
            others: [required(due, 1), required(due, 2), required(due, 3)],
        }
    }

    /// Answers whether there may be more to do, and whether somebody lost an event.
    fn delete(
        &self,
        client: &mut SpiClient<'_>,
        sight: &Sight,
        retention: Retention,
    ) -> Result<(bool, bool), String> {
        let number = |statement: &Statement, client: &mut SpiClient<'_>, args: &[DatumWithOid<'_>]| -> i64 {
            let rows: Vec<_> = fine(statement.change(client, args)).collect();
            required(fine(rows.first().ok_or("no answer")), 1)
        };
        let keep = seconds(retention.events);
        let [dead, keys, filter_errors] = sight.others;
        let mut more = false;
        if !sight.events.is_empty() {
            let passed = sight.last.map_or(0, |place| xid_to_sql(place.xid));
            let (events, deliveries) = (sight.events.clone(), sight.deliveries.clone());
            let args = [events.into(), deliveries.into(), sight.ids.clone().into(), passed.into()];
            let deleted = number(&self.delete, client, &args);
            if usize::try_from(deleted).ok() != Some(sight.ids.len()) {
                return Err("a delivery was changed at the same time".to_owned());
            }
        }
        if dead {
            more |= number(&self.dead, client, &[seconds(retention.dead).into(), ROWS.into()]) >= ROWS;
        }
        if keys {
            more |= number(&self.keys, client, &[keep.into(), ROWS.into()]) >= ROWS;
        }
        if filter_errors {
            fine(self.filter_errors.write(client, &[keep.into()]));
        }
        let mut dropped = false;
        let (xids, seqs) = &sight.expired;
        for (xids, seqs) in xids.chunks(DROPS).zip(seqs.chunks(DROPS)) {
            dropped |= number(&self.dropped, client, &[xids.to_vec().into(), seqs.to_vec().into()]) > 0;
        }
        Ok((more, dropped))
    }

    fn horizon(&self, client: &SpiClient<'_>) -> Horizon {
        let rows = fine(self.positions.read(client, &[]));
        let snapshots = rows.map(|row| fine(Snapshot::parse(&required::<String>(&row, 1))));
        Horizon::of(&snapshots.collect::<Vec<_>>())
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
