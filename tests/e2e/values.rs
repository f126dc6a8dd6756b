//! The JSON of values, type by type: `tests/data/values.tsv` holds a type, a value as SQL and its JSON on each line, and is the
//! same for all versions of PostgreSQL. `UPDATE_EXPECTED=1` writes the JSON anew.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use postgres::Client;

use crate::cluster::Cluster;

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

/// A database with a table of one row for each sample, by line, and an endpoint that wants their events. Types that this
/// PostgreSQL was built without (xml, contrib) are left out.
struct Zoo {
    client: Client,
    samples: HashMap<usize, Sample>,
}

impl Zoo {
    fn new(name: &str) -> Self {
        let cluster = Cluster::shared();
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
        let mut zoo = Self { client, samples: HashMap::new() };
        for (nth, sample) in samples().into_iter().enumerate() {
            let sql = format!(
                "CREATE TABLE zoo.t{nth} (value {kind}); INSERT INTO zoo.t{nth} VALUES ({value});
                 SELECT webhook_attach('zoo.t{nth}')",
                kind = sample.kind,
                value = sample.value
            );
            match zoo.client.batch_execute(&sql) {
                Ok(()) => {
                    zoo.samples.insert(nth, sample);
                }
                Err(error)
                    if ["xml", "zoo.citext", "zoo.hstore", "zoo.ltree"].contains(&sample.kind.as_str()) =>
                {
                    eprintln!("{} is not tested: {error}", sample.kind);
                }
                Err(error) => panic!("{sql}: {error:?}"),
            }
        }
        zoo
    }

    /// The JSON of every sample as these settings see it: those of the events of a DELETE that is rolled back.
    fn json(&mut self, settings: &str) -> HashMap<usize, String> {
        self.client.batch_execute(&format!("BEGIN; {settings}")).expect(settings);
        for nth in self.samples.keys() {
            self.client.batch_execute(&format!("DELETE FROM zoo.t{nth}")).expect("delete");
        }
        let query = "SELECT pg_catalog.substr(type, 2), data FROM webhook.outbox WHERE operation = 'deleted'";
        let rows = self.client.query(query, &[]).expect(query);
        self.client.batch_execute("ROLLBACK").unwrap();
        rows.iter()
            .map(|row| {
                let nth = row.get::<_, &str>(0).trim_end_matches(".deleted").parse().unwrap();
                let data: &str = row.get(1);
                let json = data.strip_prefix("{\"value\":").and_then(|rest| rest.strip_suffix('}'));
                (nth, json.unwrap_or_else(|| panic!("{data} is not an object of one value")).to_owned())
            })
            .collect()
    }
}

impl Drop for Zoo {
    fn drop(&mut self) {
        let name: Option<String> =
            self.client.query_one("SELECT current_database()::text", &[]).ok().map(|row| row.get(0));
        if let Some(name) = name {
            let _ = Cluster::shared().connect().batch_execute(&format!("DROP DATABASE {name} WITH (FORCE)"));
        }
    }
}

#[test]
fn a_value_of_any_type_has_the_same_json_on_every_version_of_postgresql() {
    let mut zoo = Zoo::new("zoo_golden");
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
    let mut zoo = Zoo::new("zoo_valid");
    for (nth, json) in zoo.json("") {
        let sample = &zoo.samples[&nth];
        let valid = serde_json::from_str::<serde::de::IgnoredAny>(&json);
        assert!(valid.is_ok(), "{} {}: {json} is no JSON: {valid:?}", sample.kind, sample.value);
    }
}

#[test]
fn a_value_of_any_type_has_the_same_json_whatever_the_session_sets() {
    let mut zoo = Zoo::new("zoo_hostile");
    let usual = zoo.json("");
    for settings in HOSTILE {
        for (nth, json) in zoo.json(settings) {
            let sample = &zoo.samples[&nth];
            assert_eq!(json, usual[&nth], "{} {} under {settings}", sample.kind, sample.value);
        }
    }
}
