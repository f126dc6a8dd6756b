//! Why there was no answer: one class and one line for people, never a secret, never a path of a URL. The line says
//! "outcome unknown" where the receiver may have got the event all the same.

use std::{fmt, io};

use crate::outcome::Fault;

/// A failed attempt. Travels through ureq as [`ureq::Error::Other`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) fault: Fault,
    pub(super) message: String,
}

impl Failure {
    pub(super) fn new(fault: Fault, message: impl Into<String>) -> Self {
        Self { fault, message: message.into() }
    }

    /// A failure to connect is the endpoint's, unless we ran out of something ourselves.
    pub(super) fn connecting(error: &io::Error) -> Self {
        let fault = if is_our_own(error) { Fault::Internal } else { Fault::Connect };
        Self::new(fault, format!("no connection: {error}"))
    }

    /// The class of what ureq reports.
    pub(super) fn of(error: ureq::Error) -> Self {
        use ureq::Error as E;
        match error {
            E::Other(inner) => match inner.downcast::<Self>() {
                Ok(failure) => *failure,
                Err(other) => Self::new(Fault::Internal, other.to_string()),
            },
            E::Io(error) => Self::talking(&error),
            E::Timeout(_) => Self::new(Fault::Timeout, "no complete answer in time, outcome unknown"),
            E::HostNotFound => Self::new(Fault::Dns, "the name has no address"),
            E::ConnectionFailed => Self::new(Fault::Connect, "no connection"),
            E::Tls(message) => Self::new(Fault::Tls, message),
            error @ (E::Protocol(_) | E::LargeResponseHeader(..) | E::BodyStalled | E::TooManyRedirects) => {
                Self::new(Fault::Protocol, error.to_string())
            }
            error @ (E::Http(_) | E::BadUri(_) | E::RequireHttpsOnly(_)) => {
                Self::new(Fault::Config, error.to_string())
            }
            error => Self::new(Fault::Internal, error.to_string()),
        }
    }

    /// On an established connection the receiver may or may not have got the event, except when TLS says no.
    fn talking(error: &io::Error) -> Self {
        if error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) {
            return Self::new(Fault::Tls, format!("TLS: {error}"));
        }
        let fault = if is_our_own(error) { Fault::Internal } else { Fault::Reset };
        Self::new(fault, format!("connection lost, outcome unknown: {error}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl From<Failure> for ureq::Error {
    fn from(failure: Failure) -> Self {
        Self::Other(Box::new(failure))
    }
}

/// Whether this process or machine ran out of descriptors or memory.
pub(super) fn is_our_own(error: &io::Error) -> bool {
    const OURS: [i32; 4] = [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ENOBUFS];
    error.raw_os_error().is_some_and(|code| OURS.contains(&code))
}
