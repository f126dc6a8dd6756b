//! A table that the caller named, and what is asked of it before it is attached or read.

use std::ffi::CStr;

use pgrx::prelude::*;

use super::encoding::Text;
use crate::error::{Error, Kind, Result};

unsafe extern "C-unwind" {
    /// catalog/pg_inherits.h
    fn has_subclass(relationId: pg_sys::Oid) -> bool;
}

/// A table as the caller named it.
pub(super) struct Table {
    pub(super) oid: pg_sys::Oid,
    /// Its bare name.
    pub(super) name: Text,
    /// Its name with its schema, quoted.
    pub(super) qualified: Text,
}

impl Table {
    pub(super) fn find(oid: Option<pg_sys::Oid>) -> Result<Self> {
        let oid = oid.ok_or_else(|| Error::invalid("table_name is null"))?;
        // SAFETY: catalog lookups; the names are copied at once.
        unsafe {
            let name = pg_sys::get_rel_name(oid);
            let schema = pg_sys::get_namespace_name(pg_sys::get_rel_namespace(oid));
            if name.is_null() || schema.is_null() {
                return Err(Error::new(Kind::Undefined, "the table does not exist")
                    .detail(format!("Its oid is {}.", oid.to_u32())));
            }
            let qualified = pg_sys::quote_qualified_identifier(schema, name);
            let copy = |text: *const std::ffi::c_char| Text::stored(CStr::from_ptr(text));
            Ok(Self { oid, name: copy(name), qualified: copy(qualified) })
        }
    }

    fn refuse(&self, reason: &str, advice: &str) -> Error {
        Error::new(Kind::WrongObject, format!("changes of {} cannot be captured", self.qualified.plain()))
            .detail(reason)
            .hint(advice)
    }

    /// Refuses what has no row triggers, or whose rows are not the database's own.
    pub(super) fn check_kind(&self) -> Result<()> {
        // SAFETY: catalog lookups.
        let (kind, persistence, schema) = unsafe {
            let schema = pg_sys::get_namespace_name(pg_sys::get_rel_namespace(self.oid));
            let ours = !schema.is_null() && CStr::from_ptr(schema) == c"webhook";
            (pg_sys::get_rel_relkind(self.oid) as u8, pg_sys::get_rel_persistence(self.oid) as u8, ours)
        };
        let own = "Attach a table of your own.";
        let (reason, advice) = match kind {
            _ if self.oid.to_u32() < pg_sys::FirstNormalObjectId => ("It is a system catalog.", own),
            _ if schema => ("It belongs to webhook_pg.", own),
            b'v' => ("It is a view.", "Attach the tables behind it."),
            b'm' => ("It is a materialized view.", "Attach the tables behind it."),
            b'f' => {
                ("It is a foreign table: its rows change elsewhere.", "Attach the table where it is stored.")
            }
            b'r' | b'p' if persistence == b't' => {
                ("It is a temporary table.", "Attach a permanent table, or call webhook_send().")
            }
            b'r' | b'p' => return Ok(()),
            _ => ("It is not a table.", own),
        };
        Err(self.refuse(reason, advice))
    }

    /// Whether tables inherit from it; partitions are not meant, they are part of it.
    pub(super) fn has_children(&self) -> bool {
        // SAFETY: catalog lookups; like PostgreSQL's own flag it may say yes when the last child is gone.
        unsafe {
            pg_sys::get_rel_relkind(self.oid) as u8 == b'r'
                && pg_sys::ffi::pg_guard_ffi_boundary(|| has_subclass(self.oid))
        }
    }

    pub(super) fn unlogged(&self) -> bool {
        // SAFETY: a catalog lookup.
        unsafe { pg_sys::get_rel_persistence(self.oid) as u8 == b'u' }
    }

    /// The right that CREATE TRIGGER wants, checked before anything is locked or written.
    pub(super) fn check_trigger_right(&self) -> Result<()> {
        // SAFETY: catalog lookups.
        let answer = unsafe {
            pg_sys::pg_class_aclcheck(
                self.oid,
                pg_sys::GetUserId(),
                pg_sys::AclMode::from(pg_sys::ACL_TRIGGER),
            )
        };
        if answer == pg_sys::AclResult::ACLCHECK_OK {
            return Ok(());
        }
        Err(Error::new(Kind::NotAllowed, format!("permission denied for table {}", self.qualified.plain()))
            .hint("Attaching a table needs the TRIGGER right on it."))
    }

    pub(super) fn check_owner(&self) -> Result<()> {
        // SAFETY: catalog lookups.
        let owner = unsafe {
            #[cfg(feature = "pg15")]
            let owner = pg_sys::pg_class_ownercheck(self.oid, pg_sys::GetUserId());
            #[cfg(not(feature = "pg15"))]
            let owner = pg_sys::object_ownercheck(pg_sys::RelationRelationId, self.oid, pg_sys::GetUserId());
            owner
        };
        if owner {
            return Ok(());
        }
        Err(Error::new(Kind::NotAllowed, format!("must be owner of table {}", self.qualified.plain()))
            .hint("Only the owner of a table may drop its triggers."))
    }

    /// Takes the lock of CREATE TRIGGER, so that two attach calls for one table do not cross, and columns stay.
    pub(super) fn lock(&self) {
        // SAFETY: locks by oid until the end of the transaction.
        unsafe { pg_sys::LockRelationOid(self.oid, pg_sys::ShareRowExclusiveLock as pg_sys::LOCKMODE) };
    }

    pub(super) fn check_columns(&self, names: &[Text]) -> Result<()> {
        for name in names {
            let known = std::ffi::CString::new(name.bytes()).is_ok_and(|text| {
                // SAFETY: a catalog lookup; system columns have negative numbers, dropped ones are not found.
                unsafe { pg_sys::get_attnum(self.oid, text.as_ptr()) > 0 }
            });
            if !known {
                return Err(Error::new(Kind::UndefinedColumn, "unknown column")
                    .detail(format!("Table {} has no column {:?}.", self.qualified.plain(), name.plain()))
                    .hint(
                        "Name columns as they are stored: in lower case unless they were created in quotes.",
                    ));
            }
        }
        Ok(())
    }
}

/// Runs as the owner of the private tables.
pub(super) fn as_owner<T>(act: impl FnOnce() -> T) -> T {
    struct Back(pg_sys::Oid, std::ffi::c_int);
    impl Drop for Back {
        fn drop(&mut self) {
            // SAFETY: what GetUserIdAndSecContext said.
            unsafe { pg_sys::SetUserIdAndSecContext(self.0, self.1) };
        }
    }
    let mut back = Back(pg_sys::InvalidOid, 0);
    // SAFETY: the owner comes from the catalog; `back` restores the user even when an error unwinds.
    unsafe {
        let schema = pg_sys::get_namespace_oid(c"webhook".as_ptr(), false);
        let attachment = pg_sys::get_relname_relid(c"attachment".as_ptr(), schema);
        let relation = pg_sys::table_open(attachment, pg_sys::RowExclusiveLock as pg_sys::LOCKMODE);
        let owner = (*(*relation).rd_rel).relowner;
        pg_sys::table_close(relation, pg_sys::NoLock as pg_sys::LOCKMODE);
        pg_sys::GetUserIdAndSecContext(&mut back.0, &mut back.1);
        pg_sys::SetUserIdAndSecContext(
            owner,
            back.1 | (pg_sys::SECURITY_LOCAL_USERID_CHANGE | pg_sys::SECURITY_RESTRICTED_OPERATION) as i32,
        );
    }
    act()
}
