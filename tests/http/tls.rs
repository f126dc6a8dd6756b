//! What https promises. Certificates are made for each test.

use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use webhook_pg::engine::Job;
use webhook_pg::outcome::Fault;
use webhook_pg::settings::Egress;

use crate::receiver::{OK, Receiver};
use crate::sender::{Sender, fault, job, open_egress};

/// An authority, as the PEM file an administrator would install.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    file: std::path::PathBuf,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        let file = std::env::temp_dir().join(format!("webhook_pg_{}_{name}.pem", std::process::id()));
        std::fs::write(&file, pem).unwrap();
        Self { issuer: Issuer::new(params, key), file }
    }

    fn ca_file(&self) -> String {
        self.file.to_str().unwrap().to_owned()
    }

    /// A receiver with a certificate for this host.
    fn receiver(&self, host: &str, change: impl FnOnce(&mut CertificateParams)) -> Receiver {
        let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        let config = Arc::new(config);
        Receiver::start(move |talk| {
            if let Some(mut talk) = talk.over_tls(&config) {
                talk.answer_all(OK);
            }
        })
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        std::fs::remove_file(&self.file).ok();
    }
}

fn url(host: &str, receiver: &Receiver) -> String {
    format!("https://{host}:{}/", receiver.port)
}

fn https(ca_file: String) -> Egress {
    Egress { allow_http: false, ca_file, ..open_egress() }
}

#[test]
fn a_certificate_of_the_ca_file_is_trusted_and_the_connection_used_again() {
    let authority = Authority::new("trusted");
    let receiver = authority.receiver("127.0.0.1", |_| {});
    let mut sender = Sender::new(&https(authority.ca_file()));
    for _ in 0..3 {
        assert_eq!(sender.status(&url("127.0.0.1", &receiver)), 200);
    }
    assert_eq!(receiver.connections(), 1);
}

#[test]
fn an_unknown_authority_is_refused_before_the_request() {
    let authority = Authority::new("unknown");
    let receiver = authority.receiver("127.0.0.1", |_| {});
    assert_eq!(Sender::new(&https(String::new())).fault(&url("127.0.0.1", &receiver)), Fault::Tls);
    assert_eq!((receiver.connections(), receiver.rest()), (1, 0));
}

#[test]
fn a_certificate_for_another_host_is_refused() {
    let authority = Authority::new("host");
    let receiver = authority.receiver("example.com", |_| {});
    assert_eq!(Sender::new(&https(authority.ca_file())).fault(&url("127.0.0.1", &receiver)), Fault::Tls);
    assert_eq!(receiver.rest(), 0);
}

#[test]
fn an_expired_certificate_is_refused() {
    let authority = Authority::new("expired");
    let receiver =
        authority.receiver("127.0.0.1", |params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
    assert_eq!(Sender::new(&https(authority.ca_file())).fault(&url("127.0.0.1", &receiver)), Fault::Tls);
    assert_eq!(receiver.rest(), 0);
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
fn an_unreadable_ca_file_is_a_configuration_fault_until_it_can_be_read() {
    let authority = Authority::new("late");
    let receiver = authority.receiver("127.0.0.1", |_| {});
    let late = format!("{}.late", authority.ca_file());
    let egress = https(late.clone());
    let mut sender = Sender::new(&egress);
    assert_eq!(sender.fault(&url("127.0.0.1", &receiver)), Fault::Config);
    std::fs::copy(authority.ca_file(), &late).unwrap();
    sender.configure(&egress);
    assert_eq!(sender.status(&url("127.0.0.1", &receiver)), 200);
    std::fs::remove_file(late).unwrap();
}
