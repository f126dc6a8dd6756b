//! Whether the extension is in this database, and belongs to it. For a process with an open transaction.

use std::ffi::CStr;

use pgrx::prelude::*;

use super::statement::Statement;
use super::transaction::limit_waiting;

/// Oid of `webhook.endpoint`, if the extension is installed here.
pub(super) fn endpoint_table() -> Option<u32> {
    private_table(c"endpoint")
}

/// The same where this table was served a moment ago, without a doubt: a commit shows itself before it tells others to forget what
/// they know, and lets go of its locks after that. Waits for who has the table locked, as DROP EXTENSION does, for a moment, and
/// then raises.
pub(super) fn endpoint_table_after(table: u32) -> Option<u32> {
    limit_waiting();
    // SAFETY: a transaction is open, whose end releases the lock; what is gone, or 0, may be locked, too.
    unsafe { pg_sys::LockRelationOid(pg_sys::Oid::from(table), pg_sys::AccessShareLock as pg_sys::LOCKMODE) };
    endpoint_table()
}

/// Oid of a private table, if the extension is installed here.
pub(super) fn private_table(name: &CStr) -> Option<u32> {
    // SAFETY: catalog look-ups by a process with an open transaction.
    let oid = unsafe {
        if pg_sys::get_extension_oid(c"webhook_pg".as_ptr(), true) == pg_sys::InvalidOid {
            return None;
        }
        pg_sys::get_relname_relid(name.as_ptr(), pg_sys::get_namespace_oid(c"webhook".as_ptr(), true))
    };
    Some(oid.to_u32()).filter(|&oid| oid != 0)
}

/// Whether the installation row names this cluster and this database.
///
/// # Errors
/// What PostgreSQL says, in one line.
pub(super) fn is_own_installation() -> Result<bool, String> {
    let statement = Statement::new(include_str!("../../sql/statements/installation.sql"));
    Spi::connect(|client| statement.read(client, &[]).and_then(|table| table.first().get_one::<bool>()))
        .map(|own| own.unwrap_or(false))
        .map_err(|error| error.to_string())
}
