//! No ghosts: nothing leaves before the transaction that raised it is on disk.
//!
//! A transaction that committed with `synchronous_commit = off` is visible before its commit record is flushed, and a
//! crash then undoes it; a receiver would hold an event that never was (measured: 10 of 10). PostgreSQL keeps, for each
//! group of transactions, the WAL position up to which one must flush for their asynchronous commits to be durable (it
//! needs it for hint bits). Flushing up to there costs nothing when it has happened already, which with synchronous
//! commits is always; flushing up to the current insert position instead would cost an fsync per turn.

use pgrx::prelude::*;

use crate::event::Place;

/// What is known to be durable.
#[derive(Debug, Default)]
pub struct Durability {
    /// Every transaction below this one had ended when the WAL was last flushed as a whole. Their commit status may
    /// have been truncated meanwhile, so it must not be asked for.
    all_below: u64,
    /// Turns until the WAL is flushed as a whole again, to keep `all_below` young.
    asked: u64,
    /// Where the worker's own last commit record ends.
    committed: pg_sys::XLogRecPtr,
}

/// 2^20 questions are answered in minutes under load; commit status is kept for at least 2^20 transactions and in
/// practice for 10^8.
const REFRESH_AFTER: u64 = 1 << 20;

impl Durability {
    /// Flushes what these events' commits need. To be called in a transaction with a snapshot that sees them.
    pub fn ensure(&mut self, places: &[Place]) {
        self.asked += places.len() as u64;
        if self.all_below == 0 || self.asked > REFRESH_AFTER {
            self.flush_all();
        }
        let mut lsn: pg_sys::XLogRecPtr = 0;
        let mut last = 0;
        for place in places.iter().filter(|place| place.xid >= self.all_below) {
            if place.xid != last {
                last = place.xid;
                // SAFETY: the transaction is visible, so it has committed, and it is young (see `all_below`). The lower
                // half of the 64-bit id is the id.
                lsn = lsn.max(unsafe {
                    pg_sys::TransactionIdGetCommitLSN(pg_sys::TransactionId::from(place.xid as u32))
                });
            }
        }
        if lsn != 0 {
            // SAFETY: a position that this server's WAL has been inserted up to.
            unsafe { pg_sys::XLogFlush(lsn) };
        }
    }

    /// Remembers the worker's own commit, which was asynchronous. To be called right after it.
    pub fn committed(&mut self) {
        // SAFETY: a plain global of this process.
        self.committed = unsafe { pg_sys::XactLastCommitEnd };
    }

    /// Flushes up to the worker's own last commit.
    pub fn flush_committed(&self) {
        if self.committed != 0 {
            // SAFETY: a position that this server's WAL has been inserted up to.
            unsafe { pg_sys::XLogFlush(self.committed) };
        }
    }

    fn flush_all(&mut self) {
        // SAFETY: read by a process that is connected to shared memory and has an active snapshot. Whatever the
        // snapshot sees was inserted into the WAL before the insert position is read. The size of segments never changes.
        unsafe {
            let xmin = u64::from((*pg_sys::GetActiveSnapshot()).xmin.into_inner());
            let next = pg_sys::ReadNextFullTransactionId().value;
            pg_sys::XLogFlush(end_before(pg_sys::GetXLogInsertRecPtr(), pg_sys::wal_segment_size as u64));
            // The snapshot's 32-bit xmin lies at most 2^31 behind the next 64-bit id.
            let behind = (next as u32).wrapping_sub(xmin as u32);
            self.all_below = next - u64::from(behind);
        }
        self.asked = 0;
    }
}

/// Where the last record ends when the next one begins here. At the start of a page that lies behind the page's header, which is
/// written with the record: a flush up to there is an error ("request to flush past end of generated WAL").
/// `GetXLogInsertEndRecPtr` says it, but is younger than many minor releases.
fn end_before(next: pg_sys::XLogRecPtr, segment_size: u64) -> pg_sys::XLogRecPtr {
    let first_of_segment = size_of::<pg_sys::XLogLongPageHeaderData>() as u64;
    // MAXALIGN(sizeof) in C.
    let of_page = size_of::<pg_sys::XLogPageHeaderData>().next_multiple_of(8) as u64;
    if next % segment_size == first_of_segment {
        next - first_of_segment
    } else if next % u64::from(pg_sys::XLOG_BLCKSZ) == of_page {
        next - of_page
    } else {
        next
    }
}
