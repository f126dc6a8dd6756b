//! What webhook_status() says.

use pgrx::prelude::*;

#[pg_schema]
mod tests {
    use pgrx::prelude::*;

    use crate::pg::tests::{one, register, run};

    fn ok(check: &str) -> bool {
        one(&format!("SELECT ok FROM webhook_status() WHERE check_name = '{check}'"))
    }

    #[pg_test]
    fn every_check_has_a_sentence() {
        assert_eq!(
            one::<i64>("SELECT count(*) FROM webhook_status() WHERE detail ~ '[.]$' AND ok IS NOT NULL"),
            19
        );
        assert!(ok("preload"));
    }

    #[pg_test]
    fn a_disabled_endpoint_is_reported() {
        register("broken", "");
        assert!(ok("endpoints"));
        run("UPDATE webhook.endpoint SET state = 'disabled', disabled_reason = '410'");
        assert!(!ok("endpoints"));
    }

    #[pg_test]
    fn a_restored_endpoint_without_its_secret_is_reported() {
        register("restored", "");
        assert!(ok("secrets"));
        run("DELETE FROM webhook.endpoint_secret");
        assert!(!ok("secrets"));
    }

    #[pg_test]
    fn a_copy_is_reported_until_it_is_adopted() {
        assert!(ok("clone guard"));
        run("UPDATE webhook.installation SET database_oid = 1");
        assert!(!ok("clone guard"));
        run("SELECT webhook_adopt()");
        assert!(ok("clone guard"));
        // What a restored dump looks like.
        run("INSERT INTO webhook.installation VALUES (1, 1)");
        assert!(!ok("clone guard"));
    }

    #[pg_test]
    fn events_that_nobody_has_read_are_the_backlog() {
        run("SELECT webhook_send('a.b', '1')");
        let detail: String = one("SELECT detail FROM webhook_status() WHERE check_name = 'backlog'");
        assert!(detail.starts_with("1 events"), "{detail}");
    }
}
