//! Errors at the SQL border: the only file that knows SQLSTATEs.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use super::encoding::message;
use crate::error::{Error, Kind};

fn sqlstate(kind: Kind) -> PgSqlErrorCode {
    match kind {
        Kind::InvalidValue => PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
        Kind::NullValue => PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED,
        Kind::Duplicate => PgSqlErrorCode::ERRCODE_DUPLICATE_OBJECT,
        Kind::Undefined => PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
        Kind::UndefinedColumn => PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
        Kind::UndefinedFunction => PgSqlErrorCode::ERRCODE_UNDEFINED_FUNCTION,
        Kind::WrongObject => PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE,
        Kind::NotAllowed => PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
        Kind::WrongState => PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
    }
}

/// The error as PostgreSQL reports it. `#[pg_extern]` functions return it as their error type, which keeps SQLSTATE,
/// DETAIL and HINT; any other error type would come out as 22000.
impl From<Error> for ErrorReport {
    fn from(error: Error) -> Self {
        let mut report = ErrorReport::new(sqlstate(error.kind), message(error.message), "webhook_pg");
        if let Some(detail) = error.detail {
            report = report.set_detail(message(detail));
        }
        if let Some(hint) = error.hint {
            report = report.set_hint(message(hint));
        }
        report
    }
}

/// Our own statements fail only where PostgreSQL raised an error, which never comes back as a value.
pub(super) fn spi(error: pgrx::spi::Error) -> ErrorReport {
    Error::new(Kind::WrongState, format!("webhook_pg: {error}")).into()
}
