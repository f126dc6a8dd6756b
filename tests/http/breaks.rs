//! Connections that break, by the moment at which they do.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use webhook_pg::engine::Job;
use webhook_pg::outcome::{Answer, Fault, Verdict, judge};

use crate::receiver::Receiver;
use crate::sender::{Sender, fault, job, message, open_egress};

/// Makes the kernel send RST when the connection is closed.
pub(crate) fn reset(stream: &TcpStream) {
    socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// A receiver that reads the request or only its beginning, writes this and closes, softly (FIN) or hard (RST).
fn breaking(reads: bool, answer: &'static [u8], hard: bool) -> Receiver {
    Receiver::start(move |talk| {
        if reads {
            talk.read();
        } else {
            // The connection stands and the request is on its way.
            talk.stream.read_exact(&mut [0; 20]).unwrap();
        }
        talk.write(answer);
        if hard {
            reset(&talk.stream);
        }
    })
}

#[test]
fn a_receiver_that_resets_is_a_reset() {
    // Closing with unread bytes makes the kernel send RST.
    let receiver = Receiver::start(|talk| {
        talk.stream.read_exact(&mut [0; 20]).unwrap();
    });
    assert_eq!(Sender::new(&open_egress()).fault(&receiver.url()), Fault::Reset);
}

#[test]
fn half_an_answer_is_a_reset() {
    let receiver = Receiver::start(|talk| {
        talk.read();
        talk.write(b"HTTP/1.1 200 OK\r\ncontent-le");
    });
    assert_eq!(Sender::new(&open_egress()).fault(&receiver.url()), Fault::Reset);
}

#[test]
fn a_closed_port_is_a_failure_to_connect() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("http://127.0.0.1:{port}/");
    assert_eq!(Sender::new(&open_egress()).fault(&url), Fault::Connect);
}

#[test]
fn a_connection_lost_before_the_answer_is_complete_is_a_reset_whose_outcome_is_unknown() {
    let phases: [(bool, &[u8]); 6] = [
        (false, b""),
        (true, b""),
        (true, b"H"),
        (true, b"HTTP/1.1 200 OK"),
        (true, b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n"),
        (true, b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    ];
    for (reads, answer) in phases {
        for hard in [false, true] {
            let phase = format!("reads: {reads}, hard: {hard}, after {:?}", String::from_utf8_lossy(answer));
            let receiver = breaking(reads, answer, hard);
            let attempt = Sender::new(&open_egress()).send(job(&receiver.url()));
            assert!(attempt.duration < Duration::from_secs(5), "{phase}: {:?}", attempt.duration);
            assert!(message(attempt.clone()).contains("outcome unknown"), "{phase}: {attempt:?}");
            assert_eq!(fault(attempt), Fault::Reset, "{phase}");
            assert_eq!(receiver.connections(), 1, "{phase}: it was sent again");
        }
    }
}

#[test]
fn a_connection_lost_in_the_body_does_not_change_the_status() {
    let answers: [&[u8]; 4] = [
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n64\r\nhalf",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nhalf",
    ];
    for answer in answers {
        for hard in [false, true] {
            let receiver = breaking(true, answer, hard);
            let mut sender = Sender::new(&open_egress());
            for connections in 1..=2 {
                let got = sender.send(job(&receiver.url())).answer;
                // A reset throws away what the kernel has not handed over yet, the head perhaps included.
                let lost = hard && matches!(got, Answer::Failed { fault: Fault::Reset, .. });
                assert!(lost || judge(&got) == Verdict::Delivered, "hard: {hard}: {got:?}");
                assert_eq!(receiver.connections(), connections, "the connection was used again");
            }
        }
    }
}

#[test]
fn a_failure_to_connect_does_not_say_that_the_outcome_is_unknown() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let attempt = Sender::new(&open_egress()).send(job(&format!("http://127.0.0.1:{port}/")));
    assert!(!message(attempt).contains("unknown"));
}

#[test]
fn a_connection_lost_in_the_middle_of_a_large_request_is_a_reset() {
    let receiver = Receiver::start(|talk| {
        talk.stream.read_exact(&mut [0; 20]).unwrap();
        reset(&talk.stream);
    });
    let mut event = crate::sender::event();
    event.data = Some(format!("\"{}\"", "x".repeat(4 * 1024 * 1024)));
    let attempt = Sender::new(&open_egress()).send(Job { event: event.into(), ..job(&receiver.url()) });
    assert_eq!(fault(attempt), Fault::Reset);
}

#[test]
fn a_connection_that_is_reset_while_it_opens_is_a_failure_to_connect_or_a_reset() {
    let receiver = Receiver::start(|talk| reset(&talk.stream));
    let mut sender = Sender::new(&open_egress());
    for _ in 0..50 {
        assert!(matches!(sender.fault(&receiver.url()), Fault::Connect | Fault::Reset));
    }
}

#[test]
fn an_answer_that_comes_before_the_request_was_read_counts() {
    let receiver = Receiver::start(|talk| {
        talk.stream.read_exact(&mut [0; 20]).unwrap();
        talk.write(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 4\r\n\r\nhuge");
    });
    let mut event = crate::sender::event();
    event.data = Some(format!("\"{}\"", "x".repeat(8 * 1024 * 1024)));
    let event = std::sync::Arc::new(event);
    let mut sender = Sender::new(&open_egress());
    for connections in 1..=2 {
        let attempt = sender.send(Job { event: event.clone(), ..job(&receiver.url()) });
        assert!(matches!(attempt.answer, Answer::Status { status: 413, .. }), "{:?}", attempt.answer);
        assert_eq!(receiver.connections(), connections, "the connection was used again");
    }
}
