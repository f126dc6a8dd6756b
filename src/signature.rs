//! Signatures of a request, each as a receiver's own library checks it.
//!
//! | scheme | header | signed | by | while secrets rotate |
//! |---|---|---|---|---|
//! | `standard` | `webhook-signature: v1,…` | `{id}.{timestamp}.{body}` | HMAC-SHA256 with the decoded secret | one for each secret |
//! | `ed25519` | `webhook-signature: v1a,…` | `{id}.{timestamp}.{body}` | Ed25519 | one for each secret |
//! | `stripe` | `stripe-signature: t=…,v1=…` | `{timestamp}.{body}` | HMAC-SHA256 with the secret's text | one `v1` for each secret |
//! | `github` | `x-hub-signature-256: sha256=…` | body | HMAC-SHA256 with the secret's text | the newest alone |
//! | `shopify` | `x-shopify-hmac-sha256: …` | body | HMAC-SHA256 with the secret's text | the newest alone |
//!
//! The first two are defined at <https://www.standardwebhooks.com>, the others in the documentation of the service whose
//! name they bear. The last two have room for one signature.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use ring::signature::{Ed25519KeyPair, KeyPair};
use sha2::Sha256;

use crate::endpoint::Scheme;
use crate::error::{Error, Kind, Result};
use crate::secret::{PREFIX, Secret};

/// Bytes of a decoded `whsec_` secret, least and most, as the specification wants them.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// Bytes of a secret whose text is the key.
const TEXT_BYTES: std::ops::RangeInclusive<usize> = 8..=255;
/// What an Ed25519 private key begins with.
const PRIVATE_PREFIX: &str = "whsk_";
/// What an Ed25519 public key begins with.
const PUBLIC_PREFIX: &str = "whpk_";
/// Bytes of an Ed25519 seed.
const SEED: usize = 32;

/// A secret made ready to sign under one scheme. `Debug` prints `***`.
pub struct SigningKey(Key);

enum Key {
    /// For an HMAC, and how its result is shown.
    Shared(Vec<u8>, Scheme),
    Private(Ed25519KeyPair),
}

impl SigningKey {
    /// Reads a secret: for `standard` `whsec_` and the padded base64 of 24 to 64 bytes; for `ed25519` `whsk_` and that of
    /// the seed's 32 bytes, with or without the public key's 32 behind them; for the others any 8 to 255 visible ASCII
    /// characters.
    ///
    /// # Errors
    /// [`Kind::InvalidValue`] for any other text, which is never repeated; [`Kind::WrongState`] for the scheme `none`.
    pub fn parse(scheme: Scheme, secret: &Secret) -> Result<Self> {
        let text = secret.reveal();
        let key = match scheme {
            Scheme::Standard => Key::Shared(decoded_key(text)?, scheme),
            Scheme::Ed25519 => Key::Private(key_pair(text)?),
            Scheme::Github | Scheme::Stripe | Scheme::Shopify => {
                if !TEXT_BYTES.contains(&text.len()) || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
                    return Err(Error::invalid("signing secret is malformed")
                        .hint("Leave the secret out to have one generated, or give 8 to 255 visible ASCII characters."));
                }
                Key::Shared(text.as_bytes().to_vec(), scheme)
            }
            Scheme::None => return Err(Error::new(Kind::WrongState, "endpoint is not signed")),
        };
        Ok(Self(key))
    }

    /// One signature in the form that its scheme's header takes, over the exact bytes of the body (of a GET: the query).
    /// The timestamp is in Unix seconds.
    pub fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let timestamp = timestamp.to_string();
        let content = [id.as_bytes(), b".", timestamp.as_bytes(), b".", body];
        match &self.0 {
            Key::Private(pair) => {
                format!("v1a,{}", BASE64_STANDARD.encode(pair.sign(&content.concat())))
            }
            Key::Shared(key, Scheme::Stripe) => format!("v1={}", hex(&mac(key, &content[2..]))),
            Key::Shared(key, Scheme::Github) => format!("sha256={}", hex(&mac(key, &[body]))),
            Key::Shared(key, Scheme::Shopify) => BASE64_STANDARD.encode(mac(key, &[body])),
            Key::Shared(key, _) => format!("v1,{}", BASE64_STANDARD.encode(mac(key, &content))),
        }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The header that signs a request, name and value; `None` for the scheme `none`. `secrets` are those in force, newest first.
///
/// # Errors
/// There is no secret, or one that the scheme cannot use.
pub fn header(
    scheme: Scheme,
    secrets: &[&Secret],
    id: &str,
    timestamp: i64,
    body: &[u8],
) -> Result<Option<(&'static str, String)>> {
    let name = match scheme {
        Scheme::Standard | Scheme::Ed25519 => "webhook-signature",
        Scheme::Github => "x-hub-signature-256",
        Scheme::Stripe => "stripe-signature",
        Scheme::Shopify => "x-shopify-hmac-sha256",
        Scheme::None => return Ok(None),
    };
    let keys = secrets.iter().map(|secret| SigningKey::parse(scheme, secret)).collect::<Result<Vec<_>>>()?;
    let mut signatures: Vec<String> = keys.iter().map(|key| key.sign(id, timestamp, body)).collect();
    if signatures.is_empty() {
        return Err(Error::new(Kind::WrongState, "endpoint has no signing secret"));
    }
    let value = match scheme {
        Scheme::Github | Scheme::Shopify => signatures.swap_remove(0),
        Scheme::Stripe => format!("t={timestamp},{}", signatures.join(",")),
        _ => signatures.join(" "),
    };
    Ok(Some((name, value)))
}

/// A new Ed25519 private key: `whsk_` and the base64 of the seed, which the caller draws from the operating system, and of
/// the public key.
///
/// # Errors
/// Never for a seed of this length.
pub fn generate_private(seed: [u8; SEED]) -> Result<Secret> {
    let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| malformed_private())?;
    let bytes = [&seed, pair.public_key().as_ref()].concat();
    Ok(Secret::new(format!("{PRIVATE_PREFIX}{}", BASE64_STANDARD.encode(bytes))))
}

/// The public key of an Ed25519 private key: `whpk_` and base64. `None` for any other secret.
pub fn public_key(secret: &Secret) -> Option<String> {
    let pair = key_pair(secret.reveal()).ok()?;
    Some(format!("{PUBLIC_PREFIX}{}", BASE64_STANDARD.encode(pair.public_key())))
}

fn decoded_key(text: &str) -> Result<Vec<u8>> {
    let malformed = || {
        Error::invalid("signing secret is not of the form whsec_ and base64")
            .hint("Leave the secret out to have one generated, or give whsec_ followed by the base64 of 24 to 64 bytes.")
    };
    let encoded = text.strip_prefix(PREFIX).ok_or_else(malformed)?;
    let key = BASE64_STANDARD.decode(encoded).map_err(|_| malformed())?;
    if !KEY_BYTES.contains(&key.len()) {
        return Err(malformed().detail(format!("The secret has {} bytes after decoding.", key.len())));
    }
    Ok(key)
}

fn malformed_private() -> Error {
    Error::invalid("signing secret is not of the form whsk_ and base64").hint(
        "Leave the secret out to have one generated, or give whsk_ followed by the base64 of an Ed25519 seed and its public key.",
    )
}

fn key_pair(text: &str) -> Result<Ed25519KeyPair> {
    let encoded = text.strip_prefix(PRIVATE_PREFIX).ok_or_else(malformed_private)?;
    let bytes = BASE64_STANDARD.decode(encoded).map_err(|_| malformed_private())?;
    let pair = match bytes.split_at_checked(SEED) {
        Some((seed, [])) => Ed25519KeyPair::from_seed_unchecked(seed),
        // A public key that is not the seed's own is refused.
        Some((seed, public)) => Ed25519KeyPair::from_seed_and_public_key(seed, public),
        None => return Err(malformed_private()),
    };
    pair.map_err(|_| malformed_private())
}

fn mac(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else {
        unreachable!("HMAC takes keys of any length");
    };
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    let mut digits = Vec::with_capacity(2 * bytes.len());
    crate::json::push_hex(&mut digits, bytes);
    digits.into_iter().map(char::from).collect()
}
