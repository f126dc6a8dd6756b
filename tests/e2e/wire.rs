//! HTTP/1.1 as a receiver sees it: one request read from a stream, one reply written to it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::Value;

/// A stream with read timeouts: a read without data answers `WouldBlock` or `TimedOut`.
pub trait Wire: Read + Write + Send {
    /// The socket below.
    fn socket(&self) -> &TcpStream;
}

impl Wire for TcpStream {
    fn socket(&self) -> &TcpStream {
        self
    }
}

impl Wire for rustls::StreamOwned<rustls::ServerConnection, TcpStream> {
    fn socket(&self) -> &TcpStream {
        &self.sock
    }
}

/// One request, as received.
#[derive(Debug, Clone)]
pub struct Request {
    /// Method of the request line.
    pub method: String,
    /// Target of the request line.
    pub path: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// Exact bytes.
    pub body: Vec<u8>,
    /// When its last byte was here.
    pub received: Instant,
}

impl Request {
    /// The value of a header that is there once, or the empty text.
    pub fn header(&self, name: &str) -> &str {
        let mut values = self.headers.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str());
        match (values.next(), values.next()) {
            (Some(value), None) => value,
            _ => "",
        }
    }

    /// `webhook-id`.
    pub fn id(&self) -> &str {
        self.header("webhook-id")
    }

    /// `webhook-timestamp`, Unix seconds.
    pub fn timestamp(&self) -> i64 {
        self.header("webhook-timestamp").parse().unwrap_or_default()
    }

    /// The body, or null.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// `data.id` of the body, by which tests know their rows.
    pub fn row(&self) -> Option<i64> {
        self.json()["data"]["id"].as_i64()
    }
}

/// What the receiver answers.
#[derive(Debug, Clone)]
pub enum Reply {
    /// A complete response.
    Status {
        /// Status code.
        status: u16,
        /// Headers beside `content-length`.
        headers: Vec<(String, String)>,
        /// Body.
        body: String,
        /// Wait before it is sent.
        delay: Duration,
    },
    /// No byte until the receiver is told to let go; then 200.
    Hang,
    /// The connection is closed in good order without an answer.
    Close,
    /// The connection is reset without an answer.
    Reset,
    /// These bytes, whatever they are; then the connection is closed in good order.
    Raw(&'static [u8]),
}

impl Reply {
    /// 200.
    pub fn ok() -> Self {
        Self::status(200)
    }

    /// This status.
    pub fn status(status: u16) -> Self {
        Self::Status { status, headers: Vec::new(), body: String::new(), delay: Duration::ZERO }
    }

    /// With this body.
    pub fn with_body(mut self, text: &str) -> Self {
        if let Self::Status { body, .. } = &mut self {
            text.clone_into(body);
        }
        self
    }

    /// With this header.
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        if let Self::Status { headers, .. } = &mut self {
            headers.push((name.to_owned(), value.to_owned()));
        }
        self
    }

    /// Sent that much later.
    pub fn after(mut self, wait: Duration) -> Self {
        if let Self::Status { delay, .. } = &mut self {
            *delay = wait;
        }
        self
    }
}

/// Bytes of a request that are read at most: enough for every test.
const LIMIT: usize = 4 * 1024 * 1024;

/// Reads the next request of a connection. `None` at the end of the connection, or when `stop` says so.
pub fn read_request(wire: &mut dyn Wire, stop: &dyn Fn() -> bool) -> io::Result<Option<Request>> {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break end + 4;
        }
        if !read_more(wire, &mut bytes, stop)? {
            return Ok(None);
        }
    };
    let (method, path, headers) = parse_head(&bytes[..head])?;
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length: usize = length.and_then(|(_, value)| value.parse().ok()).unwrap_or_default();
    while bytes.len() < head + length {
        if !read_more(wire, &mut bytes, stop)? {
            return Ok(None);
        }
    }
    if bytes.len() > head + length {
        return Err(io::Error::new(ErrorKind::InvalidData, "more bytes than content-length says"));
    }
    let body = bytes.split_off(head);
    Ok(Some(Request { method, path, headers, body, received: Instant::now() }))
}

type Head = (String, String, Vec<(String, String)>);

fn parse_head(bytes: &[u8]) -> io::Result<Head> {
    let bad = |what: &str| io::Error::new(ErrorKind::InvalidData, what.to_owned());
    let text = std::str::from_utf8(bytes).map_err(|_| bad("the head is not UTF-8"))?;
    let mut lines = text.trim_end().split("\r\n");
    let mut first = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(path), Some("HTTP/1.1"), None) =
        (first.next(), first.next(), first.next(), first.next())
    else {
        return Err(bad("no request line of HTTP/1.1"));
    };
    let headers = lines
        .map(|line| line.split_once(':').map(|(n, v)| (n.to_ascii_lowercase(), v.trim().to_owned())))
        .collect::<Option<_>>()
        .ok_or_else(|| bad("a header line without a colon"))?;
    Ok((method.to_owned(), path.to_owned(), headers))
}

fn read_more(wire: &mut dyn Wire, bytes: &mut Vec<u8>, stop: &dyn Fn() -> bool) -> io::Result<bool> {
    let mut chunk = [0; 16 * 1024];
    while !stop() {
        match wire.read(&mut chunk) {
            Ok(0) => return Ok(false),
            Ok(n) if bytes.len() + n > LIMIT => return Err(ErrorKind::OutOfMemory.into()),
            Ok(n) => {
                bytes.extend_from_slice(&chunk[..n]);
                return Ok(true);
            }
            Err(e) if is_silence(&e) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(false)
}

fn is_silence(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

/// Whether the sender has gone away while it waits for its answer.
pub fn peer_is_gone(wire: &dyn Wire) -> bool {
    let socket = wire.socket();
    if socket.set_nonblocking(true).is_err() {
        return true;
    }
    let peeked = socket.peek(&mut [0]);
    let _ = socket.set_nonblocking(false);
    match peeked {
        Ok(n) => n == 0,
        Err(e) => !is_silence(&e),
    }
}

/// Writes a complete response.
pub fn write_response(
    wire: &mut dyn Wire,
    status: u16,
    headers: &[(String, String)],
    body: &str,
) -> io::Result<()> {
    let mut text = format!("HTTP/1.1 {status} Scripted\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    text.push_str(body);
    wire.write_all(text.as_bytes())?;
    wire.flush()
}

/// Makes the coming close a reset: the peer gets no orderly end.
pub fn reset_on_close(wire: &dyn Wire) {
    let _ = socket2::SockRef::from(wire.socket()).set_linger(Some(Duration::ZERO));
}
