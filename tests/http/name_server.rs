//! A name server, and a world in which the system's resolver asks it.
//!
//! The resolver cannot be pointed anywhere but by /etc/resolv.conf, and no port but 53. So a test starts itself again in
//! namespaces of its own, where that file is another one and 127.0.0.1:53 is free. There is no other network there, and
//! this machine has the addresses [`PUBLIC`], [`PUBLIC_V6`], [`PRIVATE`], [`METADATA`] and [`NAT64`]: a connection that should not be made would
//! succeed.

use std::any::type_name;
use std::collections::HashMap;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::{env, fs, io, thread};

pub(crate) const PUBLIC: IpAddr = IpAddr::V4(Ipv4Addr::new(93, 184, 216, 34));
pub(crate) const PUBLIC_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2606, 0x2800, 0x220, 1, 0, 0, 0, 1));
pub(crate) const PRIVATE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 7));
/// Where clouds hand out credentials.
pub(crate) const METADATA: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254));
/// [`PUBLIC`] as DNS64 writes it.
pub(crate) const NAT64: IpAddr = IpAddr::V6(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0x5db8, 0xd822));

/// Set in the process that has namespaces of its own.
const INSIDE: &str = "WEBHOOK_PG_OWN_NETWORK";
/// What may be refused: by the kernel, or because the tools are missing.
const NETWORK: &str = "set -e
    ip link set lo up
    ip address add 93.184.216.34/32 dev lo
    ip address add 10.0.0.7/32 dev lo
    ip address add 169.254.169.254/32 dev lo
    ip address add 2606:2800:220:1::1/128 dev lo
    ip address add 64:ff9b::5db8:d822/128 dev lo
    echo 0 > /proc/sys/net/ipv4/ip_unprivileged_port_start
";
/// What must then succeed. $1: a directory with the files to put in place; then a command. Another service than DNS, as of
/// systemd, would answer from outside, so that is switched off, too.
const ENTER: &str = "
    mount --bind \"$1/resolv.conf\" /etc/resolv.conf
    mount --bind \"$1/nsswitch.conf\" /etc/nsswitch.conf
    shift
    exec \"$@\"";

/// What the name server says.
#[derive(Clone)]
pub(crate) enum Say {
    Addresses(Vec<IpAddr>),
    NoSuchName,
    /// SERVFAIL.
    Broken,
    /// Nothing.
    Silence,
}

/// How often the name server was asked for the IPv4 addresses of each name.
pub(crate) type Asked = Arc<Mutex<HashMap<String, usize>>>;

/// Runs a test in a world where `zone` says what every name is. It gets the name, and how often it was asked for before. Where
/// namespaces are not to be had, nothing is tested, and that is said, whatever the test harness does with output.
pub(crate) fn with_name_server<T: FnOnce(Asked)>(
    zone: impl Fn(&str, usize) -> Say + Send + 'static,
    test: T,
) {
    if env::var_os(INSIDE).is_some() {
        return test(serve(zone));
    }
    // The closure's type is named after the function that it stands in.
    let path = type_name::<T>().trim_end_matches("::{{closure}}");
    let name = path.split_once("::").map(|(_crate, name)| name).unwrap();
    let refusal = match unshare().args(["sh", "-c", NETWORK]).output() {
        Err(error) => error.to_string(),
        Ok(trial) => String::from_utf8_lossy(&trial.stderr).trim().to_owned(),
    };
    if !refusal.is_empty() {
        // Not by eprintln!, whose output a test that passes keeps to itself.
        let note = format!("NOT TESTED, no network of its own here ({refusal}): {name}\n");
        io::stderr().write_all(note.as_bytes()).unwrap();
        return;
    }
    let files = env::temp_dir().join(format!("webhook_pg-names-{}-{name}", std::process::id()));
    fs::create_dir(&files).unwrap();
    fs::write(files.join("resolv.conf"), "nameserver 127.0.0.1\n").unwrap();
    fs::write(files.join("nsswitch.conf"), "hosts: files dns\n").unwrap();
    let inside = unshare()
        .args(["sh", "-c", &[NETWORK, ENTER].concat(), "sh"])
        .arg(&files)
        .args(as_before())
        .arg(env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    fs::remove_dir_all(&files).unwrap();
    let said =
        [inside.stdout, inside.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(inside.status.success() && said.contains("1 passed"), "in a network of its own:\n{said}");
}

/// Root needs no user namespace. Others are nobody in their network without one, in which they seem to be root.
fn unshare() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--net"]).args((user().0 != 0).then_some("--map-root-user"));
    command
}

/// Makes them who they were: PostgreSQL does not run as root.
fn as_before() -> Vec<String> {
    match user() {
        (0, _) => Vec::new(),
        (user, group) => {
            ["unshare".to_owned(), format!("--map-user={user}"), format!("--map-group={group}")].into()
        }
    }
}

fn user() -> (u32, u32) {
    let process = fs::metadata("/proc/self").unwrap();
    (process.uid(), process.gid())
}

/// Answers on 127.0.0.1:53, as long as the process lives.
fn serve(zone: impl Fn(&str, usize) -> Say + Send + 'static) -> Asked {
    let socket = UdpSocket::bind("127.0.0.1:53").unwrap();
    let asked = Asked::default();
    let counts = Arc::clone(&asked);
    thread::spawn(move || {
        let mut query = [0; 512];
        while let Ok((length, client)) = socket.recv_from(&mut query) {
            let (name, kind, end) = question(&query[..length]);
            let before = {
                let mut counts = counts.lock().unwrap();
                let count = counts.entry(name.clone()).or_default();
                *count += usize::from(kind == A);
                *count - usize::from(kind == A)
            };
            if let Some(answer) = answer(&query[..end], kind, &zone(&name, before)) {
                socket.send_to(&answer, client).unwrap();
            }
        }
    });
    asked
}

/// RFC 1035, section 3.2.2, and RFC 3596.
const A: u16 = 1;
const AAAA: u16 = 28;

/// The name, the type and the end of the question, which follows a header of 12 bytes: labels, each after its length, up
/// to an empty one, then type and class (RFC 1035, section 4.1).
fn question(query: &[u8]) -> (String, u16, usize) {
    let (mut labels, mut at) = (Vec::new(), 12);
    while query[at] > 0 {
        let end = at + 1 + usize::from(query[at]);
        labels.push(String::from_utf8(query[at + 1..end].to_vec()).unwrap());
        at = end;
    }
    (labels.join(".").to_ascii_lowercase(), u16::from_be_bytes([query[at + 1], query[at + 2]]), at + 5)
}

/// Header and question come back with the answers behind them. Those name the question's name by a pointer to byte 12.
fn answer(query: &[u8], kind: u16, say: &Say) -> Option<Vec<u8>> {
    let (code, records) = match say {
        Say::Silence => return None,
        Say::Broken => (2, vec![]),
        Say::NoSuchName => (3, vec![]),
        Say::Addresses(all) => {
            let bytes = all.iter().filter_map(|address| match (address, kind) {
                (IpAddr::V4(ip), A) => Some(ip.octets().to_vec()),
                (IpAddr::V6(ip), AAAA) => Some(ip.octets().to_vec()),
                _ => None,
            });
            (0, bytes.collect())
        }
    };
    let mut message = query[..2].to_vec();
    // A response, recursion desired and available, and the code; one question, no further sections but the answers.
    message.extend([0x81, 0x80 | code, 0, 1, 0, u8::try_from(records.len()).unwrap(), 0, 0, 0, 0]);
    message.extend(&query[12..]);
    for bytes in records {
        message.extend([0xc0, 12]);
        message.extend(kind.to_be_bytes());
        // Class IN, and for a minute.
        message.extend([0, 1, 0, 0, 0, 60, 0, u8::try_from(bytes.len()).unwrap()]);
        message.extend(bytes);
    }
    Some(message)
}
