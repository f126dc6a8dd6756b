//! The parameters that say when an endpoint may be sent what.

use serde_json::Value;

use super::parameter::{choice, string, whole};
use crate::endpoint::Ordering;
use crate::error::Result;

/// Requests per second that may be asked for: beyond, a limit says nothing.
const MAX_RATE: u64 = 1_000_000;

/// `rate_limit`: requests per second.
pub(super) fn rate_limit(value: &Value) -> Result<u32> {
    whole("rate_limit", value, MAX_RATE)
}

/// `ordering`.
pub(super) fn ordering(value: &Value) -> Result<Ordering> {
    Ok(match choice("ordering", string("ordering", value)?, &["none", "key", "strict"], &[])? {
        "key" => Ordering::Key,
        "strict" => Ordering::Strict,
        _ => Ordering::None,
    })
}
