//! Answers whose end, or whose head, is a matter of opinion.

use std::io::Write;

use webhook_pg::outcome::Fault;

use crate::receiver::{OK, Receiver};
use crate::sender::{Sender, job, open_egress};
use crate::tls::{Authority, https};

#[test]
fn a_head_over_a_limit_or_out_of_form_is_a_protocol_fault_and_its_connection_is_left() {
    let long = format!("x: {}", "x".repeat(1_000_000));
    let many = "a: b\r\n".repeat(10_000) + "c: d";
    let crowd = "a: b\r\n".repeat(200) + "c: d";
    for fields in [
        long.as_str(),
        &many,
        &crowd,
        // obs-fold (RFC 9112, section 5.2).
        "a: b\r\n  c",
        "a: b\r\n\tc",
        " a: b",
        "a : b",
        "a",
        ": b",
        "a\0: b",
        "a: b\0c",
    ] {
        let receiver =
            Receiver::answering(format!("HTTP/1.1 200 OK\r\n{fields}\r\ncontent-length: 0\r\n\r\n"));
        let mut sender = Sender::new(&open_egress());
        let shown = &fields[..fields.len().min(20)];
        assert_eq!(sender.fault(&receiver.url()), Fault::Protocol, "{shown:?}");
        assert_eq!(sender.fault(&receiver.url()), Fault::Protocol, "{shown:?}");
        assert_eq!(receiver.connections(), 2, "the connection was used again after {shown:?}");
    }
}

#[test]
fn an_answer_with_two_lengths_or_none_that_can_be_read_is_a_protocol_fault_and_its_connection_is_left() {
    for fields in [
        "content-length: 2\r\ncontent-length: 3",
        "content-length: 2, 3",
        "content-length: -2",
        "content-length: +2",
        "content-length: two",
        "content-length: 99999999999999999999999",
        "content-length: 2\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 5",
    ] {
        let receiver = Receiver::answering(format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n0\r\n\r\n"));
        let mut sender = Sender::new(&open_egress());
        assert_eq!(sender.fault(&receiver.url()), Fault::Protocol, "{fields:?}");
        assert_eq!(sender.fault(&receiver.url()), Fault::Protocol, "{fields:?}");
        assert_eq!(receiver.connections(), 2, "the connection was used again after {fields:?}");
    }
}

#[test]
fn a_broken_body_does_not_change_its_status_and_its_connection_is_left() {
    for rest in [
        "transfer-encoding: chunked\r\n\r\nzz\r\nab\r\n0\r\n\r\n",
        "transfer-encoding: chunked\r\n\r\n-2\r\nab\r\n0\r\n\r\n",
        "transfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\nab\r\n0\r\n\r\n",
        "transfer-encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n",
    ] {
        let receiver = Receiver::answering(format!("HTTP/1.1 200 OK\r\n{rest}"));
        let mut sender = Sender::new(&open_egress());
        assert_eq!(sender.status(&receiver.url()), 200, "{rest:?}");
        assert_eq!(sender.status(&receiver.url()), 200, "{rest:?}");
        assert_eq!(receiver.connections(), 2, "the connection was used again after {rest:?}");
    }
}

#[test]
fn bytes_after_an_answer_are_never_taken_for_the_next_answer() {
    let answer = [OK, b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nstray"].concat();
    let receiver = Receiver::start(move |talk| {
        talk.read();
        talk.write(&answer);
        if talk.read().is_some() {
            talk.write(b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n");
        }
    });
    let mut sender = Sender::new(&open_egress());
    assert_eq!(sender.status(&receiver.url()), 200);
    sender.send(job(&receiver.url()));
    assert_eq!(receiver.connections(), 2, "a connection with a stray answer was used again");
}

#[test]
fn bytes_after_an_answer_over_tls_are_never_taken_for_the_next_answer() {
    let authority = Authority::new("stray");
    let config = authority.server("127.0.0.1", |_| {});
    let receiver = Receiver::start(move |talk| {
        let Some(mut talk) = talk.over_tls(&config) else { return };
        talk.read();
        // Two records in one packet: the second is decrypted with the first and then waits in no socket.
        talk.stream.conn.writer().write_all(OK).unwrap();
        let stray = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nstray";
        talk.stream.conn.writer().write_all(stray).unwrap();
        talk.stream.flush().unwrap();
        talk.read();
    });
    let mut sender = Sender::new(&https(authority.ca_file()));
    let url = format!("https://127.0.0.1:{}/", receiver.port);
    assert_eq!(sender.status(&url), 200);
    assert_eq!(sender.status(&url), 200);
    assert_eq!(receiver.connections(), 2, "a connection with a stray answer was used again");
}
