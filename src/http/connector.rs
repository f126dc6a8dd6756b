//! Opens connections: TCP to a vetted address, then for https the tunnel of a proxy if there is one, and TLS. Every failure here is
//! classed by the step that failed, which ureq's errors alone would not tell.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use std::{fmt, iter};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use ureq::Timeout;
use ureq::unversioned::resolver::ResolvedSocketAddrs;
use ureq::unversioned::transport::{ConnectionDetails, Connector};
use url::Url;

use super::failure::Failure;
use super::rest::Rest;
use super::wire::{self, Counted, Socket, Stream, Wire};
use crate::outcome::Fault;

/// TLS of one policy: roots are read when the first https endpoint needs them, and sessions are resumed.
pub(super) struct Tls {
    ca_file: String,
    config: OnceLock<Result<Arc<ClientConfig>, Failure>>,
}

impl Tls {
    pub(super) fn new(ca_file: String) -> Self {
        Self { ca_file, config: OnceLock::new() }
    }

    fn config(&self) -> Result<Arc<ClientConfig>, Failure> {
        self.config.get_or_init(|| self.build().map(Arc::new)).clone()
    }

    /// The roots of Mozilla's programme and those of `ca_file`; TLS 1.2 and 1.3; verification has no switch.
    fn build(&self) -> Result<ClientConfig, Failure> {
        let unreadable = |why: &dyn fmt::Display| Failure::new(Fault::Config, format!("ca_file: {why}"));
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        if !self.ca_file.is_empty() {
            let before = roots.len();
            for certificate in CertificateDer::pem_file_iter(&self.ca_file).map_err(|e| unreadable(&e))? {
                let certificate = certificate.map_err(|e| unreadable(&e))?;
                roots.add(certificate).map_err(|e| unreadable(&e))?;
            }
            if roots.len() == before {
                return Err(unreadable(&"no certificate in it"));
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| Failure::new(Fault::Internal, e.to_string()))?;
        Ok(builder.with_root_certificates(roots).with_no_client_auth())
    }
}

/// Opens connections to one origin under one policy.
pub(super) struct Dialer {
    pub(super) tls: Arc<Tls>,
    pub(super) proxy: Option<Url>,
    pub(super) rest: Arc<Rest>,
    /// Counts what is open.
    pub(super) open: Arc<AtomicUsize>,
}

impl Connector<()> for Dialer {
    type Out = Wire;

    fn connect(&self, details: &ConnectionDetails, _: Option<()>) -> Result<Option<Wire>, ureq::Error> {
        let until = wire::deadline(details.timeout);
        // Which clock ran out decides the class.
        let late = |fault: Fault, step: &str| match details.timeout.reason {
            Timeout::Connect => Failure::new(fault, format!("{step} took longer than connect_timeout")),
            _ => Failure::new(Fault::Timeout, format!("{step} took all the time")),
        };
        let host = details.uri.host().unwrap_or_default();
        // Before anything is dialled: what could not be verified is not connected to.
        let tls = if details.needs_tls() { Some(self.tls.config()?) } else { None };

        let tcp = dial(&details.addrs, until).map_err(|error| match error.kind() {
            io::ErrorKind::TimedOut => late(Fault::Connect, "connecting"),
            _ => Failure::connecting(&error),
        });
        let tcp = match tcp {
            // The administrator chose the proxy, so no endpoint answers for it.
            Err(failure) if self.proxy.is_some() => {
                return Err(Failure::new(Fault::Internal, format!("proxy: {}", failure.message)).into());
            }
            tcp => tcp?,
        };
        let mut socket = Socket::new(tcp, until);
        if self.proxy.is_some() && details.needs_tls() {
            let port = details.uri.port_u16().unwrap_or(443);
            tunnel(&mut socket, host, port).map_err(|error| match error.kind() {
                io::ErrorKind::TimedOut => late(Fault::Connect, "the proxy"),
                _ => Failure::new(Fault::Connect, format!("proxy: {error}")),
            })?;
        }
        let stream = if let Some(config) = tls {
            let tls = shake_hands(config, host, socket).map_err(|error| match error.kind() {
                io::ErrorKind::TimedOut => late(Fault::Tls, "the TLS handshake"),
                _ => Failure::new(Fault::Tls, format!("TLS: {error}")),
            })?;
            Stream::Tls(Box::new(tls))
        } else {
            Stream::Plain(socket)
        };
        // A proxy is told where a plain request goes in the request line (RFC 9112, section 3.2.2).
        let target = details.uri.authority().filter(|_| self.proxy.is_some() && !details.needs_tls());
        let target = target.map(|authority| format!("http://{authority}"));
        Ok(Some(Wire::new(stream, target, Arc::clone(&self.rest), Counted::new(&self.open))))
    }
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialer").finish_non_exhaustive()
    }
}

/// Tries the addresses in turn. All but the last get half of the time that is left, so that a dead first address
/// leaves time for the others. The last error is the one reported.
fn dial(addresses: &ResolvedSocketAddrs, until: Option<Instant>) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::TimedOut);
    for (index, address) in addresses.iter().enumerate() {
        let connected = match until.map(|until| until.saturating_duration_since(Instant::now())) {
            None => TcpStream::connect(address),
            Some(Duration::ZERO) => return Err(io::ErrorKind::TimedOut.into()),
            Some(left) if index + 1 < addresses.len() => TcpStream::connect_timeout(address, left / 2),
            Some(left) => TcpStream::connect_timeout(address, left),
        };
        match connected {
            Ok(tcp) => {
                // Without it a body would wait for the acknowledgement of its head.
                tcp.set_nodelay(true)?;
                return Ok(tcp);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn shake_hands(
    config: Arc<ClientConfig>,
    host: &str,
    socket: Socket,
) -> io::Result<StreamOwned<ClientConnection, Socket>> {
    let bare = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.');
    let name = ServerName::try_from(bare.to_owned()).map_err(io::Error::other)?;
    let connection = ClientConnection::new(config, name).map_err(io::Error::other)?;
    let mut tls = StreamOwned::new(connection, socket);
    while tls.conn.is_handshaking() {
        tls.conn.complete_io(&mut tls.sock)?;
    }
    Ok(tls)
}

/// Asks an HTTP proxy for a tunnel (RFC 9110, section 9.3.6). Its answer is read byte by byte: what follows the head
/// belongs to the receiver.
fn tunnel(socket: &mut Socket, host: &str, port: u16) -> io::Result<()> {
    const MAX_ANSWER: usize = 8 * 1024;
    write!(socket, "CONNECT {host}:{port} HTTP/1.1\r\nhost: {host}:{port}\r\n\r\n")?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if socket.read(&mut byte)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        answer.extend(byte);
        if answer.len() > MAX_ANSWER {
            return Err(io::Error::other("its answer is too long"));
        }
    }
    let line = answer.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|&byte| byte == b' ').chain(iter::repeat(&b""[..]));
    match (words.next(), words.next()) {
        (Some(b"HTTP/1.1" | b"HTTP/1.0"), Some(b"200")) => Ok(()),
        (_, Some(status)) => {
            Err(io::Error::other(format!("it answered {}", String::from_utf8_lossy(status))))
        }
        _ => Err(io::Error::other("its answer is not HTTP")),
    }
}
