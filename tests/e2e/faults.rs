//! Faults of our own: seen in webhook_status(), paid for by no endpoint, over when they are over.

use std::fs;

use crate::cluster::Cluster;
use crate::os::{as_owner, run};
use crate::scene::Scene;
use crate::wait::{holds, secs, wait_until};
use crate::wire::Reply;

/// The limit on descriptors that a process obeys; `None` leaves it as it is. Answers what it was.
fn limit_descriptors(pid: u32, limit: Option<u64>) -> u64 {
    // As the same user: for others even root needs a right that containers often take away.
    let pid = pid.to_string();
    let asked = run(as_owner("prlimit").args(["--pid", &pid, "--nofile", "--output=SOFT", "--noheadings"]));
    if let Some(limit) = limit {
        run(as_owner("prlimit").args(["--pid", &pid, &format!("--nofile={limit}:")]));
    }
    String::from_utf8_lossy(&asked.stdout).trim().parse().unwrap()
}

/// The lowest descriptor that a process could get next.
fn first_free_descriptor(pid: u32) -> u64 {
    let is_open = |number: &u64| fs::symlink_metadata(format!("/proc/{pid}/fd/{number}")).is_ok();
    (0..).find(|number| !is_open(number)).unwrap()
}

/// `ok` and `detail` of the check.
fn sending(scene: &mut Scene<'_>) -> (bool, String) {
    let query = "SELECT ok, detail FROM webhook_status() WHERE check_name = 'sending'";
    let row = scene.client.query_one(query, &[]).unwrap();
    (row.get(0), row.get(1))
}

#[test]
fn a_worker_without_descriptors_says_so_in_the_status_charges_nobody_and_delivers_when_it_has_some() {
    let cluster = Cluster::start(&[]);
    let mut scene = Scene::new(&cluster, "faults", "", |_, _| Reply::ok().with_header("connection", "close"));
    // Whatever PostgreSQL opens for a delivery is open now, and no connection is kept.
    scene.insert(1..=3);
    scene.wait_until_drained(secs(20));
    assert!(sending(&mut scene).0, "{:?}", sending(&mut scene));

    let worker = cluster.worker();
    let before = limit_descriptors(worker, Some(first_free_descriptor(worker)));
    scene.insert(4..=6);
    wait_until("the status says so", secs(20), || {
        let (ok, detail) = sending(&mut scene);
        holds(!ok && detail.contains("Too many open files"), || detail)
    });
    // Longer than it waits before it tries again.
    let first = sending(&mut scene);
    std::thread::sleep(secs(3));
    assert_eq!(sending(&mut scene), first, "since when it lasts, and why, has changed");
    assert_eq!(scene.number("SELECT count(*) FROM webhook.deliveries"), 3);
    assert_eq!(scene.receiver.count(), 3);

    limit_descriptors(worker, Some(before));
    scene.wait_until_drained(secs(20));
    wait_until("the status is good again", secs(10), || {
        let (ok, detail) = sending(&mut scene);
        holds(ok, || detail)
    });
    assert_eq!(scene.number("SELECT count(*) FROM webhook.deliveries WHERE attempts = 1"), 6);
    assert_eq!(cluster.worker(), worker, "the worker was replaced");
    assert_eq!(scene.receiver.duplicates(), 0);
}
