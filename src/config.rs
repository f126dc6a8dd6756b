//! The configuration of an endpoint as people write it: the parameters of `webhook_register`, checked one by one and
//! together, and the way from the stored form to an [`Endpoint`].
//!
//! Every path into the table goes through here (`webhook_register`, `webhook_update`): parameters come as one JSON
//! object with the parameters' names, are laid over the defaults or over what is stored, and nothing is written
//! unless all of it is right. Times are numbers of seconds; PostgreSQL has turned intervals into them before.

mod parameter;
pub mod postback;
mod wire;

use std::time::Duration;

use serde_json::{Map, Value, json};

use self::parameter::{
    excerpt, names, null, object, one_of, optional, seconds, string, strings, whole, wrong_type,
};

use crate::endpoint::{Encoding, Endpoint, Format, Method, Ordering, Scheme, State, word};
use crate::error::{Error, Kind, Result};
use crate::event::Pattern;
use crate::request::checked_url;
use crate::retry::Schedule;
use crate::secret::{Secret, SigningSecret};

/// Attempts when `attempt_interval` is given without `max_attempts`.
const ATTEMPTS_AT_INTERVALS: u32 = 10;
/// Patterns that one endpoint may have.
const MAX_PATTERNS: usize = 1000;
/// Bytes of a name at most.
const MAX_NAME: usize = 200;
/// Bytes that a name derived from a host may have, so that `-2` and so on still fit.
const MAX_DERIVED_NAME: usize = 180;
/// Requests per second that may be asked for: beyond, a limit says nothing.
const MAX_RATE: u64 = 1_000_000;
/// Requests in flight to one endpoint at most; as for the setting `endpoint_max_in_flight`.
const MAX_IN_FLIGHT: u64 = 1024;
/// Seconds from the shortest to the longest `timeout`.
const TIMEOUT: (f64, f64) = (0.001, 3600.0);
/// Seconds from the shortest to the longest `attempt_interval`.
const ATTEMPT_INTERVAL: (f64, f64) = (0.1, 86_400.0);

/// The parameters of an endpoint, each of them valid.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    name: Option<String>,
    url: Option<String>,
    events: Vec<String>,
    /// Newest first; every one of them signs.
    secrets: Vec<SigningSecret>,
    method: Method,
    format: Format,
    /// `None`: what the format is usually written as.
    encoding: Option<Encoding>,
    headers: Vec<(String, Secret)>,
    basic_auth_username: Option<String>,
    basic_auth_password: Option<Secret>,
    max_attempts: Option<u32>,
    attempt_interval: Option<Duration>,
    retry_schedule: Option<Vec<Duration>>,
    timeout: Option<Duration>,
    max_in_flight: Option<u32>,
    rate_limit: Option<u32>,
    ordering: Ordering,
    signature: Scheme,
    is_active: bool,
    expands: Vec<String>,
    /// The text of a JSON object that a row must contain.
    scope: Option<String>,
    /// The text of a jsonpath, which PostgreSQL has read before.
    filter: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: None,
            url: None,
            events: vec!["*".to_owned()],
            secrets: Vec::new(),
            method: Method::Post,
            format: Format::Standard,
            encoding: None,
            headers: Vec::new(),
            basic_auth_username: None,
            basic_auth_password: None,
            max_attempts: None,
            attempt_interval: None,
            retry_schedule: None,
            timeout: None,
            max_in_flight: None,
            rate_limit: None,
            ordering: Ordering::None,
            signature: Scheme::Standard,
            is_active: true,
            expands: Vec::new(),
            scope: None,
            filter: None,
        }
    }
}

impl Config {
    /// Lays `changes` over `stored`, or over the defaults for a new endpoint. Both are the text of a JSON object whose
    /// keys are parameters of `webhook_register`; `stored` may also have `secrets`. `allow_http` is the setting, which
    /// binds a new URL only: an old one is judged when something is sent.
    ///
    /// # Errors
    /// [`Kind::InvalidValue`] and [`Kind::NullValue`]. Secrets, passwords and header values are never repeated.
    pub fn changed(stored: Option<&str>, changes: &str, allow_http: bool) -> Result<Self> {
        let changes = object("changes", changes)?;
        let mut config = match stored {
            Some(stored) => Self::stored(stored)?,
            None => Self::default(),
        };
        for (key, value) in &changes {
            // A new endpoint gets a name and a secret when it brings none; one that has them keeps them.
            if stored.is_some() && value.is_null() && matches!(key.as_str(), "name" | "secret") {
                return Err(null(key));
            }
            config.set(key, value, allow_http)?;
        }
        config.check_together()?;
        if stored.is_some() && config.signature != Scheme::None && config.secrets.is_empty() {
            let scheme = word(Scheme::WORDS, config.signature);
            return Err(Error::invalid(format!("signature {scheme} needs a secret"))
                .hint("Give a secret in the same changes."));
        }
        Ok(config)
    }

    /// Reads what [`webhook.stored_config`] answers for an endpoint.
    ///
    /// [`webhook.stored_config`]: ../../sql/install/api.sql
    fn stored(text: &str) -> Result<Self> {
        let mut config = Self::default();
        for (key, value) in &object("configuration", text)? {
            if key == "secrets" {
                config.secrets = wire::stored_secrets(value)?;
            } else {
                config.set(key, value, true)?;
            }
        }
        // So that it follows the format and the method when they change.
        if config.encoding == Some(config.format.default_encoding(config.method)) {
            config.encoding = None;
        }
        Ok(config)
    }

    /// Sets one parameter.
    fn set(&mut self, key: &str, value: &Value, allow_http: bool) -> Result<()> {
        match key {
            "url" => {
                let text = string(key, value)?;
                checked_url(text, allow_http)?;
                self.url = Some(text.to_owned());
            }
            "events" => self.events = events(value)?,
            "name" => self.name = optional(value, |v| name(string(key, v)?))?,
            "secret" => {
                let secret = optional(value, |v| Ok(Secret::new(string(key, v)?)))?;
                self.secrets = secret.map(SigningSecret::from).into_iter().collect();
            }
            "method" => self.method = one_of(key, value, Method::WORDS)?,
            "format" => self.format = one_of(key, value, Format::WORDS)?,
            "encoding" => self.encoding = optional(value, |v| one_of(key, v, Encoding::WORDS))?,
            "headers" => self.headers = wire::headers(value)?,
            "basic_auth_username" => {
                self.basic_auth_username = optional(value, |v| Ok(string(key, v)?.to_owned()))?;
            }
            "basic_auth_password" => {
                self.basic_auth_password = optional(value, |v| Ok(Secret::new(string(key, v)?)))?;
            }
            "scope" => self.scope = optional(value, wire::scope)?,
            "filter" => self.filter = optional(value, |v| Ok(string(key, v)?.to_owned()))?,
            "expands" => self.expands = names(key, value)?,
            "max_attempts" => {
                self.max_attempts = optional(value, |v| whole(key, v, 2_147_483_647))?;
            }
            "attempt_interval" => {
                self.attempt_interval = optional(value, |v| seconds(key, v, ATTEMPT_INTERVAL))?;
            }
            "retry_schedule" => self.retry_schedule = optional(value, waits)?,
            "timeout" => self.timeout = optional(value, |v| seconds(key, v, TIMEOUT))?,
            "max_in_flight" => {
                self.max_in_flight = optional(value, |v| whole(key, v, MAX_IN_FLIGHT))?;
            }
            "rate_limit" => self.rate_limit = optional(value, |v| whole(key, v, MAX_RATE))?,
            "ordering" => self.ordering = one_of(key, value, Ordering::WORDS)?,
            "signature" => self.signature = one_of(key, value, Scheme::WORDS)?,
            "is_active" => match value {
                Value::Bool(is_active) => self.is_active = *is_active,
                other => return Err(wrong_type(key, other, "true or false")),
            },
            _ => {
                return Err(Error::invalid("unknown parameter of an endpoint")
                    .detail(format!("The key is {}.", excerpt(key)))
                    .hint("The keys are the parameter names of webhook_register."));
            }
        }
        Ok(())
    }

    /// What no parameter can answer for alone.
    fn check_together(&self) -> Result<()> {
        if self.url.is_none() {
            return Err(null("url"));
        }
        if self.attempt_interval.is_some() && self.retry_schedule.is_some() {
            return Err(Error::invalid("retry_schedule and attempt_interval exclude each other")
                .hint("Give either a list of waits or one interval with max_attempts."));
        }
        self.check_wire()
    }

    /// The whole configuration as the text of one JSON object, secrets included: for the statement that stores it and
    /// for nobody else. Without a name it proposes the URL's host under `derived_name`.
    pub fn to_json(&self) -> String {
        let secs = |time: &Option<Duration>| time.map(|t| t.as_secs_f64());
        let reveal = |secret: Option<&Secret>| secret.map(|s| s.reveal().to_owned());
        let headers: Map<String, Value> =
            self.headers.iter().map(|(name, value)| (name.clone(), json!(value.reveal()))).collect();
        json!({
            "name": self.name,
            "derived_name": self.derived_name(),
            "url": self.url,
            "events": self.events,
            "secret": reveal(self.secrets.first().map(|s| &s.secret)),
            "method": word(Method::WORDS, self.method),
            "format": word(Format::WORDS, self.format),
            "encoding": word(Encoding::WORDS, self.encoding()),
            "headers": headers,
            "basic_auth_username": self.basic_auth_username,
            "basic_auth_password": reveal(self.basic_auth_password.as_ref()),
            "max_attempts": self.max_attempts,
            "attempt_interval": secs(&self.attempt_interval),
            "retry_schedule": self.retry_schedule.as_ref()
                .map(|waits| waits.iter().map(Duration::as_secs_f64).collect::<Vec<_>>()),
            "timeout": secs(&self.timeout),
            "max_in_flight": self.max_in_flight,
            "rate_limit": self.rate_limit,
            "ordering": word(Ordering::WORDS, self.ordering),
            "signature": word(Scheme::WORDS, self.signature),
            "is_active": self.is_active,
            "expands": self.expands,
            "scope": self.scope,
            "filter": self.filter,
        })
        .to_string()
    }

    fn derived_name(&self) -> String {
        let url = self.url.as_deref().and_then(|text| url::Url::parse(text).ok());
        let host = url.as_ref().and_then(url::Url::host_str).unwrap_or("endpoint");
        // Hosts are ASCII after parsing.
        host.chars().take(MAX_DERIVED_NAME).collect()
    }

    /// The endpoint of one row of `sql/statements/endpoint_configs.sql`. `default` is the setting `retry_schedule`, which an
    /// endpoint that gives only `max_attempts` cuts or repeats.
    ///
    /// # Errors
    /// The row holds what this version does not know, as after a change of the library's version.
    pub fn endpoint(id: i64, state: &str, config: &str, default: &Schedule) -> Result<Endpoint> {
        let config = Self::stored(config)?;
        let schedule = config.schedule(default);
        let url = checked_url(config.url.as_deref().unwrap_or_default(), true)?;
        let events = config.events.iter().map(|text| Pattern::parse(text)).collect::<Result<_>>()?;
        let encoding = config.encoding();
        let password = config.basic_auth_password.unwrap_or_else(|| Secret::new(""));
        Ok(Endpoint {
            id,
            name: config.name.unwrap_or_default(),
            url,
            method: config.method,
            format: config.format,
            encoding,
            events,
            is_selective: config.scope.is_some() || config.filter.is_some(),
            scope: config.scope,
            expands: config.expands,
            headers: config.headers,
            basic_auth: config.basic_auth_username.map(|username| (username, password)),
            scheme: config.signature,
            secrets: config.secrets,
            schedule,
            timeout: config.timeout,
            max_in_flight: config.max_in_flight.and_then(|n| usize::try_from(n).ok()),
            rate_limit: config.rate_limit,
            ordering: config.ordering,
            state: endpoint_state(state)?,
        })
    }

    fn schedule(&self, default: &Schedule) -> Option<Schedule> {
        if let Some(interval) = self.attempt_interval {
            return Some(Schedule::fixed(interval, self.max_attempts.unwrap_or(ATTEMPTS_AT_INTERVALS)));
        }
        match (&self.retry_schedule, self.max_attempts) {
            (None, None) => None,
            (Some(waits), None) => Some(Schedule::new(waits.clone())),
            (Some(waits), Some(n)) => Some(Schedule::new(waits.clone()).with_max_attempts(n)),
            (None, Some(n)) => Some(default.clone().with_max_attempts(n)),
        }
    }
}

/// Checks the type of an event that `webhook_send` raises: `resource.action`, no `*`, and not in the resource
/// `webhook`, which is ours.
///
/// # Errors
/// [`Kind::InvalidValue`] for any other text.
pub fn checked_event_type(text: &str) -> Result<()> {
    if text.contains('*') || Pattern::parse(text).is_err() {
        return Err(Error::invalid("event type is not of the form resource.action")
            .detail(format!("The type is {}.", excerpt(text)))
            .hint("Write for example contact.created, without spaces or *, in at most 200 bytes."));
    }
    if text.starts_with("webhook.") {
        return Err(Error::invalid("event types that begin with webhook. are reserved")
            .detail(format!("The type is {}.", excerpt(text)))
            .hint("Use another resource; webhook_test sends webhook.ping."));
    }
    Ok(())
}

fn waits(value: &Value) -> Result<Vec<Duration>> {
    const KEY: &str = "retry_schedule";
    let list = value
        .as_array()
        .ok_or_else(|| wrong_type(KEY, value, "an array of intervals or numbers of seconds"))?;
    let wait = |v: &Value| {
        if v.is_null() {
            return Err(Error::new(Kind::NullValue, format!("{KEY} must not contain null")));
        }
        seconds(KEY, v, (crate::retry::MIN_WAIT.as_secs_f64(), crate::retry::MAX_WAIT.as_secs_f64()))
    };
    let waits = list.iter().map(wait).collect::<Result<Vec<_>>>()?;
    Schedule::checked(waits.clone())?;
    Ok(waits)
}

fn events(value: &Value) -> Result<Vec<String>> {
    let events = strings("events", value)?;
    if events.is_empty() || events.len() > MAX_PATTERNS {
        return Err(Error::invalid(format!("events must have 1 to {MAX_PATTERNS} patterns"))
            .detail(format!("It has {}.", events.len()))
            .hint("For every event write *; to stop an endpoint use webhook_pause."));
    }
    for text in &events {
        Pattern::parse(text)?;
    }
    Ok(events)
}

fn name(text: &str) -> Result<String> {
    if text.is_empty() || text.len() > MAX_NAME || text.trim() != text || text.chars().any(char::is_control) {
        return Err(Error::invalid("name is malformed")
            .detail(format!("The name is {}.", excerpt(text)))
            .hint(format!("Use 1 to {MAX_NAME} bytes, no control characters, spaces only inside.")));
    }
    Ok(text.to_owned())
}

fn endpoint_state(word: &str) -> Result<State> {
    match word {
        "active" => Ok(State::Active),
        "paused" => Ok(State::Paused),
        "disabled" => Ok(State::Disabled),
        "inactive" => Ok(State::Inactive),
        _ => {
            Err(Error::invalid("endpoint state is unknown")
                .detail(format!("The state is {}.", excerpt(word))))
        }
    }
}

#[cfg(test)]
mod tests;
