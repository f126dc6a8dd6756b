//! Scope and filter: which endpoints want an event, as far as PostgreSQL can tell from the row.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;

use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use super::encoding::Text;
use super::rows::{cell, fine, required, xid_from_sql, xid_to_sql};
use super::statement::Statement;
use super::transaction::subtransaction;
use crate::endpoint::Endpoint;
use crate::engine::Registered;
use crate::event::{Event, Pattern, Place};
use crate::scope::Scopes;

/// Failures that are remembered, so that an event that several readers fetch is not counted again.
const MAX_COUNTED: usize = 10_000;

/// Event types whose endpoints are remembered at most.
const MAX_TYPES: usize = 1000;

/// Which endpoints to ask about an event.
type Asked = (Place, Rc<[i64]>);

/// Endpoints that have a scope or a filter, and what became of asking.
pub(super) struct Selection {
    select: Statement,
    write_errors: Statement,
    endpoints: BTreeMap<i64, Vec<Pattern>>,
    /// Those that can be found by what a row holds.
    scopes: Scopes,
    /// All others.
    others: Vec<i64>,
    /// Of the others those that want events of a type, as far as asked.
    others_by_type: HashMap<String, Rc<[i64]>>,
    /// Evaluations that failed and are not written yet.
    errors: HashMap<i64, i64>,
    /// Those that were counted of late.
    counted: HashSet<(i64, Place)>,
}

impl Selection {
    pub(super) fn new(select: Statement, write_errors: Statement) -> Self {
        Self {
            select,
            write_errors,
            endpoints: BTreeMap::new(),
            scopes: Scopes::default(),
            others: Vec::new(),
            others_by_type: HashMap::new(),
            errors: HashMap::new(),
            counted: HashSet::new(),
        }
    }

    /// Takes over the endpoints that have one.
    pub(super) fn learn(&mut self, registered: &[Registered]) {
        let selective = || registered.iter().map(|entry| &*entry.endpoint).filter(|e| e.is_selective);
        self.endpoints = selective().map(|e| (e.id, e.events.clone())).collect();
        self.scopes = Scopes::default();
        self.others_by_type.clear();
        let is_other = |e: &&Endpoint| !e.scope.as_ref().is_some_and(|scope| self.scopes.note(e.id, scope));
        self.others = selective().filter(is_other).map(|e| e.id).collect();
    }

    /// Notes in each event which of these endpoints it is for.
    pub(super) fn apply(&mut self, client: &SpiClient<'_>, events: &mut [Event]) {
        if self.endpoints.is_empty() {
            return;
        }
        let readable = events.iter().filter(|event| event.unreadable.is_none());
        let asked = readable.map(|event| (event.place, self.candidates(event)));
        let asked: Vec<Asked> = asked.filter(|(_, endpoints)| !endpoints.is_empty()).collect();
        if asked.is_empty() {
            return;
        }
        let mut selected = HashMap::new();
        self.ask(client, &asked, &mut selected);
        for event in events {
            event.selected_by = selected.remove(&event.place).unwrap_or_default();
        }
    }

    /// The endpoints that may want this event.
    fn candidates(&mut self, event: &Event) -> Rc<[i64]> {
        if let Some(target) = event.target {
            return self.endpoints.contains_key(&target).then_some(target).into_iter().collect();
        }
        let wants = |id: &i64| {
            let patterns = self.endpoints.get(id);
            patterns.is_some_and(|all| all.iter().any(|pattern| pattern.matches(&event.event_type)))
        };
        let row = event.data.as_deref().or(event.key.as_deref());
        let mut found: Vec<i64> =
            row.map(|row| self.scopes.around(row)).into_iter().flatten().filter(wants).collect();
        let others = match self.others_by_type.get(&event.event_type) {
            Some(known) => Rc::clone(known),
            None => {
                let others: Rc<[i64]> = self.others.iter().copied().filter(wants).collect();
                if self.others_by_type.len() >= MAX_TYPES {
                    self.others_by_type.clear();
                }
                self.others_by_type.insert(event.event_type.clone(), Rc::clone(&others));
                others
            }
        };
        if found.is_empty() {
            return others;
        }
        found.extend(others.iter());
        found.into()
    }

    /// Asks for all at once. Should that fail, for each event, and then for each endpoint alone: what fails alone is not wanted.
    fn ask(&mut self, client: &SpiClient<'_>, asked: &[Asked], selected: &mut HashMap<Place, Vec<i64>>) {
        let select = &self.select;
        // SAFETY: reading leaves nothing half done.
        let answer = unsafe { subtransaction(|| rows(select, client, asked)) };
        match (answer, asked) {
            (Ok(rows), _) => {
                for (place, passes, fails) in rows {
                    selected.entry(place).or_default().extend(passes);
                    fails.into_iter().for_each(|id| self.count(id, place));
                }
            }
            (Err(_), [(place, endpoints)]) => match **endpoints {
                [id] => self.count(id, *place),
                _ => {
                    for id in endpoints.iter() {
                        self.ask(client, &[(*place, Rc::from([*id]))], selected);
                    }
                }
            },
            (Err(_), many) => {
                for one in many {
                    self.ask(client, std::slice::from_ref(one), selected);
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
fn rows(select: &Statement, client: &SpiClient<'_>, asked: &[Asked]) -> Vec<(Place, Vec<i64>, Vec<i64>)> {
    let xids: Vec<i64> = asked.iter().map(|(place, _)| xid_to_sql(place.xid)).collect();
    let seqs: Vec<i64> = asked.iter().map(|(place, _)| place.seq).collect();
    // Events of one type often share a list, which is then passed once.
    let mut lists: Vec<&Rc<[i64]>> = Vec::new();
    let mut list_of = |endpoints| {
        let known = lists.iter().position(|list| Rc::ptr_eq(list, endpoints));
        let at = known.unwrap_or_else(|| {
            lists.push(endpoints);
            lists.len() - 1
        });
        i64::try_from(at + 1).unwrap_or(i64::MAX)
    };
    let numbers: Vec<i64> = asked.iter().map(|(_, endpoints)| list_of(endpoints)).collect();
    let lists: Vec<Text> = lists.into_iter().map(|list| Text::of(&array(list))).collect();
    let table = fine(select.read(client, &[xids.into(), seqs.into(), numbers.into(), lists.into()]));
    let place = |row: &pgrx::spi::SpiHeapTupleData<'_>| Place {
        xid: xid_from_sql(required(row, 1)),
        seq: required(row, 2),
    };
    let ids = |row: &pgrx::spi::SpiHeapTupleData<'_>, n| cell::<Vec<i64>>(row, n).unwrap_or_default();
    table.map(|row| (place(&row), ids(&row, 3), ids(&row, 4))).collect()
}

/// An array as PostgreSQL reads it.
fn array(ids: &[i64]) -> String {
    let ids: Vec<String> = ids.iter().map(i64::to_string).collect();
    format!("{{{}}}", ids.join(","))
}
