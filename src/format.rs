//! What a request says about an event, before it is written as JSON, form or XML ([`crate::encoding`]).
//!
//! A format picks parts of the event and names them; `docs/formats.md` shows each. The event's JSON texts pass through
//! as they are.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::value::RawValue;

use crate::endpoint::Format;
use crate::event::{Event, Timestamp};
use crate::json;

/// A value of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value<'a> {
    /// A text, to be escaped as the encoding wants it.
    Text(Cow<'a, str>),
    /// JSON text.
    Json(Cow<'a, str>),
}

/// What is written into the body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content<'a> {
    /// Named values, in this order.
    Members(Vec<(&'static str, Value<'a>)>),
    /// One JSON text, nothing around it.
    Whole(Cow<'a, str>),
}

/// What a request says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message<'a> {
    /// Name of the XML root.
    pub root: &'a str,
    /// Content type when it is written as JSON.
    pub json_type: &'static str,
    /// What the format says in headers: names in lower case, values of visible ASCII characters.
    pub headers: Vec<(&'static str, String)>,
    /// The rest.
    pub content: Content<'a>,
}

/// The message of one attempt, counted from 1, to an endpoint that expands these names.
pub fn message<'a>(format: Format, event: &'a Event, expands: &[String], attempt: u32) -> Message<'a> {
    let members = |members| Message {
        root: "event",
        json_type: "application/json",
        headers: Vec::new(),
        content: Content::Members(members),
    };
    match format {
        Format::Standard => members(standard(event, expands)),
        Format::Postback => members(postback(event, expands, attempt)),
        Format::CloudEvents => {
            let mut all = attributes(event);
            all.push(("datacontenttype", text("application/json")));
            all.push(("data", json(data_with(event, expands))));
            Message { json_type: "application/cloudevents+json", ..members(all) }
        }
        Format::CloudEventsBinary => {
            let header = |(name, value): (&str, Value<'_>)| {
                let (Value::Text(value) | Value::Json(value)) = value;
                (binary_header(name), visible(&value))
            };
            Message {
                headers: attributes(event).into_iter().map(header).collect(),
                content: Content::Whole(data_with(event, expands)),
                ..members(Vec::new())
            }
        }
        Format::Row => Message {
            root: event.resource(),
            // The row does not say what happened to it.
            headers: vec![("webhook-event", visible(&event.event_type))],
            content: if event.truncated {
                let mut thin = vec![("truncated", json("true")), ("data", json("null"))];
                thin.extend(event.key.as_deref().map(|key| ("key", json(key))));
                Content::Members(thin)
            } else {
                Content::Whole(data_with(event, expands))
            },
            ..members(Vec::new())
        },
    }
}

type Members<'a> = Vec<(&'static str, Value<'a>)>;

fn text<'a>(value: impl Into<Cow<'a, str>>) -> Value<'a> {
    Value::Text(value.into())
}

fn json<'a>(value: impl Into<Cow<'a, str>>) -> Value<'a> {
    Value::Json(value.into())
}

/// `type`, `timestamp`, then what the event has of `operation`, `truncated`, `data`, `previous`, `key` and `context`.
/// `data` is always there, `null` in a thin event.
fn standard<'a>(event: &'a Event, expands: &[String]) -> Members<'a> {
    let mut members =
        vec![("type", text(event.event_type.as_str())), ("timestamp", text(rfc3339(event.occurred_at)))];
    members.extend(operation(event));
    members.extend(truncated(event));
    members.push(("data", json(data_with(event, expands))));
    let optional = [("previous", &event.previous), ("key", &event.key), ("context", &event.context)];
    members.extend(optional.into_iter().filter_map(|(name, value)| Some((name, json(value.as_deref()?)))));
    members
}

/// The fields of a postback: `data` is a text that holds JSON. A thin event brings its key instead.
fn postback<'a>(event: &'a Event, expands: &[String], attempt: u32) -> Members<'a> {
    let word = match event.action() {
        // A row that was there before is new to the receiver.
        "created" | "snapshot" => "CREATE".to_owned(),
        "updated" => "UPDATE".to_owned(),
        "deleted" => "DELETE".to_owned(),
        "truncated" => "TRUNCATE".to_owned(),
        other => other.to_uppercase(),
    };
    let data = if event.truncated { json("null") } else { text(data_with(event, expands)) };
    let mut members = vec![
        ("type", text(word)),
        ("resource", text(event.resource())),
        ("number_of_attempts", json(attempt.to_string())),
        ("data", data),
    ];
    members.extend(operation(event));
    members.extend(truncated(event));
    members.extend(event.key.as_deref().filter(|_| event.truncated).map(|key| ("key", text(key))));
    members
}

/// The context attributes of CloudEvents 1.0 (<https://cloudevents.io>), all but `datacontenttype`, and as extensions what else is
/// a single word.
fn attributes(event: &Event) -> Members<'_> {
    let source = format!("urn:webhook-pg:{}", percent_encoded(event.resource(), is_unreserved));
    let mut members = vec![
        ("specversion", text("1.0")),
        ("id", text(event.id.to_string())),
        ("source", text(source)),
        ("type", text(event.event_type.as_str())),
        ("time", text(rfc3339(event.occurred_at))),
    ];
    members.extend(event.key.as_deref().map(subject).filter(|s| !s.is_empty()).map(|s| ("subject", text(s))));
    members.extend(operation(event));
    members.extend(truncated(event));
    members
}

fn binary_header(attribute: &str) -> &'static str {
    match attribute {
        "specversion" => "ce-specversion",
        "id" => "ce-id",
        "source" => "ce-source",
        "type" => "ce-type",
        "time" => "ce-time",
        "subject" => "ce-subject",
        "operation" => "ce-operation",
        _ => "ce-truncated",
    }
}

/// The type of a link table's event names the parent's action, so the body says what happened to the link row.
fn operation(event: &Event) -> Option<(&'static str, Value<'static>)> {
    let operation = event.operation.filter(|operation| operation.as_str() != event.action())?;
    Some(("operation", text(operation.as_str())))
}

fn truncated(event: &Event) -> Option<(&'static str, Value<'static>)> {
    event.truncated.then(|| ("truncated", json("true")))
}

/// A key as one text: that of its only column, else the whole of it.
fn subject(key: &str) -> Cow<'_, str> {
    match json::members(key).as_deref() {
        Some([(_, only)]) => json::plain(only),
        _ => json::plain(key),
    }
}

/// The event's `data`, and inside it what `expands` names and the event has. `null` in a thin event.
pub fn data_with<'a>(event: &'a Event, expands: &[String]) -> Cow<'a, str> {
    let data = event.data.as_deref().filter(|_| !event.truncated).unwrap_or("null");
    let (Some(expanded), Some(open)) = (event.expanded.as_deref(), data.strip_suffix('}')) else {
        return Cow::Borrowed(data);
    };
    if expands.is_empty() {
        return Cow::Borrowed(data);
    }
    // Capture wrote the object; should somebody else have, the row itself still travels.
    let known: BTreeMap<String, &RawValue> = serde_json::from_str(expanded).unwrap_or_default();
    let mut text = open.to_owned();
    for (name, value) in expands.iter().filter_map(|name| known.get_key_value(name)) {
        if !text.ends_with('{') {
            text.push(',');
        }
        text.push_str(&serde_json::Value::from(name.as_str()).to_string());
        text.push(':');
        text.push_str(value.get());
    }
    text.push('}');
    Cow::Owned(text)
}

/// Six decimals and `Z`, always: receivers may compare the texts.
fn rfc3339(timestamp: Timestamp) -> String {
    const PRINTER: jiff::fmt::temporal::DateTimePrinter =
        jiff::fmt::temporal::DateTimePrinter::new().precision(Some(6));
    // A clock beyond the year 9999 is nothing that a delivery may fail for.
    let timestamp = jiff::Timestamp::from_microsecond(timestamp).unwrap_or(jiff::Timestamp::MAX);
    PRINTER.timestamp_to_string(&timestamp)
}

/// A text as a header value, as the HTTP binding of CloudEvents 1.0 writes them (section 3.1.3.2): what is not a visible ASCII
/// character, quotes and percent signs are percent-encoded.
fn visible(text: &str) -> String {
    percent_encoded(text, |byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'%')
}

/// RFC 3986, section 2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

fn percent_encoded(text: &str, stays: impl Fn(u8) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if stays(byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
