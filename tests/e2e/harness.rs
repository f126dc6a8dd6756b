//! The tools of these tests, tested: a receiver that accepts everything, or a cluster that stays, would show nothing.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::cluster::{Cluster, Stop};
use crate::os::{children, is_running, kill};
use crate::receiver::Receiver;
use crate::wait::{holds, millis, secs, wait_until};
use crate::wire::Reply;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const BODY: &str = r#"{"type":"a.created","data":{"id":5}}"#;

/// A signed request as a sender would write it.
fn request(id: &str, secret: &str) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let timestamp = i64::try_from(now.as_secs()).unwrap();
    let signature =
        standardwebhooks::Webhook::new(secret).unwrap().sign(id, timestamp, BODY.as_bytes()).unwrap();
    format!(
        "POST /hook HTTP/1.1\r\nHost: x\r\nwebhook-id: {id}\r\nwebhook-timestamp: {timestamp}\r\n\
         webhook-signature: {signature}\r\nContent-Length: {}\r\n\r\n{BODY}",
        BODY.len()
    )
}

/// A connection to the receiver.
fn dial(receiver: &Receiver) -> TcpStream {
    let url = receiver.url();
    let stream =
        TcpStream::connect(url.strip_prefix("http://").unwrap().strip_suffix("/hook").unwrap()).unwrap();
    stream.set_read_timeout(Some(secs(5))).unwrap();
    stream
}

/// The first line of the answer; an error when the connection breaks, empty when it ends.
fn ask(stream: &mut TcpStream, request: &str) -> std::io::Result<String> {
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let mut chunk = [0; 1024];
    while !answer.windows(4).any(|w| w == b"\r\n\r\n") {
        match stream.read(&mut chunk)? {
            0 => break,
            n => answer.extend_from_slice(&chunk[..n]),
        }
    }
    Ok(String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned())
}

#[test]
fn a_receiver_accepts_a_good_signature_and_refuses_others() {
    let receiver = Receiver::start(|_, _| Reply::ok());
    receiver.trust(SECRET);
    let mut stream = dial(&receiver);
    ask(&mut stream, &request("one", SECRET)).unwrap();
    ask(&mut stream, &request("two", "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")).unwrap();
    ask(&mut stream, &request("three", SECRET).replace(r#""id":5"#, r#""id":6"#)).unwrap();
    let refused: Vec<bool> = receiver.receipts().iter().map(|r| r.refused.is_some()).collect();
    assert_eq!(refused, [false, true, true]);
    assert_eq!(receiver.connections(), 1);
}

#[test]
fn a_receiver_follows_its_script_and_counts_duplicates() {
    let receiver = Receiver::start(|_, nth| match nth {
        1 => Reply::status(503).with_header("retry-after", "1").with_body("busy"),
        2 => Reply::Close,
        3 => Reply::Reset,
        _ => Reply::ok().after(millis(1)),
    });
    let answers: Vec<_> = (0..5).map(|_| ask(&mut dial(&receiver), &request("one", SECRET))).collect();
    let texts: Vec<String> =
        answers.into_iter().map(|a| a.unwrap_or_else(|e| format!("{:?}", e.kind()))).collect();
    let expected =
        ["HTTP/1.1 503 Scripted", "", "ConnectionReset", "HTTP/1.1 200 Scripted", "HTTP/1.1 200 Scripted"];
    assert_eq!(texts, expected);
    assert_eq!((receiver.count(), receiver.duplicates()), (5, 1));
    assert_eq!(receiver.accepted().into_iter().collect::<Vec<_>>(), [5]);
}

#[test]
fn a_receiver_does_not_count_an_answer_that_nobody_waits_for() {
    let receiver = Receiver::start(|_, _| Reply::Hang);
    let mut gone = dial(&receiver);
    gone.write_all(request("one", SECRET).as_bytes()).unwrap();
    receiver.wait_for_hanging(1, secs(5));
    drop(gone);
    wait_until("the request no longer hangs", secs(5), || {
        holds(receiver.hanging() == 0, || format!("{} hang", receiver.hanging()))
    });
    let mut patient = dial(&receiver);
    patient.write_all(request("two", SECRET).as_bytes()).unwrap();
    receiver.wait_for_hanging(1, secs(5));
    receiver.release();
    receiver.wait_for_answers(1, secs(5));
    let answered: Vec<Option<u16>> = receiver.receipts().iter().map(|r| r.answered).collect();
    assert_eq!(answered, [None, Some(200)]);
}

#[test]
fn a_cluster_outlives_its_stops_and_leaves_nothing_behind() {
    let cluster = Cluster::plain();
    let sql = "CREATE TABLE kept (id int); INSERT INTO kept VALUES (1)";
    cluster.connect().batch_execute(sql).unwrap();
    for how in [Stop::Fast, Stop::Immediate] {
        cluster.restart_server(how);
        let n: i64 = cluster.connect().query_one("SELECT count(*) FROM kept", &[]).unwrap().get(0);
        assert_eq!(n, 1, "after {how:?}");
    }
    cluster.set("work_mem", "1MB");
    let home = cluster.home().to_owned();
    let postmaster = cluster.postmaster();
    assert!(!children(postmaster).is_empty());
    drop(cluster);
    assert!(!home.exists(), "{} is still there", home.display());
    assert!(!is_running(postmaster), "the server still runs");
}

#[test]
#[should_panic(expected = "was terminated by signal 9")]
fn a_crash_that_no_test_caused_fails_the_test() {
    let cluster = Cluster::plain();
    let mut client = cluster.connect();
    let row = client.query_one("SELECT pg_catalog.pg_backend_pid()", &[]).unwrap();
    kill("KILL", row.get::<_, i32>(0).unsigned_abs());
    wait_until("the log speaks of it", secs(10), || {
        holds(cluster.log().contains("was terminated by signal 9"), || cluster.log())
    });
}
