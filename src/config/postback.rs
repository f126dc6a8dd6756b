//! Postback configurations as payment systems keep them, `{"postbackconfig": {…}}`, and the way from and to the parameters of an
//! endpoint.
//!
//! | there | here |
//! |---|---|
//! | `resource`, `on_create`, `on_update`, `on_delete` | `events` |
//! | `number_of_attempts`, `attempt_interval` in seconds | `max_attempts`, `attempt_interval` |
//! | `location_id`, `product_transaction_id` | `scope` |
//! | `expands`, a list with commas | `expands` |
//! | `format` `api-default` | `format` `postback` |
//! | `url`, `is_active`, `basic_auth_username`, `basic_auth_password` | the same |

use serde_json::{Map, Value, json};

use super::parameter::{excerpt, null, object, string, wrong_type};
use crate::error::{Error, Result};
use crate::event::Pattern;

/// The flags and the actions they stand for.
const FLAGS: [(&str, &str); 3] =
    [("on_create", "created"), ("on_update", "updated"), ("on_delete", "deleted")];
/// Columns by which rows are chosen.
const SCOPES: [&str; 2] = ["location_id", "product_transaction_id"];
/// What the systems themselves add: nothing to change.
const ADDED: [&str; 4] = ["id", "created_ts", "modified_ts", "_links"];

/// The changes of an endpoint that a postback configuration asks for, as [`super::Config::changed`] reads them. `stored` is what the
/// endpoint has; a new one is tried once, and again after 300 seconds if it asks for more attempts.
///
/// # Errors
/// An unknown field, a value of a wrong type, or no action to report.
pub fn changes(stored: Option<&str>, postback: &str) -> Result<String> {
    let fields = object("postbackconfig", postback)?;
    let stored = stored.map(|text| object("configuration", text)).transpose()?;
    let mut changes = Map::new();
    if stored.is_none() {
        let defaults = json!({ "format": "postback", "attempt_interval": 300, "max_attempts": 1 });
        changes.extend(defaults.as_object().cloned().unwrap_or_default());
    }
    for (key, value) in &fields {
        let name = match key.as_str() {
            "url" | "attempt_interval" | "basic_auth_username" | "basic_auth_password" => key,
            "number_of_attempts" => "max_attempts",
            "is_active" => {
                changes.insert(key.clone(), flag(key, value)?.into());
                continue;
            }
            "expands" => {
                let list = if value.is_null() { "" } else { string(key, value)? };
                let names: Vec<&str> =
                    list.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
                changes.insert(key.clone(), names.into());
                continue;
            }
            "format" => {
                if !matches!(string(key, value)?, "api-default" | "postback") {
                    return Err(Error::invalid("format of a postbackconfig is unknown")
                        .detail(format!("The value is {}.", excerpt(string(key, value)?)))
                        .hint("Use api-default."));
                }
                changes.insert(key.clone(), "postback".into());
                continue;
            }
            other if is_known(other) => continue,
            other => {
                return Err(Error::invalid("unknown field of a postbackconfig")
                    .detail(format!("The field is {}.", excerpt(other)))
                    .hint("The fields are url, resource, on_create, on_update, on_delete, is_active, number_of_attempts, \
                           attempt_interval, location_id, product_transaction_id, expands, format, basic_auth_username and \
                           basic_auth_password."));
            }
        };
        changes.insert(name.to_owned(), value.clone());
    }
    if let Some(events) = events(&fields, stored.as_ref())? {
        changes.insert("events".to_owned(), events.into());
    }
    if SCOPES.iter().any(|key| fields.contains_key(*key)) {
        changes.insert("scope".to_owned(), scope(&fields, stored.as_ref())?);
    }
    Ok(Value::Object(changes).to_string())
}

fn is_known(key: &str) -> bool {
    key == "resource"
        || ADDED.contains(&key)
        || SCOPES.contains(&key)
        || FLAGS.iter().any(|(name, _)| *name == key)
}

/// `"1"`, `1`, `true` and their opposites.
fn flag(key: &str, value: &Value) -> Result<bool> {
    match value {
        Value::Bool(flag) => Ok(*flag),
        Value::String(text) if matches!(text.as_str(), "1" | "true") => Ok(true),
        Value::String(text) if matches!(text.as_str(), "0" | "false") => Ok(false),
        Value::Number(number) if number.as_u64() == Some(1) => Ok(true),
        Value::Number(number) if number.as_u64() == Some(0) => Ok(false),
        Value::Null => Err(null(key)),
        other => Err(Error::invalid(format!("{key} must be \"1\" or \"0\""))
            .detail(format!("It is {}.", other.as_str().map_or_else(|| other.to_string(), excerpt)))
            .hint("true, false, 1 and 0 do as well.")),
    }
}

/// The patterns, if the configuration says anything of them. Of a new one that names no flag everything is reported; what is
/// not named of an old one stays.
fn events(fields: &Map<String, Value>, stored: Option<&Map<String, Value>>) -> Result<Option<Vec<String>>> {
    let names_flags = FLAGS.iter().any(|(name, _)| fields.contains_key(*name));
    if stored.is_some() && !names_flags && !fields.contains_key("resource") {
        return Ok(None);
    }
    let old = stored.map(shape);
    let resource = match (fields.get("resource"), &old) {
        (Some(value), _) => string("resource", value)?.to_owned(),
        (None, Some((resource, _))) => resource.clone(),
        (None, None) => return Err(null("resource")),
    };
    let mut events = Vec::new();
    for (at, (name, action)) in FLAGS.into_iter().enumerate() {
        let is_on = match (fields.get(name), &old) {
            (Some(value), _) => flag(name, value)?,
            (None, Some((_, flags))) => flags[at],
            (None, None) => !names_flags,
        };
        if is_on {
            events.push(format!("{resource}.{action}"));
        }
    }
    if events.is_empty() {
        return Err(Error::invalid("postbackconfig reports nothing").hint(
            "Set at least one of on_create, on_update and on_delete; to stop it, set is_active to \"0\".",
        ));
    }
    Ok(Some(events))
}

/// The resource and the flags of an endpoint: its first pattern names the resource.
fn shape(stored: &Map<String, Value>) -> (String, [bool; 3]) {
    let texts =
        stored.get("events").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let patterns: Vec<Pattern> = texts.filter_map(|text| Pattern::parse(text).ok()).collect();
    let first = patterns.first().map_or("*", |pattern| pattern.as_str());
    let resource = first.rsplit_once('.').map_or("*", |(resource, _)| resource);
    let wants = |(_, action): (&str, &str)| {
        let event_type = format!("{resource}.{action}");
        patterns.iter().any(|pattern| pattern.matches(&event_type))
    };
    (resource.to_owned(), FLAGS.map(wants))
}

/// The text of the scope: what the configuration names over what was there. Null and empty mean none.
fn scope(fields: &Map<String, Value>, stored: Option<&Map<String, Value>>) -> Result<Value> {
    let old = stored.and_then(|stored| stored.get("scope")).and_then(Value::as_str);
    let mut scope = old.map(|text| object("scope", text)).transpose()?.unwrap_or_default();
    for key in SCOPES {
        match fields.get(key) {
            None => {}
            Some(Value::Null) => drop(scope.remove(key)),
            Some(Value::String(text)) if text.is_empty() => drop(scope.remove(key)),
            Some(value @ (Value::String(_) | Value::Number(_))) => {
                scope.insert(key.to_owned(), value.clone());
            }
            Some(other) => return Err(wrong_type(key, other, "a string or a number")),
        }
    }
    Ok(if scope.is_empty() { Value::Null } else { Value::Object(scope).to_string().into() })
}

/// An endpoint in the shape of a postback configuration, without Basic authorization. Times are Unix seconds.
///
/// # Errors
/// The stored configuration cannot be read.
pub fn answer(id: i64, stored: &str, created: i64, modified: i64) -> Result<String> {
    let stored = object("configuration", stored)?;
    let get = |key: &str| stored.get(key).cloned().unwrap_or_default();
    let scope = get("scope").as_str().map(|text| object("scope", text)).transpose()?.unwrap_or_default();
    let one = |flag: bool| if flag { "1" } else { "0" };
    let (resource, [create, update, delete]) = shape(&stored);
    let format = get("format");
    let expands = get("expands");
    let names: Vec<&str> = expands.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let seconds = get("attempt_interval");
    let whole = seconds.as_f64().filter(|s| s.fract() == 0.0).map(|s| json!(s as i64));
    Ok(json!({ "postbackconfig": {
        "id": id,
        "attempt_interval": whole.unwrap_or(seconds),
        "expands": names.join(","),
        "format": if format == "postback" { json!("api-default") } else { format },
        "is_active": one(get("is_active") == true),
        "location_id": scope.get("location_id"),
        "product_transaction_id": scope.get("product_transaction_id"),
        "number_of_attempts": get("max_attempts"),
        "on_create": one(create),
        "on_delete": one(delete),
        "on_update": one(update),
        "resource": resource,
        "url": get("url"),
        "created_ts": created,
        "modified_ts": modified,
        "_links": { "self": { "href": format!("/postbackconfigs/{id}") } },
    }})
    .to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    const SHAPE: &str = r#"{"attempt_interval": 300, "basic_auth_username": null, "basic_auth_password": null, "expands": "a, b",
        "format": "api-default", "is_active": "1", "location_id": "23948sdnfia1129i9asf92", "number_of_attempts": 3,
        "on_create": "1", "on_delete": 0, "on_update": true, "resource": "contact", "url": "https://example.com/receiver"}"#;

    fn stored(postback: &str) -> String {
        let changes = changes(None, postback).unwrap();
        Config::changed(None, &changes, false).unwrap().to_json()
    }

    #[test]
    fn a_postbackconfig_becomes_an_endpoint_and_comes_back() {
        let stored = stored(SHAPE);
        let config: Value = serde_json::from_str(&stored).unwrap();
        assert_eq!(config["events"], json!(["contact.created", "contact.updated"]));
        assert_eq!((&config["format"], &config["encoding"]), (&json!("postback"), &json!("form")));
        assert_eq!((&config["max_attempts"], &config["attempt_interval"]), (&json!(3), &json!(300.0)));
        assert_eq!(config["scope"], r#"{"location_id":"23948sdnfia1129i9asf92"}"#);
        let back: Value = serde_json::from_str(&answer(7, &stored, 1, 2).unwrap()).unwrap();
        let back = &back["postbackconfig"];
        assert_eq!(back["on_delete"], "0");
        assert_eq!((&back["on_create"], &back["attempt_interval"]), (&json!("1"), &json!(300)));
        assert_eq!(
            (&back["expands"], &back["location_id"]),
            (&json!("a,b"), &json!("23948sdnfia1129i9asf92"))
        );
        assert_eq!((&back["id"], &back["_links"]["self"]["href"]), (&json!(7), &json!("/postbackconfigs/7")));
        assert!(back.get("basic_auth_username").is_none());
    }

    #[test]
    fn what_was_answered_changes_nothing() {
        let stored = stored(SHAPE);
        let back: Value = serde_json::from_str(&answer(7, &stored, 1, 2).unwrap()).unwrap();
        let changes = changes(Some(&stored), &back["postbackconfig"].to_string()).unwrap();
        let config: Value = serde_json::from_str(&stored).unwrap();
        for (key, value) in object("changes", &changes).unwrap() {
            let same = config[&key] == value || config[&key].as_f64() == value.as_f64() && value.is_number();
            assert!(same, "{key}: {} became {value}", config[&key]);
        }
    }

    #[test]
    fn a_change_leaves_what_it_does_not_name() {
        let stored = stored(SHAPE);
        let changed = |text: &str| changes(Some(&stored), text).unwrap();
        assert_eq!(changed(r#"{"on_update": "0"}"#), r#"{"events":["contact.created"]}"#);
        assert_eq!(changed(r#"{"is_active": 0}"#), r#"{"is_active":false}"#);
        assert_eq!(changed(r#"{"location_id": ""}"#), r#"{"scope":null}"#);
        assert_eq!(changed(r#"{"expands": ""}"#), r#"{"expands":[]}"#);
    }

    #[test]
    fn a_postbackconfig_that_makes_no_sense_is_refused() {
        for bad in [
            r#"{"url": "https://example.com"}"#,
            r#"{"resource": "contact", "on_create": "0"}"#,
            r#"{"resource": "contact", "on_create": "yes"}"#,
            r#"{"resource": "contact", "colour": "blue"}"#,
            r#"{"resource": "contact", "format": "xml"}"#,
            r#"{"resource": "contact", "location_id": [1]}"#,
            r#"{"resource": 5}"#,
            "[]",
        ] {
            assert!(changes(None, bad).is_err(), "{bad} was accepted");
        }
    }
}
