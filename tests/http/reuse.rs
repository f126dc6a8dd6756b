//! Connections that serve more than one request.

use std::sync::mpsc;

use webhook_pg::outcome::Fault;

use crate::receiver::{OK, Receiver};
use crate::sender::{Sender, open_egress};

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
