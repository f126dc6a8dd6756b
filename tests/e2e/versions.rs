//! The library and the SQL objects are not of one version, or the library is not preloaded: writers do not notice.

use std::sync::{Arc, Mutex};

use postgres::{Client, NoTls};

use crate::cluster::{Cluster, Stop};
use crate::scene::Scene;
use crate::site::status;
use crate::tree::Tree;
use crate::wait::{holds, millis, secs, wait_until};
use crate::wire::Reply;
use crate::writers::Writers;

/// A session that keeps the messages it gets.
fn listening(cluster: &Cluster) -> (Client, Arc<Mutex<Vec<String>>>) {
    let messages = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&messages);
    let mut config = postgres::Config::new();
    config.host_path(cluster.home()).user("postgres").dbname("postgres");
    config.notice_callback(move |notice| {
        kept.lock().unwrap().push(format!("{}: {}", notice.severity(), notice.message()));
    });
    (config.connect(NoTls).expect("connect"), messages)
}

fn pretend(scene: &mut Scene<'_>, version: i64, change: &str) {
    scene.run(&format!(
        "BEGIN; CREATE OR REPLACE FUNCTION webhook.schema_version() RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT {version}';
         {change}; SELECT webhook.recheck(); COMMIT"
    ));
}

#[test]
fn with_sql_of_another_version_writes_go_on_and_the_worker_pauses_and_says_so_once_a_minute() {
    for (version, hint, change) in [
        // Columns that this library writes are missing, or there are some that it does not know.
        (
            0,
            "ALTER EXTENSION webhook_pg UPDATE",
            "ALTER TABLE webhook.outbox DROP COLUMN traceparent CASCADE",
        ),
        (999, "install the new library", "ALTER TABLE webhook.outbox ADD COLUMN unknown text DEFAULT 'x'"),
    ] {
        let cluster = Cluster::start(&[("webhook_pg.poll_interval", "100ms")]);
        let mut scene = Scene::new(&cluster, "versions", "", |_, _| Reply::ok());
        scene.fence(1_000_000);
        let writers = Writers::start(&scene, 2, "", millis(2));
        scene.receiver.wait_for_answers(50, secs(20));
        pretend(&mut scene, version, change);
        wait_until("the status says it", secs(10), || {
            let (ok, detail) = status(&mut scene.client, "sending");
            holds(!ok && detail.contains(hint), || detail)
        });
        let sent = scene.receiver.count();
        // Twenty polls.
        std::thread::sleep(secs(2));
        assert_eq!(scene.receiver.count(), sent, "something was sent");
        let warnings = cluster.log().matches("nothing is sent: the SQL objects").count();
        assert_eq!(warnings, 1, "{}", cluster.log());
        assert!(!cluster.log().contains(" ERROR: "), "{}", cluster.log());
        let acknowledged = writers.stop();
        // The other half of the upgrade: everything that was written meanwhile is delivered.
        let back =
            if version == 0 { "ALTER TABLE webhook.outbox ADD COLUMN traceparent text" } else { "SELECT" };
        pretend(&mut scene, 1, back);
        scene.receiver.wait_for_rows(acknowledged, secs(30));
        scene.wait_until_drained(secs(20));
        // What was in flight when it paused is sent again.
        assert!(scene.receiver.duplicates() <= 64, "{} duplicates", scene.receiver.duplicates());
    }
}

#[test]
fn without_the_preload_writes_succeed_with_one_warning_a_session_and_are_delivered_when_it_is_back() {
    let cluster = Cluster::start(&[]);
    let mut scene = Scene::new(&cluster, "unloaded", "", |_, _| Reply::ok());
    scene.fence(1);
    scene.wait_for_deliveries("delivered", 1);
    cluster.stop_server(Stop::Fast);
    cluster.change(&[("shared_preload_libraries", "")]);
    cluster.start_server();
    for session in 0..2 {
        let (mut client, messages) = listening(&cluster);
        for n in 0..3 {
            let id: i64 = 10 + session * 10 + n;
            client
                .execute("INSERT INTO public.unloaded VALUES ($1, 'without the preload')", &[&id])
                .expect("insert");
        }
        let messages = messages.lock().unwrap().clone();
        assert_eq!(messages, ["WARNING: webhook_pg is not in shared_preload_libraries"]);
    }
    let (ok, detail) = status(&mut cluster.connect(), "preload");
    assert!(!ok && detail.contains("shared_preload_libraries"), "{detail}");
    assert_eq!(scene.receiver.count(), 1);
    cluster.stop_server(Stop::Fast);
    cluster.change(&[("shared_preload_libraries", "webhook_pg")]);
    cluster.start_server();
    scene.reconnect();
    scene.receiver.wait_for_rows([10, 11, 12, 20, 21, 22], secs(10));
    scene.wait_until_drained(secs(10));
    assert_eq!(scene.receiver.count(), 7);
}

#[test]
fn without_the_library_file_writes_fail_with_its_name_and_what_waits_is_delivered_when_it_is_back() {
    let tree = Tree::copy("library");
    let cluster = Cluster::start_of(&tree.bin, &[("webhook_pg.enabled", "off")]);
    let mut scene = Scene::new(&cluster, "missing", "", |_, _| Reply::ok());
    scene.insert([1]);
    cluster.stop_server(Stop::Fast);
    let aside = tree.library.with_extension("aside");
    std::fs::rename(&tree.library, &aside).expect("take the library away");
    // With the preload PostgreSQL does not start.
    let refused = cluster.program("postgres").output().expect("run postgres");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("could not access file \"webhook_pg\""), "{said}");
    cluster.change(&[("shared_preload_libraries", "")]);
    cluster.start_server();
    scene.reconnect();
    let error = scene.client.batch_execute("INSERT INTO public.missing VALUES (2, 'lost')").unwrap_err();
    let error = error.as_db_error().expect("an error of the server");
    assert_eq!(error.code().code(), "58P01");
    // PostgreSQL 18 no longer says $libdir.
    assert!(error.message().contains("webhook_pg\""), "{}", error.message());
    assert_eq!(scene.number("SELECT count(*) FROM public.missing"), 1);
    // What docs/copies.md offers to whoever cannot wait.
    scene.run("ALTER TABLE public.missing DISABLE TRIGGER webhook_pg_1; INSERT INTO public.missing VALUES (3, 'not captured');
               ALTER TABLE public.missing ENABLE TRIGGER webhook_pg_1");
    cluster.stop_server(Stop::Fast);
    std::fs::rename(&aside, &tree.library).expect("put the library back");
    cluster.change(&[("shared_preload_libraries", "webhook_pg"), ("webhook_pg.enabled", "on")]);
    cluster.start_server();
    scene.reconnect();
    scene.insert([4]);
    scene.receiver.wait_for_rows([1, 4], secs(10));
    assert_eq!(scene.receiver.count(), 2);
}

#[test]
fn the_symbols_that_triggers_call_keep_their_names_for_ever() {
    let mut client = Cluster::shared().connect();
    let query = "SELECT proname::text, probin, prosrc FROM pg_proc
                  WHERE pronamespace = 'webhook'::regnamespace AND prorettype = 'trigger'::regtype ORDER BY 1";
    let rows = client.query(query, &[]).unwrap();
    let found: Vec<[String; 3]> = rows.iter().map(|row| [row.get(0), row.get(1), row.get(2)]).collect();
    let named = |name: &str| [name.to_owned(), "$libdir/webhook_pg".to_owned(), format!("webhook_pg_{name}")];
    // Attached tables and SQL of every version call them: a library without one would refuse writes.
    assert_eq!(found, ["capture", "changed", "keep_out"].map(named));
}
