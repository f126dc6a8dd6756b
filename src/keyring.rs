//! The keys of `webhook_pg.key_file`, and secrets sealed with them: `v1.<key id>.<base64>`.
//!
//! The base64 holds a nonce of 12 bytes, the ciphertext and a tag of 16 bytes: ChaCha20-Poly1305 (RFC 8439). Sealed along with a
//! secret is where it stands ([`Place`]), so that one cannot be put in place of another. The first key of the file seals, all of
//! them open, and the id says which one did: so keys can be changed without a moment in which a secret cannot be read.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::secret::Secret;

/// What a sealed secret begins with.
const VERSION: &str = "v1";
/// Bytes of a key.
const KEY_BYTES: usize = 32;
/// Keys in a file at most.
const MAX_KEYS: usize = 100;

/// Where a secret stands: it opens nowhere else.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The endpoint's id.
    pub endpoint: i64,
    /// `signing`, `password` or `header`.
    pub kind: &'a str,
    /// The header's name, else empty.
    pub name: &'a str,
}

impl Place<'_> {
    /// Unambiguous: neither a kind nor the name of a header contains a line feed.
    fn bound(&self) -> Aad<Vec<u8>> {
        Aad::from(
            format!("webhook_pg {VERSION}\n{}\n{}\n{}", self.endpoint, self.kind, self.name).into_bytes(),
        )
    }
}

/// The keys in force. `Debug` prints `***`.
pub struct Keyring(Vec<Key>);

struct Key {
    id: String,
    key: LessSafeKey,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Keyring {
    /// Reads the text of a key file: on each line the base64 of 32 bytes, the newest key first. Empty lines and lines that begin
    /// with `#` mean nothing.
    ///
    /// # Errors
    /// A line is something else, or there is no key. The text is never repeated.
    pub fn parse(text: &str) -> Result<Self> {
        let mut keys = Vec::new();
        for (n, line) in text.lines().map(str::trim).enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let key = Key::parse(line).ok_or_else(|| {
                Error::invalid("key file is malformed")
                    .detail(format!("Line {} is not the base64 of {KEY_BYTES} bytes.", n + 1))
                    .hint("Make a key with: openssl rand -base64 32")
            })?;
            keys.push(key);
        }
        if keys.is_empty() || keys.len() > MAX_KEYS {
            return Err(Error::invalid(format!("key file must have 1 to {MAX_KEYS} keys"))
                .detail(format!("It has {}.", keys.len()))
                .hint("Make a key with: openssl rand -base64 32"));
        }
        Ok(Self(keys))
    }

    /// The ids of the keys, the one that seals first. They tell nothing of the keys.
    pub fn ids(&self) -> Vec<String> {
        self.0.iter().map(|key| key.id.clone()).collect()
    }

    /// Seals a secret for its place. The nonce is drawn from the operating system, anew for each call.
    pub fn seal(&self, nonce: [u8; NONCE_LEN], place: Place<'_>, secret: &Secret) -> Option<String> {
        let key = self.0.first()?;
        let mut sealed = secret.reveal().as_bytes().to_vec();
        key.key
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), place.bound(), &mut sealed)
            .ok()?;
        let whole = [nonce.as_slice(), &sealed].concat();
        Some(format!("{VERSION}.{}.{}", key.id, BASE64_STANDARD.encode(whole)))
    }

    /// The secret; `None` where it was sealed with a key that is not here, or for another place, or was changed since.
    pub fn open(&self, place: Place<'_>, sealed: &str) -> Option<Secret> {
        let (id, text) = sealed.strip_prefix(VERSION)?.strip_prefix('.')?.split_once('.')?;
        let whole = BASE64_STANDARD.decode(text).ok()?;
        let (nonce, sealed) = whole.split_at_checked(NONCE_LEN)?;
        self.0.iter().filter(|key| key.id == id).find_map(|key| {
            let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
            let mut opened = sealed.to_vec();
            let plain = key.key.open_in_place(nonce, place.bound(), &mut opened).ok()?;
            Some(Secret::new(std::str::from_utf8(plain).ok()?))
        })
    }
}

impl Key {
    fn parse(line: &str) -> Option<Self> {
        let bytes = BASE64_STANDARD.decode(line).ok().filter(|bytes| bytes.len() == KEY_BYTES)?;
        let digest = Sha256::new().chain_update(b"webhook_pg key id").chain_update(&bytes).finalize();
        let id = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        Some(Self { id, key: LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &bytes).ok()?) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place<'static> = Place { endpoint: 7, kind: "signing", name: "" };

    fn key(byte: u8) -> String {
        BASE64_STANDARD.encode([byte; KEY_BYTES])
    }

    fn ring(keys: &[u8]) -> Keyring {
        Keyring::parse(&keys.iter().map(|byte| key(*byte) + "\n").collect::<String>()).unwrap()
    }

    fn sealed(ring: &Keyring) -> String {
        ring.seal([9; NONCE_LEN], PLACE, &Secret::new("whsec_hush")).unwrap()
    }

    #[test]
    fn a_sealed_secret_opens_and_does_not_show() {
        let ring = ring(&[1]);
        let text = sealed(&ring);
        assert!(!text.contains("hush") && text.starts_with(&format!("v1.{}.", ring.ids()[0])), "{text}");
        assert_eq!(ring.open(PLACE, &text).unwrap().reveal(), "whsec_hush");
        assert_ne!(text, ring.seal([8; NONCE_LEN], PLACE, &Secret::new("whsec_hush")).unwrap());
    }

    #[test]
    fn it_opens_nowhere_else() {
        let ring = ring(&[1]);
        let text = sealed(&ring);
        for other in [
            Place { endpoint: 8, ..PLACE },
            Place { kind: "password", ..PLACE },
            Place { name: "x-key", ..PLACE },
        ] {
            assert!(ring.open(other, &text).is_none(), "{other:?}");
        }
    }

    #[test]
    fn the_first_key_seals_and_every_key_opens() {
        let text = sealed(&ring(&[1]));
        let both = ring(&[2, 1]);
        assert_eq!(both.open(PLACE, &text).unwrap().reveal(), "whsec_hush");
        let anew = sealed(&both);
        assert!(ring(&[2]).open(PLACE, &anew).is_some());
        assert!(ring(&[1]).open(PLACE, &anew).is_none());
    }

    #[test]
    fn what_was_changed_or_cut_does_not_open() {
        let ring = ring(&[1]);
        let text = sealed(&ring);
        for at in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert!(ring.open(PLACE, &changed).is_none(), "{changed}");
            assert!(ring.open(PLACE, &text[..at]).is_none(), "{at}");
        }
    }

    #[test]
    fn a_key_file_has_comments_and_keys_and_is_never_repeated() {
        assert_eq!(
            Keyring::parse(&format!("# keys\n\n  {}  \r\n{}", key(1), key(2))).unwrap().ids().len(),
            2
        );
        let error = Keyring::parse(&format!("{}\nhunter2", key(1))).unwrap_err();
        assert_eq!(error.detail.as_deref(), Some("Line 2 is not the base64 of 32 bytes."));
        for bad in ["", "# none", &BASE64_STANDARD.encode([1; 31]), &format!("{}!", key(1))] {
            assert!(Keyring::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(format!("{:?}", ring(&[1])), "***");
    }
}
