//! One connection as ureq's transport: TCP or TLS over TCP, with its buffers and its deadline.
//!
//! Three things are done here that ureq's own TCP transport does not do. The deadline holds over a whole write and a
//! whole TLS record, not for each system call anew. The head of a request waits for the first piece of its body, so
//! that both leave in one packet. And socket timeouts are set again only when they are off by more than a sixteenth.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustls::{ClientConnection, StreamOwned};
use ureq::unversioned::transport::{Buffers, NextTimeout, Transport};

use super::rest::Rest;

/// Longest response head that is accepted, in bytes.
pub(super) const MAX_HEAD: usize = 16 * 1024;
/// Must hold a whole response head, and then some of the body.
const INPUT_BYTES: usize = 20 * 1024;
/// A request leaves in pieces of this size. Every single header must fit in one.
const OUTPUT_BYTES: usize = 32 * 1024;
/// A longer head does not wait for its body.
const MAX_HELD: usize = 8 * 1024;

/// A TCP stream that obeys one deadline until it gets another.
pub(super) struct Socket {
    tcp: TcpStream,
    until: Option<Instant>,
    read_timeout: Option<Duration>,
    write_timeout: Option<Duration>,
}

impl Socket {
    pub(super) fn new(tcp: TcpStream, until: Option<Instant>) -> Self {
        Self { tcp, until, read_timeout: None, write_timeout: None }
    }

    pub(super) fn set_deadline(&mut self, until: Option<Instant>) {
        self.until = until;
    }

    /// The socket timeout to set now, if the one in force will not do.
    fn due(&self, in_force: Option<Duration>) -> io::Result<Option<Option<Duration>>> {
        let Some(until) = self.until else {
            return Ok(in_force.is_some().then_some(None));
        };
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let near = in_force.is_some_and(|set| set >= left && set <= left + left / 16);
        Ok((!near).then_some(Some(left)))
    }

    /// Nothing to read and nobody has hung up: a connection at rest must be silent.
    fn is_silent(&self) -> io::Result<bool> {
        self.tcp.set_nonblocking(true)?;
        let silent = matches!(self.tcp.peek(&mut [0]), Err(e) if e.kind() == io::ErrorKind::WouldBlock);
        self.tcp.set_nonblocking(false)?;
        Ok(silent)
    }
}

impl Read for Socket {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(timeout) = self.due(self.read_timeout)? {
                self.tcp.set_read_timeout(timeout)?;
                self.read_timeout = timeout;
            }
            match self.tcp.read(buf) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                result => return result.map_err(timed_out),
            }
        }
    }
}

impl Write for Socket {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        loop {
            if let Some(timeout) = self.due(self.write_timeout)? {
                self.tcp.set_write_timeout(timeout)?;
                self.write_timeout = timeout;
            }
            match self.tcp.write(buf) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                result => return result.map_err(timed_out),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A socket timeout shows as "would block".
fn timed_out(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock { io::ErrorKind::TimedOut.into() } else { error }
}

/// What the bytes go through.
pub(super) enum Stream {
    Plain(Socket),
    Tls(Box<StreamOwned<ClientConnection, Socket>>),
}

impl Stream {
    fn socket(&mut self) -> &mut Socket {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(tls) => &mut tls.sock,
        }
    }

    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buf),
            Self::Tls(tls) => tls.read(buf),
        }
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.write_all(bytes),
            Self::Tls(tls) => tls.write_all(bytes).and_then(|()| tls.flush()),
        }
    }
}

/// Counts a connection for as long as it lives.
pub(super) struct Counted(Arc<AtomicUsize>);

impl Counted {
    pub(super) fn new(open: &Arc<AtomicUsize>) -> Self {
        open.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(open))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One connection.
pub(super) struct Wire {
    stream: Stream,
    buffers: Space,
    /// Written before the path of the request line, for a proxy: `http://host:port`.
    target: Option<String>,
    /// The next piece of output is the head of a request.
    at_head: bool,
    /// Just served a request. Its return to the pool needs no probe, because the next use makes one.
    just_used: bool,
    /// The receiver reads no more, but what it said before may still be there to read.
    deaf: bool,
    rest: Arc<Rest>,
    /// When the last rest began.
    resting: Instant,
    /// The length of the last rest, until the first byte of the answer shows that it was not too long.
    rested: Option<Duration>,
    _counted: Counted,
}

impl Wire {
    pub(super) fn new(stream: Stream, target: Option<String>, rest: Arc<Rest>, counted: Counted) -> Self {
        Self {
            stream,
            buffers: Space::new(),
            target,
            at_head: true,
            just_used: false,
            deaf: false,
            rest,
            resting: Instant::now(),
            rested: None,
            _counted: counted,
        }
    }

    /// What came of reading or writing. A connection that breaks before the answer begins may have rested too long.
    fn learn<T>(&mut self, result: io::Result<T>, timeout: NextTimeout) -> Result<T, ureq::Error> {
        result.map_err(|error| {
            if let Some(rest) = self.rested.take()
                && error.kind() != io::ErrorKind::TimedOut
            {
                self.rest.closed_after(rest);
            }
            io_error(error, timeout)
        })
    }

    /// Puts the target into the request line, whose path begins after the first space. The bytes held are then one
    /// head, or none if it grew out of the buffer and had to leave at once.
    fn aim(&mut self) -> io::Result<()> {
        let Some(target) = &self.target else { return Ok(()) };
        let head = &self.buffers.output[..self.buffers.held];
        let path = head.iter().position(|&byte| byte == b' ').map_or(0, |space| space + 1);
        let aimed = [&head[..path], target.as_bytes(), &head[path..]].concat();
        if let Some(room) = self.buffers.output.get_mut(..aimed.len()) {
            room.copy_from_slice(&aimed);
            self.buffers.held = aimed.len();
            return Ok(());
        }
        self.buffers.held = 0;
        self.send(&aimed)
    }

    /// A receiver may answer before it has read all (413, say) and close. Then writing fails while its answer waits to
    /// be read, so only reading decides.
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
        if self.deaf {
            return Ok(());
        }
        match self.stream.send(bytes) {
            Err(e) if matches!(e.kind(), BrokenPipe | ConnectionAborted | ConnectionReset) => {
                self.deaf = true;
                Ok(())
            }
            result => result,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        let held = std::mem::take(&mut self.buffers.held);
        if held == 0 {
            return Ok(());
        }
        // Out and in again: nothing is copied.
        let output = std::mem::take(&mut self.buffers.output);
        let sent = self.send(&output[..held]);
        self.buffers.output = output;
        sent
    }
}

impl Transport for Wire {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.just_used = true;
        self.stream.socket().set_deadline(deadline(timeout));
        self.buffers.held += amount;
        let at_head = std::mem::take(&mut self.at_head);
        if at_head {
            let aimed = self.aim();
            self.learn(aimed, timeout)?;
        }
        let wait = at_head && self.buffers.held <= MAX_HELD;
        if wait {
            return Ok(());
        }
        let flushed = self.flush();
        self.learn(flushed, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.just_used = true;
        self.stream.socket().set_deadline(deadline(timeout));
        let flushed = self.flush();
        self.learn(flushed, timeout)?;
        self.at_head = true;
        let read = self.stream.read(self.buffers.input_append_buf());
        let amount = self.learn(read, timeout)?;
        self.buffers.input_appended(amount);
        if let Some(rest) = self.rested.take()
            && amount == 0
        {
            self.rest.closed_after(rest);
        }
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        if self.deaf {
            return false;
        }
        if std::mem::take(&mut self.just_used) {
            self.resting = Instant::now();
            return true;
        }
        let rest = self.resting.elapsed();
        if rest >= self.rest.limit() {
            return false;
        }
        self.rested = Some(rest);
        let silent = self.stream.socket().is_silent().unwrap_or(false);
        if !silent {
            self.rest.closed_after(rest);
        }
        silent
    }

    fn is_tls(&self) -> bool {
        matches!(self.stream, Stream::Tls(_))
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").field("tls", &self.is_tls()).finish_non_exhaustive()
    }
}

/// When ureq's remaining time is over.
pub(super) fn deadline(timeout: NextTimeout) -> Option<Instant> {
    if timeout.after.is_not_happening() { None } else { Instant::now().checked_add(*timeout.after) }
}

fn io_error(error: io::Error, timeout: NextTimeout) -> ureq::Error {
    if error.kind() == io::ErrorKind::TimedOut {
        ureq::Error::Timeout(timeout.reason)
    } else {
        ureq::Error::Io(error)
    }
}

/// The buffers of one connection. Output is written behind what is held back.
struct Space {
    input: Vec<u8>,
    start: usize,
    end: usize,
    progress: bool,
    output: Vec<u8>,
    held: usize,
}

impl Space {
    fn new() -> Self {
        Self {
            input: vec![0; INPUT_BYTES],
            start: 0,
            end: 0,
            progress: false,
            output: vec![0; OUTPUT_BYTES],
            held: 0,
        }
    }

    fn make_room(&mut self) {
        self.input.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
    }
}

impl Buffers for Space {
    fn output(&mut self) -> &mut [u8] {
        &mut self.output[self.held..]
    }

    fn input(&self) -> &[u8] {
        &self.input[self.start..self.end]
    }

    fn input_append_buf(&mut self) -> &mut [u8] {
        self.make_room();
        &mut self.input[self.end..]
    }

    fn input_appended(&mut self, amount: usize) {
        self.end += amount;
    }

    fn input_consume(&mut self, amount: usize) {
        self.progress = amount > 0;
        self.start += amount;
    }

    fn tmp_and_output(&mut self) -> (&mut [u8], &mut [u8]) {
        self.make_room();
        (&mut self.input[self.end..], &mut self.output[self.held..])
    }

    fn can_use_input(&self) -> bool {
        self.start < self.end && self.progress
    }
}
