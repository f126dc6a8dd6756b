//! What the current transaction has written of. A large one leaves it in `webhook.large_transaction`, so that readers who want
//! nothing of it pass it without a look at each of its events.
//!
//! It must name all that the transaction wrote; that it names more, because a savepoint was rolled back, does no harm.

use pgrx::prelude::*;

use super::backend::Backend;
use super::buffer;
use crate::pg::encoding::Text;
use crate::pg::table::as_owner;

const WRITE: &str = include_str!("../../../sql/statements/write_large_transaction.sql");

/// Events of a large transaction.
const LARGE: usize = 4096;
/// One that wrote of more than so many types says nothing.
const MAX_KINDS: usize = 64;

#[derive(Default)]
struct Tally {
    events: usize,
    /// Types, in the database's encoding, and the endpoints they are for alone.
    kinds: Vec<(Vec<u8>, Option<i64>)>,
    /// Something was written that is not counted here.
    incomplete: bool,
}

static TALLY: Backend<Tally> = Backend::new(Tally { events: 0, kinds: Vec::new(), incomplete: false });

/// Counts events that go to the outbox: types, and the endpoints they are for alone.
pub(super) fn count<'a>(events: impl Iterator<Item = (&'a [u8], Option<i64>)>) {
    TALLY.with(|tally| {
        let mut last = None;
        for kind in events {
            tally.events += 1;
            if last == Some(kind) || tally.incomplete {
                continue;
            }
            last = Some(kind);
            if !tally.kinds.iter().any(|(name, target)| (name.as_slice(), *target) == kind) {
                tally.kinds.push((kind.0.to_vec(), kind.1));
                tally.incomplete = tally.kinds.len() > MAX_KINDS;
            }
        }
    });
}

/// The transaction wrote an event by other means.
pub(crate) fn wrote_elsewhere() {
    buffer::follow_transactions();
    TALLY.with(|tally| tally.incomplete = true);
}

/// The transaction is about to commit, and everything is written: says what it wrote of, if it is large.
pub(super) fn settle() {
    let Some(kinds) = TALLY
        .with(|tally| (tally.events >= LARGE && !tally.incomplete).then(|| std::mem::take(&mut tally.kinds)))
    else {
        return;
    };
    let targets: Vec<i64> = kinds.iter().filter_map(|(_, target)| *target).collect();
    let types: Vec<Text> =
        kinds.into_iter().filter(|(_, target)| target.is_none()).map(|(name, _)| name.into()).collect();
    // SAFETY: before a commit no snapshot is active, and a statement wants one.
    unsafe { pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot()) };
    let written = as_owner(|| Spi::run_with_args(WRITE, &[types.into(), targets.into()]));
    // SAFETY: pushed above.
    unsafe { pg_sys::PopActiveSnapshot() };
    if let Err(error) = written {
        error!("webhook_pg: {error}");
    }
}

/// The transaction is over.
pub(super) fn forget() {
    TALLY.try_with(|tally| {
        if tally.events > 0 || tally.incomplete {
            tally.kinds.clear();
            (tally.events, tally.incomplete) = (0, false);
        }
    });
}
