//! All lanes. Most of ten thousand endpoints have nothing to do at a time, and no turn may cost more because they are there:
//! a turn looks at the lanes that are *active* and lets those rest that have nothing to see to. Whoever changes a lane
//! makes it active.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::lane::{Feed, Lane};
use super::store::Kind;
use crate::event::Timestamp;

/// Event types whose takers are remembered at most.
const TYPES: usize = 1000;

/// The endpoints that want events of a type, as far as it goes by the type.
#[derive(Debug, Clone)]
pub struct Takers {
    /// All of them.
    pub all: Arc<[i64]>,
    /// Those that want every event of the type. The others are named by the event (`Event::selected_by`).
    pub unconditional: Arc<[i64]>,
}

/// All lanes, by endpoint.
#[derive(Debug, Default)]
pub struct Lanes {
    all: BTreeMap<i64, Lane>,
    active: BTreeSet<i64>,
    /// Lanes at rest that follow the head: all of them are hungry.
    resting_followers: usize,
    /// Endpoints that want events of a type, as far as asked.
    takers: HashMap<String, Takers>,
    /// Endpoints by the texts of their patterns; built when it is needed.
    by_pattern: Option<HashMap<String, Vec<i64>>>,
}

impl Lanes {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether this endpoint has a lane.
    pub fn contains(&self, id: i64) -> bool {
        self.all.contains_key(&id)
    }

    /// The lane of an endpoint, to look at.
    pub fn get(&self, id: i64) -> Option<&Lane> {
        self.all.get(&id)
    }

    /// The lane of an endpoint, to change it.
    pub fn get_mut(&mut self, id: i64) -> Option<&mut Lane> {
        let lane = self.all.get_mut(&id)?;
        if self.active.insert(id) && lane.feed == Feed::Head {
            self.resting_followers -= 1;
        }
        Some(lane)
    }

    /// A new lane.
    pub fn insert(&mut self, id: i64, lane: Lane) {
        self.remove(id);
        self.all.insert(id, lane);
        self.active.insert(id);
    }

    /// The lane of an endpoint that is gone.
    pub fn remove(&mut self, id: i64) -> Option<Lane> {
        self.get_mut(id)?;
        self.active.remove(&id);
        self.all.remove(&id)
    }

    /// All endpoints. Not for every turn.
    pub fn ids(&self) -> Vec<i64> {
        self.all.keys().copied().collect()
    }

    /// All lanes. Not for every turn.
    pub fn all(&self) -> impl Iterator<Item = &Lane> {
        self.all.values()
    }

    /// The clock was put back so far.
    pub fn put_back(&mut self, by: Timestamp) {
        self.all.values_mut().for_each(|lane| lane.put_back(by));
    }

    /// What is stored is due so much earlier.
    pub fn due_earlier(&mut self, by: Timestamp) {
        self.all.values_mut().for_each(|lane| lane.due_earlier(by));
    }

    /// The lanes that have something to see to, by endpoint.
    pub fn active(&self) -> impl Iterator<Item = (i64, &Lane)> {
        self.active.iter().filter_map(|&id| Some((id, self.all.get(&id)?)))
    }

    /// Their endpoints, where the lane is as asked for.
    pub fn active_where(&self, mut which: impl FnMut(&Lane) -> bool) -> Vec<i64> {
        self.active().filter(|(_, lane)| which(lane)).map(|(id, _)| id).collect()
    }

    /// Whether there is a lane at rest that follows the head, and so waits for new events.
    pub fn has_resting_follower(&self) -> bool {
        self.resting_followers > 0
    }

    /// Whether a lane follows the head.
    pub fn has_follower(&self) -> bool {
        self.has_resting_follower() || self.active().any(|(_, lane)| lane.follows())
    }

    /// Lets lanes rest that have nothing to see to.
    pub fn rest(&mut self) {
        let Self { all, active, resting_followers, .. } = self;
        active.retain(|id| {
            let Some(lane) = all.get(id) else { return false };
            let rests = lane.is_at_rest();
            *resting_followers += usize::from(rests && lane.feed == Feed::Head);
            !rests
        });
    }

    /// The endpoints that want events of this type, as far as it goes by the type.
    pub fn takers(&mut self, event_type: &str) -> Takers {
        if let Some(known) = self.takers.get(event_type) {
            return known.clone();
        }
        if self.takers.len() >= TYPES {
            self.takers.clear();
        }
        let (resource, action) = event_type.rsplit_once('.').unwrap_or((event_type, ""));
        // All patterns that can match, as `Pattern::matches` has it.
        let patterns =
            [event_type.to_owned(), format!("{resource}.*"), format!("*.{action}"), "*.*".into(), "*".into()];
        let all = &self.all;
        let by_pattern = self.by_pattern.get_or_insert_with(|| index(all));
        let ids = patterns.iter().filter_map(|pattern| by_pattern.get(pattern)).flatten().copied();
        let ids: BTreeSet<i64> = ids.collect();
        let is_unconditional = |id: &i64| all.get(id).is_some_and(|lane| !lane.endpoint.is_selective);
        let unconditional = ids.iter().copied().filter(is_unconditional).collect();
        let takers = Takers { all: ids.into_iter().collect(), unconditional };
        self.takers.insert(event_type.to_owned(), takers.clone());
        takers
    }

    /// Whether an endpoint that follows the head wants events of this type, as far as it goes by the type.
    pub fn is_type_followed(&mut self, event_type: &str) -> bool {
        let takers = self.takers(event_type).all;
        takers.iter().any(|id| self.get(*id).is_some_and(Lane::follows))
    }

    /// Whether an endpoint that follows the head may want such events.
    pub fn is_followed(&mut self, kind: &Kind) -> bool {
        match kind {
            Kind::Type(event_type) => self.is_type_followed(event_type),
            Kind::Target(id) => self.get(*id).is_some_and(Lane::follows),
        }
    }

    /// Endpoints changed: nobody knows who wants what.
    pub fn forget_takers(&mut self) {
        self.takers.clear();
        self.by_pattern = None;
    }
}

/// Endpoints by the texts of their patterns.
fn index(lanes: &BTreeMap<i64, Lane>) -> HashMap<String, Vec<i64>> {
    let mut index: HashMap<String, Vec<i64>> = HashMap::new();
    for (&id, lane) in lanes {
        for pattern in &lane.endpoint.events {
            index.entry(pattern.as_str().to_owned()).or_default().push(id);
        }
    }
    index
}
