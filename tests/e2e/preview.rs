//! What `webhook_preview` shows against what is sent.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::cluster::Cluster;
use crate::scene::Scene;
use crate::wait::secs;
use crate::wire::Reply;

/// Fresh in each request, and the signatures over them.
const FRESH: [&str; 3] = ["webhook-timestamp", "webhook-signature", "stripe-signature"];
/// They follow from the rest, and a preview leaves them out.
const FOLLOW: [&str; 2] = ["host", "content-length"];

#[test]
fn a_preview_is_what_is_sent_whatever_the_format_encoding_and_method() {
    for (n, options) in [
        "method => 'POST'",
        "format => 'row', encoding => 'form'",
        "format => 'row', method => 'GET'",
        "format => 'row', method => 'PUT', encoding => 'xml'",
        "format => 'postback', encoding => 'xml', signature => 'github'",
        "format => 'postback', attempt_interval => '300 s', max_attempts => 1",
        "format => 'cloudevents', method => 'PATCH', signature => 'stripe'",
        "format => 'cloudevents-binary', method => 'DELETE', signature => 'shopify'",
    ]
    .into_iter()
    .enumerate()
    {
        let secrets = r#"headers => '{"X-Key": "hush", "user-agent": "ours/1"}', basic_auth_username => 'ann', basic_auth_password => 'hush'"#;
        let name = format!("preview_{n}");
        let mut scene =
            Scene::new(Cluster::shared(), &name, &format!(", {options}, {secrets}"), |_, _| Reply::ok());
        scene.run("SELECT webhook_pause(id) FROM webhook.endpoints WHERE name = '{}'");
        scene.run("INSERT INTO public.{} VALUES (1, 'a < b & \u{e9}' || chr(1))");
        let query = "SELECT p.method, p.url, p.headers::text, coalesce(p.body, '')
                       FROM webhook.events e, webhook_preview($1, e.id) p WHERE e.type = $2";
        let kind = format!("{name}.created");
        let row = scene.client.query_one(query, &[&scene.endpoint, &kind]).unwrap();
        let (method, url, body): (String, String, String) = (row.get(0), row.get(1), row.get(3));
        let headers: BTreeMap<String, Value> = serde_json::from_str(row.get(2)).unwrap();
        scene.run("SELECT webhook_resume(id) FROM webhook.endpoints WHERE name = '{}'");
        scene.receiver.wait_for_answers(1, secs(20));
        let sent = scene.receiver.requests().remove(0);

        assert_eq!(sent.method, method, "{options}");
        assert_eq!(format!("http://{}{}", sent.header("host"), sent.path), url, "{options}");
        assert_eq!(sent.text(), body, "{options}");
        assert_eq!(body.is_empty(), method == "GET", "{options}");
        let names = |name: &&String| !FOLLOW.contains(&name.as_str());
        let mut sent_names: Vec<&String> = sent.headers.iter().map(|(name, _)| name).filter(names).collect();
        sent_names.sort();
        assert_eq!(sent_names, headers.keys().collect::<Vec<_>>(), "{options}");
        let masked: Vec<&String> =
            headers.iter().filter(|(_, value)| *value == "***").map(|(name, _)| name).collect();
        assert_eq!(masked, ["authorization", "user-agent", "x-key"], "{options}");
        for (name, value) in &headers {
            if !masked.contains(&name) && !FRESH.contains(&name.as_str()) {
                assert_eq!(value, sent.header(name), "{options}: {name}");
            }
        }
        assert_eq!((sent.header("x-key"), sent.header("authorization")), ("hush", "Basic YW5uOmh1c2g="));
    }
}

#[test]
fn a_preview_of_what_was_sent_is_of_the_next_attempt() {
    let options = ", format => 'postback', encoding => 'json', signature => 'github', headers => '{\"x-key\": \"hush\"}'";
    let mut scene = Scene::new(Cluster::shared(), "preview_attempt", options, |_, _| Reply::ok());
    scene.insert([1]);
    scene.receiver.wait_for_answers(1, secs(20));
    let request = scene.receiver.requests().remove(0);
    let query = "SELECT method, url, headers->>'x-key', headers->>'x-hub-signature-256', body
                   FROM webhook_preview($1, $2::text::uuid)";
    let preview = scene.client.query_one(query, &[&scene.endpoint, &request.id()]).unwrap();
    assert_eq!(
        (preview.get::<_, &str>(0), preview.get::<_, &str>(1)),
        ("POST", scene.receiver.url().as_str())
    );
    assert_eq!((request.header("x-key"), preview.get::<_, &str>(2)), ("hush", "***"));
    // The preview is of the next attempt, if there were one.
    let next = request.text().replace("\"number_of_attempts\":1", "\"number_of_attempts\":2");
    let body: &str = preview.get(4);
    assert!(body == request.text() || body == next, "{body}");
    if body == request.text() {
        assert_eq!(preview.get::<_, &str>(3), request.header("x-hub-signature-256"));
    }
}
