//! The endpoints as they were read last. Whoever changes one of ten thousand makes the worker look at all, but only what changed
//! is read in full: a configuration takes a tenth of a millisecond.

use std::collections::HashMap;
use std::sync::Arc;

use pgrx::prelude::*;

use super::SpiReading;
use crate::config::Config;
use crate::endpoint::{Endpoint, State};
use crate::engine::Registered;
use crate::pg::encoding::Text;
use crate::pg::rows::*;

/// Endpoints by their ids, each with the version of its rows that it was read from.
#[derive(Default)]
pub(super) struct Registry(HashMap<i64, (String, Arc<Endpoint>)>);

impl Registry {
    /// Forgets all: settings changed that endpoints follow.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

impl SpiReading<'_, '_> {
    /// All endpoints that are not inactive.
    pub(super) fn registered(&mut self) -> Vec<Registered> {
        let mut known = std::mem::take(&mut self.registry.0);
        let rows = self.rows(&self.statements.endpoints, &[]);
        let mut found = HashMap::with_capacity(rows.len());
        let mut changed = Vec::new();
        for row in &rows {
            let (id, version): (i64, String) = (required(row, 1), required(row, 3));
            match known.remove(&id).filter(|(before, _)| *before == version) {
                Some(entry) => drop(found.insert(id, entry)),
                None => changed.push((id, required::<Text>(row, 2).plain(), version)),
            }
        }
        self.read_changed(changed, &mut found);
        let registered = |row: &pgrx::spi::SpiHeapTupleData<'_>| {
            let endpoint = found.get(&required(row, 1)).map(|(_, endpoint)| endpoint)?;
            if endpoint.state == State::Inactive {
                return None;
            }
            match position(row, 4) {
                Ok(position) => Some(Registered {
                    endpoint: Arc::clone(endpoint),
                    position,
                    failing_since: cell(row, 7).map(timestamp),
                }),
                Err(error) => {
                    warning!("webhook_pg: endpoint {} is not served: {error}", endpoint.id);
                    None
                }
            }
        };
        let registered: Vec<Registered> = rows.iter().filter_map(registered).collect();
        drop(rows);
        self.registry.0 = found;
        self.selection.learn(&registered);
        registered
    }

    /// Reads the configurations of these endpoints, with their states and versions. One that cannot be read is not served: its
    /// position stays where it is, and so do its events.
    fn read_changed(
        &self,
        changed: Vec<(i64, String, String)>,
        found: &mut HashMap<i64, (String, Arc<Endpoint>)>,
    ) {
        if changed.is_empty() {
            return;
        }
        let ids: Vec<i64> = changed.iter().map(|(id, ..)| *id).collect();
        let rows = self.rows(&self.statements.endpoint_configs, &[ids.into()]);
        let configs: HashMap<i64, (String, bool)> = rows
            .iter()
            .map(|row| (required(row, 1), (required::<Text>(row, 2).json(), required(row, 3))))
            .collect();
        for (id, state, version) in changed {
            let Some((config, has_secrets)) = configs.get(&id) else { continue };
            match Config::endpoint(id, &state, config, self.schedule) {
                Ok(mut endpoint) => {
                    // Restored from a dump: what it was to be signed with is not here, so its events wait.
                    if !has_secrets && endpoint.state == State::Active {
                        endpoint.state = State::Paused;
                    }
                    found.insert(id, (version, Arc::new(endpoint)));
                }
                Err(error) => warning!("webhook_pg: endpoint {id} is not served: {error}"),
            }
        }
    }
}
