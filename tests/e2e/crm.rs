//! The worked example of docs/crm.md with receivers: every event type that the three systems in the field name, and who gets which.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use postgres::Client;
use serde_json::{Value, json};

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

/// Runs the example, with these receivers in place of the hosts that it names. The last blocks are those that change rows.
fn play(client: &mut Client, receivers: &[(&str, &str, &Receiver)]) {
    client.batch_execute(&read("demo/crm.sql")).unwrap();
    let mut registered = false;
    for mut block in sql_blocks(&read("docs/crm.md")) {
        for (_, url, receiver) in receivers {
            block = block.replace(url, &receiver.url());
        }
        if !registered && block.contains("INSERT INTO") {
            registered = true;
            for (name, _, receiver) in receivers {
                let rotate = "SELECT webhook_rotate_secret(id) FROM webhook.endpoints WHERE name = $1";
                receiver.trust(client.query_one(rotate, &[name]).expect(name).get(0));
            }
        }
        client.batch_execute(&block).unwrap_or_else(|e| panic!("{block}: {e:?}"));
    }
}

/// Waits until every endpoint has read everything.
fn drain(client: &mut Client) {
    wait_until("everything is delivered", secs(30), || {
        let query = "SELECT coalesce(sum(pending + lag_events + dead), 0)::bigint FROM webhook.stats";
        let left: i64 = client.query_one(query, &[]).map_err(|e| e.to_string())?.get(0);
        holds(left == 0, || format!("{left} are left"))
    });
}

fn of_type<'b>(bodies: &'b [Value], event_type: &str) -> Vec<&'b Value> {
    bodies.iter().filter(|body| body["type"] == event_type).collect()
}

fn accepting() -> Receiver {
    Receiver::start(|_, _| Reply::ok())
}

fn bodies(receiver: &Receiver) -> Vec<Value> {
    receiver.requests().iter().map(|request| request.json()).collect()
}

/// The fields of a form, as it was sent.
fn fields(form: &[u8]) -> Vec<(String, String)> {
    url::form_urlencoded::parse(form).into_owned().collect()
}

#[test]
fn the_crm_example_sends_every_event_type_that_it_names_and_to_each_endpoint_what_it_chose() {
    let cluster = Cluster::start(&[]);
    let [all, postback, push, campaign, link] = std::array::from_fn(|_| accepting());
    let mut client = cluster.connect();
    let (_, secret) = register(&mut client, "crm", &all.url(), "*", ", expands => '{campaign,subscriber}'");
    all.trust(&secret);
    let receivers = [
        ("postback", "https://pay.example.com/receiver", &postback),
        ("push", "https://push.example.com/in", &push),
        ("campaign", "https://hooks.example.com/campaign", &campaign),
        ("link", "https://hooks.example.com/link", &link),
    ];
    play(&mut client, &receivers);
    drain(&mut client);

    let raised: i64 = client.query_one("SELECT count(*) FROM webhook.events", &[]).unwrap().get(0);
    assert_eq!(i64::try_from(all.count()), Ok(raised));
    let told = bodies(&all);
    let types: BTreeSet<&str> = told.iter().filter_map(|body| body["type"].as_str()).collect();
    assert_eq!(types, BTreeSet::from(NAMED));
    let operations: BTreeSet<&str> = of_type(&told, "contact.lists_changed")
        .iter()
        .filter_map(|body| body["operation"].as_str())
        .collect();
    assert_eq!(operations, BTreeSet::from(["created", "deleted"]));

    // A hook of one campaign, and one of a single link.
    let hooked = bodies(&campaign);
    let kinds: Vec<&str> = hooked.iter().filter_map(|body| body["type"].as_str()).collect();
    assert_eq!(kinds.len(), 3, "{kinds:?}");
    assert!(hooked.iter().all(|body| body["data"]["campaign_id"] == 1), "{hooked:#?}");
    assert_eq!(of_type(&hooked, "campaign.clicked").len(), 2);
    let [clicked] = &bodies(&link)[..] else { panic!("{:#?}", bodies(&link)) };
    assert_eq!(clicked["type"], "campaign.clicked");
    let data = &clicked["data"];
    assert_eq!(
        (&data["campaign_id"], &data["url"], &data["ip_address"], &data["user_agent"]),
        (&json!(1), &json!("https://example.com/offer"), &json!("192.0.2.7"), &json!("Lynx/2.9"))
    );
    assert!(data["occurred_at"].is_string(), "{data}");
    assert_eq!(data["campaign"]["name"], "Spring");
    let subscriber =
        json!({"email": null, "name": "Lovelace", "fields": {"plan": "free"}, "lists": ["News"]});
    assert_eq!(data["subscriber"], subscriber);

    // The contacts of one location, as forms.
    let mut postbacks = Vec::new();
    for request in postback.requests() {
        assert_eq!(request.header("content-type"), "application/x-www-form-urlencoded");
        assert_eq!(request.header("authorization"), "Basic Y3JtOmh1bnRlcjI=");
        let mut fields = fields(&request.body);
        let (name, data) = fields.pop().unwrap();
        assert_eq!(name, "data");
        let data: Value = serde_json::from_str(&data).expect("JSON in a field");
        assert_eq!((&data["id"], &data["location_id"]), (&json!(1), &json!("north")));
        let texts: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
        postbacks.push((texts.join("&"), data["tags"].clone(), data["changelogs"].clone()));
    }
    postbacks.sort_by(|a, b| a.0.cmp(&b.0));
    let form = |kind: &str| format!("type={kind}&resource=contact&number_of_attempts=1");
    assert_eq!(
        postbacks,
        [
            (form("CREATE"), json!([]), json!([])),
            // What belongs to it went with it.
            (form("DELETE"), json!([]), json!([])),
            (form("UPDATE"), json!(["News"]), json!(["call"])),
        ]
    );

    assert!(push.requests().iter().all(|request| request.method == "PUT"));
    let pushed: BTreeSet<String> =
        bodies(&push).iter().filter_map(|body| Some(body["type"].as_str()?.to_owned())).collect();
    let wanted = |name: &&&str| {
        !name.starts_with("campaign.") && (**name == "contact.lists_changed" || !name.starts_with("contact."))
    };
    assert_eq!(pushed, NAMED.iter().filter(wanted).map(|name| (*name).to_owned()).collect());

    for receiver in [&all, &postback, &push, &campaign, &link] {
        receiver.assert_all_signed();
    }
    cluster.assert_calm();
}
