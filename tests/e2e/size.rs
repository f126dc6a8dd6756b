//! How much of a scenario is run: what every change can wait for, or all of it.

/// The first number usually, the second with `WEBHOOK_E2E_FULL=1` in the environment.
pub fn size<T>(usual: T, full: T) -> T {
    if std::env::var_os("WEBHOOK_E2E_FULL").is_some() { full } else { usual }
}
