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
    fn a_trigger_function_that_is_called_by_hand_is_refused() {
        for function in ["webhook.capture()", "webhook.changed()"] {
            assert_eq!(sqlstate(&format!("SELECT {function}")), "39P01", "{function}");
        }
    }
}
