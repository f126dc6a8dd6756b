//! The worked example of docs/crm.md with a receiver: every event type that the three systems in the field name.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::cluster::Cluster;
use crate::documents::sql_blocks;
use crate::receiver::Receiver;
use crate::scene::register;
use crate::wait::{holds, secs, wait_until};
use crate::wire::Reply;

/// What they name. A note and a timeline event are never updated, of metadata only a changed value is told.
const NAMED: [&str; 17] = [
    "campaign.clicked",
    "campaign.opened",
    "contact.created",
    "contact.deleted",
    "contact.lists_changed",
    "contact.updated",
    "contact_metadata.updated",
    "list.created",
    "list.deleted",
    "list.updated",
    "note.created",
    "note.deleted",
    "task.created",
    "task.deleted",
    "task.done",
    "task.updated",
    "timeline_event.created",
];

fn read(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).expect(file)
}

#[test]
fn the_crm_example_sends_every_event_type_that_it_names_and_no_other() {
    let cluster = Cluster::start(&[]);
    let receiver = Receiver::start(|_, _| Reply::ok());
    let mut client = cluster.connect();
    let (_, secret) =
        register(&mut client, "crm", &receiver.url(), "*", ", expands => '{campaign,subscriber}'");
    receiver.trust(&secret);
    client.batch_execute(&read("demo/crm.sql")).unwrap();
    for block in sql_blocks(&read("docs/crm.md")) {
        if !block.contains("webhook_register") {
            client.batch_execute(&block).unwrap_or_else(|e| panic!("{block}: {e:?}"));
        }
    }
    let raised: i64 = client.query_one("SELECT count(*) FROM webhook.events", &[]).unwrap().get(0);
    wait_until("everything is delivered", secs(30), || {
        let count = receiver.count();
        holds(i64::try_from(count) == Ok(raised), || format!("{count} of {raised}"))
    });

    let bodies: Vec<serde_json::Value> = receiver.requests().iter().map(|request| request.json()).collect();
    let types: BTreeSet<&str> = bodies.iter().filter_map(|body| body["type"].as_str()).collect();
    assert_eq!(types, BTreeSet::from(NAMED));
    let opened = bodies.iter().find(|body| body["type"] == "campaign.opened").unwrap();
    assert_eq!(opened["data"]["campaign"]["name"], "Spring");
    assert_eq!(
        opened["data"]["subscriber"],
        serde_json::json!({"email": null, "name": "Lovelace", "fields": {"plan": "free"}, "lists": ["News"]})
    );
    let operations: BTreeSet<&str> = bodies
        .iter()
        .filter(|body| body["type"] == "contact.lists_changed")
        .filter_map(|body| body["operation"].as_str())
        .collect();
    assert_eq!(operations, BTreeSet::from(["created", "deleted"]));
    receiver.assert_all_signed();
    cluster.assert_calm();
}
