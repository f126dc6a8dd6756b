//! The JSON of values, type by type: `tests/data/values.tsv` holds a type, a value as SQL and its JSON on each line, and is the
//! same for all versions of PostgreSQL. `UPDATE_EXPECTED=1` writes the JSON anew.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use postgres::Client;

use crate::cluster::Cluster;
use crate::os::{as_owner, run};
use crate::size::not_tested;

const TYPES: &str = r#"
    CREATE SCHEMA zoo;
    CREATE TABLE zoo."Odd Name" (id int);
    CREATE TYPE zoo.mood AS ENUM ('sad', 'happy day');
    CREATE DOMAIN zoo.positive AS int CHECK (VALUE > 0);
    CREATE DOMAIN zoo.stamp AS timestamptz;
    CREATE DOMAIN zoo.list AS int[];
    CREATE TYPE zoo.floatrange AS RANGE (subtype = float8);
    CREATE TYPE zoo.spanrange AS RANGE (subtype = interval);
    CREATE TYPE zoo.pair AS (x int, at timestamptz, f float8, i interval, b bytea, m zoo.mood);
    CREATE TYPE zoo.nest AS (p zoo.pair, list zoo.pair[], r zoo.floatrange, f float8[], t regclass);
    CREATE DOMAIN zoo.checked_pair AS zoo.pair"#;

/// Settings that change how PostgreSQL writes values for people.
const HOSTILE: [&str; 4] = [
    "SET DateStyle = 'SQL, DMY'; SET IntervalStyle = sql_standard; SET TimeZone = 'Asia/Kathmandu';
     SET bytea_output = escape; SET extra_float_digits = -15; SET quote_all_identifiers = on;
     SET search_path = zoo, public, pg_catalog",
    "SET DateStyle = 'German, YMD'; SET IntervalStyle = postgres_verbose; SET TimeZone = '-12:34';
     SET extra_float_digits = 3; SET search_path = ''",
    "SET DateStyle = 'Postgres, MDY'; SET IntervalStyle = postgres; SET TimeZone = 'America/St_Johns';
     SET extra_float_digits = 0; SET xmloption = document; SET xmlbinary = hex; SET lc_numeric = 'C'; SET lc_time = 'C'",
    "SET DateStyle = 'ISO, DMY'; SET IntervalStyle = iso_8601; SET TimeZone = 'UTC'; SET lc_monetary = 'C'",
];

struct Sample {
    kind: String,
    value: String,
    json: String,
}

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/values.tsv")
}

fn samples() -> Vec<Sample> {
    let text = fs::read_to_string(file()).expect("tests/data/values.tsv");
    let sample = |line: &str| match line.split('\t').collect::<Vec<_>>()[..] {
        [kind, value, json] => {
            Sample { kind: kind.to_owned(), value: value.to_owned(), json: json.to_owned() }
        }
        _ => panic!("not three fields: {line}"),
    };
    text.lines().map(sample).collect()
}

/// Types that a PostgreSQL may have been built without (xml, contrib).
const OPTIONAL: [&str; 4] = ["xml", "zoo.citext", "zoo.hstore", "zoo.ltree"];

/// A database with a table of one row for each sample, by line, and an endpoint that wants their events. Types that this
/// PostgreSQL was built without are left out.
struct Zoo<'c> {
    cluster: &'c Cluster,
    client: Client,
    name: String,
    samples: HashMap<usize, Sample>,
}

impl<'c> Zoo<'c> {
    /// Each table has the column `value`.
    fn new(cluster: &'c Cluster, name: &str) -> Self {
        Self::with_tables(cluster, name, |nth, Sample { kind, value, .. }| {
            Some(format!("CREATE TABLE zoo.t{nth} (value {kind}); INSERT INTO zoo.t{nth} VALUES ({value})"))
        })
    }

    /// `table` is the SQL that makes table `zoo.t<nth>` with one row, if there is to be one.
    fn with_tables(
        cluster: &'c Cluster,
        name: &str,
        table: impl Fn(usize, &Sample) -> Option<String>,
    ) -> Self {
        let sql = format!("CREATE DATABASE {name} TEMPLATE template0");
        cluster.connect().batch_execute(&sql).expect("create the database");
        let mut client = cluster.connect_to(name);
        client
            .batch_execute("CREATE EXTENSION webhook_pg; SELECT webhook_register('https://example.com/')")
            .unwrap();
        client.batch_execute(TYPES).unwrap();
        for extension in ["citext", "hstore", "ltree"] {
            let _ = client.batch_execute(&format!("CREATE EXTENSION {extension} SCHEMA zoo"));
        }
        let mut zoo = Self { cluster, client, name: name.to_owned(), samples: HashMap::new() };
        for (nth, sample) in samples().into_iter().enumerate() {
            let Some(sql) = table(nth, &sample) else { continue };
            match zoo.client.batch_execute(&format!("{sql}; SELECT webhook_attach('zoo.t{nth}')")) {
                Ok(()) => {
                    zoo.samples.insert(nth, sample);
                }
                Err(error) if OPTIONAL.contains(&sample.kind.as_str()) => {
                    let why =
                        error.as_db_error().map_or_else(|| error.to_string(), |e| e.message().to_owned());
                    not_tested(&format!("values of {}: {why}", sample.kind));
                }
                Err(error) => panic!("{sql}: {error:?}"),
            }
        }
        zoo
    }

    /// The JSON of every sample as these settings see it: those of the events of a DELETE that is rolled back.
    fn json(&mut self, settings: &str) -> HashMap<usize, String> {
        self.captured(settings, "DELETE FROM", "", "data")
    }

    /// The same, of the old values of an UPDATE. A null has none.
    fn previous(&mut self, settings: &str) -> HashMap<usize, String> {
        self.captured(settings, "UPDATE", "SET value = NULL", "previous")
    }

    fn captured(&mut self, settings: &str, verb: &str, rest: &str, column: &str) -> HashMap<usize, String> {
        let texts = self.texts(settings, verb, rest, column);
        let value = |text: String| {
            let json = text.strip_prefix("{\"value\":").and_then(|rest| rest.strip_suffix('}'));
            json.unwrap_or_else(|| panic!("{text} is not an object of one value")).to_owned()
        };
        texts.into_iter().map(|(nth, text)| (nth, value(text))).collect()
    }

    /// This column of the outbox after this statement on each table.
    fn texts(&mut self, settings: &str, verb: &str, rest: &str, column: &str) -> HashMap<usize, String> {
        self.client.batch_execute(&format!("BEGIN; {settings}")).expect(settings);
        for nth in self.samples.keys() {
            let sql = format!("{verb} zoo.t{nth} {rest}");
            self.client.batch_execute(&sql).expect(&sql);
        }
        let query = format!(
            "SELECT pg_catalog.substr(pg_catalog.split_part(type, '.', 1), 2), {column} FROM webhook.outbox
              WHERE operation IN ('deleted', 'updated')"
        );
        let rows = self.client.query(&query, &[]).expect(&query);
        self.client.batch_execute("ROLLBACK").unwrap();
        rows.iter().map(|row| (row.get::<_, &str>(0).parse().unwrap(), row.get(1))).collect()
    }
}

impl Drop for Zoo<'_> {
    fn drop(&mut self) {
        if let Ok(mut client) = self.cluster.try_connect() {
            let _ = client.batch_execute(&format!("DROP DATABASE {} WITH (FORCE)", self.name));
        }
    }
}

#[test]
fn a_value_of_any_type_has_the_same_json_on_every_version_of_postgresql() {
    let mut zoo = Zoo::new(Cluster::shared(), "zoo_golden");
    let json = zoo.json("");
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        let line = |(nth, sample): (usize, Sample)| {
            let json = json.get(&nth).cloned().unwrap_or(sample.json);
            format!("{}\t{}\t{json}\n", sample.kind, sample.value)
        };
        let text: String = samples().into_iter().enumerate().map(line).collect();
        fs::write(file(), text).expect("write tests/data/values.tsv");
        return;
    }
    for (nth, sample) in &zoo.samples {
        assert_eq!(json[nth], sample.json, "{} {}", sample.kind, sample.value);
    }
}

#[test]
fn a_value_of_any_type_is_json_by_rfc_8259() {
    let mut zoo = Zoo::new(Cluster::shared(), "zoo_valid");
    for (nth, json) in zoo.json("") {
        let sample = &zoo.samples[&nth];
        let valid = serde_json::from_str::<serde::de::IgnoredAny>(&json);
        assert!(valid.is_ok(), "{} {}: {json} is no JSON: {valid:?}", sample.kind, sample.value);
    }
}

#[test]
fn a_value_of_any_type_has_the_same_json_in_an_array_a_domain_and_a_row() {
    let is_scalar = |sample: &Sample| !sample.kind.ends_with(']');
    let mut zoo = Zoo::with_tables(Cluster::shared(), "zoo_forms", |nth, sample| {
        let Sample { kind, value, .. } = sample;
        is_scalar(sample).then(|| {
            format!(
                "CREATE DOMAIN zoo.domain{nth} AS {kind};
                 CREATE TYPE zoo.row{nth} AS (v {kind});
                 CREATE TABLE zoo.t{nth} (list {kind}[], grid {kind}[][], same zoo.domain{nth}, field zoo.row{nth}, nothing {kind});
                 INSERT INTO zoo.t{nth} SELECT ARRAY[v], ARRAY[ARRAY[v], ARRAY[v]], v, ROW(v)::zoo.row{nth}, NULL
                   FROM (SELECT ({value})::{kind} AS v) AS value"
            )
        })
    });
    let kinds: BTreeSet<&str> = zoo.samples.values().map(|sample| sample.kind.as_str()).collect();
    assert!(kinds.len() >= 60, "only {} types", kinds.len());
    for settings in ["", HOSTILE[0]] {
        let found = zoo.texts(settings, "DELETE FROM", "", "data");
        for (nth, Sample { kind, value, json }) in &zoo.samples {
            let expected = format!(
                r#"{{"list":[{json}],"grid":[[{json}],[{json}]],"same":{json},"field":{{"v":{json}}},"nothing":null}}"#
            );
            assert_eq!(found[nth], expected, "{kind} {value} under {settings:?}");
        }
    }
}

#[test]
fn a_value_of_any_type_has_the_same_json_whatever_the_session_sets() {
    let mut zoo = Zoo::new(Cluster::shared(), "zoo_hostile");
    let (usual, previous) = (zoo.json(""), zoo.previous(""));
    for settings in HOSTILE {
        for (nth, json) in zoo.json(settings) {
            let sample = &zoo.samples[&nth];
            assert_eq!(json, usual[&nth], "{} {} under {settings}", sample.kind, sample.value);
        }
        let found = zoo.previous(settings);
        assert_eq!(found.len(), previous.len());
        for (nth, json) in found {
            let sample = &zoo.samples[&nth];
            assert_eq!(json, usual[&nth], "old {} {} under {settings}", sample.kind, sample.value);
        }
    }
}

#[test]
fn keys_and_what_is_expanded_have_the_same_json_whatever_the_session_sets() {
    let mut zoo = Zoo::with_tables(Cluster::shared(), "zoo_keys", |_, _| None);
    zoo.client
        .batch_execute(
            r#"CREATE TABLE zoo.parent (id float8 PRIMARY KEY, at timestamptz, i interval, b bytea, f float8[], t regclass);
               INSERT INTO zoo.parent VALUES (0.1, '2024-02-29 23:59:59.5+05', '1 day 02:03', '\x00ff', '{0.1}', 'zoo."Odd Name"');
               CREATE TABLE zoo.child (f float8, at timestamptz, i interval, d date, b bytea, parent float8 REFERENCES zoo.parent,
                   note text, PRIMARY KEY (f, at, i, d, b));
               INSERT INTO zoo.child VALUES (0.1, '2024-02-29 23:59:59.5+05', '1 day 02:03', '2024-02-29', '\x00ff', 0.1, 'a');
               CREATE FUNCTION zoo.texts(c zoo.child) RETURNS json STABLE LANGUAGE sql
                   AS 'SELECT json_build_array(c.f::text, c.at::text, c.i::text, c.d::text, c.b::text)';
               SELECT webhook_attach('zoo.child', expand => '{"whole": "parent", "texts": "zoo.texts"}')"#,
        )
        .unwrap();
    let mut events = |settings: &str| -> Vec<String> {
        let changes = "UPDATE zoo.child SET note = 'b', parent = NULL; UPDATE zoo.child SET parent = 0.1; DELETE FROM zoo.child";
        zoo.client.batch_execute(&format!("BEGIN; {settings}; {changes}")).expect(settings);
        let query = "SELECT pg_catalog.concat_ws(' ', key, data, previous, expanded) FROM webhook.outbox ORDER BY xid, seq";
        let rows = zoo.client.query(query, &[]).expect(query);
        zoo.client.batch_execute("ROLLBACK").unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    };
    let usual = events("SELECT");
    let values =
        r#""f":0.1,"at":"2024-02-29T18:59:59.5+00:00","i":"P1DT2H3M","d":"2024-02-29","b":"\\x00ff""#;
    let parent = r#"{"id":0.1,"at":"2024-02-29T18:59:59.5+00:00","i":"P1DT2H3M","b":"\\x00ff","f":[0.1],"t":"zoo.\"Odd Name\""}"#;
    let texts = r#"["0.1", "2024-02-29 18:59:59.5+00", "P1DT2H3M", "2024-02-29", "\\x00ff"]"#;
    let last =
        format!(r#"{{{values}}} {{{values},"parent":0.1,"note":"b"}} {{"texts":{texts},"whole":{parent}}}"#);
    assert_eq!((usual.len(), usual.last()), (3, Some(&last)));
    for settings in HOSTILE {
        assert_eq!(events(settings), usual, "under {settings}");
    }
}

/// A directory with the German locale, compiled; gone after the test. Nothing if there is no compiler or no source of it here.
struct German(PathBuf);

impl German {
    const NAME: &'static str = "de_DE.UTF-8";

    fn compile() -> Result<Self, String> {
        let directory = std::env::temp_dir().join(format!("webhook_pg-e2e-{}-locale", std::process::id()));
        run(as_owner("mkdir").arg("-m").arg("0755").arg(&directory));
        let german = Self(directory);
        let mut localedef = as_owner("localedef");
        localedef.args(["--no-archive", "-i", "de_DE", "-f", "UTF-8"]).arg(german.0.join(Self::NAME));
        let output = localedef.output().map_err(|e| format!("localedef: {e}"))?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() { Ok(german) } else { Err(said) }
    }
}

impl Drop for German {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_value_of_any_type_has_the_same_json_in_another_locale() {
    let german = match German::compile() {
        Ok(german) => german,
        Err(why) => {
            return not_tested(&format!("values in another locale, which cannot be made here: {why}"));
        }
    };
    let cluster = Cluster::start_with_environment(&[("LOCPATH", german.0.to_str().unwrap())]);
    let mut zoo = Zoo::new(&cluster, "zoo_german");
    let name = German::NAME;
    let settings = format!("SET lc_numeric = '{name}'; SET lc_time = '{name}'; SET lc_monetary = '{name}'");
    let row = zoo.client.query_one("SELECT to_char(1.5, 'FM9D9')", &[]).unwrap();
    assert_eq!(row.get::<_, &str>(0), "1.5");
    zoo.client.batch_execute(&settings).unwrap();
    let row = zoo
        .client
        .query_one("SELECT to_char(1.5, 'FM9D9'), to_char(date '2024-05-01', 'TMMonth')", &[])
        .unwrap();
    assert_eq!((row.get(0), row.get(1)), ("1,5", "Mai"), "the locale is not in force");
    let (json, previous) = (zoo.json(""), zoo.previous(""));
    for (nth, sample) in &zoo.samples {
        // docs/capture.md, "Values": the one exception.
        if sample.kind.starts_with("money") {
            assert!(json[nth].contains("12,34"), "{}", json[nth]);
            continue;
        }
        assert_eq!(json[nth], sample.json, "{} {}", sample.kind, sample.value);
        assert_eq!(
            previous.get(nth).unwrap_or(&sample.json),
            &sample.json,
            "old {} {}",
            sample.kind,
            sample.value
        );
    }
}
