//! The bundles of webhook_grant, and whose endpoints a role sees.

use std::fs;
use std::path::Path;

use postgres::Client;
use postgres::error::DbError;

use crate::cluster::Cluster;
use crate::documents::sql_blocks;
use crate::os::run;
use crate::scene::Scene;
use crate::wait::secs;
use crate::wire::Reply;

/// A role of the shared cluster with these bundles, and a session as that role. Dropped at the end, rights and all.
struct Role {
    name: String,
    client: Client,
}

impl Role {
    fn new(name: &str, bundles: &[&str]) -> Self {
        let mut client = Cluster::shared().connect();
        let grants: String =
            bundles.iter().map(|b| format!("; SELECT webhook_grant('{b}', '{name}')")).collect();
        client.batch_execute(&format!("CREATE ROLE {name}{grants}; SET ROLE {name}")).unwrap();
        Self { name: name.to_owned(), client }
    }

    #[track_caller]
    fn run(&mut self, sql: &str) {
        self.client.batch_execute(sql).unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    }

    #[track_caller]
    fn number(&mut self, sql: &str) -> i64 {
        self.client.query_one(sql, &[]).unwrap_or_else(|e| panic!("{sql}: {e:?}")).get(0)
    }

    #[track_caller]
    fn text(&mut self, sql: &str) -> String {
        let row = self.client.query_one(sql, &[]).unwrap_or_else(|e| panic!("{sql}: {e:?}"));
        row.get::<_, Option<String>>(0).unwrap_or_default()
    }

    #[track_caller]
    fn refusal(&mut self, sql: &str) -> DbError {
        refusal(&mut self.client, sql)
    }

    #[track_caller]
    fn assert_denied(&mut self, sql: &str) {
        let error = self.refusal(sql);
        assert_eq!(error.code().code(), "42501", "{sql}: {error:?}");
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        // DROP OWNED changes what webhook_grant changes, which lets nobody else do so before its transaction has ended.
        let name = &self.name;
        let _ = Cluster::shared().connect().batch_execute(&format!(
            "SELECT webhook_unregister(id) FROM webhook.endpoints WHERE owner = '{name}'::regrole;
             SELECT webhook_grant('none', '{name}'); DROP OWNED BY {name}; DROP ROLE {name}"
        ));
    }
}

#[track_caller]
fn refusal(client: &mut Client, sql: &str) -> DbError {
    let error = client.batch_execute(sql).expect_err(sql);
    error.as_db_error().unwrap_or_else(|| panic!("{sql}: {error:?}")).clone()
}

/// What a role may execute and read, by name.
const RIGHTS: &str = "
    SELECT string_agg(what, ' ' ORDER BY what) FROM (
        SELECT p.oid::regproc::text FROM pg_proc p
          JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
          JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'webhook_pg'
         WHERE has_function_privilege(p.oid, 'EXECUTE')
        UNION ALL
        SELECT c.oid::regclass::text FROM pg_class c
         WHERE c.relnamespace = 'webhook'::regnamespace AND c.relkind IN ('r', 'p', 'v') AND has_any_column_privilege(c.oid, 'SELECT')) r (what)";

#[test]
fn an_unknown_bundle_or_role_is_refused_with_advice() {
    let mut client = Cluster::shared().connect();
    let error = refusal(&mut client, "SELECT webhook_grant('boss', 'postgres')");
    assert_eq!(error.code().code(), "22023");
    assert!(error.detail().unwrap().contains("boss"), "{error:?}");
    for bundle in ["admin", "publisher", "observer"] {
        assert!(error.hint().unwrap().contains(bundle), "{error:?}");
    }
    for (call, code) in [
        ("webhook_grant(NULL, 'postgres')", "22004"),
        ("webhook_grant('admin', NULL)", "22004"),
        ("webhook_grant('admin', 'roles_nobody')", "42704"),
        ("webhook_grant('admin', 'public')", "42704"),
        ("webhook_grant('admin', 0::oid::regrole)", "42704"),
        ("webhook_grant('admin', 4294967295::oid::regrole)", "42704"),
    ] {
        assert_eq!(refusal(&mut client, &format!("SELECT {call}")).code().code(), code, "{call}");
    }
}

#[test]
fn only_the_owner_of_the_extension_hands_out_bundles() {
    let mut role = Role::new("roles_grantor", &["admin", "publisher", "observer"]);
    role.assert_denied("SELECT webhook_grant('observer', 'roles_grantor')");
    // Not even with the right to call it.
    let mut superuser = Cluster::shared().connect();
    superuser.batch_execute("GRANT EXECUTE ON FUNCTION webhook_grant TO roles_grantor").unwrap();
    role.assert_denied("SELECT webhook_grant('observer', 'roles_grantor')");
}

#[test]
fn every_function_and_view_for_users_is_in_the_bundle_admin() {
    let mut role = Role::new("roles_everything", &["admin"]);
    let missing = role.text(
        "SELECT string_agg(what, ' ') FROM (
            SELECT p.oid::regproc::text FROM pg_proc p
              JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
              JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'webhook_pg' AND e.extnamespace = p.pronamespace
             WHERE NOT has_function_privilege(p.oid, 'EXECUTE')
            UNION ALL
            SELECT c.oid::regclass::text FROM pg_class c
             WHERE c.relnamespace = 'webhook'::regnamespace AND c.relkind = 'v' AND NOT has_table_privilege(c.oid, 'SELECT')) m (what)",
    );
    assert_eq!(missing, "webhook_grant");
}

#[test]
fn an_admin_who_is_no_superuser_can_do_what_the_readme_shows() {
    let mut admin = Role::new("roles_readme", &[]);
    let mut superuser = Cluster::shared().connect();
    superuser.batch_execute("CREATE DATABASE roles_readme").unwrap();
    let mut there = Cluster::shared().connect_to("roles_readme");
    there
        .batch_execute(
            "CREATE EXTENSION webhook_pg; SELECT webhook_grant('admin', 'roles_readme');
             GRANT CREATE ON SCHEMA public TO roles_readme; SET ROLE roles_readme",
        )
        .unwrap();
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    for block in sql_blocks(&readme) {
        let block = block.replace("CREATE EXTENSION webhook_pg;", "");
        there.batch_execute(&block).unwrap_or_else(|e| panic!("{block}\n{e:?}"));
    }
    there.batch_execute("RESET ROLE; DROP OWNED BY roles_readme").unwrap();
    drop(there);
    admin.run("RESET ROLE");
    superuser.batch_execute("DROP DATABASE roles_readme").unwrap();
}

#[test]
fn a_publisher_attaches_its_own_tables_and_sends_and_nothing_else() {
    let mut scene = Scene::accepting("roles_publisher");
    let mut role = Role::new("roles_publisher_role", &["publisher"]);
    assert_eq!(role.text(RIGHTS), "webhook.capture webhook_attach webhook_detach webhook_send");
    scene.run("CREATE SCHEMA roles_publisher_own AUTHORIZATION roles_publisher_role");
    role.run(
        "CREATE TABLE roles_publisher_own.t (id bigint PRIMARY KEY, note text);
         SELECT webhook_attach('roles_publisher_own.t', resource => 'roles_publisher');
         INSERT INTO roles_publisher_own.t VALUES (7, 'mine');
         SELECT webhook_send('roles_publisher.said', '{\"id\": 8}')",
    );
    scene.receiver.wait_for_rows([7, 8], secs(20));
    role.assert_denied("SELECT webhook_attach('public.roles_publisher')");
    role.assert_denied("SELECT webhook_detach('public.roles_publisher')");
    role.assert_denied("SELECT webhook_register('https://example.com/')");
    role.assert_denied("SELECT * FROM webhook_status()");
    role.assert_denied("SELECT * FROM webhook.events");
    role.run("SELECT webhook_detach('roles_publisher_own.t')");
    scene.run("DROP SCHEMA roles_publisher_own CASCADE");
}

#[test]
fn an_observer_sees_what_goes_on_but_no_payload_and_no_answer() {
    let mut scene =
        Scene::new(Cluster::shared(), "roles_observer", ", retry_schedule => '{1 s}'", |_, nth| {
            Reply::status(if nth == 1 { 500 } else { 200 }).with_body("an answer of the receiver")
        });
    scene.insert([1]);
    scene.wait_until_drained(secs(20));
    let mut role = Role::new("roles_observer_role", &["observer"]);
    let id = scene.endpoint;
    assert_eq!(role.number(&format!("SELECT count(*) FROM webhook.endpoints WHERE id = {id}")), 1);
    assert_eq!(role.number(&format!("SELECT count(*) FROM webhook.attempts WHERE endpoint_id = {id}")), 2);
    assert!(role.number("SELECT count(*) FROM webhook.events WHERE type = 'roles_observer.created'") > 0);
    for query in [
        "SELECT * FROM webhook.endpoints",
        "SELECT * FROM webhook.attachments",
        "SELECT * FROM webhook.deliveries",
        "SELECT * FROM webhook_status()",
        "SELECT id, type, key, occurred_at FROM webhook.events",
        "SELECT id, delivery_id, endpoint_id, event_id, attempt, started_at, duration_ms, status, error FROM webhook.attempts",
    ] {
        let text = role.text(&format!("SELECT string_agg(q::text, ' ') FROM ({query}) q"));
        assert!(!text.is_empty(), "{query}");
        assert!(!text.contains("note\":") && !text.contains("an answer"), "{query}: {text}");
    }
    for query in [
        "SELECT data FROM webhook.events",
        "SELECT previous FROM webhook.events",
        "SELECT response FROM webhook.attempts",
        "SELECT e FROM webhook.events e",
        "SELECT * FROM webhook.outbox",
        "SELECT * FROM webhook.endpoint",
        "SELECT * FROM webhook.endpoint_secret",
        "SELECT * FROM webhook.sealed_secret",
        "SELECT * FROM webhook.delivery",
        "SELECT webhook_retry(1)",
        "SELECT webhook_send('a.b', '{}')",
    ] {
        role.assert_denied(query);
    }
    role.assert_denied(&format!("SELECT webhook_pause({id})"));
}

#[test]
fn an_admin_sees_and_changes_only_endpoints_of_roles_whose_rights_it_has() {
    let mut theirs = Scene::new(Cluster::shared(), "roles_theirs", "", |_, _| Reply::status(500));
    theirs.insert([1]);
    theirs.wait_for_deliveries("pending", 1);
    theirs.run(&format!("SELECT webhook_pause({})", theirs.endpoint));
    let mut admin = Role::new("roles_admin", &["admin"]);
    let mut team = Role::new("roles_team", &["admin"]);
    team.run(
        "SELECT webhook_register('https://example.com/', '{x.y}', 'roles_of_the_team', is_active => false)",
    );
    let names = "SELECT string_agg(name, ' ' ORDER BY name) FROM webhook.endpoints";
    assert_eq!(admin.text(names), "");
    assert_eq!(team.text(names), "roles_of_the_team");
    for view in ["deliveries", "attempts"] {
        assert_eq!(admin.number(&format!("SELECT count(*) FROM webhook.{view}")), 0, "{view}");
    }
    let status = admin.text("SELECT string_agg(detail, ' ') FROM webhook_status()");
    assert!(!status.contains("roles_theirs") && status.contains("0 endpoints"), "{status}");
    let id = theirs.endpoint;
    let delivery = theirs.number("SELECT id FROM webhook.deliveries WHERE endpoint = '{}'");
    let event = theirs
        .client
        .query_one("SELECT id::text FROM webhook.events LIMIT 1", &[])
        .unwrap()
        .get::<_, String>(0);
    for call in [
        format!("update({id}, '{{}}')"),
        format!("unregister({id})"),
        format!("pause({id})"),
        format!("resume({id})"),
        format!("rotate_secret({id})"),
        format!("config({id})"),
        format!("test({id})"),
        format!("preview({id}, '{event}')"),
        format!("replay({id}, '-infinity')"),
        format!("retry({delivery})"),
        format!("cancel({delivery})"),
        "apply('{\"name\": \"roles_theirs\"}')".to_owned(),
        format!("apply('{{\"postbackconfig\": {{\"id\": {id}}}}}')"),
    ] {
        let error = admin.refusal(&format!("SELECT webhook_{call}"));
        assert_eq!(error.code().code(), "42501", "{call}: {error:?}");
        let said = format!("{error:?}");
        assert!(!said.contains("postgres\"") && !said.contains("127.0.0.1"), "{call}: {said}");
    }
    admin.run("CREATE TEMP TABLE roles_backfill (id bigint)");
    admin.assert_denied(&format!("SELECT webhook_backfill('roles_backfill', {id})"));
    // A member has the rights of its role.
    theirs.run("GRANT roles_team TO roles_admin");
    assert_eq!(admin.text(names), "roles_of_the_team");
    admin.run("SELECT webhook_config(id) FROM webhook.endpoints");
    theirs.run("REVOKE roles_team FROM roles_admin");
    assert_eq!(admin.text(names), "");
    // With the bundle observer it sees all, and changes no more than before.
    theirs.run("SELECT webhook_grant('observer', 'roles_admin')");
    assert!(admin.text(names).contains("roles_theirs"));
    admin.assert_denied(&format!("SELECT webhook_resume({id})"));
    theirs.run(&format!("SELECT webhook_resume({id})"));
}

#[test]
fn a_function_in_a_query_sees_no_endpoint_of_others() {
    let mut theirs = Scene::new(Cluster::shared(), "roles_leak", "", |_, _| Reply::status(500));
    theirs.insert([1]);
    theirs.wait_for_deliveries("pending", 1);
    let mut admin = Role::new("roles_leaker", &["admin"]);
    admin.run(
        "CREATE FUNCTION pg_temp.leaks(text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE COST 0.0000001 AS
         $$ BEGIN IF $1 ~ 'roles_leak|500' THEN RAISE 'leaked'; END IF; RETURN true; END $$",
    );
    for query in [
        "SELECT * FROM webhook.endpoints WHERE pg_temp.leaks(name)",
        "SELECT * FROM webhook.deliveries WHERE pg_temp.leaks(endpoint)",
        "SELECT * FROM webhook.attempts WHERE pg_temp.leaks(status::text)",
    ] {
        admin.run(query);
    }
}

#[test]
fn endpoints_of_a_role_that_was_dropped_go_on_and_belong_to_superusers() {
    let mut scene = Scene::accepting("roles_dropped");
    let mut owner = Role::new("roles_dropped_role", &["admin"]);
    let mut other = Role::new("roles_dropped_other", &["admin"]);
    scene.run(&format!(
        "UPDATE webhook.endpoint SET owner = 'roles_dropped_role' WHERE id = {};
         SELECT webhook_grant('none', 'roles_dropped_role')",
        scene.endpoint
    ));
    owner.run("RESET ROLE; DROP ROLE roles_dropped_role");
    scene.fence(1);
    let id = scene.endpoint;
    assert_eq!(other.number("SELECT count(*) FROM webhook.endpoints"), 0);
    other.assert_denied(&format!("SELECT webhook_pause({id})"));
    assert_eq!(
        scene.number("SELECT count(*) FROM webhook.endpoints WHERE name = '{}' AND owner::text ~ '^\\d+$'"),
        1
    );
    scene.run(&format!("SELECT webhook_pause({id}), webhook_resume({id})"));
}

#[test]
fn none_takes_every_right_away() {
    let mut role = Role::new("roles_none", &["admin", "publisher", "observer"]);
    let mut superuser = Cluster::shared().connect();
    superuser.batch_execute("SELECT webhook_grant('none', 'roles_none')").unwrap();
    assert_eq!(role.text(RIGHTS), "");
    role.run("RESET ROLE");
    // Nothing depends on the role.
    superuser.batch_execute("DROP ROLE roles_none").unwrap();
}

#[test]
fn what_roles_were_given_goes_with_a_dump() {
    let cluster = Cluster::shared();
    let _roles = ["admin", "publisher", "observer"].map(|b| Role::new(&format!("roles_dump_{b}"), &[]));
    let mut superuser = cluster.connect();
    for database in ["roles_dumped", "roles_restored"] {
        superuser.batch_execute(&format!("CREATE DATABASE {database}")).unwrap();
    }
    let grants =
        ["admin", "publisher", "observer"].map(|b| format!("SELECT webhook_grant('{b}', 'roles_dump_{b}')"));
    let create = format!("CREATE EXTENSION webhook_pg; {}", grants.join(";"));
    cluster.connect_to("roles_dumped").batch_execute(&create).unwrap();
    let file = cluster.home().join("roles.dump");
    let host = cluster.home();
    run(cluster
        .program("pg_dump")
        .arg("-h")
        .arg(host)
        .args(["-U", "postgres", "-Fc", "-d", "roles_dumped", "-f"])
        .arg(&file));
    run(cluster
        .program("pg_restore")
        .arg("-h")
        .arg(host)
        .args(["-U", "postgres", "-e", "-d", "roles_restored"])
        .arg(&file));
    let rights = |database: &str, role: &str| -> String {
        let mut client = cluster.connect_to(database);
        client.batch_execute(&format!("SET ROLE {role}")).unwrap();
        client.query_one(RIGHTS, &[]).unwrap().get(0)
    };
    for bundle in ["admin", "publisher", "observer"] {
        let role = format!("roles_dump_{bundle}");
        assert_eq!(rights("roles_dumped", &role), rights("roles_restored", &role), "{bundle}");
        for database in ["roles_dumped", "roles_restored"] {
            cluster.connect_to(database).batch_execute(&format!("DROP OWNED BY {role}")).unwrap();
        }
    }
    for database in ["roles_dumped", "roles_restored"] {
        superuser.batch_execute(&format!("DROP DATABASE {database}")).unwrap();
    }
}

#[test]
fn stats_progress_and_metrics_show_a_role_its_own_endpoints_and_an_observer_all() {
    let mut scene = Scene::accepting("roles_stats");
    scene.insert(1..=3);
    scene.wait_until_drained(secs(20));
    scene.run("SELECT webhook_replay(id, '-infinity') FROM webhook.endpoints WHERE name = '{}'");
    let mut admin = Role::new("roles_stats_admin", &["admin"]);
    let mut observer = Role::new("roles_stats_observer", &["observer"]);
    let mut publisher = Role::new("roles_stats_publisher", &["publisher"]);
    admin.run("SELECT webhook_register('http://127.0.0.1:1/', name => 'roles_stats_own', events => '{nothing.at_all}')");
    for (query, of_admin) in [
        ("SELECT count(*) FROM webhook.stats WHERE endpoint LIKE 'roles_stats%'", 1),
        ("SELECT count(*) FROM webhook.progress WHERE endpoint LIKE 'roles_stats%'", 0),
        (
            "SELECT count(*) FROM regexp_split_to_table(webhook_metrics(), '\n') AS line
              WHERE line LIKE 'webhook_pg_delivered_total{endpoint=\"roles_stats%'",
            1,
        ),
    ] {
        assert_eq!(admin.number(query), of_admin, "{query}");
        assert_eq!(observer.number(query), of_admin + 1, "{query}");
        publisher.assert_denied(query);
    }
    let progress = "SELECT detail FROM webhook_status() WHERE check_name = 'progress'";
    assert!(!admin.text(progress).contains("roles_stats:"));
    scene.wait_until_drained(secs(20));
}
