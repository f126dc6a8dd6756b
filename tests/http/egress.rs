//! Where requests may go.

use std::sync::{Mutex, mpsc};

use webhook_pg::outcome::Fault;
use webhook_pg::settings::Egress;

use crate::receiver::{OK, Receiver};
use crate::sender::{Sender, fault, job, open_egress};

#[test]
fn a_private_address_is_refused_before_a_connection_however_it_is_spelt() {
    let receiver = Receiver::answering(OK);
    let egress = Egress { allow: vec![], ..open_egress() };
    let mut sender = Sender::new(&egress);
    let port = receiver.port;
    for host in [
        "127.0.0.1",
        "127.0.0.1.",
        "127.1",
        "127.0.1",
        "127.255.255.254",
        // Decimal, octal, hexadecimal, and mixtures.
        "2130706433",
        "017700000001",
        "0177.0.0.1",
        "0177.0.0.01",
        "0x7f000001",
        "0X7F000001",
        "0x7f.1",
        "0x7f.0x0.0x0.0x1",
        "0x7f.0.0.0000001",
        "127.0x1",
        "%31%32%37.0.0.1",
        "127%2e0%2e0%2e1",
        // "This host".
        "0",
        "0.0.0.0",
        "0x0",
        "00000000000",
        "[::]",
        // Names.
        "localhost",
        "localhost.",
        "LocalHost",
        "%6cocalhost",
        // IPv6, and IPv4 inside it: mapped, compatible, translated, NAT64, 6to4, Teredo.
        "[::1]",
        "[0:0:0:0:0:0:0:1]",
        "[0000:0000:0000:0000:0000:0000:0000:0001]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::FFFF:7F00:0001]",
        "[::127.0.0.1]",
        "[::ffff:0:127.0.0.1]",
        "[64:ff9b::127.0.0.1]",
        "[64:ff9b:1::127.0.0.1]",
        "[2002:7f00:1::]",
        "[2001:0:7f00:1::]",
        "[2001::80ff:fffe]",
        "[fe80::1]",
        "[fc00::1]",
        "[ff02::1]",
    ] {
        assert_eq!(sender.fault(&format!("http://{host}:{port}/")), Fault::Egress, "{host}");
    }
    assert_eq!(receiver.connections(), 0);
}

#[test]
fn a_metadata_address_is_refused_whatever_is_allowed() {
    let allow =
        ["0.0.0.0/0", "::/0", "::ffff:0:0/96", "169.254.169.254/32", "168.63.129.16/32", "fd00:ec2::254/128"];
    let allow = allow.map(|net| net.parse().unwrap()).to_vec();
    let mut sender = Sender::new(&Egress { allow, ..open_egress() });
    for host in [
        "169.254.169.254",
        "169.254.169.254.",
        "2852039166",
        "0xa9fea9fe",
        "0251.0376.0251.0376",
        "169.254.43518",
        "169.16689662",
        "[::ffff:169.254.169.254]",
        "[::ffff:a9fe:a9fe]",
        "[::169.254.169.254]",
        "[64:ff9b::169.254.169.254]",
        "[64:ff9b:1::169.254.169.254]",
        "[2002:a9fe:a9fe::]",
        "[fe80::5efe:169.254.169.254]",
        "169.254.170.2",
        "169.254.170.23",
        "[fd00:ec2::254]",
        "[fd00:ec2::23]",
        "[fd20:ce::254]",
        "168.63.129.16",
        "[::ffff:168.63.129.16]",
        "100.100.100.200",
        "192.0.0.192",
    ] {
        assert_eq!(sender.fault(&format!("http://{host}/latest/meta-data/")), Fault::Egress, "{host}");
    }
}

#[test]
fn a_list_opens_exactly_its_addresses() {
    let receiver = Receiver::answering(OK);
    let allow = vec!["127.0.0.1/32".parse().unwrap()];
    let mut sender = Sender::new(&Egress { allow, ..open_egress() });
    let port = receiver.port;
    for host in ["127.0.0.1", "127.1", "[::ffff:127.0.0.1]"] {
        assert_eq!(sender.status(&format!("http://{host}:{port}/")), 200, "{host}");
    }
    let connections = receiver.connections();
    for host in ["127.0.0.2", "127.0.0.0", "10.0.0.1", "[::1]"] {
        assert_eq!(sender.fault(&format!("http://{host}:{port}/")), Fault::Egress, "{host}");
    }
    assert_eq!(receiver.connections(), connections);
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
fn a_new_policy_acts_on_jobs_that_wait_already() {
    let (go, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let receiver = Receiver::start(move |talk| {
        talk.read();
        gate.lock().unwrap().recv().ok();
        talk.write(OK);
        talk.answer_all(OK);
    });
    let mut sender = Sender::with_threads(&open_egress(), 1);
    let first = sender.submit(job(&receiver.url()));
    receiver.next();
    let second = sender.submit(job(&receiver.url()));
    sender.configure(&Egress { allow: vec![], ..open_egress() });
    go.send(()).unwrap();
    sender.wait(first);
    assert_eq!(fault(sender.wait(second)), Fault::Egress);
    assert_eq!(receiver.rest(), 0);
}

#[test]
fn closing_http_closes_its_pooled_connections_too() {
    let receiver = Receiver::answering(OK);
    let mut sender = Sender::new(&open_egress());
    assert_eq!(sender.status(&receiver.url()), 200);
    sender.configure(&Egress { allow_http: false, ..open_egress() });
    assert_eq!(sender.fault(&receiver.url()), Fault::Egress);
    assert_eq!((receiver.connections(), receiver.rest()), (1, 1));
}
