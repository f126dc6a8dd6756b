//! Figures: shown at once, saved about once a second. Never with an outcome, which would become dearer, and never so that one
//! would wait for them.

use super::Dispatcher;
use crate::engine::{Store, Transport, Turn};
use crate::event::Timestamp;
use crate::figures::Figures;

/// Wait between two times that figures are saved, in microseconds.
const SAVE_EVERY: Timestamp = 1_000_000;

impl<S: Store, T: Transport> Dispatcher<S, T> {
    /// Shows what has changed. Before outcomes are written, so that whoever sees one sees it counted.
    pub(super) fn show(&mut self) {
        let gone = Figures::default();
        for id in std::mem::take(&mut self.touched) {
            let is_saved = !self.unsaved.contains(&id);
            match self.lanes.get(id) {
                // What is in store beyond the limit is not in flight.
                Some(lane) => {
                    let in_flight = lane.in_flight.min(self.limit(lane));
                    self.store.show(id, in_flight, &lane.figures, is_saved);
                }
                None => self.store.show(id, 0, &gone, true),
            }
        }
    }

    /// When figures are to be saved.
    pub(super) fn figures_at(&self) -> Option<Timestamp> {
        (!self.unsaved.is_empty()).then_some(self.figures_at)
    }

    /// Saves figures, if it is time to.
    pub(super) fn save_figures(&mut self, turn: Turn) {
        if self.figures_at().is_none_or(|at| at > turn.now) || !self.may_write(turn) {
            return;
        }
        self.figures_at = turn.now.saturating_add(SAVE_EVERY);
        let lanes = &self.lanes;
        let figures: Vec<(i64, &Figures)> =
            self.unsaved.iter().filter_map(|&id| Some((id, &lanes.get(id)?.figures))).collect();
        match self.store.save_figures(&figures) {
            Ok(()) => self.touched = std::mem::take(&mut self.unsaved),
            Err(error) => self.trouble = Some(format!("figures are saved later: {error}")),
        }
    }
}
