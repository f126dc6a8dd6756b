//! Secrets are shown once, by the call that made them, and nowhere else.

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
    scene.run("CREATE ROLE secrets_reader; GRANT pg_read_all_data, pg_monitor TO secrets_reader; SET ROLE secrets_reader");
    assert_eq!(scene.number("SELECT count(*) FROM webhook.endpoint_secret"), 0);
    scene.run("RESET ROLE; DROP ROLE secrets_reader");
}
