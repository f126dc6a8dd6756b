//! Connections that serve more than one request.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use webhook_pg::endpoint::Endpoint;
use webhook_pg::engine::Job;
use webhook_pg::outcome::{Answer, Fault};
use webhook_pg::secret::Secret;

use crate::receiver::{OK, Receiver};
use crate::sender::{Sender, endpoint, job, open_egress};

#[test]
fn a_connection_is_used_again() {
    let answers: [&[u8]; 4] = [
        OK,
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 500 Oops\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nlocation: /\r\ncontent-length: 0\r\n\r\n",
    ];
    let receiver = Receiver::start(move |talk| {
        for answer in answers.iter().cycle() {
            if talk.read().is_none() || !talk.write(answer) {
                break;
            }
        }
    });
    let mut sender = Sender::new(&open_egress());
    for status in [200, 204, 500, 302, 200] {
        assert_eq!(sender.status(&receiver.url()), status);
    }
    assert_eq!(receiver.connections(), 1);
}

#[test]
fn a_connection_closed_while_idle_is_replaced() {
    let (closed, was_closed) = mpsc::channel();
    let receiver = Receiver::start(move |talk| {
        talk.read();
        talk.write(OK);
        talk.stream.shutdown(std::net::Shutdown::Both).unwrap();
        closed.send(()).ok();
    });
    let mut sender = Sender::new(&open_egress());
    for connections in 1..=3 {
        assert_eq!(sender.status(&receiver.url()), 200);
        was_closed.recv().unwrap();
        assert_eq!(receiver.connections(), connections);
    }
}

#[test]
fn a_connection_closed_at_the_moment_of_use_is_a_reset_and_not_sent_twice() {
    let receiver = Receiver::start(|talk| {
        talk.read();
        talk.write(OK);
        talk.read();
    });
    let mut sender = Sender::new(&open_egress());
    assert_eq!(sender.status(&receiver.url()), 200);
    assert_eq!(sender.fault(&receiver.url()), Fault::Reset);
    assert_eq!((receiver.connections(), receiver.rest()), (1, 2));
}

#[test]
fn an_answer_that_says_close_ends_the_connection_and_is_no_failure() {
    let answers: [&[u8]; 3] = [
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\n\r\nuntil the end",
    ];
    for answer in answers {
        let receiver = Receiver::start(move |talk| {
            talk.read();
            talk.write(answer);
        });
        let mut sender = Sender::new(&open_egress());
        for connections in 1..=3 {
            assert_eq!(sender.status(&receiver.url()), 200);
            assert_eq!(receiver.connections(), connections);
        }
    }
}

#[test]
fn a_receiver_that_closes_idle_connections_costs_one_attempt_in_a_thousand_at_most() {
    const REQUESTS: usize = 2_000;
    const BURST: usize = 100;
    // So long that a busy machine, which lets a thread wait for milliseconds, makes no close races of its own.
    const RECEIVER_WAITS_MS: u64 = 100;
    let receiver = Receiver::start(|talk| {
        talk.stream.set_read_timeout(Some(Duration::from_millis(RECEIVER_WAITS_MS))).unwrap();
        talk.answer_all(OK);
    });
    let mut sender = Sender::new(&open_egress());
    let mut failed = 0;
    for number in 0..REQUESTS {
        if number % BURST == 0 {
            // Spread evenly over twice the receiver's patience: it has closed before about half of the bursts.
            let pause = (number / BURST) as u64 * 73 % (2 * RECEIVER_WAITS_MS);
            std::thread::sleep(Duration::from_millis(pause));
        }
        if !matches!(sender.send(job(&receiver.url())).answer, Answer::Status { status: 200, .. }) {
            failed += 1;
        }
    }
    assert!(receiver.connections() > REQUESTS / BURST / 4, "hardly any connection was closed");
    assert!(receiver.connections() < REQUESTS / BURST * 4, "connections are not used again");
    assert!(failed <= REQUESTS / 1_000, "{failed} of {REQUESTS} attempts failed");
}

#[test]
fn once_a_connection_was_found_closed_the_next_ones_do_not_rest_as_long() {
    let patience = Duration::from_millis(400);
    let (closed, was_closed) = mpsc::channel();
    let receiver = Receiver::start(move |talk| {
        talk.read();
        talk.write(OK);
        if talk.number == 0 {
            std::thread::sleep(patience);
            talk.stream.shutdown(std::net::Shutdown::Both).unwrap();
            closed.send(()).ok();
        }
        talk.answer_all(OK);
    });
    let mut sender = Sender::new(&open_egress());
    assert_eq!(sender.status(&receiver.url()), 200);
    was_closed.recv().unwrap();
    for _ in 0..3 {
        assert_eq!(sender.status(&receiver.url()), 200);
    }
    assert_eq!(receiver.connections(), 2, "a connection that has not rested was not used again");
    // As long a rest as the one that was too long, and the receiver has closed nothing.
    std::thread::sleep(patience);
    assert_eq!(sender.status(&receiver.url()), 200);
    assert_eq!(receiver.connections(), 3, "the same risk was taken again");
}

#[test]
fn endpoints_that_share_a_connection_share_no_credentials() {
    let receiver = Receiver::answering(OK);
    let mut sender = Sender::with_threads(&open_egress(), 1);
    let endpoints = [
        (Some(("ann".to_owned(), Secret::new("pw"))), vec![]),
        (None, vec![("x-api-key".to_owned(), Secret::new("k"))]),
        (None, vec![]),
    ];
    for (id, (basic_auth, headers)) in (1..).zip(endpoints) {
        let endpoint = Arc::new(Endpoint { id, basic_auth, headers, ..endpoint(&receiver.url()) });
        sender.send(Job { endpoint, ..job(&receiver.url()) });
    }
    assert_eq!(receiver.connections(), 1);
    let seen: Vec<_> = (0..3)
        .map(|_| receiver.next())
        .map(|request| (request.header("authorization").is_some(), request.header("x-api-key").is_some()))
        .collect();
    assert_eq!(seen, [(true, false), (false, true), (false, false)]);
}

#[test]
fn a_cookie_of_the_receiver_is_not_sent_back() {
    let receiver =
        Receiver::answering("HTTP/1.1 200 OK\r\nset-cookie: session=1; Path=/\r\ncontent-length: 0\r\n\r\n");
    let mut sender = Sender::new(&open_egress());
    for _ in 0..2 {
        sender.status(&receiver.url());
        assert_eq!(receiver.next().header("cookie"), None);
    }
}
