//! What Prometheus, its rules and Grafana make of webhook_metrics() and of ops/. The tools come with scripts/setup.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use postgres::Client;

use crate::cluster::Cluster;
use crate::os::{as_owner, run};
use crate::regress::psql;
use crate::scene::Scene;
use crate::site::Site;
use crate::wait::{secs, wait_until};
use crate::wire::Reply;

fn ops(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("ops").join(file)
}

/// A tool of scripts/setup, which scripts/env puts into PATH.
fn tool(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.exists());
    found.unwrap_or_else(|| panic!("{name} is not in PATH: run scripts/setup, and source scripts/env"))
}

fn metrics(client: &mut Client) -> String {
    client.query_one("SELECT webhook_metrics()", &[]).expect("the metrics").get(0)
}

/// The names that samples of these metrics have.
fn names(text: &str) -> BTreeSet<String> {
    let declared = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let suffixes = |(name, kind): (&str, &str)| {
        let all: &[&str] = if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
        all.iter().map(|suffix| format!("{name}{suffix}")).collect::<Vec<_>>()
    };
    declared.flat_map(suffixes).collect()
}

/// What stands in a text and looks like one of our metrics.
fn mentioned(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.len() > 11 && word.starts_with("webhook_pg_")).map(str::to_owned).collect()
}

/// Runs promtool; fails the test with what it says. Answers that.
#[track_caller]
fn promtool(args: &[&str], input: &str) -> String {
    let mut command = Command::new(tool("promtool"));
    command
        .args(args)
        .current_dir(ops(""))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("start promtool");
    child.stdin.take().expect("its input").write_all(input.as_bytes()).expect("write to promtool");
    let output = child.wait_with_output().expect("promtool");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "promtool {args:?}: {said}");
    said
}

#[test]
fn promtool_accepts_the_metrics_without_a_warning_whatever_endpoints_are_called() {
    let mut scene = Scene::new(Cluster::shared(), "monitoring_names", "", |_, _| Reply::ok());
    scene.insert(1..=3);
    scene.wait_until_drained(secs(20));
    let endpoint = scene.endpoint;
    let name = "quoted \" back\\slash \u{e9}";
    scene
        .client
        .execute("SELECT webhook_update($1, jsonb_build_object('name', $2::text))", &[&endpoint, &name])
        .unwrap();
    wait_until("the durations are saved", secs(20), || {
        let text = metrics(&mut scene.client);
        let labels = format!(r#"{{endpoint="quoted \" back\\slash é",endpoint_id="{endpoint}"}}"#);
        for sample in [format!("webhook_pg_delivered_total{labels} 3"), "webhook_pg_worker_up 1".to_owned()] {
            assert!(text.lines().any(|line| line == sample), "{sample} is missing:\n{text}");
        }
        let counted = format!("webhook_pg_attempt_duration_seconds_count{labels} 3");
        text.lines().any(|line| line == counted).then_some(()).ok_or(text)
    });
    let said = promtool(&["check", "metrics"], &metrics(&mut scene.client));
    assert!(said.trim().is_empty(), "{said}");
}

#[test]
fn the_alert_rules_are_accepted_and_pass_their_tests() {
    promtool(&["check", "rules", "alerts.yml"], "");
    promtool(&["test", "rules", "alerts_test.yml"], "");
}

#[test]
fn every_metric_of_the_dashboard_and_of_the_rules_is_one_of_ours() {
    let mut client = Cluster::shared().connect();
    let scene = Scene::new(Cluster::shared(), "monitoring_ours", "", |_, _| Reply::ok());
    let ours = names(&metrics(&mut client));
    drop(scene);
    for file in ["grafana.json", "alerts.yml", "alerts_test.yml"] {
        let text = fs::read_to_string(ops(file)).expect(file);
        let named = mentioned(&text);
        assert!(named.len() > 3, "{file} names {named:?}");
        let foreign: Vec<_> = named.difference(&ours).collect();
        assert!(foreign.is_empty(), "{file} names {foreign:?}, which nobody measures");
    }
    let dashboard = fs::read_to_string(ops("grafana.json")).expect("the dashboard");
    serde_json::from_str::<serde_json::Value>(&dashboard).expect("the dashboard is JSON");
}

/// The first of the commands in a document that begins so, to its end.
fn command_of(document: &str, beginning: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(document);
    let text = fs::read_to_string(path).expect("a document");
    let blocks = text.split("```console\n").skip(1).filter_map(|rest| rest.split("```").next());
    let found =
        blocks.filter_map(|block| block.strip_prefix("$ ")).find(|block| block.starts_with(beginning));
    found.unwrap_or_else(|| panic!("{document} has no command {beginning}")).to_owned()
}

#[test]
fn the_line_for_node_exporter_writes_a_file_that_prometheus_reads() {
    let cluster = Cluster::start(&[("webhook_pg.databases", "")]);
    let mut site = Site::new(&cluster, "crm");
    site.run("SELECT webhook_update(id, '{\"name\": \"caf\u{e9}\"}') FROM webhook.endpoints");
    // As the document says: a role with this bundle and nothing else.
    site.run("CREATE ROLE monitor LOGIN; SELECT webhook_grant('observer', 'monitor')");
    site.insert(1..=3);
    site.receiver.wait_for_rows(1..=3, secs(20));
    let dir = cluster.home().join("textfiles");
    run(as_owner("mkdir").arg(&dir));
    let directory = "/var/lib/prometheus/node-exporter";
    let line = command_of("monitoring.md", "psql -qXAtd crm");
    assert_eq!(line.matches(directory).count(), 3, "{line}");
    let line = line.replace(directory, dir.to_str().expect("a UTF-8 name"));
    let bin = psql().parent().expect("a directory").display().to_string();
    let text = wait_until("the durations are in the file", secs(10), || {
        let mut shell = as_owner("sh");
        shell
            .env("PATH", format!("{bin}:/usr/bin:/bin"))
            .env("PGHOST", cluster.home())
            .env("PGUSER", "monitor");
        run(shell.args(["-ec", &line]));
        let text = fs::read_to_string(dir.join("webhook_pg.prom")).expect("the file");
        let counted = "webhook_pg_attempt_duration_seconds_count{endpoint=\"caf\u{e9}\",endpoint_id=\"1\"} 3";
        text.lines().any(|line| line == counted).then_some(text.clone()).ok_or(text)
    });
    for sample in
        ["webhook_pg_worker_up 1", "webhook_pg_delivered_total{endpoint=\"caf\u{e9}\",endpoint_id=\"1\"} 3"]
    {
        assert!(text.lines().any(|line| line == sample), "{sample} is missing:\n{text}");
    }
    assert!(text.ends_with('\n'), "the collector wants a line to end");
    let said = promtool(&["check", "metrics"], &text);
    assert!(said.trim().is_empty(), "{said}");
    let left = fs::read_dir(&dir).expect("the directory").count();
    assert_eq!(left, 1, "the collector would read the new file, too");
}

/// A process that ends with the test.
struct Exporter(Child);

impl Drop for Exporter {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn get(address: &str, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(secs(10)))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn the_postgres_exporter_serves_our_metrics_under_the_same_names() {
    let cluster = Cluster::start(&[]);
    let mut scene = Scene::new(&cluster, "monitoring_exporter", "", |_, _| Reply::ok());
    scene.insert(1..=7);
    scene.wait_until_drained(secs(20));
    let queries = fs::read_to_string(ops("postgres_exporter.yml")).expect("the queries");
    let queries = cluster.write_file("queries.yml", &queries);
    let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port();
    let address = format!("127.0.0.1:{port}");
    let mut command = as_owner(tool("prometheus-postgres-exporter"));
    command
        .env(
            "DATA_SOURCE_NAME",
            format!("host={} user=postgres dbname=postgres sslmode=disable", cluster.home().display()),
        )
        .arg(format!("--extend.query-path={}", queries.display()))
        .args(["--disable-default-metrics", "--disable-settings-metrics"])
        .arg(format!("--web.listen-address={address}"))
        .current_dir(cluster.home())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let _exporter = Exporter(command.spawn().expect("start the exporter"));
    let endpoint = scene.endpoint;
    let text = wait_until("the exporter answers", secs(30), || {
        let answer = get(&address, "/metrics").map_err(|e| e.to_string())?;
        answer.contains("webhook_pg_delivered_total").then_some(answer.clone()).ok_or(answer)
    });
    let text = text.split_once("\r\n\r\n").expect("a body").1;
    let sample = |name: &str| {
        let find = |line: &&str| {
            line.starts_with(&format!("{name}{{")) && line.contains(&format!("endpoint_id=\"{endpoint}\""))
        };
        let line = text.lines().find(find).unwrap_or_else(|| panic!("{name} is missing:\n{text}"));
        line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()).expect("a number")
    };
    assert!((sample("webhook_pg_delivered_total") - 7.0).abs() < 0.1);
    assert!(sample("webhook_pg_endpoint_lag_events").abs() < 0.1);
    let worker = text
        .lines()
        .find(|line| line.starts_with("webhook_pg_check_ok") && line.contains("check=\"worker\""));
    assert!(worker.is_some_and(|line| line.ends_with(" 1")), "{worker:?}");
    let ours = names(&metrics(&mut scene.client));
    let served: BTreeSet<String> =
        names(text).into_iter().filter(|name| name.starts_with("webhook_pg_")).collect();
    let foreign: Vec<_> = served.difference(&ours).collect();
    assert!(foreign.is_empty(), "{foreign:?}");
    // What the file says of each is what webhook_metrics() says: one HELP for one name.
    let scraped = promtool(&["check", "metrics"], text);
    assert!(!scraped.contains("webhook_pg_"), "{scraped}");
}
