//! `webhook_pg.key_file`: secrets sealed at rest, which dumps may hold.

use std::path::PathBuf;

use postgres::Client;

use crate::cluster::Cluster;
use crate::os::{as_owner, run};
use crate::receiver::Receiver;
use crate::scene::{Scene, create_table};
use crate::site::status;
use crate::wait::{holds, secs, wait_until};
use crate::wire::Reply;

const FIRST: &str = "MTExMTExMTExMTExMTExMTExMTExMTExMTExMTExMTE=";
const SECOND: &str = "MjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjI=";
const SECRETS: &str = r#", basic_auth_username => 'somebody', basic_auth_password => 'correct-horse', headers => '{"x-api-key": "api-key-4711"}'"#;

/// Writes the key file as the server wants it: its own, and nobody else may read it.
fn write_keys(cluster: &Cluster, keys: &[&str]) -> PathBuf {
    let path = cluster.home().join("keys");
    let script = r#"umask 077; printf '%s\n' "$1" > "$2.new"; mv "$2.new" "$2""#;
    run(as_owner("sh").args(["-c", script, "sh", &keys.join("\n")]).arg(&path));
    path
}

/// A cluster whose secrets are sealed with this key.
fn sealing(key: &str) -> Cluster {
    let cluster = Cluster::start(&[]);
    let path = write_keys(&cluster, &[key]);
    cluster.set("webhook_pg.key_file", path.to_str().unwrap());
    wait_until("the key file is in force", secs(10), || {
        let mut client = cluster.connect();
        let n: i64 = client.query_one("SELECT cardinality(webhook.key_ids())::bigint", &[]).unwrap().get(0);
        holds(n == 1, || format!("{n} keys"))
    });
    cluster
}

fn reload(client: &mut Client) {
    client.batch_execute("SELECT pg_reload_conf()").unwrap();
}

/// Everything that the tables of secrets hold.
fn kept(client: &mut Client) -> String {
    let query = "SELECT coalesce(string_agg(s::text, ' '), '') FROM webhook.endpoint_secret s";
    client.query_one(query, &[]).unwrap().get(0)
}

fn count(client: &mut Client, what: &str) -> i64 {
    client.query_one(&format!("SELECT count(*) FROM {what}"), &[]).unwrap().get(0)
}

#[test]
fn with_a_key_file_secrets_are_sealed_in_their_table() {
    let cluster = sealing(FIRST);
    let mut scene = Scene::new(&cluster, "sealed", SECRETS, |_, _| Reply::ok());
    assert_eq!(count(&mut scene.client, "webhook.sealed_secret"), 3);
    assert_eq!(count(&mut scene.client, "webhook.plain_secret"), 0);
    let text = kept(&mut scene.client);
    for secret in ["whsec_", "correct-horse", "api-key-4711"] {
        assert!(!text.contains(secret), "{text}");
    }
    scene.insert([1]);
    scene.receiver.wait_for_rows([1], secs(20));
    let request = scene.receiver.requests().remove(0);
    assert_eq!(request.header("x-api-key"), "api-key-4711");
    assert!(request.header("authorization").starts_with("Basic "));
    let id = scene.endpoint;
    let secret: String =
        scene.client.query_one("SELECT webhook_rotate_secret($1, '0')", &[&id]).unwrap().get(0);
    scene.receiver.trust(&secret);
    scene.fence(2);
    scene.receiver.assert_all_signed();
    assert_eq!(count(&mut scene.client, "webhook.sealed_secret"), 3);
}

#[test]
fn a_key_file_that_comes_later_and_a_new_first_key_seal_what_is_there() {
    let cluster = Cluster::start(&[]);
    let mut scene = Scene::new(&cluster, "sealed_later", SECRETS, |_, _| Reply::ok());
    scene.fence(1);
    let path = write_keys(&cluster, &[FIRST]);
    cluster.set("webhook_pg.key_file", path.to_str().unwrap());
    let mut client = cluster.connect();
    wait_until("all secrets are sealed", secs(20), || {
        let n = count(&mut client, "webhook.plain_secret");
        holds(n == 0, || format!("{n} are not"))
    });
    let before = kept(&mut client);
    write_keys(&cluster, &[SECOND, FIRST]);
    reload(&mut client);
    let second = "webhook.sealed_secret WHERE split_part(value, '.', 2) = (webhook.key_ids())[1]";
    wait_until("all secrets are sealed anew", secs(20), || {
        let n = count(&mut client, second);
        holds(n == 3, || format!("{n} are"))
    });
    assert_ne!(before, kept(&mut client));
    write_keys(&cluster, &[SECOND]);
    reload(&mut client);
    scene.fence(2);
    scene.receiver.assert_all_signed();
    assert!(status(&mut client, "secrets").0);
}

#[test]
fn without_its_key_an_endpoint_waits_and_loses_nothing() {
    let cluster = sealing(FIRST);
    let mut scene = Scene::new(&cluster, "sealed_lost", SECRETS, |_, _| Reply::ok());
    scene.fence(1);
    let mut client = cluster.connect();
    write_keys(&cluster, &[SECOND]);
    reload(&mut client);
    let (ok, detail) = status(&mut client, "secrets");
    assert!(!ok && detail.contains("sealed_lost"), "{detail}");
    // An endpoint that needs no secret shows that the worker has read the file again and the event.
    let other = Receiver::start(|_, _| Reply::ok());
    let register = "SELECT id FROM webhook_register($1, '{sealed_lost.*}', signature => 'none')";
    client.query_one(register, &[&other.url()]).unwrap();
    scene.insert([2]);
    other.wait_for_answers(1, secs(20));
    assert_eq!(scene.number("SELECT count(*) FROM webhook.deliveries WHERE endpoint = '{}' AND event_id IN (SELECT id FROM webhook.events WHERE key->>'id' = '2')"), 0);
    write_keys(&cluster, &[SECOND, FIRST]);
    reload(&mut client);
    scene.receiver.wait_for_rows([1, 2], secs(20));
    scene.receiver.assert_all_signed();
    // Without the key for good it goes on with new secrets.
    write_keys(&cluster, &[FIRST]);
    reload(&mut client);
    let changes = r#"SELECT webhook_update($1, '{"secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "basic_auth_password": "new", "headers": {"x-api-key": "new"}}')"#;
    client.execute(changes, &[&scene.endpoint]).unwrap();
    scene.receiver.trust("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
    scene.fence(3);
    assert!(status(&mut client, "secrets").0);
}

#[test]
fn a_key_file_that_others_may_read_is_refused_and_no_secret_is_kept_in_plain() {
    let cluster = sealing(FIRST);
    let mut client = cluster.connect();
    run(as_owner("chmod").arg("0640").arg(cluster.home().join("keys")));
    let (ok, detail) = status(&mut client, "secrets");
    assert!(!ok && detail.contains("others may read"), "{detail}");
    let error = client.batch_execute("SELECT webhook_register('https://example.com/')").unwrap_err();
    let error = error.as_db_error().unwrap();
    assert_eq!(error.code().code(), "55000");
    assert!(error.detail().is_some_and(|d| d.contains("0600")) && error.hint().is_some(), "{error:?}");
    assert_eq!(count(&mut client, "webhook.endpoint"), 0);
    write_keys(&cluster, &["hunter2"]);
    let detail = status(&mut client, "secrets").1;
    assert!(detail.contains("Line 1") && !detail.contains("hunter2"), "{detail}");
}

#[test]
fn a_dump_takes_sealed_secrets_along_and_the_copy_signs_with_them() {
    let cluster = sealing(FIRST);
    let mut scene = Scene::new(&cluster, "sealed_dump", SECRETS, |_, _| Reply::ok());
    scene.fence(1);
    let (host, file) = (cluster.home(), cluster.home().join("sealed.sql"));
    run(cluster
        .program("pg_dump")
        .arg("-h")
        .arg(host)
        .args(["-U", "postgres", "-d", "postgres", "-f"])
        .arg(&file));
    let text = std::fs::read_to_string(&file).unwrap();
    for secret in ["whsec_", "correct-horse", "api-key-4711"] {
        assert!(!text.contains(secret), "the dump holds {secret}");
    }
    // The original sends no more, so what comes comes from the copy.
    scene.run(&format!("SELECT webhook_pause({})", scene.endpoint));
    scene.run("CREATE DATABASE sealed_copy");
    run(cluster
        .program("psql")
        .arg("-h")
        .arg(host)
        .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", "sealed_copy", "-f"])
        .arg(&file));
    cluster.set("webhook_pg.databases", "postgres, sealed_copy");
    let mut copy = cluster.connect_to("sealed_copy");
    let (ok, detail) = status(&mut copy, "secrets");
    assert!(ok, "{detail}");
    copy.batch_execute("SELECT webhook_adopt(); INSERT INTO public.sealed_dump VALUES (2, 'from the copy')")
        .unwrap();
    scene.receiver.wait_for_rows([1, 2], secs(30));
    scene.receiver.assert_all_signed();
    assert_eq!(scene.receiver.requests().last().unwrap().header("x-api-key"), "api-key-4711");
}

#[test]
fn a_role_that_may_read_all_data_can_still_dump() {
    let cluster = sealing(FIRST);
    let mut client = cluster.connect();
    create_table(&mut client, "sealed_reader");
    client
        .batch_execute(
            "CREATE ROLE backup LOGIN IN ROLE pg_read_all_data;
             SELECT webhook_register('https://example.com/', name => 'sealed_reader')",
        )
        .unwrap();
    let host = cluster.home();
    let dump = run(cluster.program("pg_dump").arg("-h").arg(host).args(["-U", "backup", "-d", "postgres"]));
    let text = String::from_utf8_lossy(&dump.stdout);
    assert!(text.contains("v1.") && !text.contains("whsec_"), "{text}");
}
