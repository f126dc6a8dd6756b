//! The engine's own limits. Not settings: nobody should have to know them. A value, so that tests can make them tiny and
//! meet in a few events what production meets in a million.

use super::policy::breaker::FAILURES;

/// How much the engine holds in memory, and in which portions it reads.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Events fetched at a time, at first. Afterwards it follows the size of the events.
    pub first_chunk: usize,
    /// Events fetched at a time at most.
    pub max_chunk: usize,
    /// Bytes of a chunk from which the next one is smaller.
    pub large_chunk_bytes: usize,
    /// Bytes of a chunk under which the next one is larger.
    pub small_chunk_bytes: usize,
    /// Chunks read for one reader in one round, so that completions are not kept waiting.
    pub chunks_per_round: usize,
    /// The same for all lanes together that read for themselves: the head's events and completions do not wait for a hundred.
    pub own_chunks_per_round: usize,
    /// Lanes whose due deliveries are read in one round, for the same reason.
    pub due_lanes_per_round: usize,
    /// A lane with fewer waiting events than this is fed.
    pub hungry: usize,
    /// A lane that follows the head and has this many waiting events leaves it.
    pub full: usize,
    /// Events handed out and not settled by one reader. Beyond, the lane that holds the oldest leaves the head.
    pub window: usize,
    /// Bytes of unsettled events in the head's window, and in all others together.
    pub window_bytes: usize,
    /// Places planned at a time over all readers (16 bytes each). A plan may have to scan the rest of its leg, so small ones
    /// would make a long backlog quadratic: one million of three take 1.4 s.
    pub planned: usize,
    /// Pending deliveries of one endpoint that have failed. Beyond, it is fed nothing new. Of what was asked for, which can be
    /// millions, an endpoint with ordering has so many in memory, and is fed nothing new beyond.
    pub pending: usize,
    /// The same while its breaker is open: a dead endpoint costs a hundred rows, not a million.
    pub failing_pending: usize,
    /// Failures in a row that open an endpoint's breaker.
    pub failures: u32,
    /// New events of an endpoint with ordering that may wait in memory for an earlier one. Beyond, it is fed nothing new.
    pub parked: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            first_chunk: 32,
            max_chunk: 64,
            large_chunk_bytes: 4 * 1024 * 1024,
            small_chunk_bytes: 512 * 1024,
            chunks_per_round: 4,
            own_chunks_per_round: 2,
            due_lanes_per_round: 8,
            hungry: 128,
            full: 1024,
            window: 8192,
            window_bytes: 32 * 1024 * 1024,
            planned: 1_000_000,
            pending: 1000,
            failing_pending: 100,
            failures: FAILURES,
            parked: 2048,
        }
    }
}

/// What a dispatcher holds in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// New events that wait in the fullest lane.
    pub longest_queue: usize,
    /// New events that wait for earlier ones in the lane that has most of them.
    pub most_parked: usize,
    /// Entries of the largest window.
    pub unsettled: usize,
    /// Bytes of the events in the head's window.
    pub head_bytes: usize,
    /// Events that would be fetched at a time.
    pub chunk: usize,
    /// Lanes that the head feeds.
    pub following: usize,
    /// Lanes.
    pub lanes: usize,
}
