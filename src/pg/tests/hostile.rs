//! Calls that no reasonable person makes: every function of the extension answers with an error of its own, or harmlessly.

use pgrx::prelude::*;

#[pg_schema]
mod tests {
    use pgrx::prelude::*;

    use crate::pg::tests::{contacts, one, run, sqlstate};

    /// A call of every function of the extension with arguments by type: an SQL expression over `t`, the type's name, and `NULL`
    /// where that says nothing.
    fn calls(argument: &str) -> Vec<String> {
        let calls: Vec<String> = one(&format!(
            "SELECT array_agg(format('SELECT %s(%s)', p.oid::regproc,
                        (SELECT string_agg(coalesce(({argument}), 'NULL') || '::' || t, ', ' ORDER BY n)
                           FROM unnest(p.proargtypes::oid[]) WITH ORDINALITY AS a (o, n), format_type(o, NULL) t)))
               FROM pg_proc p
               JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
               JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'webhook_pg'
              WHERE p.pronamespace <> 'tests'::regnamespace"
        ));
        assert!(calls.len() > 20);
        calls
    }

    fn all_survive(argument: &str) {
        contacts();
        run("INSERT INTO contact VALUES (1)");
        survive(argument);
    }

    fn survive(argument: &str) {
        for call in calls(argument) {
            let state = sqlstate(&call);
            assert!(!state.starts_with("XX"), "{call:.300} ended with {state}");
        }
    }

    #[pg_test]
    fn every_function_survives_nulls() {
        all_survive("NULL::text");
    }

    #[pg_test]
    fn every_function_survives_empty_values() {
        all_survive("CASE WHEN t LIKE '%[]' OR t LIKE 'json%' THEN '''{}''' WHEN t = 'text' THEN '''''' END");
    }

    #[pg_test]
    fn every_function_survives_huge_texts_and_numbers_at_the_edge() {
        all_survive(
            r#"CASE t WHEN 'text' THEN 'repeat(''x{"'', 300000)'
                      WHEN 'text[]' THEN 'array_fill(repeat(''x'', 9999), ARRAY[2000])'
                      WHEN 'jsonb' THEN 'to_jsonb(repeat(''\'', 100000))' WHEN 'json' THEN 'to_json(repeat(''\'', 100000))'
                      WHEN 'bigint' THEN '(-9223372036854775807)' WHEN 'integer' THEN '2147483647'
                      WHEN 'oid' THEN '4294967295' WHEN 'regclass' THEN '4294967294' END"#,
        );
    }

    #[pg_test]
    fn every_function_survives_deeply_nested_json() {
        all_survive(
            "CASE WHEN t LIKE 'json%' THEN '(repeat(''['', 1200) || repeat('']'', 1200))'
                  WHEN t = 'text' THEN '(repeat(''['', 9000) || repeat('']'', 9000))'
                  WHEN t = 'bigint' THEN '1' WHEN t = 'regclass' THEN '''contact''' END",
        );
    }

    #[pg_test]
    fn every_function_survives_values_of_other_types() {
        contacts();
        // A literal that its type refuses, and one that it takes where the function means another thing.
        survive("quote_literal('no such thing')");
        survive(
            r#"CASE WHEN t LIKE 'json%' THEN '''[1, "x", null]''' WHEN t LIKE '%[]' THEN 'ARRAY[NULL, NULL]'
                    WHEN t = 'text' THEN '12.5' WHEN t = 'regclass' THEN '''pg_class_oid_index'''
                    WHEN t = 'uuid' THEN '''00000000-0000-0000-0000-000000000000''' WHEN t LIKE 'time%' THEN '''-infinity'''
                    WHEN t = 'interval' THEN '''-178000000 years''' WHEN t = 'boolean' THEN 'false' ELSE '0' END"#,
        );
    }

    #[pg_test]
    fn every_function_survives_random_values() {
        contacts();
        run("INSERT INTO contact VALUES (1)");
        run(r#"CREATE FUNCTION pick(VARIADIC choices text[]) RETURNS text VOLATILE LANGUAGE sql
                   AS 'SELECT choices[1 + floor(random() * cardinality(choices))::int]';
               CREATE FUNCTION any_value(t text) RETURNS text VOLATILE LANGUAGE plpgsql AS $$ BEGIN
                   IF random() < 0.1 THEN RETURN 'NULL'; END IF;
                   RETURN CASE
                       WHEN t LIKE '%[]' THEN format('ARRAY[%s, %s]', any_value(left(t, -2)), any_value(left(t, -2)))
                       WHEN t = 'jsonpath' THEN quote_literal(pick('$', '$.data.id > 0', '$.** ? (@ like_regex "(a+)+$")'))
                       WHEN t LIKE 'json%' THEN quote_literal(pick('{}', '[]', '1', 'null', '"x"', '{"name": "all"}',
                           '{"name": 1, "url": []}', '{"url": "https://example.com/", "events": "contact.*"}', '{"max_attempts": 1e9}',
                           '{"postbackconfig": {}}', '{"postbackconfig": {"resource": "contact", "url": "https://example.com/"}}',
                           '{"id": 1}', '{"name": "id"}', '{"timeout": "1 day"}'))
                       WHEN t = 'text' THEN quote_literal(pick('', '*', 'all', 'contact', 'contact.created', 'id', 'NEW.id > 0', 'postback',
                           'standard', 'form', 'POST', 'none', 'github', 'admin', 'https://example.com/', '1; DROP TABLE contact',
                           md5(random()::text)))
                       WHEN t = 'regclass' THEN quote_literal(pick('contact', 'webhook.outbox', 'webhook.events', 'pg_class', 'contact_pkey'))
                       WHEN t = 'regrole' THEN quote_literal(pick('postgres', 'pg_monitor'))
                       WHEN t = 'interval' THEN quote_literal(pick('0', '1 second', '-1 day', '100000 years'))
                       WHEN t LIKE 'timestamp%' THEN quote_literal(pick('now', 'infinity', '-infinity', '2020-01-01'))
                       WHEN t = 'boolean' THEN pick('true', 'false')
                       WHEN t = 'uuid' THEN quote_literal(gen_random_uuid())
                       WHEN t IN ('integer', 'bigint', 'smallint', 'oid') THEN pick('0', '1', '2', '7', '32767')
                       ELSE 'NULL' END;
               END $$"#);
        for round in 0..25 {
            run(&format!("SELECT setseed({round} / 25.0)"));
            survive("any_value(t)");
        }
    }

    #[pg_test]
    fn a_trigger_function_that_is_called_by_hand_is_refused() {
        for function in ["webhook.capture()", "webhook.changed()", "webhook.keep_out()"] {
            assert_eq!(sqlstate(&format!("SELECT {function}")), "39P01", "{function}");
        }
    }
}
