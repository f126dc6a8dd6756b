//! What `webhook_preview` shows: the request that would be sent now, without what must not be shown.

use std::time::{SystemTime, UNIX_EPOCH};

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::encoding::Text;
use crate::config::Config;
use crate::error::{Error, Kind};
use crate::event::{Event, Operation, Place, Timestamp};
use crate::request;
use crate::retry::Schedule;

const MASK: &str = "***";

#[pg_extern(sql = false)]
fn preview(endpoint: i64, config: Text, event: Text, attempt: i32) -> Result<Text, ErrorReport> {
    let endpoint = Config::endpoint(endpoint, "active", &config.json(), &Schedule::new(Vec::new()))?;
    let event = read(&event.json()).ok_or_else(|| Error::new(Kind::WrongState, "event cannot be read"))?;
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = Timestamp::try_from(since_1970.as_micros()).unwrap_or(Timestamp::MAX);
    let request = request::build(&endpoint, &event, u32::try_from(attempt).unwrap_or(1), now)?;
    let own = |name: &str| endpoint.headers.iter().any(|(own, _)| own.eq_ignore_ascii_case(name));
    let headers: Map<String, Value> = request
        .headers
        .into_iter()
        .map(|(name, value)| {
            let value = if name == "authorization" || own(&name) { MASK.to_owned() } else { value };
            (name, value.into())
        })
        .collect();
    let shown = json!({
        "method": request.method,
        "url": request.url.as_str(),
        "headers": headers,
        "body": request.body.map(|body| String::from_utf8_lossy(&body).into_owned()),
    });
    Ok(Text::of(&shown.to_string()))
}

/// The event out of the JSON that `webhook_preview` makes of a row.
fn read(text: &str) -> Option<Event> {
    let row: Value = serde_json::from_str(text).ok()?;
    let text = |name: &str| row[name].as_str().map(str::to_owned);
    Some(Event {
        place: Place { xid: 0, seq: 0 },
        id: Uuid::parse_str(row["id"].as_str()?).ok()?,
        event_type: text("type")?,
        operation: row["operation"].as_str().and_then(Operation::parse),
        key: text("key"),
        occurred_at: row["occurred_at"].as_i64()?,
        data: text("data"),
        previous: text("previous"),
        expanded: text("expanded"),
        truncated: row["truncated"].as_bool()?,
        context: text("context"),
        traceparent: text("traceparent"),
        target: None,
        selected_by: Vec::new(),
        unreadable: None,
    })
}
