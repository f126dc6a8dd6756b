//! The collecting half of a round: what the answers mean for deliveries and for endpoints.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Dispatcher;
use crate::engine::lane::{Feed, Lane};
use crate::engine::policy::breaker::Failure;
use crate::engine::store::{Ledger, Settled};
use crate::engine::task::Flight;
use crate::engine::{Completion, Limits, Store, Transport};
use crate::event::Timestamp;
use crate::outcome::{self, Answer, Attempt, State, Verdict};
use crate::settings::Settings;

/// An answer that takes longer than this is not brisk.
const BRISK: Duration = Duration::from_millis(20);
/// A failure that comes later than this without an answer held its slot for a timeout.
const TIMED_OUT: Duration = Duration::from_secs(1);
/// An endpoint that fails for longer than this, in microseconds, is noted as failing in the store: one that now and then
/// fails is not, and costs nothing.
const NOTED_AFTER: Timestamp = 60_000_000;

impl<S: Store, T: Transport> Dispatcher<S, T> {
    pub(super) fn collect(&mut self, now: Timestamp) {
        let mut completions = std::mem::take(&mut self.unsent);
        self.transport.collect(&mut completions);
        for Completion { ticket, attempt } in completions {
            if let Some(flight) = self.flights.remove(&ticket) {
                self.land(flight, attempt, now);
            }
        }
    }

    fn land(&mut self, Flight { lane: id, task, attempt: number }: Flight, attempt: Attempt, now: Timestamp) {
        let verdict = outcome::judge(&attempt.answer);
        self.touched.insert(id);
        let mut slackened = false;
        let mut lane = self.lanes.get_mut(id);
        if let Some(lane) = &mut lane {
            lane.in_flight = lane.in_flight.saturating_sub(1);
            let brisk = attempt.duration <= BRISK && verdict == Verdict::Delivered;
            slackened = std::mem::replace(&mut lane.brisk, brisk) && !brisk;
        }
        let own_schedule = lane.as_ref().and_then(|lane| lane.endpoint.schedule.as_ref());
        let schedule = own_schedule.unwrap_or(&self.settings.retry_schedule);
        let before = task.row.map_or(0, |row| row.attempts_before);
        // Drawn from the operating system, and of no use to a success.
        let mut draw = || if verdict == Verdict::Delivered { 0.5 } else { (self.chance)() };
        let chances = [draw(), draw()];
        let mut decision =
            outcome::decide(&attempt.answer, number.saturating_sub(before), schedule, now, chances[0]);
        if let (Some(lane), Some(until)) = (&mut lane, decision.hold_until) {
            lane.hold_until = lane.hold_until.max(until);
        }
        let is_gone = lane.is_none();
        if verdict == Verdict::OwnFault {
            if let Answer::Failed { message, .. } = &attempt.answer {
                self.trouble = Some(format!("deliveries wait for a fault of our own to end: {message}"));
                self.faults.met(id, message.clone(), now);
            }
            if let (Some(lane), State::Pending { next_attempt_at }) = (lane, decision.state) {
                lane.hold_until = lane.hold_until.max(next_attempt_at);
                lane.take_back(task);
            }
            self.recall(id);
            return;
        }
        self.faults.ended(id);
        if let Some(lane) = lane
            && verdict != Verdict::Poison
        {
            learn(lane, id, &attempt, &mut self.ledger, &self.settings, &self.limits, now, chances[1]);
        }
        if slackened || verdict != Verdict::Delivered {
            self.recall(id);
        }
        if is_gone && task.row.is_none() && decision.state != State::Delivered {
            // Its endpoint is gone or inactive: nobody will try again.
            decision.state = State::Dead;
        }
        if decision.disable {
            self.ledger.disabled.push((id, "410 Gone".to_owned()));
        }
        if let Some(lane) = self.lanes.get_mut(id) {
            lane.figures.count(&attempt, decision.state, now);
            self.unsaved.insert(id);
        }
        self.ledger.settled.push(Settled {
            endpoint: id,
            place: task.event.place,
            event: task.event.id,
            delivery: task.row.map(|row| row.id),
            attempts: number,
            state: decision.state,
            attempt,
            ended_at: now,
        });
        self.landed.push((id, task));
    }

    /// Takes back what the transport has in store for an endpoint.
    pub(super) fn recall(&mut self, id: i64) {
        for ticket in self.transport.recall(id).into_iter().rev() {
            let Some(flight) = self.flights.remove(&ticket) else { continue };
            self.touched.insert(id);
            if let Some(lane) = self.lanes.get_mut(id) {
                lane.in_flight = lane.in_flight.saturating_sub(1);
                lane.take_back(flight.task);
            }
        }
    }

    /// Nothing more leaves for endpoints that were paused, disabled or removed.
    pub(super) fn recall_stopped(&mut self) {
        let stops = |id: &i64| self.lanes.get(*id).is_none_or(|lane| lane.feed == Feed::Stopped);
        let stopped: BTreeSet<i64> = self.flights.values().map(|flight| flight.lane).filter(stops).collect();
        stopped.into_iter().for_each(|id| self.recall(id));
    }
}

/// What an attempt says about its endpoint.
#[allow(clippy::too_many_arguments, reason = "parts of the dispatcher, of which the lane is borrowed")]
fn learn(
    lane: &mut Lane,
    id: i64,
    attempt: &Attempt,
    ledger: &mut Ledger,
    settings: &Settings,
    limits: &Limits,
    now: Timestamp,
    chance: f64,
) {
    let is_answered = matches!(attempt.answer, Answer::Status { .. });
    let timed_out = !is_answered && attempt.duration > TIMED_OUT;
    lane.pace.ended(attempt.duration, !timed_out, now);
    if outcome::judge(&attempt.answer) == Verdict::Delivered {
        let limit = lane.endpoint.max_in_flight.unwrap_or(settings.endpoint_max_in_flight);
        lane.breaker.succeeded(limit);
        if lane.saved_failing.take().is_some() {
            ledger.failing.insert(id, None);
        }
        return;
    }
    let failure = if timed_out { Failure::TimedOut } else { Failure::Answered };
    lane.breaker.failed(failure, limits.failures, now, chance);
    let Some(since) = lane.breaker.failing_since() else { return };
    let failing_for = now.saturating_sub(since);
    if lane.saved_failing.is_none() && (lane.breaker.is_open() || failing_for >= NOTED_AFTER) {
        lane.saved_failing = Some(since);
        ledger.failing.insert(id, Some(since));
    }
    if let Some(limit) = settings.disable_after.filter(|limit| failing_for >= super::micros(*limit))
        && lane.feed != Feed::Stopped
    {
        let what = match &attempt.answer {
            Answer::Status { status, .. } => format!("status {status}"),
            Answer::Failed { fault, .. } => fault.as_str().to_owned(),
        };
        ledger.disabled.push((id, format!("nothing but failures for {}, the last one: {what}", span(limit))));
    }
}

/// A span of time for people.
fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    let unit = [(86_400, "days"), (3600, "hours"), (60, "minutes")];
    let unit = unit.into_iter().find(|(length, _)| seconds >= *length && seconds.is_multiple_of(*length));
    let (length, name) = unit.unwrap_or((1, "seconds"));
    match seconds / length {
        1 => format!("a {}", name.trim_end_matches('s')).replace("a hour", "an hour"),
        count => format!("{count} {name}"),
    }
}
