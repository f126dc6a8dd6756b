//! A table changes under sessions that write to it with prepared statements.

use std::sync::atomic::{AtomicBool, Ordering};

use postgres::{Client, Statement};
use serde_json::{Value, json};

use crate::scene::Scene;
use crate::size::size;
use crate::wait::{millis, secs};

/// Prepared once, whatever becomes of the table.
struct Writer {
    client: Client,
    insert: Statement,
    update: Statement,
    delete: Statement,
}

impl Writer {
    fn new(scene: &Scene<'_>) -> Self {
        let mut client = scene.cluster.connect();
        let mut prepare = |sql: &str| client.prepare(&scene.sql(sql)).unwrap();
        let insert = prepare("INSERT INTO public.{} (id, note) VALUES ($1, 'a')");
        let update = prepare("UPDATE public.{} SET note = note || '!' WHERE id = $1");
        let delete = prepare("DELETE FROM public.{} WHERE id = $1");
        Self { client, insert, update, delete }
    }

    /// Three changes of one row.
    fn write(&mut self, id: i64) {
        for statement in [&self.insert, &self.update, &self.delete] {
            assert_eq!(self.client.execute(statement, &[&id]).expect("a prepared statement"), 1);
        }
    }
}

/// What `write` is to raise while the table has this column, or none.
fn expected(id: i64, extra: Option<&Value>) -> [Value; 3] {
    let row = |note: &str| match extra {
        Some(extra) => json!({"id": id, "note": note, "extra": extra}),
        None => json!({"id": id, "note": note}),
    };
    [
        json!({"type": "ddl.created", "data": row("a"), "key": {"id": id}}),
        json!({"type": "ddl.updated", "data": row("a!"), "key": {"id": id}, "previous": {"note": "a"}}),
        json!({"type": "ddl.deleted", "data": row("a!"), "key": {"id": id}}),
    ]
}

#[test]
fn prepared_statements_go_on_while_columns_come_change_and_go() {
    let mut scene = Scene::accepting("ddl");
    let rounds = size(10, 100);
    let mut writer = Writer::new(&scene);
    let mut wanted = Vec::new();
    let over = AtomicBool::new(false);
    let mut beside = Writer::new(&scene);
    let others = std::thread::scope(|threads| {
        // Another one, at any moment.
        let others = threads.spawn(|| {
            let mut n = 0;
            while !over.load(Ordering::Relaxed) {
                n += 1;
                beside.write(-n);
                std::thread::sleep(millis(5));
            }
            n
        });
        for round in 0..rounds {
            let changes = [
                ("ADD COLUMN extra int DEFAULT 7", Some(json!(7))),
                ("ALTER COLUMN extra TYPE text", Some(json!("7"))),
                ("DROP COLUMN extra", None),
            ];
            for (nth, (change, extra)) in changes.iter().enumerate() {
                scene.run(&format!("ALTER TABLE public.{{}} {change}"));
                let id = round * 3 + i64::try_from(nth).unwrap() + 1;
                writer.write(id);
                wanted.extend(expected(id, extra.as_ref()));
            }
        }
        over.store(true, Ordering::Relaxed);
        others.join().unwrap()
    });
    assert!(others > rounds, "only {others} rows were written beside: this shows nothing");

    let answers = wanted.len() + 3 * usize::try_from(others).unwrap();
    scene.receiver.wait_for_answers(answers, secs(60));
    let mut bodies: Vec<Value> = scene.receiver.requests().iter().map(|request| request.json()).collect();
    assert_eq!(bodies.len(), answers);
    for body in &mut bodies {
        let is_whole = body["timestamp"].take().is_string() && body["data"]["note"].is_string();
        assert!(is_whole, "{body}");
        body.as_object_mut().unwrap().remove("timestamp");
    }
    bodies.retain(|body| body["key"]["id"].as_i64() > Some(0));
    assert_eq!(bodies, wanted);
}
