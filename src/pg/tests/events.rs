//! Sending events by hand, and what can be done to deliveries.

use pgrx::prelude::*;

#[pg_schema]
mod tests {
    use pgrx::prelude::*;

    use crate::pg::tests::{maybe, one, register, run, sqlstate, written};

    #[pg_test]
    fn an_event_is_kept_with_the_exact_text_of_its_data() {
        run(r#"SELECT webhook_send('contact.created', '{"b" : 1.0, "a":"\u0000", "b":2}', key => 'x"y')"#);
        assert_eq!(
            one::<String>("SELECT data::text FROM webhook.events"),
            r#"{"b" : 1.0, "a":"\u0000", "b":2}"#
        );
        assert_eq!(one::<String>("SELECT key::text FROM webhook.events"), r#""x\"y""#);
        assert!(one::<bool>(
            "SELECT xid = pg_current_xact_id() AND seq > 0 AND NOT truncated FROM webhook.outbox"
        ));
    }

    #[pg_test]
    fn an_event_has_a_random_id_of_version_7() {
        run("SELECT webhook_send('a.b', '1') FROM generate_series(1, 50)");
        assert_eq!(
            one::<i64>("SELECT count(DISTINCT id) FROM webhook.events WHERE id::text ~ '^.{14}7.{4}[89ab]'"),
            50
        );
    }

    #[pg_test]
    fn the_same_idempotency_key_answers_the_first_id_and_sends_nothing() {
        let send = "SELECT webhook_send('a.b', '1', idempotency_key => 'once')::text";
        let first: String = one(send);
        assert_eq!(one::<String>(send), first);
        assert_eq!(one::<i64>("SELECT count(*) FROM webhook.events"), 1);
    }

    #[pg_test]
    fn a_payload_over_the_limit_becomes_a_thin_event() {
        run("SELECT webhook_send('a.b', to_json(repeat('x', 2000000)), key => 'k')");
        assert!(one::<bool>("SELECT truncated AND data IS NULL AND key = '\"k\"' FROM webhook.outbox"));
    }

    #[pg_test]
    fn an_event_carries_what_the_session_attached() {
        run(r#"SET LOCAL webhook_pg.context = '{"user": 7}'"#);
        run("SELECT webhook_send('a.b', '1')");
        assert_eq!(one::<String>("SELECT context FROM webhook.outbox"), r#"{"user": 7}"#);
        assert_eq!(maybe::<String>("SELECT traceparent FROM webhook.outbox"), None);
    }

    #[pg_test]
    fn a_malformed_event_is_refused_and_changes_nothing() {
        let before = written();
        for (arguments, state) in [
            ("NULL, '1'", "22004"),
            ("'a.b', NULL", "22004"),
            ("'a', '1'", "22023"),
            ("'a.*', '1'", "22023"),
            ("'a b.c', '1'", "22023"),
            ("'webhook.ping', '1'", "22023"),
            ("'a.b', '{'", "22P02"),
            ("repeat('a', 300) || '.b', '1'", "22023"),
            ("'a.b', '1', repeat('k', 2000)", "22023"),
            ("'a.b', '1', 'k', ''", "22023"),
            ("'a.b', '1', 'k', repeat('k', 300)", "22023"),
        ] {
            assert_eq!(sqlstate(&format!("SELECT webhook_send({arguments})")), state, "{arguments}");
            assert_eq!(written(), before, "{arguments}");
        }
    }

    #[pg_test]
    fn a_ping_is_for_its_endpoint_alone() {
        let id = register("a", "");
        run(&format!("SELECT webhook_test({id})"));
        assert_eq!(one::<i64>("SELECT target FROM webhook.outbox WHERE type = 'webhook.ping'"), id);
    }

    /// A delivery of this state for a new endpoint.
    fn delivery(state: &str) -> i64 {
        let endpoint = register(state, "");
        run(&format!("SELECT webhook_test({endpoint})"));
        one(&format!(
            "INSERT INTO webhook.delivery
                (endpoint_id, xid, seq, created_at, event_id, attempts, state, started_at, next_attempt_at, finished_at)
             SELECT target, xid, seq, now(), id, 3, '{state}', now(),
                    CASE WHEN '{state}' = 'pending' THEN now() + interval '1 day' END,
                    CASE WHEN '{state}' <> 'pending' THEN now() END
               FROM webhook.outbox WHERE target = {endpoint}
             RETURNING id"
        ))
    }

    #[pg_test]
    fn a_delivery_that_is_not_delivered_can_be_tried_again_now() {
        for (state, answer) in [("dead", true), ("cancelled", true), ("pending", true), ("delivered", false)]
        {
            let id = delivery(state);
            assert_eq!(one::<bool>(&format!("SELECT webhook_retry({id})")), answer, "{state}");
            let due = format!("SELECT state = 'pending' AND next_attempt_at <= clock_timestamp() AND attempts = 3 AND attempts_before = 3 AND finished_at IS NULL
                                 FROM webhook.delivery WHERE id = {id}");
            assert_eq!(one::<bool>(&due), answer, "{state}");
        }
    }

    #[pg_test]
    fn only_a_pending_delivery_can_be_cancelled() {
        for (state, answer) in
            [("dead", false), ("cancelled", false), ("pending", true), ("delivered", false)]
        {
            let id = delivery(state);
            assert_eq!(one::<bool>(&format!("SELECT webhook_cancel({id})")), answer, "{state}");
        }
    }

    #[pg_test]
    fn an_unknown_delivery_answers_false() {
        for call in ["retry(987654)", "cancel(987654)", "retry(NULL)", "cancel(NULL)"] {
            assert!(!one::<bool>(&format!("SELECT webhook_{call}")), "{call}");
        }
    }

    #[pg_test]
    fn the_attempt_that_delivered_shows_among_the_attempts() {
        let id = delivery("delivered");
        assert_eq!(one::<i64>("SELECT delivery_id FROM webhook.attempts"), id);
        assert_eq!(one::<i32>("SELECT attempt FROM webhook.attempts"), 3);
    }
}
