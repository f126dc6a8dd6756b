//! Prints random requests, one JSON object a line, for the verifying libraries that `scripts/ecosystems` asks: the signed body,
//! the same with one changed bit, the headers, and secrets of which any must do.

// This is a test, though cargo takes it for an example.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::io::Write;
use std::time::SystemTime;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value, json};
use uuid::Uuid;
use webhook_pg::endpoint::{Encoding, Endpoint, Format, Method, Ordering, Scheme, State};
use webhook_pg::event::{Event, Pattern, Place};
use webhook_pg::secret::{self, Secret};
use webhook_pg::{request, signature};

/// Requests of each scheme.
const COUNT: usize = 10_000;

fn main() {
    let mut chance = Chance::new();
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for (name, scheme) in Scheme::WORDS.iter().filter(|(_, scheme)| *scheme != Scheme::None) {
        for _ in 0..COUNT {
            let line = line(name, *scheme, &mut chance).to_string();
            writeln!(out, "{line}").expect("write to the pipe");
        }
    }
}

fn line(name: &str, scheme: Scheme, chance: &mut Chance) -> Value {
    let secrets: Vec<Secret> = (0..2).map(|_| new_secret(scheme, chance)).collect();
    let endpoint = endpoint(scheme, &secrets);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock after 1970");
    let now = i64::try_from(now.as_micros()).expect("a clock before the year 294247");
    let request = request::build(&endpoint, &event(chance), 1, now).expect("a request");
    let body = request.body.expect("a body");
    let mut changed = body.clone();
    // Within ASCII, so that it stays a text: libraries must refuse the signature, not the encoding.
    let at = (0..).map(|_| chance.below(body.len())).find(|at| body[*at].is_ascii()).expect("an ASCII byte");
    changed[at] ^= 1 << chance.below(7);
    // Whose headers have room for one signature are signed with the newest secret.
    let in_force = if matches!(scheme, Scheme::Github | Scheme::Shopify) { 1 } else { 2 };
    let usable =
        |secret: &Secret| signature::public_key(secret).unwrap_or_else(|| secret.reveal().to_owned());
    json!({
        "scheme": name,
        "secrets": secrets[..in_force].iter().map(usable).collect::<Vec<_>>(),
        "headers": request.headers.into_iter().map(|(k, v)| (k, v.into())).collect::<Map<String, Value>>(),
        "body": BASE64_STANDARD.encode(body),
        "changed": BASE64_STANDARD.encode(changed),
    })
}

fn new_secret(scheme: Scheme, chance: &mut Chance) -> Secret {
    let random = std::array::from_fn(|_| u8::try_from(chance.below(256)).unwrap_or(0));
    match scheme {
        Scheme::Ed25519 => signature::generate_private(random).expect("a key"),
        _ => secret::generate(random),
    }
}

fn endpoint(scheme: Scheme, secrets: &[Secret]) -> Endpoint {
    Endpoint {
        id: 1,
        name: "ecosystem".to_owned(),
        url: url::Url::parse("https://example.com/hooks").expect("a URL"),
        method: Method::Post,
        format: Format::Standard,
        encoding: Encoding::Json,
        events: vec![Pattern::parse("*").expect("a pattern")],
        is_selective: false,
        scope: None,
        expands: vec![],
        headers: vec![],
        basic_auth: None,
        scheme,
        secrets: secrets.iter().cloned().map(Into::into).collect(),
        schedule: None,
        timeout: None,
        max_in_flight: None,
        rate_limit: None,
        ordering: Ordering::None,
        state: State::Active,
    }
}

/// An event with a random text in its row.
fn event(chance: &mut Chance) -> Event {
    let text: String = (0..chance.below(200)).map(|_| chance.character()).collect();
    Event {
        place: Place { xid: 7, seq: 1 },
        id: Uuid::from_u64_pair(chance.next(), chance.next()),
        event_type: "contact.updated".to_owned(),
        operation: None,
        key: None,
        occurred_at: 1_795_255_200_123_456,
        data: Some(json!({ "id": chance.below(1_000_000), "text": text }).to_string()),
        previous: None,
        expanded: None,
        truncated: false,
        context: None,
        traceparent: None,
        target: None,
        selected_by: Vec::new(),
        unreadable: None,
    }
}

/// xorshift64*, begun by the operating system.
struct Chance(u64);

impl Chance {
    fn new() -> Self {
        Self(getrandom::u64().expect("randomness") | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap_or(0) % end
    }

    /// Half of them ASCII.
    fn character(&mut self) -> char {
        let end = if self.below(2) == 0 { 0x80 } else { 0x11_0000 };
        u32::try_from(self.below(end)).ok().and_then(char::from_u32).unwrap_or('\u{fffd}')
    }
}
