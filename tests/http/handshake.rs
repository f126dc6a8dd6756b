//! TLS handshakes that come to nothing.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use webhook_pg::engine::Job;
use webhook_pg::outcome::Fault;
use webhook_pg::settings::Egress;

use crate::breaks::reset;
use crate::receiver::Receiver;
use crate::sender::{Sender, fault, job};
use crate::tls::{Authority, https, url};

/// Reads what has come, or waits for something to come or the sender to hang up.
fn some_of(stream: &mut TcpStream) -> usize {
    stream.read(&mut [0; 4096]).unwrap_or(0)
}

#[test]
fn a_receiver_without_tls_is_a_tls_fault() {
    let receiver = Receiver::start(|talk| {
        talk.write(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    assert_eq!(Sender::new(&https(String::new())).fault(&url("127.0.0.1", &receiver)), Fault::Tls);
}

#[test]
fn a_handshake_that_stalls_ends_at_the_connect_timeout() {
    let receiver = Receiver::start(|talk| while talk.read().is_some() {});
    let limit = Duration::from_millis(300);
    let egress = Egress { connect_timeout: limit, ..https(String::new()) };
    let attempt = Sender::new(&egress).send(job(&url("127.0.0.1", &receiver)));
    assert!(attempt.duration < limit + Duration::from_secs(1), "{:?}", attempt.duration);
    assert_eq!(fault(attempt), Fault::Tls);

    let shorter = Job { timeout: limit / 2, ..job(&url("127.0.0.1", &receiver)) };
    assert_eq!(fault(Sender::new(&egress).send(shorter)), Fault::Timeout);
}

#[test]
fn a_receiver_that_speaks_no_tls_newer_than_1_1_is_a_tls_fault() {
    // A ServerHello of TLS 1.1 (RFC 4346, section 7.4.1.3), as a server answers that knows nothing newer.
    let mut hello = vec![22, 3, 2, 0, 42, 2, 0, 0, 38, 3, 2];
    hello.extend([7; 32]);
    hello.extend([0, 0xc0, 0x13, 0]);
    // And the alert protocol_version of one that says no.
    let alert = vec![21, 3, 2, 0, 2, 2, 70];
    for answer in [hello, alert] {
        let receiver = Receiver::start(move |talk| {
            some_of(&mut talk.stream);
            talk.write(&answer);
            some_of(&mut talk.stream);
        });
        assert_eq!(Sender::new(&https(String::new())).fault(&url("127.0.0.1", &receiver)), Fault::Tls);
    }
}

#[test]
fn a_handshake_that_is_cut_off_is_a_tls_fault() {
    let authority = Authority::new("cut");
    for (at, hard) in [(0, false), (0, true), (1, false), (1, true)] {
        let config = authority.server("127.0.0.1", |_| {});
        let receiver = Receiver::start(move |talk| {
            if at == 1 {
                // The client's hello, and half of the server's.
                let mut server = rustls::ServerConnection::new(config.clone()).unwrap();
                server.read_tls(&mut talk.stream).unwrap();
                server.process_new_packets().unwrap();
                let mut bytes = Vec::new();
                server.write_tls(&mut bytes).unwrap();
                talk.stream.write_all(&bytes[..bytes.len() / 2]).unwrap();
            } else {
                some_of(&mut talk.stream);
            }
            if hard {
                reset(&talk.stream);
            }
        });
        let got = Sender::new(&https(authority.ca_file())).fault(&url("127.0.0.1", &receiver));
        assert_eq!(got, Fault::Tls, "at {at}, hard: {hard}");
    }
}

#[test]
fn a_connection_lost_after_the_handshake_is_a_reset() {
    let authority = Authority::new("lost");
    for hard in [false, true] {
        let config = authority.server("127.0.0.1", |_| {});
        let receiver = Receiver::start(move |talk| {
            let Some(mut talk) = talk.over_tls(&config) else { return };
            talk.read();
            if hard {
                reset(&talk.stream.sock);
            }
        });
        let got = Sender::new(&https(authority.ca_file())).fault(&url("127.0.0.1", &receiver));
        assert_eq!(got, Fault::Reset, "hard: {hard}");
    }
}
