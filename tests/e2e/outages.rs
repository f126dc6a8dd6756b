//! Receivers that are away for a while, or close connections when they like.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::cluster::Cluster;
use crate::receiver::Receiver;
use crate::scene::Scene;
use crate::size::size;
use crate::wait::{holds, millis, secs, wait_until};
use crate::wire::Reply;

#[test]
fn an_endpoint_that_comes_back_gets_its_backlog_by_no_more_connections_and_requests_at_once_than_its_limit() {
    let is_up = Arc::new(AtomicBool::new(false));
    let (now, most) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
    let (up, peak) = (Arc::clone(&is_up), Arc::clone(&most));
    let options = ", max_in_flight => 4, attempt_interval => '1 s', max_attempts => 1000";
    let mut scene = Scene::new(Cluster::shared(), "outages_back", options, move |_, _| {
        if !up.load(Ordering::Relaxed) {
            return Reply::Reset;
        }
        peak.fetch_max(now.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
        std::thread::sleep(millis(5));
        now.fetch_sub(1, Ordering::Relaxed);
        Reply::ok()
    });
    let rows = size(800, 8000);
    scene.run(&format!("INSERT INTO {{}} SELECT g, 'many' FROM generate_series(1, {rows}) g"));
    wait_until("the breaker is open", secs(20), || {
        let failing = scene.number(
            "SELECT count(*) FROM webhook.failing f JOIN webhook.endpoint e ON e.id = f.endpoint_id AND e.name = '{}'",
        );
        holds(failing == 1, || format!("{failing}"))
    });
    let before = scene.receiver.connections();
    is_up.store(true, Ordering::Relaxed);
    scene.wait_until_drained(secs(60));
    let opened = scene.receiver.connections() - before;
    assert!(opened <= 4, "{opened} connections");
    let most = most.load(Ordering::Relaxed);
    assert!((2..=4).contains(&most), "{most} requests at once");
    assert_eq!(scene.receiver.duplicates(), 0);
}

#[test]
fn a_receiver_that_closes_idle_connections_costs_hardly_an_attempt_and_repeats_no_more_than_failed() {
    const BURST: i64 = 100;
    let receiver = Receiver::start_impatient(secs(1), |_, _| Reply::ok());
    let options = ", retry_schedule => '{200 ms,200 ms}'";
    let mut scene = Scene::with_receiver(Cluster::shared(), "outages_idle", options, receiver);
    let bursts = size(10, 100);
    for burst in 0..bursts {
        let (first, last) = (burst * BURST + 1, (burst + 1) * BURST);
        scene.run(&format!("INSERT INTO {{}} SELECT g, 'burst' FROM generate_series({first}, {last}) g"));
        scene.receiver.wait_for_rows(first..=last, secs(20));
        // Around the moment at which the receiver closes its connections: that is the scenario.
        std::thread::sleep(millis(900 + u64::try_from(burst % 10).unwrap() * 40));
    }
    scene.wait_until_drained(secs(20));
    let sent = bursts * BURST;
    let failed = scene.number(
        "SELECT count(*) FROM webhook.attempts a JOIN webhook.endpoints e ON e.id = a.endpoint_id
          WHERE e.name = '{}' AND a.status IS DISTINCT FROM 200",
    );
    assert!(failed * 1000 <= sent, "{failed} of {sent} attempts failed");
    let duplicates = i64::try_from(scene.receiver.duplicates()).unwrap();
    assert!(duplicates <= failed, "{duplicates} duplicates of {failed} failures");
    let connections = i64::try_from(scene.receiver.connections()).unwrap();
    assert!(connections > bursts / 2, "{connections} connections: none was closed");
}
