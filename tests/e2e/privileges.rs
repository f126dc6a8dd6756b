//! Who may do what: PUBLIC nothing, writers only what they could do before.

use postgres::Client;

use crate::cluster::Cluster;
use crate::scene::Scene;
use crate::wait::secs;
use crate::wire::Reply;

/// SQLSTATE of a statement that must fail.
#[track_caller]
fn refusal(client: &mut Client, sql: &str) -> String {
    let error = client.batch_execute(sql).expect_err(sql);
    error.code().unwrap_or_else(|| panic!("{sql}: {error:?}")).code().to_owned()
}

#[test]
fn public_has_no_grant_on_any_object_of_the_extension() {
    // A null ACL means the built-in default, which for functions and types is a grant to PUBLIC.
    let query = "
        WITH member AS (
            SELECT d.classid, d.objid FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
             WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND e.extname = 'webhook_pg'),
        acl (object, items) AS (
            SELECT 'function ' || p.oid::regprocedure, coalesce(p.proacl, acldefault('f', p.proowner))
              FROM pg_proc p JOIN member m ON m.classid = 'pg_proc'::regclass AND m.objid = p.oid
            UNION ALL
            SELECT 'relation ' || c.oid::regclass,
                   coalesce(c.relacl, acldefault(CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::\"char\", c.relowner))
              FROM pg_class c JOIN member m ON m.classid = 'pg_class'::regclass AND m.objid = c.oid
            UNION ALL
            SELECT 'column ' || c.oid::regclass || '.' || a.attname, a.attacl
              FROM pg_class c JOIN member m ON m.classid = 'pg_class'::regclass AND m.objid = c.oid
              JOIN pg_attribute a ON a.attrelid = c.oid
            UNION ALL
            SELECT 'schema ' || n.nspname, coalesce(n.nspacl, acldefault('n', n.nspowner))
              FROM pg_namespace n JOIN member m ON m.classid = 'pg_namespace'::regclass AND m.objid = n.oid
            UNION ALL
            SELECT 'type ' || t.oid::regtype, coalesce(t.typacl, acldefault('T', t.typowner))
              FROM pg_type t JOIN member m ON m.classid = 'pg_type'::regclass AND m.objid = t.oid
              LEFT JOIN pg_type item ON item.oid = t.typelem
             -- Row types, which are members since PostgreSQL 18: sql/install/privileges.sql says why they stay.
             WHERE t.typrelid = 0 AND coalesce(item.typrelid, 0) = 0)
        SELECT (SELECT count(*) FROM member), acl.object || ': ' || string_agg(x.privilege_type, ', ')
          FROM (SELECT 1) one LEFT JOIN (acl CROSS JOIN LATERAL aclexplode(acl.items) x) ON x.grantee = 0
         GROUP BY acl.object ORDER BY 2";
    let rows = Cluster::shared().connect().query(query, &[]).unwrap();
    assert!(rows[0].get::<_, i64>(0) > 20, "the extension has too few members, so this shows nothing");
    let grants: Vec<String> = rows.iter().filter_map(|row| row.get(1)).collect();
    assert!(grants.is_empty(), "PUBLIC has grants:\n{}", grants.join("\n"));
}

#[test]
fn a_role_with_nothing_but_insert_on_an_attached_table_can_insert() {
    let mut scene = Scene::accepting("privileges_writer");
    scene.run("CREATE ROLE privileges_writer; GRANT INSERT ON public.{} TO privileges_writer");
    scene.run("SET ROLE privileges_writer; INSERT INTO public.{} VALUES (1, 'by a low role'); RESET ROLE");
    scene.receiver.wait_for_rows([1], secs(10));
    let mut low = scene.cluster.connect();
    low.batch_execute("SET ROLE privileges_writer").unwrap();
    let tables = "SELECT 'webhook.' || relname FROM pg_catalog.pg_class
                   WHERE relnamespace = 'webhook'::regnamespace AND relkind IN ('r', 'v', 'p', 'S')";
    let names: Vec<String> = scene.client.query(tables, &[]).unwrap().iter().map(|row| row.get(0)).collect();
    for name in names {
        assert_eq!(refusal(&mut low, &format!("SELECT * FROM {name}")), "42501", "{name}");
    }
    for call in [
        "SELECT webhook_register('https://example.org/')",
        "SELECT webhook_send('a.b', '{}')",
        "SELECT webhook_attach('public.privileges_writer')",
        "SELECT * FROM webhook_status()",
    ] {
        assert_eq!(refusal(&mut low, call), "42501", "{call}");
    }
    drop(low);
    scene.run("DROP OWNED BY privileges_writer; DROP ROLE privileges_writer");
}

#[test]
fn the_row_is_captured_in_the_name_of_the_writer() {
    // A cast to json that a role defines for its own type must not run as the owner of the extension.
    let cluster = Cluster::start(&[]);
    let mut scene = Scene::new(&cluster, "privileges_invoker", "", |_, _| Reply::ok());
    scene.run(
        "CREATE ROLE privileges_invoker;
         GRANT CREATE ON SCHEMA public TO privileges_invoker;
         GRANT INSERT ON public.{} TO privileges_invoker;
         SET ROLE privileges_invoker;
         CREATE TYPE public.mood AS ENUM ('calm');
         CREATE FUNCTION public.mood_json(public.mood) RETURNS json LANGUAGE sql
             AS $$ SELECT to_json(current_user::text) $$;
         CREATE CAST (public.mood AS json) WITH FUNCTION public.mood_json(public.mood);
         RESET ROLE;
         ALTER TABLE public.{} ADD mood public.mood;
         SET ROLE privileges_invoker;
         INSERT INTO public.{} VALUES (1, 'note', 'calm');
         RESET ROLE",
    );
    scene.receiver.wait_for_rows([1], secs(10));
    let mood = scene.receiver.requests()[0].json()["data"]["mood"].clone();
    assert_eq!(mood, "privileges_invoker");
}

#[test]
fn attaching_needs_the_right_to_create_triggers() {
    let mut scene = Scene::accepting("privileges_attach");
    scene.run(
        "CREATE ROLE privileges_attach;
         CREATE TABLE public.privileges_attach_2 (id int PRIMARY KEY);
         SELECT webhook_grant('publisher', 'privileges_attach')",
    );
    let mut low = scene.cluster.connect();
    low.batch_execute("SET ROLE privileges_attach").unwrap();
    assert_eq!(refusal(&mut low, "SELECT webhook_attach('public.privileges_attach_2')"), "42501");
    assert_eq!(refusal(&mut low, "SELECT webhook_detach('public.privileges_attach')"), "42501");
    drop(low);
    scene.run(
        "DROP TABLE public.privileges_attach_2; SELECT webhook_grant('none', 'privileges_attach'); DROP ROLE privileges_attach",
    );
}

#[test]
fn settings_cannot_be_changed_by_the_owner_of_a_database_nor_for_a_role() {
    let mut client = Cluster::shared().connect();
    for sql in [
        "CREATE ROLE privileges_owner CREATEROLE; CREATE ROLE privileges_owned",
        "CREATE DATABASE privileges_settings OWNER privileges_owner",
        "SET ROLE privileges_owner",
    ] {
        client.batch_execute(sql).unwrap();
    }
    let names = "SELECT name, setting FROM pg_catalog.pg_settings
                  WHERE name LIKE 'webhook\\_pg.%' AND name NOT IN ('webhook_pg.context', 'webhook_pg.traceparent')";
    for row in client.query(names, &[]).unwrap() {
        let (name, value): (String, String) = (row.get(0), row.get(1));
        for whose in ["DATABASE privileges_settings", "ROLE privileges_owner", "ROLE privileges_owned"] {
            let code = refusal(&mut client, &format!("ALTER {whose} SET {name} = '{value}'"));
            assert!(["42501", "55P02"].contains(&code.as_str()), "{name} for {whose}: {code}");
        }
    }
    for sql in
        ["RESET ROLE", "DROP DATABASE privileges_settings", "DROP ROLE privileges_owner, privileges_owned"]
    {
        client.batch_execute(sql).unwrap();
    }
}

#[test]
fn mute_can_be_granted_and_what_events_carry_needs_no_grant() {
    let mut client = Cluster::shared().connect();
    client
        .batch_execute(
            "CREATE ROLE privileges_mute; GRANT SET ON PARAMETER webhook_pg.mute TO privileges_mute;
             SET ROLE privileges_mute; SET webhook_pg.mute = on; SET webhook_pg.context = '{}';
             SET webhook_pg.traceparent = ''; RESET ALL; RESET ROLE;
             REVOKE SET ON PARAMETER webhook_pg.mute FROM privileges_mute; DROP ROLE privileges_mute",
        )
        .unwrap();
}

#[test]
fn settings_cannot_be_changed_by_a_low_role() {
    let mut client = Cluster::shared().connect();
    client.batch_execute("CREATE ROLE privileges_settings; SET ROLE privileges_settings").unwrap();
    let names = "SELECT name, setting FROM pg_catalog.pg_settings
                  WHERE name LIKE 'webhook\\_pg.%' AND name NOT IN ('webhook_pg.context', 'webhook_pg.traceparent')";
    let settings = client.query(names, &[]).unwrap();
    assert!(settings.len() > 5, "too few settings, so this shows nothing");
    for row in settings {
        let (name, value): (String, String) = (row.get(0), row.get(1));
        let code = refusal(&mut client, &format!("SET {name} = '{value}'"));
        assert!(["42501", "55P02"].contains(&code.as_str()), "{name}: {code}");
    }
    client.batch_execute("RESET ROLE; DROP ROLE privileges_settings").unwrap();
}
