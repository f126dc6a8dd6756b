//! What an answer does: every status, a wait that is asked for, answers that are none.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::cluster::Cluster;
use crate::scene::Scene;
use crate::wait::{holds, secs, wait_until};
use crate::wire::Reply;

#[test]
fn of_every_status_one_attempt_is_recorded_and_only_2xx_is_a_success() {
    let options = ", max_attempts => 1, max_in_flight => 1";
    let mut scene = Scene::new(Cluster::shared(), "answers_status", options, |request, _| {
        let row = request.row().and_then(|row| u16::try_from(row).ok());
        Reply::status(row.filter(|row| *row < 600).unwrap_or(200))
    });
    // All but 410, which disables the endpoint; after each a success, or the breaker would open.
    scene.run(
        "INSERT INTO public.{} SELECT n + 1000 * k FROM generate_series(200, 599) n, generate_series(0, 1) k
          WHERE n <> 410 ORDER BY n, k",
    );
    wait_until("every delivery has ended", secs(60), || {
        let ended = scene
            .number("SELECT count(*) FROM webhook.deliveries WHERE endpoint = '{}' AND state <> 'pending'");
        holds(ended == 798, || format!("{ended} of 798"))
    });
    let query = "SELECT (e.data ->> 'id')::int, a.status, a.attempt, a.error IS NULL, d.state
                   FROM webhook.attempts a JOIN webhook.deliveries d ON d.id = a.delivery_id
                   JOIN webhook.events e ON e.id = a.event_id
                  WHERE a.endpoint_id = $1";
    let mut attempts: BTreeMap<i32, Vec<(i32, i32, bool, String)>> = BTreeMap::new();
    for row in scene.client.query(query, &[&scene.endpoint]).unwrap() {
        attempts.entry(row.get(0)).or_default().push((row.get(1), row.get(2), row.get(3), row.get(4)));
    }
    assert_eq!(attempts.len(), 798);
    for (id, attempts) in attempts {
        let status = if id < 600 { id } else { 200 };
        let state = if (200..300).contains(&status) { "delivered" } else { "dead" };
        assert_eq!(attempts, [(status, 1, true, state.to_owned())], "of row {id}");
    }
    assert_eq!(scene.receiver.count(), 798);
}

#[test]
fn after_retry_after_of_three_seconds_nothing_arrives_for_three_seconds_and_then_everything() {
    for status in [429, 503] {
        let requests = AtomicUsize::new(0);
        let options = ", retry_schedule => '{100 ms,100 ms}'";
        let mut scene =
            Scene::new(Cluster::shared(), &format!("answers_wait_{status}"), options, move |_, _| {
                match requests.fetch_add(1, Ordering::Relaxed) {
                    0 => Reply::status(status).with_header("retry-after", "3"),
                    _ => Reply::ok(),
                }
            });
        scene.insert([1]);
        scene.wait_for_deliveries("pending", 1);
        scene.insert(2..=20);
        scene.receiver.wait_for_rows(1..=20, secs(20));
        let times: Vec<_> = scene.receiver.requests().iter().map(|request| request.received).collect();
        assert_eq!(times.len(), 21);
        let wait = times[1] - times[0];
        assert!(wait >= secs(3), "{status}: the next request came after {wait:?}");
        assert!(wait <= secs(5), "{status}: the next request came after {wait:?}");
    }
}

#[test]
fn an_answer_that_is_none_is_recorded_as_what_it_is_and_tried_again() {
    let options = ", retry_schedule => '{300 ms,300 ms,300 ms,300 ms}'";
    let mut scene = Scene::new(Cluster::shared(), "answers_none", options, |_, nth| match nth {
        1 => Reply::Raw(b"SSH-2.0-OpenSSH_9.2p1\r\n\r\n"),
        2 => Reply::Raw(b"HTTP/1.1 1000 Much\r\ncontent-length: 0\r\n\r\n"),
        3 => Reply::Raw(b"HTTP/1.1 200 OK\r\ncontent-le"),
        4 => Reply::Reset,
        _ => Reply::ok(),
    });
    scene.insert([1]);
    scene.wait_for_deliveries("delivered", 1);
    let query = "SELECT attempt, status, coalesce(error, '') FROM webhook.attempts WHERE endpoint_id = $1 ORDER BY attempt";
    let rows = scene.client.query(query, &[&scene.endpoint]).unwrap();
    let attempts: Vec<(i32, Option<i32>, String)> =
        rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
    assert_eq!(attempts.len(), 5, "{attempts:?}");
    for (n, (attempt, status, error)) in (1..).zip(&attempts) {
        let (wanted, class, unknown) = match n {
            1 | 2 => (None, "protocol: ", false),
            3 | 4 => (None, "reset: ", true),
            _ => (Some(200), "", false),
        };
        assert_eq!((*attempt, *status), (n, wanted), "{attempts:?}");
        assert!(error.starts_with(class) && error.contains("outcome unknown") == unknown, "{attempts:?}");
    }
    assert_eq!(scene.receiver.count(), 5, "an ambiguous try was repeated without a record");
}
