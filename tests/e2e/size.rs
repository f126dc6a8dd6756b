//! How much of a scenario is run: what every change can wait for, or all of it; and what this machine has no means for.

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::Mutex;

/// The first number usually, the second with `WEBHOOK_E2E_FULL=1` in the environment.
pub fn size<T>(usual: T, full: T) -> T {
    if std::env::var_os("WEBHOOK_E2E_FULL").is_some() { full } else { usual }
}

/// Says what is left out, once, which scripts/test repeats. Straight to standard error: the output of tests that pass is not shown.
pub fn not_tested(what: &str) {
    static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    if SAID.lock().is_ok_and(|mut said| said.insert(what.to_owned())) {
        let _ = std::io::stderr().write_all(format!("NOT TESTED: {what}\n").as_bytes());
    }
}
