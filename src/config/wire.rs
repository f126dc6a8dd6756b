//! The parameters that shape the request: format, encoding, method, headers, Basic authorization, signature.

use serde_json::Value;

use super::Config;
use super::parameter::{excerpt, object, object_of, string, wrong_type};
use crate::endpoint::{Encoding, Format, Method, Scheme, word};
use crate::error::{Error, Result};
use crate::request::{checked_basic_auth, checked_headers};
use crate::secret::{Secret, SigningSecret};
use crate::signature::SigningKey;

impl Config {
    /// The encoding in force.
    pub(super) fn encoding(&self) -> Encoding {
        self.encoding.unwrap_or_else(|| self.format.default_encoding(self.method))
    }

    /// What these parameters cannot answer for alone.
    pub(super) fn check_wire(&self) -> Result<()> {
        self.check_format()?;
        if self.signature != Scheme::None {
            for signing in &self.secrets {
                SigningKey::parse(self.signature, &signing.secret)?;
            }
        }
        if self.basic_auth_password.is_some() && self.basic_auth_username.is_none() {
            return Err(
                Error::invalid("basic_auth_password is given without basic_auth_username").hint("Give both.")
            );
        }
        if let Some(username) = &self.basic_auth_username {
            let password = self.basic_auth_password.as_ref().map_or("", Secret::reveal);
            checked_basic_auth(username, password)?;
        }
        let headers = self.headers.iter().map(|(name, value)| (name.as_str(), value.reveal()));
        checked_headers(headers, self.basic_auth_username.is_some())
    }

    /// Not every format can be written in every encoding and sent by every method.
    fn check_format(&self) -> Result<()> {
        let (format, encoding) = (word(Format::WORDS, self.format), word(Encoding::WORDS, self.encoding()));
        let is_cloud_event = matches!(self.format, Format::CloudEvents | Format::CloudEventsBinary);
        if is_cloud_event && self.method == Method::Get {
            return Err(Error::invalid(format!("format {format} cannot be sent by GET"))
                .detail("The method is GET.")
                .hint("Use POST, or another format."));
        }
        if self.method == Method::Get && self.encoding() != Encoding::Form {
            return Err(Error::invalid("method GET has no body to encode")
                .detail(format!("The encoding is {encoding}."))
                .hint("Leave encoding out: the fields of a GET are its query."));
        }
        if is_cloud_event && self.encoding() != Encoding::Json {
            return Err(Error::invalid(format!("format {format} has no encoding {encoding}"))
                .detail(format!("The encoding is {encoding}."))
                .hint("Leave encoding out: CloudEvents are JSON."));
        }
        let taken = |name: &str| {
            let name = name.to_ascii_lowercase();
            self.format == Format::CloudEventsBinary && name.starts_with("ce-")
        };
        if let Some((name, _)) = self.headers.iter().find(|(name, _)| taken(name)) {
            return Err(Error::invalid("header cannot be set")
                .detail(format!("The header is {name}."))
                .hint("The format cloudevents-binary sets all headers that begin with ce-."));
        }
        Ok(())
    }
}

/// The signing secrets of a stored configuration: objects of `value` and `expires_at`, in microseconds since 1970 or null.
pub(super) fn stored_secrets(value: &Value) -> Result<Vec<SigningSecret>> {
    let list = value.as_array().ok_or_else(|| wrong_type("secrets", value, "an array"))?;
    let read = |entry: &Value| {
        Ok(SigningSecret {
            secret: Secret::new(string("secret", &entry["value"])?),
            expires_at: entry["expires_at"].as_i64(),
        })
    };
    list.iter().map(read).collect()
}

/// The text of an object, which PostgreSQL wrote: as a value here its numbers might change.
pub(super) fn scope(value: &Value) -> Result<String> {
    let text = string("scope", value)?;
    object("scope", text)
        .map_err(|error| error.hint("Write for example {\"location_id\": \"north\"}, as in a row."))?;
    Ok(text.to_owned())
}

pub(super) fn headers(value: &Value) -> Result<Vec<(String, Secret)>> {
    let header = |(name, value): (&String, &Value)| {
        let value = value.as_str().ok_or_else(|| {
            Error::invalid("header value must be a string")
                .detail(format!("The header is {}.", excerpt(name)))
                .hint("Write for example {\"x-api-key\": \"…\"}.")
        })?;
        Ok((name.clone(), Secret::new(value)))
    };
    object_of("headers", value)?.iter().map(header).collect()
}
