//! The board: figures of the endpoints that workers are busy with, in shared memory, for everybody to read.
//!
//! `webhook.endpoint_figures` has them as they were about a second ago; here they are as they are now, and what changes too
//! often to be written at all: how many requests are in flight. One worker writes an entry, any session reads it, nobody takes a
//! lock. Totals never go back, so whoever shows the larger of the two shows the newer one.
//!
//! An entry stays when its endpoint falls silent, and goes to another one when all are taken. Should more than [`ENTRIES`]
//! endpoints of the cluster be busy at a time, the others show what is written.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering::SeqCst};

use pgrx::prelude::*;
use pgrx::{PGRXSharedMemory, PgAtomic, pg_shmem_init};

use crate::figures::Figures;

/// Endpoints that are shown at the same time, over all databases.
const ENTRIES: usize = 4096;
/// A writer needs a microsecond. One that died while it wrote is not waited for.
const MAX_TRIES: usize = 1000;

/// One endpoint.
#[derive(Default)]
struct Entry {
    /// 0 in a free entry.
    database: AtomicU32,
    /// Odd while it is being written, 0 before it was: whoever reads reads again when it was odd, or has changed.
    version: AtomicU32,
    endpoint: AtomicI64,
    delivered: AtomicU64,
    failed_attempts: AtomicU64,
    died: AtomicU64,
    /// 0: never.
    last_success_at: AtomicI64,
    last_failure_at: AtomicI64,
    in_flight: AtomicU32,
    /// The bits of the percentiles; not a number: there are none.
    percentiles: [AtomicU32; 2],
}

/// What an entry says.
pub(super) struct Shown {
    /// The endpoint.
    pub(super) endpoint: i64,
    /// Requests to it in flight.
    pub(super) in_flight: u32,
    /// Its figures, as far as they are shown.
    pub(super) figures: Figures,
}

impl Entry {
    fn put(&self, endpoint: i64, in_flight: usize, figures: &Figures) {
        let version = self.version.load(SeqCst) | 1;
        self.version.store(version, SeqCst);
        self.endpoint.store(endpoint, SeqCst);
        self.delivered.store(figures.delivered, SeqCst);
        self.failed_attempts.store(figures.failed_attempts, SeqCst);
        self.died.store(figures.died, SeqCst);
        self.last_success_at.store(figures.last_success_at.unwrap_or(0), SeqCst);
        self.last_failure_at.store(figures.last_failure_at.unwrap_or(0), SeqCst);
        self.in_flight.store(u32::try_from(in_flight).unwrap_or(u32::MAX), SeqCst);
        let percentiles = figures.percentiles.unwrap_or([f32::NAN; 2]);
        for (bits, value) in self.percentiles.iter().zip(percentiles) {
            bits.store(value.to_bits(), SeqCst);
        }
        self.version.store(version.wrapping_add(1), SeqCst);
    }

    fn get(&self, database: u32) -> Option<Shown> {
        let time = |at: &AtomicI64| Some(at.load(SeqCst)).filter(|at| *at != 0);
        for _ in 0..MAX_TRIES {
            if self.database.load(SeqCst) != database {
                return None;
            }
            let version = self.version.load(SeqCst);
            let [median, high] = [0, 1].map(|n| f32::from_bits(self.percentiles[n].load(SeqCst)));
            let shown = Shown {
                endpoint: self.endpoint.load(SeqCst),
                in_flight: self.in_flight.load(SeqCst),
                figures: Figures {
                    delivered: self.delivered.load(SeqCst),
                    failed_attempts: self.failed_attempts.load(SeqCst),
                    died: self.died.load(SeqCst),
                    last_success_at: time(&self.last_success_at),
                    last_failure_at: time(&self.last_failure_at),
                    percentiles: (!median.is_nan()).then_some([median, high]),
                    ..Figures::default()
                },
            };
            if version.is_multiple_of(2)
                && version != 0
                && self.version.load(SeqCst) == version
                && self.database.load(SeqCst) == database
            {
                return Some(shown);
            }
            std::hint::spin_loop();
        }
        None
    }
}

/// All entries.
pub(super) struct Board {
    entries: [Entry; ENTRIES],
}

impl Default for Board {
    fn default() -> Self {
        Self { entries: std::array::from_fn(|_| Entry::default()) }
    }
}

// SAFETY: only atomics, no pointers that are private to a process.
unsafe impl PGRXSharedMemory for Board {}

// SAFETY: no other shared memory area has this name.
static BOARD: PgAtomic<Board> = unsafe { PgAtomic::new(c"webhook_pg board") };

/// Asks for the shared memory. To be called from `_PG_init` while the postmaster preloads libraries.
pub(super) fn init() {
    pg_shmem_init!(BOARD);
}

/// What is shown of a database. The library must be preloaded.
pub(super) fn read(database: u32) -> impl Iterator<Item = Shown> {
    BOARD.get().entries.iter().filter_map(move |entry| entry.get(database))
}

/// Wipes what is shown of a database: its extension is gone, or another one, whose endpoints have the same ids.
pub(super) fn wipe(database: u32) {
    for entry in BOARD.get().entries.iter().filter(|entry| entry.database.load(SeqCst) == database) {
        // Unreadable until its next owner has written it.
        entry.version.fetch_or(1, SeqCst);
        entry.database.store(0, SeqCst);
    }
}

/// The same for this process's database.
pub(super) fn wipe_own() {
    // SAFETY: a plain global, set before any transaction starts.
    wipe(unsafe { pg_sys::MyDatabaseId }.to_u32());
}

/// The entries of the endpoints of one database, for its worker.
pub(super) struct Desk {
    database: u32,
    /// Where the entry of an endpoint is, and whether it could go to another one.
    places: HashMap<i64, (usize, bool)>,
    /// Where the search for a free entry goes on.
    next: usize,
    /// All are taken: so many endpoints are not looked for an entry for.
    refuses: u32,
}

/// A search that finds no entry looks at all of them.
const REFUSALS: u32 = 1000;

impl Desk {
    /// Takes over what is there of this process's database.
    pub(super) fn take_over() -> Self {
        // SAFETY: a plain global, set before any transaction starts.
        let database = unsafe { pg_sys::MyDatabaseId }.to_u32();
        let mut desk = Self { database, places: HashMap::new(), next: 0, refuses: 0 };
        for (place, entry) in BOARD.get().entries.iter().enumerate() {
            if let Some(shown) = entry.get(database) {
                // Whoever wrote it is gone, and with it what was in flight.
                entry.put(shown.endpoint, 0, &shown.figures);
                desk.places.insert(shown.endpoint, (place, true));
            }
        }
        desk
    }

    /// Shows an endpoint. `is_saved`: the entry may be given to another one when nothing is in flight.
    pub(super) fn show(&mut self, endpoint: i64, in_flight: usize, figures: &Figures, is_saved: bool) {
        let is_idle = is_saved && in_flight == 0;
        let place = match self.places.get_mut(&endpoint) {
            Some((place, spare)) => {
                *spare = is_idle;
                Some(*place)
            }
            // Nothing that the table does not have.
            None if is_idle => None,
            None => self.claim(endpoint),
        };
        if let Some(entry) = place.and_then(|place| BOARD.get().entries.get(place)) {
            entry.put(endpoint, in_flight, figures);
        }
    }

    /// A free entry, or one of an endpoint that is not busy any more.
    fn claim(&mut self, endpoint: i64) -> Option<usize> {
        self.refuses = self.refuses.saturating_sub(1);
        if self.refuses > 0 {
            return None;
        }
        let entries = &BOARD.get().entries;
        let free = (0..ENTRIES).map(|n| (self.next + n) % ENTRIES).find(|place| {
            entries.get(*place).is_some_and(|entry| {
                entry.database.load(SeqCst) == 0
                    && entry.database.compare_exchange(0, self.database, SeqCst, SeqCst).is_ok()
            })
        });
        let place = free.or_else(|| {
            let (&idle, &(place, _)) = self.places.iter().find(|(_, (_, spare))| *spare)?;
            self.places.remove(&idle);
            Some(place)
        });
        let Some(place) = place else {
            self.refuses = REFUSALS;
            return None;
        };
        self.next = place + 1;
        self.places.insert(endpoint, (place, false));
        Some(place)
    }
}
