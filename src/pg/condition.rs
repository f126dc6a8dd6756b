//! A condition that the caller gave: the text of an SQL expression.

use std::ffi::CString;

use pgrx::pg_sys::panic::{CaughtError, ErrorReport};
use pgrx::prelude::*;

use super::encoding::{Text, message};
use crate::error::{Error, Result};

/// A text that PostgreSQL's parser takes for one expression. So it has balanced parentheses, quotes and comments and no
/// semicolon, and cannot leave the parentheses that it is put into.
pub(super) struct Condition {
    text: Text,
    hint: &'static str,
}

impl Condition {
    /// Checks a text. `hint` goes with every error about it.
    ///
    /// # Errors
    /// 22023 for no text at all; what the parser says of a wrong one is raised with a DETAIL and the hint.
    pub(super) fn parse(text: Text, hint: &'static str) -> Result<Self> {
        let zero =
            CString::new(text.bytes()).map_err(|_| Error::invalid("condition contains a zero byte"))?;
        if text.plain().trim().is_empty() {
            return Err(Error::invalid("condition is empty").hint("Leave it out for everything."));
        }
        let condition = Self { text, hint };
        condition.explaining(|| {
            // SAFETY: a NUL-terminated text; the boundary turns errors into unwinding.
            unsafe { pg_sys::raw_parser(zero.as_ptr(), pg_sys::RawParseMode::RAW_PARSE_PLPGSQL_EXPR) }
        });
        Ok(condition)
    }

    /// The text. It may end with a comment: what follows it needs a line of its own.
    pub(super) fn text(&self) -> &Text {
        &self.text
    }

    /// Runs `act`; an error of PostgreSQL's gets the condition as DETAIL, and advice.
    pub(super) fn explaining<T>(&self, act: impl FnOnce() -> T) -> T {
        let (detail, hint) = (message(format!("The condition is {:?}.", self.text.plain())), self.hint);
        PgTryBuilder::new(std::panic::AssertUnwindSafe(act))
            .catch_others(move |error| {
                let (CaughtError::PostgresError(report)
                | CaughtError::ErrorReport(report)
                | CaughtError::RustPanic { ereport: report, .. }) = &error;
                ErrorReport::new(report.sql_error_code(), message(report.message().to_owned()), "webhook_pg")
                    .set_detail(detail.clone())
                    .set_hint(hint)
                    .report(PgLogLevel::ERROR);
                error.rethrow()
            })
            .execute()
    }
}
