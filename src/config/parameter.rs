//! Reading one parameter out of JSON, and what is said when it is wrong. Values of secrets never come here.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::error::{Error, Kind, Result};

/// The error for a null where a value is needed.
pub(super) fn null(key: &str) -> Error {
    Error::new(Kind::NullValue, format!("{key} must not be null")).hint(format!("Give {key} a value."))
}

/// Text from outside for a DETAIL: quoted, escaped and short.
pub(super) fn excerpt(text: &str) -> String {
    const CHARS: usize = 100;
    let short: String = text.chars().take(CHARS).collect();
    if short.len() < text.len() { format!("{short:?}…") } else { format!("{short:?}") }
}

pub(super) fn wrong_type(key: &str, value: &Value, wanted: &str) -> Error {
    let found = match value {
        Value::Null => return null(key),
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    };
    Error::invalid(format!("{key} must be {wanted}")).detail(format!("It is {found}."))
}

pub(super) fn out_of_range(key: &str, value: &Value, hint: String) -> Error {
    Error::invalid(format!("{key} is out of range")).detail(format!("The value is {value}.")).hint(hint)
}

pub(super) fn optional<T>(value: &Value, read: impl FnOnce(&Value) -> Result<T>) -> Result<Option<T>> {
    if value.is_null() { Ok(None) } else { read(value).map(Some) }
}

pub(super) fn object(what: &str, text: &str) -> Result<Map<String, Value>> {
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(Value::Null) => Err(null(what)),
        _ => Err(Error::invalid(format!("{what} must be a JSON object"))
            .hint("Write for example {\"max_attempts\": 5}.")),
    }
}

pub(super) fn object_of<'a>(key: &str, value: &'a Value) -> Result<&'a Map<String, Value>> {
    value.as_object().ok_or_else(|| wrong_type(key, value, "an object"))
}

pub(super) fn string<'a>(key: &str, value: &'a Value) -> Result<&'a str> {
    value.as_str().ok_or_else(|| wrong_type(key, value, "a string"))
}

pub(super) fn strings(key: &str, value: &Value) -> Result<Vec<String>> {
    let list = value.as_array().ok_or_else(|| wrong_type(key, value, "an array of strings"))?;
    let element = |v: &Value| {
        v.as_str().map(str::to_owned).ok_or_else(|| match v {
            Value::Null => Error::new(Kind::NullValue, format!("{key} must not contain null")),
            other => wrong_type(&format!("an element of {key}"), other, "a string"),
        })
    };
    list.iter().map(element).collect()
}

/// A list of different names.
pub(super) fn names(key: &str, value: &Value) -> Result<Vec<String>> {
    const MAX: usize = 100;
    const MAX_BYTES: usize = 200;
    let names = strings(key, value)?;
    if names.len() > MAX {
        return Err(Error::invalid(format!("{key} has too many names"))
            .detail(format!("It has {}; {MAX} are allowed.", names.len())));
    }
    for (at, name) in names.iter().enumerate() {
        if name.is_empty() || name.len() > MAX_BYTES || name.chars().any(char::is_control) {
            return Err(Error::invalid(format!("{key} has a malformed name"))
                .detail(format!("The name is {}.", excerpt(name)))
                .hint(format!("Use 1 to {MAX_BYTES} bytes and no control characters.")));
        }
        if names[..at].contains(name) {
            return Err(Error::invalid(format!("{key} names something twice"))
                .detail(format!("The name is {}.", excerpt(name))));
        }
    }
    Ok(names)
}

/// A whole number from 1 to `max`.
pub(super) fn whole(key: &str, value: &Value, max: u64) -> Result<u32> {
    let Value::Number(number) = value else {
        return Err(wrong_type(key, value, "a whole number"));
    };
    let in_range = number.as_u64().filter(|n| (1..=max).contains(n));
    in_range
        .and_then(|n| u32::try_from(n).ok())
        .ok_or_else(|| out_of_range(key, value, format!("Give a whole number from 1 to {max}.")))
}

/// Seconds within a range.
pub(super) fn seconds(key: &str, value: &Value, (min, max): (f64, f64)) -> Result<Duration> {
    let number =
        value.as_f64().ok_or_else(|| wrong_type(key, value, "an interval or a number of seconds"))?;
    let in_range = Some(number).filter(|n| (min..=max).contains(n));
    in_range
        .and_then(|n| Duration::try_from_secs_f64(n).ok())
        .ok_or_else(|| out_of_range(key, value, format!("Give an interval from {min} s to {max} s.")))
}

/// One of the words of a parameter.
pub(super) fn one_of<T: Copy>(key: &str, value: &Value, words: &[(&str, T)]) -> Result<T> {
    let text = string(key, value)?;
    words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning).ok_or_else(|| {
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        Error::invalid(format!("{key} is unknown"))
            .detail(format!("The value is {}.", excerpt(text)))
            .hint(format!("Use one of: {}.", known.join(", ")))
    })
}
