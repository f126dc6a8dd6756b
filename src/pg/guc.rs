//! The settings `webhook_pg.*`. None holds a secret; ordinary users may set the last two only.

use std::ffi::{CStr, CString, c_char, c_void};
use std::time::Duration;

use ipnet::IpNet;
use pgrx::prelude::*;
use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting, PostgresGucEnum};

use crate::retention::Retention;
use crate::retry::Schedule;
use crate::settings::{self, Egress, Settings};

/// What goes to `webhook.attempts`.
#[derive(Debug, Clone, Copy, PostgresGucEnum)]
pub enum LogAttempts {
    /// Every attempt.
    #[name = c"all"]
    All,
    /// Failed attempts only.
    #[name = c"failures"]
    Failures,
    /// Nothing.
    #[name = c"none"]
    None,
}

static DATABASES: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static ENABLED: GucSetting<bool> = GucSetting::<bool>::new(true);
static MAX_IN_FLIGHT: GucSetting<i32> = GucSetting::<i32>::new(64);
static ENDPOINT_MAX_IN_FLIGHT: GucSetting<i32> = GucSetting::<i32>::new(8);
static REQUEST_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(15_000);
static CONNECT_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(5_000);
static RETRY_SCHEDULE: GucSetting<Option<CString>> =
    GucSetting::<Option<CString>>::new(Some(c"5s 5m 30m 2h 5h 10h 14h 20h 24h"));
static DISABLE_AFTER: GucSetting<i32> = GucSetting::<i32>::new(5 * 86_400);
static RETENTION: GucSetting<i32> = GucSetting::<i32>::new(7 * 86_400);
static DEAD_RETENTION: GucSetting<i32> = GucSetting::<i32>::new(30 * 86_400);
static MAX_BACKLOG_AGE: GucSetting<i32> = GucSetting::<i32>::new(30 * 86_400);
static POLL_INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(5_000);
static EGRESS_ALLOW: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static ALLOW_HTTP: GucSetting<bool> = GucSetting::<bool>::new(false);
static PROXY: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static CA_FILE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static KEY_FILE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static MAX_PAYLOAD_BYTES: GucSetting<i32> = GucSetting::<i32>::new(1024 * 1024);
static MAX_RESPONSE_BYTES: GucSetting<i32> = GucSetting::<i32>::new(64 * 1024);
static STORE_RESPONSE_BYTES: GucSetting<i32> = GucSetting::<i32>::new(4 * 1024);
static LOG_ATTEMPTS: GucSetting<LogAttempts> = GucSetting::<LogAttempts>::new(LogAttempts::All);
static MUTE: GucSetting<bool> = GucSetting::<bool>::new(false);
static CONTEXT: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static TRACEPARENT: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));

/// Bytes of `webhook_pg.context` at most.
const CONTEXT_BYTES: usize = 4096;

/// Defines all settings. To be called once from `_PG_init`. None is PGC_POSTMASTER: defining such a setting in a session
/// that loads the library without the preload is a FATAL error.
pub fn init() {
    const DAYS_24_MS: i32 = 24 * 86_400_000;
    let none = GucFlags::default();
    let (ms, s, bytes) = (GucFlags::UNIT_MS, GucFlags::UNIT_S, GucFlags::UNIT_BYTE);

    text(
        c"webhook_pg.databases",
        c"Databases to serve, separated by commas; empty or * serves all that have the extension.",
        &DATABASES,
        GucContext::Sighup,
        None,
    );
    flag(c"webhook_pg.enabled", c"Off stops sending and nothing else.", &ENABLED, GucContext::Sighup);
    int(
        c"webhook_pg.max_in_flight",
        c"Requests in flight at most, over all endpoints of a database.",
        &MAX_IN_FLIGHT,
        (1, 1024),
        none,
    );
    int(
        c"webhook_pg.endpoint_max_in_flight",
        c"Requests in flight at most to one endpoint that does not say otherwise.",
        &ENDPOINT_MAX_IN_FLIGHT,
        (1, 1024),
        none,
    );
    int(
        c"webhook_pg.request_timeout",
        c"Total time of one attempt for an endpoint that does not say otherwise.",
        &REQUEST_TIMEOUT,
        (10, 3_600_000),
        ms,
    );
    int(
        c"webhook_pg.connect_timeout",
        c"Time to establish TCP and TLS.",
        &CONNECT_TIMEOUT,
        (10, 3_600_000),
        ms,
    );
    text(
        c"webhook_pg.retry_schedule",
        c"Waits between attempts for an endpoint that does not say otherwise.",
        &RETRY_SCHEDULE,
        GucContext::Sighup,
        Some(check_retry_schedule),
    );
    int(
        c"webhook_pg.disable_after",
        c"An endpoint that only failed for this long is disabled; 0 never.",
        &DISABLE_AFTER,
        (0, i32::MAX),
        s,
    );
    int(c"webhook_pg.retention", c"How long events are kept for replay.", &RETENTION, (0, i32::MAX), s);
    int(
        c"webhook_pg.dead_retention",
        c"How long dead deliveries are kept.",
        &DEAD_RETENTION,
        (0, i32::MAX),
        s,
    );
    int(
        c"webhook_pg.max_backlog_age",
        c"How long events wait for an endpoint that does not take them; 0 for ever.",
        &MAX_BACKLOG_AGE,
        (0, i32::MAX),
        s,
    );
    int(
        c"webhook_pg.poll_interval",
        c"Time between the scans that cover what no latch announced.",
        &POLL_INTERVAL,
        (100, DAYS_24_MS),
        ms,
    );
    text(
        c"webhook_pg.egress_allow",
        c"Networks (CIDR, separated by commas) that may be reached although the address rule refuses them.",
        &EGRESS_ALLOW,
        GucContext::Sighup,
        Some(check_egress_allow),
    );
    flag(c"webhook_pg.allow_http", c"Allows http:// receivers.", &ALLOW_HTTP, GucContext::Sighup);
    text(
        c"webhook_pg.proxy",
        c"URL of an HTTP proxy; the environment's proxies are never used.",
        &PROXY,
        GucContext::Sighup,
        Some(check_proxy),
    );
    text(
        c"webhook_pg.ca_file",
        c"PEM file of additional certificate authorities.",
        &CA_FILE,
        GucContext::Sighup,
        None,
    );
    text(
        c"webhook_pg.key_file",
        c"File of the keys that seal secrets, passwords and header values in their table.",
        &KEY_FILE,
        GucContext::Sighup,
        None,
    );
    int(
        c"webhook_pg.max_payload_bytes",
        c"A row whose JSON is longer becomes a thin event: key only.",
        &MAX_PAYLOAD_BYTES,
        // Key, row, previous and expanded rows make one tuple of the outbox, which PostgreSQL limits to a gigabyte.
        (1024, 128 * 1024 * 1024),
        bytes,
    );
    int(
        c"webhook_pg.max_response_bytes",
        c"Bytes of a response body that are read at most.",
        &MAX_RESPONSE_BYTES,
        (0, 64 * 1024 * 1024),
        bytes,
    );
    int(
        c"webhook_pg.store_response_bytes",
        c"Bytes of a response body that are kept for webhook.attempts.",
        &STORE_RESPONSE_BYTES,
        (0, 1024 * 1024),
        bytes,
    );
    GucRegistry::define_enum_guc(
        c"webhook_pg.log_attempts",
        c"Which attempts webhook.attempts keeps.",
        c"",
        &LOG_ATTEMPTS,
        GucContext::Sighup,
        none,
    );
    flag(c"webhook_pg.mute", c"This session's changes raise no events.", &MUTE, GucContext::Suset);
    text(
        c"webhook_pg.context",
        c"JSON text that this session attaches to its events, at most 4 kB.",
        &CONTEXT,
        GucContext::Userset,
        Some(check_context),
    );
    text(
        c"webhook_pg.traceparent",
        c"W3C traceparent that this session's events carry.",
        &TRACEPARENT,
        GucContext::Userset,
        Some(check_traceparent),
    );

    // SAFETY: a NUL-terminated literal.
    unsafe { pg_sys::MarkGUCPrefixReserved(c"webhook_pg".as_ptr()) };
}

fn flag(name: &'static CStr, what: &'static CStr, setting: &'static GucSetting<bool>, context: GucContext) {
    GucRegistry::define_bool_guc(name, what, c"", setting, context, GucFlags::default());
}

fn int(
    name: &'static CStr,
    what: &'static CStr,
    setting: &'static GucSetting<i32>,
    (min, max): (i32, i32),
    flags: GucFlags,
) {
    GucRegistry::define_int_guc(name, what, c"", setting, min, max, GucContext::Sighup, flags);
}

fn text(
    name: &'static CStr,
    what: &'static CStr,
    setting: &'static GucSetting<Option<CString>>,
    context: GucContext,
    check: pg_sys::GucStringCheckHook,
) {
    // SAFETY: the check hooks below have the signature PostgreSQL wants and never raise.
    unsafe {
        GucRegistry::define_string_guc_with_hooks(
            name,
            what,
            c"",
            setting,
            context,
            GucFlags::default(),
            check,
            None,
            None,
        );
    }
}

/// The settings as the worker needs them, read at this moment.
pub fn settings() -> Settings {
    let ms = |value: i32| Duration::from_millis(u64::try_from(value).unwrap_or(0));
    let seconds = |value: i32| (value > 0).then(|| ms(value) * 1000);
    let count = |value: i32| usize::try_from(value).unwrap_or(0);
    Settings {
        enabled: ENABLED.get(),
        max_in_flight: count(MAX_IN_FLIGHT.get()),
        endpoint_max_in_flight: count(ENDPOINT_MAX_IN_FLIGHT.get()),
        request_timeout: ms(REQUEST_TIMEOUT.get()),
        // The check hook let nothing else in.
        retry_schedule: Schedule::parse(&string(&RETRY_SCHEDULE))
            .unwrap_or_else(|_| Schedule::new(Vec::new())),
        disable_after: seconds(DISABLE_AFTER.get()),
        poll_interval: ms(POLL_INTERVAL.get()),
        log_attempts: match LOG_ATTEMPTS.get() {
            LogAttempts::All => settings::LogAttempts::All,
            LogAttempts::Failures => settings::LogAttempts::Failures,
            LogAttempts::None => settings::LogAttempts::None,
        },
        egress: Egress {
            allow_http: ALLOW_HTTP.get(),
            allow: networks(&string(&EGRESS_ALLOW)).unwrap_or_default(),
            proxy: string(&PROXY),
            ca_file: string(&CA_FILE),
            connect_timeout: ms(CONNECT_TIMEOUT.get()),
            max_response_bytes: count(MAX_RESPONSE_BYTES.get()),
            store_response_bytes: count(STORE_RESPONSE_BYTES.get()),
        },
    }
}

/// How long what is kept is kept, read at this moment.
pub fn retention() -> Retention {
    let time = |seconds: i32| Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    let backlog = MAX_BACKLOG_AGE.get();
    Retention {
        events: time(RETENTION.get()),
        dead: time(DEAD_RETENTION.get()),
        backlog: (backlog > 0).then(|| time(backlog)),
    }
}

/// Names of the databases to serve, separated by commas, as they stand in the configuration.
pub fn databases() -> Option<CString> {
    DATABASES.get()
}

/// Path of the key file, from the data directory, if there is one.
pub fn key_file() -> Option<CString> {
    KEY_FILE.get().filter(|path| !path.is_empty())
}

/// Whether http:// receivers are allowed.
pub fn allow_http() -> bool {
    ALLOW_HTTP.get()
}

/// Bytes of row JSON over which an event is thin.
pub fn max_payload_bytes() -> usize {
    usize::try_from(MAX_PAYLOAD_BYTES.get()).unwrap_or(0)
}

/// Whether this session raises no events.
pub fn mute() -> bool {
    MUTE.get()
}

/// What this session attaches to its events, if anything, in the database's encoding.
pub fn context() -> Option<CString> {
    CONTEXT.get().filter(|text| !text.is_empty())
}

/// The traceparent that this session's events carry, if any.
pub fn traceparent() -> Option<CString> {
    TRACEPARENT.get().filter(|text| !text.is_empty())
}

fn string(setting: &GucSetting<Option<CString>>) -> String {
    setting.get().map(|text| text.to_string_lossy().into_owned()).unwrap_or_default()
}

fn networks(text: &str) -> Result<Vec<IpNet>, String> {
    let parse = |part: &str| {
        let net = part.parse::<IpNet>().or_else(|_| part.parse::<std::net::IpAddr>().map(IpNet::from));
        net.map_err(|_| format!("{part:?} is not a network such as 10.0.0.0/8 or fd00::/8."))
    };
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(parse).collect()
}

/// Runs a pure check on a new value; a false answer makes PostgreSQL refuse the value with our detail. The check sees `?` for each
/// byte that is not ASCII: there may be no transaction in which a text could be converted, and no rule here is about such bytes.
///
/// # Safety
/// `new` is what PostgreSQL hands to a check hook.
unsafe fn check(new: *mut *mut c_char, rule: impl FnOnce(&str) -> Result<(), String>) -> bool {
    // SAFETY: PostgreSQL passes a valid pointer to a NUL-terminated string, or to null for "unset".
    let text = unsafe {
        if (*new).is_null() {
            return true;
        }
        CStr::from_ptr(*new).to_bytes()
    };
    let text: String =
        text.iter().map(|byte| if byte.is_ascii() { char::from(*byte) } else { '?' }).collect();
    if let Err(detail) = rule(&text) {
        let detail = CString::new(detail).unwrap_or_default();
        // SAFETY: GUC_check_errdetail's own steps: the string is copied into error memory by format_elog_string.
        unsafe {
            pg_sys::pre_format_elog_string(0, std::ptr::null());
            pg_sys::GUC_check_errdetail_string = pg_sys::format_elog_string(c"%s".as_ptr(), detail.as_ptr());
        }
        return false;
    }
    true
}

unsafe extern "C-unwind" fn check_retry_schedule(
    new: *mut *mut c_char,
    _: *mut *mut c_void,
    _: pg_sys::GucSource::Type,
) -> bool {
    let rule = |text: &str| Schedule::parse(text).map(drop).map_err(|e| e.detail.unwrap_or(e.message));
    // SAFETY: called by PostgreSQL as a check hook.
    unsafe { check(new, rule) }
}

unsafe extern "C-unwind" fn check_egress_allow(
    new: *mut *mut c_char,
    _: *mut *mut c_void,
    _: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: called by PostgreSQL as a check hook.
    unsafe { check(new, |text| networks(text).map(drop)) }
}

unsafe extern "C-unwind" fn check_proxy(
    new: *mut *mut c_char,
    _: *mut *mut c_void,
    _: pg_sys::GucSource::Type,
) -> bool {
    let rule = |text: &str| crate::settings::proxy(text).map(drop).map_err(|e| e.detail.unwrap_or(e.message));
    // SAFETY: called by PostgreSQL as a check hook.
    unsafe { check(new, rule) }
}

unsafe extern "C-unwind" fn check_context(
    new: *mut *mut c_char,
    _: *mut *mut c_void,
    _: pg_sys::GucSource::Type,
) -> bool {
    let rule = |text: &str| {
        if text.len() > CONTEXT_BYTES {
            return Err(format!("The text has {} bytes; at most {CONTEXT_BYTES} are allowed.", text.len()));
        }
        if text.is_empty() {
            return Ok(());
        }
        serde_json::from_str::<serde_json::Value>(text)
            .map(drop)
            .map_err(|e| format!("The text is not JSON: {e}."))
    };
    // SAFETY: called by PostgreSQL as a check hook.
    unsafe { check(new, rule) }
}

unsafe extern "C-unwind" fn check_traceparent(
    new: *mut *mut c_char,
    _: *mut *mut c_void,
    _: pg_sys::GucSource::Type,
) -> bool {
    let rule = |text: &str| {
        if text.is_empty() || crate::event::is_traceparent(text) {
            return Ok(());
        }
        Err("A traceparent looks like 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.".to_owned())
    };
    // SAFETY: called by PostgreSQL as a check hook.
    unsafe { check(new, rule) }
}
