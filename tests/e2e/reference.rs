//! docs/reference.md against the catalogs: what people can call, see and set is described there, and nothing else is.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::cluster::Cluster;

/// The lines below a heading, up to the next one.
fn section<'a>(page: &'a str, heading: &str) -> Option<Vec<&'a str>> {
    let mut lines = page.lines().skip_while(|line| *line != heading);
    lines.next()?;
    Some(lines.take_while(|line| !line.starts_with('#')).collect())
}

/// The first cells of the rows of a section's tables, without their backticks.
fn first_cells(section: &[&str]) -> BTreeSet<String> {
    let rows = section.iter().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    rows.map(|(cell, _)| cell.to_owned()).collect()
}

fn page() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference.md"))
        .expect("the reference")
}

/// Compares what the sections about things of one kind say with what the query answers: name and parts.
fn compare(kind: &str, prefix: &str, query: &str) {
    let (page, mut wrong) = (page(), Vec::new());
    let rows = Cluster::shared().connect().query(query, &[]).unwrap();
    assert!(rows.len() > 4, "too few to show anything");
    let mut known = BTreeSet::new();
    for row in rows {
        let (name, parts): (String, Vec<String>) = (row.get(0), row.get(1));
        let parts: BTreeSet<String> = parts.into_iter().collect();
        match section(&page, &format!("### {name}")) {
            None => wrong.push(format!("{kind} {name} has no section")),
            Some(lines) => {
                let described = first_cells(&lines);
                let missing: Vec<_> = parts.difference(&described).collect();
                // A function that answers a table of checks describes those, too.
                let is_wrong = |_: &&String| !parts.is_empty() || kind == "view";
                let unknown: Vec<_> = described.difference(&parts).filter(is_wrong).collect();
                if !missing.is_empty() || !unknown.is_empty() {
                    wrong.push(format!("{kind} {name} lacks {missing:?}, does not have {unknown:?}"));
                }
            }
        }
        known.insert(name);
    }
    let headings =
        page.lines().filter_map(|line| line.strip_prefix("### ")).filter(|name| name.starts_with(prefix));
    let unknown = headings.filter(|name| !known.contains(*name));
    wrong.extend(unknown.map(|name| format!("there is no {kind} {name}")));
    assert!(wrong.is_empty(), "docs/reference.md:\n{}", wrong.join("\n"));
}

#[test]
fn every_function_and_parameter_stands_in_the_reference_and_no_other() {
    compare(
        "function",
        "webhook_",
        "SELECT p.proname::text,
                ARRAY(SELECT p.proargnames[n] FROM generate_series(1, p.pronargs) AS n)
           FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
           JOIN pg_extension e ON e.oid = d.refobjid
          WHERE e.extname = 'webhook_pg' AND p.pronamespace = e.extnamespace ORDER BY 1",
    );
}

#[test]
fn every_view_and_column_stands_in_the_reference_and_no_other() {
    compare(
        "view",
        "webhook.",
        "SELECT 'webhook.' || c.relname, array_agg(a.attname::text ORDER BY a.attnum)
           FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
          WHERE c.relnamespace = 'webhook'::regnamespace AND c.relkind = 'v' GROUP BY 1 ORDER BY 1",
    );
}

#[test]
fn every_setting_stands_in_the_reference_with_its_default_and_who_may_set_it() {
    // A setting that this cluster has changed shows in its default no more.
    let query = "SELECT name, CASE WHEN source = 'default' THEN current_setting(name) END, context
                   FROM pg_settings WHERE name LIKE 'webhook\\_pg.%' ORDER BY name";
    let page = page();
    let settings = section(&page, "## Settings").expect("a section");
    let mut known = first_cells(&settings);
    let mut wrong = Vec::new();
    let rows = Cluster::shared().connect().query(query, &[]).unwrap();
    assert!(rows.len() > 20, "too few to show anything");
    for row in rows {
        let (name, default, context): (String, Option<String>, String) = (row.get(0), row.get(1), row.get(2));
        known.remove(&name);
        let who = match context.as_str() {
            "user" => "anybody",
            "superuser" => "superuser",
            _ => "server",
        };
        let line = settings.iter().find(|line| line.starts_with(&format!("| `{name}` |")));
        let cells: Vec<&str> = line.map(|line| line.split('|').map(str::trim).collect()).unwrap_or_default();
        let (said, by) = (cells.get(2).copied(), cells.get(4).copied().unwrap_or_default());
        if said.is_none() || default.is_some_and(|d| Some(d.as_str()) != said) || !by.starts_with(who) {
            wrong.push(format!("{name}, {context}: {cells:?}"));
        }
    }
    wrong.extend(known.into_iter().filter(|name| name.starts_with("webhook_pg.")).map(|n| format!("no {n}")));
    assert!(wrong.is_empty(), "docs/reference.md:\n{}", wrong.join("\n"));
}

#[test]
fn every_check_of_the_status_stands_in_the_reference() {
    let page = page();
    let described = first_cells(&section(&page, "### webhook_status").expect("a section"));
    let mut client = Cluster::shared().connect();
    let rows = client.query("SELECT check_name FROM webhook_status()", &[]).unwrap();
    let checks: BTreeSet<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(described, checks, "docs/reference.md, webhook_status");
}
