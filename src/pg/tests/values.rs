//! Values: any content of any size, and never at the expense of the user's statement.

use pgrx::prelude::*;

#[pg_schema]
mod tests {
    use pgrx::prelude::*;

    use crate::pg::tests::{contacts, events, maybe, one, register, run};

    /// Key, whether the event is thin, and bytes of data and previous, in the order of the outbox.
    fn outlines() -> String {
        maybe(
            "SELECT string_agg(concat_ws(' ', operation, coalesce(key, '-'), CASE WHEN truncated THEN 'thin' ELSE 'full' END,
                                         length(data), length(previous)), E'\\n' ORDER BY xid, seq)
               FROM webhook.outbox",
        )
        .unwrap_or_default()
    }

    #[pg_test]
    fn every_byte_of_a_bytea_is_two_hex_digits() {
        register("all", "");
        run("CREATE TABLE t (b bytea); SELECT webhook_attach('t');
             INSERT INTO t SELECT string_agg(set_byte('\\x00', 0, n), '' ORDER BY n) FROM generate_series(0, 255) n");
        assert!(one::<bool>(
            "SELECT data = format($${\"b\":\"\\\\x%s\"}$$, encode(b, 'hex')) FROM webhook.outbox, t"
        ));
        assert_eq!(one::<i64>("SELECT count(*) FROM webhook.outbox"), 1);
    }

    #[pg_test]
    fn every_character_of_unicode_reads_back_as_it_was() {
        register("all", "");
        run("CREATE TABLE t (n int PRIMARY KEY, t text, a text[]); SELECT webhook_attach('t');
             INSERT INTO t SELECT block, s, ARRAY[s]
               FROM (SELECT n / 4096 AS block, string_agg(chr(n), '' ORDER BY n) AS s FROM generate_series(1, 1114111) AS n
                      WHERE n NOT BETWEEN 55296 AND 57343 GROUP BY 1) AS blocks");
        assert_eq!(
            one::<i64>(
                "SELECT count(*) FROM t LEFT JOIN webhook.outbox ON (data::json->>'n')::int = n
                  WHERE data::json->>'t' IS DISTINCT FROM t OR data::json->'a'->>0 IS DISTINCT FROM t"
            ),
            0
        );
    }

    #[pg_test]
    fn an_event_is_thin_from_one_byte_over_the_limit_on_whatever_the_type() {
        register("all", "");
        run("CREATE TYPE pair AS (x text, y int);
             CREATE TABLE t (id int PRIMARY KEY, t text, b bytea, j json, jb jsonb, a text[], i int[], p pair);
             SELECT webhook_attach('t', columns => ARRAY[name]), webhook_attach('t', as_action => name, columns => ARRAY[name])
               FROM unnest('{t,b,j,jb,a,i,p}'::text[]) AS name");
        let limit = 1024 * 1024;
        // The value's JSON for a text of n bytes: what stands around it, and bytes for each.
        for (column, value, around, each) in [
            ("t", "repeat('x', %)", r#"{"t":""}"#, 1),
            ("b", "decode(repeat('00', %), 'hex')", r#"{"b":"\\x"}"#, 2),
            ("j", "to_json(repeat('x', %))", r#"{"j":""}"#, 1),
            ("jb", "to_jsonb(repeat('x', %))", r#"{"jb":""}"#, 1),
            ("a", "ARRAY[repeat('x', %)]", r#"{"a":[""]}"#, 1),
            ("i", "array_fill(0, ARRAY[%])", r#"{"i":[]"#, 2),
            ("p", "ROW(repeat('x', %), 1)::pair", r#"{"p":{"x":"","y":1}}"#, 1),
        ] {
            run("TRUNCATE webhook.outbox; TRUNCATE t");
            let most = (limit - around.len()) / each;
            for n in [most - 1, most, most + 1] {
                run(&format!(
                    "INSERT INTO t (id, {column}) SELECT {n}, {}",
                    value.replace('%', &n.to_string())
                ));
            }
            let thin = one::<String>(&format!(
                "SELECT string_agg(truncated::text, ' ' ORDER BY seq) FROM webhook.outbox WHERE type = 't.{column}'"
            ));
            assert_eq!(thin, "false false true", "{column}");
        }
    }

    #[pg_test]
    fn huge_values_of_any_type_make_thin_events_and_no_errors() {
        register("all", "");
        run("CREATE TYPE mood AS ENUM ('a name of an enum that is as long as PostgreSQL allows it to be');
             CREATE TYPE pair AS (x int, y text);
             CREATE TABLE t (id int PRIMARY KEY, t text, j json, jb jsonb, i int[], m mood[], r regclass[], p pair, ps pair[], v varbit);
             SELECT webhook_attach('t');
             INSERT INTO t (id, t) VALUES (1, repeat('x', 600 << 20));
             INSERT INTO t (id, j) VALUES (2, to_json(repeat('x', 50 << 20)));
             INSERT INTO t (id, jb) SELECT 3, jsonb_agg(repeat('x', 1 << 20)) FROM generate_series(1, 50);
             INSERT INTO t (id, i) VALUES (4, array_fill(1, ARRAY[20000000]));
             INSERT INTO t (id, m) VALUES (5, array_fill(enum_first(NULL::mood), ARRAY[20000000]));
             INSERT INTO t (id, r) VALUES (6, array_fill('t'::regclass, ARRAY[20000000]));
             INSERT INTO t (id, p) VALUES (7, ROW(1, repeat('x', 50 << 20))::pair);
             INSERT INTO t (id, ps) VALUES (8, array_fill(ROW(1, repeat(E'\\x01', 8 << 20))::pair, ARRAY[8]));
             INSERT INTO t (id, v) VALUES (9, repeat('10', 30 << 20)::varbit);
             DELETE FROM t");
        let expected: Vec<String> = ["created", "deleted"]
            .iter()
            .flat_map(|operation| (1..=9).map(move |id| format!("{operation} {{\"id\":{id}}} thin")))
            .collect();
        assert_eq!(outlines(), expected.join("\n"));
    }

    #[pg_test]
    fn an_update_beside_a_huge_value_does_not_fetch_it() {
        register("all", "");
        run("CREATE TABLE t (id int PRIMARY KEY, n int, huge text); SELECT webhook_attach('t');
             INSERT INTO t VALUES (1, 1, repeat('x', 100 << 20));
             UPDATE t SET n = 1;
             UPDATE t SET n = 2");
        assert_eq!(outlines(), "created {\"id\":1} thin\nupdated {\"id\":1} thin");
    }

    #[pg_test]
    fn a_huge_value_in_an_excluded_column_makes_no_difference() {
        register("all", "");
        run("CREATE TABLE t (id int PRIMARY KEY, n int, huge text); SELECT webhook_attach('t', exclude => '{huge}');
             INSERT INTO t VALUES (1, 1, repeat('x', 50 << 20));
             UPDATE t SET huge = repeat('y', 50 << 20);
             UPDATE t SET n = 2, huge = ''");
        assert_eq!(
            events(),
            [r#"t.created {"id":1} {"id":1,"n":1}"#, r#"t.updated {"id":1} {"id":1,"n":2} {"n":1}"#]
        );
    }

    #[pg_test]
    fn a_key_over_the_limit_is_left_out() {
        register("all", "");
        run("CREATE TABLE t (id text, n int); SELECT webhook_attach('t', key => '{id}'), webhook_attach('t', 'u', key => '{id}', columns => '{n}');
             INSERT INTO t VALUES (repeat('x', 50 << 20), 1)");
        assert_eq!(outlines(), "created - thin\ncreated - full 7");
    }

    #[pg_test]
    fn an_update_whose_old_values_are_over_the_limit_is_thin() {
        contacts();
        run("INSERT INTO contact VALUES (1, repeat('x', 2 << 20)); UPDATE contact SET name = 'short'");
        assert_eq!(outlines(), "created {\"id\":1} thin\nupdated {\"id\":1} thin");
    }
}
