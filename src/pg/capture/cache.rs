//! The plans of this backend, by trigger, and what throws them away.
//!
//! Relation cache invalidations arrive with every lock on a table, and on demand: a change of the table itself comes
//! from PostgreSQL, one of the attachments or endpoints from the trigger `webhook.changed()` on those tables.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use pgrx::prelude::*;

use super::backend::Backend;
use super::catalog::{self, Tables};
use super::outbox::COLUMNS;
use super::plan::Plan;
use crate::event::Pattern;
use crate::pg::append::Target;
use crate::pg::encoding::Text;

#[derive(Default)]
struct Cache {
    tables: Option<Tables>,
    /// What is known of the outbox.
    outbox: Option<Rc<Target<{ COLUMNS.len() }>>>,
    /// The patterns of all endpoints that are not inactive.
    listeners: Option<Rc<Vec<Pattern>>>,
    /// By trigger; `None` for triggers that capture nothing.
    plans: Option<HashMap<pg_sys::Oid, Found>>,
    /// The last one found: the rows of a statement ask for the same trigger over and over.
    last: Option<(pg_sys::Oid, Rc<Plan>)>,
}

#[derive(Clone)]
enum Found {
    Plan(Rc<Plan>),
    Nothing { table: pg_sys::Oid },
}

static CACHE: Backend<Cache> =
    Backend::new(Cache { tables: None, outbox: None, listeners: None, plans: None, last: None });
/// Counts invalidations, so that a plan knows whether one came while it was made.
static GENERATION: AtomicU64 = AtomicU64::new(0);
/// An invalidation came while the cache was in use: throw all away at the next look.
static MISSED: AtomicBool = AtomicBool::new(false);
/// The callback is registered.
static REGISTERED: AtomicBool = AtomicBool::new(false);

/// Counts what this backend was told of changed relations.
pub(super) fn generation() -> u64 {
    GENERATION.load(Ordering::Relaxed)
}

/// The plan of a trigger, or `None` if it captures nothing.
///
/// # Safety
/// Both come from the executor: an open, locked table and one of its triggers.
pub(super) unsafe fn plan(relation: pg_sys::Relation, trigger: &pg_sys::Trigger) -> Option<Rc<Plan>> {
    if !REGISTERED.swap(true, Ordering::Relaxed) {
        // SAFETY: the callback is a plain function that lives as long as the process.
        unsafe { pg_sys::CacheRegisterRelcacheCallback(Some(on_invalidation), pg_sys::Datum::null()) };
    }
    if MISSED.swap(false, Ordering::Relaxed) {
        // Dropped outside the borrow: deleting memory contexts calls PostgreSQL.
        drop(CACHE.with(std::mem::take));
    }
    let found = CACHE.with(|cache| match &cache.last {
        Some((oid, plan)) if *oid == trigger.tgoid => Some(Found::Plan(plan.clone())),
        _ => {
            let found = cache.plans.as_ref()?.get(&trigger.tgoid)?.clone();
            if let Found::Plan(plan) = &found {
                cache.last = Some((trigger.tgoid, plan.clone()));
            }
            Some(found)
        }
    });
    let found = match found {
        Some(found) => found,
        // SAFETY: the caller's promise.
        None => unsafe { make(relation, trigger) },
    };
    match found {
        Found::Plan(plan) => Some(plan),
        Found::Nothing { .. } => None,
    }
}

/// # Safety
/// As for [`plan`].
unsafe fn make(relation: pg_sys::Relation, trigger: &pg_sys::Trigger) -> Found {
    // SAFETY: the caller's promise.
    let table = unsafe { (*relation).rd_id };
    let before = GENERATION.load(Ordering::Relaxed);
    let tables = self::tables();
    // SAFETY: the caller's promise.
    let found = match tables
        .and_then(|tables| unsafe { Plan::build(relation, trigger, &tables, &listeners(&tables)) })
    {
        Some(plan) => Found::Plan(Rc::new(plan)),
        None => Found::Nothing { table },
    };
    // Made from a state that changed meanwhile: good for this row, made again for the next.
    if GENERATION.load(Ordering::Relaxed) == before {
        CACHE.with(|cache| {
            cache.plans.get_or_insert_with(HashMap::new).insert(trigger.tgoid, found.clone());
        });
    }
    found
}

/// The private tables, looked up once.
pub(super) fn tables() -> Option<Tables> {
    if let Some(tables) = CACHE.with(|cache| cache.tables) {
        return Some(tables);
    }
    let before = GENERATION.load(Ordering::Relaxed);
    let tables = Tables::find();
    if GENERATION.load(Ordering::Relaxed) == before {
        CACHE.with(|cache| cache.tables = tables);
    }
    tables
}

/// What is known of the outbox, which is open.
pub(super) fn outbox(relation: pg_sys::Relation) -> Rc<Target<{ COLUMNS.len() }>> {
    if let Some(outbox) = CACHE.with(|cache| cache.outbox.clone()) {
        return outbox;
    }
    let before = GENERATION.load(Ordering::Relaxed);
    // SAFETY: the caller has opened the table.
    let outbox = Rc::new(unsafe { Target::of(relation, &COLUMNS) });
    if GENERATION.load(Ordering::Relaxed) == before {
        CACHE.with(|cache| cache.outbox = Some(outbox.clone()));
    }
    outbox
}

/// The patterns of all endpoints that are not inactive: a paused or disabled one gets its events later.
fn listeners(tables: &Tables) -> Rc<Vec<Pattern>> {
    if let Some(listeners) = CACHE.with(|cache| cache.listeners.clone()) {
        return listeners;
    }
    let before = GENERATION.load(Ordering::Relaxed);
    let mut patterns: HashSet<Pattern> = HashSet::new();
    catalog::scan(tables.endpoint, None, |row| {
        if row.text("state").as_deref() == Some(b"inactive") {
            return;
        }
        for event in row.texts("events").unwrap_or_default() {
            patterns.extend(Pattern::parse(&Text::from(event).plain()));
        }
    });
    let patterns: Rc<Vec<Pattern>> = Rc::new(patterns.into_iter().collect());
    if GENERATION.load(Ordering::Relaxed) == before {
        CACHE.with(|cache| cache.listeners = Some(patterns.clone()));
    }
    patterns
}

/// Runs for every invalidated relation (0: all of them), in the middle of anything. It only forgets.
#[pg_guard]
unsafe extern "C-unwind" fn on_invalidation(_arg: pg_sys::Datum, relation: pg_sys::Oid) {
    GENERATION.fetch_add(1, Ordering::Relaxed);
    let done = CACHE.try_with(|cache| {
        let ours = cache.tables.is_none_or(|tables| {
            [tables.attachment, tables.endpoint, tables.outbox, tables.outbox_seq].contains(&relation)
        });
        if relation == pg_sys::InvalidOid || ours {
            return std::mem::take(cache);
        }
        let concerns = |found: &Found| match found {
            Found::Plan(plan) => plan.table == relation || plan.depends.contains(&relation),
            Found::Nothing { table } => *table == relation,
        };
        let mut dropped = Cache::default();
        if let Some(plans) = &mut cache.plans
            && plans.values().any(concerns)
        {
            dropped.last = cache.last.take();
            dropped.plans = Some(plans.extract_if(|_, found| concerns(found)).collect());
        }
        dropped
    });
    // Dropped here, outside the borrow: deleting memory contexts calls PostgreSQL.
    if done.is_none() {
        MISSED.store(true, Ordering::Relaxed);
    }
}
