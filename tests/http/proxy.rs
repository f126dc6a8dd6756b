//! The proxy that an administrator names, and those of the environment, which do not count.

use std::net::TcpListener;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use webhook_pg::endpoint::Endpoint;
use webhook_pg::engine::Job;
use webhook_pg::outcome::{Answer, Fault};
use webhook_pg::secret::Secret;
use webhook_pg::settings::Egress;

use crate::receiver::{OK, Receiver};
use crate::sender::{Sender, endpoint, event, fault, job, message, open_egress};
use crate::tls::{Authority, https};

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
fn no_proxy_in_the_environment_does_not_switch_off_the_one_that_is_set() {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "proxy::a_plain_request_names_its_target_to_the_proxy"]);
    let output = child.env("NO_PROXY", "*").env("no_proxy", "*").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
fn a_plain_request_names_its_target_to_the_proxy() {
    let proxy = Receiver::answering(OK);
    let mut sender = Sender::new(&through(&proxy));
    for _ in 0..2 {
        assert_eq!(sender.status("http://receiver.invalid:8080/hooks?a=b"), 200);
        let request = proxy.next();
        assert_eq!(request.line, "POST http://receiver.invalid:8080/hooks?a=b HTTP/1.1");
        assert_eq!(request.header("host"), Some("receiver.invalid:8080"));
        assert!(request.body.ends_with(b"}"));
    }
    assert_eq!(proxy.connections(), 1, "the connection to the proxy was not used again");
}

#[test]
fn a_plain_request_with_a_long_head_reaches_the_proxy_whole() {
    let proxy = Receiver::answering(OK);
    let headers: Vec<_> =
        (0..50).map(|n| (format!("x-{n}"), Secret::new(n.to_string().repeat(2000)))).collect();
    for count in [2, 7, 8, 15, 16, 17, 50] {
        let headers = headers[..count].to_vec();
        let url = "http://receiver.invalid/hooks";
        let endpoint = Arc::new(Endpoint { headers, ..endpoint(url) });
        let answer = Sender::new(&through(&proxy)).send(Job { endpoint, ..job(url) }).answer;
        assert!(matches!(answer, Answer::Status { status: 200, .. }), "{count}: {answer:?}");
        let request = proxy.next();
        assert_eq!(request.line, "POST http://receiver.invalid/hooks HTTP/1.1");
        let last = count - 1;
        assert_eq!(request.header(&format!("x-{last}")), Some(last.to_string().repeat(2000).as_str()));
        assert_eq!(request.body, webhook_pg::request::standard_body(&event(), &[]).as_bytes());
    }
}

#[test]
fn a_tunnel_of_the_proxy_carries_https_and_the_proxy_sees_none_of_it() {
    let authority = Authority::new("tunnel");
    let config = authority.server("receiver.example", |_| {});
    let proxy = Receiver::start(move |talk| {
        talk.read();
        talk.write(b"HTTP/1.1 200 Connection established\r\nvia: us\r\n\r\n");
        if let Some(mut talk) = talk.over_tls(&config) {
            talk.answer_all(OK);
        }
    });
    let egress = Egress { proxy: through(&proxy).proxy, ..https(authority.ca_file()) };
    let mut sender = Sender::new(&egress);
    for _ in 0..2 {
        assert_eq!(sender.status("https://receiver.example/hooks"), 200);
    }
    let asked = proxy.next();
    assert_eq!(asked.line, "CONNECT receiver.example:443 HTTP/1.1");
    let names: Vec<_> = asked.headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["host"]);
    let request = proxy.next();
    assert_eq!(
        (request.line.as_str(), request.header("host")),
        ("POST /hooks HTTP/1.1", Some("receiver.example"))
    );
    assert_eq!(proxy.connections(), 1, "the tunnel was not used again");
}

#[test]
fn a_certificate_is_verified_through_a_tunnel_too() {
    let authority = Authority::new("tunnel_host");
    let config = authority.server("other.example", |_| {});
    let proxy = Receiver::start(move |talk| {
        talk.read();
        talk.write(b"HTTP/1.1 200 OK\r\n\r\n");
        talk.over_tls(&config);
    });
    let egress = Egress { proxy: through(&proxy).proxy, ..https(authority.ca_file()) };
    assert_eq!(Sender::new(&egress).fault("https://receiver.example/hooks"), Fault::Tls);
}

#[test]
fn a_proxy_that_refuses_or_babbles_is_a_failure_to_connect() {
    let long = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(10_000));
    for answer in [
        "HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n",
        "HTTP/1.1 502 Bad Gateway\r\n\r\n",
        "SSH-2.0-OpenSSH_9.2\r\n\r\n",
        &long,
    ] {
        let proxy = Receiver::answering(answer);
        assert_eq!(
            Sender::new(&through(&proxy)).fault("https://receiver.invalid/"),
            Fault::Connect,
            "{answer:.30}"
        );
    }
}

#[test]
fn a_proxy_that_hangs_ends_at_the_connect_timeout() {
    let proxy = Receiver::start(|talk| while talk.read().is_some() {});
    let connect_timeout = Duration::from_millis(300);
    let egress = Egress { connect_timeout, ..through(&proxy) };
    let attempt = Sender::new(&egress).send(job("https://receiver.invalid/"));
    assert!(attempt.duration < connect_timeout + Duration::from_secs(1), "{:?}", attempt.duration);
    assert_eq!(fault(attempt), Fault::Connect);
}

#[test]
fn a_proxy_that_is_not_there_is_our_own_fault() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let egress = Egress { proxy: format!("http://127.0.0.1:{port}"), ..open_egress() };
    assert_eq!(Sender::new(&egress).fault("https://receiver.invalid/"), Fault::Internal);
}

#[test]
fn a_proxy_is_trusted_but_what_a_url_says_itself_is_still_refused() {
    let proxy = Receiver::answering(OK);
    let egress = Egress { allow: vec![], ..through(&proxy) };
    let mut sender = Sender::new(&egress);
    assert_eq!(sender.status("http://receiver.invalid/"), 200);
    proxy.next();
    for host in ["10.0.0.1", "169.254.169.254", "0x7f.1", "[::1]", "localhost", "metadata.google.internal"] {
        assert_eq!(sender.fault(&format!("http://{host}/")), Fault::Egress, "{host}");
    }
    assert_eq!((proxy.connections(), proxy.rest()), (1, 0));
}

#[test]
fn a_proxy_with_a_password_or_of_another_kind_is_a_configuration_fault() {
    for proxy in [
        "http://ann:pw@127.0.0.1:3128",
        "https://127.0.0.1:3128",
        "socks5://127.0.0.1:1080",
        "127.0.0.1:3128",
    ] {
        let egress = Egress { proxy: proxy.to_owned(), ..open_egress() };
        let attempt = Sender::new(&egress).send(job("http://receiver.invalid/"));
        assert!(!message(attempt.clone()).contains("pw"));
        assert_eq!(fault(attempt), Fault::Config, "{proxy}");
    }
}

/// The policy that sends everything through this proxy.
fn through(proxy: &Receiver) -> Egress {
    Egress { proxy: format!("http://127.0.0.1:{}", proxy.port), ..open_egress() }
}
