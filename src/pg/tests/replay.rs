//! What webhook_replay chooses and refuses.

use pgrx::prelude::*;

#[pg_schema]
mod tests {
    use pgrx::prelude::*;

    use crate::pg::tests::{one, register, run, sqlstate};

    /// Events of these types with data 1, 2, …, which all endpoints have consumed.
    fn consumed(types: &[&str]) {
        for (n, event_type) in types.iter().enumerate() {
            run(&format!("SELECT webhook_send('{event_type}', '{{\"n\": {}}}')", n + 1));
        }
        run("UPDATE webhook.position SET done = format('%s:%s:', s.x, s.x)::pg_snapshot
               FROM (SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint + 1) AS s (x)");
    }

    fn replay(endpoint: i64, rest: &str) -> i64 {
        one(&format!("SELECT webhook_replay({endpoint}, '-infinity', 'infinity'{rest})"))
    }

    #[pg_test]
    fn it_chooses_what_the_endpoint_wants_and_the_call_asks_for() {
        let id = register("chosen", ", events => '{a.*,b.created}'");
        consumed(&["a.created", "a.deleted", "b.created", "b.deleted", "c.created"]);
        assert_eq!(replay(id, ""), 3);
        assert_eq!(replay(id, ", events => '{*.created}'"), 2);
        assert_eq!(replay(id, ", filter => '$.data.n > 2'"), 1);
        assert_eq!(replay(id, ", filter => 'strict $.data.missing == 1'"), 0);
        assert_eq!(replay(id, ", events => '{c.*}'"), 0);
        assert_eq!(one::<i64>("SELECT count(*) FROM webhook.deliveries WHERE state = 'pending'"), 3);
    }

    #[pg_test]
    fn it_keeps_to_the_scope_and_filter_of_the_endpoint() {
        let id = register("scoped", ", scope => '{\"n\": 2}'");
        let other = register("filtered", ", filter => '$.data.n < 3'");
        consumed(&["a.b", "a.b", "a.b"]);
        assert_eq!((replay(id, ""), replay(other, "")), (1, 2));
    }

    #[pg_test]
    fn it_keeps_to_the_span_of_time() {
        let id = register("span", "");
        consumed(&["a.b", "a.b"]);
        run(
            "UPDATE webhook.outbox SET occurred_at = '2001-02-03 04:05Z' WHERE seq = (SELECT min(seq) FROM webhook.outbox)",
        );
        let span = |since: &str, until: &str| {
            one::<i64>(&format!("SELECT webhook_replay({id}, '{since}', '{until}')"))
        };
        assert_eq!(span("2001-02-03 04:05Z", "2001-02-03 04:05Z"), 1);
        assert_eq!(span("2001-02-03 04:06Z", "2002-01-01"), 0);
        assert_eq!(span("2001-01-01", "infinity"), 2);
    }

    #[pg_test]
    fn what_comes_anyway_is_left_out() {
        let id = register("fresh", "");
        run("SELECT webhook_send('a.b', '1')");
        assert_eq!(replay(id, ""), 0);
    }

    #[pg_test]
    fn a_delivery_goes_on_counting_and_its_schedule_begins_anew() {
        let id = register("counting", "");
        consumed(&["a.b"]);
        assert_eq!(replay(id, ""), 1);
        run(
            "UPDATE webhook.delivery SET state = 'dead', attempts = 3, next_attempt_at = NULL, finished_at = now()",
        );
        assert_eq!(replay(id, ""), 1);
        assert_eq!(
            one::<String>(
                "SELECT concat(state, attempts, attempts_before, finished_at) FROM webhook.delivery"
            ),
            "pending33"
        );
    }

    #[pg_test]
    fn a_test_event_of_another_endpoint_is_not_chosen() {
        let id = register("mine", "");
        let other = register("other", "");
        run(&format!("SELECT webhook_test({other})"));
        consumed(&[]);
        assert_eq!((replay(id, ""), replay(other, "")), (0, 1));
    }

    #[pg_test]
    fn wrong_calls_are_refused_and_change_nothing() {
        let id = register("refused", "");
        let inactive = register("asleep", ", is_active => false");
        for (call, state) in [
            (format!("{id}, NULL"), "22004"),
            (format!("{id}, '-infinity', NULL"), "22004"),
            ("NULL, '-infinity'".to_owned(), "22004"),
            (format!("{id}, now(), now() - interval '1 s'"), "22023"),
            (format!("{id}, '-infinity', events => '{{nonsense}}'"), "22023"),
            (format!("{id}, '-infinity', events => '{{}}'"), "22023"),
            ("-1, '-infinity'".to_owned(), "42704"),
            (format!("{inactive}, '-infinity'"), "55000"),
        ] {
            assert_eq!(sqlstate(&format!("SELECT webhook_replay({call})")), state, "{call}");
        }
    }

    #[pg_test]
    fn the_endpoint_of_another_role_is_not_to_be_replayed() {
        let id = register("foreign", "");
        run("CREATE ROLE replayer; GRANT EXECUTE ON FUNCTION webhook_replay TO replayer; SET ROLE replayer");
        assert_eq!(sqlstate(&format!("SELECT webhook_replay({id}, '-infinity')")), "42501");
    }
}
