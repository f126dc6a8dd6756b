//! `webhook_attach` and `webhook_detach`: which tables are captured, and how.
//!
//! Triggers are created and dropped as the caller, so that PostgreSQL itself checks the right to do so; the attachment's
//! row is written as the owner of the private tables, after that right was checked here too.

use std::ffi::CStr;

use pgrx::Spi;
use pgrx::datum::DatumWithOid;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use super::encoding::{self, Jsonb, Text};
use super::triggers::{self, Triggers};
use crate::error::{Error, Kind, Result};
use crate::event::{Operation, Pattern};

const UPSERT: &str = include_str!("../../sql/statements/attachment_upsert.sql");
const DELETE: &str = include_str!("../../sql/statements/attachment_delete.sql");

type Names = Option<Vec<Option<Text>>>;

/// Captures a table's changes as events of a resource, and answers the attachment's id.
///
/// # Errors
/// 22023 for wrong values, 42703 for unknown columns, 42809 for objects whose changes cannot be captured, 42501 without the
/// TRIGGER right on the table, 0A000 for what a later version brings.
#[pg_extern(sql = false)]
#[allow(clippy::too_many_arguments)] // the SQL contract
fn webhook_attach(
    table_name: Option<pg_sys::Oid>,
    resource: Option<Text>,
    actions: Names,
    key: Names,
    columns: Names,
    exclude: Names,
    watch: Names,
    condition: Option<Text>,
    expand: Option<Jsonb>,
    as_action: Option<Text>,
    always: Option<bool>,
) -> std::result::Result<i64, ErrorReport> {
    let expands = expand.is_some_and(|Jsonb(value)| value.as_object().is_none_or(|map| !map.is_empty()));
    if expands {
        return Err(Error::new(Kind::NotSupported, "expand is not supported yet").into());
    }
    let actions = parse_actions(names("actions", actions)?)?;
    let table = Table::find(table_name)?;
    table.check_kind()?;
    table.check_trigger_right()?;
    let resource = resource.unwrap_or_else(|| table.name.clone());
    check_resource(&resource.plain())?;
    check_as_action(as_action.as_ref().map(Text::plain).as_deref())?;
    if let Some(condition) = &condition {
        triggers::check_condition(condition)?;
    }
    let columns = match names("columns", columns)? {
        Some(list) if list.is_empty() => return Err(Error::invalid("columns is empty").into()),
        list => list,
    };
    let (key, watch) = (names("key", key)?, names("watch", watch)?);
    if key.as_ref().is_some_and(Vec::is_empty) {
        return Err(Error::invalid("key is empty").hint("Leave it out for the primary key.").into());
    }
    if watch.as_ref().is_some_and(Vec::is_empty) {
        return Err(Error::invalid("watch is empty").hint("Leave it out to watch all columns.").into());
    }
    let exclude = names("exclude", exclude)?.unwrap_or_default();
    table.lock();
    for list in [key.as_ref(), columns.as_ref(), Some(&exclude), watch.as_ref()].into_iter().flatten() {
        table.check_columns(list)?;
    }
    if table.unlogged() {
        ereport!(
            WARNING,
            PgSqlErrorCode::ERRCODE_WARNING,
            encoding::message(format!("table {} is unlogged", table.qualified.plain())),
            "A crash empties the table without raising events, while the events of its changes survive."
        );
    }

    let always = always.unwrap_or(false);
    let words: Vec<&str> = actions.iter().map(|action| action.as_str()).collect();
    let id = as_owner(|| {
        Spi::connect_mut(|client| {
            let arguments: [DatumWithOid; 10] = [
                table.oid.into(),
                resource.into(),
                as_action.into(),
                words.into(),
                key.into(),
                columns.into(),
                exclude.into(),
                watch.into(),
                condition.clone().into(),
                always.into(),
            ];
            client.update(UPSERT, Some(1), &arguments)?.first().get_one::<i64>()
        })
    })
    .map_err(spi)?
    .ok_or_else(|| Error::new(Kind::WrongState, "the attachment was not stored"))?;

    triggers::create(&Triggers {
        id,
        table: table.oid,
        qualified: &table.qualified,
        actions: &actions,
        condition: condition.as_ref(),
        always,
    })?;
    Ok(id)
}

/// Ends the capture of a table: of one resource or action, or of all without names. Answers how many attachments ended.
///
/// # Errors
/// 42501 for anyone but the table's owner, who alone may drop triggers.
#[pg_extern(sql = false)]
fn webhook_detach(
    table_name: Option<pg_sys::Oid>,
    resource: Option<Text>,
    as_action: Option<Text>,
) -> std::result::Result<i32, ErrorReport> {
    let table = Table::find(table_name)?;
    table.check_owner()?;
    let ids: Vec<i64> = as_owner(|| {
        Spi::connect_mut(|client| {
            let arguments: [DatumWithOid; 3] = [table.oid.into(), resource.into(), as_action.into()];
            client
                .update(DELETE, None, &arguments)?
                .filter_map(|row| row.get::<i64>(1).transpose())
                .collect::<std::result::Result<_, _>>()
        })
    })
    .map_err(spi)?;
    for id in &ids {
        triggers::drop_all(*id, table.oid, &table.qualified)?;
    }
    Ok(i32::try_from(ids.len()).unwrap_or(i32::MAX))
}

/// Our own statements fail only where PostgreSQL raised an error, which never comes back as a value.
pub(super) fn spi(error: pgrx::spi::Error) -> ErrorReport {
    Error::new(Kind::WrongState, format!("webhook_pg: {error}")).into()
}

/// A list of names without nulls.
fn names(parameter: &str, list: Names) -> Result<Option<Vec<Text>>> {
    list.map(|list| {
        list.into_iter()
            .collect::<Option<Vec<Text>>>()
            .ok_or_else(|| Error::invalid(format!("{parameter} contains a null")))
    })
    .transpose()
}

fn parse_actions(words: Option<Vec<Text>>) -> Result<Vec<Operation>> {
    let words = words.unwrap_or_default();
    if words.is_empty() {
        return Err(
            Error::invalid("actions is empty").hint("Name some of created, updated, deleted and truncated.")
        );
    }
    let mut actions = Vec::new();
    for word in words.iter().map(Text::plain) {
        match Operation::parse(&word) {
            Some(action) if actions.contains(&action) => {}
            Some(action) => actions.push(action),
            None => {
                return Err(Error::invalid("unknown action")
                    .detail(format!("The action is {word:?}."))
                    .hint("A table's changes are created, updated, deleted and truncated."));
            }
        }
    }
    Ok(actions)
}

/// A resource must make event types that endpoints can name in a pattern.
fn check_resource(resource: &str) -> Result<()> {
    if resource.is_empty() {
        return Err(Error::invalid("resource is empty"));
    }
    if resource.contains('*') || Pattern::parse(&format!("{resource}.created")).is_err() {
        return Err(Error::invalid("resource cannot be part of an event type")
            .detail(format!("The resource is {resource:?}."))
            .hint("Give a resource without white space, control characters and asterisks."));
    }
    Ok(())
}

/// What the changes are called, if not by their operation: the part of the event type after its last dot.
fn check_as_action(as_action: Option<&str>) -> Result<()> {
    match as_action {
        Some(action) if action.contains(['.', '*']) || Pattern::parse(&format!("x.{action}")).is_err() => {
            Err(Error::invalid("as_action cannot be part of an event type")
                .detail(format!("The action is {action:?}."))
                .hint("Give a word without dots, white space, control characters and asterisks."))
        }
        _ => Ok(()),
    }
}

/// A table as the caller named it.
struct Table {
    oid: pg_sys::Oid,
    /// Its bare name.
    name: Text,
    /// Its name with its schema, quoted.
    qualified: Text,
}

impl Table {
    fn find(oid: Option<pg_sys::Oid>) -> Result<Self> {
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

    fn refuse(&self, reason: &str) -> Error {
        Error::new(Kind::WrongObject, format!("changes of {} cannot be captured", self.qualified.plain()))
            .detail(reason)
    }

    /// Refuses what has no row triggers, or whose rows are not the database's own.
    fn check_kind(&self) -> Result<()> {
        // SAFETY: catalog lookups.
        let (kind, persistence, schema) = unsafe {
            let schema = pg_sys::get_namespace_name(pg_sys::get_rel_namespace(self.oid));
            let ours = !schema.is_null() && CStr::from_ptr(schema) == c"webhook";
            (pg_sys::get_rel_relkind(self.oid) as u8, pg_sys::get_rel_persistence(self.oid) as u8, ours)
        };
        let reason = match kind {
            _ if self.oid.to_u32() < pg_sys::FirstNormalObjectId => "It is a system catalog.",
            _ if schema => "It belongs to webhook_pg.",
            b'v' => "It is a view: attach the tables behind it.",
            b'm' => "It is a materialized view.",
            b'f' => "It is a foreign table: its rows change elsewhere.",
            b'r' | b'p' if persistence == b't' => "It is a temporary table.",
            b'r' | b'p' => return Ok(()),
            _ => "It is not a table.",
        };
        Err(self.refuse(reason))
    }

    fn unlogged(&self) -> bool {
        // SAFETY: a catalog lookup.
        unsafe { pg_sys::get_rel_persistence(self.oid) as u8 == b'u' }
    }

    /// The right that CREATE TRIGGER wants, checked before anything is locked or written.
    fn check_trigger_right(&self) -> Result<()> {
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

    fn check_owner(&self) -> Result<()> {
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
    fn lock(&self) {
        // SAFETY: locks by oid until the end of the transaction.
        unsafe { pg_sys::LockRelationOid(self.oid, pg_sys::ShareRowExclusiveLock as pg_sys::LOCKMODE) };
    }

    fn check_columns(&self, names: &[Text]) -> Result<()> {
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
fn as_owner<T>(act: impl FnOnce() -> T) -> T {
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
