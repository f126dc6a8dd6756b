use super::*;
use crate::signature;

const URL: &str = r#""url": "https://example.com/hook""#;
const SECRET: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// A new endpoint of a URL and these further parameters.
fn register(parameters: &str) -> Result<Config> {
    let comma = if parameters.is_empty() { "" } else { "," };
    Config::changed(None, &format!("{{{URL}{comma}{parameters}}}"), false)
}

fn stored(config: &Config) -> String {
    let mut object = object("configuration", &config.to_json()).unwrap();
    let secret = object.remove("secret").unwrap();
    object.remove("derived_name");
    let secrets: Vec<_> =
        secret.as_str().map(|s| json!({ "value": s, "expires_at": null })).into_iter().collect();
    object.insert("secrets".to_owned(), secrets.into());
    Value::Object(object).to_string()
}

fn refused(parameters: &str) -> Error {
    match register(parameters) {
        Ok(_) => panic!("{parameters} was accepted"),
        Err(error) => error,
    }
}

#[test]
fn a_url_alone_is_enough() {
    let config: Value = serde_json::from_str(&register("").unwrap().to_json()).unwrap();
    assert_eq!(config["url"], "https://example.com/hook");
    assert_eq!(config["events"], json!(["*"]));
    assert_eq!(config["method"], "POST");
    assert_eq!(config["encoding"], "json");
    assert_eq!(config["name"], Value::Null);
    assert_eq!(config["derived_name"], "example.com");
    assert_eq!(config["is_active"], true);
}

#[test]
fn what_is_stored_reads_back_as_it_was() {
    let config = register(&format!(
        r#""name": "crm", "events": ["contact.*", "*.deleted"], "secret": "{SECRET}", "method": "PUT",
           "headers": {{"X-Api-Key": "hush"}}, "basic_auth_username": "u", "basic_auth_password": "p",
           "max_attempts": 4, "retry_schedule": [0.25, 60], "timeout": 2.5, "max_in_flight": 3, "rate_limit": 20, "ordering": "key", "is_active": false,
           "format": "row", "encoding": "xml", "scope": "{{\"a\": 1}}", "filter": "$.a == 1""#
    ))
    .unwrap();
    assert_eq!(Config::changed(Some(&stored(&config)), "{}", false).unwrap(), config);
}

#[test]
fn a_value_that_can_never_be_right_is_refused_with_a_hint() {
    for bad in [
        r#""events": []"#,
        r#""events": ["contact"]"#,
        r#""events": "*""#,
        r#""events": [1]"#,
        r#""name": "" "#,
        r#""name": " a""#,
        r#""name": "a\nb""#,
        r#""secret": "hush""#,
        r#""method": "TRACE""#,
        r#""method": "post""#,
        r#""format": "yaml""#,
        r#""encoding": "protobuf""#,
        r#""format": "cloudevents", "encoding": "xml""#,
        r#""format": "cloudevents-binary", "encoding": "form""#,
        r#""format": "cloudevents", "method": "GET""#,
        r#""format": "cloudevents-binary", "headers": {"CE-Id": "1"}"#,
        r#""method": "GET", "encoding": "json""#,
        r#""scope": "[]""#,
        r#""scope": 5"#,
        r#""filter": 5"#,
        r#""headers": []"#,
        r#""headers": {"a": 1}"#,
        r#""headers": {"a b": "c"}"#,
        r#""headers": {"content-length": "1"}"#,
        r#""headers": {"a": "x\r\ny: z"}"#,
        r#""headers": {"a": "1", "A": "2"}"#,
        r#""basic_auth_password": "p""#,
        r#""basic_auth_username": "a:b""#,
        r#""max_attempts": 0"#,
        r#""max_attempts": -1"#,
        r#""max_attempts": 1.5"#,
        r#""max_attempts": 3000000000"#,
        r#""max_attempts": "5""#,
        r#""attempt_interval": 0"#,
        r#""attempt_interval": 86401"#,
        r#""attempt_interval": -1"#,
        r#""retry_schedule": []"#,
        r#""retry_schedule": [-1]"#,
        r#""retry_schedule": 5"#,
        r#""retry_schedule": ["x"]"#,
        r#""retry_schedule": [5], "attempt_interval": 300"#,
        r#""timeout": 0"#,
        r#""timeout": 3601"#,
        r#""max_in_flight": 0"#,
        r#""max_in_flight": 1025"#,
        r#""ordering": "random""#,
        r#""rate_limit": 0"#,
        r#""rate_limit": 0.5"#,
        r#""rate_limit": 1000001"#,
        r#""signature": "md5""#,
        r#""is_active": "yes""#,
        r#""expands": ["a", "a"]"#,
        r#""expands": [""]"#,
        r#""expands": "company""#,
        r#""colour": "blue""#,
    ] {
        assert_eq!(refused(bad).kind, Kind::InvalidValue, "{bad}");
    }
}

#[test]
fn a_null_is_refused_where_a_value_is_needed() {
    for key in
        ["url", "events", "method", "format", "headers", "expands", "ordering", "signature", "is_active"]
    {
        assert_eq!(refused(&format!(r#""{key}": null"#)).kind, Kind::NullValue, "{key}");
    }
    assert_eq!(refused(r#""events": [null]"#).kind, Kind::NullValue);
    assert_eq!(refused(r#""retry_schedule": [null]"#).kind, Kind::NullValue);
}

#[test]
fn an_error_never_repeats_a_secret() {
    for bad in [
        r#""secret": "hush""#,
        r#""headers": {"authorization": "hush\n"}"#,
        r#""headers": {"authorization": ["hush"]}"#,
        r#""headers": "hush""#,
        r#""basic_auth_password": "hush""#,
        r#""basic_auth_password": ["hush"]"#,
        r#""basic_auth_username": "u", "basic_auth_password": "hush\n""#,
    ] {
        assert!(!format!("{:?}", refused(bad)).contains("hush"), "{bad}");
    }
    assert!(!format!("{:?}", register(r#""headers": {"x-key": "hush"}"#)).contains("hush"));
}

#[test]
fn http_needs_the_setting_but_only_for_a_new_url() {
    let url = r#"{"url": "http://example.com/"}"#;
    assert!(Config::changed(None, url, false).is_err());
    let old = stored(
        &Config::changed(None, &url.replace('}', &format!(r#","secret":"{SECRET}"}}"#)), true).unwrap(),
    );
    assert!(Config::changed(Some(&old), r#"{"max_attempts": 2}"#, false).is_ok());
    assert!(Config::changed(Some(&old), url, false).is_err());
}

#[test]
fn changes_must_be_an_object() {
    for bad in ["[]", "1", "\"a\"", "{", "1e999"] {
        assert_eq!(Config::changed(None, bad, false).unwrap_err().kind, Kind::InvalidValue, "{bad}");
    }
    assert_eq!(Config::changed(None, "null", false).unwrap_err().kind, Kind::NullValue);
}

#[test]
fn a_change_cannot_take_away_the_name_or_the_secret() {
    let old = stored(&register(&format!(r#""secret": "{SECRET}""#)).unwrap());
    for key in ["name", "secret"] {
        let error = Config::changed(Some(&old), &format!(r#"{{"{key}": null}}"#), false).unwrap_err();
        assert_eq!(error.kind, Kind::NullValue);
    }
}

#[test]
fn signing_needs_a_secret_when_it_begins() {
    let old = stored(&register(r#""signature": "none""#).unwrap());
    assert!(Config::changed(Some(&old), r#"{"signature": "standard"}"#, false).is_err());
    let both = format!(r#"{{"signature": "standard", "secret": "{SECRET}"}}"#);
    assert!(Config::changed(Some(&old), &both, false).is_ok());
}

#[test]
fn a_secret_must_fit_the_signature() {
    let private = signature::generate_private([7; 32]).unwrap();
    for (scheme, secret, fits) in [
        ("standard", SECRET, true),
        ("standard", private.reveal(), false),
        ("ed25519", SECRET, false),
        ("ed25519", private.reveal(), true),
        ("github", SECRET, true),
        ("stripe", "any8char", true),
        ("shopify", "short", false),
        ("github", "has a space in it", false),
        ("none", "anything", true),
    ] {
        let result = register(&format!(r#""signature": "{scheme}", "secret": "{secret}""#));
        assert_eq!(result.is_ok(), fits, "{scheme} {secret}");
    }
    let old = stored(&register(&format!(r#""secret": "{SECRET}""#)).unwrap());
    assert!(Config::changed(Some(&old), r#"{"signature": "stripe"}"#, false).is_ok());
    assert!(Config::changed(Some(&old), r#"{"signature": "ed25519"}"#, false).is_err());
}

#[test]
fn an_encoding_that_nobody_named_follows_the_format_and_the_method() {
    let encoding = |stored: Option<&str>, changes: &str| {
        Config::changed(stored, changes, false).map(|config| config.encoding()).ok()
    };
    let old = stored(&register(r#""signature": "none""#).unwrap());
    assert_eq!(encoding(Some(&old), r#"{"format": "postback"}"#), Some(Encoding::Form));
    assert_eq!(encoding(Some(&old), r#"{"method": "GET"}"#), Some(Encoding::Form));
    let xml = stored(&register(r#""encoding": "xml", "signature": "none""#).unwrap());
    assert_eq!(encoding(Some(&xml), r#"{"format": "postback"}"#), Some(Encoding::Xml));
    assert_eq!(encoding(Some(&xml), r#"{"method": "GET"}"#), None);
    assert_eq!(encoding(Some(&xml), r#"{"method": "GET", "encoding": null}"#), Some(Encoding::Form));
}

#[test]
fn every_format_goes_with_the_encodings_and_methods_that_make_sense() {
    let mut accepted = 0;
    for (format, _) in Format::WORDS {
        for (encoding, _) in Encoding::WORDS {
            for (method, _) in Method::WORDS {
                let result = register(&format!(
                    r#""format": "{format}", "encoding": "{encoding}", "method": "{method}""#
                ));
                match result {
                    Ok(_) => accepted += 1,
                    Err(error) => assert!(error.kind == Kind::InvalidValue && error.hint.is_some()),
                }
            }
        }
    }
    // Three formats in three encodings by four methods, two of CloudEvents in JSON; and GET has three, always as a form.
    assert_eq!(accepted, 3 * 3 * 4 + 2 * 4 + 3);
}

#[test]
fn attempts_follow_from_the_retry_parameters() {
    let default = Schedule::new([1, 2, 3].map(Duration::from_secs).to_vec());
    let attempts = |parameters: &str| {
        let config = stored(&register(parameters).unwrap());
        Config::endpoint(1, "active", &config, &default).unwrap().schedule.map(|s| s.attempts())
    };
    assert_eq!(attempts(""), None);
    assert_eq!(attempts(r#""max_attempts": 2"#), Some(2));
    assert_eq!(attempts(r#""attempt_interval": 300"#), Some(10));
    assert_eq!(attempts(r#""attempt_interval": 300, "max_attempts": 1"#), Some(1));
    assert_eq!(attempts(r#""retry_schedule": [5, 60]"#), Some(3));
    assert_eq!(attempts(r#""retry_schedule": [5, 60], "max_attempts": 7"#), Some(7));
}

#[test]
fn an_endpoint_gets_every_signing_secret_in_order() {
    let config = format!(
        r#"{{{URL}, "name": "crm", "secrets": [{{"value": "{SECRET}"}}, {{"value": "whsec_old", "expires_at": 5}}]}}"#
    );
    let endpoint = Config::endpoint(7, "paused", &config, &Schedule::new(Vec::new())).unwrap();
    let old = SigningSecret { secret: Secret::new("whsec_old"), expires_at: Some(5) };
    assert_eq!(endpoint.secrets, [Secret::new(SECRET).into(), old]);
    assert_eq!((endpoint.id, endpoint.state), (7, State::Paused));
}

#[test]
fn an_event_type_has_a_resource_and_an_action() {
    for good in ["contact.created", "crm.contact.created", "a.b"] {
        assert!(checked_event_type(good).is_ok(), "{good}");
    }
    for bad in
        ["", "*", "contact", "contact.*", "*.created", "contact created", ".x", "x.", "webhook.ping", "a\n.b"]
    {
        assert!(checked_event_type(bad).is_err(), "{bad}");
    }
}
