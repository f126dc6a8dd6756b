//! What events carry beside the row.

use pgrx::prelude::*;

#[pg_schema]
mod tests {
    use pgrx::prelude::*;

    use crate::pg::tests::{one, register, run, sqlstate};

    /// Accounts with contacts and their tags.
    fn crm() {
        register("all", "");
        run("CREATE TABLE account (id int PRIMARY KEY, name text, secret text);
             CREATE TABLE contact (id int PRIMARY KEY, account_id int REFERENCES account);
             CREATE TABLE tag (contact_id int, word text);
             CREATE FUNCTION contact_tags(c contact) RETURNS json LANGUAGE sql STABLE AS
                 'SELECT json_agg(word ORDER BY word) FROM tag WHERE contact_id = c.id';
             INSERT INTO account VALUES (7, 'Acme', 'x');");
    }

    fn expanded() -> Vec<String> {
        one("SELECT array_agg(coalesce(expanded, '-') ORDER BY xid, seq) FROM webhook.outbox")
    }

    #[pg_test]
    fn a_foreign_key_column_expands_to_the_row_as_it_is_at_that_time() {
        crm();
        run("SELECT webhook_attach('contact', expand => '{\"account\": \"account_id\"}');
             INSERT INTO contact VALUES (1, 7), (2, NULL);
             UPDATE account SET name = 'Acme Inc.';
             DELETE FROM contact WHERE id = 1;");
        assert_eq!(
            expanded(),
            [
                r#"{"account":{"id":7,"name":"Acme","secret":"x"}}"#,
                r#"{"account":null}"#,
                r#"{"account":{"id":7,"name":"Acme Inc.","secret":"x"}}"#,
            ]
        );
    }

    #[pg_test]
    fn a_function_of_the_row_expands_to_what_it_says_after_the_change() {
        crm();
        run("CREATE FUNCTION double_id(contact) RETURNS jsonb LANGUAGE sql AS 'SELECT to_jsonb($1.id * 2)';
             SELECT webhook_attach('contact', expand => '{\"tags\": \"contact_tags\", \"twice\": \"double_id\"}');
             INSERT INTO tag VALUES (1, 'b'), (1, 'a');
             INSERT INTO contact VALUES (1, 7);
             UPDATE contact SET id = 5;");
        assert_eq!(expanded(), [r#"{"tags":["a", "b"],"twice":2}"#, r#"{"tags":null,"twice":10}"#]);
    }

    #[pg_test]
    fn a_function_finds_what_it_names_whatever_the_writer_has_set() {
        crm();
        run("SELECT webhook_attach('contact', expand => '{\"tags\": \"contact_tags\"}');
             INSERT INTO tag VALUES (1, 'a');
             CREATE TEMP TABLE tag (contact_id int, word text);
             INSERT INTO pg_temp.tag VALUES (1, 'forged');
             SET LOCAL search_path = pg_temp;
             INSERT INTO public.contact VALUES (1);");
        assert_eq!(expanded(), [r#"{"tags":["a"]}"#]);
    }

    #[pg_test]
    fn an_expansion_that_fails_is_null_and_the_statement_goes_on() {
        crm();
        run("CREATE FUNCTION breaks(contact) RETURNS json LANGUAGE plpgsql AS $$ BEGIN INSERT INTO tag VALUES (9, 'undone'); RETURN 1 / 0; END $$;
             SELECT webhook_attach('contact', expand => '{\"a\": \"breaks\", \"account\": \"account_id\"}');
             INSERT INTO contact VALUES (1, 7);");
        assert_eq!(expanded(), [r#"{"a":null,"account":{"id":7,"name":"Acme","secret":"x"}}"#]);
        assert_eq!(one::<i64>("SELECT count(*) FROM tag"), 0);
    }

    #[pg_test]
    fn a_writer_embeds_only_what_he_may_read() {
        crm();
        run("SELECT webhook_attach('contact', expand => '{\"account\": \"account_id\"}');
             CREATE ROLE clerk; GRANT INSERT ON contact TO clerk;
             SET LOCAL ROLE clerk; INSERT INTO contact VALUES (1, 7); RESET ROLE;
             GRANT SELECT ON account TO clerk;
             SET LOCAL ROLE clerk; INSERT INTO contact VALUES (2, 7); RESET ROLE");
        assert_eq!(expanded(), [r#"{"account":null}"#, r#"{"account":{"id":7,"name":"Acme","secret":"x"}}"#]);
    }

    #[pg_test]
    fn what_an_attachment_keeps_out_of_its_own_events_is_not_embedded_in_others() {
        crm();
        run("SELECT webhook_attach('account', exclude => '{secret}'),
                    webhook_attach('contact', expand => '{\"account\": \"account_id\"}');
             INSERT INTO contact VALUES (1, 7);
             SELECT webhook_attach('account', columns => '{name}');
             INSERT INTO contact VALUES (2, 7)");
        assert_eq!(expanded(), [r#"{"account":{"id":7,"name":"Acme"}}"#, r#"{"account":{"name":"Acme"}}"#]);
    }

    #[pg_test]
    fn expansions_follow_renames_and_new_columns() {
        crm();
        run("SELECT webhook_attach('contact', expand => '{\"account\": \"account_id\", \"tags\": \"contact_tags\"}');
             INSERT INTO contact VALUES (1, 7);
             ALTER TABLE account DROP secret; ALTER TABLE account ADD vat int DEFAULT 3;
             ALTER TABLE account RENAME TO company;
             ALTER TABLE contact RENAME TO person; ALTER TABLE company ALTER name TYPE varchar(9);
             INSERT INTO person VALUES (2, 7);
             ALTER TABLE person DROP account_id;
             INSERT INTO person VALUES (3)");
        assert_eq!(
            expanded(),
            [
                r#"{"tags":null,"account":{"id":7,"name":"Acme","secret":"x"}}"#,
                r#"{"tags":null,"account":{"id":7,"name":"Acme","vat":3}}"#,
                r#"{"tags":null,"account":null}"#,
            ]
        );
    }

    #[pg_test]
    fn rows_of_partitions_expand_like_rows_of_their_root() {
        register("all", "");
        run("CREATE TABLE region (id int PRIMARY KEY) PARTITION BY HASH (id);
             CREATE TABLE region_0 PARTITION OF region FOR VALUES WITH (MODULUS 1, REMAINDER 0);
             CREATE TABLE sale (id int, region_id int REFERENCES region) PARTITION BY LIST (id);
             CREATE TABLE sale_1 (region_id int, gone int, id int); ALTER TABLE sale_1 DROP gone;
             ALTER TABLE sale ATTACH PARTITION sale_1 FOR VALUES IN (1);
             CREATE FUNCTION sale_twice(s sale) RETURNS json LANGUAGE sql AS 'SELECT to_json(s.id * 2)';
             SELECT webhook_attach('sale', key => '{id}', expand => '{\"twice\": \"sale_twice\", \"region\": \"region_id\"}');
             INSERT INTO region VALUES (4);
             INSERT INTO sale VALUES (1, 4); INSERT INTO sale_1 VALUES (4, 1);");
        let both = r#"{"twice":2,"region":{"id":4}}"#;
        assert_eq!(expanded(), [both, both]);
    }

    #[pg_test]
    fn a_key_of_several_columns_finds_its_row() {
        register("all", "");
        run("CREATE TABLE branch (bank text, nr int, city text, PRIMARY KEY (nr, bank));
             CREATE TABLE teller (nr int, bank text, FOREIGN KEY (bank, nr) REFERENCES branch (bank, nr));
             SELECT webhook_attach('teller', key => '{nr}', expand => '{\"branch\": \"nr\"}');
             INSERT INTO branch VALUES ('a', 1, 'Ghent'), ('b', 1, 'Aalst');
             INSERT INTO teller VALUES (1, 'b'), (1, NULL)");
        assert_eq!(expanded(), [r#"{"branch":{"bank":"b","nr":1,"city":"Aalst"}}"#, r#"{"branch":null}"#]);
    }

    #[pg_test]
    fn an_expansion_that_would_make_the_event_too_large_makes_it_thin() {
        crm();
        run("UPDATE account SET name = repeat('x', 1048576);
             SELECT webhook_attach('contact', expand => '{\"account\": \"account_id\"}');
             INSERT INTO contact VALUES (1, 7)");
        assert!(one::<bool>("SELECT truncated AND data IS NULL AND expanded IS NULL FROM webhook.outbox"));
    }

    #[pg_test]
    fn wrong_expansions_are_refused() {
        crm();
        run("CREATE FUNCTION as_text(contact) RETURNS text LANGUAGE sql AS 'SELECT NULL::text';
             CREATE FUNCTION as_set(contact) RETURNS SETOF json LANGUAGE sql AS 'SELECT NULL::json'");
        for (expand, state) in [
            ("[]", "22023"),
            ("{\"\": \"account_id\"}", "22023"),
            ("{\"a\": 1}", "22023"),
            ("{\"id\": \"account_id\"}", "22023"),
            ("{\"a\": \"id\"}", "42704"),
            ("{\"a\": \"nope\"}", "42883"),
            ("{\"a\": \"\"}", "42883"),
            ("{\"a\": \"nope.contact_tags\"}", "42883"),
            ("{\"a\": \"contact_tags(\"}", "42883"),
            ("{\"a\": \"as_text\"}", "42809"),
            ("{\"a\": \"as_set\"}", "42809"),
            ("{\"a\": \"lower\"}", "42883"),
        ] {
            let call = format!("SELECT webhook_attach('contact', expand => '{expand}')");
            assert_eq!(sqlstate(&call), state, "{expand}");
        }
        assert_eq!(one::<i64>("SELECT count(*) FROM webhook.attachment"), 0);
    }

    #[pg_test]
    fn the_view_shows_what_is_expanded() {
        crm();
        run(
            "SELECT webhook_attach('contact', expand => '{\"account\": \"account_id\", \"tags\": \"contact_tags\"}')",
        );
        assert_eq!(
            one::<String>("SELECT expand::text FROM webhook.attachments"),
            r#"{"tags": "public.contact_tags", "account": "account_id"}"#
        );
        run("SELECT webhook_attach('contact')");
        assert_eq!(one::<String>("SELECT expand::text FROM webhook.attachments"), "{}");
    }
}
