//! Standard Webhooks v1 signatures: HMAC-SHA256 over `{id}.{timestamp}.{body}`, as the specification at
//! <https://www.standardwebhooks.com> defines it.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::error::{Error, Result};
use crate::secret::{PREFIX, Secret};

/// Bytes of a decoded secret, least and most, as the specification wants them.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// The decoded form of a `whsec_` secret. `Debug` prints `***`.
#[derive(Clone)]
pub struct SigningKey(Vec<u8>);

impl SigningKey {
    /// Decodes `whsec_` followed by the padded base64 of 24 to 64 bytes.
    ///
    /// # Errors
    /// [`Kind::InvalidValue`](crate::error::Kind::InvalidValue) for any other text. The text is never repeated.
    pub fn parse(secret: &Secret) -> Result<Self> {
        let malformed = || {
            Error::invalid("signing secret is not of the form whsec_ and base64")
                .hint("Leave the secret out to have one generated, or give whsec_ followed by the base64 of 24 to 64 bytes.")
        };
        let encoded = secret.reveal().strip_prefix(PREFIX).ok_or_else(malformed)?;
        let key = BASE64_STANDARD.decode(encoded).map_err(|_| malformed())?;
        if !KEY_BYTES.contains(&key.len()) {
            return Err(malformed().detail(format!("The secret has {} bytes after decoding.", key.len())));
        }
        Ok(Self(key))
    }

    /// One signature, `v1,` and base64, over the exact bytes of the body. The timestamp is in Unix seconds.
    pub fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) else {
            unreachable!("HMAC takes keys of any length");
        };
        mac.update(id.as_bytes());
        mac.update(b".");
        mac.update(timestamp.to_string().as_bytes());
        mac.update(b".");
        mac.update(body);
        let mut signature = String::from("v1,");
        BASE64_STANDARD.encode_string(mac.finalize().into_bytes(), &mut signature);
        signature
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The value of `webhook-signature`: one signature for each key, in the given order, joined by spaces. A receiver
/// accepts the request when any of them is right, which is what makes a rotation seamless.
pub fn header(keys: &[SigningKey], id: &str, timestamp: i64, body: &[u8]) -> String {
    keys.iter().map(|key| key.sign(id, timestamp, body)).collect::<Vec<_>>().join(" ")
}
