//! The exact request of one attempt as a plain value, and the rules for what may go into one.
//!
//! The JSON texts of an event are spliced into the body as they are: nothing is parsed or written anew, so numbers,
//! escapes and the order of members stay as PostgreSQL wrote them.

mod rules;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use url::Url;

pub use self::rules::{
    MAX_HEADER_NAME, MAX_HEADER_VALUE, MAX_HEADERS, MAX_URL, checked_basic_auth, checked_header,
    checked_headers, checked_url, reserved_header,
};
use crate::encoding::{as_form, as_json, as_xml};
use crate::endpoint::{self, Encoding, Endpoint, Format, Method};
use crate::error::{Error, Kind, Result};
use crate::event::{Event, Timestamp};
use crate::format;
use crate::secret::Secret;
use crate::signature;

/// Everything that goes over the wire except `host` and `content-length`, which follow from it.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    /// Method of the request line.
    pub method: &'static str,
    /// Absolute URL; that of a GET holds the fields.
    pub url: Url,
    /// Names in lower case, and values. Some are secrets, hence no `Debug`.
    pub headers: Vec<(String, String)>,
    /// The exact bytes that are signed and sent. `None` for a GET, whose whole query is signed.
    pub body: Option<Vec<u8>>,
}

/// Builds and signs the request of this attempt, counted from 1. `now` is the wall clock of the attempt: the signed timestamp is
/// fresh each time.
///
/// # Errors
/// When a signing secret is missing or malformed.
pub fn build(endpoint: &Endpoint, event: &Event, attempt: u32, now: Timestamp) -> Result<Request> {
    let message = format::message(endpoint.format, event, &endpoint.expands, attempt);
    let mut url = endpoint.url.clone();
    let (content_type, body) = match (endpoint.method, endpoint.encoding) {
        (Method::Get, _) => {
            let fields = as_form(&message);
            let query = match url.query() {
                Some(own) if !own.is_empty() => format!("{own}&{fields}"),
                _ => fields,
            };
            url.set_query(Some(&query));
            ("", None)
        }
        (_, Encoding::Json) => (message.json_type, Some(as_json(&message).into_bytes())),
        (_, Encoding::Form) => ("application/x-www-form-urlencoded", Some(as_form(&message).into_bytes())),
        (_, Encoding::Xml) => {
            let xml = as_xml(&message)
                .map_err(|error| Error::new(Kind::WrongState, format!("no XML can be written: {error}")))?;
            ("application/xml", Some(xml))
        }
    };
    let signed = body.as_deref().unwrap_or_else(|| url.query().unwrap_or_default().as_bytes());
    let id = event.id.to_string();
    let timestamp = now.div_euclid(1_000_000);

    let mut headers = Vec::with_capacity(10 + message.headers.len() + endpoint.headers.len());
    let mut add = |name: &str, value: String| headers.push((name.to_owned(), value));
    if body.is_some() {
        add("content-type", content_type.to_owned());
    }
    add("accept", "*/*".to_owned());
    // Bodies of responses are kept as they come, so nothing may be compressed.
    add("accept-encoding", "identity".to_owned());
    if !endpoint.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("user-agent")) {
        add("user-agent", concat!("webhook_pg/", env!("CARGO_PKG_VERSION")).to_owned());
    }
    let in_force = endpoint.secrets.iter().filter(|s| s.expires_at.is_none_or(|end| end > now));
    let secrets: Vec<&Secret> = in_force.map(|s| &s.secret).collect();
    if let Some((name, value)) = signature::header(endpoint.scheme, &secrets, &id, timestamp, signed)? {
        add(name, value);
    }
    add("webhook-id", id);
    add("webhook-timestamp", timestamp.to_string());
    for (name, value) in message.headers {
        add(name, value);
    }
    if let Some(traceparent) = &event.traceparent {
        add("traceparent", traceparent.clone());
    }
    if let Some((username, password)) = &endpoint.basic_auth {
        let pair = BASE64_STANDARD.encode(format!("{username}:{}", password.reveal()));
        add("authorization", format!("Basic {pair}"));
    }
    for (name, value) in &endpoint.headers {
        add(&name.to_ascii_lowercase(), value.reveal().to_owned());
    }
    Ok(Request { method: endpoint::word(Method::WORDS, endpoint.method), url, headers, body })
}

/// The body of the format `standard` in JSON.
pub fn standard_body(event: &Event, expands: &[String]) -> String {
    as_json(&format::message(Format::Standard, event, expands, 1))
}

#[cfg(test)]
mod tests;
