//! In-server tests of the SQL functions: one promise each. Every test runs in a transaction that is rolled back.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "clippy takes #[pg_test] functions for production code"
)]

mod attach;
mod backfill;
mod capture;
mod changes;
mod configurations;
mod endpoints;
mod events;
mod expand;
mod hostile;
mod privileges;
mod replay;
mod statements;
mod status;
mod values;

use std::sync::atomic::{AtomicBool, Ordering};

use pgrx::prelude::*;

/// The one value that a query answers.
fn one<T: FromDatum + IntoDatum>(query: &str) -> T {
    maybe(query).unwrap_or_else(|| panic!("null from {query}"))
}

/// The tests share one database, and with it names of tables, roles and endpoints: one at a time, or they deadlock. Each has
/// a backend of its own.
fn alone() {
    static ALONE: AtomicBool = AtomicBool::new(false);
    if !ALONE.swap(true, Ordering::Relaxed) {
        Spi::run("SELECT pg_advisory_xact_lock(1)").unwrap();
    }
}

/// The one value that a query answers, or null.
fn maybe<T: FromDatum + IntoDatum>(query: &str) -> Option<T> {
    alone();
    Spi::get_one(query).unwrap_or_else(|e| panic!("{e} from {query}"))
}

fn run(statement: &str) {
    alone();
    Spi::run(statement).unwrap_or_else(|e| panic!("{e} from {statement}"));
}

/// The SQLSTATE that a statement ends with, 00000 if it succeeds. A failed statement is undone.
fn sqlstate(statement: &str) -> String {
    run("CREATE OR REPLACE FUNCTION pg_temp.sqlstate_of(statement text) RETURNS text LANGUAGE plpgsql AS $$
         BEGIN
             EXECUTE statement;
             RETURN '00000';
         EXCEPTION WHEN OTHERS THEN
             RETURN SQLSTATE;
         END $$");
    Spi::get_one_with_args("SELECT pg_temp.sqlstate_of($1)", &[statement.into()]).unwrap().unwrap()
}

/// Registers an endpoint of this name, with further parameters.
fn register(name: &str, parameters: &str) -> i64 {
    one(&format!(
        "SELECT id FROM webhook_register('https://example.com/hook', name => '{name}' {parameters})"
    ))
}

/// Everything that registration may write.
fn written() -> String {
    one("SELECT concat((SELECT json_agg(e) FROM webhook.endpoint e), (SELECT json_agg(s) FROM webhook.endpoint_secret s),
                       (SELECT json_agg(p) FROM webhook.position p), (SELECT json_agg(d) FROM webhook.delivery d),
                       (SELECT json_agg(o) FROM webhook.outbox o))")
}

/// A table of contacts, attached, and an endpoint that wants everything.
fn contacts() {
    register("all", "");
    run("CREATE TABLE contact (id bigint PRIMARY KEY, name text, age int);
         SELECT webhook_attach('contact')");
}

/// The events of the outbox, one a line: type, key, data, previous.
fn events() -> Vec<String> {
    one::<Vec<String>>(
        "SELECT coalesce(array_agg(concat_ws(' ', type, key, data, previous) ORDER BY xid, seq), '{}')
           FROM webhook.outbox",
    )
}

fn types() -> String {
    maybe::<String>("SELECT string_agg(type, ' ' ORDER BY xid, seq) FROM webhook.outbox").unwrap_or_default()
}
