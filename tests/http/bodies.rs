//! Bodies of answers that are longer than anybody wants to read.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver as Queue};
use std::time::Duration;
use std::{env, fs, thread};

use webhook_pg::outcome::Answer;

use crate::receiver::{OK, Receiver};
use crate::sender::{Sender, job, open_egress};

/// 10 GiB.
const BODY: usize = 10 * 1024 * 1024 * 1024;
const PIECE: usize = 16 * 1024;

/// Answers 200 and writes a body of [`BODY`] bytes as long as anybody reads it; says how many bytes could be written. Its own
/// buffers are small, so that these are little more than what was read.
fn endless(chunked: bool) -> (Receiver, Queue<usize>) {
    let (sent, how_many) = mpsc::channel();
    let receiver = Receiver::start(move |talk| {
        socket2::SockRef::from(&talk.stream).set_send_buffer_size(PIECE).unwrap();
        talk.read();
        let head = if chunked { "transfer-encoding: chunked" } else { &format!("content-length: {BODY}") };
        talk.write(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n").as_bytes());
        let piece = "x".repeat(PIECE);
        let piece = if chunked { format!("{PIECE:x}\r\n{piece}\r\n") } else { piece };
        let count = (0..BODY / PIECE).take_while(|_| talk.write(piece.as_bytes())).count();
        sent.send(count * PIECE).ok();
    });
    (receiver, how_many)
}

/// What lies in the buffers of a connection that nobody reads any more: twice what was asked for on this side, and what a
/// socket begins with on the other.
fn socket_buffers() -> usize {
    let sizes = fs::read_to_string("/proc/sys/net/ipv4/tcp_rmem").unwrap();
    2 * PIECE + sizes.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap()
}

#[test]
fn a_body_of_ten_gibibytes_is_read_to_the_cap_and_its_status_counts() {
    for chunked in [false, true] {
        let (receiver, how_many) = endless(chunked);
        let mut sender = Sender::new(&open_egress());
        let attempt = sender.send(job(&receiver.url()));
        let body = "x".repeat(4096);
        assert_eq!(attempt.answer, Answer::Status { status: 200, body, retry_after: None });
        let sent = how_many.recv().unwrap();
        let most = open_egress().max_response_bytes + 64 * 1024 + socket_buffers();
        assert!(sent <= most, "{sent} bytes were sent, {most} could be");
        sender.status(&receiver.url());
        assert_eq!(receiver.connections(), 2, "a half-read connection was used again");
    }
}

/// Set in the process that sends, so that nothing else is in its memory.
const SENDER: &str = "WEBHOOK_PG_BODIES_FROM";

#[test]
fn eight_endless_bodies_at_once_take_two_mebibytes_each_at_most() {
    if let Ok(urls) = env::var(SENDER) {
        let (ordinary, endless) = urls.split_once(' ').unwrap();
        return assert_memory_is_bounded(ordinary, endless);
    }
    for chunked in [false, true] {
        let (ordinary, (endless, _how_many)) = (Receiver::answering(OK), endless(chunked));
        let output = Command::new(env::current_exe().unwrap())
            .args(["--exact", "bodies::eight_endless_bodies_at_once_take_two_mebibytes_each_at_most"])
            .env(SENDER, format!("{} {}", ordinary.url(), endless.url()))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "chunked: {chunked}: {said}");
        assert_eq!(endless.connections(), 8 * ROUNDS);
    }
}

const ROUNDS: usize = 4;

/// Sends from eight slots at once and looks at the memory all the while.
fn assert_memory_is_bounded(ordinary: &str, endless: &str) {
    let mut sender = Sender::with_threads(&open_egress(), 8);
    // What any request takes for the first time.
    assert_eq!(sender.status(ordinary), 200);
    let before = anonymous_kib();
    let done = Arc::new(AtomicBool::new(false));
    let ended = Arc::clone(&done);
    let watcher = thread::spawn(move || {
        let mut most = 0;
        while !ended.load(Ordering::Relaxed) {
            most = most.max(anonymous_kib());
            thread::sleep(Duration::from_micros(200));
        }
        most
    });
    for _ in 0..ROUNDS {
        let tickets: Vec<u64> = (0..8).map(|_| sender.submit(job(endless))).collect();
        for ticket in tickets {
            let answer = sender.wait(ticket).answer;
            assert!(matches!(answer, Answer::Status { status: 200, .. }), "{answer:?}");
        }
    }
    done.store(true, Ordering::Relaxed);
    let grown = watcher.join().unwrap().max(anonymous_kib()).saturating_sub(before);
    assert!(grown <= 8 * 2048, "{grown} KiB more than {before} KiB");
}

/// Memory of this process that is no file's, as the kernel counts it.
fn anonymous_kib() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn no_more_of_a_body_is_needed_than_the_cap() {
    for (head, before) in [("content-length: 10737418240", ""), ("transfer-encoding: chunked", "fffffff\r\n")]
    {
        let receiver = Receiver::start(move |talk| {
            talk.read();
            // One byte more than max_response_bytes, and then nothing, until the sender hangs up.
            let body = "x".repeat(65537);
            talk.write(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{before}{body}").as_bytes());
            talk.read();
        });
        let attempt = Sender::new(&open_egress()).send(job(&receiver.url()));
        assert!(matches!(attempt.answer, Answer::Status { status: 200, .. }), "{head}: {:?}", attempt.answer);
        assert!(attempt.duration < Duration::from_secs(5), "{head}: {:?}", attempt.duration);
    }
}
