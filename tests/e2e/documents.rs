//! README.md and `docs/*.md` as tests: everything marked as SQL runs in pg_regress, word for word and in order, so that
//! documentation is true. [`script`] makes the file of `tests/pg_regress/sql` out of a document; nothing is written by hand.
//!
//! | in the document | what happens |
//! |---|---|
//! | a block ```` ```sql ```` | runs; what it answers is compared; an error fails the test |
//! | ```` ```sql varies ```` | runs; what it answers (secrets, ids, times) goes nowhere; an error fails the test |
//! | ```` ```sql fails ```` | runs, and must raise an error |
//! | ```` ```text output ```` | must stand in the answers so far, line for line |
//! | a comment `<!-- sql` … `-->` | runs; readers do not see it: what an example needs, and what checks it |
//!
//! A placeholder is a variable of psql, `:endpoint`, which such a comment sets.

use std::fs;
use std::path::{Path, PathBuf};

/// How a script made here begins.
const MADE_FROM: &str = "-- Made from ";
/// Where an error is expected.
const FAILS: &str = "-- An error on purpose:";
/// Where it no longer is.
const PASSES: &str = "-- That was it.";

/// What stands in a document.
#[derive(Debug, PartialEq, Eq)]
enum Piece {
    /// SQL that runs.
    Sql,
    /// SQL whose answers differ from run to run.
    Varies,
    /// SQL that raises an error.
    Fails,
    /// SQL that readers do not see.
    Hidden,
    /// What is said to be answered.
    Output,
}

/// A document and the name of its test.
pub struct Document {
    /// From the root of the repository.
    pub path: String,
    /// Of the files in `tests/pg_regress`.
    pub test: String,
    text: String,
}

/// README.md and every file of docs/ that has something to run.
pub fn documents() -> Vec<Document> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths: Vec<PathBuf> =
        fs::read_dir(root.join("docs")).expect("docs").filter_map(|file| Some(file.ok()?.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|e| e == "md"));
    paths.push(root.join("README.md"));
    paths.sort();
    let read = |path: PathBuf| {
        let test = path.file_stem().and_then(|stem| stem.to_str()).expect("a UTF-8 name").to_lowercase();
        let shown = path.strip_prefix(root).expect("below the root").display().to_string();
        Document { path: shown, test, text: fs::read_to_string(&path).expect("a document") }
    };
    paths
        .into_iter()
        .map(read)
        .filter(|d| pieces(&d.text).iter().any(|(kind, _)| *kind != Piece::Output))
        .collect()
}

impl Document {
    /// The file for pg_regress.
    pub fn script(&self) -> String {
        let mut script = format!(
            "{MADE_FROM}{} by UPDATE_EXPECTED=1: see tests/e2e/documents.rs.\n\
             SET client_min_messages = error;\n\
             DROP EXTENSION IF EXISTS webhook_pg CASCADE;\n\
             DROP SCHEMA public CASCADE;\n\
             CREATE SCHEMA public;\n\
             GRANT USAGE ON SCHEMA public TO PUBLIC;\n",
            self.path
        );
        // The document may do it before the reader's eyes.
        if !self.text.contains("\nCREATE EXTENSION webhook_pg;") {
            script += "CREATE EXTENSION webhook_pg;\n";
        }
        script += "RESET client_min_messages;\n";
        for (kind, body) in pieces(&self.text) {
            let (before, after) = match kind {
                Piece::Output => continue,
                Piece::Sql | Piece::Hidden => ("".to_owned(), ""),
                Piece::Varies => ("\\o /dev/null\n".to_owned(), "\\o\n"),
                Piece::Fails => (format!("{FAILS}\n"), "-- That was it.\n"),
            };
            script += &format!("\n{before}{body}\n{after}");
        }
        script
    }

    /// What is wrong with the answers, beside what differs from the expected file.
    pub fn complaints(&self, results: &str) -> Vec<String> {
        let mut complaints = Vec::new();
        let mut on_purpose = None;
        for line in results.lines() {
            match (line, on_purpose) {
                (FAILS, _) => on_purpose = Some(false),
                (PASSES, Some(false)) => complaints.push(format!("{}: nothing fails on purpose", self.path)),
                (PASSES, _) => on_purpose = None,
                (line, Some(_)) if is_error(line) => on_purpose = Some(true),
                (line, None) if is_error(line) => complaints.push(format!("{}: {line}", self.path)),
                _ => {}
            }
        }
        let answered = trimmed(results);
        let mut rest = answered.as_str();
        for (_, body) in pieces(&self.text).into_iter().filter(|(kind, _)| *kind == Piece::Output) {
            match rest.find(&trimmed(&body)) {
                Some(at) => rest = &rest[at..],
                None => complaints.push(format!("{}: this is not answered, or not here:\n{body}", self.path)),
            }
        }
        complaints
    }
}

/// Scripts were made from documents, which may be gone.
pub fn was_made(script: &str) -> bool {
    script.starts_with(MADE_FROM)
}

/// The contents of the blocks of SQL that readers see.
pub fn sql_blocks(markdown: &str) -> Vec<String> {
    let seen = |kind: &Piece| matches!(kind, Piece::Sql | Piece::Varies);
    pieces(markdown).into_iter().filter(|(kind, _)| seen(kind)).map(|(_, body)| body).collect()
}

fn pieces(markdown: &str) -> Vec<(Piece, String)> {
    let mut pieces = Vec::new();
    let mut lines = markdown.lines();
    while let Some(line) = lines.next() {
        let opening = line.trim();
        let (kind, end) = match opening {
            "```sql" => (Piece::Sql, "```"),
            "```sql varies" => (Piece::Varies, "```"),
            "```sql fails" => (Piece::Fails, "```"),
            "```text output" => (Piece::Output, "```"),
            "<!-- sql" => (Piece::Hidden, "-->"),
            other => {
                assert!(!other.starts_with("```sql"), "a block of SQL with an unknown mark: {other}");
                continue;
            }
        };
        let body: Vec<&str> = lines.by_ref().take_while(|line| line.trim() != end).collect();
        pieces.push((kind, body.join("\n")));
    }
    pieces
}

fn is_error(line: &str) -> bool {
    ["ERROR:", "FATAL:", "invalid command", "psql:"].iter().any(|word| line.starts_with(word))
}

/// Without the spaces at the ends of lines that psql writes and editors remove.
fn trimmed(text: &str) -> String {
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_document_becomes_a_script_with_its_marks() {
    let text = "```sql\nSELECT 1;\n```\n<!-- sql\nSELECT 2;\n-->\n```sql fails\nSELECT 1/0;\n```\n```json\n{}\n```\n";
    let document = Document { path: "x.md".into(), test: "x".into(), text: text.into() };
    let script = document.script();
    assert!(
        script
            .ends_with("\nSELECT 1;\n\nSELECT 2;\n\n-- An error on purpose:\nSELECT 1/0;\n-- That was it.\n")
    );
    assert!(was_made(&script));
    assert_eq!(sql_blocks(text), ["SELECT 1;"]);
}

#[test]
fn an_error_that_no_document_announces_is_a_complaint() {
    let document = |text: &str| Document { path: "x.md".into(), test: "x".into(), text: text.into() };
    let silent = document("");
    assert_eq!(silent.complaints("ERROR:  oh\n"), ["x.md: ERROR:  oh"]);
    assert!(silent.complaints(&format!("{FAILS}\nERROR:  oh\n{PASSES}\n")).is_empty());
    assert_eq!(silent.complaints(&format!("{FAILS}\n{PASSES}\n")), ["x.md: nothing fails on purpose"]);
    let shown = document("```text output\n n \n---\n```\n");
    assert!(shown.complaints(" n\n---\n 1\n").is_empty());
    assert_eq!(shown.complaints(" m\n---\n").len(), 1);
}

/// The anchors of a document, as GitHub makes them of its headings.
fn anchors(markdown: &str) -> Vec<String> {
    let headings = prose(markdown).into_iter().filter(|line| line.starts_with('#'));
    let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    let anchor =
        |line: &str| line.trim_start_matches('#').trim().to_lowercase().chars().filter(kept).collect();
    headings
        .map(|line| {
            let text: String = anchor(line);
            text.replace(' ', "-")
        })
        .collect()
}

/// The lines outside of code.
fn prose(markdown: &str) -> Vec<&str> {
    let mut is_code = false;
    let mut lines = Vec::new();
    for line in markdown.lines() {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        if !is_code && !is_fence {
            lines.push(line);
        }
    }
    lines
}

#[test]
fn links_from_one_document_to_another_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths: Vec<PathBuf> =
        ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(|name| root.join(name)).into();
    for folder in ["docs", "examples/receivers"] {
        let files = fs::read_dir(root.join(folder)).expect(folder);
        paths.extend(
            files
                .filter_map(|file| Some(file.ok()?.path()))
                .filter(|path| path.extension().is_some_and(|e| e == "md")),
        );
    }
    let mut broken = Vec::new();
    for path in &paths {
        let text = fs::read_to_string(path).expect("a document");
        let lines = prose(&text);
        let links = lines
            .iter()
            .flat_map(|line| line.split("](").skip(1))
            .filter_map(|rest| Some(rest.split_once(')')?.0));
        for link in links.filter(|link| !link.starts_with("http")) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target =
                if file.is_empty() { path.clone() } else { path.parent().expect("a folder").join(file) };
            let Ok(target) = target.canonicalize() else {
                broken.push(format!("{}: {link}", path.display()));
                continue;
            };
            let has_anchor =
                || fs::read_to_string(&target).is_ok_and(|text| anchors(&text).iter().any(|a| a == anchor));
            if !anchor.is_empty() && target.extension().is_some_and(|e| e == "md") && !has_anchor() {
                broken.push(format!("{}: {link}", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "these links lead nowhere:\n{}", broken.join("\n"));
}
