//! The wall clock of the machine is put forward and back under a running server: libfaketime, with a file that says by how much.
//!
//! Receivers refuse signatures of another hour, so they are not looked at here; the clock is to be right, and the header shows it.

use std::fs;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::cluster::Cluster;
use crate::scene::Scene;
use crate::size::not_tested;
use crate::wait::{millis, secs};
use crate::wire::Reply;

const HOUR: i64 = 3600;
/// Of retries: no delivery may be late by more.
const LONGEST_WAIT: u64 = 2;

/// A clock that is off by what a file says.
struct Clock(PathBuf);

impl Clock {
    fn new() -> Self {
        let clock = Self(std::env::temp_dir().join(format!("webhook_pg-e2e-{}-clock", std::process::id())));
        clock.is_off_by(0);
        clock
    }

    /// In one step: nobody reads half a file.
    fn is_off_by(&self, seconds: i64) {
        let new = self.0.with_extension("new");
        fs::write(&new, format!("{seconds:+}\n"))
            .and_then(|()| fs::rename(&new, &self.0))
            .expect("the clock");
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Debian's libfaketime, wherever this machine's architecture has it.
fn library() -> Option<PathBuf> {
    let dirs = fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    dirs.map(|dir| dir.path().join("faketime/libfaketime.so.1")).find(|file| file.exists())
}

#[test]
fn whatever_the_wall_clock_does_nothing_comes_twice_and_retries_are_late_by_no_more_than_their_wait() {
    let Some(library) = library() else {
        not_tested("clocks that are put back, because libfaketime is not installed");
        return;
    };
    let clock = Clock::new();
    let cluster = Cluster::start_with_environment(&[
        ("LD_PRELOAD", library.to_str().unwrap()),
        ("FAKETIME_TIMESTAMP_FILE", clock.0.to_str().unwrap()),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ("DONT_FAKE_MONOTONIC", "1"),
    ]);
    // Every fifth row fails at first.
    let options = ", retry_schedule => '{2 s,2 s,2 s}'";
    let mut scene = Scene::new(&cluster, "clock", options, |request, nth| {
        Reply::status(if request.row().is_some_and(|row| row % 5 == 0) && nth == 1 { 503 } else { 200 })
    });
    let mut next = 1;
    for off in [HOUR, 0, -HOUR, 0] {
        scene.insert(next..next + 20);
        // Four have failed, and wait until a time of this clock.
        scene.wait_for_deliveries("pending", 4);
        clock.is_off_by(off);
        let server: i64 = scene.number("SELECT extract(epoch FROM clock_timestamp())::int8");
        assert!((server - wall() - off).abs() <= 1, "the server's clock is not off by {off} s");
        scene.insert(next + 20..next + 40);
        let fence = next + 41;
        scene.fence(fence);
        let sent =
            scene.receiver.requests().into_iter().find(|r| r.row() == Some(fence)).unwrap().timestamp();
        assert!((sent - wall() - off).abs() <= 2, "webhook-timestamp is not the wall clock");
        // A wait, a fifth more of it, and what this machine needs.
        scene.receiver.wait_for_rows(next..next + 40, secs(LONGEST_WAIT + 1) + secs(2));
        next += 50;
    }
    for step in 0..20 {
        clock.is_off_by(if step % 2 == 0 { 5 } else { -5 });
        scene.insert(next..next + 5);
        next += 5;
        std::thread::sleep(millis(100));
    }
    scene.wait_until_drained(secs(LONGEST_WAIT + 1) + secs(2));
    assert_eq!(scene.receiver.duplicates(), 0);
    let ledger = scene.ledger();
    assert_eq!((ledger.lost.len(), ledger.ghosts.len()), (0, 0));
}

fn wall() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}
