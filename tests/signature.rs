//! Signatures, judged by the official Standard Webhooks library; tests/ecosystems/ asks the libraries of the others.

// clippy.toml opens these in test functions only, and helpers of tests are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use proptest::prelude::*;
use webhook_pg::endpoint::Scheme;
use webhook_pg::secret::{self, Secret};
use webhook_pg::signature::{SigningKey, generate_private, header, public_key};

const ID: &str = "0199d3f6-7a5e-7cc1-8000-0123456789ab";

fn key(secret: &Secret) -> SigningKey {
    SigningKey::parse(Scheme::Standard, secret).unwrap()
}

/// The header's value, by these secrets.
fn value(scheme: Scheme, secrets: &[&Secret], body: &[u8]) -> String {
    header(scheme, secrets, ID, 1_000_000, body).unwrap().unwrap().1
}

/// Asks the official library, at a clock that agrees with the timestamp.
fn verifies(secret: &Secret, signature: &str, timestamp: i64, body: &[u8]) -> bool {
    let mut headers = http_headers();
    headers.insert("webhook-timestamp", timestamp.to_string().parse().unwrap());
    headers.insert("webhook-signature", signature.parse().unwrap());
    let receiver = standardwebhooks::Webhook::new(secret.reveal()).unwrap();
    receiver.verify(body, &headers).is_ok()
}

fn http_headers() -> ureq::http::HeaderMap {
    let mut headers = ureq::http::HeaderMap::new();
    headers.insert("webhook-id", ID.parse().unwrap());
    headers
}

fn now() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64
}

proptest! {
    #[test]
    fn the_official_library_accepts_every_signature(
        random: [u8; 32],
        body in proptest::collection::vec(any::<u8>(), 0..2000),
    ) {
        let secret = secret::generate(random);
        let timestamp = now();
        let signature = key(&secret).sign(ID, timestamp, &body);
        // The library refuses bodies that are no UTF-8 before it looks at the signature.
        let text = String::from_utf8_lossy(&body).into_owned();
        let text_signature = key(&secret).sign(ID, timestamp, text.as_bytes());
        prop_assert!(verifies(&secret, &text_signature, timestamp, text.as_bytes()));
        prop_assert_eq!(signature == text_signature, body == text.as_bytes());
    }

    #[test]
    fn a_changed_bit_is_refused(random: [u8; 32], body in ".{1,300}", at: prop::sample::Index, bit in 0u8..7) {
        let secret = secret::generate(random);
        let timestamp = now();
        let signature = key(&secret).sign(ID, timestamp, body.as_bytes());
        let mut changed = body.clone().into_bytes();
        let at = at.index(changed.len());
        changed[at] ^= 1 << bit;
        prop_assert!(!verifies(&secret, &signature, timestamp, &changed));
        prop_assert!(!verifies(&secret, &signature, timestamp + 1, body.as_bytes()));
    }
}

#[test]
fn during_a_rotation_both_secrets_verify_and_the_newest_comes_first() {
    let (old, new) = (secret::generate([1; 32]), secret::generate([2; 32]));
    let timestamp = now();
    let (_, both) = header(Scheme::Standard, &[&new, &old], ID, timestamp, b"{}").unwrap().unwrap();
    assert!(verifies(&old, &both, timestamp, b"{}"));
    assert!(verifies(&new, &both, timestamp, b"{}"));
    assert!(!verifies(&secret::generate([3; 32]), &both, timestamp, b"{}"));
    assert_eq!(both.split(' ').next().unwrap(), key(&new).sign(ID, timestamp, b"{}"));
}

#[test]
fn each_scheme_rotates_as_far_as_its_header_has_room() {
    let (old, new) = (secret::generate([1; 32]), secret::generate([2; 32]));
    let alone = |scheme, secret: &Secret| value(scheme, &[secret], b"{}");
    for scheme in [Scheme::Github, Scheme::Shopify] {
        assert_eq!(value(scheme, &[&new, &old], b"{}"), alone(scheme, &new));
    }
    let old_part = alone(Scheme::Stripe, &old).replace("t=1000000", "");
    assert_eq!(value(Scheme::Stripe, &[&new, &old], b"{}"), alone(Scheme::Stripe, &new) + &old_part);
    let (old, new) = (generate_private([1; 32]).unwrap(), generate_private([2; 32]).unwrap());
    let both = format!("{} {}", alone(Scheme::Ed25519, &new), alone(Scheme::Ed25519, &old));
    assert_eq!(value(Scheme::Ed25519, &[&new, &old], b"{}"), both);
}

#[test]
fn the_published_vector_of_the_specification_is_met() {
    let key = key(&Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"));
    let signature = key.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
    assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
}

#[test]
fn a_private_key_shows_its_public_key_with_or_without_carrying_it() {
    // RFC 8032, section 7.1, test 1.
    let seed = "whsk_nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=";
    let both =
        "whsk_nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2DXWpgBgrEKt9VL/tPJZAc6DuFy89qmIyWvAhpo9wdRGg==";
    for secret in [seed, both] {
        let public = public_key(&Secret::new(secret)).unwrap();
        assert_eq!(public, "whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=");
    }
    assert_eq!(public_key(&secret::generate([1; 32])), None);
    assert!(public_key(&generate_private([7; 32]).unwrap()).is_some());
}

#[test]
fn a_malformed_secret_is_refused_and_never_repeated() {
    let short = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2La";
    let long = format!("whsec_{}", "QUJD".repeat(22));
    // The seed of one key with the public key of another.
    let mixed = {
        let [one, other] = [[1; 32], [2; 32]].map(|seed| generate_private(seed).unwrap().reveal().to_owned());
        format!("{}{}", &one[..48], &other[48..])
    };
    for (scheme, bad) in [
        (Scheme::Standard, ""),
        (Scheme::Standard, "whsec_"),
        (Scheme::Standard, "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
        (Scheme::Standard, "whsec_no base64!"),
        (Scheme::Standard, "whsk_QUJD"),
        (Scheme::Standard, short),
        (Scheme::Standard, &long),
        (Scheme::Ed25519, "whsk_QUJD"),
        (Scheme::Ed25519, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
        (Scheme::Ed25519, &mixed),
        (Scheme::Github, "short"),
        (Scheme::Stripe, "line\nbreak"),
        (Scheme::Shopify, "schlüssel"),
    ] {
        let error = SigningKey::parse(scheme, &Secret::new(bad)).unwrap_err();
        let text = format!("{error:?}");
        assert!(bad.len() < 7 || !text.contains(&bad[6..]), "{text} repeats the secret");
    }
}

#[test]
fn a_signing_key_cannot_be_printed() {
    assert_eq!(format!("{:?}", key(&secret::generate([7; 32]))), "***");
}
