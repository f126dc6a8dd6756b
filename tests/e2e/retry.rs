//! Failures: tried again under the same id, until success or the last attempt.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::cluster::Cluster;
use crate::receiver::Receiver;
use crate::scene::{Scene, register};
use crate::wait::{holds, millis, secs, wait_until};
use crate::wire::Reply;

#[test]
fn a_failed_delivery_is_tried_until_2xx_with_the_same_id_and_body_and_a_fresh_timestamp() {
    let options = ", retry_schedule => '{2 s,2 s,2 s}'";
    let mut scene = Scene::new(Cluster::shared(), "retry_until", options, |_, nth| {
        Reply::status(if nth < 3 { 500 } else { 204 })
    });
    scene.insert([1]);
    scene.receiver.wait_for_rows([1], secs(20));
    let requests = scene.receiver.requests();
    assert_eq!(requests.len(), 3);
    for pair in requests.windows(2) {
        assert_eq!(pair[0].id(), pair[1].id());
        assert_eq!(pair[0].text(), pair[1].text());
        assert!(pair[0].timestamp() < pair[1].timestamp(), "the timestamp is not fresh");
        let gap = pair[1].received - pair[0].received;
        // And what a busy machine adds.
        let most = millis(2400 + 600);
        assert!(gap >= millis(1600) && gap <= most, "a wait of 2 s ± 20 % took {gap:?}");
    }
    scene.receiver.assert_all_signed();
    scene.wait_for_deliveries("delivered", 1);
}

#[test]
fn a_delivery_is_dead_after_its_last_attempt_and_visible_as_such() {
    let options = ", max_attempts => 3, attempt_interval => '1 s'";
    let mut scene = Scene::new(Cluster::shared(), "retry_dead", options, |_, _| {
        Reply::status(500).with_body("out of order")
    });
    scene.insert([1]);
    scene.wait_for_deliveries("dead", 1);
    let query = "SELECT attempts, last_status, finished_at IS NOT NULL AND next_attempt_at IS NULL
                   FROM webhook.deliveries WHERE endpoint_id = $1";
    let row = scene.client.query_one(query, &[&scene.endpoint]).unwrap();
    assert_eq!((row.get::<_, i32>(0), row.get::<_, i32>(1), row.get::<_, bool>(2)), (3, 500, true));
    let query =
        "SELECT attempt, status, response FROM webhook.attempts WHERE endpoint_id = $1 ORDER BY attempt";
    let rows = scene.client.query(query, &[&scene.endpoint]).unwrap();
    let attempts: Vec<(i32, i32, String)> = rows.iter().map(|r| (r.get(0), r.get(1), r.get(2))).collect();
    let expected: Vec<_> = (1..=3).map(|n| (n, 500, "out of order".to_owned())).collect();
    assert_eq!(attempts, expected);
    assert_eq!(scene.receiver.count(), 3, "requests that the receiver counted");
}

#[test]
fn a_pending_delivery_says_when_it_is_tried_next() {
    let options = ", retry_schedule => '{1 h}'";
    let mut scene = Scene::new(Cluster::shared(), "retry_pending", options, |_, _| Reply::status(404));
    scene.insert([1]);
    scene.wait_for_deliveries("pending", 1);
    let query = "SELECT count(*) FROM webhook.deliveries
                  WHERE endpoint = '{}' AND attempts = 1 AND last_status = 404 AND finished_at IS NULL
                    AND next_attempt_at BETWEEN now() + '47 min' AND now() + '73 min'";
    assert_eq!(scene.number(query), 1, "next_attempt_at is not 1 h ± 20 % from now");
}

#[test]
fn a_redirect_is_a_failure_and_not_followed() {
    let canary = Receiver::start(|_, _| Reply::ok());
    let target = canary.url();
    let options = ", max_attempts => 1";
    let mut scene = Scene::new(Cluster::shared(), "retry_redirect", options, move |_, _| {
        Reply::status(307).with_header("location", &target)
    });
    scene.insert([1]);
    scene.wait_for_deliveries("dead", 1);
    assert_eq!(canary.connections(), 0);
}

#[test]
fn a_connection_that_breaks_is_an_attempt_and_tried_again() {
    let options = ", retry_schedule => '{1 s,1 s}'";
    let mut scene = Scene::new(Cluster::shared(), "retry_broken", options, |_, nth| match nth {
        1 => Reply::Reset,
        2 => Reply::Close,
        _ => Reply::ok(),
    });
    scene.insert([1]);
    scene.receiver.wait_for_rows([1], secs(20));
    scene.wait_for_deliveries("delivered", 1);
    assert_eq!(scene.receiver.count(), 3, "an ambiguous try was repeated without a record");
    let query = "SELECT count(*) FROM webhook.attempts WHERE endpoint_id = (SELECT id FROM webhook.endpoints
                  WHERE name = '{}') AND status IS NULL AND error LIKE 'reset: %outcome unknown%'";
    assert_eq!(scene.number(query), 2);
}

#[test]
fn an_attempt_ends_at_its_timeout() {
    let options = ", max_attempts => 1, timeout => '1 s'";
    let mut scene = Scene::new(Cluster::shared(), "retry_timeout", options, |_, _| Reply::Hang);
    scene.insert([1]);
    scene.wait_for_deliveries("dead", 1);
    let query = "SELECT error, duration_ms::float8 FROM webhook.attempts WHERE endpoint_id = $1";
    let row = scene.client.query_one(query, &[&scene.endpoint]).unwrap();
    let (error, ms): (String, f64) = (row.get(0), row.get(1));
    assert!(error.starts_with("timeout"), "the attempt's error is {error:?}");
    assert!((900.0..2000.0).contains(&ms), "a timeout of 1 s took {ms} ms");
}

#[test]
fn a_receiver_that_is_not_there_is_tried_again() {
    // A port that was free a moment ago.
    let vacated = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut scene = Scene::accepting("retry_absent");
    let url = format!("http://{vacated}/");
    let options = ", retry_schedule => '{1 h}'";
    let (endpoint, _) = register(&mut scene.client, "retry_absent_2", &url, "retry_absent.*", options);
    scene.fence(1);
    let query =
        "SELECT count(*) FROM webhook.deliveries WHERE endpoint = 'retry_absent_2' AND state = 'pending'
                    AND last_status IS NULL AND last_error LIKE 'connect%'";
    wait_until("the failure is recorded", secs(10), || {
        let n = scene.number(query);
        holds(n == 1, || format!("{n} pending deliveries with a connect error"))
    });
    scene.client.execute("SELECT webhook_unregister($1)", &[&endpoint]).unwrap();
}

#[test]
fn paused_then_resumed_loses_nothing() {
    let mut scene = Scene::accepting("retry_paused");
    scene.insert(1..=10);
    scene.receiver.wait_for_rows(1..=10, secs(10));
    let endpoint = scene.endpoint;
    scene.client.execute("SELECT webhook_pause($1)", &[&endpoint]).unwrap();
    // Another endpoint's receipt of the last row shows that the worker has passed it.
    let witness = Receiver::start(|_, _| Reply::ok());
    let pattern = "retry_paused.*";
    let (second, _) = register(&mut scene.client, "retry_paused_2", &witness.url(), pattern, "");
    scene.insert(11..=60);
    witness.wait_for_rows(11..=60, secs(10));
    assert_eq!(scene.receiver.count(), 10, "a paused endpoint was sent to");
    scene.client.execute("SELECT webhook_resume($1)", &[&endpoint]).unwrap();
    scene.insert([61]);
    scene.wait_until_drained(secs(20));
    scene.client.execute("SELECT webhook_unregister($1)", &[&second]).unwrap();
    assert_eq!(scene.receiver.count(), 61);
    assert_eq!(scene.receiver.duplicates(), 0);
}

#[test]
fn a_retry_that_is_due_waits_for_a_paused_endpoint() {
    let broken = Arc::new(AtomicBool::new(true));
    let switch = Arc::clone(&broken);
    let options = ", max_attempts => 100, attempt_interval => '4 s'";
    let mut scene = Scene::new(Cluster::shared(), "retry_paused_due", options, move |_, _| {
        Reply::status(if switch.load(Ordering::Relaxed) { 500 } else { 200 })
    });
    scene.insert([1]);
    scene.wait_for_deliveries("pending", 1);
    let endpoint = scene.endpoint;
    scene.client.execute("SELECT webhook_pause($1)", &[&endpoint]).unwrap();
    broken.store(false, Ordering::Relaxed);
    let overdue = "SELECT count(*) FROM webhook.deliveries
                    WHERE endpoint = '{}' AND state = 'pending' AND next_attempt_at < now() - interval '1 s'";
    wait_until("the retry is overdue", secs(30), || {
        let n = scene.number(overdue);
        holds(n == 1, || format!("{n} overdue deliveries"))
    });
    assert_eq!(scene.receiver.accepted().len(), 0, "a paused endpoint was sent to");
    scene.client.execute("SELECT webhook_resume($1)", &[&endpoint]).unwrap();
    scene.wait_until_drained(secs(20));
    assert_eq!(scene.receiver.duplicates(), 0);
}

#[test]
fn a_dead_delivery_that_is_retried_goes_on_counting_and_arrives() {
    let options = ", max_attempts => 1";
    let mut scene = Scene::new(Cluster::shared(), "retry_revived", options, |_, nth| {
        Reply::status(if nth == 1 { 500 } else { 200 })
    });
    scene.insert([1]);
    scene.wait_for_deliveries("dead", 1);
    let query = "SELECT webhook_retry(id) FROM webhook.deliveries WHERE endpoint_id = $1";
    let done: bool = scene.client.query_one(query, &[&scene.endpoint]).unwrap().get(0);
    assert!(done, "webhook_retry refused a dead delivery");
    scene.wait_for_deliveries("delivered", 1);
    assert_eq!(scene.number("SELECT attempts::bigint FROM webhook.deliveries WHERE endpoint = '{}'"), 2);
    let requests = scene.receiver.requests();
    assert_eq!((requests.len(), requests[0].id()), (2, requests[1].id()));
}

#[test]
fn a_cancelled_delivery_is_not_tried_again() {
    let options = ", max_attempts => 100, attempt_interval => '3 s'";
    let mut scene = Scene::new(Cluster::shared(), "retry_cancelled", options, |_, _| Reply::status(500));
    scene.insert([1]);
    scene.wait_for_deliveries("pending", 1);
    let query = "SELECT webhook_cancel(id) FROM webhook.deliveries WHERE endpoint_id = $1";
    let done: bool = scene.client.query_one(query, &[&scene.endpoint]).unwrap().get(0);
    assert!(done, "webhook_cancel refused a pending delivery");
    // An attempt that was under way may still end; after that the count stands still over two intervals.
    scene.insert([2]);
    wait_until("row 2 was tried twice more", secs(30), || {
        let n = scene.receiver.rows().iter().filter(|row| **row == 2).count();
        holds(n >= 3, || format!("{n} attempts for row 2"))
    });
    let attempts = scene.receiver.rows().iter().filter(|row| **row == 1).count();
    assert!(attempts <= 2, "{attempts} attempts for a delivery that was cancelled after the first");
    scene.wait_for_deliveries("cancelled", 1);
}
