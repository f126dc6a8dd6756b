//! Registering, changing and removing endpoints.

use pgrx::prelude::*;

#[pg_schema]
mod tests {
    use pgrx::prelude::*;

    use crate::config::Config;
    use crate::pg::tests::{maybe, one, register, run, sqlstate, written};
    use crate::retry::Schedule;

    #[pg_test]
    fn the_secret_is_shown_once_and_masked_ever_after() {
        let secret: String =
            one("SELECT secret FROM webhook_register('https://example.com/hook', name => 'a')");
        assert!(secret.starts_with("whsec_"));
        assert_eq!(one::<String>("SELECT value FROM webhook.endpoint_secret"), secret);
        assert_eq!(one::<String>("SELECT secret FROM webhook.endpoints"), "***");
    }

    #[pg_test]
    fn a_given_secret_is_kept_and_a_generated_one_is_never_the_same() {
        let given = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
        let answer: String =
            one(&format!("SELECT secret FROM webhook_register('https://example.com', secret => '{given}')"));
        assert_eq!(answer, given);
        run("SELECT webhook_register('https://example.com') FROM generate_series(1, 20)");
        assert_eq!(one::<i64>("SELECT count(DISTINCT value) FROM webhook.endpoint_secret"), 21);
    }

    #[pg_test]
    fn an_unsigned_endpoint_has_no_secret_to_show() {
        let query = "SELECT secret FROM webhook_register('https://example.com', signature => 'none')";
        assert_eq!(maybe::<String>(query), None);
    }

    #[pg_test]
    fn every_parameter_shows_in_the_view_and_secret_values_do_not() {
        register(
            "all",
            r#", events => '{contact.*,*.deleted}', method => 'PUT', headers => '{"x-api-key": "hush"}',
               basic_auth_username => 'user', basic_auth_password => 'hush', max_attempts => 4,
               retry_schedule => '{5 s,1 min}', timeout => '2.5 s', max_in_flight => 3, is_active => false"#,
        );
        let shown: String = one("SELECT to_json(e)::text FROM webhook.endpoints e");
        assert!(!shown.contains("hush"), "{shown}");
        for part in [
            r#""events":["contact.*","*.deleted"]"#,
            r#""method":"PUT""#,
            r#""x-api-key": "***""#,
            r#""basic_auth_username":"user""#,
            r#""basic_auth_password":"***""#,
            r#""max_attempts":4"#,
            r#""retry_schedule":["00:00:05","00:01:00"]"#,
            r#""timeout":"00:00:02.5""#,
            r#""max_in_flight":3"#,
            r#""state":"inactive""#,
            r#""is_active":false"#,
        ] {
            assert!(shown.contains(part), "{part} is not in {shown}");
        }
    }

    #[pg_test]
    fn a_name_that_is_left_out_is_the_host_and_unique() {
        run("SELECT webhook_register('https://example.com/hook') FROM generate_series(1, 3)");
        let names: String = one("SELECT string_agg(name, ' ' ORDER BY id) FROM webhook.endpoints");
        assert_eq!(names, "example.com example.com-2 example.com-3");
    }

    #[pg_test]
    fn bad_input_has_its_sqlstate_and_changes_nothing() {
        let id = register("first", "");
        let before = written();
        let register = |parameters: &str| format!("SELECT webhook_register({parameters})");
        let update = |changes: &str| format!("SELECT webhook_update({id}, '{changes}')");
        let url = |more: &str| register(&format!("'https://example.com/hook', {more}"));
        for (statement, state) in [
            (register("'http://example.com/hook'"), "22023"),
            (register("'ftp://example.com/hook'"), "22023"),
            (register("'https://u:p@example.com/hook'"), "22023"),
            (register("'https://example.com/hook#top'"), "22023"),
            (register("'https://example.com/a b'"), "22023"),
            (register("E'https://example.com/\\r\\nx: y'"), "22023"),
            (register("'file:///etc/passwd'"), "22023"),
            (register("'gopher://example.com/1'"), "22023"),
            (register("'ws://example.com/hook'"), "22023"),
            (register("'wss://example.com/hook'"), "22023"),
            (register("'example.com/hook'"), "22023"),
            (register("'https://u@example.com/hook'"), "22023"),
            (register("'https://@example.com/hook'"), "22023"),
            (register("'https://example.com/hook#'"), "22023"),
            (register("'https://example.com:0/hook'"), "22023"),
            (register("'https://example.com:65536/hook'"), "22023"),
            (register("'https://example.com/' || repeat('a', 2049 - 20)"), "22023"),
            (update(r#"{"url": "file:///etc/passwd"}"#), "22023"),
            (update(r#"{"url": "https://example.com:0/hook"}"#), "22023"),
            (register("''"), "22023"),
            (register("NULL"), "22004"),
            (url("events => '{}'"), "22023"),
            (url("events => NULL"), "22004"),
            (url("events => '{contact}'"), "22023"),
            (url("events => ARRAY[NULL]"), "22004"),
            (url("name => 'first'"), "42710"),
            (url("name => ''"), "22023"),
            (url("secret => 'hush'"), "22023"),
            (url("method => 'BREW'"), "22023"),
            (url("method => 'GET', encoding => 'xml'"), "22023"),
            (url("method => NULL"), "22004"),
            (url("format => 'cloudevents-binary', encoding => 'form'"), "22023"),
            (url("format => 'yaml'"), "22023"),
            (url("format => 'cloudevents', method => 'GET'"), "22023"),
            (url("encoding => 'csv'"), "22023"),
            (url(r#"headers => '[]'"#), "22023"),
            (url(r#"headers => '{"host": "x"}'"#), "22023"),
            (url(r#"headers => '{"a": "x\r\ny: z"}'"#), "22023"),
            (url("headers => NULL"), "22004"),
            (url("basic_auth_password => 'x'"), "22023"),
            (url("scope => '[1]'"), "22023"),
            (update(r#"{"scope": 5}"#), "22023"),
            (update(r#"{"filter": "not jsonpath ("}"#), "42601"),
            (url("filter => 'not jsonpath ('"), "42601"),
            (url("expands => '{company,company}'"), "22023"),
            (url("max_attempts => 0"), "22023"),
            (url("attempt_interval => '0 s'"), "22023"),
            (url("attempt_interval => '2 days'"), "22023"),
            (url("retry_schedule => '{}'"), "22023"),
            (url("retry_schedule => '{-1 s}'"), "22023"),
            (url("retry_schedule => ARRAY[NULL]::interval[]"), "22004"),
            (url("retry_schedule => '{5 s}', attempt_interval => '5 min'"), "22023"),
            (url("timeout => '0'"), "22023"),
            (url("timeout => '2 h'"), "22023"),
            (url("max_in_flight => 0"), "22023"),
            (url("rate_limit => 0"), "22023"),
            (url("ordering => 'random'"), "22023"),
            (url("signature => 'github', secret => 'short'"), "22023"),
            (
                url("signature => 'ed25519', secret => 'whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY='"),
                "22023",
            ),
            (url("signature => 'md5'"), "22023"),
            (url("is_active => NULL"), "22004"),
            (update(r#"{"colour": 1}"#), "22023"),
            (update(r#"{"max_attempts": 3, "url": "nonsense"}"#), "22023"),
            (update(r#"{"timeout": "soon"}"#), "22007"),
            (update(r#"{"name": null}"#), "22004"),
            (update(r#"{"secret": null}"#), "22004"),
            (update(r#"{"signature": "ed25519"}"#), "22023"),
            (update("[]"), "22023"),
            (update("1e500"), "22023"),
            (format!("SELECT webhook_update({id}, NULL)"), "22004"),
        ] {
            assert_eq!(sqlstate(&statement), state, "{statement}");
            assert_eq!(written(), before, "{statement}");
        }
    }

    #[pg_test]
    fn a_url_of_2048_characters_is_the_longest() {
        run("SELECT webhook_register('https://example.com/' || repeat('a', 2048 - 20))");
        assert_eq!(one::<i64>("SELECT max(length(url))::bigint FROM webhook.endpoints"), 2048);
    }

    #[pg_test]
    fn basic_authorization_may_have_512_characters_of_any_kind_in_name_and_password() {
        let auth = "basic_auth_username => repeat('密', 512), basic_auth_password => repeat('密', 512)";
        register("long", &format!(", {auth}"));
        assert_eq!(one::<i64>("SELECT length(basic_auth_username)::bigint FROM webhook.endpoints"), 512);
    }

    #[pg_test]
    fn an_endpoint_that_does_not_exist_is_42704_and_null_is_22004() {
        for call in ["pause(#)", "resume(#)", "unregister(#)", "test(#)", "update(#, '{}')"] {
            assert_eq!(
                sqlstate(&format!("SELECT webhook_{}", call.replace('#', "987654"))),
                "42704",
                "{call}"
            );
            assert_eq!(sqlstate(&format!("SELECT webhook_{}", call.replace('#', "NULL"))), "22004", "{call}");
        }
    }

    #[pg_test]
    fn a_new_endpoint_starts_with_the_transaction_that_registers_it() {
        let id = register("a", "");
        assert!(one::<bool>(&format!(
            "SELECT NOT pg_visible_in_snapshot(pg_current_xact_id(), done) AND pg_visible_in_snapshot('3', done)
                AND upto IS NULL AND seq = 0
               FROM webhook.position WHERE endpoint_id = {id}"
        )));
    }

    #[pg_test]
    fn an_inactive_endpoint_starts_at_the_present_when_it_is_activated() {
        let id = register("a", ", is_active => false");
        let position = format!("SELECT count(*) FROM webhook.position WHERE endpoint_id = {id}");
        assert_eq!(one::<i64>(&position), 0);
        run(&format!(r#"SELECT webhook_update({id}, '{{"is_active": true}}')"#));
        assert_eq!(one::<i64>(&position), 1);
        assert_eq!(one::<String>("SELECT state FROM webhook.endpoints"), "active");
    }

    #[pg_test]
    fn pause_and_resume_may_be_repeated() {
        let id = register("a", "");
        for (call, state) in
            [("pause", "paused"), ("pause", "paused"), ("resume", "active"), ("resume", "active")]
        {
            run(&format!("SELECT webhook_{call}({id})"));
            assert_eq!(one::<String>("SELECT state FROM webhook.endpoints"), state);
        }
    }

    #[pg_test]
    fn a_disabled_endpoint_can_be_resumed_but_not_paused() {
        let id = register("a", "");
        run("UPDATE webhook.endpoint SET state = 'disabled', disabled_reason = '410'");
        assert_eq!(sqlstate(&format!("SELECT webhook_pause({id})")), "55000");
        run(&format!("SELECT webhook_resume({id})"));
        assert!(one::<bool>("SELECT state = 'active' AND disabled_reason IS NULL FROM webhook.endpoints"));
    }

    #[pg_test]
    fn an_inactive_endpoint_can_be_neither_paused_nor_resumed_nor_tested() {
        let id = register("a", ", is_active => false");
        for call in ["pause", "resume", "test"] {
            assert_eq!(sqlstate(&format!("SELECT webhook_{call}({id})")), "55000", "{call}");
        }
    }

    #[pg_test]
    fn an_update_changes_what_it_names_and_nothing_else() {
        let id = register("a", r#", headers => '{"x-a": "1"}', max_attempts => 3"#);
        let secret: String = one("SELECT value FROM webhook.endpoint_secret WHERE kind = 'signing'");
        run(&format!(
            r#"SELECT webhook_update({id}, '{{"headers": {{"x-b": "2"}}, "timeout": "5 s", "name": "b"}}')"#
        ));
        let secrets =
            "SELECT string_agg(concat(kind, name, value), ' ' ORDER BY kind) FROM webhook.endpoint_secret";
        assert_eq!(one::<String>(secrets), format!("headerx-b2 signing{secret}"));
        assert!(one::<bool>(
            "SELECT name = 'b' AND timeout = '5 s' AND max_attempts = 3 AND state = 'active' FROM webhook.endpoints"
        ));
    }

    #[pg_test]
    fn a_new_secret_replaces_the_old_one() {
        let id = register("a", "");
        let given = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
        run(&format!(r#"SELECT webhook_update({id}, '{{"secret": "{given}"}}')"#));
        assert_eq!(one::<String>("SELECT string_agg(value, ' ') FROM webhook.endpoint_secret"), given);
    }

    #[pg_test]
    fn times_in_json_are_interval_text_or_seconds() {
        let id = register("a", "");
        for changes in [
            r#"{"retry_schedule": ["5 s", 300], "timeout": 2.5}"#,
            r#"{"retry_schedule": [5, "5 min"], "timeout": "2500 ms"}"#,
        ] {
            run(&format!("SELECT webhook_update({id}, '{changes}')"));
            assert!(one::<bool>(
                "SELECT retry_schedule = '{5 s,5 min}' AND timeout = '2.5 s' FROM webhook.endpoints"
            ));
        }
    }

    #[pg_test]
    fn an_unregistered_endpoint_leaves_nothing_but_cancelled_deliveries() {
        let id = register("a", r#", headers => '{"x-a": "1"}'"#);
        run(&format!("SELECT webhook_test({id})"));
        run("INSERT INTO webhook.delivery (endpoint_id, xid, seq, created_at, event_id, attempts, state, next_attempt_at)
             SELECT target, xid, seq, now(), id, 1, 'pending', now() FROM webhook.outbox");
        run(&format!("SELECT webhook_unregister({id})"));
        assert_eq!(one::<i64>("SELECT count(*) FROM webhook.endpoints"), 0);
        assert_eq!(one::<i64>("SELECT count(*) FROM webhook.endpoint_secret"), 0);
        assert_eq!(one::<i64>("SELECT count(*) FROM webhook.position WHERE endpoint_id <> 0"), 0);
        assert_eq!(one::<String>("SELECT state FROM webhook.deliveries"), "cancelled");
    }

    #[pg_test]
    fn the_statement_of_the_worker_reads_back_as_an_endpoint() {
        let id = register(
            "a",
            r#", headers => '{"x-a": "1"}', retry_schedule => '{5 s,1 min}', timeout => '3 s'"#,
        );
        let statement = include_str!("../../../sql/statements/endpoint_configs.sql");
        let rows = statement.replace("$1", &format!("'{{{id}}}'::bigint[]")).replace("e.id, ", "");
        let endpoint =
            Config::endpoint(id, "active", &one::<String>(&rows), &Schedule::new(Vec::new())).unwrap();
        assert_eq!(endpoint.timeout, Some(std::time::Duration::from_secs(3)));
        assert_eq!(endpoint.schedule.map(|s| s.attempts()), Some(3));
        assert_eq!((endpoint.headers.len(), endpoint.secrets.len()), (1, 1));
    }
}
