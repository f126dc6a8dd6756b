//! Receivers on loopback that do exactly what a test tells them to.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver as Queue, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// The longest that a test waits for what must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// A complete answer that keeps the connection open.
pub(crate) const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A request as it came over the wire.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) line: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// One connection of a receiver; counted from 0.
pub(crate) struct Talk<S> {
    pub(crate) number: usize,
    pub(crate) stream: S,
    received: Sender<Received>,
}

impl<S: Read + Write> Talk<S> {
    /// Reads one request; `None` when the sender hung up.
    pub(crate) fn read(&mut self) -> Option<Received> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            if self.stream.read(&mut byte).ok()? == 0 {
                return None;
            }
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let line = lines.next().unwrap().to_owned();
        let headers: Vec<_> = lines
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let mut request = Received { line, headers, body: Vec::new() };
        let length = request.header("content-length").map_or(0, |length| length.parse().unwrap());
        request.body.resize(length, 0);
        self.stream.read_exact(&mut request.body).ok()?;
        self.received.send(request.clone()).ok();
        Some(request)
    }

    /// Writes; the sender may have hung up, which is for the test to judge.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).and_then(|()| self.stream.flush()).is_ok()
    }

    /// Answers every request until the sender hangs up.
    pub(crate) fn answer_all(&mut self, answer: &[u8]) {
        while self.read().is_some() && self.write(answer) {}
    }
}

/// A listening receiver.
pub(crate) struct Receiver {
    pub(crate) port: u16,
    accepted: Arc<AtomicUsize>,
    received: Mutex<Queue<Received>>,
}

impl Receiver {
    /// Runs `script` for every connection, each in a thread of its own.
    pub(crate) fn start(script: impl Fn(&mut Talk<TcpStream>) + Send + Sync + 'static) -> Self {
        Self::start_on("127.0.0.1:0", script)
    }

    /// The same at other addresses.
    pub(crate) fn start_on(
        address: &str,
        script: impl Fn(&mut Talk<TcpStream>) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (accepted, script) = (Arc::new(AtomicUsize::new(0)), Arc::new(script));
        let (sender, received) = mpsc::channel();
        let count = Arc::clone(&accepted);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let number = count.fetch_add(1, Ordering::SeqCst);
                let mut talk = Talk { number, stream, received: sender.clone() };
                let script = Arc::clone(&script);
                thread::spawn(move || script(&mut talk));
            }
        });
        Self { port, accepted, received: Mutex::new(received) }
    }

    /// One that answers everything with this.
    pub(crate) fn answering(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::start(move |talk| talk.answer_all(&answer))
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/hooks?a=b", self.port)
    }

    /// Connections so far.
    pub(crate) fn connections(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// The next request that arrived.
    pub(crate) fn next(&self) -> Received {
        self.received.lock().unwrap().recv_timeout(PATIENCE).expect("a request should have arrived")
    }

    /// Requests that arrived and were not asked for yet.
    pub(crate) fn rest(&self) -> usize {
        self.received.lock().unwrap().try_iter().count()
    }
}

impl Talk<TcpStream> {
    /// Goes on over TLS; `None` when the sender does not want to.
    pub(crate) fn over_tls(
        &mut self,
        config: &Arc<rustls::ServerConfig>,
    ) -> Option<Talk<rustls::StreamOwned<rustls::ServerConnection, TcpStream>>> {
        let mut connection = rustls::ServerConnection::new(Arc::clone(config)).unwrap();
        while connection.is_handshaking() {
            connection.complete_io(&mut self.stream).ok()?;
        }
        let stream = rustls::StreamOwned::new(connection, self.stream.try_clone().unwrap());
        Some(Talk { number: self.number, stream, received: self.received.clone() })
    }
}
