//! The databases of the cluster, and which of them `webhook_pg.databases` wants served.

use std::ffi::CStr;

use pgrx::prelude::*;

use super::guc;
use super::transaction::transaction;

/// A row of pg_database.
#[derive(Debug, Clone)]
pub struct Database {
    /// Its oid.
    pub oid: u32,
    /// Its name, as bytes: the encoding of a name is that of the database it was given in.
    pub name: Vec<u8>,
    /// Sessions may connect to it, and it is not half dropped.
    pub connectable: bool,
}

impl Database {
    /// Its name for people.
    pub fn shown(&self) -> String {
        String::from_utf8_lossy(&self.name).into_owned()
    }
}

/// `datconnlimit` of a database whose DROP DATABASE was interrupted.
const INVALID: i32 = -2;

/// All databases.
///
/// # Errors
/// What PostgreSQL says, in one line.
pub fn all() -> Result<Vec<Database>, String> {
    transaction(|| {
        let mut found = Vec::new();
        let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
        // SAFETY: a scan of a shared catalog in an open transaction, closed in the order it was opened; rows are copied.
        unsafe {
            let catalog = pg_sys::table_open(pg_sys::DatabaseRelationId, lock);
            let (whole, newest) = (std::ptr::null_mut(), std::ptr::null_mut());
            let scan = pg_sys::systable_beginscan(catalog, pg_sys::InvalidOid, false, newest, 0, whole);
            loop {
                let tuple = pg_sys::systable_getnext(scan);
                if tuple.is_null() {
                    break;
                }
                let row = (*tuple).t_data.cast::<u8>().add(usize::from((*(*tuple).t_data).t_hoff));
                let row = &*row.cast::<pg_sys::FormData_pg_database>();
                found.push(Database {
                    oid: row.oid.to_u32(),
                    name: CStr::from_ptr(row.datname.data.as_ptr()).to_bytes().to_vec(),
                    connectable: row.datallowconn && row.datconnlimit != INVALID,
                });
            }
            pg_sys::systable_endscan(scan);
            pg_sys::table_close(catalog, lock);
        }
        Ok(found)
    })
}

/// The names in `webhook_pg.databases`; none means all databases.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Wanted(Vec<Vec<u8>>);

impl Wanted {
    /// As the setting is now.
    pub fn now() -> Self {
        Self::parse(guc::databases().as_deref().map(CStr::to_bytes).unwrap_or_default())
    }

    fn parse(list: &[u8]) -> Self {
        let names = list.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        let names: Vec<Vec<u8>> = names.filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect();
        if names.iter().any(|name| name == b"*") { Self::default() } else { Self(names) }
    }

    /// Whether this database is wanted.
    pub fn has(&self, name: &[u8]) -> bool {
        self.0.is_empty() || self.0.iter().any(|wanted| wanted == name)
    }

    /// Those that cannot be served, each with the reason.
    pub fn hopeless(&self, databases: &[Database]) -> Vec<String> {
        let trouble = |name: &Vec<u8>| {
            let reason = match databases.iter().find(|database| database.name == *name) {
                None => "does not exist",
                Some(database) if !database.connectable => "does not allow connections",
                Some(_) => return None,
            };
            Some(format!("\"{}\" {reason}", String::from_utf8_lossy(name)))
        };
        self.0.iter().filter_map(trouble).collect()
    }
}
