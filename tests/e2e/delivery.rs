//! The plain path: committed, delivered, recorded; and what an application sends itself.

use std::collections::BTreeSet;

use serde_json::json;

use crate::cluster::Cluster;
use crate::receiver::Receiver;
use crate::scene::{Scene, register};
use crate::wait::{holds, secs, wait_until};
use crate::wire::Reply;

#[test]
fn a_change_is_delivered_after_commit_and_not_before() {
    let mut scene = Scene::accepting("delivery_commit");
    scene.run("BEGIN; INSERT INTO public.{} VALUES (1, 'note')");
    // Another session's event overtakes: the worker has looked, and did not see the uncommitted one.
    let mut other = scene.cluster.connect();
    other.execute("INSERT INTO public.delivery_commit VALUES (2, 'note')", &[]).unwrap();
    scene.receiver.wait_for_rows([2], secs(10));
    assert_eq!(scene.receiver.rows(), [2]);
    scene.run("COMMIT");
    scene.receiver.wait_for_rows([1], secs(10));
    assert_eq!(scene.receiver.rows(), [2, 1]);
}

#[test]
fn every_request_bears_a_good_signature() {
    let mut scene = Scene::accepting("delivery_signed");
    scene.insert(1..=50);
    scene.receiver.wait_for_rows(1..=50, secs(10));
    scene.receiver.assert_all_signed();
}

#[test]
fn a_request_is_a_post_of_json_to_the_url() {
    let mut scene = Scene::accepting("delivery_request");
    scene.insert([1]);
    scene.receiver.wait_for_answers(1, secs(10));
    let request = scene.receiver.requests().remove(0);
    assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/hook"));
    let content_type = request.header("content-type");
    assert_eq!(
        content_type.split(';').next(),
        Some("application/json"),
        "the content type is {content_type:?}"
    );
    assert_eq!(request.header("content-length"), request.body.len().to_string());
    assert_eq!(request.header("host"), request_host(&scene.receiver));
}

fn request_host(receiver: &Receiver) -> String {
    let url = receiver.url();
    url.trim_start_matches("http://").trim_end_matches("/hook").to_owned()
}

#[test]
fn the_webhook_id_is_the_id_of_the_event() {
    let mut scene = Scene::accepting("delivery_id");
    scene.insert([1]);
    scene.receiver.wait_for_answers(1, secs(10));
    let query = "SELECT id::text FROM webhook.events WHERE type = 'delivery_id.created'";
    let event: String = scene.client.query_one(query, &[]).unwrap().get(0);
    let request = scene.receiver.requests().remove(0);
    assert_eq!(request.id(), event);
    assert_eq!(event.as_bytes()[14], b'7', "{event} is not a UUID of version 7");
}

#[test]
fn a_delivery_is_recorded_with_its_attempt() {
    let mut scene = Scene::new(Cluster::shared(), "delivery_recorded", "", |_, _| {
        Reply::status(202).with_body("thank you")
    });
    scene.insert([1]);
    scene.wait_for_deliveries("delivered", 1);
    let query = "SELECT d.type, d.key::text, d.attempts, d.last_status, d.finished_at IS NOT NULL, d.next_attempt_at IS NULL,
                        a.attempt, a.status, a.response, a.error IS NULL, a.duration_ms::float8 >= 0
                   FROM webhook.deliveries d JOIN webhook.attempts a ON a.delivery_id = d.id
                  WHERE d.endpoint_id = $1";
    let row = scene.client.query_one(query, &[&scene.endpoint]).unwrap();
    assert_eq!(row.get::<_, String>(0), "delivery_recorded.created");
    assert_eq!(serde_json::from_str::<serde_json::Value>(row.get(1)).unwrap(), json!({"id": 1}));
    assert_eq!((row.get::<_, i32>(2), row.get::<_, i32>(3)), (1, 202));
    assert!(row.get::<_, bool>(4) && row.get::<_, bool>(5), "it is not finished");
    assert_eq!((row.get::<_, i32>(6), row.get::<_, i32>(7)), (1, 202));
    assert_eq!(row.get::<_, String>(8), "thank you");
    assert!(row.get::<_, bool>(9) && row.get::<_, bool>(10));
}

#[test]
fn connections_are_kept_alive() {
    let mut scene = Scene::accepting("delivery_keep_alive");
    scene.insert(1..=200);
    scene.receiver.wait_for_rows(1..=200, secs(10));
    let connections = scene.receiver.connections();
    assert!(connections <= 16, "{connections} connections for 200 requests");
}

#[test]
fn a_bulk_insert_is_delivered_completely_and_once() {
    let mut scene = Scene::accepting("delivery_bulk");
    scene.run("INSERT INTO public.{} SELECT g, 'bulk' FROM generate_series(1, 2000) g");
    scene.wait_until_drained(secs(30));
    let ledger = scene.ledger();
    assert_eq!(ledger.committed.len(), 2000);
    assert_eq!((ledger.lost.len(), ledger.ghosts.len(), ledger.duplicates), (0, 0, 0));
    assert_eq!(scene.receiver.count(), 2000);
}

#[test]
fn every_matching_endpoint_gets_the_event() {
    let mut scene = Scene::accepting("delivery_fan_out");
    let other = Receiver::start(|_, _| Reply::ok());
    let deletions = Receiver::start(|_, _| Reply::ok());
    let (all, secret) =
        register(&mut scene.client, "delivery_fan_out_2", &other.url(), "delivery_fan_out.*", "");
    other.trust(&secret);
    let pattern = "delivery_fan_out.deleted";
    let (some, _) = register(&mut scene.client, "delivery_fan_out_3", &deletions.url(), pattern, "");
    scene.insert([1]);
    scene.run("DELETE FROM public.{}");
    for receiver in [&scene.receiver, &other] {
        receiver.wait_for_answers(2, secs(10));
    }
    deletions.wait_for_answers(1, secs(10));
    for endpoint in [all, some] {
        scene.client.execute("SELECT webhook_unregister($1)", &[&endpoint]).unwrap();
    }
    let ids = |r: &Receiver| r.requests().iter().map(|q| q.id().to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(ids(&scene.receiver), ids(&other), "the id depends on the endpoint");
    assert_eq!(deletions.count(), 1, "an event came that the pattern does not match");
    other.assert_all_signed();
}

#[test]
fn an_event_that_the_application_sends_arrives() {
    let mut scene = Scene::accepting("delivery_sent");
    let query = r#"SELECT webhook_send('delivery_sent.happened', '{"id": 7, "why":  "because"}', key => 'k-7')::text"#;
    let id: String = scene.client.query_one(query, &[]).unwrap().get(0);
    scene.receiver.wait_for_answers(1, secs(10));
    let request = scene.receiver.requests().remove(0);
    assert_eq!(request.id(), id);
    assert!(request.text().contains(r#"{"id": 7, "why":  "because"}"#), "{} is not exact", request.text());
    let body = request.json();
    assert_eq!((&body["type"], &body["key"]), (&json!("delivery_sent.happened"), &json!("k-7")));
}

#[test]
fn an_event_that_is_sent_twice_under_one_idempotency_key_is_one_event() {
    let mut scene = Scene::accepting("delivery_idempotent");
    let query = r#"SELECT webhook_send('delivery_idempotent.happened', '{"id": 1}', idempotency_key => 'once')::text"#;
    let first: String = scene.client.query_one(query, &[]).unwrap().get(0);
    let second: String = scene.client.query_one(query, &[]).unwrap().get(0);
    assert_eq!(first, second);
    scene.fence(2);
    assert_eq!(scene.receiver.rows(), [1, 2]);
}

#[test]
fn an_event_that_is_sent_in_a_rolled_back_transaction_is_gone() {
    let mut scene = Scene::accepting("delivery_unsent");
    scene.run(r#"BEGIN; SELECT webhook_send('delivery_unsent.happened', '{"id": 1}'); ROLLBACK"#);
    scene.fence(2);
    assert_eq!(scene.receiver.rows(), [2]);
}

#[test]
fn a_test_reaches_its_endpoint_alone() {
    let cluster = Cluster::shared();
    let mut scene = Scene::new(cluster, "delivery_ping", "", |_, _| Reply::ok());
    let everything = Receiver::start(|_, _| Reply::ok());
    let (other, _) = register(&mut scene.client, "delivery_ping_2", &everything.url(), "*", "");
    let row = scene.client.query_one("SELECT webhook_test($1)::text", &[&scene.endpoint]).unwrap();
    let id: String = row.get(0);
    scene.receiver.wait_for_answers(1, secs(10));
    scene.fence(1);
    wait_until("the other endpoint got the fence", secs(10), || {
        holds(everything.requests().iter().any(|r| r.json()["type"] == "delivery_ping.created"), || {
            format!("{} requests", everything.count())
        })
    });
    scene.client.execute("SELECT webhook_unregister($1)", &[&other]).unwrap();
    let ping = scene.receiver.requests().remove(0);
    assert_eq!((ping.id(), &ping.json()["type"]), (id.as_str(), &json!("webhook.ping")));
    let strays = everything.requests().iter().filter(|r| r.id() == id).count();
    assert_eq!(strays, 0, "the test went to another endpoint, too");
    scene.receiver.assert_all_signed();
}

#[test]
fn an_endpoint_that_nobody_wants_any_more_gets_nothing() {
    let mut scene = Scene::accepting("delivery_unregistered");
    let gone = Receiver::start(|_, _| Reply::ok());
    let name = "delivery_unregistered_2";
    let (endpoint, _) = register(&mut scene.client, name, &gone.url(), "delivery_unregistered.*", "");
    scene.fence(1);
    gone.wait_for_rows([1], secs(10));
    scene.client.execute("SELECT webhook_unregister($1)", &[&endpoint]).unwrap();
    scene.fence(2);
    assert_eq!(gone.rows(), [1]);
}
