//! The triggers of an attachment, created and dropped as the caller.
//!
//! One serves all row operations, `webhook_pg_<id>`. A condition is the trigger's WHEN clause, in which INSERT has no OLD and DELETE
//! no NEW; so with a condition each row operation has a trigger of its own, `webhook_pg_<id>_<operation>`, and PostgreSQL says
//! which of them the condition does not fit. TRUNCATE has a statement trigger, `webhook_pg_<id>_truncated`.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use super::attach::spi;
use super::condition::Condition;
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
    pub(super) qualified: &'a str,
    pub(super) actions: &'a [Operation],
    pub(super) condition: Option<&'a Condition>,
    pub(super) always: bool,
}

/// Creates the triggers, and drops those that an earlier form of the attachment had.
pub(super) fn create(wanted: &Triggers<'_>) -> std::result::Result<(), ErrorReport> {
    let mut names = Vec::new();
    for (name, events, level) in wanted.list() {
        let when = wanted.condition.filter(|_| level == "ROW");
        let fill = |statement: &str| {
            statement
                .replace("{trigger}", &name)
                .replace("{events}", &events)
                .replace("{table}", wanted.qualified)
                .replace("{level}", level)
                // Last, so that nothing in it is taken for a place of ours. Its own line: it may end with a comment.
                .replace(
                    "{when}",
                    &when.map(|condition| format!("WHEN ({}\n)", condition.text())).unwrap_or_default(),
                )
        };
        let run = || Spi::run(&fill(CREATE));
        when.map_or_else(run, |condition| condition.explaining(run)).map_err(spi)?;
        if wanted.always {
            Spi::run(&fill(ENABLE_ALWAYS)).map_err(spi)?;
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
pub(super) fn drop_all(id: i64, table: pg_sys::Oid, qualified: &str) -> std::result::Result<(), ErrorReport> {
    existing(id, table).map_err(spi)?.iter().try_for_each(|name| drop_one(name, qualified))
}

fn drop_one(name: &str, qualified: &str) -> std::result::Result<(), ErrorReport> {
    Spi::run(&DROP.replace("{trigger}", name).replace("{table}", qualified)).map_err(spi)
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
