//! An endpoint: where and how to send. The validated form that the engine and the HTTP threads work with.

use std::time::Duration;

use crate::event::{Event, PING, Pattern};
use crate::retry::Schedule;
use crate::secret::{Secret, SigningSecret};

/// HTTP method of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// POST, the default.
    Post,
    /// PUT.
    Put,
    /// PATCH.
    Patch,
    /// DELETE.
    Delete,
    /// GET, with the fields as query parameters.
    Get,
}

impl Method {
    /// The words of the parameter `method`.
    pub const WORDS: &[(&str, Self)] = &[
        ("POST", Self::Post),
        ("PUT", Self::Put),
        ("PATCH", Self::Patch),
        ("DELETE", Self::Delete),
        ("GET", Self::Get),
    ];
}

/// What a body says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Type, timestamp, data and all else that the event has.
    Standard,
    /// Type as one word, resource, number of this attempt, data as a JSON string.
    Postback,
    /// CloudEvents 1.0 in structured mode.
    CloudEvents,
    /// CloudEvents 1.0 in binary mode: attributes in headers, the row as body.
    CloudEventsBinary,
    /// The row alone.
    Row,
}

impl Format {
    /// The words of the parameter `format`.
    pub const WORDS: &[(&str, Self)] = &[
        ("standard", Self::Standard),
        ("postback", Self::Postback),
        ("cloudevents", Self::CloudEvents),
        ("cloudevents-binary", Self::CloudEventsBinary),
        ("row", Self::Row),
    ];

    /// The encoding of an endpoint that names none.
    pub fn default_encoding(self, method: Method) -> Encoding {
        if self == Self::Postback || method == Method::Get { Encoding::Form } else { Encoding::Json }
    }
}

/// How a body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// JSON.
    Json,
    /// `application/x-www-form-urlencoded`; also the query of a GET.
    Form,
    /// XML.
    Xml,
}

impl Encoding {
    /// The words of the parameter `encoding`.
    pub const WORDS: &[(&str, Self)] = &[("json", Self::Json), ("form", Self::Form), ("xml", Self::Xml)];
}

/// Signature scheme.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Standard Webhooks v1: HMAC-SHA256.
    Standard,
    /// Standard Webhooks v1a: Ed25519.
    Ed25519,
    /// `X-Hub-Signature-256`.
    Github,
    /// `Stripe-Signature`.
    Stripe,
    /// `X-Shopify-Hmac-Sha256`.
    Shopify,
    /// No signature.
    None,
}

impl Scheme {
    /// The words of the parameter `signature`.
    pub const WORDS: &[(&str, Self)] = &[
        ("standard", Self::Standard),
        ("ed25519", Self::Ed25519),
        ("github", Self::Github),
        ("stripe", Self::Stripe),
        ("shopify", Self::Shopify),
        ("none", Self::None),
    ];
}

/// The word of a value, out of its type's `WORDS`.
pub fn word<T: PartialEq>(words: &[(&'static str, T)], value: T) -> &'static str {
    words.iter().find(|(_, known)| *known == value).map_or("", |(word, _)| word)
}

/// Whether events are fed to the endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Fed.
    Active,
    /// `webhook_pause`: keeps everything for later.
    Paused,
    /// By 410 or `disable_after`: keeps everything, `webhook_resume` goes on.
    Disabled,
    /// `is_active => false`: not in effect; starts at the present when activated.
    Inactive,
}

/// In which order events may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ordering {
    /// As soon as possible.
    None,
    /// Events of one key one after the other: none is overtaken, or begun before the one before it has ended.
    Key,
    /// All events one after the other.
    Strict,
}

impl Ordering {
    /// All words of the parameter `ordering`.
    pub const WORDS: &[(&str, Self)] = &[("none", Self::None), ("key", Self::Key), ("strict", Self::Strict)];
}

/// Where and how to send. Cheap to share: the engine hands out `Arc<Endpoint>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// `webhook.endpoints.id`.
    pub id: i64,
    /// Unique name.
    pub name: String,
    /// Absolute URL, validated.
    pub url: url::Url,
    /// Method of the request.
    pub method: Method,
    /// What the body says.
    pub format: Format,
    /// How it is written.
    pub encoding: Encoding,
    /// Which events it gets.
    pub events: Vec<Pattern>,
    /// It has a scope or a filter, which the database evaluates: not every event of its `events` is for it.
    pub is_selective: bool,
    /// The object that a row must contain, as JSON text.
    pub scope: Option<String>,
    /// Names of what it gets expanded inside `data`, where an event has it.
    pub expands: Vec<String>,
    /// Additional headers, validated; values may be API keys.
    pub headers: Vec<(String, Secret)>,
    /// Basic authorization.
    pub basic_auth: Option<(String, Secret)>,
    /// Signature scheme.
    pub scheme: Scheme,
    /// Signing secrets, newest first. Every one that has not expired signs, where the scheme has room for it.
    pub secrets: Vec<SigningSecret>,
    /// Waits between attempts; `None` takes the setting `retry_schedule`.
    pub schedule: Option<Schedule>,
    /// Total time of one attempt; `None` takes the setting `request_timeout`.
    pub timeout: Option<Duration>,
    /// Requests in flight at most; `None` takes the setting `endpoint_max_in_flight`.
    pub max_in_flight: Option<usize>,
    /// Requests per second at most, retries included.
    pub rate_limit: Option<u32>,
    /// In which order events may be sent.
    pub ordering: Ordering,
    /// Whether events are fed to it.
    pub state: State,
}

impl Endpoint {
    /// Whether this event is for this endpoint. Who asks for a `webhook_test` gets it, whatever its scope.
    pub fn wants(&self, event: &Event) -> bool {
        // First what is cheap: of thousands with a scope hardly any is selected.
        let is_selected =
            !self.is_selective || event.selected_by.contains(&self.id) || event.event_type == PING;
        is_selected
            && match event.target {
                Some(target) => target == self.id,
                None => self.wants_type(&event.event_type) && !event.announces_disabling_of(self.id),
            }
    }

    /// Whether events of this type may be for this endpoint.
    pub fn wants_type(&self, event_type: &str) -> bool {
        self.events.iter().any(|pattern| pattern.matches(event_type))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selective_endpoint_wants_what_was_selected_for_it() {
        let endpoint = |is_selective| Endpoint {
            id: 7,
            name: String::new(),
            url: url::Url::parse("https://example.com/").unwrap(),
            method: Method::Post,
            format: Format::Standard,
            encoding: Encoding::Json,
            events: vec![Pattern::parse("contact.*").unwrap()],
            is_selective,
            scope: None,
            expands: vec![],
            headers: vec![],
            basic_auth: None,
            scheme: Scheme::None,
            secrets: vec![],
            schedule: None,
            timeout: None,
            max_in_flight: None,
            rate_limit: None,
            ordering: Ordering::None,
            state: State::Active,
        };
        let event = |event_type: &str, target, selected_by: &[i64]| Event {
            place: crate::event::Place { xid: 1, seq: 1 },
            id: uuid::Uuid::nil(),
            event_type: event_type.to_owned(),
            operation: None,
            key: None,
            occurred_at: 0,
            data: None,
            previous: None,
            expanded: None,
            truncated: false,
            context: None,
            traceparent: None,
            target,
            selected_by: selected_by.to_vec(),
            unreadable: None,
        };
        let (open, selective) = (endpoint(false), endpoint(true));
        assert!(open.wants(&event("contact.created", None, &[])));
        assert!(!selective.wants(&event("contact.created", None, &[8])));
        assert!(selective.wants(&event("contact.created", None, &[7])));
        assert!(!selective.wants(&event("list.created", None, &[7])));
        assert!(!selective.wants(&event("contact.snapshot", Some(7), &[])));
        assert!(selective.wants(&event("contact.snapshot", Some(7), &[7])));
        assert!(selective.wants(&event(PING, Some(7), &[])));
        assert!(!selective.wants(&event(PING, Some(8), &[7])));
    }
}
