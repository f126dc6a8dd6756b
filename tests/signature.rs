//! Signatures, judged by the official Standard Webhooks library.

// clippy.toml opens these in test functions only, and helpers of tests are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use proptest::prelude::*;
use webhook_pg::secret::{self, Secret};
use webhook_pg::signature::{SigningKey, header};

const ID: &str = "0199d3f6-7a5e-7cc1-8000-0123456789ab";

fn key(secret: &Secret) -> SigningKey {
    SigningKey::parse(secret).unwrap()
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
    let both = header(&[key(&new), key(&old)], ID, timestamp, b"{}");
    assert!(verifies(&old, &both, timestamp, b"{}"));
    assert!(verifies(&new, &both, timestamp, b"{}"));
    assert!(!verifies(&secret::generate([3; 32]), &both, timestamp, b"{}"));
    assert_eq!(both.split(' ').next().unwrap(), key(&new).sign(ID, timestamp, b"{}"));
}

#[test]
fn the_published_vector_of_the_specification_is_met() {
    let key = key(&Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"));
    let signature = key.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
    assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
}

#[test]
fn a_malformed_secret_is_refused_and_never_repeated() {
    let short = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2La";
    let long = format!("whsec_{}", "QUJD".repeat(22));
    for bad in
        ["", "whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_no base64!", "whsk_QUJD", short, &long]
    {
        let error = SigningKey::parse(&Secret::new(bad)).unwrap_err();
        let text = format!("{error:?}");
        assert!(bad.len() < 7 || !text.contains(&bad[6..]), "{text} repeats the secret");
    }
}

#[test]
fn a_signing_key_cannot_be_printed() {
    assert_eq!(format!("{:?}", key(&secret::generate([7; 32]))), "***");
}
