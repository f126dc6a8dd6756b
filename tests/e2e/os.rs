//! Processes, and the user that PostgreSQL runs as.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use crate::wait::{holds, wait_until};

/// A process that ends the server and removes the directory as soon as its input ends: also when the test binary is
/// killed, and for the shared cluster, whose destructor never runs.
pub fn guard(bin: &Path, home: &Path) -> Child {
    let script =
        r#"cat >/dev/null; "$1/pg_ctl" stop -D "$2/data" -m immediate -s >/dev/null 2>&1; rm -rf "$2""#;
    let mut command = as_owner("sh");
    command.args(["-c", script, "sh"]).arg(bin).arg(home).current_dir("/");
    // A process group of its own: an interrupt at the terminal must not end it before its work is done.
    command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("start the guardian of a cluster")
}

/// A command run as a user that PostgreSQL accepts: it refuses root, and then user `postgres` is taken. The process
/// itself is the child, so that whoever starts it can reap it; in many containers nobody else does.
pub fn as_owner(program: impl AsRef<OsStr>) -> Command {
    static OWNER: OnceLock<Option<(u32, u32)>> = OnceLock::new();
    let owner = OWNER.get_or_init(|| {
        let is_root = fs::metadata("/proc/self").is_ok_and(|m| m.uid() == 0);
        is_root.then(|| (id_of_postgres("-u"), id_of_postgres("-g")))
    });
    let mut command = Command::new(program);
    if let Some((user, group)) = owner {
        command.uid(*user).gid(*group);
    }
    forget_libpq_settings(&mut command);
    command.env("LC_ALL", "C").stdin(Stdio::null());
    command
}

fn id_of_postgres(which: &str) -> u32 {
    let output = run(Command::new("id").args([which, "postgres"]));
    String::from_utf8_lossy(&output.stdout).trim().parse().expect("the id of user postgres")
}

/// The caller's PGHOST and the like must not lead a test elsewhere.
pub fn forget_libpq_settings(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PG") {
            command.env_remove(name);
        }
    }
}

/// Runs to the end; fails the test with everything it said.
#[track_caller]
pub fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(
        output.status.success(),
        "{command:?} failed:\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// Sends a signal to a process.
#[track_caller]
pub fn kill(signal: &str, pid: u32) {
    run(Command::new("kill").arg(format!("-{signal}")).arg(pid.to_string()));
}

/// Waits until none of these processes runs any more. One that nobody has reaped yet is gone too.
#[track_caller]
pub fn wait_until_gone(pids: &[u32], deadline: Duration) {
    wait_until("all processes are gone", deadline, || {
        let left: Vec<u32> = pids.iter().copied().filter(|pid| is_running(*pid)).collect();
        holds(left.is_empty(), || format!("still running: {left:?}"))
    });
}

/// Whether a process runs; one that nobody has reaped yet does not. The main thread of a process that exits can be dead
/// while its other threads, and with them its memory, are still on their way out.
pub fn is_running(pid: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    state_and_parent(pid).is_some_and(|(state, _)| threads > 1 || !matches!(state, 'Z' | 'X'))
}

/// Processes whose parent is this one.
pub fn children(parent: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").expect("/proc");
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| state_and_parent(*pid).is_some_and(|(_, p)| p == parent)).collect()
}

fn state_and_parent(pid: u32) -> Option<(char, u32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command stands in parentheses and may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}
