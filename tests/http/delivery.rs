//! What arrives at a receiver.

use std::sync::Arc;

use webhook_pg::endpoint::{Endpoint, Method};
use webhook_pg::engine::Job;
use webhook_pg::event::Event;
use webhook_pg::outcome::Fault;
use webhook_pg::secret::Secret;

use crate::receiver::{OK, Receiver};
use crate::sender::{SECRET, Sender, endpoint, event, fault, job, open_egress};

#[test]
fn a_delivery_verifies_at_the_receiver() {
    let receiver = Receiver::answering(OK);
    assert_eq!(Sender::new(&open_egress()).status(&receiver.url()), 200);
    let request = receiver.next();
    assert_eq!(request.line, "POST /hooks?a=b HTTP/1.1");
    assert_eq!(request.header("content-type"), Some("application/json"));
    assert_eq!(request.header("host"), Some(format!("127.0.0.1:{}", receiver.port).as_str()));
    for name in ["host", "content-length", "webhook-id", "user-agent", "accept-encoding"] {
        let count = request.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).count();
        assert_eq!(count, 1, "{name}");
    }
    let mut headers = ureq::http::HeaderMap::new();
    for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
        headers.insert(name, request.header(name).unwrap().parse().unwrap());
    }
    standardwebhooks::Webhook::new(SECRET).unwrap().verify(&request.body, &headers).unwrap();
}

#[test]
fn every_method_carries_its_body_and_headers() {
    let receiver = Receiver::answering(OK);
    let mut sender = Sender::new(&open_egress());
    let methods =
        [(Method::Post, "POST"), (Method::Put, "PUT"), (Method::Patch, "PATCH"), (Method::Delete, "DELETE")];
    for (method, word) in methods {
        let endpoint = Endpoint {
            method,
            headers: vec![("X-Api-Key".to_owned(), Secret::new("k"))],
            basic_auth: Some(("ann".to_owned(), Secret::new("pw"))),
            ..endpoint(&receiver.url())
        };
        sender.send(Job { endpoint: Arc::new(endpoint), ..job(&receiver.url()) });
        let request = receiver.next();
        assert_eq!(request.line, format!("{word} /hooks?a=b HTTP/1.1"));
        assert_eq!(request.header("x-api-key"), Some("k"));
        assert_eq!(request.header("authorization"), Some("Basic YW5uOnB3"));
        assert!(request.body.starts_with(b"{\"type\":\"contact.created\""));
    }
}

#[test]
fn a_body_of_any_size_arrives_whole() {
    let receiver = Receiver::answering(OK);
    let mut sender = Sender::new(&open_egress());
    for size in [0, 1, 7_000, 8_192, 31_000, 32_768, 33_000, 70_000, 3_000_000] {
        let data = format!("\"{}\"", "é".repeat(size));
        let event = Arc::new(Event { data: Some(data), ..event() });
        let want = webhook_pg::request::standard_body(&event, &[]);
        sender.send(Job { event, ..job(&receiver.url()) });
        assert!(receiver.next().body == want.as_bytes(), "{size}");
    }
    assert_eq!(receiver.connections(), 1);
}

#[test]
fn an_endpoint_without_a_secret_is_a_configuration_fault() {
    let receiver = Receiver::answering(OK);
    let bare = Arc::new(Endpoint { secrets: vec![], ..endpoint(&receiver.url()) });
    let attempt = Sender::new(&open_egress()).send(Job { endpoint: bare, ..job(&receiver.url()) });
    assert_eq!(fault(attempt), Fault::Config);
    assert_eq!(receiver.connections(), 0);
}
