//! Secrets: generated from the operating system's randomness, shown once, never printed.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use crate::event::Timestamp;

/// What a Standard Webhooks signing secret begins with.
pub const PREFIX: &str = "whsec_";

/// A new signing secret: `whsec_` and the base64 of 32 bytes, which the caller draws from the operating system.
pub fn generate(random: [u8; 32]) -> Secret {
    Secret(format!("{PREFIX}{}", BASE64_STANDARD.encode(random)))
}

/// A signing secret, which may be on its way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningSecret {
    /// The secret.
    pub secret: Secret,
    /// From here on it signs no more.
    pub expires_at: Option<Timestamp>,
}

impl From<Secret> for SigningSecret {
    fn from(secret: Secret) -> Self {
        Self { secret, expires_at: None }
    }
}

/// A secret text: a signing secret, a password or a header value. `Debug` and `Display` print `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself. Only for building a request or answering the call that made the secret.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_cannot_be_printed() {
        let secret = Secret::new("whsec_hush");
        let holder = Some(("authorization".to_owned(), secret.clone()));
        assert_eq!(format!("{secret} {secret:?} {secret:#?}"), "*** *** ***");
        assert!(!format!("{holder:?}").contains("hush"));
    }

    #[test]
    fn a_generated_secret_is_the_prefix_and_the_base64_of_its_bytes() {
        let secret = generate([0xff; 32]);
        let encoded = secret.reveal().strip_prefix(PREFIX).unwrap();
        assert_eq!(BASE64_STANDARD.decode(encoded).unwrap(), [0xff; 32]);
    }
}
