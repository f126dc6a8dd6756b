//! One HTTP try, from the job to the answer, under one network policy.
//!
//! A [`Client`] belongs to one policy. A new policy makes a new client, and with it new connections, new kept
//! addresses and new roots: what is pooled cannot outlive the policy that opened it.
//!
//! There is one ureq agent for each origin and timeout. ureq's pool walks over all idle connections under its lock
//! for every request, so one pool for many hosts would cost more than the request.
//!
//! A connection that the receiver closed while it was idle is noticed before use and replaced. One that is closed at the
//! very moment of use fails as `reset` and is **not** sent again here: the receiver may have got the event, and only the
//! engine may decide on a second try, which it records. `rest.rs` keeps this rare.

use std::collections::HashMap;
use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use ureq::Agent;
use ureq::http::{Uri, header};
use url::{Position, Url};

use super::connector::{Dialer, Tls};
use super::failure::Failure;
use super::names::Names;
use super::resolver::Vetted;
use super::rest::{self, Rest};
use super::wire;
use crate::engine::Job;
use crate::event::Timestamp;
use crate::outcome::{Answer, Fault};
use crate::request;
use crate::settings::{self, Egress};

/// Above this many open connections the origins used longest ago give theirs up.
const MAX_OPEN: usize = 256;
/// Origins that are remembered.
const MAX_ORIGINS: usize = 512;
/// A Retry-After longer than this is no Retry-After.
const MAX_RETRY_AFTER: usize = 64;

/// Makes HTTP tries under one policy.
pub(super) struct Client {
    egress: Egress,
    /// When `ca_file` was last written, as the policy came into force.
    ca_written: Option<SystemTime>,
    proxy: Result<Option<Url>, Failure>,
    tls: Arc<Tls>,
    names: Arc<Names>,
    /// Connections that are open, idle or in use.
    open: Arc<AtomicUsize>,
    /// Idle connections one origin may keep.
    idle: usize,
    origins: Mutex<HashMap<(String, Duration), Origin>>,
}

struct Origin {
    agent: Agent,
    used: Instant,
}

impl Client {
    pub(super) fn new(egress: &Egress, threads: usize) -> Self {
        Self {
            egress: egress.clone(),
            ca_written: written(&egress.ca_file),
            proxy: settings::proxy(&egress.proxy).map_err(|_| {
                Failure::new(Fault::Config, "the setting proxy is not of the form http://host:port")
            }),
            tls: Arc::new(Tls::new(egress.ca_file.clone())),
            names: Arc::new(Names::of_the_system()),
            open: Arc::default(),
            idle: threads,
            origins: Mutex::default(),
        }
    }

    /// Whether this client already obeys the policy.
    pub(super) fn obeys(&self, egress: &Egress, threads: usize) -> bool {
        self.egress == *egress && self.idle == threads && self.ca_written == written(&egress.ca_file)
    }

    /// Makes one try. `now` is the wall clock at its start.
    pub(super) fn attempt(&self, job: &Job, now: Timestamp) -> Answer {
        self.exchange(job, now)
            .unwrap_or_else(|failure| Answer::Failed { fault: failure.fault, message: failure.message })
    }

    /// Closes what has not been used for a while.
    pub(super) fn rest(&self) {
        let gone: Vec<_> =
            self.origins().extract_if(|_, origin| origin.used.elapsed() >= rest::LONGEST).collect();
        // Sockets close here, outside the lock.
        drop(gone);
    }

    fn exchange(&self, job: &Job, now: Timestamp) -> Result<Answer, Failure> {
        let url = &job.endpoint.url;
        match url.scheme() {
            "https" => {}
            "http" if self.egress.allow_http => {}
            scheme => return Err(Failure::new(Fault::Egress, format!("{scheme} is not allowed"))),
        }
        let config = |message: String| Failure::new(Fault::Config, message);
        let request =
            request::build(&job.endpoint, &job.event, job.attempt, now).map_err(|e| config(e.to_string()))?;
        let agent = self.agent(url, job.timeout)?;
        let mut builder =
            ureq::http::Request::builder().method(request.method).uri(one_reading(&request.url)?);
        for (name, value) in &request.headers {
            builder = builder.header(name, value);
        }
        let response = match &request.body {
            Some(body) => agent.run(builder.body(body).map_err(|e| config(e.to_string()))?),
            None => agent.run(builder.body(()).map_err(|e| config(e.to_string()))?),
        };
        let response = response.map_err(Failure::of)?;
        let headers = response.headers();
        if headers.contains_key(header::CONTENT_LENGTH) && headers.contains_key(header::TRANSFER_ENCODING) {
            // RFC 9112, section 6.3: where such a message ends is a matter of opinion, so nothing may follow it.
            return Err(Failure::new(Fault::Protocol, "the answer has two lengths"));
        }
        let retry_after = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
        Ok(Answer::Status {
            status: response.status().as_u16(),
            retry_after: retry_after.filter(|text| text.len() <= MAX_RETRY_AFTER).map(str::to_owned),
            body: self.read_body(response.into_body()),
        })
    }

    /// Reads a short body to its end, so that the connection can be used again, and a long one to the cap, after
    /// which the connection is closed. The head has been read, so nothing that happens here is a failure any more.
    fn read_body(&self, body: ureq::Body) -> String {
        let (cap, keep) = (self.egress.max_response_bytes, self.egress.store_response_bytes);
        let too_long = body.content_length().is_some_and(|length| length > cap as u64);
        // Up to the cap and one byte more: that byte shows that there is more.
        let limit = if too_long { cap } else { cap.saturating_add(1) };
        let mut reader = body.into_reader();
        let (mut kept, mut total, mut buffer) = (Vec::new(), 0, [0; 4096]);
        while total < limit {
            let room = buffer.len().min(limit - total);
            match reader.read(&mut buffer[..room]) {
                Ok(0) | Err(_) => break,
                Ok(count) => {
                    let wanted = count.min(keep.saturating_sub(kept.len()));
                    kept.extend_from_slice(&buffer[..wanted]);
                    total += count;
                }
            }
        }
        storable(&kept, keep)
    }

    /// The agent for this URL's origin.
    fn agent(&self, url: &Url, timeout: Duration) -> Result<Agent, Failure> {
        let key = (url[..Position::BeforePath].to_owned(), timeout);
        let mut origins = self.origins();
        let crowded = origins.len() >= MAX_ORIGINS || self.open.load(Ordering::Relaxed) >= MAX_OPEN;
        let mut gone = None;
        if crowded && let Some(oldest) = origins.iter().min_by_key(|(_, origin)| origin.used) {
            let oldest = oldest.0.clone();
            if oldest != key {
                gone = origins.remove(&oldest);
            }
        }
        let agent = match origins.get_mut(&key) {
            Some(origin) => {
                origin.used = Instant::now();
                origin.agent.clone()
            }
            None => {
                let agent = self.new_agent(url, timeout)?;
                origins.insert(key, Origin { agent: agent.clone(), used: Instant::now() });
                agent
            }
        };
        drop(origins);
        // Sockets close here, outside the lock.
        drop(gone);
        Ok(agent)
    }

    /// Every default of ureq that matters is set: it would follow redirects, ask the environment for proxies, take
    /// 4xx for errors, wait for ever, and add headers that we did not sign for.
    fn new_agent(&self, url: &Url, timeout: Duration) -> Result<Agent, Failure> {
        let proxy = self.proxy.clone()?;
        let config = Agent::config_builder()
            .proxy(None)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .https_only(!self.egress.allow_http)
            .timeout_global(Some(timeout))
            .timeout_connect(Some(self.egress.connect_timeout))
            .max_response_header_size(wire::MAX_HEAD)
            .max_idle_connections(self.idle)
            .max_idle_connections_per_host(self.idle)
            .max_idle_age(rest::LONGEST)
            .user_agent("")
            .accept("")
            .accept_encoding("")
            .build();
        let dialer = Dialer {
            tls: Arc::clone(&self.tls),
            proxy: proxy.clone(),
            rest: Arc::new(Rest::new()),
            open: Arc::clone(&self.open),
        };
        let resolver = Vetted::new(Arc::clone(&self.names), url.clone(), proxy, self.egress.allow.clone());
        Ok(Agent::with_parts(config, dialer, resolver))
    }

    fn origins(&self) -> MutexGuard<'_, HashMap<(String, Duration), Origin>> {
        self.origins.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// ureq reads the URL with another parser than the one it was checked with. Both must see the same place.
fn one_reading(url: &Url) -> Result<Uri, Failure> {
    let uri: Uri = url.as_str().parse().map_err(|_| Failure::new(Fault::Config, "the url cannot be sent"))?;
    if uri.host() != url.host_str() || uri.port_u16() != url.port() || uri.scheme_str() != Some(url.scheme())
    {
        return Err(Failure::new(Fault::Config, "the url has more than one reading"));
    }
    Ok(uri)
}

fn written(ca_file: &str) -> Option<SystemTime> {
    if ca_file.is_empty() { None } else { std::fs::metadata(ca_file).and_then(|file| file.modified()).ok() }
}

/// Text that PostgreSQL can store, at most `max` bytes: invalid UTF-8 replaced, NUL removed, no half character.
fn storable(bytes: &[u8], max: usize) -> String {
    let whole = match std::str::from_utf8(bytes) {
        // Cut inside a character.
        Err(error) if error.error_len().is_none() => &bytes[..error.valid_up_to()],
        _ => bytes,
    };
    let mut text = String::from_utf8_lossy(whole).replace('\0', "");
    text.truncate(text.floor_char_boundary(max));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_stored_body_has_no_nul_and_no_half_character() {
        assert_eq!(storable(b"a\0b", 10), "ab");
        assert_eq!(storable("aé".as_bytes().split_at(2).0, 10), "a");
        assert_eq!(storable(b"\xff\xfe", 10), "\u{fffd}\u{fffd}");
    }

    proptest! {
        #[test]
        fn a_stored_body_is_never_too_long(bytes: Vec<u8>, max in 0usize..64) {
            let text = storable(&bytes, max);
            prop_assert!(text.len() <= max && !text.contains('\0'));
        }

        #[test]
        fn a_checked_url_has_one_reading_or_is_not_sent(text in "https://[a-z0-9.:%@\\[\\]-]{1,20}[ -~]{0,20}") {
            if let Ok(url) = request::checked_url(&text, false) && let Ok(uri) = one_reading(&url) {
                prop_assert_eq!(uri.host(), url.host_str());
            }
        }
    }
}
