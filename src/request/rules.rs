//! The rules for what people may put into a request: the URL, headers, Basic authorization.

use url::Url;

use crate::error::{Error, Result};

/// A URL has at most this many characters.
pub const MAX_URL: usize = 2048;
/// A header value has at most this many bytes.
pub const MAX_HEADER_VALUE: usize = 4096;
/// A header name has at most this many bytes.
pub const MAX_HEADER_NAME: usize = 200;
/// An endpoint has at most this many headers of its own.
pub const MAX_HEADERS: usize = 50;
/// Name and password of Basic authorization have at most this many bytes together: room for 512 characters each, whatever
/// characters they are.
pub(super) const MAX_BASIC_AUTH: usize = 2 * 512 * 4;

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

/// Headers that are set by us, or would change how the message is read.
pub(super) const RESERVED: [&str; 22] = [
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
    "x-hub-signature-256",
    "stripe-signature",
    "x-shopify-hmac-sha256",
];

/// Whether a header is [ours](RESERVED). `webhook-*` as a whole is.
pub fn reserved_header(name: &str) -> bool {
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
    if username.len() + password.len() > MAX_BASIC_AUTH {
        return Err(Error::invalid("basic authorization is too long")
            .detail(format!("Name and password together may have {MAX_BASIC_AUTH} bytes.")));
    }
    Ok(())
}
