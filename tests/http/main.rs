//! What the HTTP threads promise, against real sockets on loopback.

// clippy.toml opens these in test functions only, and helpers of tests are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod receiver;
mod sender;
mod tls;

use std::io::Read;
use std::net::TcpListener;
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use webhook_pg::endpoint::{Endpoint, Method, Scheme};
use webhook_pg::engine::Job;
use webhook_pg::event::Event;
use webhook_pg::outcome::{Answer, Fault};
use webhook_pg::secret::Secret;
use webhook_pg::settings::Egress;

use receiver::{OK, Receiver};
use sender::{SECRET, Sender, endpoint, event, fault, job, open_egress};

const SHORT: Duration = Duration::from_millis(400);

/// Ends at the timeout, give or take a tenth and what a busy machine adds.
fn assert_in_time(took: Duration) {
    assert!(took >= SHORT.mul_f32(0.9), "{took:?}");
    assert!(took < SHORT.mul_f32(1.1) + Duration::from_secs(1), "{took:?}");
}

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
fn proxies_of_the_environment_are_not_used() {
    let canary = Receiver::start(|_| {});
    let proxy = format!("http://127.0.0.1:{}", canary.port);
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "a_delivery_verifies_at_the_receiver"]);
    for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
        child.env(name, &proxy);
    }
    let output = child.env_remove("NO_PROXY").env_remove("no_proxy").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    assert_eq!(canary.connections(), 0);
}

#[test]
fn an_explicit_proxy_is_asked_for_a_tunnel() {
    let proxy = Receiver::start(|talk| {
        talk.read();
        talk.write(b"HTTP/1.1 200 Connection established\r\nvia: us\r\n\r\n");
        talk.answer_all(OK);
    });
    let egress = Egress { proxy: format!("http://127.0.0.1:{}", proxy.port), ..open_egress() };
    assert_eq!(Sender::new(&egress).status("http://receiver.invalid/hooks"), 200);
    assert_eq!(proxy.next().line, "CONNECT receiver.invalid:80 HTTP/1.1");
    assert_eq!(proxy.next().header("host"), Some("receiver.invalid"));
}

#[test]
fn a_proxy_that_refuses_is_a_failure_to_connect() {
    let proxy = Receiver::answering(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n");
    let egress = Egress { proxy: format!("http://127.0.0.1:{}", proxy.port), ..open_egress() };
    assert_eq!(Sender::new(&egress).fault("http://receiver.invalid/"), Fault::Connect);
}

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
fn a_receiver_that_never_answers_ends_at_the_timeout() {
    let receiver = Receiver::start(|talk| while talk.read().is_some() {});
    let attempt = Sender::new(&open_egress()).send(Job { timeout: SHORT, ..job(&receiver.url()) });
    assert_in_time(attempt.duration);
    assert_eq!(fault(attempt), Fault::Timeout);
}

#[test]
fn a_receiver_that_never_reads_ends_at_the_timeout() {
    let (hold, held) = mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
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
        while talk.write(b"H") {
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let attempt = Sender::new(&open_egress()).send(Job { timeout: SHORT, ..job(&receiver.url()) });
    assert!(attempt.duration < SHORT + Duration::from_secs(1), "{:?}", attempt.duration);
    assert!(matches!(fault(attempt), Fault::Timeout | Fault::Protocol));
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
fn a_long_body_is_read_to_the_cap_and_its_status_counts() {
    const BODY: usize = 10 * 1024 * 1024;
    for head in ["content-length: 10485760", "transfer-encoding: chunked"] {
        let (sent, how_many) = mpsc::channel();
        let receiver = Receiver::start(move |talk| {
            talk.read();
            talk.write(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n").as_bytes());
            let piece = format!("10000\r\n{}\r\n", "x".repeat(65536));
            let piece = if head.contains("chunked") { &piece[..] } else { &piece[7..65543] };
            let count = (0..160).take_while(|_| talk.write(piece.as_bytes())).count();
            sent.send(count * 65536).ok();
        });
        let mut sender = Sender::new(&open_egress());
        let attempt = sender.send(job(&receiver.url()));
        let body = "x".repeat(4096);
        assert_eq!(attempt.answer, Answer::Status { status: 200, body, retry_after: None });
        assert!(how_many.recv().unwrap() < BODY, "{head}");
        sender.status(&receiver.url());
        assert_eq!(receiver.connections(), 2, "a half-read connection was used again");
    }
}

#[test]
fn an_answer_that_is_not_http_or_over_a_limit_is_a_protocol_fault() {
    let long = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(1_000_000));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(10_000));
    let two_lengths = "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab";
    let both = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
    for answer in [
        "SSH-2.0-OpenSSH_9.2\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "\0\0\0\0\r\n\r\n",
        &long,
        &many,
        two_lengths,
        both,
    ] {
        let receiver = Receiver::answering(answer);
        let fault = Sender::new(&open_egress()).fault(&receiver.url());
        assert_eq!(fault, Fault::Protocol, "{:?}", &answer[..30.min(answer.len())]);
    }
}

#[test]
fn a_closed_port_is_a_failure_to_connect() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("http://127.0.0.1:{port}/");
    assert_eq!(Sender::new(&open_egress()).fault(&url), Fault::Connect);
}

#[test]
fn a_private_address_is_refused_before_a_connection() {
    let receiver = Receiver::answering(OK);
    let egress = Egress { allow: vec![], ..open_egress() };
    let mut sender = Sender::new(&egress);
    let port = receiver.port;
    for host in ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]", "[::1]", "0.0.0.0"] {
        assert_eq!(sender.fault(&format!("http://{host}:{port}/")), Fault::Egress, "{host}");
    }
    assert_eq!(receiver.connections(), 0);
}

#[test]
fn a_metadata_address_is_refused_whatever_is_allowed() {
    let allow = vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()];
    let mut sender = Sender::new(&Egress { allow, ..open_egress() });
    for host in ["169.254.169.254", "[::ffff:169.254.169.254]", "[fd00:ec2::254]", "168.63.129.16"] {
        assert_eq!(sender.fault(&format!("http://{host}/latest/meta-data/")), Fault::Egress, "{host}");
    }
}

#[test]
fn http_is_refused_unless_allowed() {
    let receiver = Receiver::answering(OK);
    let egress = Egress { allow_http: false, ..open_egress() };
    assert_eq!(Sender::new(&egress).fault(&receiver.url()), Fault::Egress);
    assert_eq!(receiver.connections(), 0);
}

#[test]
fn a_new_policy_acts_on_the_next_send_and_on_pooled_connections() {
    let receiver = Receiver::answering(OK);
    let mut sender = Sender::new(&open_egress());
    assert_eq!(sender.status(&receiver.url()), 200);
    sender.configure(&Egress { allow: vec![], ..open_egress() });
    assert_eq!(sender.fault(&receiver.url()), Fault::Egress);
    sender.configure(&open_egress());
    assert_eq!(sender.status(&receiver.url()), 200);
    assert_eq!(receiver.connections(), 2, "a connection outlived its policy");
    sender.configure(&open_egress());
    assert_eq!(sender.status(&receiver.url()), 200);
    assert_eq!(receiver.connections(), 2, "the same policy lost its connection");
}

#[test]
fn an_endpoint_without_a_secret_is_a_configuration_fault() {
    let receiver = Receiver::answering(OK);
    let bare = Arc::new(Endpoint { secrets: vec![], ..endpoint(&receiver.url()) });
    let attempt = Sender::new(&open_egress()).send(Job { endpoint: bare, ..job(&receiver.url()) });
    assert_eq!(fault(attempt), Fault::Config);
    assert_eq!(receiver.connections(), 0);
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
fn jobs_that_hang_get_a_thread_each_and_a_fast_one_still_goes() {
    let hanging = Receiver::start(|talk| while talk.read().is_some() {});
    let fast = Receiver::answering(OK);
    let mut sender = Sender::with_threads(&open_egress(), 32);
    let timeout = Duration::from_secs(3);
    let tickets: Vec<_> = (0..31).map(|_| sender.submit(Job { timeout, ..job(&hanging.url()) })).collect();
    let start = Instant::now();
    assert_eq!(sender.status(&fast.url()), 200);
    assert!(start.elapsed() < timeout, "{:?}", start.elapsed());
    for ticket in tickets {
        assert_eq!(fault(sender.wait(ticket)), Fault::Timeout);
    }
    assert_eq!(hanging.connections(), 31);
}

#[test]
fn a_burst_completes_every_job_once() {
    let receiver = Receiver::answering(OK);
    let mut sender = Sender::new(&open_egress());
    let tickets: Vec<_> = (0..2_000).map(|_| sender.submit(job(&receiver.url()))).collect();
    for ticket in tickets {
        assert!(matches!(sender.wait(ticket).answer, Answer::Status { status: 200, .. }));
    }
    assert_eq!(receiver.rest(), 2_000);
    assert!(receiver.connections() <= 8);
}
