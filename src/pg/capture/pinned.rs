//! Session settings that change how values are spelled, held at fixed values while a row is written.
//!
//! Output functions written in C read plain variables; where one of them is all that matters it is set and put back
//! directly. For anything else the settings are changed the way a function's SET clause does, and only those that
//! differ, because each costs about a microsecond.

use std::ffi::{CStr, c_int};

use pgrx::pg_sys;

unsafe extern "C" {
    /// utils/bytea.h; 1 is hex.
    static bytea_output: c_int;
    /// utils/builtins.h; regclass and its like write names.
    static quote_all_identifiers: bool;
}

/// BYTEA_OUTPUT_HEX.
const HEX: c_int = 1;

/// A C variable that gets its old value back.
pub(super) struct Held {
    variable: *mut c_int,
    before: c_int,
}

impl Drop for Held {
    fn drop(&mut self) {
        // SAFETY: the variable is static.
        unsafe { *self.variable = self.before };
    }
}

fn hold(variable: *mut c_int, value: c_int) -> Option<Held> {
    // SAFETY: a plain variable of a single-threaded backend.
    unsafe {
        let before = *variable;
        if before == value {
            return None;
        }
        *variable = value;
        Some(Held { variable, before })
    }
}

/// Shortest exact floats until the guard is dropped. Only around an output function written in C.
pub(super) fn float_digits() -> Option<Held> {
    hold(&raw mut pg_sys::extra_float_digits, 1)
}

/// ISO 8601 intervals until the guard is dropped. Only around an output function written in C.
pub(super) fn interval_style() -> Option<Held> {
    hold(&raw mut pg_sys::IntervalStyle, pg_sys::INTSTYLE_ISO_8601 as c_int)
}

/// All settings pinned until dropped.
pub(super) struct Pinned {
    /// The level of nested settings to go back to, if any setting had to be changed.
    level: Option<c_int>,
}

impl Pinned {
    /// Changes the settings that differ.
    pub(super) fn enter() -> Self {
        Self::with_path(c"pg_catalog, pg_temp")
    }

    /// Changes the settings that differ, with this search path.
    pub(super) fn with_path(wanted: &CStr) -> Self {
        let mut pinned = Self { level: None };
        // SAFETY: plain variables of a single-threaded backend; names and values are literals.
        unsafe {
            if pg_sys::DateStyle != pg_sys::USE_ISO_DATES as c_int {
                pinned.set(c"DateStyle", c"ISO");
            }
            if pg_sys::IntervalStyle != pg_sys::INTSTYLE_ISO_8601 as c_int {
                pinned.set(c"IntervalStyle", c"iso_8601");
            }
            if pg_sys::extra_float_digits != 1 {
                pinned.set(c"extra_float_digits", c"1");
            }
            if bytea_output != HEX {
                pinned.set(c"bytea_output", c"hex");
            }
            if quote_all_identifiers {
                pinned.set(c"quote_all_identifiers", c"off");
            }
            let zone = pg_sys::pg_get_timezone_name(pg_sys::session_timezone);
            if zone.is_null() || CStr::from_ptr(zone) != c"UTC" {
                pinned.set(c"TimeZone", c"UTC");
            }
            let path = pg_sys::namespace_search_path;
            if path.is_null() || CStr::from_ptr(path) != wanted {
                pinned.set(c"search_path", wanted);
            }
        }
        pinned
    }

    fn set(&mut self, name: &CStr, value: &CStr) {
        // SAFETY: what fmgr_security_definer does for a function's SET clause; everybody may set these.
        unsafe {
            self.level.get_or_insert_with(|| pg_sys::NewGUCNestLevel());
            pg_sys::set_config_option(
                name.as_ptr(),
                value.as_ptr(),
                pg_sys::GucContext::PGC_USERSET,
                pg_sys::GucSource::PGC_S_SESSION,
                pg_sys::GucAction::GUC_ACTION_SAVE,
                true,
                0,
                false,
            );
        }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // While an error unwinds, the abort of the (sub)transaction puts the settings back.
        if let Some(level) = self.level.filter(|_| !std::thread::panicking()) {
            // SAFETY: the level that `set` opened.
            unsafe { pg_sys::AtEOXact_GUC(true, level) };
        }
    }
}
