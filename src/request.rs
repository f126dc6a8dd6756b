//! The exact request of one attempt as a plain value, and the rules for what may go into one.
//!
//! The JSON texts of an event are spliced into the body as they are: nothing is parsed or written anew, so numbers,
//! escapes and the order of members stay as PostgreSQL wrote them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::value::RawValue;
use url::Url;

use crate::endpoint::{Endpoint, Method, Scheme};
use crate::error::{Error, Kind, Result};
use crate::event::{Event, Timestamp};
use crate::signature::{self, SigningKey};

/// A URL has at most this many characters.
pub const MAX_URL: usize = 2048;
/// A header value has at most this many bytes.
pub const MAX_HEADER_VALUE: usize = 4096;
/// A header name has at most this many bytes.
pub const MAX_HEADER_NAME: usize = 200;
/// An endpoint has at most this many headers of its own.
pub const MAX_HEADERS: usize = 50;

/// Everything that goes over the wire except `host` and `content-length`, which follow from it.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    /// Method of the request line.
    pub method: &'static str,
    /// Absolute URL.
    pub url: Url,
    /// Names in lower case, and values. Some are secrets, hence no `Debug`.
    pub headers: Vec<(String, String)>,
    /// The exact bytes that are signed and sent.
    pub body: Vec<u8>,
}

/// Builds and signs the request. `now` is the wall clock of this attempt: the signed timestamp is fresh each time.
///
/// # Errors
/// When a signing secret is missing or malformed, or the method is not one that this version sends.
pub fn build(endpoint: &Endpoint, event: &Event, now: Timestamp) -> Result<Request> {
    let method = match endpoint.method {
        Method::Post => "POST",
        Method::Put => "PUT",
        Method::Patch => "PATCH",
        Method::Delete => "DELETE",
        Method::Get => return Err(Error::new(Kind::NotSupported, "method GET is not supported yet")),
    };
    let body = standard_body(event, &endpoint.expands).into_bytes();
    let id = event.id.to_string();
    let timestamp = now.div_euclid(1_000_000);

    let mut headers = Vec::with_capacity(10 + endpoint.headers.len());
    let mut add = |name: &str, value: String| headers.push((name.to_owned(), value));
    add("content-type", "application/json".to_owned());
    add("accept", "*/*".to_owned());
    // Bodies of responses are kept as they come, so nothing may be compressed.
    add("accept-encoding", "identity".to_owned());
    if !endpoint.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("user-agent")) {
        add("user-agent", concat!("webhook_pg/", env!("CARGO_PKG_VERSION")).to_owned());
    }
    if endpoint.scheme == Scheme::Standard {
        let keys = endpoint.secrets.iter().map(SigningKey::parse).collect::<Result<Vec<_>>>()?;
        if keys.is_empty() {
            return Err(Error::new(Kind::WrongState, "endpoint has no signing secret"));
        }
        add("webhook-signature", signature::header(&keys, &id, timestamp, &body));
    }
    add("webhook-id", id);
    add("webhook-timestamp", timestamp.to_string());
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
    Ok(Request { method, url: endpoint.url.clone(), headers, body })
}

/// The `standard` body: `type`, `timestamp`, then what the event has of `operation`, `truncated`, `data`,
/// `previous`, `key` and `context`. `data` is always there, `null` in a thin event, and holds what `expands` names.
pub fn standard_body(event: &Event, expands: &[String]) -> String {
    let mut body = String::with_capacity(event.bytes() + 160);
    body.push_str("{\"type\":");
    body.push_str(&serde_json::Value::from(event.event_type.as_str()).to_string());
    body.push_str(",\"timestamp\":\"");
    body.push_str(&rfc3339(event.occurred_at));
    body.push('"');
    // The type of a link table's event names the parent's action, so the body says what happened to the link row.
    if let Some(operation) = event.operation.filter(|operation| operation.as_str() != event.action()) {
        body.push_str(",\"operation\":\"");
        body.push_str(operation.as_str());
        body.push('"');
    }
    if event.truncated {
        body.push_str(",\"truncated\":true");
    }
    let data = data_with(event, expands);
    let members = [
        (",\"data\":", Some(data.as_ref())),
        (",\"previous\":", event.previous.as_deref()),
        (",\"key\":", event.key.as_deref()),
        (",\"context\":", event.context.as_deref()),
    ];
    for (name, text) in members {
        if let Some(text) = text {
            body.push_str(name);
            body.push_str(text);
        }
    }
    body.push('}');
    body
}

/// The event's `data`, and inside it what `expands` names and the event has. `null` in a thin event.
pub fn data_with<'a>(event: &'a Event, expands: &[String]) -> Cow<'a, str> {
    let data = event.data.as_deref().filter(|_| !event.truncated).unwrap_or("null");
    let (Some(expanded), Some(open)) = (event.expanded.as_deref(), data.strip_suffix('}')) else {
        return Cow::Borrowed(data);
    };
    if expands.is_empty() {
        return Cow::Borrowed(data);
    }
    // Capture wrote the object; should somebody else have, the row itself still travels.
    let known: BTreeMap<String, &RawValue> = serde_json::from_str(expanded).unwrap_or_default();
    let mut text = open.to_owned();
    for (name, value) in expands.iter().filter_map(|name| known.get_key_value(name)) {
        if !text.ends_with('{') {
            text.push(',');
        }
        text.push_str(&serde_json::Value::from(name.as_str()).to_string());
        text.push(':');
        text.push_str(value.get());
    }
    text.push('}');
    Cow::Owned(text)
}

/// Six decimals and `Z`, always: receivers may compare the texts.
fn rfc3339(timestamp: Timestamp) -> String {
    const PRINTER: jiff::fmt::temporal::DateTimePrinter =
        jiff::fmt::temporal::DateTimePrinter::new().precision(Some(6));
    // A clock beyond the year 9999 is nothing that a delivery may fail for.
    let timestamp = jiff::Timestamp::from_microsecond(timestamp).unwrap_or(jiff::Timestamp::MAX);
    PRINTER.timestamp_to_string(&timestamp)
}

/// Reads a receiver's URL. The `url` crate reads it here and again when sending, so check and use agree; what it
/// would silently repair is refused. Odd spellings of IP addresses come out in their usual form.
///
/// # Errors
/// For every URL that is not plain `https` (or `http` where `allow_http`): see the messages.
pub fn checked_url(text: &str, allow_http: bool) -> Result<Url> {
    let bad = |message: &str| Error::invalid(message).hint("Give a URL such as https://example.com/hooks.");
    if text.chars().count() > MAX_URL {
        return Err(bad("url is too long")
            .detail(format!("It has {} characters; {MAX_URL} are allowed.", text.chars().count())));
    }
    if let Some(odd) = text.chars().find(|c| !matches!(c, '!'..='~') || *c == '\\') {
        return Err(
            bad("url has a character that is not allowed").detail(format!("The character is {odd:?}."))
        );
    }
    let (scheme, rest) = text.split_once("://").ok_or_else(|| {
        // Whatever stands before an @ may be a password.
        let shown = text.rsplit('@').next().unwrap_or_default();
        bad("url is not absolute").detail(format!("The url is {shown:?}."))
    })?;
    match scheme.to_ascii_lowercase().as_str() {
        "https" => {}
        "http" if allow_http => {}
        "http" => {
            return Err(Error::invalid("url is not https")
                .detail("Its scheme is http.")
                .hint("Use https, or let an administrator set webhook_pg.allow_http = on."));
        }
        other => return Err(bad("url has an unknown scheme").detail(format!("Its scheme is {other:?}."))),
    }
    if text.contains('#') {
        return Err(bad("url has a fragment"));
    }
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    if authority.contains('@') {
        return Err(Error::invalid("url has a user name or password")
            .hint("Use basic_auth_username and basic_auth_password, or a header."));
    }
    if authority.is_empty() {
        return Err(bad("url has no host"));
    }
    let url = Url::parse(text).map_err(|e| bad("url is malformed").detail(format!("{e}.")))?;
    if url.port() == Some(0) {
        return Err(bad("url has port 0"));
    }
    if url.as_str().len() > MAX_URL {
        return Err(bad("url is too long when written out"));
    }
    Ok(url)
}

/// Whether a header is set by us, or would change how the message is read. `webhook-*` as a whole is ours.
pub fn reserved_header(name: &str) -> bool {
    const RESERVED: [&str; 19] = [
        "accept-encoding",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "host",
        "http2-settings",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "traceparent",
        "upgrade",
        "via",
        "accept",
    ];
    let name = name.to_ascii_lowercase();
    name.starts_with("webhook-") || RESERVED.contains(&name.as_str())
}

/// Checks one header of an endpoint: the name is a token of RFC 9110, the value visible ASCII with single spaces or
/// tabs inside, and the header is not [reserved](reserved_header).
///
/// # Errors
/// Names the header, never its value.
pub fn checked_header(name: &str, value: &str) -> Result<()> {
    let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if name.is_empty() || name.len() > MAX_HEADER_NAME || !name.chars().all(token) {
        return Err(Error::invalid("header name is malformed")
            .detail(format!("The name is {:?}.", name.chars().take(MAX_HEADER_NAME).collect::<String>()))
            .hint("Use letters, digits and hyphens."));
    }
    if reserved_header(name) {
        return Err(Error::invalid("header cannot be set")
            .detail(format!("The header is {name}."))
            .hint("It follows from the other parameters of the endpoint."));
    }
    let inside = |c: char| matches!(c, ' '..='~' | '\t');
    if value.len() > MAX_HEADER_VALUE || value.trim() != value || !value.chars().all(inside) {
        return Err(Error::invalid("header value is malformed")
            .detail(format!("The header is {name}."))
            .hint(format!(
                "Use at most {MAX_HEADER_VALUE} visible ASCII characters, with spaces only inside."
            )));
    }
    Ok(())
}

/// Checks all headers of an endpoint, each and together: no name twice, and no `authorization` beside Basic
/// authorization.
///
/// # Errors
/// Names the header, never its value.
pub fn checked_headers<'a>(
    headers: impl IntoIterator<Item = (&'a str, &'a str)>,
    basic_auth: bool,
) -> Result<()> {
    let mut seen = std::collections::BTreeSet::new();
    for (name, value) in headers {
        checked_header(name, value)?;
        let lower = name.to_ascii_lowercase();
        if basic_auth && lower == "authorization" {
            return Err(Error::invalid("authorization is given twice")
                .hint("Give either an authorization header or basic_auth_username."));
        }
        if !seen.insert(lower) {
            return Err(Error::invalid("header is given twice").detail(format!("The header is {name}.")));
        }
    }
    if seen.len() > MAX_HEADERS {
        return Err(Error::invalid("too many headers").detail(format!("{MAX_HEADERS} are allowed.")));
    }
    Ok(())
}

/// Checks a pair for Basic authorization (RFC 7617): no control characters, no colon in the name, short enough
/// for one header.
///
/// # Errors
/// Never repeats either value.
pub fn checked_basic_auth(username: &str, password: &str) -> Result<()> {
    if username.contains(':') {
        return Err(Error::invalid("basic_auth_username has a colon"));
    }
    if username.chars().chain(password.chars()).any(char::is_control) {
        return Err(Error::invalid("basic authorization has a control character"));
    }
    if username.len() + password.len() > MAX_HEADER_VALUE / 2 {
        return Err(Error::invalid("basic authorization is too long")
            .detail(format!("Name and password together may have {} bytes.", MAX_HEADER_VALUE / 2)));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
