//! A reader: walks the outbox from a position, and knows how much of what it handed out is settled.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use super::search::Search;
use super::store::{Kind, Part, Slice};
use crate::event::Place;
use crate::position::{Leg, Position, Snapshot};

/// Whether what a reader meets may have a delivery row from before it started.
#[derive(Debug)]
enum Check {
    /// It has just started.
    Begins,
    /// Until it has consumed what this snapshot sees, which was taken after the start.
    Until(Arc<Snapshot>),
    /// Everything from before the start lies behind it.
    Over,
}

/// Event types that are remembered as unwanted at most.
const MAX_UNWANTED: usize = 100;

/// Walks the outbox.
#[derive(Debug)]
pub struct Reader {
    /// Everything before it has been handed out.
    pub position: Position,
    /// What is handed out and not settled.
    pub window: Window,
    /// An event was passed since the position was last saved.
    pub has_passed: bool,
    /// The stretch being read.
    leg: Option<Leg>,
    /// The next places of the leg.
    plan: VecDeque<Place>,
    /// The number up to which the plan reaches; `None`: to the end of the leg.
    reaches: Option<i64>,
    /// What the plan leaves out.
    left_out: Vec<Kind>,
    /// The plan is being made.
    search: Option<Search>,
    /// Event types that it met and nobody wanted: a plan may leave them out.
    unwanted: BTreeSet<String>,
    check: Check,
}

impl Reader {
    /// A reader that starts at a saved position.
    pub fn at(position: Position) -> Self {
        let leg = position.rest();
        Self {
            position,
            window: Window::default(),
            has_passed: false,
            leg,
            plan: VecDeque::new(),
            reaches: Some(0),
            left_out: Vec::new(),
            search: None,
            unwanted: BTreeSet::new(),
            check: Check::Begins,
        }
    }

    /// Where it would have to start again: before the first event that is not settled.
    pub fn low_water(&self) -> &Position {
        self.window.front().unwrap_or(&self.position)
    }

    /// Whether what it reads may have a delivery row from before it started: it, the head or another process had read
    /// further then, and nobody knows how far. At the latest up to `now`, a snapshot from after the start.
    pub fn must_verify(&mut self, now: impl FnOnce() -> Arc<Snapshot>) -> bool {
        if let Check::Begins = self.check {
            self.check = Check::Until(now());
        }
        !matches!(self.check, Check::Over)
    }

    /// Whether it stands between two legs.
    pub fn is_between_legs(&self) -> bool {
        self.leg.is_none()
    }

    /// Begins a leg.
    pub fn begin(&mut self, leg: Leg) {
        self.position = leg.from.clone();
        self.leg = Some(leg);
        self.forget_plan();
    }

    /// What is planned has to be planned anew, from where the reader stands.
    pub fn forget_plan(&mut self) {
        self.plan.clear();
        self.reaches = Some(0);
        self.left_out.clear();
        self.search = None;
    }

    /// The leg to plan next, if the plan is used up and the leg goes on: from where the reader stands now.
    pub fn unplanned(&self) -> Option<Leg> {
        let leg = self.leg.as_ref()?;
        self.plan.is_empty().then(|| Leg { from: self.position.clone(), last: leg.last })
    }

    /// Takes a plan over.
    pub fn planned(&mut self, part: Part) {
        self.plan = part.places.into();
        self.reaches = part.reaches;
        self.left_out = part.left_out;
        self.end_plan_if_done();
    }

    /// Begins to search the leg for the next plan.
    pub fn begin_search(&mut self, search: Search) {
        self.search = Some(search);
    }

    /// The search that goes on.
    pub fn search(&self) -> Option<&Search> {
        self.search.as_ref()
    }

    /// Takes over what was found; after the last slice that is the plan.
    pub fn found(&mut self, slice: Slice) {
        if let Some(mut search) = self.search.take() {
            if search.found(slice) {
                self.planned(search.finish());
            } else {
                self.search = Some(search);
            }
        }
    }

    /// Remembers that nobody wants events of this type.
    pub fn met_unwanted(&mut self, event_type: &str) {
        if self.unwanted.len() < MAX_UNWANTED && !self.unwanted.contains(event_type) {
            self.unwanted.insert(event_type.to_owned());
        }
    }

    /// The types that nobody wants, as far as it has met them. `is_wanted` says whether somebody does by now.
    pub fn unwanted(&mut self, mut is_wanted: impl FnMut(&str) -> bool) -> Vec<String> {
        self.unwanted.retain(|event_type| !is_wanted(event_type));
        self.unwanted.iter().cloned().collect()
    }

    /// What the plan leaves out, or the search for it.
    pub fn left_out(&self) -> &[Kind] {
        self.search.as_ref().map_or(&self.left_out, |search| &search.left_out)
    }

    /// The next places to hand out, at most `limit`.
    pub fn take(&mut self, limit: usize) -> Vec<Place> {
        let count = limit.min(self.plan.len());
        self.plan.drain(..count).collect()
    }

    /// Gives back the last places of what [`take`](Self::take) gave.
    pub fn put_back(&mut self, places: &[Place]) {
        places.iter().rev().for_each(|&place| self.plan.push_front(place));
    }

    /// Moves past a place that [`take`](Self::take) gave.
    pub fn pass(&mut self, place: Place) {
        self.position.advance_to(place.seq);
        self.has_passed = true;
    }

    /// To be called when all that was taken has been passed.
    pub fn end_plan_if_done(&mut self) {
        if !self.plan.is_empty() || self.search.is_some() {
            return;
        }
        self.left_out.clear();
        if let Some(reached) = self.reaches {
            // What was left out is passed, too.
            self.has_passed |= reached > self.position.seq;
            self.position.advance_to(reached);
        } else if let Some(leg) = self.leg.take() {
            self.position = leg.end();
            if matches!(&self.check, Check::Until(start) if start.is_within(&self.position.done)) {
                self.check = Check::Over;
            }
        }
    }

    /// Moves to a position without reading: nobody needs what stands between, and nothing is unsettled.
    pub fn go_to(&mut self, position: Position) {
        *self = Self { has_passed: self.has_passed, ..Self::at(position) };
    }

    /// Whether places are planned and not taken yet.
    pub fn has_plan(&self) -> bool {
        !self.plan.is_empty()
    }
}

/// Events that are handed out and not settled, in the order of reading.
#[derive(Debug, Default)]
pub struct Window {
    /// Number of the first entry.
    first: u64,
    entries: VecDeque<Entry>,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    /// Where the reader stood before the event.
    mark: Position,
    /// Lanes that have not settled it.
    open: u32,
    bytes: usize,
}

impl Window {
    /// Enters an event that `lanes` lanes must settle (at least one). Answers the entry's number.
    pub fn open(&mut self, mark: Position, lanes: u32, bytes: usize) -> u64 {
        self.entries.push_back(Entry { mark, open: lanes, bytes });
        self.bytes += bytes;
        self.first + self.entries.len() as u64 - 1
    }

    /// One lane has settled the entry.
    pub fn settle(&mut self, number: u64) {
        let Some(entry) = self.entry_mut(number) else { return };
        entry.open = entry.open.saturating_sub(1);
        if entry.open == 0 {
            let bytes = std::mem::take(&mut entry.bytes);
            self.bytes -= bytes;
        }
        while self.entries.front().is_some_and(|entry| entry.open == 0) {
            self.entries.pop_front();
            self.first += 1;
        }
    }

    fn entry_mut(&mut self, number: u64) -> Option<&mut Entry> {
        let at = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.entries.get_mut(at)
    }

    /// Where the reader stood before this entry.
    pub fn mark(&self, number: u64) -> Option<&Position> {
        let at = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.entries.get(at).map(|entry| &entry.mark)
    }

    /// Where the reader stood before the first entry.
    pub fn front(&self) -> Option<&Position> {
        self.entries.front().map(|entry| &entry.mark)
    }

    /// Number of the first entry.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// Entries, settled ones behind an open one included.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether everything is settled.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of the events that are not settled.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}
