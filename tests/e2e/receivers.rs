//! The receivers of `examples/receivers`, each run with real deliveries: what a reader copies must verify what we send.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::cluster::Cluster;
use crate::os::run;
use crate::receiver::Receiver;
use crate::scene::{create_table, register};
use crate::wait::{holds, secs, wait_until};
use crate::wire::{Reply, Request};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

#[test]
fn the_receiver_in_python_accepts_deliveries_and_nothing_else() {
    verifies("python", |port| command("python3", &["receiver.py", port]));
}

#[test]
fn the_receiver_in_javascript_accepts_deliveries_and_nothing_else() {
    verifies("javascript", |port| command("node", &["receiver.mjs", port]));
}

#[test]
fn the_receiver_in_go_accepts_deliveries_and_nothing_else() {
    let program = temporary("receiver-go");
    let mut build = command("go", &["build", "-o"]);
    run(build.arg(&program).arg("receiver.go").env("GOCACHE", temporary("go-build")));
    verifies("go", |port| command(program.to_str().expect("a UTF-8 path"), &[port]));
}

#[test]
fn the_receiver_in_ruby_accepts_deliveries_and_nothing_else() {
    verifies("ruby", |port| command("ruby", &["receiver.rb", port]));
}

#[test]
fn the_receiver_in_php_accepts_deliveries_and_nothing_else() {
    let seen = temporary("receiver-php-seen");
    let _ = std::fs::remove_dir_all(&seen);
    verifies("php", |port| {
        let mut php = command("php", &["-S", &format!("127.0.0.1:{port}"), "receiver.php"]);
        php.env("SEEN", &seen);
        php
    });
}

/// A program, run where the receivers are. `scripts/setup --tests` installs those that are missing.
fn command(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/receivers"));
    command
}

fn temporary(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// Delivers an event to the receiver and, for comparison, to ours; then sends what ours got to the receiver, as it was and
/// changed.
fn verifies(language: &str, start: impl Fn(&str) -> Command) {
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let _program = Program::start(start(&port.to_string()), port);
    let ours = Receiver::start(|_, _| Reply::ok());
    let cluster = Cluster::shared();
    let mut client = cluster.connect();
    let name = format!("receiver_in_{language}");
    create_table(&mut client, &name);
    let (pattern, secret) = (format!("{name}.*"), format!(", secret => '{SECRET}'"));
    let url = format!("http://127.0.0.1:{port}/hooks");
    let (theirs, _) = register(&mut client, &name, &url, &pattern, &secret);
    let (copy, _) = register(&mut client, &format!("{name}_copy"), &ours.url(), &pattern, &secret);
    client.batch_execute(&format!("INSERT INTO public.{name} VALUES (1, 'Zoë, \"1\"')")).unwrap();
    ours.wait_for_rows([1], secs(20));
    wait_until(&format!("the receiver in {language} has the event"), secs(20), || {
        let query = "SELECT state, last_status, last_error FROM webhook.deliveries WHERE endpoint_id = $1";
        let row = client.query_opt(query, &[&theirs]).map_err(|e| e.to_string())?.ok_or("no delivery")?;
        let (state, status, error): (String, Option<i32>, Option<String>) =
            (row.get(0), row.get(1), row.get(2));
        holds(state == "delivered", || format!("{state} {status:?} {error:?}"))
    });

    let request = ours.requests().remove(0);
    assert_eq!(send(port, &request), (200, "duplicate".to_owned()), "what came before");
    for at in [0, request.body.len() / 2, request.body.len() - 1] {
        let mut changed = request.clone();
        changed.body[at] ^= 1;
        assert_eq!(send(port, &changed).0, 401, "byte {at} is changed");
    }
    let changes: [(&str, &str); 6] = [
        ("webhook-id", "019a6f6e-3c1a-7d0e-9a55-0d6f2f6f5c11"),
        ("webhook-timestamp", "1"),
        ("webhook-timestamp", "soon"),
        ("webhook-signature", ""),
        ("webhook-signature", "v1,"),
        ("webhook-signature", "v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4="),
    ];
    for (header, value) in changes {
        assert_eq!(send(port, &with(&request, header, value)).0, 401, "{header} is {value:?}");
    }
    let both =
        format!("v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4= {}", request.header("webhook-signature"));
    assert_eq!(
        send(port, &with(&request, "webhook-signature", &both)).0,
        200,
        "one of two signatures is right"
    );

    for (id, sign) in [("a-new-one", true), ("an-old-one", false)] {
        let seconds = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let at = i64::try_from(seconds).unwrap() - if sign { 0 } else { 3600 };
        let signer = standardwebhooks::Webhook::new(SECRET).unwrap();
        let signature = signer.sign(id, at, &request.body).unwrap();
        let mut request = with(&request, "webhook-id", id);
        request = with(&request, "webhook-timestamp", &at.to_string());
        request = with(&request, "webhook-signature", &signature);
        let expected = if sign { (200, "accepted") } else { (401, "refused") };
        let (status, text) = send(port, &request);
        assert_eq!((status, text.trim()), expected, "signed at {at}");
    }
    for endpoint in [theirs, copy] {
        client.execute("SELECT webhook_unregister($1)", &[&endpoint]).unwrap();
    }
    client.batch_execute(&format!("DROP TABLE public.{name}")).unwrap();
    cluster.assert_calm();
}

fn with(request: &Request, header: &str, value: &str) -> Request {
    let mut request = request.clone();
    for (name, old) in &mut request.headers {
        if name == header {
            value.clone_into(old);
        }
    }
    request
}

/// Sends a request once more; answers status and body.
fn send(port: u16, request: &Request) -> (u16, String) {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    stream.set_read_timeout(Some(secs(20))).unwrap();
    let mut head = format!("{} /hooks HTTP/1.1\r\nconnection: close\r\n", request.method);
    for (name, value) in request.headers.iter().filter(|(name, _)| name != "connection") {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).unwrap();
    stream.write_all(&request.body).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, mut body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
    // In chunks: the length, the text, the end.
    if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        body = body.lines().nth(1).unwrap_or_default();
    }
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
    (status.unwrap_or_else(|| panic!("no status: {head:?}")), body.to_owned())
}

/// A program that ends when this is dropped, and also when the tests are killed: its guardian's input ends then.
struct Program(Child);

impl Program {
    fn start(command: Command, port: u16) -> Self {
        let guardian = r#""$@" & child=$!; cat >/dev/null; kill $child; wait $child"#;
        let mut shell = Command::new("sh");
        shell.args(["-c", guardian, "sh"]).arg(command.get_program()).args(command.get_args());
        shell.current_dir(command.get_current_dir().expect("where it runs"));
        shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        shell.env("WEBHOOK_SECRET", SECRET).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let look = Command::new("sh").args(["-c", "command -v \"$0\""]).arg(command.get_program()).output();
        assert!(
            look.is_ok_and(|look| look.status.success()),
            "{:?} is not installed: run scripts/setup --tests",
            command.get_program()
        );
        let program = Self(shell.spawn().expect("a shell"));
        wait_until("the receiver listens", secs(60), || {
            TcpStream::connect((Ipv4Addr::LOCALHOST, port)).map(drop).map_err(|e| e.to_string())
        });
        program
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}
