//! Formats, encodings, signatures, scope and filter on the wire.

use std::collections::BTreeMap;

use crate::cluster::Cluster;
use crate::receiver::Receiver;
use crate::scene::{Scene, create_table, register};
use crate::wait::{holds, secs, wait_until};
use crate::wire::{Reply, Request};

/// A scene whose receiver accepts everything, with these further parameters.
fn scene(name: &str, options: &str) -> Scene<'static> {
    Scene::new(Cluster::shared(), name, &format!(", max_in_flight => 1{options}"), |_, _| Reply::ok())
}

fn first(scene: &Scene<'_>) -> Request {
    scene.receiver.wait_for_answers(1, secs(20));
    scene.receiver.requests().remove(0)
}

fn fields(text: &str) -> BTreeMap<String, String> {
    url::form_urlencoded::parse(text.as_bytes()).into_owned().collect()
}

#[test]
fn a_postback_is_a_form_that_counts_its_attempts() {
    let mut scene = Scene::new(
        Cluster::shared(),
        "formats_postback",
        ", format => 'postback', attempt_interval => '0.1 s', max_attempts => 3",
        |_, nth| if nth < 3 { Reply::status(500) } else { Reply::ok() },
    );
    scene.insert([1]);
    scene.wait_for_deliveries("delivered", 1);
    let requests = scene.receiver.requests();
    assert_eq!(requests.len(), 3);
    for (request, attempt) in requests.iter().zip(1..) {
        assert_eq!(request.header("content-type"), "application/x-www-form-urlencoded");
        let fields = fields(&request.text());
        assert_eq!((fields["type"].as_str(), fields["resource"].as_str()), ("CREATE", "formats_postback"));
        assert_eq!(fields["number_of_attempts"], attempt.to_string());
        assert_eq!(fields["data"], r#"{"id":1,"note":"note"}"#);
        assert_eq!(fields.len(), 4);
    }
}

#[test]
fn a_get_carries_the_fields_in_its_query_and_signs_it() {
    let mut scene = scene("formats_get", ", method => 'GET', format => 'row'");
    scene.insert([1]);
    let request = first(&scene);
    assert_eq!((request.method.as_str(), request.body.len()), ("GET", 0));
    assert_eq!(request.header("content-type"), "");
    let query = request.path.split_once('?').unwrap().1;
    assert_eq!(query, "id=1&note=note");
    let query_of =
        "SELECT s.value FROM webhook.endpoint_secret s WHERE s.endpoint_id = $1 AND kind = 'signing'";
    let secret: String = scene.client.query_one(query_of, &[&scene.endpoint]).unwrap().get(0);
    let signer = standardwebhooks::Webhook::new(&secret).unwrap();
    let expected = signer.sign(request.id(), request.timestamp(), query.as_bytes()).unwrap();
    assert_eq!(request.header("webhook-signature"), expected);
}

#[test]
fn xml_goes_out_by_put() {
    let mut scene = scene("formats_xml", ", method => 'PUT', format => 'row', encoding => 'xml'");
    scene.run("INSERT INTO public.{} VALUES (1, 'a < b' || chr(8))");
    let request = first(&scene);
    assert_eq!((request.method.as_str(), request.header("content-type")), ("PUT", "application/xml"));
    assert_eq!(request.header("webhook-event"), "formats_xml.created");
    assert_eq!(
        request.text(),
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><formats_xml><id>1</id><note>a &lt; b\u{fffd}</note></formats_xml>"
    );
}

#[test]
fn a_binary_cloud_event_stands_in_headers() {
    let mut scene = scene("formats_ce", ", format => 'cloudevents-binary', method => 'DELETE'");
    scene.insert([1]);
    let request = first(&scene);
    assert_eq!(request.text(), r#"{"id":1,"note":"note"}"#);
    assert_eq!(request.header("ce-specversion"), "1.0");
    assert_eq!(request.header("ce-type"), "formats_ce.created");
    assert_eq!(request.header("ce-id"), request.id());
    assert_eq!(request.header("ce-subject"), "1");
}

#[test]
fn an_endpoint_gets_the_events_of_all_its_patterns_from_several_tables_and_no_others() {
    let mut scene = scene("formats_two", "");
    create_table(&mut scene.client, "formats_three");
    scene.run(
        r#"SELECT webhook_update(id, '{"events": ["formats_two.created", "formats_three.deleted"]}')
             FROM webhook.endpoints WHERE name = '{}'"#,
    );
    scene.run(
        "INSERT INTO public.{} VALUES (1, 'a'); INSERT INTO public.formats_three VALUES (2, 'b');
         UPDATE public.{} SET note = 'c'; DELETE FROM public.formats_three; DELETE FROM public.{};
         INSERT INTO public.{} VALUES (3, 'd')",
    );
    scene.receiver.wait_for_rows([3], secs(20));
    let got: Vec<(String, i64)> = scene
        .receiver
        .requests()
        .iter()
        .map(|request| (request.json()["type"].as_str().unwrap().to_owned(), request.row().unwrap()))
        .collect();
    let expected = [("formats_two.created", 1), ("formats_three.deleted", 2), ("formats_two.created", 3)];
    assert_eq!(got, expected.map(|(kind, id)| (kind.to_owned(), id)));
    scene.run("DROP TABLE public.formats_three");
}

#[test]
fn a_postback_configuration_is_limited_to_a_product_and_says_when_it_was_modified() {
    let mut scene = scene("formats_product", "");
    scene.run("ALTER TABLE public.{} ADD product_transaction_id text, ADD modified_ts timestamptz");
    let url = scene.receiver.url();
    let mut apply = |config: &str| -> serde_json::Value {
        let query = "SELECT (webhook_apply($1::text::jsonb) -> 'postbackconfig')::text";
        let text = format!("{{\"postbackconfig\": {config}}}");
        serde_json::from_str(scene.client.query_one(query, &[&text]).unwrap().get(0)).unwrap()
    };
    let made = apply(&format!(
        r#"{{"resource": "formats_product", "url": "{url}", "product_transaction_id": "p1", "on_create": "1"}}"#
    ));
    assert_eq!(made["product_transaction_id"], "p1");
    assert_eq!(made["created_ts"], made["modified_ts"]);
    let id = made["id"].as_i64().unwrap();
    let mut attempts = 1;
    wait_until("a change shows in modified_ts", secs(10), || {
        attempts = attempts % 5 + 1;
        let changed = apply(&format!(r#"{{"id": {id}, "number_of_attempts": {attempts}}}"#));
        assert_eq!(changed["created_ts"], made["created_ts"]);
        let later = changed["modified_ts"].as_i64() > made["modified_ts"].as_i64();
        holds(later, || format!("{changed}"))
    });
    scene.run(
        "INSERT INTO public.{} VALUES (1, 'a', 'p2', '2026-01-02 03:04:05+00'), (2, 'b', 'p1', '2026-01-02 03:04:06+00')",
    );
    wait_until("three requests came", secs(20), || {
        holds(scene.receiver.count() == 3, || format!("{}", scene.receiver.count()))
    });
    let postbacks: Vec<_> = scene
        .receiver
        .requests()
        .iter()
        .filter(|request| request.header("content-type") == "application/x-www-form-urlencoded")
        .map(|request| fields(&request.text()))
        .collect();
    assert_eq!(postbacks.len(), 1);
    let data =
        r#"{"id":2,"note":"b","product_transaction_id":"p1","modified_ts":"2026-01-02T03:04:06+00:00"}"#;
    assert_eq!(postbacks[0]["data"], data);
    scene.client.execute("SELECT webhook_unregister($1)", &[&id]).unwrap();
}

#[test]
fn a_scope_keeps_other_rows_away_and_follows_the_row() {
    let mut scene = scene("formats_scope", r#", scope => '{"note": "north"}'"#);
    scene.run(
        "INSERT INTO public.{} VALUES (1, 'north'), (2, 'south'), (3, NULL);
         UPDATE public.{} SET note = 'south' WHERE id = 1;
         UPDATE public.{} SET note = 'north' WHERE id = 2;
         DELETE FROM public.{} WHERE id = 1;
         DELETE FROM public.{} WHERE id = 2;
         INSERT INTO public.{} VALUES (4, 'north')",
    );
    scene.receiver.wait_for_rows([4], secs(20));
    let got: Vec<(String, i64)> = scene
        .receiver
        .requests()
        .iter()
        .map(|r| (r.json()["type"].as_str().unwrap().replace("formats_scope.", ""), r.row().unwrap()))
        .collect();
    let expected = [("created", 1), ("updated", 2), ("deleted", 2), ("created", 4)];
    assert_eq!(got, expected.map(|(action, id)| (action.to_owned(), id)));
}

#[test]
fn a_filter_that_fails_does_not_match_and_is_counted_and_others_go_on() {
    let mut scene = scene("formats_filter", ", filter => 'strict $.data.more.deep > 5'");
    let other = Receiver::start(|_, _| Reply::ok());
    let filter = ", filter => '$.data.id > 2 && $.type like_regex \"created$\"', max_in_flight => 1";
    let (id, secret) =
        register(&mut scene.client, "formats_filter_2", &other.url(), "formats_filter.*", filter);
    other.trust(&secret);
    scene.run(
        "INSERT INTO public.{} SELECT n, 'note' FROM generate_series(1, 5) n; DELETE FROM public.{} WHERE id = 3;
         INSERT INTO public.{} VALUES (6, 'note')",
    );
    other.wait_for_rows([6], secs(20));
    assert_eq!(other.rows(), [3, 4, 5, 6]);
    let errors = "SELECT coalesce((SELECT errors FROM webhook.filter_error WHERE endpoint_id = $1), 0)";
    wait_until("the failures are counted", secs(20), || {
        let seen: i64 = scene.client.query_one(errors, &[&scene.endpoint]).map_err(|e| e.to_string())?.get(0);
        holds(seen == 7, || format!("{seen} are counted"))
    });
    assert_eq!(scene.receiver.count(), 0);
    scene.client.execute("SELECT webhook_unregister($1)", &[&id]).unwrap();
}

#[test]
fn values_that_jsonb_refuses_do_not_keep_an_event_from_its_filter() {
    let mut scene = scene("formats_jsonb", r#", filter => '$.data.id >= 1', scope => '{"note": "x"}'"#);
    scene.run("ALTER TABLE public.{} ADD wild json");
    scene.run(r#"INSERT INTO public.{} VALUES (1, 'x', '{"a": "\u0000", "b": 1e999999, "c": "\ud800"}')"#);
    assert!(first(&scene).text().contains(r#""wild":{"a": "\u0000", "b": 1e999999, "c": "\ud800"}"#));
}

#[test]
fn among_many_scopes_an_event_is_for_those_that_contain_its_row_and_no_others() {
    let mut scene = scene("formats_scopes", "");
    scene.run("ALTER TABLE public.{} ADD campaign int, ADD price numeric, ADD flag boolean, ADD more jsonb");
    let scopes = [
        r#"{"note": "north"}"#,
        r#"{"note": "south"}"#,
        r#"{"note": "n\u00f6rd\"lich"}"#,
        r#"{"note": "south", "campaign": 1}"#,
        r#"{"campaign": 1}"#,
        r#"{"campaign": 2.0}"#,
        r#"{"price": 1}"#,
        r#"{"price": 1.5}"#,
        r#"{"flag": true}"#,
        r#"{"note": null}"#,
        r#"{"more": {"a": "b"}}"#,
        r#"{"more": ["c"], "note": "north"}"#,
        "{}",
    ];
    let mut ids = Vec::new();
    for (number, scope) in scopes.iter().enumerate() {
        let options = format!(", scope => '{scope}', filter => '$.data.id < 100'");
        let url = scene.receiver.url();
        let name = format!("formats_scopes_{number}");
        let (id, secret) = register(&mut scene.client, &name, &url, "formats_scopes.*", &options);
        scene.receiver.trust(&secret);
        ids.push(id);
    }
    scene.run(
        r#"INSERT INTO public.{} VALUES
             (1, 'north', 1, 1.0, true, '{"a": "b", "d": 1}'), (2, 'south', 1, 1.5, false, '["c", "d"]'),
             (3, 'nörd"lich', 2, 1, NULL, NULL), (4, NULL, 3, 1.00, true, '"c"'), (5, 'north', 3, 2, NULL, '["c"]'),
             (6, 'North', -1, 10, NULL, '[]'), (100, 'north', 1, 1, true, NULL);
           UPDATE public.{} SET note = 'south' WHERE id = 1;
           DELETE FROM public.{} WHERE id = 2"#,
    );
    let mut pairs = |query: &str| -> Vec<(i64, String)> {
        let rows = scene.client.query(query, &[&ids]).unwrap();
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    };
    let expected = pairs(
        "SELECT e.id, o.id::text FROM webhook.events o JOIN webhook.endpoints e ON o.data::jsonb @> e.scope
          WHERE o.type LIKE 'formats_scopes.%' AND (o.data ->> 'id')::int < 100 AND e.id = ANY ($1) ORDER BY 1, 2",
    );
    assert!(expected.len() > 30, "{} deliveries are too few to show anything", expected.len());
    wait_until("everybody has what is theirs", secs(20), || {
        let got = pairs(
            "SELECT endpoint_id, event_id::text FROM webhook.deliveries
              WHERE endpoint_id = ANY ($1) AND state = 'delivered' ORDER BY 1, 2",
        );
        holds(got == expected, || format!("{} of {}: {got:?}", got.len(), expected.len()))
    });
    scene.run("SELECT webhook_unregister(id) FROM webhook.endpoints WHERE name LIKE 'formats_scopes_%'");
}
