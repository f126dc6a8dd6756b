//! What is sent in each format, encoding and method. docs/formats.md shows these very requests.

// clippy.toml opens these in test functions only, and helpers of tests are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use proptest::prelude::*;
use uuid::Uuid;
use webhook_pg::endpoint::{Encoding, Endpoint, Format, Method, Ordering, Scheme, State};
use webhook_pg::event::{Event, Operation, Pattern, Place};
use webhook_pg::request::{Request, build};
use webhook_pg::secret::SigningSecret;
use webhook_pg::{secret, signature};

const SECOND: i64 = 1_000_000;

fn event() -> Event {
    Event {
        place: Place { xid: 7, seq: 1 },
        id: Uuid::from_u128(0x019a_6f6e_3c1a_7d0e_9a55_0d6f_2f6f_5c11),
        event_type: "contact.updated".to_owned(),
        operation: Some(Operation::Updated),
        key: Some(r#"{"id":1}"#.to_owned()),
        occurred_at: 1_795_255_200_123_456,
        data: Some(r#"{"id":1,"name":"Ann & Bob","balance":12.50,"tags":["a","b"],"city":null}"#.to_owned()),
        previous: Some(r#"{"balance":10.00}"#.to_owned()),
        expanded: None,
        truncated: false,
        context: None,
        traceparent: None,
        target: None,
        selected_by: Vec::new(),
        unreadable: None,
    }
}

fn thin() -> Event {
    Event { truncated: true, data: None, previous: None, ..event() }
}

fn endpoint(format: Format, encoding: Encoding) -> Endpoint {
    Endpoint {
        id: 1,
        name: "crm".to_owned(),
        url: url::Url::parse("https://example.com/hooks?from=db").unwrap(),
        method: Method::Post,
        format,
        encoding,
        events: vec![Pattern::parse("*").unwrap()],
        is_selective: false,
        scope: None,
        expands: vec![],
        headers: vec![],
        basic_auth: None,
        scheme: Scheme::None,
        secrets: vec![],
        schedule: None,
        timeout: None,
        max_in_flight: None,
        rate_limit: None,
        ordering: Ordering::None,
        state: State::Active,
    }
}

fn sent(format: Format, encoding: Encoding, event: &Event) -> Request {
    build(&endpoint(format, encoding), event, 2, 1_795_255_201 * SECOND).unwrap()
}

fn body(format: Format, encoding: Encoding, event: &Event) -> String {
    String::from_utf8(sent(format, encoding, event).body.unwrap()).unwrap()
}

fn header<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    request.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
}

fn query(format: Format, event: &Event) -> String {
    let get = Endpoint { method: Method::Get, ..endpoint(format, Encoding::Form) };
    let request = build(&get, event, 2, 0).unwrap();
    assert!(request.body.is_none() && header(&request, "content-type").is_none());
    request.url.query().unwrap().to_owned()
}

#[test]
fn the_documentation_shows_what_is_sent() {
    let text = include_str!("../docs/formats.md");
    let documentation: String = text.split_whitespace().collect();
    let mut shown = 0;
    for (word, format) in Format::WORDS {
        for (encoding_word, encoding) in Encoding::WORDS {
            let is_cloud_event = matches!(format, Format::CloudEvents | Format::CloudEventsBinary);
            if is_cloud_event && *encoding != Encoding::Json {
                continue;
            }
            let body: String = body(*format, *encoding, &event()).split_whitespace().collect();
            assert!(documentation.contains(&body), "{word} in {encoding_word}: {body}");
            shown += 1;
        }
    }
    assert_eq!(shown, 11);
    let binary = sent(Format::CloudEventsBinary, Encoding::Json, &event());
    for (name, value) in binary.headers.iter().filter(|(name, _)| name.starts_with("ce-")) {
        assert!(text.contains(&format!("{name}: {value}\n")), "{name}: {value}");
    }
    let query: String = query(Format::Postback, &event()).split_whitespace().collect();
    assert!(documentation.contains(&query), "{query}");
}

#[test]
fn the_content_type_says_what_the_body_is() {
    for (format, encoding, expected) in [
        (Format::Standard, Encoding::Json, "application/json"),
        (Format::Row, Encoding::Xml, "application/xml"),
        (Format::Postback, Encoding::Form, "application/x-www-form-urlencoded"),
        (Format::CloudEvents, Encoding::Json, "application/cloudevents+json"),
        (Format::CloudEventsBinary, Encoding::Json, "application/json"),
    ] {
        assert_eq!(header(&sent(format, encoding, &event()), "content-type"), Some(expected));
    }
}

#[test]
fn a_postback_names_the_action_in_its_own_words() {
    for (event_type, word) in [
        ("contact.created", "CREATE"),
        ("contact.updated", "UPDATE"),
        ("contact.deleted", "DELETE"),
        ("contact.truncated", "TRUNCATE"),
        ("contact.snapshot", "CREATE"),
        ("contact.lists_changed", "LISTS_CHANGED"),
        ("webhook.ping", "PING"),
    ] {
        let event = Event { event_type: event_type.to_owned(), operation: None, ..event() };
        let sent: serde_json::Value =
            serde_json::from_str(&body(Format::Postback, Encoding::Json, &event)).unwrap();
        assert_eq!(sent["type"], word);
        assert_eq!(sent["resource"], event_type.split('.').next().unwrap());
    }
}

#[test]
fn a_postback_counts_its_attempts() {
    let endpoint = endpoint(Format::Postback, Encoding::Form);
    for attempt in [1, 2, 17] {
        let request = build(&endpoint, &event(), attempt, 0).unwrap();
        let body = String::from_utf8(request.body.unwrap()).unwrap();
        assert!(body.contains(&format!("&number_of_attempts={attempt}&")), "{body}");
    }
}

#[test]
fn a_thin_event_says_so_in_every_format() {
    for format in [Format::Standard, Format::Postback, Format::CloudEvents, Format::Row] {
        let sent: serde_json::Value = serde_json::from_str(&body(format, Encoding::Json, &thin())).unwrap();
        assert_eq!(
            (&sent["truncated"], &sent["data"]),
            (&true.into(), &serde_json::Value::Null),
            "{format:?}"
        );
    }
    let binary = sent(Format::CloudEventsBinary, Encoding::Json, &thin());
    assert_eq!(header(&binary, "ce-truncated"), Some("true"));
    assert_eq!(binary.body.unwrap(), b"null");
    assert!(body(Format::Row, Encoding::Xml, &thin()).contains(r#"<data nil="true"/><key><id>1</id></key>"#));
    assert!(
        body(Format::Postback, Encoding::Form, &thin())
            .contains("&data=&truncated=true&key=%7B%22id%22%3A1%7D")
    );
}

#[test]
fn an_event_of_a_link_table_says_what_happened_to_the_link_row() {
    let event = Event { event_type: "contact.lists_changed".to_owned(), ..event() };
    for format in [Format::Standard, Format::Postback, Format::CloudEvents] {
        let sent: serde_json::Value = serde_json::from_str(&body(format, Encoding::Json, &event)).unwrap();
        assert_eq!(sent["operation"], "updated", "{format:?}");
    }
    let binary = sent(Format::CloudEventsBinary, Encoding::Json, &event);
    assert_eq!(header(&binary, "ce-operation"), Some("updated"));
}

#[test]
fn expanded_rows_stand_inside_the_row_in_every_format() {
    let expanded = Some(r#"{"company":{"id":2}}"#.to_owned());
    let event = Event { expanded, ..event() };
    for (format, encoding, expected) in [
        (Format::Standard, Encoding::Json, r#""company":{"id":2}}"#),
        (Format::Postback, Encoding::Json, r#"\"company\":{\"id\":2}}""#),
        (Format::CloudEvents, Encoding::Json, r#""company":{"id":2}}"#),
        (Format::Row, Encoding::Form, "&company=%7B%22id%22%3A2%7D"),
        (Format::Row, Encoding::Xml, "<company><id>2</id></company></contact>"),
    ] {
        let endpoint = Endpoint { expands: vec!["company".to_owned()], ..endpoint(format, encoding) };
        let body = String::from_utf8(build(&endpoint, &event, 1, 0).unwrap().body.unwrap()).unwrap();
        assert!(body.contains(expected), "{format:?}: {body}");
    }
}

#[test]
fn cloud_events_percent_encode_what_a_header_cannot_hold() {
    let event =
        Event { event_type: "größe \"x%.created".to_owned(), key: Some(r#""é 1""#.to_owned()), ..event() };
    let request = sent(Format::CloudEventsBinary, Encoding::Json, &event);
    assert_eq!(header(&request, "ce-type"), Some("gr%C3%B6%C3%9Fe%20%22x%25.created"));
    assert_eq!(header(&request, "ce-source"), Some("urn:webhook-pg:gr%25C3%25B6%25C3%259Fe%2520%2522x%2525"));
    assert_eq!(header(&request, "ce-subject"), Some("%C3%A9%201"));
}

#[test]
fn the_subject_of_a_cloud_event_is_the_key() {
    for (key, subject) in [
        (Some(r#"{"id":1}"#), Some("1")),
        (Some(r#"{"id":"é"}"#), Some("é")),
        (Some(r#"{"a":1,"b":2}"#), Some(r#"{"a":1,"b":2}"#)),
        (Some(r#""text""#), Some("text")),
        (Some(r#""""#), None),
        (None, None),
    ] {
        let event = Event { key: key.map(str::to_owned), ..event() };
        let sent: serde_json::Value =
            serde_json::from_str(&body(Format::CloudEvents, Encoding::Json, &event)).unwrap();
        assert_eq!(sent.get("subject").and_then(|s| s.as_str()), subject);
    }
}

#[test]
fn data_that_is_no_object_travels_in_every_encoding() {
    let event = Event { data: Some("[1.0, \"a\"]".to_owned()), ..event() };
    assert_eq!(body(Format::Row, Encoding::Json, &event), "[1.0, \"a\"]");
    assert_eq!(body(Format::Row, Encoding::Form, &event), "data=%5B1.0%2C+%22a%22%5D");
    assert!(
        body(Format::Row, Encoding::Xml, &event)
            .ends_with("<contact><item>1.0</item><item>a</item></contact>")
    );
}

#[test]
fn a_get_adds_the_fields_to_the_query_and_signs_all_of_it() {
    let secret = secret::generate([3; 32]);
    let get = Endpoint {
        method: Method::Get,
        scheme: Scheme::Standard,
        secrets: vec![secret.clone().into()],
        ..endpoint(Format::Row, Encoding::Form)
    };
    let request = build(&get, &event(), 1, 5 * SECOND).unwrap();
    let query = request.url.query().unwrap();
    assert_eq!(query, "from=db&id=1&name=Ann+%26+Bob&balance=12.50&tags=%5B%22a%22%2C%22b%22%5D&city=");
    let id = event().id.to_string();
    let expected = signature::header(Scheme::Standard, &[&secret], &id, 5, query.as_bytes()).unwrap();
    assert_eq!(header(&request, "webhook-signature").unwrap(), expected.unwrap().1);
}

#[test]
fn a_secret_that_has_expired_signs_no_more() {
    let [old, new] = [[1; 32], [2; 32]].map(secret::generate);
    let signed = |now: i64| {
        let secrets = vec![
            SigningSecret { secret: new.clone(), expires_at: None },
            SigningSecret { secret: old.clone(), expires_at: Some(10 * SECOND) },
        ];
        let endpoint =
            Endpoint { scheme: Scheme::Standard, secrets, ..endpoint(Format::Standard, Encoding::Json) };
        let request = build(&endpoint, &event(), 1, now).unwrap();
        header(&request, "webhook-signature").unwrap().split(' ').count()
    };
    assert_eq!((signed(10 * SECOND - 1), signed(10 * SECOND)), (2, 1));
}

proptest! {
    #[test]
    fn a_form_reads_back_as_it_was(name in ".{0,12}", text in ".{0,40}") {
        let data = serde_json::json!({ name.clone(): text.clone() }).to_string();
        let form = body(Format::Row, Encoding::Form, &Event { data: Some(data), ..event() });
        let read: Vec<(String, String)> = url::form_urlencoded::parse(form.as_bytes()).into_owned().collect();
        prop_assert_eq!(read, [(name, text)]);
    }

    #[test]
    fn a_postback_holds_the_exact_text_of_the_row(text in ".{0,40}", number in "[1-9][0-9]{0,30}\\.[0-9]{1,9}") {
        let data = format!(r#"{{"a":{},"n":{number}}}"#, serde_json::Value::from(text));
        let event = Event { data: Some(data.clone()), ..event() };
        let form = body(Format::Postback, Encoding::Form, &event);
        let mut read = url::form_urlencoded::parse(form.as_bytes());
        prop_assert_eq!(&*read.find(|(name, _)| name == "data").unwrap().1, &data);
        let json: serde_json::Value = serde_json::from_str(&body(Format::Postback, Encoding::Json, &event)).unwrap();
        prop_assert_eq!(json["data"].as_str().unwrap(), &data);
    }

    #[test]
    fn no_event_fails_in_any_format(data in "\\PC{0,30}|[\\[{\"}\\]:,0-9a-z\\\\]{0,30}", event_type in ".{0,20}", key in ".{0,9}") {
        let event = Event { data: Some(data), event_type, key: Some(key), ..event() };
        for (_, format) in Format::WORDS {
            for (_, encoding) in Encoding::WORDS {
                let request = sent(*format, *encoding, &event);
                prop_assert!(request.headers.iter().all(|(_, value)| value.bytes().all(|b| (b' '..=b'~').contains(&b))));
            }
        }
    }
}
