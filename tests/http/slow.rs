//! Receivers that take their time, or all of it.

use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use webhook_pg::endpoint::{Endpoint, Scheme};
use webhook_pg::engine::Job;
use webhook_pg::event::Event;
use webhook_pg::outcome::{Answer, Fault};
use webhook_pg::settings::Egress;

use crate::receiver::{OK, Receiver};
use crate::sender::{Sender, endpoint, event, fault, job, message, open_egress};

/// The timeout of the attempts here.
const SHORT: Duration = Duration::from_millis(400);

/// Ends at the timeout, give or take a tenth and what a busy machine adds.
#[track_caller]
fn assert_in_time(took: Duration) {
    assert!(took >= SHORT.mul_f32(0.9), "{took:?}");
    assert!(took < SHORT.mul_f32(1.1) + Duration::from_secs(1), "{took:?}");
}

#[test]
fn a_receiver_that_never_answers_ends_at_the_timeout() {
    let receiver = Receiver::start(|talk| while talk.read().is_some() {});
    let attempt = Sender::new(&open_egress()).send(Job { timeout: SHORT, ..job(&receiver.url()) });
    assert_in_time(attempt.duration);
    assert_eq!(fault(attempt), Fault::Timeout);
}

#[test]
fn a_timeout_of_three_seconds_is_kept_to_a_tenth() {
    let timeout = Duration::from_secs(3);
    let receiver = Receiver::start(|talk| while talk.read().is_some() {});
    let attempt = Sender::new(&open_egress()).send(Job { timeout, ..job(&receiver.url()) });
    let took = attempt.duration;
    assert!((timeout.mul_f32(0.9)..=timeout.mul_f32(1.1)).contains(&took), "{took:?}");
    assert_eq!(fault(attempt), Fault::Timeout);
}

#[test]
fn a_byte_a_second_in_the_head_or_in_the_body_makes_no_attempt_longer_than_its_timeout() {
    let timeout = Duration::from_secs(4);
    let head = b"HTTP/1.1 200 OK\r\nx: y\r\n\r\n".as_slice();
    let body = b"HTTP/1.1 200 OK\r\ncontent-length: 60\r\n\r\n".as_slice();
    for (at_once, drips) in [(0, head), (body.len(), body)] {
        let receiver = Receiver::start(move |talk| {
            talk.read();
            talk.write(&drips[..at_once]);
            for byte in drips[at_once..].iter().chain([&b'x'; 60]) {
                if !talk.write(&[*byte]) {
                    break;
                }
                std::thread::sleep(Duration::from_secs(1));
            }
        });
        let attempt = Sender::new(&open_egress()).send(Job { timeout, ..job(&receiver.url()) });
        assert!(attempt.duration <= timeout + Duration::from_secs(1), "{:?}", attempt.duration);
        if at_once > 0 {
            assert!(matches!(attempt.answer, Answer::Status { status: 200, .. }), "{:?}", attempt.answer);
        } else {
            assert_eq!(fault(attempt), Fault::Timeout);
        }
    }
}

#[test]
fn a_receiver_that_never_reads_ends_at_the_timeout() {
    let (hold, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    let receiver = Receiver::start(move |_| {
        held.lock().unwrap().recv().ok();
    });
    let data = format!("\"{}\"", "x".repeat(32 * 1024 * 1024));
    let event = Arc::new(Event { data: Some(data), ..event() });
    // Unsigned: without optimisation 32 MiB take seconds to sign.
    let endpoint = Arc::new(Endpoint { scheme: Scheme::None, ..endpoint(&receiver.url()) });
    let attempt =
        Sender::new(&open_egress()).send(Job { timeout: SHORT, event, endpoint, ..job(&receiver.url()) });
    assert!(attempt.duration < SHORT + Duration::from_secs(2), "{:?}", attempt.duration);
    assert_eq!(fault(attempt), Fault::Timeout);
    drop(hold);
}

#[test]
fn a_slow_head_ends_at_the_timeout() {
    let receiver = Receiver::start(|talk| {
        talk.read();
        for byte in b"HTTP/1.1 200 OK\r\nx: ".iter().chain(std::iter::repeat(&b'x')) {
            if !talk.write(&[*byte]) {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let attempt = Sender::new(&open_egress()).send(Job { timeout: SHORT, ..job(&receiver.url()) });
    assert_in_time(attempt.duration);
    assert_eq!(fault(attempt), Fault::Timeout);
}

#[test]
fn endless_informational_answers_end_at_the_timeout() {
    let receiver = Receiver::start(|talk| {
        talk.read();
        while talk.write(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n") {
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    let attempt = Sender::new(&open_egress()).send(Job { timeout: SHORT, ..job(&receiver.url()) });
    assert_in_time(attempt.duration);
    assert_eq!(fault(attempt), Fault::Timeout);
}

#[test]
fn a_slow_body_ends_at_the_timeout_and_its_status_counts() {
    let receiver = Receiver::start(|talk| {
        talk.read();
        talk.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n");
        while talk.write(b"x") {
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let attempt = Sender::new(&open_egress()).send(Job { timeout: SHORT, ..job(&receiver.url()) });
    assert_in_time(attempt.duration);
    assert!(matches!(attempt.answer, Answer::Status { status: 200, .. }), "{:?}", attempt.answer);
}

#[test]
fn a_flood_of_informational_answers_is_a_failure_by_the_timeout() {
    let receiver = Receiver::start(|talk| {
        talk.read();
        let flood = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n".repeat(1000);
        while talk.write(flood.as_bytes()) {}
    });
    let attempt = Sender::new(&open_egress()).send(Job { timeout: SHORT, ..job(&receiver.url()) });
    assert!(attempt.duration < SHORT + Duration::from_secs(1), "{:?}", attempt.duration);
    assert!(matches!(fault(attempt), Fault::Timeout | Fault::Protocol));
}

#[test]
fn a_slow_chunked_body_ends_at_the_timeout_and_its_status_counts() {
    for piece in [&b"1\r\nx\r\n"[..], b"0"] {
        let receiver = Receiver::start(move |talk| {
            talk.read();
            talk.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
            while talk.write(piece) {
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let attempt = Sender::new(&open_egress()).send(Job { timeout: SHORT, ..job(&receiver.url()) });
        assert!(attempt.duration < SHORT + Duration::from_secs(1), "{:?}", attempt.duration);
        assert!(matches!(attempt.answer, Answer::Status { status: 200, .. }), "{:?}", attempt.answer);
    }
}

#[test]
fn a_black_hole_ends_at_the_connect_timeout() {
    let hole = BlackHole::new();
    let egress = Egress { connect_timeout: SHORT, ..open_egress() };
    let attempt = Sender::new(&egress).send(job(&hole.url()));
    assert_in_time(attempt.duration);
    assert_eq!(fault(attempt), Fault::Connect);
}

#[test]
fn a_thread_that_waited_in_vain_serves_the_next_job() {
    let silent = Receiver::start(|talk| while talk.read().is_some() {});
    let (hole, receiver) = (BlackHole::new(), Receiver::answering(OK));
    let mut sender = Sender::with_threads(&open_egress(), 1);
    for url in [silent.url(), hole.url()] {
        assert_eq!(fault(sender.send(Job { timeout: SHORT, ..job(&url) })), Fault::Timeout);
        assert_eq!(sender.status(&receiver.url()), 200);
    }
}

#[test]
fn a_timeout_after_the_request_says_that_the_outcome_is_unknown() {
    let receiver = Receiver::start(|talk| while talk.read().is_some() {});
    let mut sender = Sender::new(&open_egress());
    let attempt = sender.send(Job { timeout: SHORT, ..job(&receiver.url()) });
    assert!(message(attempt).contains("outcome unknown"));
    let attempt = sender.send(Job { timeout: SHORT, ..job(&BlackHole::new().url()) });
    assert!(!message(attempt).contains("outcome unknown"), "nothing was sent");
}

/// Somewhere that drops every packet: a listener whose queue is full.
struct BlackHole {
    listener: socket2::Socket,
    _queued: Vec<socket2::Socket>,
}

impl BlackHole {
    fn new() -> Self {
        use socket2::{Domain, SockAddr, Socket, Type};
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let any: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
        listener.bind(&any.into()).unwrap();
        listener.listen(0).unwrap();
        let address: SockAddr = listener.local_addr().unwrap();
        let mut queued = Vec::new();
        // Connections are accepted by the kernel until the queue is full, and then they hang.
        loop {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            let connected = socket.connect_timeout(&address, Duration::from_millis(200));
            queued.push(socket);
            if connected.is_err() {
                return Self { listener, _queued: queued };
            }
        }
    }

    fn url(&self) -> String {
        let port = self.listener.local_addr().unwrap().as_socket().unwrap().port();
        format!("http://127.0.0.1:{port}/")
    }
}
