//! The settings `webhook_pg.*` as one plain value: read once at the edge, handed to the rooms that need it.

use std::time::Duration;

use ipnet::IpNet;
use url::Url;

use crate::error::{Error, Result};
use crate::request::checked_url;
use crate::retry::Schedule;

/// How many failed and successful attempts keep a row in `webhook.attempt`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogAttempts {
    /// Every attempt.
    All,
    /// Failed attempts only.
    Failures,
    /// None.
    None,
}

/// What an HTTP request may reach. Acts on the next send, pooled connections included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Egress {
    /// `http://` receivers are allowed.
    pub allow_http: bool,
    /// Networks that are opened although the address rule refuses them; metadata addresses stay closed.
    pub allow: Vec<IpNet>,
    /// Explicit proxy URL, or empty. The environment's proxies are never used.
    pub proxy: String,
    /// PEM file of additional certificate authorities, or empty.
    pub ca_file: String,
    /// Time to establish TCP and TLS.
    pub connect_timeout: Duration,
    /// Bytes of a response body that are read at most.
    pub max_response_bytes: usize,
    /// Bytes of a response body that are kept for `webhook.attempts`.
    pub store_response_bytes: usize,
}

/// A snapshot of the settings.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Off stops sending and nothing else.
    pub enabled: bool,
    /// Requests in flight at most, over all endpoints of a database.
    pub max_in_flight: usize,
    /// Requests in flight at most to one endpoint that does not say otherwise.
    pub endpoint_max_in_flight: usize,
    /// Total time of one attempt for an endpoint that does not say otherwise.
    pub request_timeout: Duration,
    /// Waits between attempts for an endpoint that does not say otherwise.
    pub retry_schedule: Schedule,
    /// An endpoint that has only failed for so long is disabled; `None` never.
    pub disable_after: Option<Duration>,
    /// The safety scan that covers what no latch announced.
    pub poll_interval: Duration,
    /// What goes to `webhook.attempt`.
    pub log_attempts: LogAttempts,
    /// Network policy.
    pub egress: Egress,
}

/// `retry_schedule`'s default: 9 waits, so 10 attempts over about three days.
pub const DEFAULT_RETRY_SCHEDULE: &str = "5s 5m 30m 2h 5h 10h 14h 20h 24h";

impl Default for Settings {
    fn default() -> Self {
        Self {
            enabled: true,
            max_in_flight: 64,
            endpoint_max_in_flight: 8,
            request_timeout: Duration::from_secs(15),
            retry_schedule: Schedule::parse(DEFAULT_RETRY_SCHEDULE)
                .unwrap_or_else(|_| Schedule::new(Vec::new())),
            disable_after: Some(Duration::from_secs(5 * 24 * 60 * 60)),
            poll_interval: Duration::from_secs(5),
            log_attempts: LogAttempts::All,
            egress: Egress::default(),
        }
    }
}

impl Default for Egress {
    fn default() -> Self {
        Self {
            allow_http: false,
            allow: Vec::new(),
            proxy: String::new(),
            ca_file: String::new(),
            connect_timeout: Duration::from_secs(5),
            max_response_bytes: 64 * 1024,
            store_response_bytes: 4 * 1024,
        }
    }
}

/// The proxy that the setting `proxy` names; `None` when it is empty. Settings hold no secrets, so it has no password.
///
/// # Errors
/// The text is neither empty nor of the form `http://host:port`.
pub fn proxy(text: &str) -> Result<Option<Url>> {
    if text.is_empty() {
        return Ok(None);
    }
    match checked_url(text, true) {
        Ok(url) if url.scheme() == "http" && url.path() == "/" && url.query().is_none() => Ok(Some(url)),
        // The value is not repeated: a password may stand in it.
        _ => Err(Error::invalid("proxy is malformed")
            .detail("A proxy has the form http://host:port, without a user name or password.")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_plain_http_without_a_password() {
        assert_eq!(proxy(""), Ok(None));
        assert!(proxy("http://10.0.0.1:3128").unwrap().is_some());
        for bad in [
            "10.0.0.1:3128",
            "https://proxy",
            "socks5://proxy",
            "http://u:p@proxy",
            "http://proxy/path",
            "http://proxy/?a",
            "http://proxy/#a",
            "http://proxy:0",
        ] {
            let error = proxy(bad).unwrap_err();
            assert!(!format!("{error:?}").contains("u:p"), "{bad}");
        }
    }
}
