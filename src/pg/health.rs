//! What the worker lets webhook_status() know: why it sends nothing, or not everything, and since when.

use super::roster::own_slot;
use crate::event::Timestamp;

type Fault = (Timestamp, String);

/// The worker's own memory of it. Shared memory is written only when something has changed.
#[derive(Default)]
pub(super) struct Health {
    stopped: Option<Fault>,
    told: Option<Fault>,
}

impl Health {
    /// Nothing at all is sent.
    pub(super) fn stops(&mut self, why: &str, now: Timestamp) {
        let since = self.stopped.as_ref().map_or(now, |(since, _)| *since);
        self.stopped = Some((since, why.to_owned()));
    }

    /// The engine runs.
    pub(super) fn goes_on(&mut self) {
        self.stopped = None;
    }

    /// Tells, also what the engine itself has met.
    pub(super) fn tell(&mut self, met: Option<(Timestamp, &str)>) {
        let fault = met.or_else(|| plain(&self.stopped));
        if fault != plain(&self.told) {
            if let Some(slot) = own_slot() {
                slot.fault.put(fault);
            }
            self.told = fault.map(|(since, why)| (since, why.to_owned()));
        }
    }
}

fn plain(fault: &Option<Fault>) -> Option<(Timestamp, &str)> {
    fault.as_ref().map(|(since, why)| (*since, why.as_str()))
}
