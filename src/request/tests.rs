use proptest::prelude::*;
use uuid::Uuid;

use super::rules::{MAX_BASIC_AUTH, RESERVED};
use super::*;
use crate::endpoint::{Ordering, Scheme, State};
use crate::event::{Operation, Pattern, Place};
use crate::format::data_with;

fn event() -> Event {
    Event {
        place: Place { xid: 7, seq: 1 },
        id: Uuid::from_u128(0x0199_d3f6_7a5e_7cc1_8000_0123_4567_89ab),
        event_type: "contact.updated".to_owned(),
        operation: Some(Operation::Updated),
        key: Some(r#"{"id":1}"#.to_owned()),
        occurred_at: 1_795_255_200_123_456,
        data: Some(r#"{"id":1,  "score":1.50, "name":"\u0000é"}"#.to_owned()),
        previous: Some(r#"{"name":null}"#.to_owned()),
        expanded: None,
        truncated: false,
        context: None,
        traceparent: None,
        target: None,
        selected_by: Vec::new(),
        unreadable: None,
    }
}

fn endpoint() -> Endpoint {
    Endpoint {
        id: 1,
        name: "crm".to_owned(),
        url: checked_url("https://example.com/hooks?a=b", false).unwrap(),
        method: Method::Post,
        format: Format::Standard,
        encoding: Encoding::Json,
        is_selective: false,
        scope: None,
        events: vec![Pattern::parse("*").unwrap()],
        expands: vec![],
        headers: vec![],
        basic_auth: None,
        scheme: Scheme::Standard,
        secrets: vec![crate::secret::generate([9; 32]).into()],
        schedule: None,
        timeout: None,
        max_in_flight: None,
        rate_limit: None,
        ordering: Ordering::None,
        state: State::Active,
    }
}

fn header<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    request.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
}

#[test]
fn a_standard_body_holds_the_exact_texts_of_the_event() {
    assert_eq!(
        standard_body(&event(), &[]),
        r#"{"type":"contact.updated","timestamp":"2026-11-21T10:00:00.123456Z","data":{"id":1,  "score":1.50, "name":"\u0000é"},"previous":{"name":null},"key":{"id":1}}"#
    );
}

#[test]
fn data_holds_what_the_endpoint_expands_in_its_order_and_nothing_else() {
    let expanded = Some(r#"{"account":{"n":1.50},"tags":["a"],"owner":null}"#.to_owned());
    let event = Event { data: Some(r#"{"id":1}"#.to_owned()), expanded, ..event() };
    let data = |expands: &[&str]| {
        data_with(&event, &expands.iter().map(|&name| name.to_owned()).collect::<Vec<_>>()).into_owned()
    };
    assert_eq!(data(&["tags", "account", "unknown"]), r#"{"id":1,"tags":["a"],"account":{"n":1.50}}"#);
    assert_eq!(data(&["owner"]), r#"{"id":1,"owner":null}"#);
    assert_eq!(data(&[]), r#"{"id":1}"#);
}

#[test]
fn a_row_without_columns_and_a_thin_event_can_be_expanded_too() {
    let expanded = Some(r#"{"account":{}}"#.to_owned());
    let expands = ["account".to_owned()];
    let event = Event { data: Some("{}".to_owned()), expanded, ..event() };
    assert_eq!(data_with(&event, &expands), r#"{"account":{}}"#);
    assert_eq!(data_with(&Event { truncated: true, ..event }, &expands), "null");
}

#[test]
fn a_timestamp_always_has_six_decimals() {
    let event = Event { occurred_at: 1_795_255_200_000_000, ..event() };
    assert!(standard_body(&event, &[]).contains(r#""timestamp":"2026-11-21T10:00:00.000000Z""#));
}

#[test]
fn what_the_event_does_not_have_is_not_in_the_body() {
    let event = Event { previous: None, key: None, ..event() };
    let body: serde_json::Value = serde_json::from_str(&standard_body(&event, &[])).unwrap();
    assert_eq!(body.as_object().unwrap().keys().collect::<Vec<_>>(), ["type", "timestamp", "data"]);
}

#[test]
fn a_thin_event_says_so_and_has_no_data() {
    let event = Event { truncated: true, data: None, previous: None, ..event() };
    let body: serde_json::Value = serde_json::from_str(&standard_body(&event, &[])).unwrap();
    assert_eq!((&body["truncated"], &body["data"]), (&true.into(), &serde_json::Value::Null));
    assert_eq!(body["key"]["id"], 1);
}

#[test]
fn an_event_of_a_link_table_says_what_happened_to_the_link_row() {
    let event = Event { event_type: "contact.lists_changed".to_owned(), ..event() };
    assert!(standard_body(&event, &[]).contains(r#","operation":"updated","data""#));
}

#[test]
fn a_context_travels_with_the_event() {
    let event = Event { context: Some(r#"{"user":"ann"}"#.to_owned()), ..event() };
    assert!(standard_body(&event, &[]).ends_with(r#","context":{"user":"ann"}}"#));
}

#[test]
fn each_attempt_is_signed_over_its_own_timestamp_under_the_same_id() {
    let (first, second) = (
        build(&endpoint(), &event(), 1, 1_000_000_999_999).unwrap(),
        build(&endpoint(), &event(), 1, 1_000_060_000_000).unwrap(),
    );
    assert_eq!(header(&first, "webhook-timestamp"), Some("1000000"));
    assert_eq!(header(&second, "webhook-timestamp"), Some("1000060"));
    assert_eq!(header(&first, "webhook-id"), Some("0199d3f6-7a5e-7cc1-8000-0123456789ab"));
    assert_eq!(header(&first, "webhook-id"), header(&second, "webhook-id"));
    assert_ne!(header(&first, "webhook-signature"), header(&second, "webhook-signature"));
    assert!(first.body == second.body);
}

#[test]
fn an_endpoint_adds_its_headers_and_basic_authorization() {
    let endpoint = Endpoint {
        headers: vec![
            ("X-Api-Key".to_owned(), Secret::new("k")),
            ("User-Agent".to_owned(), Secret::new("me")),
        ],
        basic_auth: Some(("ann".to_owned(), Secret::new("pw"))),
        scheme: Scheme::None,
        ..endpoint()
    };
    let event = Event { traceparent: Some("00-ab-cd-01".to_owned()), ..event() };
    let request = build(&endpoint, &event, 1, 0).unwrap();
    assert_eq!(header(&request, "x-api-key"), Some("k"));
    assert_eq!(header(&request, "user-agent"), Some("me"));
    assert_eq!(header(&request, "authorization"), Some("Basic YW5uOnB3"));
    assert_eq!(header(&request, "traceparent"), Some("00-ab-cd-01"));
    assert_eq!(header(&request, "webhook-signature"), None);
}

#[test]
fn an_endpoint_without_a_secret_sends_nothing() {
    assert!(build(&Endpoint { secrets: vec![], ..endpoint() }, &event(), 1, 0).is_err());
    assert!(
        build(&Endpoint { secrets: vec![Secret::new("hush").into()], ..endpoint() }, &event(), 1, 0).is_err()
    );
}

#[test]
fn a_url_that_is_not_plain_https_is_refused() {
    let long = format!("https://example.com/{}", "a".repeat(MAX_URL));
    for bad in [
        "",
        "example.com",
        "/hooks",
        "https:example.com",
        "https:/example.com",
        "https://",
        "https:///example.com",
        "https://?a",
        "ftp://example.com",
        "file:///etc/passwd",
        "gopher://example.com",
        "ws://example.com",
        "javascript:alert(1)",
        "https://u:p@example.com",
        "https://u@example.com",
        "https://@example.com",
        "https://example.com/#f",
        "https://example.com#",
        "https://example.com:0/",
        "https://example.com:99999/",
        "https://exa mple.com",
        " https://example.com",
        "https://example.com/\r\nx: y",
        "https://example.com/\0",
        "https://example.com/\t",
        "https://example.com\\@evil.example",
        "https://exämple.com",
        "https://example.com/é",
        "https://[::1",
        "https://1.2.3.4.5.",
        "https://exa%00mple.com",
        "https://example.com/\u{7f}",
        &long,
    ] {
        assert!(checked_url(bad, true).is_err(), "{bad:?} was accepted");
    }
}

#[test]
fn http_needs_leave() {
    assert!(checked_url("http://example.com/", false).is_err());
    assert!(checked_url("http://example.com/", true).is_ok());
    assert!(checked_url("HTTPS://EXAMPLE.com/A@b?c=%0d%0a@", false).is_ok());
}

#[test]
fn odd_spellings_of_an_address_come_out_plain() {
    for odd in ["2130706433", "0x7f.1", "0177.0.0.1", "127.1", "0x7f000001"] {
        let url = checked_url(&format!("https://{odd}/"), false).unwrap();
        assert_eq!(url.host_str(), Some("127.0.0.1"), "{odd}");
    }
}

#[test]
fn a_refused_url_does_not_repeat_its_password() {
    let error = checked_url("https://ann:hush@example.com/", false).unwrap_err();
    assert!(!format!("{error:?}").contains("hush"));
}

#[test]
fn a_header_that_could_change_the_message_is_refused() {
    for bad in [
        ("host", "a"),
        ("Content-Length", "1"),
        ("transfer-encoding", "chunked"),
        ("TE", "trailers"),
        ("Webhook-Signature", "v1,"),
        ("webhook-anything", "a"),
        ("", "a"),
        ("a b", "c"),
        ("a:", "c"),
        ("a\r\nb", "c"),
        ("ä", "c"),
        ("x", "a\r\nb: c"),
        ("x", "a\nb"),
        ("x", "a\0b"),
        ("x", " a"),
        ("x", "a "),
        ("x", "ä"),
        ("x", "\u{7f}"),
        ("x", &"a".repeat(MAX_HEADER_VALUE + 1)),
        (&"x".repeat(MAX_HEADER_NAME + 1), "a"),
    ] {
        assert!(checked_header(bad.0, bad.1).is_err(), "{bad:?} was accepted");
    }
    assert!(checked_header("X-Api-Key", "a b\tc~!").is_ok());
    assert!(checked_header("authorization", "Bearer t").is_ok());
}

#[test]
fn headers_are_checked_together() {
    assert!(checked_headers([("x-a", "1"), ("X-A", "2")], false).is_err());
    assert!(checked_headers([("authorization", "Bearer t")], true).is_err());
    assert!(checked_headers([("authorization", "Bearer t"), ("x-a", "")], false).is_ok());
    let error = checked_headers([("x-a", "hush\n")], false).unwrap_err();
    assert!(!format!("{error:?}").contains("hush"));
}

#[test]
fn basic_authorization_is_checked() {
    assert!(checked_basic_auth("ann", "p:w é").is_ok());
    assert!(checked_basic_auth("a:b", "pw").is_err());
    assert!(checked_basic_auth("ann", "p\nw").is_err());
}

#[test]
fn a_name_and_a_password_of_512_characters_each_are_room_enough_and_a_byte_more_is_not() {
    for letter in ["p", "é", "密", "🔑"] {
        let long = letter.repeat(512);
        assert!(checked_basic_auth(&long, &long).is_ok(), "{letter}");
    }
    let longest = "🔑".repeat(512);
    let error = checked_basic_auth(&longest, &format!("{longest}p")).unwrap_err();
    assert!(
        !format!("{error:?}").contains("🔑") && format!("{error:?}").contains(&MAX_BASIC_AUTH.to_string())
    );
}

#[test]
fn no_header_that_is_ours_can_be_given_however_it_is_written() {
    for name in
        RESERVED.into_iter().chain(["webhook-id", "webhook-timestamp", "webhook-signature", "webhook-event"])
    {
        for name in [name.to_owned(), name.to_ascii_uppercase(), name[..1].to_ascii_uppercase() + &name[1..]]
        {
            assert!(checked_header(&name, "a").is_err(), "{name} was accepted");
        }
    }
}

#[test]
fn every_header_that_a_request_has_by_itself_is_reserved_but_those_that_people_may_choose() {
    for method in [Method::Post, Method::Get] {
        for scheme in [Scheme::Standard, Scheme::Github, Scheme::Stripe, Scheme::Shopify] {
            let endpoint = Endpoint { method, scheme, ..endpoint() };
            for (name, _) in build(&endpoint, &event(), 1, event().occurred_at).unwrap().headers {
                let chosen = ["user-agent", "authorization"].contains(&name.as_str());
                assert!(chosen || reserved_header(&name), "{name}");
            }
        }
    }
}

proptest! {
    #[test]
    fn any_type_makes_a_valid_body(event_type in ".{1,40}") {
        let event = Event { event_type: event_type.clone(), ..event() };
        let body: serde_json::Value = serde_json::from_str(&standard_body(&event, &[])).unwrap();
        prop_assert_eq!(&body["type"], &event_type);
    }

    #[test]
    fn an_accepted_url_has_one_reading(text in "https?://[ -~]{1,40}") {
        if let Ok(url) = checked_url(&text, true) {
            prop_assert_eq!(Url::parse(url.as_str()).unwrap(), url.clone());
            prop_assert!(url.has_host() && url.username().is_empty() && url.password().is_none());
            prop_assert!(url.as_str().bytes().all(|b| b.is_ascii_graphic()));
        }
    }

    #[test]
    fn an_accepted_header_is_one_line(name in "[ -~\r\n]{0,8}", value in ".{0,12}") {
        if checked_header(&name, &value).is_ok() {
            prop_assert!(!name.contains([':', ' ', '\r', '\n']) && !value.contains(['\r', '\n', '\0']));
        }
    }
}
