//! Scope and filter: which endpoints want an event, as far as PostgreSQL can tell from the row.

use std::collections::{BTreeSet, HashMap, HashSet};

use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use super::encoding::Text;
use super::rows::{cell, fine, required, xid_from_sql, xid_to_sql};
use super::statement::Statement;
use super::transaction::subtransaction;
use crate::engine::Registered;
use crate::event::{Event, Pattern, Place};

/// Failures that are remembered, so that an event that several readers fetch is not counted again.
const MAX_COUNTED: usize = 10_000;

/// Endpoints that have a scope or a filter, and what became of asking.
pub(super) struct Selection {
    select: Statement,
    write_errors: Statement,
    endpoints: Vec<(i64, Vec<Pattern>)>,
    /// Evaluations that failed and are not written yet.
    errors: HashMap<i64, i64>,
    /// Those that were counted of late.
    counted: HashSet<(i64, Place)>,
}

impl Selection {
    pub(super) fn new(select: Statement, write_errors: Statement) -> Self {
        Self { select, write_errors, endpoints: Vec::new(), errors: HashMap::new(), counted: HashSet::new() }
    }

    /// Takes over the endpoints that have one.
    pub(super) fn learn(&mut self, registered: &[Registered]) {
        let selective = registered.iter().map(|entry| &entry.endpoint).filter(|e| e.is_selective);
        self.endpoints = selective.map(|e| (e.id, e.events.clone())).collect();
    }

    /// Notes in each event which of these endpoints it is for.
    pub(super) fn apply(&mut self, client: &SpiClient<'_>, events: &mut [Event]) {
        if self.endpoints.is_empty() {
            return;
        }
        let mut wishes: BTreeSet<(i64, &str)> = BTreeSet::new();
        let mut known: BTreeSet<(&str, Option<i64>)> = BTreeSet::new();
        let readable = |event: &&Event| event.unreadable.is_none();
        for event in events.iter().filter(readable) {
            if !known.insert((&event.event_type, event.target)) {
                continue;
            }
            let wants = |(id, patterns): &&(i64, Vec<Pattern>)| match event.target {
                Some(target) => target == *id,
                None => patterns.iter().any(|pattern| pattern.matches(&event.event_type)),
            };
            wishes
                .extend(self.endpoints.iter().filter(wants).map(|(id, _)| (*id, event.event_type.as_str())));
        }
        if wishes.is_empty() {
            return;
        }
        let wishes: Vec<(i64, String)> = wishes.into_iter().map(|(id, t)| (id, t.to_owned())).collect();
        let types: BTreeSet<&str> = wishes.iter().map(|(_, t)| t.as_str()).collect();
        let wanted = events.iter().filter(readable).filter(|e| types.contains(e.event_type.as_str()));
        let places: Vec<Place> = wanted.map(|event| event.place).collect();
        let mut selected = HashMap::new();
        self.ask(client, &places, &wishes, &mut selected);
        for event in events {
            event.selected_by = selected.remove(&event.place).unwrap_or_default();
        }
    }

    /// Asks for all at once. Should that fail, for each event, and then for each endpoint alone: what fails alone is not wanted.
    fn ask(
        &mut self,
        client: &SpiClient<'_>,
        places: &[Place],
        wishes: &[(i64, String)],
        selected: &mut HashMap<Place, Vec<i64>>,
    ) {
        let select = &self.select;
        // SAFETY: reading leaves nothing half done.
        let answer = unsafe { subtransaction(|| rows(select, client, places, wishes)) };
        match (answer, places, wishes) {
            (Ok(rows), _, _) => {
                for (place, passes, fails) in rows {
                    selected.entry(place).or_default().extend(passes);
                    fails.into_iter().for_each(|id| self.count(id, place));
                }
            }
            (Err(_), [place], [(id, _)]) => self.count(*id, *place),
            (Err(_), [_], many) => {
                for wish in many {
                    self.ask(client, places, std::slice::from_ref(wish), selected);
                }
            }
            (Err(_), many, _) => {
                for place in many {
                    self.ask(client, std::slice::from_ref(place), wishes, selected);
                }
            }
        }
    }

    fn count(&mut self, id: i64, place: Place) {
        if self.counted.len() >= MAX_COUNTED {
            self.counted.clear();
        }
        if self.counted.insert((id, place)) {
            *self.errors.entry(id).or_default() += 1;
        }
    }

    /// Writes what has been counted; to be forgotten when the transaction is committed.
    pub(super) fn write(&self, client: &mut SpiClient<'_>) -> spi::SpiResult<()> {
        if self.errors.is_empty() {
            return Ok(());
        }
        let (ids, counts): (Vec<i64>, Vec<i64>) = self.errors.iter().map(|(id, count)| (*id, *count)).unzip();
        self.write_errors.write(client, &[ids.into(), counts.into()])
    }

    /// What was counted is written.
    pub(super) fn written(&mut self) {
        self.errors.clear();
    }
}

/// For each event the endpoints that want it, and those that could not tell.
fn rows(
    select: &Statement,
    client: &SpiClient<'_>,
    places: &[Place],
    wishes: &[(i64, String)],
) -> Vec<(Place, Vec<i64>, Vec<i64>)> {
    let xids: Vec<i64> = places.iter().map(|place| xid_to_sql(place.xid)).collect();
    let seqs: Vec<i64> = places.iter().map(|place| place.seq).collect();
    let (ids, types): (Vec<i64>, Vec<Text>) =
        wishes.iter().map(|(id, event_type)| (*id, Text::of(event_type))).unzip();
    let table = fine(select.read(client, &[xids.into(), seqs.into(), ids.into(), types.into()]));
    let place = |row: &pgrx::spi::SpiHeapTupleData<'_>| Place {
        xid: xid_from_sql(required(row, 1)),
        seq: required(row, 2),
    };
    let ids = |row: &pgrx::spi::SpiHeapTupleData<'_>, n| cell::<Vec<i64>>(row, n).unwrap_or_default();
    table.map(|row| (place(&row), ids(&row, 3), ids(&row, 4))).collect()
}
