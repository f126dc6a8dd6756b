//! The one error type of the pure rooms: what was wrong with an input, and what to do about it.
//!
//! HTTP failures are not errors, they are [outcomes](crate::outcome). Only `pg::report` knows SQLSTATEs; here a
//! [`Kind`] says in words when the error happens.

use std::fmt;

/// When an error happens. `pg::report` maps each kind to one SQLSTATE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// A parameter has a value that can never be right.
    InvalidValue,
    /// A null where a value is needed.
    NullValue,
    /// A name that must be unique is taken.
    Duplicate,
    /// Something that was named does not exist.
    Undefined,
    /// A column that was named does not exist.
    UndefinedColumn,
    /// A function that was named does not exist.
    UndefinedFunction,
    /// The object exists but is of a kind that cannot be used here.
    WrongObject,
    /// The caller may not do this.
    NotAllowed,
    /// The object is in a state that does not allow this now.
    WrongState,
}

/// A rejected input: one line that says what is wrong, the offending value, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// When this happens.
    pub kind: Kind,
    /// One line, lower case, without the value.
    pub message: String,
    /// The offending value. Never a secret.
    pub detail: Option<String>,
    /// What to do.
    pub hint: Option<String>,
}

impl Error {
    /// An error without detail or hint.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), detail: None, hint: None }
    }

    /// A value that can never be right.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::InvalidValue, message)
    }

    /// Adds the offending value.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Adds what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// Shorthand for results of the pure rooms.
pub type Result<T> = std::result::Result<T, Error>;
