//! `webhook_attach` and `webhook_detach`: which tables are captured, and how.
//!
//! Triggers are created and dropped as the caller, so that PostgreSQL itself checks the right to do so; the attachment's
//! row is written as the owner of the private tables, after that right was checked here too.

use pgrx::Spi;
use pgrx::datum::DatumWithOid;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use super::condition::Condition;
use super::encoding::{self, Jsonb, Text};
use super::expansion;
use super::report::spi;
use super::table::{Table, as_owner};
use super::triggers::{self, Triggers};
use crate::error::{Error, Kind, Result};
use crate::event::{Operation, Pattern};

const UPSERT: &str = include_str!("../../sql/statements/attachment_upsert.sql");
const DELETE: &str = include_str!("../../sql/statements/attachment_delete.sql");

const CONDITION_HINT: &str = "Write an expression over OLD and NEW, such as NEW.status IS DISTINCT FROM OLD.status. An insert has no OLD and a delete no \
     NEW: name the actions that the condition fits.";

type Names = Option<Vec<Option<Text>>>;

/// Captures a table's changes as events of a resource, and answers the attachment's id.
///
/// # Errors
/// 22023 for wrong values, 42703 for unknown columns, 42809 for objects whose changes cannot be captured, 42501 without the
/// TRIGGER right on the table; for `expand` see [`expansion::read`].
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
    let actions = parse_actions(names("actions", actions)?)?;
    let table = Table::find(table_name)?;
    table.check_kind()?;
    table.check_trigger_right()?;
    let resource = resource.unwrap_or_else(|| table.name.clone());
    check_resource(&resource.plain())?;
    check_as_action(as_action.as_ref().map(Text::plain).as_deref())?;
    let condition = condition.map(|text| Condition::parse(text, CONDITION_HINT)).transpose()?;
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
    let expand =
        expand.map(|Jsonb(value)| expansion::read(&value, table.oid)).transpose()?.unwrap_or_default();
    if table.unlogged() {
        ereport!(
            WARNING,
            PgSqlErrorCode::ERRCODE_WARNING,
            encoding::message(format!("table {} is unlogged", table.qualified.plain())),
            "A crash empties the table without raising events, while the events of its changes survive."
        );
    }

    if table.has_children() {
        ereport!(
            NOTICE,
            PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION,
            encoding::message(format!(
                "tables that inherit from {} are captured only where they are attached themselves",
                table.qualified.plain()
            ))
        );
    }

    let always = always.unwrap_or(false);
    let words: Vec<&str> = actions.iter().map(|action| action.as_str()).collect();
    let id = as_owner(|| {
        Spi::connect_mut(|client| {
            let arguments: [DatumWithOid; 13] = [
                table.oid.into(),
                resource.into(),
                as_action.into(),
                words.into(),
                key.into(),
                columns.into(),
                exclude.into(),
                watch.into(),
                condition.as_ref().map(|condition| condition.text().clone()).into(),
                always.into(),
                expand.names.into(),
                expand.sources.into(),
                expand.path.into(),
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
