//! Rows of any size: what is too large becomes a thin event, and costs the writer nothing.

use postgres::{Client, SimpleQueryMessage};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::scene::Scene;
use crate::size::size;
use crate::wait::secs;
use crate::wire::Reply;

/// The bodies of the first requests, without the time.
fn bodies(scene: &Scene<'_>, n: usize) -> Vec<Value> {
    scene.receiver.wait_for_answers(n, secs(60));
    let mut bodies: Vec<Value> = scene.receiver.requests().iter().map(|request| request.json()).collect();
    for body in &mut bodies {
        body.as_object_mut().unwrap().remove("timestamp");
    }
    bodies
}

/// Milliseconds that the triggers of the extension took in a statement, as EXPLAIN ANALYZE says.
fn trigger_time(client: &mut Client, statement: &str) -> f64 {
    let sql = format!("EXPLAIN (ANALYZE, FORMAT JSON) {statement}");
    let messages = client.simple_query(&sql).unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    let texts = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    let plan: Value = serde_json::from_str(&texts.collect::<Vec<_>>().join("\n")).expect("a plan in JSON");
    let triggers = plan[0]["Triggers"].as_array().expect("triggers");
    let is_ours = |trigger: &&Value| {
        trigger["Trigger Name"].as_str().is_some_and(|name| name.starts_with("webhook_pg_"))
    };
    let times: Vec<f64> = triggers.iter().filter(is_ours).filter_map(|t| t["Time"].as_f64()).collect();
    assert_eq!(times.len(), 1, "{plan}");
    times[0]
}

#[test]
fn a_row_is_whole_up_to_max_payload_bytes_and_thin_from_one_byte_more() {
    const LIMIT: usize = 2000;
    let cluster = Cluster::start(&[("webhook_pg.max_payload_bytes", &LIMIT.to_string())]);
    let mut scene = Scene::new(&cluster, "payloads", ", max_in_flight => 1", |_, _| Reply::ok());
    let around = r#"{"id":1,"note":""}"#.len();
    for (id, length) in [(1, LIMIT - 1), (2, LIMIT), (3, LIMIT + 1)] {
        let insert = format!("INSERT INTO {{}} VALUES ({id}, repeat('x', {}))", length - around);
        scene.run(&insert);
    }
    let whole = |id: i64, length: usize| json!({"type": "payloads.created", "key": {"id": id}, "data": {"id": id, "note": "x".repeat(length - around)}});
    let thin = json!({"type": "payloads.created", "key": {"id": 3}, "data": null, "truncated": true});
    assert_eq!(bodies(&scene, 3), [whole(1, LIMIT - 1), whole(2, LIMIT), thin]);
}

#[test]
fn values_of_hundreds_of_megabytes_are_written_and_cost_the_trigger_nothing() {
    // Milliseconds.
    const MOST: f64 = 500.0;
    let mut scene = Scene::accepting("payloads_huge");
    scene.run("ALTER TABLE {} ADD b bytea");
    let mut expected = Vec::new();
    let values = size(
        &[("note", "repeat('%', 50 << 20)"), ("b", "convert_to(repeat('%', 50 << 20), 'UTF8')")][..],
        &[
            ("note", "repeat('%', 50 << 20)"),
            ("b", "convert_to(repeat('%', 50 << 20), 'UTF8')"),
            ("b", "convert_to(repeat('%', 300 << 20), 'UTF8')"),
            ("note", "repeat('%', 600 << 20)"),
        ],
    );
    for (id, (column, value)) in values.iter().enumerate() {
        let (x, y) = (value.replace('%', "x"), value.replace('%', "y"));
        for (operation, statement) in [
            ("created", format!("INSERT INTO {{}} (id, {column}) VALUES ({id}, {x})")),
            ("updated", format!("UPDATE {{}} SET {column} = {y} WHERE id = {id}")),
        ] {
            let took = trigger_time(&mut scene.client, &statement.replace("{}", "payloads_huge"));
            assert!(took <= MOST, "{statement}: the trigger took {took} ms");
            expected.push(json!({
                "type": format!("payloads_huge.{operation}"), "key": {"id": id}, "data": null, "truncated": true
            }));
        }
        // A value that stays is not even looked at.
        let took = trigger_time(
            &mut scene.client,
            &format!("UPDATE payloads_huge SET id = id + 100 WHERE id = {id}"),
        );
        assert!(took <= MOST, "beside {value}: the trigger took {took} ms");
        expected.push(json!({
            "type": "payloads_huge.updated", "key": {"id": id + 100}, "data": null, "truncated": true
        }));
    }
    assert_eq!(bodies(&scene, expected.len()), expected);
}
