//! Wrong input: the right SQLSTATE, a message of one line, the value in DETAIL, advice in HINT; and nothing changes.

use std::sync::{Arc, Mutex};

use postgres::error::DbError;

use crate::cluster::Cluster;
use crate::scene::Scene;

/// The error of a statement that must fail.
#[track_caller]
fn refused(sql: &str) -> DbError {
    let error = Cluster::shared().connect().batch_execute(sql).expect_err(sql);
    let error = error.as_db_error().unwrap_or_else(|| panic!("{sql}: {error:?}")).clone();
    assert!(!error.message().contains('\n'), "{sql}: the message has more than one line: {error:?}");
    error
}

/// Also checks that DETAIL shows the offending value and that there is a HINT.
#[track_caller]
fn assert_refused(sql: &str, code: &str, value: &str) {
    let error = refused(sql);
    assert_eq!(error.code().code(), code, "{sql}: {error:?}");
    let detail = error.detail().unwrap_or_default();
    assert!(detail.contains(value), "{sql}: {value:?} is not in the DETAIL {detail:?}");
    assert!(error.hint().is_some(), "{sql}: no HINT: {error:?}");
}

#[test]
fn a_bad_url_is_refused() {
    for url in
        ["not a url", "ftp://example.org/", "https://", "https://a:b@example.org/", "https://example.org/#x"]
    {
        let error = refused(&format!("SELECT webhook_register('{url}')"));
        assert_eq!(error.code().code(), "22023", "{url}: {error:?}");
        assert!(error.detail().is_some() || error.hint().is_some(), "{url}: {error:?}");
    }
}

#[test]
fn a_bad_event_pattern_is_refused() {
    assert_refused(
        "SELECT webhook_register('https://example.org/', '{con*.created}')",
        "22023",
        "con*.created",
    );
}

#[test]
fn a_bad_secret_is_refused_and_not_repeated() {
    let error = refused("SELECT webhook_register('https://example.org/', secret => 'hunter2')");
    assert_eq!(error.code().code(), "22023");
    assert!(!format!("{error:?}").contains("hunter2"), "the error shows the secret: {error:?}");
}

#[test]
fn what_does_not_go_together_is_refused() {
    for (options, value) in [
        ("format => 'cloudevents-binary', encoding => 'form'", "form"),
        ("format => 'cloudevents', method => 'GET'", "GET"),
        ("method => 'GET', encoding => 'xml'", "xml"),
        ("format => 'cloudevents-binary', headers => '{\"ce-id\": \"1\"}'", "ce-id"),
    ] {
        assert_refused(
            &format!("SELECT webhook_register('https://example.org/', {options})"),
            "22023",
            value,
        );
    }
}

#[test]
fn a_value_of_no_version_is_refused() {
    assert_refused("SELECT webhook_register('https://example.org/', method => 'BREW')", "22023", "BREW");
    assert_refused("SELECT webhook_register('https://example.org/', format => 'morse')", "22023", "morse");
    assert_refused("SELECT webhook_register('https://example.org/', max_attempts => 0)", "22023", "0");
}

#[test]
fn schedule_and_interval_together_are_refused() {
    let options = "attempt_interval => '1 s', retry_schedule => '{1 s}'";
    let error = refused(&format!("SELECT webhook_register('https://example.org/', {options})"));
    assert_eq!(error.code().code(), "22023", "{error:?}");
}

#[test]
fn a_name_that_is_taken_is_refused() {
    let _scene = Scene::accepting("errors_taken");
    assert_refused(
        "SELECT webhook_register('https://example.org/', name => 'errors_taken')",
        "42710",
        "errors_taken",
    );
}

#[test]
fn a_refused_update_changes_nothing() {
    let mut scene = Scene::accepting("errors_update");
    let before: String = snapshot(&mut scene);
    for (changes, value) in [
        (r#"{"max_attempts": 3, "retries": 5}"#, "retries"),
        (r#"{"max_attempts": 3, "method": "BREW"}"#, "BREW"),
        (r#"{"max_attempts": 3, "url": "nowhere"}"#, "nowhere"),
    ] {
        assert_refused(&format!("SELECT webhook_update({}, '{changes}')", scene.endpoint), "22023", value);
    }
    assert_eq!(snapshot(&mut scene), before);
}

#[test]
fn an_update_changes_what_it_names() {
    let mut scene = Scene::accepting("errors_updated");
    let (endpoint, changes) = (scene.endpoint, r#"{"max_attempts": 7, "name": "errors_renamed"}"#);
    scene.run(&format!("SELECT webhook_update({endpoint}, '{changes}')"));
    let query = format!(
        "SELECT count(*) FROM webhook.endpoints WHERE id = {endpoint} AND max_attempts = 7 AND name = 'errors_renamed'"
    );
    assert_eq!(scene.number(&query), 1);
    scene.fence(1);
}

fn snapshot(scene: &mut Scene<'_>) -> String {
    let query = "SELECT e::text FROM webhook.endpoints e WHERE id = $1";
    scene.client.query_one(query, &[&scene.endpoint]).unwrap().get(0)
}

#[test]
fn an_endpoint_that_does_not_exist_is_refused() {
    for function in ["webhook_pause", "webhook_resume", "webhook_unregister", "webhook_test"] {
        assert_refused(&format!("SELECT {function}(987654321)"), "42704", "987654321");
    }
}

#[test]
fn what_cannot_be_attached_is_refused_with_a_reason_and_advice() {
    for (make, table, reason, advice) in [
        ("CREATE VIEW errors_view AS SELECT 1 AS id", "errors_view", "is a view", "tables behind it"),
        ("CREATE MATERIALIZED VIEW errors_seen AS SELECT 1 AS id", "errors_seen", "is a materialized view", "tables behind it"),
        ("CREATE TEMP TABLE errors_temp (id int)", "errors_temp", "is a temporary table", "permanent table"),
        (
            "CREATE FOREIGN DATA WRAPPER errors_wrapper; CREATE SERVER errors_server FOREIGN DATA WRAPPER errors_wrapper;
             CREATE FOREIGN TABLE errors_foreign (id int) SERVER errors_server",
            "errors_foreign",
            "is a foreign table",
            "where it is stored",
        ),
        ("CREATE SEQUENCE errors_sequence", "errors_sequence", "is not a table", "table of your own"),
        ("CREATE TYPE errors_type AS (id int)", "errors_type", "is not a table", "table of your own"),
        ("SELECT", "webhook.outbox", "belongs to webhook_pg", "table of your own"),
        ("SELECT", "webhook.endpoints", "belongs to webhook_pg", "table of your own"),
        ("SELECT", "pg_catalog.pg_class", "is a system catalog", "table of your own"),
        ("SELECT", "information_schema.sql_features", "is a system catalog", "table of your own"),
    ] {
        // One transaction, so what was made is gone with the error.
        let sql = format!("{make}; SELECT webhook_attach('{table}')");
        assert_refused(&sql, "42809", reason);
        let error = refused(&sql);
        assert!(error.message().contains(table.rsplit('.').next().unwrap_or(table)), "{error:?}");
        assert!(error.hint().is_some_and(|hint| hint.contains(advice)), "{sql}: {error:?}");
    }
}

#[test]
fn a_column_that_does_not_exist_is_refused() {
    let _scene = Scene::accepting("errors_column");
    for argument in ["columns", "exclude", "watch", "key"] {
        assert_refused(
            &format!("SELECT webhook_attach('public.errors_column', {argument} => '{{absent}}')"),
            "42703",
            "absent",
        );
    }
}

#[test]
fn an_error_of_a_users_statement_keeps_all_that_postgresql_says_of_it() {
    let mut client = Cluster::shared().connect();
    client
        .batch_execute("CREATE TEMP TABLE a (id int PRIMARY KEY); CREATE TEMP TABLE b (a int REFERENCES a)")
        .unwrap();
    let mut error = |sql: &str| {
        let error = client.batch_execute(sql).expect_err(sql);
        error.as_db_error().unwrap_or_else(|| panic!("{sql}: {error:?}")).clone()
    };
    // A check at the end of a statement, a utility command, and a statement of a function.
    assert_eq!(error("INSERT INTO b VALUES (1)").constraint(), Some("b_a_fkey"));
    let unknown = error("CREATE TEMP TABLE c (x nosuchtype)");
    assert_eq!(unknown.position(), Some(&postgres::error::ErrorPosition::Original(24)));
    let context =
        error("DO $$ BEGIN INSERT INTO b VALUES (1); END $$").where_().unwrap_or_default().to_owned();
    assert!(context.contains("PL/pgSQL function inline_code_block line 1"), "{context:?}");
}

#[test]
fn an_unlogged_table_and_one_with_children_are_attached_with_a_warning() {
    let cluster = Cluster::shared();
    let said = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&said);
    let mut client = postgres::Config::new()
        .host_path(cluster.home())
        .user("postgres")
        .dbname("postgres")
        .notice_callback(move |notice| heard.lock().unwrap().push(notice.message().to_owned()))
        .connect(postgres::NoTls)
        .unwrap();
    client
        .batch_execute(
            "CREATE UNLOGGED TABLE errors_unlogged (a int); CREATE TABLE errors_parent (a int);
             CREATE TABLE errors_child () INHERITS (errors_parent);
             SELECT webhook_attach('errors_unlogged'), webhook_attach('errors_parent')",
        )
        .unwrap();
    let said = said.lock().unwrap().join("; ");
    assert!(said.contains("errors_unlogged is unlogged"), "{said}");
    assert!(said.contains("tables that inherit from public.errors_parent are captured only where"), "{said}");
    client.batch_execute("DROP TABLE errors_unlogged, errors_child, errors_parent").unwrap();
}
