//! Secrets are shown once, by the call that made them, and nowhere else.

use postgres::error::SqlState;

use crate::cluster::Cluster;
use crate::scene::Scene;
use crate::wait::secs;
use crate::wire::Reply;

const PASSWORD: &str = "correct-horse-battery";
const API_KEY: &str = "api-key-4711";

/// A scene whose endpoint has every kind of secret, with a delivery that failed and one that did not.
fn scene_with_secrets(name: &str) -> Scene<'static> {
    let options = format!(
        r#", basic_auth_username => 'somebody', basic_auth_password => '{PASSWORD}', headers => '{{"x-api-key": "{API_KEY}"}}', retry_schedule => '{{1 s}}'"#
    );
    let mut scene = Scene::new(Cluster::shared(), name, &options, |_, nth| {
        Reply::status(if nth == 1 { 500 } else { 200 })
    });
    scene.insert([1]);
    scene.receiver.wait_for_rows([1], secs(10));
    scene
}

#[test]
fn a_secret_can_be_chosen_and_is_generated_otherwise() {
    let mut scene = Scene::accepting("secrets_chosen");
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let sql =
        "SELECT id, secret FROM webhook_register(url => 'http://127.0.0.1:9/', name => $1, secret => $2)";
    let row = scene.client.query_one(sql, &[&"secrets_chosen_2", &secret]).unwrap();
    let (endpoint, shown): (i64, String) = (row.get(0), row.get(1));
    scene.client.execute("SELECT webhook_unregister($1)", &[&endpoint]).unwrap();
    assert_eq!(shown, secret);
}

#[test]
fn headers_and_basic_authorization_are_sent() {
    let scene = scene_with_secrets("secrets_sent");
    let request = scene.receiver.requests().remove(0);
    assert_eq!(request.header("x-api-key"), API_KEY);
    // base64 of somebody:correct-horse-battery (RFC 7617).
    assert_eq!(request.header("authorization"), "Basic c29tZWJvZHk6Y29ycmVjdC1ob3JzZS1iYXR0ZXJ5");
    scene.receiver.assert_all_signed();
}

#[test]
fn secrets_show_in_no_view_and_not_in_the_log() {
    let mut scene = scene_with_secrets("secrets_views");
    let query = "SELECT value FROM webhook.endpoint_secret WHERE endpoint_id = $1";
    let rows =
        scene.client.query(query, &[&scene.endpoint]).expect("the private table, read by the superuser");
    let mut secrets: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(secrets.len(), 3);
    // The signing secret without its prefix, too.
    let bare: Vec<String> =
        secrets.iter().filter_map(|s| s.strip_prefix("whsec_")).map(str::to_owned).collect();
    assert_eq!(bare.len(), 1);
    secrets.extend(bare);
    let views = "SELECT viewname::text FROM pg_catalog.pg_views WHERE schemaname = 'webhook'";
    let mut texts = vec![("the server log".to_owned(), scene.cluster.log())];
    for row in scene.client.query(views, &[]).unwrap() {
        let view: String = row.get(0);
        let content = format!("SELECT coalesce(string_agg(v::text, ' '), '') FROM webhook.{view} v");
        texts.push((view, scene.client.query_one(&content, &[]).unwrap().get(0)));
    }
    assert!(texts.len() >= 6, "too few views, so this shows nothing");
    // A session of its own query text would find itself.
    let activity = "SELECT coalesce(string_agg(a::text, ' '), '') FROM pg_catalog.pg_stat_activity a
                     WHERE backend_type LIKE 'webhook%'";
    texts.push(("pg_stat_activity".to_owned(), scene.client.query_one(activity, &[]).unwrap().get(0)));
    for (place, text) in &texts {
        for secret in &secrets {
            assert!(!text.contains(secret.as_str()), "{place} shows a secret");
        }
    }
}

#[test]
fn a_role_that_may_read_everything_does_not_read_secrets() {
    let mut scene = scene_with_secrets("secrets_read_all");
    scene.run(
        "CREATE ROLE secrets_reader;
         GRANT pg_read_all_data, pg_monitor, pg_read_all_settings, pg_read_all_stats TO secrets_reader; SET ROLE secrets_reader",
    );
    assert_eq!(scene.number("SELECT count(*) FROM webhook.endpoint_secret"), 0);
    let relations = "SELECT oid::regclass::text FROM pg_class
                      WHERE relnamespace = 'webhook'::regnamespace AND relkind IN ('r', 'p', 'v')
                     UNION ALL SELECT 'pg_settings'
                     UNION ALL SELECT '(SELECT * FROM pg_stat_activity WHERE pid <> pg_backend_pid())'";
    let names: Vec<String> =
        scene.client.query(relations, &[]).unwrap().iter().map(|row| row.get(0)).collect();
    assert!(names.len() > 15, "{names:?}");
    for name in names {
        let query = format!("SELECT coalesce(string_agg(r::text, ' '), '') FROM {name} r");
        let text: String = match scene.client.query_one(&query, &[]) {
            Ok(row) => row.get(0),
            // A view of a function that the role may not call.
            Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => continue,
            Err(error) => panic!("{query}: {error:?}"),
        };
        for secret in [PASSWORD, API_KEY, "whsec_"] {
            assert!(!text.contains(secret), "{name} shows a secret");
        }
    }
    scene.run("RESET ROLE; DROP ROLE secrets_reader");
}

#[test]
fn a_call_that_names_a_secret_shows_in_no_other_session_and_not_in_the_log_when_it_fails() {
    let cluster = Cluster::shared();
    let (mut caller, mut other) = (cluster.connect(), cluster.connect());
    let pid: i32 = caller.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
    let activity = "SELECT query FROM pg_stat_activity WHERE pid = $1";
    for (call, fails) in [
        (
            "SELECT webhook_register('https://example.com/', name => 'secrets_hidden', secret => 'whsec_aHVzaGh1c2hodXNoaHVzaGh1c2hodXNo')",
            false,
        ),
        (
            "SELECT webhook_register('https://example.com/', name => 'secrets_hidden', secret => 'whsec_aHVzaGh1c2hodXNoaHVzaGh1c2hodXNo')",
            true,
        ),
        ("SELECT webhook_register('https://example.com/', secret => 'whsec_aHVzaGh1c2')", true),
        (
            "SELECT webhook_update(id, '{\"headers\": {\"a\": \"whsec_aHVzaGh1c2\"}}') FROM webhook.endpoints WHERE name = 'secrets_hidden'",
            false,
        ),
        (
            "SELECT webhook_rotate_secret(id, secret => 'whsec_aHVzaGh1c2') FROM webhook.endpoints WHERE name = 'secrets_hidden'",
            true,
        ),
    ] {
        assert_eq!(caller.simple_query(call).is_err(), fails, "{call}");
        let seen: String = other.query_one(activity, &[&pid]).unwrap().get(0);
        assert!(!seen.contains("aHVzaGh1c2"), "pg_stat_activity shows {seen}");
    }
    caller
        .batch_execute("SELECT webhook_unregister(id) FROM webhook.endpoints WHERE name = 'secrets_hidden'")
        .unwrap();
    assert!(!cluster.log().contains("aHVzaGh1c2"), "the log shows a secret");
}
