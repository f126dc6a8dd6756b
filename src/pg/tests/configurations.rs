//! Formats and signatures at registration, rotation of secrets, configurations as JSON, previews.

use pgrx::prelude::*;

#[pg_schema]
mod tests {
    use pgrx::prelude::*;

    use crate::pg::tests::{contacts, maybe, one, register, run, sqlstate, written};

    #[pg_test]
    fn each_signature_gets_its_own_kind_of_secret() {
        for (signature, prefix) in [
            ("standard", "whsec_"),
            ("ed25519", "whsk_"),
            ("github", "whsec_"),
            ("stripe", "whsec_"),
            ("shopify", "whsec_"),
        ] {
            let query = format!(
                "SELECT secret FROM webhook_register('https://example.com', name => '{signature}', signature => '{signature}')"
            );
            assert!(one::<String>(&query).starts_with(prefix), "{signature}");
        }
        let shown = "SELECT string_agg(name, ' ') FROM webhook.endpoints WHERE public_key LIKE 'whpk\\_%'";
        assert_eq!(one::<String>(shown), "ed25519");
    }

    #[pg_test]
    fn an_encoding_that_is_left_out_is_that_of_the_format() {
        register("a", ", format => 'postback'");
        register("b", ", method => 'GET'");
        register("c", ", format => 'row'");
        let encodings = "SELECT string_agg(encoding, ' ' ORDER BY name) FROM webhook.endpoints";
        assert_eq!(one::<String>(encodings), "form form json");
    }

    #[pg_test]
    fn a_rotation_keeps_the_old_secret_for_the_overlap() {
        let id = register("a", "");
        let old: String = one("SELECT value FROM webhook.endpoint_secret");
        let new: String = one(&format!("SELECT webhook_rotate_secret({id}, '2 hours')"));
        assert!(new.starts_with("whsec_") && new != old);
        let secrets =
            "SELECT string_agg(concat(value, expires_at BETWEEN now() + '119 min' AND now() + '121 min'), ' '
                                         ORDER BY created_at) FROM webhook.endpoint_secret";
        assert_eq!(one::<String>(secrets), format!("{old}t {new}"));
        run(&format!("SELECT webhook_rotate_secret({id}, '0')"));
        assert_eq!(one::<i64>("SELECT count(*) FROM webhook.endpoint_secret"), 1);
    }

    #[pg_test]
    fn a_rotation_never_lengthens_the_life_of_a_secret() {
        let id = register("a", "");
        run(&format!("SELECT webhook_rotate_secret({id}, '1 hour'), webhook_rotate_secret({id}, '1 day')"));
        let ends = "SELECT min(expires_at) < now() + '61 min' AND max(expires_at) > now() + '23 h' FROM webhook.endpoint_secret";
        assert!(one::<bool>(ends));
    }

    #[pg_test]
    fn a_public_key_is_that_of_the_newest_secret() {
        let id = register("a", ", signature => 'ed25519'");
        let before: String = one("SELECT public_key FROM webhook.endpoints");
        run(&format!("SELECT webhook_rotate_secret({id})"));
        assert_ne!(one::<String>("SELECT public_key FROM webhook.endpoints"), before);
        run(&format!(r#"SELECT webhook_update({id}, '{{"signature": "stripe", "secret": "open_sesame"}}')"#));
        assert_eq!(maybe::<String>("SELECT public_key FROM webhook.endpoints"), None);
    }

    #[pg_test]
    fn ten_secrets_are_in_force_at_most() {
        let id = register("a", "");
        run(&format!("SELECT webhook_rotate_secret({id}) FROM generate_series(1, 9)"));
        assert_eq!(sqlstate(&format!("SELECT webhook_rotate_secret({id})")), "54000");
        run(&format!("SELECT webhook_rotate_secret({id}, '0')"));
    }

    #[pg_test]
    fn a_rotation_that_makes_no_sense_changes_nothing() {
        let id = register("a", "");
        let unsigned: i64 =
            one("SELECT id FROM webhook_register('https://example.com', name => 'u', signature => 'none')");
        let secret: String = one("SELECT value FROM webhook.endpoint_secret");
        let before = written();
        for (call, state) in [
            (format!("{id}, NULL"), "22004"),
            (format!("{id}, '-1 s'"), "22023"),
            (format!("{id}, '2 years'"), "22023"),
            (format!("{id}, secret => 'hush'"), "22023"),
            (format!("{id}, secret => '{secret}'"), "22023"),
            (unsigned.to_string(), "55000"),
            ("987654".to_owned(), "42704"),
            ("NULL".to_owned(), "22004"),
        ] {
            assert_eq!(sqlstate(&format!("SELECT webhook_rotate_secret({call})")), state, "{call}");
            assert_eq!(written(), before, "{call}");
        }
    }

    #[pg_test]
    fn what_a_configuration_shows_changes_nothing_when_it_is_applied() {
        let id = register(
            "all",
            r#", events => '{contact.*}', method => 'PUT', format => 'row', encoding => 'xml', headers => '{"X-Key": "hush"}',
               basic_auth_username => 'u', basic_auth_password => 'hush', scope => '{"a": 12345678901234567890.10}',
               filter => '$.data.a > 1', expands => '{b}', max_attempts => 3, retry_schedule => '{5 s,1 mon}',
               timeout => '2.5 s', max_in_flight => 2, signature => 'ed25519', is_active => false"#,
        );
        let before = written();
        let config: String = one(&format!("SELECT webhook_config({id})::text"));
        assert!(!config.contains("hush") && !config.contains("whsk_"), "{config}");
        assert_eq!(one::<i64>(&format!("SELECT (webhook_apply(webhook_config({id})) ->> 'id')::bigint")), id);
        assert_eq!(written(), before);
    }

    #[pg_test]
    fn an_endpoint_is_applied_by_its_name() {
        let answer = |config: &str| one::<String>(&format!("SELECT webhook_apply('{config}')::text"));
        let first =
            answer(r#"{"name": "a", "url": "https://example.com", "timeout": "3 s", "headers": {"x": "1"}}"#);
        assert!(first.contains(r#""secret": "whsec_"#), "{first}");
        let second = answer(r#"{"name": "a", "max_attempts": 3, "headers": {"x": "***", "y": "2"}}"#);
        assert!(!second.contains("whsec_"), "{second}");
        assert!(one::<bool>("SELECT max_attempts = 3 AND timeout = '3 s' FROM webhook.endpoints"));
        let headers = "SELECT string_agg(name || value, ' ' ORDER BY name) FROM webhook.endpoint_secret WHERE kind = 'header'";
        assert_eq!(one::<String>(headers), "x1 y2");
        assert_eq!(one::<i64>("SELECT count(*) FROM webhook.endpoints"), 1);
    }

    #[pg_test]
    fn a_postbackconfig_comes_and_goes_in_its_own_shape() {
        let answer = |config: &str| {
            one::<pgrx::JsonB>(&format!(
                r#"SELECT webhook_apply('{{"postbackconfig": {config}}}') -> 'postbackconfig'"#
            ))
            .0
        };
        let made = answer(
            r#"{"attempt_interval": 300, "basic_auth_username": "u", "basic_auth_password": "hush", "expands": "",
                "format": "api-default", "is_active": "1", "location_id": "north", "number_of_attempts": 1, "on_create": "1",
                "on_delete": "1", "on_update": "0", "resource": "contact", "url": "https://example.com/receiver"}"#,
        );
        assert!(!made.to_string().contains("hush") && made.get("basic_auth_username").is_none());
        let id = made["id"].as_i64().unwrap();
        assert_eq!((&made["on_update"], &made["on_delete"]), (&"0".into(), &"1".into()));
        assert!(made["created_ts"].as_i64().unwrap() > 1_700_000_000);
        assert!(one::<bool>(&format!(
            r#"SELECT name = 'postback-{id}' AND format = 'postback' AND encoding = 'form' AND scope = '{{"location_id": "north"}}'
                  AND events = '{{contact.created,contact.deleted}}' AND attempt_interval = '300 s' AND max_attempts = 1
                  AND basic_auth_username = 'u' FROM webhook.endpoints"#
        )));
        let changed =
            answer(&format!(r#"{{"id": {id}, "on_update": 1, "location_id": null, "is_active": false}}"#));
        assert_eq!((&changed["on_update"], &changed["is_active"]), (&"1".into(), &"0".into()));
        assert!(changed["location_id"].is_null());
        let before = written();
        assert_eq!(answer(&changed.to_string()), changed);
        assert_eq!(written(), before);
    }

    #[pg_test]
    fn a_configuration_that_makes_no_sense_changes_nothing() {
        let before = written();
        for (config, state) in [
            ("NULL", "22004"),
            ("'[]'", "22023"),
            (r#"'{"url": "https://example.com"}'"#, "22004"),
            (r#"'{"name": "a"}'"#, "22004"),
            (r#"'{"name": "a", "url": "https://example.com", "colour": 1}'"#, "22023"),
            (r#"'{"name": "a", "url": "https://example.com", "headers": {"x": "***"}}'"#, "22023"),
            (r#"'{"postbackconfig": {"id": 987654}}'"#, "42704"),
            (r#"'{"postbackconfig": {"resource": "contact"}}'"#, "22004"),
            (r#"'{"postbackconfig": []}'"#, "22023"),
        ] {
            assert_eq!(sqlstate(&format!("SELECT webhook_apply({config})")), state, "{config}");
            assert_eq!(written(), before, "{config}");
        }
    }

    #[pg_test]
    fn a_preview_shows_the_request_and_no_secret() {
        contacts();
        let id = register(
            "p",
            r#", format => 'postback', headers => '{"X-Key": "hush"}', basic_auth_username => 'u', basic_auth_password => 'hush'"#,
        );
        run(r#"INSERT INTO contact VALUES (1, E'a\\u0000')"#);
        let preview = format!("SELECT to_json(p)::text FROM webhook.events e, webhook_preview({id}, e.id) p");
        let shown: String = one(&preview);
        assert!(!shown.contains("hush") && !shown.contains("dTpodXNo"), "{shown}");
        for part in [
            r#""x-key": "***""#,
            r#""authorization": "***""#,
            "v1,",
            "type=CREATE&resource=contact&number_of_attempts=1",
        ] {
            assert!(shown.contains(part), "{part} is not in {shown}");
        }
        assert_eq!(sqlstate(&format!("SELECT webhook_preview({id}, gen_random_uuid())")), "42704");
        assert_eq!(sqlstate(&format!("SELECT webhook_preview({id}, NULL)")), "22004");
    }
}
