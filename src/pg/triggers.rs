//! The triggers of an attachment, created and dropped as the caller.
//!
//! One serves all row operations, `webhook_pg_<id>`. A condition is the trigger's WHEN clause, in which INSERT has no OLD and DELETE
//! no NEW; so with a condition each row operation has a trigger of its own, `webhook_pg_<id>_<operation>`, and PostgreSQL says
//! which of them the condition does not fit. TRUNCATE has a statement trigger, `webhook_pg_<id>_truncated`.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use super::condition::Condition;
use super::encoding::{self, Text};
use super::report::spi;
use crate::event::Operation;

const CREATE: &str = include_str!("../../sql/statements/attach_trigger.sql");
const ENABLE_ALWAYS: &str = include_str!("../../sql/statements/attach_trigger_always.sql");
const DROP: &str = include_str!("../../sql/statements/detach_trigger.sql");
const EXISTING: &str = include_str!("../../sql/statements/attachment_triggers.sql");

/// What an attachment needs.
pub(super) struct Triggers<'a> {
    pub(super) id: i64,
    pub(super) table: pg_sys::Oid,
    /// The table's name with its schema, quoted.
    pub(super) qualified: &'a Text,
    pub(super) actions: &'a [Operation],
    pub(super) condition: Option<&'a Condition>,
    pub(super) always: bool,
}

/// Creates the triggers, and drops those that an earlier form of the attachment had.
pub(super) fn create(wanted: &Triggers<'_>) -> std::result::Result<(), ErrorReport> {
    let mut names = Vec::new();
    for (name, events, level) in wanted.list() {
        let when = wanted.condition.filter(|_| level == "ROW");
        // Its own line: it may end with a comment.
        let clause = when.map(|condition| [b"WHEN (", condition.text().bytes(), b"\n)"].concat());
        let values: [(&str, &[u8]); 5] = [
            ("trigger", name.as_bytes()),
            ("events", events.as_bytes()),
            ("table", wanted.qualified.bytes()),
            ("level", level.as_bytes()),
            ("when", clause.as_deref().unwrap_or_default()),
        ];
        let create = || run(CREATE, &values);
        when.map_or_else(create, |condition| condition.explaining(create)).map_err(spi)?;
        if wanted.always {
            run(ENABLE_ALWAYS, &values).map_err(spi)?;
        }
        names.push(name);
    }
    let old = existing(wanted.id, wanted.table).map_err(spi)?;
    for name in old.iter().filter(|name| !names.contains(name)) {
        drop_one(name, wanted.qualified)?;
    }
    Ok(())
}

/// Drops all triggers of an attachment.
pub(super) fn drop_all(
    id: i64,
    table: pg_sys::Oid,
    qualified: &Text,
) -> std::result::Result<(), ErrorReport> {
    existing(id, table).map_err(spi)?.iter().try_for_each(|name| drop_one(name, qualified))
}

fn drop_one(name: &str, qualified: &Text) -> std::result::Result<(), ErrorReport> {
    run(DROP, &[("trigger", name.as_bytes()), ("table", qualified.bytes())]).map_err(spi)
}

/// Runs a statement with these values in it, byte for byte: a name may have no equivalent in UTF-8.
fn run(statement: &str, values: &[(&str, &[u8])]) -> spi::Result<()> {
    let statement = encoding::statement(statement, values);
    Spi::connect_mut(|client| client.update(statement.as_c_str(), None, &[]).map(drop))
}

fn existing(id: i64, table: pg_sys::Oid) -> spi::Result<Vec<String>> {
    Spi::connect(|client| {
        client
            .select(EXISTING, None, &[table.into(), base_name(id).into()])?
            .filter_map(|row| row.get::<String>(1).transpose())
            .collect()
    })
}

/// How capture knows its attachment: see [`super::capture`].
fn base_name(id: i64) -> String {
    format!("webhook_pg_{id}")
}

impl Triggers<'_> {
    /// Name, events and level of each.
    fn list(&self) -> Vec<(String, String, &'static str)> {
        let base = base_name(self.id);
        let own = |operation: &Operation| format!("{base}_{}", operation.as_str());
        let (truncate, row): (Vec<Operation>, Vec<Operation>) =
            self.actions.iter().partition(|operation| **operation == Operation::Truncated);
        let mut list = Vec::new();
        if self.condition.is_some() {
            list.extend(row.iter().map(|operation| (own(operation), word(*operation).to_owned(), "ROW")));
        } else if !row.is_empty() {
            let words: Vec<&str> = row.iter().map(|operation| word(*operation)).collect();
            list.push((base.clone(), words.join(" OR "), "ROW"));
        }
        list.extend(
            truncate.iter().map(|operation| (own(operation), word(*operation).to_owned(), "STATEMENT")),
        );
        list
    }
}

fn word(operation: Operation) -> &'static str {
    match operation {
        Operation::Created => "INSERT",
        Operation::Updated => "UPDATE",
        Operation::Deleted => "DELETE",
        Operation::Truncated => "TRUNCATE",
    }
}
