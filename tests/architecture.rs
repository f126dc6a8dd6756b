//! The walls between the rooms, read from the source tree (docs/architecture.md says why they stand where they stand).
//!
//! What the compiler or clippy holds is not repeated here: `unwrap`, `expect` and `panic!` are lints of `Cargo.toml`, as is a
//! SAFETY comment on every `unsafe` block.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "clippy takes helpers of a test file for production code"
)]

use std::fs;
use std::path::{Path, PathBuf};

/// A file may grow to this many lines; then it has two subjects.
const MAX_LINES: usize = 450;

/// Opens of SQL statements. An upper-case keyword alone is an HTTP method or a word of a body format.
const SQL: [&str; 6] = ["SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "WITH"];
const SQL_IN_LOWER_CASE: [&str; 3] = ["select ", "insert into ", "delete from "];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All files below a directory, in the order of their paths. None when it does not exist.
fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().map(Result::unwrap) {
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() {
            files.extend(files_below(&path));
        } else {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// A Rust file of `src/`, seen three ways, each with as many lines as the file.
struct Source {
    /// From the root of the repository, with slashes.
    path: String,
    text: String,
    /// Without comments, texts and test modules.
    code: String,
    /// Nothing but the contents of string literals, each between quotes.
    texts: String,
}

impl Source {
    fn read(path: &Path) -> Self {
        let name = path.strip_prefix(root()).unwrap().to_str().unwrap().replace('\\', "/");
        Self::new(name, fs::read_to_string(path).unwrap())
    }

    fn new(path: String, text: String) -> Self {
        let (code, texts) = split(&text);
        let (mut code, mut texts) = (code.into_bytes(), texts.into_bytes());
        while let Some(range) = test_module(&code) {
            for byte in code[range.clone()].iter_mut().chain(&mut texts[range]).filter(|byte| **byte != b'\n')
            {
                *byte = b' ';
            }
        }
        let [code, texts] = [code, texts].map(|bytes| String::from_utf8(bytes).unwrap());
        Self { path, text, code, texts }
    }

    fn is_in(&self, rooms: &[&str]) -> bool {
        rooms.iter().any(|room| self.path == *room || (room.ends_with('/') && self.path.starts_with(room)))
    }

    /// Directly in `src/`, the front door aside.
    fn is_pure(&self) -> bool {
        self.path.matches('/').count() == 1 && self.path != "src/lib.rs"
    }
}

fn sources() -> Vec<Source> {
    let files = files_below(&root().join("src"));
    let is_test = |path: &&PathBuf| path.iter().any(|part| part == "tests" || part == "tests.rs");
    let below_src = |path: &&PathBuf| !is_test(path) && path.extension().is_some_and(|e| e == "rs");
    let rust = files.iter().filter(below_src);
    let sources: Vec<_> = rust.map(|path| Source::read(path)).collect();
    assert!(sources.len() > 10, "src/ was not found");
    sources
}

/// The code and the string literals of a Rust file. Everything else becomes spaces, byte by byte, so places stay the same.
fn split(text: &str) -> (String, String) {
    let bytes = text.as_bytes();
    let blank = || text.bytes().map(|b| if b == b'\n' { b'\n' } else { b' ' }).collect::<Vec<u8>>();
    let (mut code, mut texts, mut at) = (blank(), blank(), 0);
    while at < bytes.len() {
        let rest = &text[at..];
        let word_before = at > 0 && is_word(bytes[at - 1]);
        // Raw strings: r"…", r#"…"#, with b or c before.
        let raw =
            rest.trim_start_matches(['b', 'c']).strip_prefix('r').filter(|_| !word_before).and_then(|r| {
                let hashes = r.len() - r.trim_start_matches('#').len();
                r[hashes..]
                    .starts_with('"')
                    .then(|| (rest.len() - r.len() + hashes + 1, format!("\"{}", "#".repeat(hashes))))
            });
        let end = if rest.starts_with("//") {
            at + rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            at + block_comment(rest)
        } else if let Some((open, close)) = raw {
            let len = rest[open..].find(&close).unwrap_or(rest.len() - open);
            texts[at + open - 1] = b'"';
            texts[at + open..at + open + len].copy_from_slice(&bytes[at + open..at + open + len]);
            close_quote(&mut texts, at + open + len);
            (at + open + len + close.len()).min(bytes.len())
        } else if let Some(inner) = rest.strip_prefix('"') {
            let len = quoted(inner, '"');
            texts[at] = b'"';
            texts[at + 1..at + 1 + len].copy_from_slice(&bytes[at + 1..at + 1 + len]);
            close_quote(&mut texts, at + 1 + len);
            (at + len + 2).min(bytes.len())
        } else if rest.starts_with('\'') && is_char_literal(rest) {
            (at + quoted(&rest[1..], '\'') + 2).min(bytes.len())
        } else {
            let len = rest.chars().next().unwrap().len_utf8();
            code[at..at + len].copy_from_slice(&bytes[at..at + len]);
            at + len
        };
        at = end;
    }
    let text_of = |bytes| String::from_utf8(bytes).unwrap();
    (text_of(code), text_of(texts))
}

fn close_quote(texts: &mut [u8], at: usize) {
    if let Some(place) = texts.get_mut(at) {
        *place = b'"';
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// `'x'` or `'\n'`, and not the lifetime `'x`.
fn is_char_literal(rest: &str) -> bool {
    let mut chars = rest.chars().skip(1);
    chars.next() == Some('\\') || chars.next() == Some('\'')
}

/// Bytes up to the closing quote.
fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    let end = rest.find(|c| {
        let closes = c == quote && !escaped;
        escaped = c == '\\' && !escaped;
        closes
    });
    end.unwrap_or(rest.len())
}

/// Bytes of a comment; they nest.
fn block_comment(rest: &str) -> usize {
    let mut depth = 0;
    for (at, pair) in rest.as_bytes().windows(2).enumerate() {
        match pair {
            b"/*" => depth += 1,
            b"*/" if depth == 1 => return at + 2,
            b"*/" => depth -= 1,
            _ => {}
        }
    }
    rest.len()
}

/// The first `#[cfg(test)]` item with a body, in code that `split` made.
fn test_module(code: &[u8]) -> Option<std::ops::Range<usize>> {
    let mark = b"#[cfg(test)]";
    let start = code.windows(mark.len()).position(|window| window == mark)?;
    let (mut depth, mut end) = (0, code.len());
    for (at, byte) in code.iter().enumerate().skip(start) {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            b';' => {}
            _ => continue,
        }
        if depth == 0 {
            end = at + 1;
            break;
        }
    }
    Some(start..end)
}

/// Whether the line has this name as a whole: what stands before and behind does not go on with it.
fn names(line: &str, name: &str) -> bool {
    let goes_on = |here: Option<u8>, edge: Option<u8>| here.is_some_and(is_word) && edge.is_some_and(is_word);
    line.match_indices(name).any(|(at, _)| {
        let before = goes_on(line[..at].bytes().next_back(), name.bytes().next());
        let behind = goes_on(line[at + name.len()..].bytes().next(), name.bytes().next_back());
        !before && !behind
    })
}

/// `file:line: what stands there` for each line that breaks a wall.
fn breaches(path: &str, seen: &str, text: &str, broken: impl Fn(&str) -> bool) -> Vec<String> {
    let lines = seen.lines().zip(text.lines()).enumerate();
    lines
        .filter(|(_, (seen, _))| broken(seen))
        .map(|(n, (_, l))| format!("{path}:{}: {}", n + 1, l.trim()))
        .collect()
}

fn assert_none(wall: &str, breaches: Vec<String>) {
    assert!(breaches.is_empty(), "{wall}:\n  {}", breaches.join("\n  "));
}

/// No code outside the rooms has one of the names.
fn assert_named_only_in(rooms: &[&str], forbidden: &[&str], wall: &str) {
    let sources = sources();
    let outside = sources.iter().filter(|source| !source.is_in(rooms));
    let broken = |line: &str| forbidden.iter().any(|name| names(line, name));
    assert_none(wall, outside.flat_map(|s| breaches(&s.path, &s.code, &s.text, broken)).collect());
}

/// Whether a text on this line, or the line of a longer text, begins like a statement.
fn has_sql(line: &str) -> bool {
    line.split('"').any(is_sql)
}

fn is_sql(line: &str) -> bool {
    let line = line.trim_start();
    let upper = SQL.iter().any(|keyword| {
        line.strip_prefix(keyword)
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_whitespace() || c == '\\'))
    });
    upper || SQL_IN_LOWER_CASE.iter().any(|start| line.starts_with(start))
}

#[test]
fn pgrx_is_named_only_in_lib_and_pg() {
    assert_named_only_in(
        &["src/lib.rs", "src/pg/"],
        &["pgrx", "pg_sys"],
        "pgrx belongs to src/lib.rs and src/pg/",
    );
}

#[test]
fn no_room_reaches_into_pg() {
    assert_named_only_in(
        &["src/lib.rs", "src/pg/"],
        &["crate::pg", "super::pg"],
        "only src/pg/ may use crate::pg",
    );
}

#[test]
fn ureq_is_named_only_in_http() {
    assert_named_only_in(&["src/http/"], &["ureq"], "ureq belongs to src/http/");
}

#[test]
fn threads_exist_only_in_http() {
    assert_named_only_in(
        &["src/http/"],
        &["thread::spawn", "thread::scope", "thread::Builder"],
        "threads belong to src/http/",
    );
}

#[test]
fn unsafe_code_stands_only_in_pg() {
    assert_named_only_in(&["src/pg/"], &["unsafe"], "unsafe belongs to src/pg/");
}

#[test]
fn pure_files_read_no_clock_and_draw_no_randomness() {
    let forbidden = ["::now(", "now_v7(", "new_v4(", "new_v7(", ".elapsed(", "getrandom", "rand::"];
    let broken = |line: &str| forbidden.iter().any(|name| names(line, name));
    let sources = sources();
    let pure = sources.iter().filter(|source| source.is_pure());
    let found = pure.flat_map(|s| breaches(&s.path, &s.code, &s.text, broken)).collect();
    assert_none("clock and chance are arguments of the files directly in src/", found);
}

#[test]
fn sql_text_stands_only_under_sql() {
    let found = sources().iter().flat_map(|s| breaches(&s.path, &s.texts, &s.text, has_sql)).collect();
    assert_none("SQL text belongs to sql/", found);
}

/// PostgreSQL reads the script of CREATE EXTENSION in the encoding of the database, whatever that is.
#[test]
fn sql_files_are_ascii() {
    let files = files_below(&root().join("sql")).into_iter().chain([root().join("webhook_pg.control")]);
    let others = files.filter(|path| !fs::read(path).unwrap().is_ascii());
    assert_none("SQL is ASCII", others.map(|path| path.display().to_string()).collect());
}

#[test]
fn every_statement_is_included_exactly_once_and_by_pg() {
    let sources = sources();
    let mut found = Vec::new();
    for path in files_below(&root().join("sql/statements")) {
        let name = path.file_stem().unwrap().to_str().unwrap();
        let included = format!("statements/{name}.sql\"");
        let by_macro = format!("statement!(\"{name}\")");
        let is_use = |line: &str| line.contains(&included) || line.contains(&by_macro);
        let uses: Vec<_> = sources.iter().flat_map(|s| breaches(&s.path, &s.text, &s.text, is_use)).collect();
        if uses.len() != 1 || !uses[0].starts_with("src/pg/") {
            found.push(format!(
                "sql/statements/{name}.sql:1: included {} times {}",
                uses.len(),
                uses.join(", ")
            ));
        }
    }
    assert_none("one statement, one file, one function in src/pg/", found);
}

#[test]
fn no_file_outgrows_its_subject() {
    let long = |s: &Source| {
        (s.text.lines().count() > MAX_LINES).then(|| format!("{}:{}", s.path, s.text.lines().count()))
    };
    assert_none(
        &format!("a file has at most {MAX_LINES} lines"),
        sources().iter().filter_map(long).collect(),
    );
}

#[test]
fn no_file_knows_the_machine_it_was_written_on() {
    // In two pieces, or this file would be the first breach.
    let mut forbidden = ["ho|me", "ro|ot", "Us|ers", "t|mp", "var/t|mp"]
        .map(|p| format!("/{}/", p.replace('|', "")))
        .to_vec();
    forbidden.push(root().to_str().unwrap().to_owned());
    let broken = |line: &str| {
        forbidden.iter().any(|path| {
            // After a letter or a dot it is the middle of a URL or of a relative path.
            let is_start = |at: usize| {
                at == 0
                    || !matches!(line.as_bytes()[at - 1], b'.' | b'}' | b')' | b'-')
                        && !is_word(line.as_bytes()[at - 1])
            };
            line.match_indices(path.as_str()).any(|(at, _)| is_start(at))
        })
    };
    let ignored = fs::read_to_string(root().join(".gitignore")).unwrap();
    let ignored: Vec<_> = ignored.lines().map(|line| line.trim_matches('/')).chain([".git"]).collect();
    let tracked = fs::read_dir(root())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| !ignored.contains(&path.file_name().unwrap().to_str().unwrap()));
    let files = tracked.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] });
    let found = files.flat_map(|path| {
        let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&path).unwrap_or_default(); // not a text, then nothing to read
        breaches(&name, &text, &text, broken)
    });
    assert_none("a path of one machine", found.collect());
}

#[test]
fn the_walls_look_at_code_and_not_at_comments_texts_or_tests() {
    let text = r##"//! pgrx in docs
/* ureq /* nested */ pgrx */ use a::b; // unsafe
const A: &str = "pgrx \" ureq"; const B: char = '"'; fn c<'x>() { r#"SELECT "1" "#; }
const D: &str = "text
    SELECT 1"; use pgrx::x;
#[cfg(test)]
mod tests { fn a() { ureq() } }
use last;
"##;
    let source = Source::new("src/x.rs".to_owned(), text.to_owned());
    let found = |seen: &str, name: &str| breaches("f", seen, seen, |line| names(line, name)).len();
    assert_eq!(
        (found(&source.code, "pgrx"), found(&source.code, "ureq"), found(&source.code, "unsafe")),
        (1, 0, 0)
    );
    assert_eq!(breaches("f", &source.code, text, |l| names(l, "pgrx")), ["f:5: SELECT 1\"; use pgrx::x;"]);
    assert_eq!((found(&source.code, "last"), found(&source.code, "a::b")), (1, 1));
    assert_eq!((found(&source.texts, "pgrx"), breaches("f", &source.texts, text, has_sql).len()), (1, 2));
}

#[test]
fn sql_is_told_from_http_methods_and_prose() {
    for sql in [
        "SELECT 1",
        "  DELETE FROM x",
        "WITH a AS (",
        "CREATE\tTABLE x",
        "select 1",
        "insert into x",
        "INSERT\\",
    ] {
        assert!(is_sql(sql), "{sql:?}");
    }
    for other in [
        "DELETE",
        "CREATE",
        "UPDATED",
        "with a wait",
        "update failed",
        "Use SELECT",
        "created",
        "",
        "DELETE,",
    ] {
        assert!(!is_sql(other), "{other:?}");
    }
}
