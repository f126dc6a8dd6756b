//! Where requests may go.

use webhook_pg::outcome::Fault;
use webhook_pg::settings::Egress;

use crate::receiver::{OK, Receiver};
use crate::sender::{Sender, open_egress};

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
