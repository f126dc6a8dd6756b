//! What people and rows may put into a request, and that none of it becomes a line of its own.

use std::io::Read;
use std::net::TcpStream;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use webhook_pg::endpoint::{Endpoint, Method};
use webhook_pg::engine::Job;
use webhook_pg::event::Event;
use webhook_pg::outcome::{Answer, Fault};
use webhook_pg::request::{MAX_URL, checked_header, checked_url};
use webhook_pg::secret::Secret;

use crate::receiver::{OK, PATIENCE, Receiver};
use crate::sender::{Sender, endpoint, event, job, open_egress};

/// What has been used to end a line, a header or a string somewhere.
const ODD: [&str; 25] = [
    "\r\n",
    "\r",
    "\n",
    "\n\r",
    "\0",
    "\t",
    " ",
    "  ",
    "\u{b}",
    "\u{c}",
    "\u{1b}",
    "\u{7f}",
    "\u{85}",
    "\u{a0}",
    "\u{2028}",
    "\u{2029}",
    "\u{560d}\u{560a}",
    "\u{10d}\u{10a}",
    "\u{e9}",
    "\u{4f60}",
    "\u{1f600}",
    "%0d%0a",
    "\\r\\n",
    "\"",
    "\u{ff1a}",
];
const INJECTED: &str = "x-injected: yes";

/// Every odd text in front of, inside and behind a harmless one, each followed by a header of the attacker.
fn inputs(harmless: &str) -> Vec<String> {
    let (left, right) = harmless.split_at(harmless.len() / 2);
    ODD.iter()
        .flat_map(|odd| {
            [
                format!("{harmless}{odd}{INJECTED}"),
                format!("{odd}{INJECTED}{odd}{harmless}"),
                format!("{left}{odd}{right}"),
            ]
        })
        .collect()
}

/// A receiver that hands over the raw head of every request.
fn raw() -> (Receiver, mpsc::Receiver<String>) {
    let (sender, heads) = mpsc::channel();
    let sender = Mutex::new(sender);
    let receiver = Receiver::start(move |talk| {
        if let Some(head) = read_raw(&mut talk.stream) {
            sender.lock().unwrap().send(head).ok();
            talk.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
        }
    });
    (receiver, heads)
}

fn read_raw(stream: &mut TcpStream) -> Option<String> {
    let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    while !bytes.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut piece).ok()? {
            0 => return None,
            count => bytes.extend_from_slice(&piece[..count]),
        }
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// No line of the head is the attacker's, and no byte of it ends a line for a lenient parser.
#[track_caller]
fn assert_clean(text: &str, input: &str) {
    let head = text.split("\r\n\r\n").next().unwrap();
    for line in head.split("\r\n") {
        assert!(!line.to_ascii_lowercase().starts_with("x-injected"), "{input:?}: {head}");
        assert!(!line.contains(['\r', '\n', '\0']), "{input:?}: {head}");
    }
    assert_eq!(head.lines().next().unwrap().split(' ').count(), 3, "{input:?}: {head}");
}

/// Sends and looks at what arrived, if anything did.
fn send(sender: &mut Sender, heads: &mpsc::Receiver<String>, job: Job, input: &str) -> Option<String> {
    match sender.send(job).answer {
        Answer::Status { .. } => {
            let head = heads.recv_timeout(PATIENCE).expect("the request should have arrived");
            assert_clean(&head, input);
            Some(head)
        }
        Answer::Failed { fault: Fault::Config | Fault::Poison, .. } => {
            assert!(heads.try_recv().is_err(), "{input:?}: refused, but something was sent");
            None
        }
        answer => panic!("{input:?}: {answer:?}"),
    }
}

#[test]
fn a_url_is_refused_or_sent_escaped() {
    let (receiver, heads) = raw();
    let mut sender = Sender::new(&open_egress());
    let base = format!("http://127.0.0.1:{}", receiver.port);
    for text in inputs("/hooks?a=b").into_iter().chain(inputs("/hooks")) {
        for text in [format!("{base}{text}"), format!("{base}/?q={text}")] {
            let Ok(url) = checked_url(&text, true) else { continue };
            let endpoint = Arc::new(Endpoint { url, ..endpoint(&base) });
            let head = send(&mut sender, &heads, Job { endpoint, ..job(&base) }, &text);
            assert!(head.is_some(), "{text:?} was accepted and could not be sent");
        }
    }
}

#[test]
fn a_header_is_refused_or_sent_on_one_line() {
    let (receiver, heads) = raw();
    let mut sender = Sender::new(&open_egress());
    let names = inputs("x-api-key").into_iter().map(|name| (name, "value".to_owned()));
    let values = inputs("value").into_iter().map(|value| ("x-api-key".to_owned(), value));
    for (name, value) in names.chain(values) {
        let input = format!("{name}: {value}");
        let accepted = checked_header(&name, &value).is_ok();
        let headers = vec![(name, Secret::new(value))];
        // Sent without the check as well: a row may have come into the table another way.
        let endpoint = Arc::new(Endpoint { headers, ..endpoint(&receiver.url()) });
        let head = send(&mut sender, &heads, Job { endpoint, ..job(&receiver.url()) }, &input);
        assert!(head.is_some() || !accepted, "{input:?} was accepted and could not be sent");
    }
}

#[test]
fn a_type_a_key_or_a_traceparent_of_any_text_adds_no_line() {
    let (receiver, heads) = raw();
    let mut sender = Sender::new(&open_egress());
    for text in inputs("contact.created") {
        let key = Some(serde_json::Value::from(text.as_str()).to_string());
        let event = Event { event_type: text.clone(), key: key.clone(), data: key, ..event() };
        let typed = Job { event: event.into(), ..job(&receiver.url()) };
        assert!(send(&mut sender, &heads, typed, &text).is_some(), "{text:?} could not be sent");

        let event = Event { traceparent: Some(text.clone()), ..crate::sender::event() };
        send(&mut sender, &heads, Job { event: event.into(), ..job(&receiver.url()) }, &text);
    }
}

#[test]
fn a_user_name_and_password_of_any_text_add_no_line() {
    let (receiver, heads) = raw();
    let mut sender = Sender::new(&open_egress());
    for text in inputs("ann") {
        let basic_auth = Some((text.clone(), Secret::new(text.clone())));
        let endpoint = Arc::new(Endpoint { basic_auth, method: Method::Put, ..endpoint(&receiver.url()) });
        let head = send(&mut sender, &heads, Job { endpoint, ..job(&receiver.url()) }, &text);
        assert!(head.is_some_and(|head| head.contains("\r\nauthorization: Basic ")), "{text:?}");
    }
}

#[test]
fn a_url_that_is_not_plain_https_is_refused() {
    let long = format!("https://example.com/{}", "x".repeat(MAX_URL));
    for text in [
        "file:///etc/passwd",
        "ftp://example.com/",
        "gopher://example.com/",
        "ws://example.com/",
        "wss://example.com/",
        "data:text/plain,x",
        "javascript:alert(1)",
        "unix:///run/postgresql",
        "dict://example.com:11211/",
        "ldap://example.com/",
        "jar:https://example.com!/",
        "http://example.com/",
        "HTTP://example.com/",
        "//example.com/",
        "/hooks",
        "example.com",
        "https:example.com",
        "https:///example.com",
        "https://",
        "",
        "https://example.com:0/",
        "https://example.com:65536/",
        "https://example.com:-1/",
        "https://example.com:x/",
        "https://ann@example.com/",
        "https://ann:pw@example.com/",
        "https://:pw@example.com/",
        "https://@example.com/",
        "https://example.com@10.0.0.1/",
        "https://example.com/#fragment",
        "https://example.com#",
        "https://example.com\\@10.0.0.1/",
        "https://[::1",
        "https://[fe80::1%25lo]/",
        "https://1.2.3.4.5/",
        "https://256.256.256.256/",
        "https://exa mple.com/",
        "https://ex%00ample.com/",
        "https://ex%0d%0aample.com/",
        &long,
    ] {
        assert!(checked_url(text, false).is_err(), "{text:.60} was accepted");
    }
}

#[test]
fn a_url_of_the_greatest_length_arrives_whole() {
    let receiver = Receiver::answering(OK);
    let base = format!("http://127.0.0.1:{}/", receiver.port);
    let url = format!("{base}{}", "x".repeat(MAX_URL - base.len()));
    assert_eq!(Sender::new(&open_egress()).status(&url), 200);
    assert_eq!(receiver.next().line.len(), "POST / HTTP/1.1".len() + MAX_URL - base.len());
}
