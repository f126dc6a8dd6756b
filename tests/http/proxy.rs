//! The proxy that an administrator names, and those of the environment, which do not count.

use std::process::Command;

use webhook_pg::outcome::Fault;
use webhook_pg::settings::Egress;

use crate::receiver::{OK, Receiver};
use crate::sender::{Sender, open_egress};

#[test]
fn proxies_of_the_environment_are_not_used() {
    let canary = Receiver::start(|_| {});
    let proxy = format!("http://127.0.0.1:{}", canary.port);
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "delivery::a_delivery_verifies_at_the_receiver"]);
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
