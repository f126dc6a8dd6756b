//! An event: one captured change, a row of the outbox; and the patterns by which an endpoint chooses events.

use uuid::Uuid;

/// Microseconds since 1970-01-01 00:00 UTC, on the wall clock.
pub type Timestamp = i64;

/// Where an event stands in the outbox: its transaction and its sequence number, the outbox's primary key.
///
/// Sequence order is causal per row (a writer takes its number after its row lock) but not commit order;
/// [`crate::position`] deals with that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// 64-bit id of the top-level transaction that wrote the event.
    pub xid: u64,
    /// Number from the outbox's sequence.
    pub seq: i64,
}

/// What happened to the row, when a table's change raised the event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// INSERT.
    Created,
    /// UPDATE.
    Updated,
    /// DELETE.
    Deleted,
    /// TRUNCATE.
    Truncated,
}

impl Operation {
    /// The word used in event types and bodies.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Updated => "updated",
            Self::Deleted => "deleted",
            Self::Truncated => "truncated",
        }
    }

    /// Reads the word back.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Created, Self::Updated, Self::Deleted, Self::Truncated]
            .into_iter()
            .find(|o| o.as_str() == word)
    }
}

/// One captured change. Texts are exact: `data` is the JSON text of the row at the time of the event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its place in the outbox.
    pub place: Place,
    /// UUID version 7; the `webhook-id` of every attempt.
    pub id: Uuid,
    /// `resource.action`.
    pub event_type: String,
    /// Set when a table's change raised the event.
    pub operation: Option<Operation>,
    /// JSON text: the object of the key columns, or a string given to `webhook_send`.
    pub key: Option<String>,
    /// When the change happened.
    pub occurred_at: Timestamp,
    /// JSON text of the row; absent in a thin event.
    pub data: Option<String>,
    /// JSON text of the old values of changed columns; only for updates.
    pub previous: Option<String>,
    /// JSON text: the object of what the attachment expands, by name. An endpoint chooses from it.
    pub expanded: Option<String>,
    /// The row was over `max_payload_bytes`, so only the key travels.
    pub truncated: bool,
    /// JSON text a session attached by `webhook_pg.context`.
    pub context: Option<String>,
    /// W3C traceparent, forwarded as a header.
    pub traceparent: Option<String>,
    /// Set when the event is for this endpoint alone (`webhook_test`).
    pub target: Option<i64>,
    /// Endpoints with a scope or a filter that it passes.
    pub selected_by: Vec<i64>,
    /// Why its texts could not be read from the outbox. Such an event is never sent; its deliveries end dead.
    pub unreadable: Option<String>,
}

impl Event {
    /// The part of the type before its last dot; an action never has a dot.
    pub fn resource(&self) -> &str {
        self.event_type.rsplit_once('.').map_or(self.event_type.as_str(), |(resource, _)| resource)
    }

    /// The part of the type after its last dot.
    pub fn action(&self) -> &str {
        self.event_type.rsplit_once('.').map_or("", |(_, action)| action)
    }

    /// What events have in common that an endpoint with `ordering => 'key'` gets one after the other.
    pub fn order_key(&self) -> &str {
        order_key(self.key.as_deref(), &self.event_type)
    }

    /// Whether it says that this endpoint was disabled: news for all others.
    pub fn announces_disabling_of(&self, endpoint: i64) -> bool {
        self.event_type == ENDPOINT_DISABLED
            && self.key.as_deref().is_some_and(|key| key == endpoint_key(endpoint))
    }

    /// Bytes of text it holds: what the engine counts against its memory limits.
    pub fn bytes(&self) -> usize {
        let len = |t: &Option<String>| t.as_ref().map_or(0, String::len);
        let texts = [&self.key, &self.data, &self.previous, &self.expanded, &self.context];
        self.event_type.len() + texts.into_iter().map(len).sum::<usize>()
    }
}

/// The text of the key, or the resource of an event without one.
pub fn order_key<'a>(key: Option<&'a str>, event_type: &'a str) -> &'a str {
    key.unwrap_or_else(|| event_type.rsplit_once('.').map_or(event_type, |(resource, _)| resource))
}

/// Raised when the worker disables an endpoint.
pub const ENDPOINT_DISABLED: &str = "webhook.endpoint_disabled";

/// The key of an [`ENDPOINT_DISABLED`] event, as `sql/statements/disable.sql` writes it.
pub fn endpoint_key(endpoint: i64) -> String {
    format!("{{\"id\":{endpoint}}}")
}

/// Whether a text is a W3C Trace Context `traceparent` of version 00 with non-zero ids.
pub fn is_traceparent(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let hex = |part: &str, len: usize| {
        part.len() == len && part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let set = |part: &str| part.bytes().any(|b| b != b'0');
    matches!(parts[..], ["00", trace, span, flags]
        if hex(trace, 32) && set(trace) && hex(span, 16) && set(span) && hex(flags, 2))
}

/// `webhook.ping`, what `webhook_test` sends.
pub const PING: &str = "webhook.ping";

/// One pattern of an endpoint's `events`: `contact.created`, `contact.*`, `*.deleted` or `*`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pattern(String);

impl Pattern {
    /// Reads a pattern: `*`, or a resource and an action joined by the last dot, either of which may be `*`.
    /// Control characters, white space and a `*` inside a word are refused, as are words over 200 bytes.
    pub fn parse(text: &str) -> crate::error::Result<Self> {
        let word_ok = |w: &str| {
            !w.is_empty() && (w == "*" || !w.chars().any(|c| c == '*' || c.is_control() || c.is_whitespace()))
        };
        let ok = text.len() <= 200
            && (text == "*"
                || text
                    .rsplit_once('.')
                    .is_some_and(|(resource, action)| word_ok(resource) && word_ok(action)));
        if !ok {
            return Err(crate::error::Error::invalid("event pattern is not of the form resource.action")
                .detail(format!("The pattern is {text:?}."))
                .hint("Write for example contact.created, contact.*, *.deleted or *."));
        }
        Ok(Self(text.to_owned()))
    }

    /// Whether an event of this type is wanted.
    pub fn matches(&self, event_type: &str) -> bool {
        if self.0 == "*" || self.0 == event_type {
            return true;
        }
        let (Some((resource, action)), Some((r, a))) = (self.0.rsplit_once('.'), event_type.rsplit_once('.'))
        else {
            return false;
        };
        (resource == "*" || resource == r) && (action == "*" || action == a)
    }

    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_by_resource_and_action() {
        let wants = |p: &str, t: &str| Pattern::parse(p).unwrap().matches(t);
        assert!(wants("*", "contact.created"));
        assert!(wants("contact.*", "contact.created"));
        assert!(wants("*.deleted", "list.deleted"));
        assert!(wants("crm.contact.*", "crm.contact.created"));
        assert!(!wants("contact.*", "contact_metadata.created"));
        assert!(!wants("*.deleted", "list.created"));
        assert!(!wants("contact.*", "crm.contact.created"));
    }

    #[test]
    fn a_malformed_pattern_is_refused() {
        for bad in ["", "contact", ".created", "contact.", "con*.created", "contact. created", "a\n.b", "**"]
        {
            assert!(Pattern::parse(bad).is_err(), "{bad:?} was accepted");
        }
    }
}
