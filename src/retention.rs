//! Retention: which events nobody needs any more, and the walk that finds them.
//!
//! An event goes when it is old enough, every position has consumed it, and no delivery needs it. The outbox is walked in the
//! order of its primary key, oldest transactions first, a few events at a time:
//!
//! ```text
//!   ░░░░░░░░░▒▒▓▒▒▒▒▓▒▒▒████████████████████
//!   deleted  ▲ passed: deleted, ▓ kept      ▲ too young, or not consumed: the walk waits here
//!            └ what a dead or pending delivery keeps
//! ```
//!
//! The walk remembers where it stands, so that nobody looks again through what is deleted and not vacuumed. What it left
//! behind is looked at by a new walk from the start, when the last one cost a hundredth of the time since.

use std::time::Duration;

use crate::event::{Place, Timestamp};
use crate::position::Snapshot;

/// How long what is kept is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Events and their deliveries.
    pub events: Duration,
    /// Dead deliveries and their events.
    pub dead: Duration,
    /// Events that an endpoint has not taken yet; `None`: for ever.
    pub backlog: Option<Duration>,
}

impl Retention {
    /// How long pruning may rest after it found nothing: a tenth of the shortest time, so that things go about when they should,
    /// and a minute at most.
    pub fn patience(&self) -> Duration {
        let times = [Some(self.events), Some(self.dead), self.backlog];
        let shortest = times.into_iter().flatten().min().unwrap_or_default();
        (shortest / 10).min(Duration::from_secs(60))
    }
}

/// Up to where the outbox is consumed by all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Horizon {
    /// This transaction and later ones are not.
    pub below: u64,
    /// Nor are these; ascending.
    pub except: Vec<u64>,
}

impl Horizon {
    /// What all of these snapshots see: the `done` of each position, and what has completed.
    pub fn of(snapshots: &[Snapshot]) -> Self {
        let below = snapshots.iter().map(Snapshot::xmax).min().unwrap_or(0);
        let running = snapshots.iter().flat_map(|snapshot| snapshot.xip().iter().copied());
        let mut except: Vec<u64> = running.filter(|xid| *xid < below).collect();
        except.sort_unstable();
        except.dedup();
        Self { below, except }
    }
}

/// What one step of the walk found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// The last event it passed; `None`: it stands before one that must wait.
    pub last: Option<Place>,
    /// Events that it passed.
    pub passed: u64,
    /// Those of them that it left.
    pub kept: u64,
    /// Time it took.
    pub took: Duration,
}

/// The share of the time that walks over what was kept may take: one part in so many.
const WALK_SHARE: u32 = 100;

/// Where the walk through the outbox stands.
#[derive(Debug, Clone)]
pub struct Walk {
    after: Place,
    /// Events that this walk has left behind.
    kept: u64,
    began_at: Timestamp,
    /// Time since the start, until it first came to an event that must wait.
    cost: Duration,
    has_arrived: bool,
}

impl Walk {
    /// A walk from the start.
    pub fn begin(now: Timestamp) -> Self {
        let after = Place { xid: 0, seq: 0 };
        Self { after, kept: 0, began_at: now, cost: Duration::ZERO, has_arrived: false }
    }

    /// The place after which the next step begins.
    pub fn after(&self) -> Place {
        self.after
    }

    /// A step of at most `limit` events was made. True: there may be more to do at once.
    pub fn stepped(&mut self, step: Step, limit: u64) -> bool {
        self.kept += step.kept;
        if let Some(last) = step.last {
            self.after = last;
        }
        if !self.has_arrived {
            self.cost += step.took;
        }
        let goes_on = step.passed >= limit;
        self.has_arrived |= !goes_on;
        goes_on
    }

    /// Begins anew where something was left behind, and that costs little enough.
    pub fn renew(&mut self, now: Timestamp) {
        let elapsed = now.saturating_sub(self.began_at);
        let due = Timestamp::try_from((self.cost * WALK_SHARE).as_micros()).unwrap_or(Timestamp::MAX);
        if self.has_arrived && self.kept > 0 && elapsed >= due {
            *self = Self::begin(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(text: &str) -> Snapshot {
        Snapshot::parse(text).unwrap()
    }

    #[test]
    fn what_one_position_has_not_consumed_is_not_over() {
        let horizon = Horizon::of(&["105:130:105", "100:120:100,110", "90:115:90"].map(snapshot));
        assert_eq!(horizon, Horizon { below: 115, except: vec![90, 100, 105, 110] });
    }

    #[test]
    fn the_horizon_is_exactly_what_all_snapshots_see() {
        let all = ["5:9:5,7", "4:12:4,6,10", "8:8:"].map(snapshot);
        let horizon = Horizon::of(&all);
        for xid in 1..20 {
            let seen_by_all = all.iter().all(|snapshot| snapshot.sees(xid));
            assert_eq!(xid < horizon.below && !horizon.except.contains(&xid), seen_by_all, "{xid}");
        }
    }

    #[test]
    fn the_shortest_time_says_how_often_to_look() {
        let of = |events, dead, backlog: Option<u64>| {
            let [events, dead] = [events, dead].map(Duration::from_secs);
            Retention { events, dead, backlog: backlog.map(Duration::from_secs) }.patience().as_secs()
        };
        assert_eq!((of(604_800, 2_592_000, None), of(100, 200, Some(50)), of(0, 9, None)), (60, 5, 0));
    }

    #[test]
    fn without_positions_all_that_has_completed_is_consumed() {
        assert_eq!(Horizon::of(&[snapshot("7:9:7")]), Horizon { below: 9, except: vec![7] });
        assert_eq!(Horizon::of(&[]).below, 0, "who knows nothing deletes nothing");
    }

    fn step(xid: u64, passed: u64, kept: u64, ms: u64) -> Step {
        let last = (passed > 0).then_some(Place { xid, seq: 1 });
        Step { last, passed, kept, took: Duration::from_millis(ms) }
    }

    #[test]
    fn a_walk_goes_on_where_it_stands() {
        let mut walk = Walk::begin(0);
        assert!(walk.stepped(step(10, 100, 0, 1), 100));
        assert!(!walk.stepped(step(20, 40, 0, 1), 100));
        assert!(!walk.stepped(step(0, 0, 0, 1), 100));
        walk.renew(Timestamp::MAX);
        assert_eq!(walk.after(), Place { xid: 20, seq: 1 }, "nothing was left behind, so nobody looks back");
    }

    #[test]
    fn a_walk_that_left_something_behind_begins_anew_when_it_has_become_cheap() {
        let mut walk = Walk::begin(0);
        assert!(walk.stepped(step(10, 100, 7, 50), 100));
        walk.renew(Timestamp::MAX);
        assert_eq!(walk.after().xid, 10, "it has not arrived");
        assert!(!walk.stepped(step(20, 40, 0, 50), 100));
        assert!(!walk.stepped(step(20, 1, 0, 5000), 100));
        walk.renew(9_999_999);
        assert_eq!(walk.after().xid, 20);
        walk.renew(10_000_000);
        assert_eq!(walk.after().xid, 0);
    }
}
