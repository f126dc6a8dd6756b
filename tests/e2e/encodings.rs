//! Databases in other encodings than UTF-8: what happens there reaches receivers as UTF-8, and nothing is ever unreadable for
//! its encoding.

use postgres::Client;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::receiver::Receiver;
use crate::scene::register;
use crate::wait::{holds, secs, wait_until};
use crate::wire::Reply;

/// A database in an encoding, served, with an endpoint that wants everything.
struct Place {
    client: Client,
    receiver: Receiver,
    cluster: Cluster,
}

const DATABASE: &str = "encoded";

fn create_database(cluster: &Cluster, name: &str, encoding: &str) -> Client {
    let sql = format!(
        "CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
    );
    cluster.connect().batch_execute(&sql).unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    let mut client = cluster.connect_to(name);
    client.batch_execute("CREATE EXTENSION webhook_pg").expect("create the extension");
    client
}

impl Place {
    fn new(encoding: &str, script: impl Fn() -> Reply + Send + Sync + 'static) -> Self {
        let cluster = Cluster::start(&[("webhook_pg.databases", DATABASE)]);
        let mut client = create_database(&cluster, DATABASE, encoding);
        let receiver = Receiver::start(move |_, _| script());
        let (_, secret) = register(&mut client, "everything", &receiver.url(), "*", ", max_in_flight => 1");
        receiver.trust(&secret);
        Self { client, receiver, cluster }
    }

    #[track_caller]
    fn run(&mut self, sql: &str) {
        self.client.batch_execute(sql).unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    }

    /// The bodies of so many requests, without their timestamps.
    #[track_caller]
    fn bodies(&self, n: usize) -> Vec<Value> {
        self.texts(n)
            .iter()
            .map(|text| {
                let mut body: Value = serde_json::from_str(text).unwrap_or_else(|e| panic!("{text}: {e}"));
                body.as_object_mut().and_then(|body| body.remove("timestamp"));
                body
            })
            .collect()
    }

    #[track_caller]
    fn texts(&self, n: usize) -> Vec<String> {
        self.receiver.wait_for_answers(n, secs(20));
        self.receiver.assert_all_signed();
        self.cluster.assert_calm();
        let requests = self.receiver.requests();
        requests.into_iter().map(|r| String::from_utf8(r.body).expect("UTF-8")).collect()
    }
}

#[test]
fn rows_and_names_of_a_latin1_database_arrive_as_utf_8() {
    let mut place = Place::new("LATIN1", Reply::ok);
    place.run(
        r#"CREATE TABLE "café" ("größe" text PRIMARY KEY, doc jsonb, n int, fehlt text);
           SELECT webhook_attach('café', watch => '{"größe",n}', as_action => 'geändert', exclude => '{fehlt}',
                                 condition => $$NEW."größe" <> 'nö'$$, actions => '{created,updated}');
           SET webhook_pg.context = '{"von":"Jürgen"}';
           INSERT INTO "café" VALUES ('groß', '{"ä": "ö"}', 1), ('nö', NULL, 2);
           UPDATE "café" SET "größe" = E'ÿ\u00a0\u0080' WHERE n = 1"#,
    );
    let context = json!({"von": "Jürgen"});
    let expected = [
        json!({"type": "café.geändert", "operation": "created", "key": {"größe": "groß"}, "context": context,
               "data": {"größe": "groß", "doc": {"ä": "ö"}, "n": 1}}),
        json!({"type": "café.geändert", "operation": "updated", "key": {"größe": "ÿ\u{a0}\u{80}"}, "context": context,
               "data": {"größe": "ÿ\u{a0}\u{80}", "doc": {"ä": "ö"}, "n": 1}, "previous": {"größe": "groß"}}),
    ];
    assert_eq!(place.bodies(2), expected);
}

#[test]
fn rows_and_names_of_an_euc_jp_database_arrive_as_utf_8() {
    let mut place = Place::new("EUC_JP", Reply::ok);
    place.run(
        r#"CREATE TABLE "顧客" (id int PRIMARY KEY, "名前" text);
           SELECT webhook_attach('顧客', columns => '{"名前"}');
           SET webhook_pg.context = '{"誰":"私"}';
           INSERT INTO "顧客" VALUES (1, 'ソフト\"表示'), (2, repeat('日本', 20000)), (33, 'x' || repeat('日本', 20000))"#,
    );
    let row = |id: i32, name: &str| json!({"type": "顧客.created", "data": {"名前": name}, "key": {"id": id}, "context": {"誰": "私"}});
    let long = "日本".repeat(20000);
    let expected = [row(1, "ソフト\\\"表示"), row(2, &long), row(33, &format!("x{long}"))];
    assert!(place.bodies(3) == expected, "not as written");
}

#[test]
fn a_character_that_unicode_lacks_arrives_as_its_bytes() {
    let mut place = Place::new("EUC_JP", Reply::ok);
    place.run(
        r"CREATE TABLE t (id int PRIMARY KEY, name text);
          SELECT webhook_attach('t');
          INSERT INTO t VALUES (1, convert_from('\x61a9a162c6fc', 'EUC_JP'))",
    );
    let text = place.texts(1).remove(0);
    assert!(text.contains(r#""data":{"id":1,"name":"a\u00a9\u00a1b日"}"#), "{text}");
}

#[test]
fn bytes_of_a_sql_ascii_database_arrive_as_what_they_are_in_utf_8_or_as_characters_of_their_number() {
    let mut place = Place::new("SQL_ASCII", Reply::ok);
    // A table, a column, a condition and a value in Latin 1.
    place.run(
        r"DO $$ DECLARE name name := convert_from('\x636166e9', 'SQL_ASCII'); BEGIN
              EXECUTE format('CREATE TABLE %I (id int PRIMARY KEY, %I text)', name, name);
              PERFORM webhook_attach(name::regclass, columns => ARRAY['id', name]);
              PERFORM webhook_attach(name::regclass, as_action => name, condition => format('NEW.%I = %L', name, name),
                                     actions => '{created}');
              PERFORM set_config('webhook_pg.context', format('{%s:1}', to_json(name)), false);
              EXECUTE format('INSERT INTO %I VALUES (1, %L)', name, name);
              PERFORM webhook_detach(name::regclass, as_action => name);
              EXECUTE format('INSERT INTO %I VALUES (2, %L)', name, 'é');
          END $$",
    );
    let mut texts = place.texts(3);
    texts.sort();
    for (text, action, value) in
        [(&texts[0], "café", r"caf\u00e9"), (&texts[1], "created", r"caf\u00e9"), (&texts[2], "created", "é")]
    {
        for part in [
            format!(r#""type":"café.{action}""#),
            format!(r#","caf\u00e9":"{value}"}}"#),
            r#""context":{"caf\u00e9":1}"#.to_owned(),
        ] {
            assert!(text.contains(&part), "{part} is not in {text}");
        }
    }
}

#[test]
fn a_database_whose_encoding_has_no_conversion_to_unicode_is_served() {
    let mut place = Place::new("SQL_ASCII", Reply::ok);
    let home = place.cluster.home().to_owned();
    place.client = place.cluster.connect();
    let psql = |database: &str, sql: &str| {
        let mut psql = std::process::Command::new(crate::regress::psql());
        crate::os::forget_libpq_settings(&mut psql);
        psql.env("PGHOST", &home).env("PGUSER", "postgres").env("PGCLIENTENCODING", "SQL_ASCII");
        let output = psql.args(["-X", "-At", "-v", "ON_ERROR_STOP=1", "-d", database, "-c", sql]).output();
        let output = output.expect("run psql");
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    psql("postgres", "DROP DATABASE encoded");
    psql(
        "postgres",
        "CREATE DATABASE encoded ENCODING 'MULE_INTERNAL' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'",
    );
    psql("encoded", "CREATE EXTENSION webhook_pg");
    let register =
        format!("SELECT secret FROM webhook_register('{}', max_in_flight => 1)", place.receiver.url());
    place.receiver.trust(&psql("encoded", &register));
    psql(
        "encoded",
        r"CREATE TABLE t (id int PRIMARY KEY, name text);
          SELECT webhook_attach('t');
          INSERT INTO t VALUES (1, convert_from('\x6181e962', 'MULE_INTERNAL'))",
    );
    let text = place.texts(1).remove(0);
    assert!(text.contains(r#""data":{"id":1,"name":"a\u0081\u00e9b"}"#), "{text}");
}

#[test]
fn every_kind_of_server_encoding_is_converted() {
    let samples = [
        ("LATIN2", "łódź"),
        ("LATIN5", "ığş"),
        ("LATIN9", "€œ"),
        ("ISO_8859_8", "שלום"),
        ("KOI8R", "привет"),
        ("WIN1252", "€“”"),
        ("WIN874", "สวัสดี"),
        ("EUC_KR", "안녕"),
        ("EUC_CN", "你好"),
        ("EUC_TW", "你好"),
        ("EUC_JIS_2004", "日本"),
    ];
    let cluster = Cluster::start(&[]);
    let receiver = Receiver::start(|_, _| Reply::ok());
    for (nth, (encoding, sample)) in samples.iter().enumerate() {
        let name = encoding.to_lowercase();
        let mut client = create_database(&cluster, &name, encoding);
        let (_, secret) = register(&mut client, sample, &receiver.url(), &format!("{sample}.*"), "");
        receiver.trust(&secret);
        cluster.set("webhook_pg.databases", &name);
        let sql = format!(
            r#"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'webhook_pg worker';
               CREATE TABLE "{sample}" (id int PRIMARY KEY, "{sample}" text);
               SELECT webhook_attach('{sample}');
               INSERT INTO "{sample}" VALUES (1, '{sample}')"#
        );
        client.batch_execute(&sql).unwrap_or_else(|e| panic!("{sql}: {e:?}"));
        receiver.wait_for_answers(nth + 1, secs(20));
        let body = receiver.requests()[nth].json();
        assert_eq!(body["type"], format!("{sample}.created"));
        assert_eq!(body["data"], json!({"id": 1, *sample: sample}));
    }
    receiver.assert_all_signed();
    cluster.assert_calm();
}

#[test]
fn what_a_receiver_says_is_kept_in_the_encoding_of_the_database() {
    let mut place = Place::new("LATIN1", || Reply::status(410).with_body("zu groß → nein"));
    place.run("CREATE TABLE t (id int PRIMARY KEY); SELECT webhook_attach('t'); INSERT INTO t VALUES (1)");
    let query = "SELECT (SELECT response FROM webhook.attempts), disabled_reason FROM webhook.endpoints";
    let (response, reason) = wait_until("the attempt is kept", secs(20), || {
        let row = place.client.query_one(query, &[]).map_err(|e| e.to_string())?;
        let both: (Option<String>, Option<String>) = (row.get(0), row.get(1));
        holds(both.0.is_some() && both.1.is_some(), || format!("{both:?}")).map(|()| both)
    });
    assert_eq!(response.as_deref(), Some("zu groß ? nein"));
    assert!(reason.is_some());
}

#[test]
fn an_endpoint_of_a_latin1_database_may_have_a_name_with_accents_and_keeps_it() {
    let mut place = Place::new("LATIN1", Reply::ok);
    place.run(
        r#"SELECT webhook_register('https://example.com/', '{"café.*"}', name => 'kühl');
           SELECT webhook_update(id, '{"timeout": "1 s"}') FROM webhook.endpoints WHERE name = 'kühl';
           SELECT webhook_send('café.geöffnet', '"é"', key => 'ü', idempotency_key => 'ö')"#,
    );
    let row = place
        .client
        .query_one("SELECT name, events[1] FROM webhook.endpoints WHERE name <> 'everything'", &[]);
    let row = row.expect("the endpoint");
    assert_eq!((row.get::<_, &str>(0), row.get::<_, &str>(1)), ("kühl", "café.*"));
    assert_eq!(place.bodies(1), [json!({"type": "café.geöffnet", "data": "é", "key": "ü"})]);
}

#[test]
fn an_error_about_a_name_with_accents_is_readable_in_every_encoding() {
    let mut place = Place::new("EUC_JP", Reply::ok);
    place.run(r#"CREATE TABLE "顧客" (id int PRIMARY KEY)"#);
    for (sql, code) in [
        (r#"SELECT webhook_attach('顧客', columns => '{"名前"}')"#, "42703"),
        (r#"SELECT webhook_attach('顧客', condition => 'NEW."名前" = 1', actions => '{created}')"#, "42703"),
        (r#"SELECT webhook_attach('顧客', resource => '名 前')"#, "22023"),
        (r#"SELECT webhook_send('名前', '1')"#, "22023"),
    ] {
        let error = place.client.batch_execute(sql).expect_err(sql);
        let error = error.as_db_error().unwrap_or_else(|| panic!("{sql}: {error:?}"));
        assert_eq!(error.code().code(), code, "{sql}: {error:?}");
        let text = format!("{} {}", error.message(), error.detail().unwrap_or_default());
        assert!(text.contains(r"\u{524d}"), "{sql}: the character is not in {text}");
    }
}
