//! The writing half of a round: outcomes and positions, in groups, one short transaction each.

use std::time::Duration;

use super::{Dispatcher, micros};
use crate::endpoint::Ordering;
use crate::engine::faults::STORE;
use crate::engine::lane::Feed;
use crate::engine::policy::breaker::Breaker;
use crate::engine::task::Row;
use crate::engine::{Held, Settled, Store, Transport, Turn, feed};
use crate::event::Timestamp;
use crate::outcome::State;

/// Wait before a write that failed is tried again.
const WRITE_RETRY: Duration = Duration::from_secs(1);
/// Wait before an outcome is written that somebody's open transaction holds.
const HELD_RETRY: Duration = Duration::from_millis(500);
/// How often positions are saved at the most. Old ones are of no use to anybody, but while some transaction has an old
/// snapshot none of their versions can be removed, and every look at the row passes them all. What a crash takes back
/// with an old position is read again, and is not sent again: it has its delivery row.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// How long an outcome may wait for others to be written with.
const GROUP_WAIT: Duration = Duration::from_millis(5);

impl<S: Store, T: Transport> Dispatcher<S, T> {
    /// Whether the last write succeeded, or may be tried again.
    pub(super) fn may_write(&self, turn: Turn) -> bool {
        turn.now >= self.write_after
    }

    /// Whether outcomes should wait no longer for others. One statement for forty costs little more than for one, so they
    /// are written together; they hold slots meanwhile, and nobody sees them.
    pub(super) fn is_group_due(&self, now: Timestamp) -> bool {
        let outcomes = &self.ledger.settled;
        self.flights.is_empty()
            || !self.ledger.disabled.is_empty()
            || 4 * outcomes.len() >= self.settings.max_in_flight
            || self.group_due_at().is_some_and(|at| at <= now)
            || self.held_at().is_some_and(|at| at <= now)
            || self.are_positions_due(now)
    }

    /// When to save positions that the last outcomes have moved.
    pub(super) fn positions_at(&self) -> Option<Timestamp> {
        (self.settled_since && !self.endpoints_changed).then_some(self.positions_after)
    }

    fn are_positions_due(&self, now: Timestamp) -> bool {
        self.positions_at().is_some_and(|at| at <= now)
    }

    /// When to try again to write what is held.
    pub(super) fn held_at(&self) -> Option<Timestamp> {
        (!self.held.is_empty()).then_some(self.held_until)
    }

    /// When the outcomes that wait are written at the latest.
    pub(super) fn group_due_at(&self) -> Option<Timestamp> {
        let oldest = self.ledger.settled.first()?;
        Some(oldest.ended_at.saturating_add(micros(GROUP_WAIT)))
    }

    /// Frees the slots that outcomes hold. False: they could not be written.
    pub(super) fn make_durable(&mut self, turn: Turn) -> bool {
        let written = self.write(turn);
        if self.at_risk > 0 {
            self.store.flush();
            self.at_risk = 0;
        }
        written
    }

    /// Writes the ledger. False: it could not be written, and nothing else may happen before it is.
    pub(super) fn write(&mut self, turn: Turn) -> bool {
        if !self.may_write(turn) {
            return false;
        }
        if self.held_at().is_some_and(|at| at <= turn.now) {
            let (settled, landed): (Vec<Settled>, Vec<_>) =
                std::mem::take(&mut self.held).into_iter().unzip();
            self.ledger.settled.extend(settled);
            self.landed.extend(landed);
        }
        // Positions alone are written when outcomes have moved them, for those who look at the backlog, or at the safety scan.
        if self.ledger.settled.is_empty() && !turn.poll && !self.are_positions_due(turn.now) {
            return true;
        }
        self.ledger.positions.clear();
        self.ledger.joined.clear();
        // Not before the change was read: an endpoint that starts anew at the present has a position in the store that must
        // not be overwritten.
        if !turn.endpoints_changed && (turn.poll || turn.now >= self.positions_after) {
            self.note_positions();
            self.settled_since = false;
            self.positions_after = turn.now.saturating_add(micros(SAVE_EVERY));
        }
        if self.ledger.is_empty() {
            return true;
        }
        match self.store.write(&self.ledger) {
            Ok(held) => {
                self.faults.ended(STORE);
                self.written(&held);
            }
            Err(error) => {
                self.trouble = Some(error.to_string());
                self.faults.met(STORE, format!("outcomes cannot be written: {error}"), turn.now);
                self.write_after = turn.now.saturating_add(micros(WRITE_RETRY));
                return false;
            }
        }
        true
    }

    /// Notes which positions have moved.
    fn note_positions(&mut self) {
        for (id, lane) in self.lanes.active() {
            match lane.position_to_save(&self.head) {
                Some(position) if lane.saved.as_ref() != Some(position) => {
                    self.ledger.positions.push((id, position.clone()));
                }
                None if lane.saved.is_some() => self.ledger.joined.push(id),
                _ => {}
            }
        }
        // Moving over foreign transactions alone is no news: an idle worker would write whenever somebody commits. But who
        // joins the head relies on its position.
        let is_news = self.head.has_passed || !self.ledger.joined.is_empty();
        if is_news && *self.head.low_water() != self.saved_head {
            self.ledger.positions.push((0, self.head.low_water().clone()));
        }
    }

    /// The ledger is written, but for what is held: windows move.
    fn written(&mut self, held: &Held) {
        let mut ledger = std::mem::take(&mut self.ledger);
        let landed = std::mem::take(&mut self.landed);
        let is_held = |row: &Settled| held.deliveries.contains(&(row.endpoint, row.place));
        let (kept, written): (Vec<_>, Vec<_>) =
            std::mem::take(&mut ledger.settled).into_iter().zip(landed).partition(|(row, _)| is_held(row));
        if !kept.is_empty() {
            self.held.extend(kept);
            self.held_until = self.clock.saturating_add(micros(HELD_RETRY));
        }
        let is_free = |id: &i64| !held.endpoints.contains(id);
        if !ledger.may_move(held) {
            ledger.positions.clear();
            ledger.joined.clear();
        }
        let (disabled, later): (Vec<_>, Vec<_>) =
            ledger.disabled.into_iter().partition(|(id, _)| is_free(id));
        self.ledger.disabled = later;
        // Whoever goes on failing meanwhile is to be disabled again and again.
        self.ledger.disabled.sort();
        self.ledger.disabled.dedup_by_key(|(id, _)| *id);
        self.ledger.failing = ledger.failing.into_iter().filter(|(id, _)| !is_free(id)).collect();
        self.at_risk += written.len();
        self.settled_since |= !written.is_empty();
        for (settled, (id, task)) in written {
            let Some(lane) = self.lanes.get_mut(id) else { continue };
            lane.flying.remove(&settled.place);
            // What was asked for is counted with what failed where there is an order.
            let counts = |row: Row| !row.is_asked() || lane.order.rule() != Ordering::None;
            let was_pending = task.row.is_some_and(counts);
            match settled.state {
                State::Pending { next_attempt_at } => {
                    lane.pending += usize::from(!was_pending);
                    lane.next_due =
                        Some(lane.next_due.map_or(next_attempt_at, |due| due.min(next_attempt_at)));
                }
                State::Delivered | State::Dead => {
                    lane.pending = lane.pending.saturating_sub(usize::from(was_pending));
                    lane.order.ended(&task.event, &mut lane.queue);
                    // Another delivery of its key may have waited for it.
                    if task.row.is_some() && lane.order.rule() != Ordering::None && lane.pending > 0 {
                        lane.next_due = Some(self.clock);
                    }
                }
            }
            lane.settle(task.origin, &mut self.head);
            // An open breaker is fed nothing: what waits is read again, one event at a time, and holds up no window.
            let waits = !lane.queue.is_empty() || lane.order.parked() > 0;
            if waits && !lane.breaker.admits(self.clock) && lane.feed != Feed::Stopped {
                feed::leave(lane, id, &mut self.head, &mut self.flights, Feed::Own);
            }
        }
        for (id, position) in ledger.positions {
            match self.lanes.get_mut(id) {
                Some(lane) => lane.saved = Some(position),
                None => {
                    self.saved_head = position;
                    // It stands further by now where the last outcomes were written: the outbox is pruned up to what is saved.
                    self.head.has_passed =
                        !self.head.window.is_empty() || *self.head.low_water() != self.saved_head;
                }
            }
        }
        for id in ledger.joined {
            if let Some(lane) = self.lanes.get_mut(id) {
                lane.saved = None;
                if lane.feed == Feed::Joining {
                    lane.feed = Feed::Head;
                    lane.reader = None;
                }
            }
        }
        for (id, _) in disabled {
            if let Some(lane) = self.lanes.get_mut(id) {
                // Whoever resumes it begins with a clean record.
                lane.breaker = Breaker::default();
                lane.saved_failing = None;
                feed::leave(lane, id, &mut self.head, &mut self.flights, Feed::Stopped);
            }
        }
    }
}
