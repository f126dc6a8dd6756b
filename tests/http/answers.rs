//! Answers, from the ordinary to the hostile.

use std::sync::Arc;

use webhook_pg::endpoint::Endpoint;
use webhook_pg::engine::Job;
use webhook_pg::outcome::{Answer, Fault, State, Verdict, decide, judge};
use webhook_pg::retry::Schedule;
use webhook_pg::secret::Secret;

use crate::receiver::{OK, Receiver};
use crate::sender::{Sender, endpoint, job, open_egress};

#[test]
fn a_redirect_is_not_followed() {
    let canary = Receiver::answering(OK);
    let mut sender = Sender::new(&open_egress());
    for status in [301, 302, 303, 307, 308] {
        let location = canary.url();
        let answer = format!("HTTP/1.1 {status} Moved\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n");
        let receiver = Receiver::answering(answer);
        assert_eq!(sender.status(&receiver.url()), status);
    }
    assert_eq!(canary.connections(), 0);
}

#[test]
fn any_status_is_an_answer_with_its_retry_after() {
    let receiver =
        Receiver::answering("HTTP/1.1 429 Slow down\r\nretry-after: 120\r\ncontent-length: 4\r\n\r\nwa\0t");
    let attempt = Sender::new(&open_egress()).send(job(&receiver.url()));
    let (body, retry_after) = ("wat".to_owned(), Some("120".to_owned()));
    assert_eq!(attempt.answer, Answer::Status { status: 429, body, retry_after });
}

#[test]
fn every_status_is_the_answer_it_is() {
    let receiver = Receiver::start(|talk| {
        while let Some(request) = talk.read() {
            let status = request.header("x-want").unwrap().to_owned();
            if !talk.write(format!("HTTP/1.1 {status} So\r\ncontent-length: 0\r\n\r\n").as_bytes()) {
                break;
            }
        }
    });
    let mut sender = Sender::new(&open_egress());
    for status in 200..=999 {
        let headers = vec![("x-want".to_owned(), Secret::new(status.to_string()))];
        let endpoint = Arc::new(Endpoint { headers, ..endpoint(&receiver.url()) });
        let answer = sender.send(Job { endpoint, ..job(&receiver.url()) }).answer;
        let success = judge(&answer) == Verdict::Delivered;
        assert!(
            matches!(answer, Answer::Status { status: got, .. } if got == status),
            "{status}: {answer:?}"
        );
        assert_eq!(success, status < 300, "{status}");
    }
}

#[test]
fn a_garbled_status_line_is_a_protocol_fault_and_its_connection_is_left() {
    for line in [
        "HTTP/1.1 0 No",
        "HTTP/1.1 000 No",
        "HTTP/1.1 099 No",
        "HTTP/1.1 1000 No",
        "HTTP/1.1 -200 OK",
        "HTTP/1.1 +200 OK",
        "HTTP/1.1 2 0 0",
        "HTTP/1.1 0x200 OK",
        "HTTP/1.1 200200 OK",
        "HTTP/1.1 OK",
        "HTTP/1.1",
        "HTTP/2.0 200 OK",
        "HTTP/0.9 200 OK",
        "http/1.1 200 OK",
        "ICY 200 OK",
        "200 OK",
        "\u{16}\u{3}\u{1}\u{2}\0",
        "SSH-2.0-OpenSSH_9.2",
        "<html>200</html>",
    ] {
        let receiver = Receiver::answering(format!("{line}\r\ncontent-length: 0\r\n\r\n"));
        let mut sender = Sender::new(&open_egress());
        assert_eq!(sender.fault(&receiver.url()), Fault::Protocol, "{line:?}");
        assert_eq!(sender.fault(&receiver.url()), Fault::Protocol, "{line:?}");
        assert_eq!(receiver.connections(), 2, "the connection was used again after {line:?}");
    }
}

#[test]
fn switching_protocols_is_no_success_and_ends_the_connection() {
    let receiver = Receiver::answering("HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\n\r\n");
    let mut sender = Sender::new(&open_egress());
    assert_eq!(sender.status(&receiver.url()), 101);
    assert_eq!(sender.status(&receiver.url()), 101);
    assert_eq!(receiver.connections(), 2);
}

#[test]
fn an_informational_answer_is_passed_over_for_the_real_one() {
    let receiver = Receiver::answering(
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n",
    );
    let mut sender = Sender::new(&open_egress());
    assert_eq!(sender.status(&receiver.url()), 201);
    assert_eq!(sender.status(&receiver.url()), 201);
    assert_eq!(receiver.connections(), 1);
}

#[test]
fn any_retry_after_puts_the_next_attempt_between_the_schedule_and_a_day() {
    const BASE: i64 = 5_000_000;
    const DAY: i64 = 24 * 60 * 60 * 1_000_000;
    let schedule = Schedule::parse("5s 5m").unwrap();
    let now = 1_795_255_200_000_000;
    for header in [
        "0",
        "-1",
        "1e12",
        "1000000000000",
        "99999999999999999999999999999999999999999999999999999999999999999999999999999",
        "soon",
        "",
        "1.5",
        "Thu, 01 Jan 1970 00:00:00 GMT",
        "Fri, 31 Dec 9999 23:59:59 GMT",
        "Fri, 99 Foo 9999 99:99:99 GMT",
        "\u{e9}t\u{e9}",
        "10\r\nretry-after: 20",
    ] {
        for status in [429, 503] {
            let receiver = Receiver::answering(format!(
                "HTTP/1.1 {status} Wait\r\nretry-after: {header}\r\ncontent-length: 0\r\n\r\n"
            ));
            let answer = Sender::new(&open_egress()).send(job(&receiver.url())).answer;
            let decision = decide(&answer, 1, &schedule, now, 0.5);
            let State::Pending { next_attempt_at } = decision.state else { panic!("{header:?}") };
            assert!((BASE..=DAY).contains(&(next_attempt_at - now)), "{header:?}: {next_attempt_at}");
            assert!(decision.hold_until.is_none_or(|until| (0..=DAY).contains(&(until - now))), "{header:?}");
        }
    }
}

#[test]
fn a_compressed_body_is_kept_as_it_came() {
    let receiver = Receiver::answering(
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 6\r\n\r\n\x1f\x8b\x08raw".to_vec(),
    );
    let mut sender = Sender::new(&open_egress());
    let body = "\u{1f}\u{fffd}\u{8}raw".to_owned();
    let answer = sender.send(job(&receiver.url())).answer;
    assert_eq!(answer, Answer::Status { status: 200, body, retry_after: None });
    assert_eq!(receiver.next().header("accept-encoding"), Some("identity"));
}
