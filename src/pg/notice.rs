//! A line for people in shared memory, written by one process and read by others without a lock.

use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};

use crate::event::Timestamp;

/// Longer lines are cut.
const MAX_BYTES: usize = 192;
const WORD: usize = size_of::<u64>();
/// A writer needs a microsecond. One that died while it wrote is not waited for.
const MAX_TRIES: usize = 1000;

/// The line, and since when it holds.
#[derive(Default)]
pub(super) struct Notice {
    /// Odd while it is being written: whoever reads reads again when it was, or has changed.
    version: AtomicU32,
    /// 0: there is none.
    since: AtomicI64,
    /// Padded with zero bytes.
    text: [AtomicU64; MAX_BYTES / WORD],
}

impl Notice {
    /// Replaces the line. For one process alone.
    pub(super) fn put(&self, notice: Option<(Timestamp, &str)>) {
        let (since, text) = notice.unwrap_or_default();
        let mut bytes = [0; MAX_BYTES];
        let end = text.floor_char_boundary(MAX_BYTES);
        bytes[..end].copy_from_slice(&text.as_bytes()[..end]);
        let version = self.version.load(Ordering::SeqCst) | 1;
        self.version.store(version, Ordering::SeqCst);
        self.since.store(since, Ordering::SeqCst);
        for (word, bytes) in self.text.iter().zip(bytes.as_chunks().0) {
            word.store(u64::from_ne_bytes(*bytes), Ordering::SeqCst);
        }
        self.version.store(version.wrapping_add(1), Ordering::SeqCst);
    }

    /// The line, if there is one.
    pub(super) fn get(&self) -> Option<(Timestamp, String)> {
        for _ in 0..MAX_TRIES {
            let version = self.version.load(Ordering::SeqCst);
            let since = self.since.load(Ordering::SeqCst);
            let words = self.text.iter().map(|word| word.load(Ordering::SeqCst).to_ne_bytes());
            let bytes: Vec<u8> = words.flatten().take_while(|byte| *byte != 0).collect();
            if version.is_multiple_of(2) && self.version.load(Ordering::SeqCst) == version {
                return (since != 0).then(|| (since, String::from_utf8_lossy(&bytes).into_owned()));
            }
            std::hint::spin_loop();
        }
        None
    }
}
