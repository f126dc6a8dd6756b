//! The pool under test, and jobs for it.

use std::sync::mpsc::{self, Receiver as Queue};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use uuid::Uuid;
use webhook_pg::endpoint::{Encoding, Endpoint, Format, Method, Ordering, Scheme, State};
use webhook_pg::engine::{Completion, Job, Transport};
use webhook_pg::event::{Event, Pattern, Place};
use webhook_pg::http::{Pool, spawn_thread};
use webhook_pg::outcome::{Answer, Attempt, Fault};
use webhook_pg::secret::Secret;
use webhook_pg::settings::Egress;

use crate::receiver::PATIENCE;

pub(crate) const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A pool with a bell.
pub(crate) struct Sender {
    pool: Pool,
    bell: Queue<()>,
    done: Vec<Completion>,
    tickets: u64,
}

/// Loopback receivers without TLS.
pub(crate) fn open_egress() -> Egress {
    Egress {
        allow_http: true,
        allow: vec!["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()],
        ..Egress::default()
    }
}

pub(crate) fn endpoint(url: &str) -> Endpoint {
    Endpoint {
        id: 1,
        name: "receiver".to_owned(),
        url: webhook_pg::request::checked_url(url, true).unwrap(),
        method: Method::Post,
        format: Format::Standard,
        encoding: Encoding::Json,
        is_selective: false,
        scope: None,
        expands: vec![],
        events: vec![Pattern::parse("*").unwrap()],
        headers: vec![],
        basic_auth: None,
        scheme: Scheme::Standard,
        secrets: vec![Secret::new(SECRET).into()],
        schedule: None,
        timeout: None,
        max_in_flight: None,
        rate_limit: None,
        ordering: Ordering::None,
        state: State::Active,
    }
}

pub(crate) fn event() -> Event {
    Event {
        place: Place { xid: 1, seq: 1 },
        id: Uuid::from_u128(0x0199_d3f6_7a5e_7cc1_8000_0123_4567_89ab),
        event_type: "contact.created".to_owned(),
        operation: None,
        key: Some(r#"{"id":1}"#.to_owned()),
        occurred_at: 1_795_255_200_123_456,
        data: Some(r#"{"id":1,"name":"Ann"}"#.to_owned()),
        previous: None,
        expanded: None,
        truncated: false,
        context: None,
        traceparent: None,
        target: None,
        selected_by: Vec::new(),
        unreadable: None,
    }
}

pub(crate) fn job(url: &str) -> Job {
    Job {
        ticket: 0,
        endpoint: Arc::new(endpoint(url)),
        event: Arc::new(event()),
        attempt: 1,
        timeout: Duration::from_secs(10),
        limit: 1000,
    }
}

impl Sender {
    pub(crate) fn new(egress: &Egress) -> Self {
        Self::with_threads(egress, 8)
    }

    pub(crate) fn with_threads(egress: &Egress, threads: usize) -> Self {
        let (ring, bell) = mpsc::channel();
        let ring = Mutex::new(ring);
        let notify = Arc::new(move || {
            ring.lock().unwrap().send(()).ok();
        });
        let mut pool = Pool::new(Arc::new(spawn_thread), notify);
        pool.configure(egress, threads);
        Self { pool, bell, done: Vec::new(), tickets: 0 }
    }

    pub(crate) fn configure(&mut self, egress: &Egress) {
        self.pool.configure(egress, 8);
    }

    /// Hands a job over and returns its ticket.
    pub(crate) fn submit(&mut self, job: Job) -> u64 {
        self.tickets += 1;
        self.pool.submit(Job { ticket: self.tickets, ..job });
        self.tickets
    }

    /// Waits until this job is complete.
    pub(crate) fn wait(&mut self, ticket: u64) -> Attempt {
        loop {
            self.pool.collect(&mut self.done);
            if let Some(at) = self.done.iter().position(|completion| completion.ticket == ticket) {
                let attempt = self.done.remove(at).attempt;
                // As the engine does after every answer that is no success.
                if !matches!(attempt.answer, Answer::Status { status: 200..=299, .. }) {
                    self.pool.recall(job("https://example.com").endpoint.id);
                }
                return attempt;
            }
            self.bell.recv_timeout(PATIENCE).expect("the job should have completed");
        }
    }

    pub(crate) fn send(&mut self, job: Job) -> Attempt {
        let ticket = self.submit(job);
        self.wait(ticket)
    }

    /// Sends the usual job and expects a status.
    pub(crate) fn status(&mut self, url: &str) -> u16 {
        match self.send(job(url)).answer {
            Answer::Status { status, .. } => status,
            failed => panic!("{failed:?}"),
        }
    }

    /// Sends the usual job and expects a failure.
    pub(crate) fn fault(&mut self, url: &str) -> Fault {
        fault(self.send(job(url)))
    }
}

pub(crate) fn fault(attempt: Attempt) -> Fault {
    match attempt.answer {
        Answer::Failed { fault, message } => {
            assert!(!message.is_empty() && !message.contains(['\n', '?']), "{message:?}");
            fault
        }
        answered => panic!("{answered:?}"),
    }
}

/// What a failed attempt says to people.
pub(crate) fn message(attempt: Attempt) -> String {
    match attempt.answer {
        Answer::Failed { message, .. } => message,
        answered => panic!("{answered:?}"),
    }
}
