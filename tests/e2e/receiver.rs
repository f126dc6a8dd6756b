//! A webhook receiver: records every request, checks every signature with the official library, answers by a script.

use std::collections::{BTreeSet, HashMap};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::wait::{holds, millis, wait_until};
use crate::wire::{self, Reply, Request, Wire};

/// Decides the answer. `nth` counts the requests with this `webhook-id`, from 1.
type Script = dyn Fn(&Request, usize) -> Reply + Send + Sync;

/// No connection is idle for so long.
const FOREVER: Duration = Duration::from_secs(24 * 60 * 60);

/// A request and what became of it.
#[derive(Debug, Clone)]
pub struct Receipt {
    /// As received.
    pub request: Request,
    /// `data.id` of the body, by which tests know their rows.
    pub row: Option<i64>,
    /// Why the official library refused it, if it did.
    pub refused: Option<String>,
    /// The status that was answered, once it has left.
    pub answered: Option<u16>,
}

/// A receiver on a loopback port of its own. Ends when dropped.
pub struct Receiver {
    address: SocketAddr,
    scheme: &'static str,
    inner: Arc<Inner>,
}

struct Inner {
    script: Box<Script>,
    /// How long a connection may be idle.
    patience: Duration,
    record: Mutex<Record>,
    secrets: Mutex<Vec<String>>,
    broken: Mutex<Vec<String>>,
    connections: AtomicUsize,
    hanging: AtomicUsize,
    released: AtomicBool,
    stopping: AtomicBool,
}

/// What came, and sums over it that tests ask for again and again.
#[derive(Default)]
struct Record {
    receipts: Vec<Receipt>,
    requests_by_id: HashMap<String, usize>,
    accepts_by_id: HashMap<String, usize>,
    accepted_rows: BTreeSet<i64>,
    answers: usize,
}

impl Receiver {
    /// Listens for http.
    pub fn start(script: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static) -> Self {
        Self::listen(None, FOREVER, Box::new(script))
    }

    /// The same, and closes connections that have been idle for so long.
    pub fn start_impatient(
        patience: Duration,
        script: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::listen(None, patience, Box::new(script))
    }

    /// Listens for https with this certificate.
    pub fn start_tls(
        tls: rustls::ServerConfig,
        script: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::listen(Some(Arc::new(tls)), FOREVER, Box::new(script))
    }

    fn listen(tls: Option<Arc<rustls::ServerConfig>>, patience: Duration, script: Box<Script>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a loopback port");
        let address = listener.local_addr().expect("the port");
        let inner = Arc::new(Inner {
            script,
            patience,
            record: Mutex::default(),
            secrets: Mutex::default(),
            broken: Mutex::default(),
            connections: AtomicUsize::new(0),
            hanging: AtomicUsize::new(0),
            released: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
        });
        let scheme = if tls.is_some() { "https" } else { "http" };
        let acceptor = Arc::clone(&inner);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if acceptor.stopping.load(Ordering::Relaxed) {
                    break;
                }
                let (inner, tls) = (Arc::clone(&acceptor), tls.clone());
                inner.connections.fetch_add(1, Ordering::Relaxed);
                std::thread::spawn(move || inner.serve(stream, tls));
            }
        });
        Self { address, scheme, inner }
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("{}://{}/hook", self.scheme, self.address)
    }

    /// Also accepts signatures of this secret.
    pub fn trust(&self, secret: &str) {
        self.inner.secrets.lock().unwrap().push(secret.to_owned());
    }

    /// Everything received so far, in order of arrival.
    pub fn receipts(&self) -> Vec<Receipt> {
        self.inner.record().receipts.clone()
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.inner.record().receipts.iter().map(|r| r.request.clone()).collect()
    }

    /// Number of requests so far, answered or not.
    pub fn count(&self) -> usize {
        self.inner.record().receipts.len()
    }

    /// TCP connections so far.
    pub fn connections(&self) -> usize {
        self.inner.connections.load(Ordering::Relaxed)
    }

    /// The rows (`data.id`) of all requests in order of arrival, answered or not.
    pub fn rows(&self) -> Vec<i64> {
        self.inner.record().receipts.iter().filter_map(|r| r.row).collect()
    }

    /// The rows that were answered 2xx.
    pub fn accepted(&self) -> BTreeSet<i64> {
        self.inner.record().accepted_rows.clone()
    }

    /// 2xx answers above one for the same `webhook-id`.
    pub fn duplicates(&self) -> usize {
        self.inner.record().accepts_by_id.values().map(|n| n - 1).sum()
    }

    /// Requests that hang at this moment.
    pub fn hanging(&self) -> usize {
        self.inner.hanging.load(Ordering::Relaxed)
    }

    /// Answers all hanging requests with 200, and does not let any later one hang.
    pub fn release(&self) {
        self.inner.released.store(true, Ordering::Relaxed);
    }

    /// Waits until so many requests came and were answered.
    #[track_caller]
    pub fn wait_for_answers(&self, n: usize, deadline: Duration) {
        wait_until(&format!("{n} requests are answered"), deadline, || {
            let answers = self.inner.record().answers;
            holds(answers >= n, || format!("{answers} answered, {} received", self.count()))
        });
    }

    /// Waits until all these rows were answered 2xx.
    #[track_caller]
    pub fn wait_for_rows(&self, rows: impl IntoIterator<Item = i64>, deadline: Duration) {
        let wanted: BTreeSet<i64> = rows.into_iter().collect();
        wait_until(&format!("all {} rows are delivered", wanted.len()), deadline, || {
            let missing: Vec<i64> = wanted.difference(&self.inner.record().accepted_rows).copied().collect();
            let some = &missing[..missing.len().min(10)];
            holds(missing.is_empty(), || format!("{} missing, among them {some:?}", missing.len()))
        });
    }

    /// Waits until so many requests hang.
    #[track_caller]
    pub fn wait_for_hanging(&self, n: usize, deadline: Duration) {
        wait_until(&format!("{n} requests hang"), deadline, || {
            holds(self.hanging() >= n, || format!("{} hang", self.hanging()))
        });
    }

    /// Fails the test unless every request was good HTTP and bore a good signature.
    #[track_caller]
    pub fn assert_all_signed(&self) {
        let refused: Vec<_> = self.receipts().into_iter().filter_map(|r| r.refused).collect();
        assert!(refused.is_empty(), "signatures were refused: {refused:?}");
        let broken = self.inner.broken.lock().unwrap().clone();
        assert!(broken.is_empty(), "requests were not HTTP: {broken:?}");
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.inner.stopping.store(true, Ordering::Relaxed);
        // Wakes the accepting thread.
        let _ = TcpStream::connect(self.address);
    }
}

impl Inner {
    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().expect("the record")
    }

    fn serve(&self, stream: TcpStream, tls: Option<Arc<rustls::ServerConfig>>) {
        let _ = stream.set_read_timeout(Some(millis(100)));
        let _ = stream.set_nodelay(true);
        let mut wire: Box<dyn Wire> = match tls {
            None => Box::new(stream),
            Some(config) => match rustls::ServerConnection::new(config) {
                Ok(connection) => Box::new(rustls::StreamOwned::new(connection, stream)),
                Err(_) => return,
            },
        };
        loop {
            let idle_since = Instant::now();
            let stop = || self.stopping.load(Ordering::Relaxed) || idle_since.elapsed() >= self.patience;
            match wire::read_request(wire.as_mut(), &stop) {
                Ok(Some(request)) => {
                    if !self.answer(wire.as_mut(), request) {
                        return;
                    }
                }
                Ok(None) => return,
                Err(e) => {
                    // A broken connection is the script's or a crash's doing; broken HTTP is the sender's fault.
                    if e.kind() == std::io::ErrorKind::InvalidData {
                        self.broken.lock().expect("broken").push(e.to_string());
                    }
                    return;
                }
            }
        }
    }

    /// Records and answers one request. False ends the connection.
    fn answer(&self, wire: &mut dyn Wire, request: Request) -> bool {
        let refused = self.verify(&request).err();
        let (index, nth) = {
            let mut record = self.record();
            let nth = record.requests_by_id.entry(request.id().to_owned()).or_default();
            *nth += 1;
            let nth = *nth;
            let row = request.row();
            record.receipts.push(Receipt { request: request.clone(), row, refused, answered: None });
            (record.receipts.len() - 1, nth)
        };
        let (status, headers, body) = match (self.script)(&request, nth) {
            Reply::Status { status, headers, body, delay } => {
                std::thread::sleep(delay);
                (status, headers, body)
            }
            Reply::Hang => {
                self.hang(wire);
                (200, Vec::new(), String::new())
            }
            Reply::Close => return false,
            Reply::Raw(bytes) => {
                let _ = wire.write_all(bytes).and_then(|()| wire.flush());
                return false;
            }
            Reply::Reset => {
                wire::reset_on_close(wire);
                return false;
            }
        };
        // The first write to a connection that was closed meanwhile would succeed.
        if self.stopping.load(Ordering::Relaxed) || wire::peer_is_gone(wire) {
            return false;
        }
        // Recorded under the same lock as it leaves: a test that sees its effect must find it here.
        let mut record = self.record();
        if wire::write_response(wire, status, &headers, &body).is_err() {
            return false;
        }
        record.receipts[index].answered = Some(status);
        record.answers += 1;
        if (200..300).contains(&status) {
            *record.accepts_by_id.entry(request.id().to_owned()).or_default() += 1;
            let row = record.receipts[index].row;
            record.accepted_rows.extend(row);
        }
        true
    }

    fn hang(&self, wire: &dyn Wire) {
        self.hanging.fetch_add(1, Ordering::Relaxed);
        let over = || {
            self.released.load(Ordering::Relaxed)
                || self.stopping.load(Ordering::Relaxed)
                || wire::peer_is_gone(wire)
        };
        while !over() {
            std::thread::sleep(millis(10));
        }
        self.hanging.fetch_sub(1, Ordering::Relaxed);
    }

    fn verify(&self, request: &Request) -> Result<(), String> {
        let mut headers = http::HeaderMap::new();
        for (name, value) in &request.headers {
            let name = http::HeaderName::try_from(name.as_str()).map_err(|e| e.to_string())?;
            headers.append(name, http::HeaderValue::try_from(value.as_str()).map_err(|e| e.to_string())?);
        }
        let secrets = self.secrets.lock().map_err(|e| e.to_string())?.clone();
        let mut last = "no secret is trusted".to_owned();
        for secret in secrets {
            let webhook = standardwebhooks::Webhook::new(&secret).map_err(|e| e.to_string())?;
            match webhook.verify(&request.body, &headers) {
                Ok(()) => return Ok(()),
                Err(e) => last = e.to_string(),
            }
        }
        Err(last)
    }
}
