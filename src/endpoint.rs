//! An endpoint: where and how to send. The validated form that the engine and the HTTP threads work with.

use std::time::Duration;

use crate::event::{Event, Pattern};
use crate::retry::Schedule;
use crate::secret::Secret;

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

/// Signature scheme.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Standard Webhooks v1.
    Standard,
    /// No signature.
    None,
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
    /// The word of the parameter `ordering`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Key => "key",
            Self::Strict => "strict",
        }
    }
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
    /// Which events it gets.
    pub events: Vec<Pattern>,
    /// Names of what it gets expanded inside `data`, where an event has it.
    pub expands: Vec<String>,
    /// Additional headers, validated; values may be API keys.
    pub headers: Vec<(String, Secret)>,
    /// Basic authorization.
    pub basic_auth: Option<(String, Secret)>,
    /// Signature scheme.
    pub scheme: Scheme,
    /// Signing secrets that are in force, newest first. Every one of them signs.
    pub secrets: Vec<Secret>,
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
    /// Whether this event is for this endpoint.
    pub fn wants(&self, event: &Event) -> bool {
        match event.target {
            Some(target) => target == self.id,
            None => self.wants_type(&event.event_type) && !event.announces_disabling_of(self.id),
        }
    }

    /// Whether events of this type may be for this endpoint.
    pub fn wants_type(&self, event_type: &str) -> bool {
        self.events.iter().any(|pattern| pattern.matches(event_type))
    }
}
