//! Fetching events, so that one that cannot be read stops no other.

use pgrx::prelude::*;

use super::SpiReading;
use crate::event::{Event, Place};
use crate::pg::rows::{event, xid_to_sql};
use crate::pg::transaction::subtransaction;

impl SpiReading<'_, '_> {
    fn fetch_all(&self, places: &[Place]) -> Vec<Event> {
        let xids: Vec<i64> = places.iter().map(|place| xid_to_sql(place.xid)).collect();
        let seqs: Vec<i64> = places.iter().map(|place| place.seq).collect();
        self.rows(&self.statements.fetch, &[xids.into(), seqs.into()])
            .iter()
            .map(|row| event(row, 1))
            .collect()
    }

    /// The events at these places, their transactions flushed; nobody has looked at scopes and filters.
    pub(super) fn fetch_durable(&mut self, places: &[Place]) -> Vec<Event> {
        if places.is_empty() {
            return Vec::new();
        }
        // SAFETY: reading leaves nothing half done.
        let events = match unsafe { subtransaction(|| self.fetch_all(places)) } {
            Ok(events) => events,
            // One event that cannot be read must not stop the others.
            Err(_) => places.iter().filter_map(|place| self.fetch_one(*place)).collect(),
        };
        self.durability.ensure(places);
        events
    }

    /// An event for itself; of one that cannot be read, what can be known.
    pub(super) fn fetch_one(&self, place: Place) -> Option<Event> {
        let known = || {
            let args = [xid_to_sql(place.xid).into(), place.seq.into()];
            self.rows(&self.statements.fetch_unreadable, &args).first().map(|row| event(row, 1))
        };
        // SAFETY: reading leaves nothing half done.
        match unsafe { subtransaction(|| self.fetch_all(&[place])) } {
            Ok(mut events) => events.pop(),
            // SAFETY: as above.
            Err(reason) => match unsafe { subtransaction(known) } {
                Ok(event) => event.map(|event| Event { unreadable: Some(reason), ..event }),
                Err(reason) => {
                    warning!(
                        "webhook_pg: event {} of transaction {} is lost: {reason}",
                        place.seq,
                        place.xid
                    );
                    None
                }
            },
        }
    }
}
