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

    #[pg_test]
    fn values_are_what_to_jsonb_says_whatever_the_session_sets() {
        register("all", "");
        run("CREATE TYPE mood AS ENUM ('sad', 'happy day');
             CREATE TYPE pair AS (x int, at timestamptz);
             CREATE DOMAIN positive AS int CHECK (VALUE > 0);
             CREATE TABLE zoo (
                 a bool, b int2, c int4, d int8, e float4, f float8, g numeric, h text, i varchar(9), j char(5), k name,
                 l mood, m json, n jsonb, o uuid, p date, q timestamp, r timestamptz, s interval, t bytea, u int[],
                 v timestamptz[], w pair, x positive, y int4range, z inet, aa time, ab timetz, ac point, ad money,
                 ae oid, af bit(4), ag text[][], ah interval[], ai float8[], aj bytea[], ak tstzrange, al regclass,
                 am \"char\", an xml, ao date[], ap pair[], aq macaddr, ar tsvector, at nummultirange);
             SELECT webhook_attach('zoo');
             CREATE TABLE expected (row json)");
        let pin =
            "SET LOCAL timezone = 'UTC'; SET LOCAL intervalstyle = iso_8601; SET LOCAL bytea_output = hex;
                   SET LOCAL extra_float_digits = 1; SET LOCAL datestyle = 'ISO, MDY'";
        let hostile = "SET LOCAL timezone = 'Asia/Kathmandu'; SET LOCAL intervalstyle = sql_standard;
                       SET LOCAL bytea_output = escape; SET LOCAL extra_float_digits = -15; SET LOCAL datestyle = 'SQL, DMY'";
        run(pin);
        run(r#"INSERT INTO zoo VALUES
            (true, -32768, 2147483647, -9223372036854775808, 0.1, 1e300, 12345678901234567890.0123456789, E'\u2028"\t',
             'v', 'c', 'n', 'happy day', '{"a" : 1}', '{"b": [1, 2.50]}', '6f1c1f0e-8f3c-4b0e-9a6f-0c3f2c5a7b11',
             '2024-02-29', '2024-02-29 23:59:59.5', '2024-02-29 23:59:59.000001+05', '1 year 2 mons -3 days 04:05:06.7',
             '\x00ff10', '{1,NULL,3}', '{2020-01-01 00:00:00+00}', '(1,"2020-01-01 00:00:00+00")', 7, '[1,5)', '10.0.0.1/8',
             '12:34:56.7', '12:34:56+02', '(1.5,2)', '12.34', 42, '1010', '{{a,b},{c,"d e"}}', '{1 day}', '{0.1,NaN}',
             '{"\\x00"}', '[2020-01-01 00:00:00+00,)', 'pg_class', 'q', '<a/>', '{2020-02-02}',
             '{"(1,\"2020-01-01 00:00:00+00\")"}', '08:00:2b:01:02:03', 'a:1 b', '{[1.5,2)}'),
            (NULL, 0, 0, 0, 'NaN', '-Infinity', 'NaN', '', '', '', '', NULL, 'null', 'null', NULL, 'infinity', '-infinity',
             'infinity', '0', '', '{}', '{}', '(,)', NULL, 'empty', '::1', '00:00', '00:00+00', '(NaN,0)', '0', 0, '0000',
             '{}', '{}', '{}', '{}', 'empty', '-', '', NULL, '{}', '{}', NULL, '', '{}'),
            (NULL, 0, 0, 0, 1e-10, 1e15, 1e20, '', '', '', '', NULL, 'null', 'null', NULL, '0044-03-15 BC', '10000-01-01',
             '0001-01-01 BC', '-1 day', '', '{}', '{}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
             NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)"#);
        run("INSERT INTO expected SELECT to_json(animal) FROM zoo AS animal");
        run(hostile);
        run("DELETE FROM zoo");
        for operation in ["created", "deleted"] {
            assert_eq!(
                maybe::<String>(&format!(
                    "SELECT string_agg(concat(x.name, ' ', x.value, ' is not ', y.value), '; ')
                       FROM (SELECT row_number() OVER (ORDER BY seq) AS n, data::json FROM webhook.outbox
                              WHERE operation = '{operation}') AS o
                       JOIN (SELECT row_number() OVER () AS n, row FROM expected) AS e USING (n),
                            json_each_text(o.data) AS x(name, value), json_each_text(e.row) AS y(name, value)
                      WHERE x.name = y.name AND x.value IS DISTINCT FROM y.value"
                )),
                None,
                "{operation}"
            );
        }
        assert_eq!(one::<String>("SHOW timezone"), "Asia/Kathmandu");
    }

    #[pg_test]
    fn json_text_stays_exact_down_to_zero_characters() {
        register("all", "");
        run(
            r#"CREATE TABLE t (j json); SELECT webhook_attach('t'); INSERT INTO t VALUES (E'{"b":1,  "a":"\\u0000"}')"#,
        );
        assert_eq!(events(), [r#"t.created {"j":{"b":1,  "a":"\u0000"}}"#]);
    }

    #[pg_test]
    fn a_failing_type_of_a_user_does_not_fail_the_statement() {
        register("all", "");
        run("CREATE TYPE pair AS (x int, y int);
             CREATE FUNCTION fails(pair) RETURNS json LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;
             CREATE DOMAIN code AS text;
             CREATE TYPE wrapped AS RANGE (subtype = float8);
             CREATE FUNCTION fails(wrapped) RETURNS json LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;
             CREATE CAST (wrapped AS json) WITH FUNCTION fails(wrapped);
             CREATE TABLE t (id int PRIMARY KEY, w wrapped, c code);
             SELECT webhook_attach('t');
             INSERT INTO t VALUES (1, '[1,2]', 'x')");
        assert_eq!(events(), [r#"t.created {"id":1} {"id":1,"w":null,"c":"x"}"#]);
    }
}
