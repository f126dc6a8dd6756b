//! The next places of a long leg of many transactions.
//!
//! A leg is read in the order of numbers, but the index of the outbox has the order of transactions, so all of the leg must be
//! looked at to know its lowest numbers. A million rows take a second: they are looked at slice by slice, one in a round, and
//! the lowest numbers so far are kept. What belongs to a leg is fixed, so it does not matter that each slice has a
//! snapshot of its own.

use std::collections::BinaryHeap;

use super::store::{Kind, Part, Slice};
use crate::event::Place;

/// A leg that is being searched.
#[derive(Debug)]
pub struct Search {
    /// Places that are kept at most.
    limit: usize,
    /// The place up to which the index has been looked at.
    pub after: Option<Place>,
    /// Places with the lowest numbers so far, the highest of them on top.
    lowest: BinaryHeap<(i64, u64)>,
    /// Places were dropped because there were too many.
    is_cut: bool,
    /// What is left out.
    pub left_out: Vec<Kind>,
}

impl Search {
    /// A search for this many places at most (at least one).
    pub fn new(limit: usize, left_out: Vec<Kind>) -> Self {
        Self { limit: limit.max(1), after: None, lowest: BinaryHeap::new(), is_cut: false, left_out }
    }

    /// Takes over what was found in the next slice. True: that was the last one.
    pub fn found(&mut self, slice: Slice) -> bool {
        for place in slice.places {
            self.lowest.push((place.seq, place.xid));
            if self.lowest.len() > self.limit {
                self.lowest.pop();
                self.is_cut = true;
            }
        }
        self.after = slice.reaches;
        self.after.is_none()
    }

    /// What was found.
    pub fn finish(self) -> Part {
        let lowest = self.lowest.into_sorted_vec();
        let reaches = lowest.last().filter(|_| self.is_cut).map(|(seq, _)| *seq);
        let places = lowest.into_iter().map(|(seq, xid)| Place { xid, seq }).collect();
        Part { places, reaches, left_out: self.left_out }
    }
}
