//! A library and SQL objects that are not of one version: after an upgrade of the one, before that of the other.
//!
//! Writers do not care: capture finds columns by their names and leaves out what is not there. The worker relies on the whole
//! schema, and pauses until the versions fit.

use pgrx::prelude::*;

use super::statement::Statement;
use super::transaction::transaction;

/// The version of the SQL objects that this library serves: what `webhook.schema_version()` answers in `sql/install/copies.sql`.
const SCHEMA: i32 = 1;

/// Fails, in a sentence, unless the SQL objects of this database are the ones that this library serves.
///
/// # Errors
/// What to do about it.
pub(super) fn check() -> Result<(), String> {
    let statement = Statement::new(include_str!("../../sql/statements/schema_version.sql"));
    let found = transaction(|| {
        Spi::connect(|client| statement.read(client, &[]).and_then(|table| table.first().get_one::<i32>()))
            .map_err(|error| error.to_string())
    });
    match found?.unwrap_or(0) {
        SCHEMA => Ok(()),
        older @ ..SCHEMA => Err(format!(
            "nothing is sent: the SQL objects (version {older}) are older than the library ({SCHEMA}); ALTER EXTENSION webhook_pg \
             UPDATE"
        )),
        newer => Err(format!(
            "nothing is sent: the SQL objects (version {newer}) are newer than the library ({SCHEMA}); install the new library and \
             restart PostgreSQL"
        )),
    }
}
