//! What a change of a row becomes, and which changes become nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::scene::Scene;
use crate::wait::{secs, wait_until};

/// The body of the only request of this type.
#[track_caller]
fn only_body(scene: &Scene<'_>, action: &str) -> Value {
    let wanted = format!("{}.{action}", scene.name);
    let bodies: Vec<Value> = scene.receiver.requests().iter().map(|r| r.json()).collect();
    let of_type: Vec<&Value> = bodies.iter().filter(|b| b["type"] == wanted.as_str()).collect();
    assert_eq!(of_type.len(), 1, "requests of type {wanted} among {bodies:#?}");
    of_type[0].clone()
}

#[test]
fn an_insert_carries_the_row_and_its_key() {
    let mut scene = Scene::accepting("capture_insert");
    scene.run("INSERT INTO public.{} VALUES (1, 'Ünï \"quoted\" \\ and\nmore')");
    scene.receiver.wait_for_answers(1, secs(10));
    let mut body = only_body(&scene, "created");
    let timestamp = body["timestamp"].take();
    let timestamp = timestamp.as_str().expect("a timestamp");
    assert!(
        timestamp.ends_with('Z') && timestamp.as_bytes()[10] == b'T',
        "{timestamp:?} is not UTC in RFC 3339"
    );
    let expected = json!({
        "type": "capture_insert.created", "timestamp": null,
        "data": {"id": 1, "note": "Ünï \"quoted\" \\ and\nmore"}, "key": {"id": 1}
    });
    assert_eq!(body, expected);
}

#[test]
fn an_update_carries_the_new_row_and_the_old_values_of_changed_columns() {
    let mut scene = Scene::accepting("capture_update");
    scene.run("INSERT INTO public.{} VALUES (1, 'old')");
    scene.run("UPDATE public.{} SET note = 'new'");
    scene.receiver.wait_for_answers(2, secs(10));
    let body = only_body(&scene, "updated");
    assert_eq!(body["data"], json!({"id": 1, "note": "new"}));
    assert_eq!(body["previous"], json!({"note": "old"}));
    assert_eq!(body["key"], json!({"id": 1}));
}

#[test]
fn a_delete_carries_the_row_as_it_was() {
    let mut scene = Scene::accepting("capture_delete");
    scene.run("INSERT INTO public.{} VALUES (1, 'last words')");
    scene.run("DELETE FROM public.{}");
    scene.receiver.wait_for_answers(2, secs(10));
    let body = only_body(&scene, "deleted");
    assert_eq!(body["data"], json!({"id": 1, "note": "last words"}));
    assert_eq!(body["key"], json!({"id": 1}));
}

#[test]
fn numbers_and_json_values_arrive_as_they_were_written() {
    let mut scene = Scene::accepting("capture_exact");
    scene.run("ALTER TABLE public.{} ADD amount numeric, ADD doc json");
    scene.run(
        r#"INSERT INTO public.{} VALUES (1, null, 12345678901234567890.10, '{"b": 1.0, "a": "\u0000"}')"#,
    );
    scene.receiver.wait_for_answers(1, secs(10));
    let body = scene.receiver.requests()[0].text();
    assert!(body.contains(r#""amount":12345678901234567890.10"#), "{body}");
    assert!(body.contains(r#"{"b": 1.0, "a": "\u0000"}"#), "{body}");
}

#[test]
fn an_update_without_a_change_captures_nothing() {
    let mut scene = Scene::accepting("capture_no_op");
    scene.insert([1]);
    scene.run("UPDATE public.{} SET note = note");
    scene.fence(2);
    assert_eq!(scene.receiver.rows(), [1, 2]);
    assert_eq!(scene.number("SELECT count(*) FROM webhook.events WHERE type = '{}.updated'"), 0);
}

#[test]
fn nothing_is_sent_after_rollback() {
    let mut scene = Scene::accepting("capture_rollback");
    scene.run("BEGIN; INSERT INTO public.{} VALUES (1, 'undone'); ROLLBACK");
    scene.fence(2);
    assert_eq!(scene.receiver.rows(), [2]);
}

#[test]
fn nothing_is_sent_after_rollback_to_a_savepoint_and_the_rest_is() {
    let mut scene = Scene::accepting("capture_savepoint");
    scene.run(
        "BEGIN;
         INSERT INTO public.{} VALUES (1, 'kept');
         SAVEPOINT a;
         INSERT INTO public.{} VALUES (2, 'undone');
         ROLLBACK TO a;
         INSERT INTO public.{} VALUES (3, 'kept');
         SAVEPOINT b;
         INSERT INTO public.{} VALUES (4, 'kept');
         RELEASE b;
         DO $$ BEGIN
             INSERT INTO public.{} VALUES (5, 'undone');
             RAISE 'undo';
         EXCEPTION WHEN OTHERS THEN NULL;
         END $$;
         COMMIT",
    );
    scene.fence(6);
    assert_eq!(scene.receiver.rows(), [1, 3, 4, 6]);
}

#[test]
fn nothing_is_sent_when_the_commit_fails() {
    let mut scene = Scene::accepting("capture_failed_commit");
    scene.run("ALTER TABLE public.{} ADD parent bigint REFERENCES public.{} DEFERRABLE INITIALLY DEFERRED");
    let sql = scene.sql("INSERT INTO public.{} VALUES (1, 'an orphan', 99)");
    let error = scene.client.batch_execute(&sql).expect_err("the commit fails");
    assert_eq!(error.code().map(|c| c.code()), Some("23503"));
    scene.run("INSERT INTO public.{} VALUES (2, 'fence', null)");
    scene.receiver.wait_for_rows([2], secs(10));
    assert_eq!(scene.receiver.rows(), [2]);
}

#[test]
fn a_change_carries_the_traceparent_and_the_context_of_its_session() {
    let mut scene = Scene::accepting("capture_trace");
    let traces = ["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", ""];
    for (id, trace) in traces.iter().enumerate() {
        let context = if trace.is_empty() { "" } else { r#"{"by":"me"}"# };
        scene.run(&format!(
            "BEGIN; SET LOCAL webhook_pg.traceparent = '{trace}'; SET LOCAL webhook_pg.context = '{context}';
             INSERT INTO {{}} VALUES ({id}, 'traced'); COMMIT"
        ));
    }
    scene.receiver.wait_for_answers(2, secs(10));
    let requests = scene.receiver.requests();
    let found: Vec<&str> = requests.iter().map(|request| request.header("traceparent")).collect();
    assert_eq!(found, traces);
    let contexts: Vec<Value> = requests.iter().map(|request| request.json()["context"].clone()).collect();
    assert_eq!(contexts, [json!({"by": "me"}), Value::Null]);
}

#[test]
fn a_traceparent_or_a_context_that_is_none_is_refused_when_it_is_set() {
    let mut scene = Scene::accepting("capture_untraced");
    // A context has room for 4096 bytes.
    let text = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
    for (name, value) in [
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7".to_owned()),
        ("traceparent", "00-00000000000000000000000000000000-00f067aa0ba902b7-01".to_owned()),
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\nx: y".to_owned()),
        ("context", "{by: me}".to_owned()),
        ("context", text(4097)),
    ] {
        let error =
            scene.client.batch_execute(&format!("SET webhook_pg.{name} = '{value}'")).expect_err(name);
        let error = error.as_db_error().expect("an error of the server");
        assert_eq!(error.code().code(), "22023", "{error:?}");
        assert!(error.detail().is_some(), "{error:?}");
    }
    let largest = text(4096);
    scene.run(&format!("SET webhook_pg.context = '{largest}'; INSERT INTO {{}} VALUES (1, 'a')"));
    scene.receiver.wait_for_answers(1, secs(10));
    let request = &scene.receiver.requests()[0];
    assert_eq!(request.header("traceparent"), "");
    assert_eq!(request.json()["context"].as_str().map(str::len), Some(4094));
}

#[test]
fn a_table_whose_schema_and_column_get_other_names_is_written_and_captured_all_the_while() {
    let mut scene = Scene::accepting("capture_moved");
    scene.run("CREATE SCHEMA moved_first; ALTER TABLE public.{} SET SCHEMA moved_first");
    let mut client = scene.cluster.connect();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let writer = std::thread::spawn(move || -> Result<i64, postgres::Error> {
        client.batch_execute("SET search_path = moved_first, moved_second, moved_third")?;
        let insert = client.prepare("INSERT INTO capture_moved VALUES ($1, 'written')")?;
        let mut id = 0;
        while !stopped.load(Ordering::Relaxed) {
            id += 1;
            client.execute(&insert, &[&id])?;
            std::thread::sleep(crate::wait::millis(1));
        }
        Ok(id)
    });
    for change in [
        "ALTER SCHEMA moved_first RENAME TO moved_second",
        "CREATE SCHEMA moved_third",
        "ALTER TABLE moved_second.{} SET SCHEMA moved_third",
        "ALTER TABLE moved_third.{} RENAME COLUMN note TO remark",
    ] {
        let before = scene.receiver.accepted().len();
        wait_until("the writer goes on", secs(10), || {
            let now = scene.receiver.accepted().len();
            crate::wait::holds(now >= before + 20, || format!("{now} rows, {before} before"))
        });
        scene.run(change);
    }
    let last = scene.receiver.accepted().len() as i64 + 40;
    wait_until("rows under the new names come", secs(10), || {
        crate::wait::holds(scene.receiver.accepted().contains(&last), || "none".to_owned())
    });
    stop.store(true, Ordering::Relaxed);
    let written = writer.join().unwrap().expect("every row is written");
    scene.receiver.wait_for_rows(1..=written, secs(20));
    assert_eq!(i64::try_from(scene.receiver.count()), Ok(written));
    let last = scene.receiver.requests().pop().unwrap().json();
    assert_eq!(last["type"], "capture_moved.created", "the resource keeps its name");
    assert_eq!(last["data"], json!({"id": written, "remark": "written"}));
    let attached =
        "SELECT count(*) FROM webhook.attachments WHERE table_name::text = 'moved_third.{}' AND enabled";
    assert_eq!(scene.number(attached), 1);
    scene.run("DROP SCHEMA moved_second, moved_third CASCADE");
}
