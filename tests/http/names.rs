//! Names, as a real name server answers for them to the system's resolver.

use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use webhook_pg::engine::Job;
use webhook_pg::outcome::{Attempt, Fault};
use webhook_pg::settings::Egress;

use crate::name_server::{METADATA, NAT64, PRIVATE, PUBLIC, PUBLIC_V6, Say, with_name_server};
use crate::receiver::{OK, Receiver};
use crate::sender::{Sender, fault, job};

/// What a try may take here: less than the system's resolver would wait for a silent name server.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Whatever is public, and no more.
fn public_egress() -> Egress {
    Egress { allow_http: true, ..Egress::default() }
}

/// One try, which must end in time.
fn attempt(sender: &mut Sender, name: &str, port: u16) -> Attempt {
    let start = Instant::now();
    let attempt = sender.send(Job { timeout: TIMEOUT, ..job(&format!("http://{name}:{port}/")) });
    assert!(start.elapsed() < TIMEOUT + Duration::from_secs(1), "{name}: {:?}", start.elapsed());
    attempt
}

/// How a try fails for this name.
fn fails(name: &str) -> Fault {
    fault(attempt(&mut Sender::new(&public_egress()), name, 80))
}

#[test]
fn a_name_with_public_addresses_is_sent_to() {
    let zone = |name: &str, _| match name {
        "four.example" => Say::Addresses(vec![PUBLIC]),
        "six.example" => Say::Addresses(vec![PUBLIC_V6]),
        "both.example" => Say::Addresses(vec![PUBLIC, PUBLIC_V6]),
        "dns64.example" => Say::Addresses(vec![NAT64]),
        _ => Say::NoSuchName,
    };
    with_name_server(zone, |_| {
        let receiver = Receiver::start_on("[::]:0", |talk| talk.answer_all(OK));
        let mut sender = Sender::new(&public_egress());
        for name in ["four.example", "six.example", "both.example", "dns64.example"] {
            assert_eq!(sender.status(&format!("http://{name}:{}/", receiver.port)), 200, "{name}");
        }
        assert_eq!(receiver.connections(), 4);
    });
}

#[test]
fn a_metadata_service_that_is_really_there_is_not_connected_to_whatever_is_allowed() {
    let zone = |name: &str, _| match name {
        "metadata.example" => Say::Addresses(vec![METADATA]),
        "both.example" => Say::Addresses(vec![PUBLIC, METADATA]),
        "mapped.example" => Say::Addresses(vec!["::ffff:169.254.169.254".parse().unwrap()]),
        "private.example" => Say::Addresses(vec![PRIVATE]),
        _ => Say::NoSuchName,
    };
    with_name_server(zone, |_| {
        let service = Receiver::start_on("[::]:0", |talk| talk.answer_all(OK));
        let port = service.port;
        drop(std::net::TcpStream::connect((METADATA, port)).expect("it is there"));
        let allow = ["0.0.0.0/0", "::/0", "169.254.169.254/32"].map(|net| net.parse().unwrap()).to_vec();
        let mut sender = Sender::new(&Egress { allow, ..public_egress() });
        assert_eq!(sender.status(&format!("http://private.example:{port}/")), 200, "it allows nothing");
        let before = service.connections();
        let names = ["metadata.example", "both.example", "mapped.example", "metadata.google.internal"];
        for host in names.into_iter().chain(["169.254.169.254", "[::ffff:a9fe:a9fe]", "0xa9fea9fe"]) {
            assert_eq!(fault(attempt(&mut sender, host, port)), Fault::Egress, "{host}");
        }
        assert_eq!(service.connections(), before);
    });
}

#[test]
fn a_name_with_one_address_that_is_not_public_is_refused_whole_and_nothing_connects() {
    const UNIQUE_LOCAL: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1));
    let zone = |name: &str, _| match name {
        "private.example" => Say::Addresses(vec![PRIVATE]),
        "loopback.example" => Say::Addresses(vec!["127.0.0.1".parse().unwrap()]),
        "mixed.example" => Say::Addresses(vec![PUBLIC, PRIVATE]),
        "reversed.example" => Say::Addresses(vec![PRIVATE, PUBLIC]),
        "other-family.example" => Say::Addresses(vec![PUBLIC, UNIQUE_LOCAL]),
        "mapped.example" => Say::Addresses(vec![PUBLIC_V6, "::ffff:10.0.0.7".parse().unwrap()]),
        _ => Say::NoSuchName,
    };
    with_name_server(zone, |_| {
        let receiver = Receiver::start_on("[::]:0", |talk| talk.answer_all(OK));
        let mut sender = Sender::new(&public_egress());
        for name in ["private", "loopback", "mixed", "reversed", "other-family", "mapped"] {
            let attempt = attempt(&mut sender, &format!("{name}.example"), receiver.port);
            assert_eq!(fault(attempt), Fault::Egress, "{name}");
        }
        assert_eq!(receiver.connections(), 0);
    });
}

#[test]
fn a_name_that_means_something_else_when_asked_again_is_connected_to_as_it_was_checked() {
    let zone = |name: &str, before| match (name, before) {
        ("rebinding.example", 0) => Say::Addresses(vec![PUBLIC]),
        ("rebinding.example", _) => Say::Addresses(vec![PRIVATE]),
        _ => Say::NoSuchName,
    };
    with_name_server(zone, |asked| {
        let receiver = Receiver::start_on("0.0.0.0:0", |talk| {
            if talk.stream.local_addr().unwrap().ip() == PUBLIC {
                talk.answer_all(OK);
            }
        });
        let mut sender = Sender::new(&public_egress());
        assert_eq!(sender.status(&format!("http://rebinding.example:{}/", receiver.port)), 200);
        assert_eq!(receiver.connections(), 1);
        assert_eq!(asked.lock().unwrap()["rebinding.example"], 1);
    });
}

#[test]
fn a_name_that_does_not_exist_or_has_no_address_is_the_endpoints_fault() {
    let zone = |name: &str, _| match name {
        "empty.example" => Say::Addresses(vec![]),
        _ => Say::NoSuchName,
    };
    with_name_server(zone, |_| {
        assert_eq!(fails("nothing.example"), Fault::Dns);
        assert_eq!(fails("empty.example"), Fault::Dns);
    });
}

#[test]
fn a_name_whose_own_name_servers_fail_or_are_silent_is_the_endpoints_fault() {
    let zone = |name: &str, _| match name {
        "broken.example" => Say::Broken,
        "silent.example" => Say::Silence,
        _ => Say::NoSuchName,
    };
    with_name_server(zone, |_| {
        assert_eq!(fails("broken.example"), Fault::Dns);
        assert_eq!(fails("silent.example"), Fault::Dns);
    });
}

#[test]
fn a_resolver_that_fails_for_every_name_is_our_own_fault() {
    with_name_server(|_, _| Say::Broken, |_| assert_eq!(fails("any.example"), Fault::Internal));
}

#[test]
fn a_resolver_that_is_silent_is_our_own_fault() {
    with_name_server(|_, _| Say::Silence, |_| assert_eq!(fails("any.example"), Fault::Internal));
}

#[test]
fn a_name_server_that_recovers_is_asked_again_at_once() {
    let zone = |name: &str, before| match (name, before) {
        ("late.example", 0) => Say::NoSuchName,
        ("late.example", _) => Say::Addresses(vec![PUBLIC]),
        _ => Say::NoSuchName,
    };
    with_name_server(zone, |_| {
        let receiver = Receiver::start_on("0.0.0.0:0", |talk| talk.answer_all(OK));
        let mut sender = Sender::new(&public_egress());
        assert_eq!(fault(attempt(&mut sender, "late.example", receiver.port)), Fault::Dns);
        assert_eq!(sender.status(&format!("http://late.example:{}/", receiver.port)), 200);
    });
}
