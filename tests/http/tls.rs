//! What https promises. Certificates are made for each test.

use std::sync::Arc;

use rcgen::{BasicConstraints, Certificate, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use webhook_pg::outcome::Fault;
use webhook_pg::settings::Egress;

use crate::receiver::{OK, Receiver};
use crate::sender::{Sender, fault, job, message, open_egress};

/// An authority, as the PEM file an administrator would install.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    file: std::path::PathBuf,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        let file = std::env::temp_dir().join(format!("webhook_pg_{}_{name}.pem", std::process::id()));
        std::fs::write(&file, pem).unwrap();
        Self { issuer: Issuer::new(params, key), file }
    }

    pub(crate) fn ca_file(&self) -> String {
        self.file.to_str().unwrap().to_owned()
    }

    /// The configuration of a server with a certificate for this host.
    pub(crate) fn server(
        &self,
        host: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Arc<ServerConfig> {
        let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        server(certificate, &key)
    }

    /// A receiver with a certificate for this host.
    fn receiver(&self, host: &str, change: impl FnOnce(&mut CertificateParams)) -> Receiver {
        serving(self.server(host, change))
    }
}

fn server(certificate: Certificate, key: &KeyPair) -> Arc<ServerConfig> {
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    Arc::new(config)
}

fn serving(config: Arc<ServerConfig>) -> Receiver {
    Receiver::start(move |talk| {
        if let Some(mut talk) = talk.over_tls(&config) {
            talk.answer_all(OK);
        }
    })
}

impl Drop for Authority {
    fn drop(&mut self) {
        std::fs::remove_file(&self.file).ok();
    }
}

pub(crate) fn url(host: &str, receiver: &Receiver) -> String {
    format!("https://{host}:{}/", receiver.port)
}

pub(crate) fn https(ca_file: String) -> Egress {
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
fn a_certificate_that_signed_itself_is_refused() {
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let key = KeyPair::generate().unwrap();
    let receiver = serving(server(params.self_signed(&key).unwrap(), &key));
    assert_eq!(Sender::new(&https(String::new())).fault(&url("127.0.0.1", &receiver)), Fault::Tls);
    assert_eq!(receiver.rest(), 0);
}

#[test]
fn a_certificate_of_the_future_is_refused() {
    let authority = Authority::new("future");
    let receiver =
        authority.receiver("127.0.0.1", |params| params.not_before = rcgen::date_time_ymd(3000, 1, 1));
    assert_eq!(Sender::new(&https(authority.ca_file())).fault(&url("127.0.0.1", &receiver)), Fault::Tls);
    assert_eq!(receiver.rest(), 0);
}

#[test]
fn a_certificate_that_has_its_host_in_the_common_name_alone_is_refused() {
    let authority = Authority::new("common_name");
    let receiver = authority.receiver("localhost", |params| {
        params.subject_alt_names.clear();
        params.distinguished_name.push(rcgen::DnType::CommonName, "localhost");
    });
    assert_eq!(Sender::new(&https(authority.ca_file())).fault(&url("localhost", &receiver)), Fault::Tls);
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

#[test]
fn a_ca_file_without_a_certificate_is_a_configuration_fault_that_says_so() {
    let authority = Authority::new("garbage");
    let receiver = authority.receiver("127.0.0.1", |_| {});
    let begin = "-----BEGIN CERTIFICATE-----\n";
    let end = "-----END CERTIFICATE-----\n";
    let half = format!("{begin}MIIB");
    let garbled = format!("{begin}****\n{end}");
    let empty = format!("{begin}{end}");
    let not_der = format!("{begin}aGVsbG8=\n{end}");
    let texts = ["", "hello", "\0\u{ff}\n", &half, &garbled, &empty, &not_der];
    for text in texts {
        std::fs::write(&authority.file, text).unwrap();
        let attempt = Sender::new(&https(authority.ca_file())).send(job(&url("127.0.0.1", &receiver)));
        assert!(message(attempt.clone()).starts_with("ca_file: "), "{text:?}: {attempt:?}");
        assert_eq!(fault(attempt), Fault::Config, "{text:?}");
    }
    let directory = std::env::temp_dir().to_str().unwrap().to_owned();
    assert_eq!(Sender::new(&https(directory)).fault(&url("127.0.0.1", &receiver)), Fault::Config);
    assert_eq!(receiver.connections(), 0, "a connection was opened that could not be verified");
}
