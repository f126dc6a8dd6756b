//! The threads that send.

use std::time::{Duration, Instant};

use webhook_pg::engine::Job;
use webhook_pg::outcome::{Answer, Fault};

use crate::receiver::{OK, Receiver};
use crate::sender::{Sender, fault, job, open_egress};

#[test]
fn jobs_that_hang_get_a_thread_each_and_a_fast_one_still_goes() {
    let hanging = Receiver::start(|talk| while talk.read().is_some() {});
    let fast = Receiver::answering(OK);
    let mut sender = Sender::with_threads(&open_egress(), 32);
    let timeout = Duration::from_secs(3);
    let tickets: Vec<_> = (0..31).map(|_| sender.submit(Job { timeout, ..job(&hanging.url()) })).collect();
    let start = Instant::now();
    assert_eq!(sender.status(&fast.url()), 200);
    assert!(start.elapsed() < timeout, "{:?}", start.elapsed());
    for ticket in tickets {
        assert_eq!(fault(sender.wait(ticket)), Fault::Timeout);
    }
    assert_eq!(hanging.connections(), 31);
}

#[test]
fn a_burst_completes_every_job_once() {
    let receiver = Receiver::answering(OK);
    let mut sender = Sender::new(&open_egress());
    let tickets: Vec<_> = (0..2_000).map(|_| sender.submit(job(&receiver.url()))).collect();
    for ticket in tickets {
        assert!(matches!(sender.wait(ticket).answer, Answer::Status { status: 200, .. }));
    }
    assert_eq!(receiver.rest(), 2_000);
    assert!(receiver.connections() <= 8);
}
