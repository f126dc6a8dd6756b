//! Waiting for conditions, never for time.

use std::time::{Duration, Instant};

/// Between two looks at a condition.
const LOOK: Duration = Duration::from_millis(10);

/// Waits until the condition answers `Ok` and returns its value. After the deadline it fails the test and reports the
/// last `Err`, which says what was seen instead.
#[track_caller]
pub fn wait_until<T>(what: &str, deadline: Duration, mut condition: impl FnMut() -> Result<T, String>) -> T {
    let started = Instant::now();
    loop {
        match condition() {
            Ok(value) => return value,
            Err(seen) if started.elapsed() >= deadline => {
                panic!("waited {deadline:?} until {what}; the last look saw: {seen}")
            }
            Err(_) => std::thread::sleep(LOOK),
        }
    }
}

/// `Ok` when it holds, else what was seen: for conditions of [`wait_until`].
pub fn holds(condition: bool, seen: impl FnOnce() -> String) -> Result<(), String> {
    if condition { Ok(()) } else { Err(seen()) }
}

/// Seconds, for short deadlines in tests.
pub const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Milliseconds.
pub const fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}
