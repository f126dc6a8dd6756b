use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use url::Url;
use uuid::Uuid;

use super::*;
use crate::endpoint::{self, Encoding, Endpoint, Format, Method, Scheme, State as EndpointState};
use crate::event::{Event, Place};
use crate::http::thread::spawn_thread;

fn job(ticket: u64) -> Job {
    let endpoint = Endpoint {
        id: 1,
        name: String::new(),
        url: Url::parse("https://example.com").unwrap(),
        method: Method::Post,
        format: Format::Standard,
        encoding: Encoding::Json,
        is_selective: false,
        scope: None,
        expands: vec![],
        events: vec![],
        headers: vec![],
        basic_auth: None,
        scheme: Scheme::None,
        secrets: vec![],
        schedule: None,
        timeout: None,
        max_in_flight: None,
        rate_limit: None,
        ordering: endpoint::Ordering::None,
        state: EndpointState::Active,
    };
    let event = Event {
        place: Place { xid: 1, seq: 1 },
        id: Uuid::nil(),
        event_type: "a.b".to_owned(),
        operation: None,
        key: None,
        occurred_at: 0,
        data: None,
        previous: None,
        expanded: None,
        truncated: false,
        context: None,
        traceparent: None,
        target: None,
        selected_by: Vec::new(),
        unreadable: None,
    };
    Job {
        ticket,
        endpoint: endpoint.into(),
        event: event.into(),
        attempt: 1,
        timeout: Duration::from_secs(1),
        limit: 1000,
    }
}

fn pool(spawn: Spawn, exchange: Exchange) -> (Pool, mpsc::Receiver<()>) {
    let (ring, bell) = mpsc::channel();
    let ring = Mutex::new(ring);
    let notify: Notify = Arc::new(move || ring.lock().unwrap().send(()).unwrap_or_default());
    let mut pool = Pool::with_exchange(spawn, notify, exchange);
    pool.configure(&Egress::default(), 1);
    (pool, bell)
}

/// Waits for as many completions, and answers their faults by ticket.
fn faults(pool: &mut Pool, bell: &mpsc::Receiver<()>, count: usize) -> Vec<(u64, Option<Fault>)> {
    let mut done = Vec::new();
    while done.len() < count {
        bell.recv_timeout(Duration::from_secs(20)).expect("the jobs should have completed");
        pool.collect(&mut done);
    }
    done.into_iter()
        .map(|completion| match completion.attempt.answer {
            Answer::Failed { fault, .. } => (completion.ticket, Some(fault)),
            Answer::Status { .. } => (completion.ticket, None),
        })
        .collect()
}

fn answer(_: &Client, job: &Job, _: Timestamp) -> Answer {
    assert_ne!(job.ticket, 13, "a test of what a panic does");
    Answer::Status { status: 200, body: String::new(), retry_after: None }
}

#[test]
fn a_panic_costs_one_attempt_and_not_the_thread() {
    let spawned = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&spawned);
    let spawn: Spawn = Arc::new(move |name, body| {
        count.fetch_add(1, Ordering::SeqCst);
        spawn_thread(name, body)
    });
    let (mut pool, bell) = pool(spawn, answer);
    for ticket in 12..=13 {
        pool.submit(job(ticket));
    }
    assert_eq!(faults(&mut pool, &bell, 2), [(12, None), (13, Some(Fault::Poison))]);
    pool.recall(1);
    pool.submit(job(14));
    assert_eq!(faults(&mut pool, &bell, 1), [(14, None)]);
    assert_eq!(spawned.load(Ordering::SeqCst), 1);
}

#[test]
fn without_a_thread_a_job_completes_as_our_own_fault() {
    let spawn: Spawn = Arc::new(|_, _| Err(io::ErrorKind::WouldBlock.into()));
    let (mut pool, bell) = pool(spawn, answer);
    for ticket in 1..=2 {
        pool.submit(job(ticket));
        assert_eq!(faults(&mut pool, &bell, 1), [(ticket, Some(Fault::Internal))]);
    }
}

#[test]
fn threads_above_a_lowered_limit_end_and_jobs_still_complete() {
    let alive = |pool: &Pool| pool.shared.state().alive;
    let (mut pool, bell) = pool(Arc::new(spawn_thread), |_, _, _| {
        thread::sleep(Duration::from_millis(20));
        Answer::Status { status: 200, body: String::new(), retry_after: None }
    });
    pool.configure(&Egress::default(), 8);
    for ticket in 0..32 {
        pool.submit(job(ticket));
    }
    faults(&mut pool, &bell, 16);
    assert!(alive(&pool) > 2);
    pool.configure(&Egress::default(), 2);
    for ticket in 32..64 {
        pool.submit(job(ticket));
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    while alive(&pool) > 2 {
        assert!(Instant::now() < deadline, "{} threads are alive", alive(&pool));
        thread::yield_now();
    }
    for _ in 0..10 {
        pool.submit(job(99));
    }
    assert!(alive(&pool) <= 2);
}

/// Requests in flight now, and the most there were.
static AT_WORK: Mutex<(usize, usize)> = Mutex::new((0, 0));

#[test]
fn an_endpoint_at_its_limit_leaves_the_other_threads_to_others() {
    let (mut pool, bell) = pool(Arc::new(spawn_thread), |_, job, _| {
        if job.endpoint.id == 1 {
            let mut at_work = AT_WORK.lock().unwrap();
            at_work.0 += 1;
            at_work.1 = at_work.1.max(at_work.0);
            drop(at_work);
            thread::sleep(Duration::from_millis(5));
            AT_WORK.lock().unwrap().0 -= 1;
        }
        Answer::Status { status: 200, body: String::new(), retry_after: None }
    });
    pool.configure(&Egress::default(), 8);
    for ticket in 0..20 {
        pool.submit(Job { limit: 2, ..job(ticket) });
    }
    let other = Arc::new(Endpoint { id: 2, ..Endpoint::clone(&job(0).endpoint) });
    pool.submit(Job { endpoint: other, ..job(99) });
    let order: Vec<u64> = faults(&mut pool, &bell, 21).into_iter().map(|(ticket, _)| ticket).collect();
    assert!(order.iter().position(|&ticket| ticket == 99) < Some(10), "{order:?}");
    assert_eq!(AT_WORK.lock().unwrap().1, 2);
}

#[test]
fn recall_takes_back_what_has_not_started_and_nothing_else() {
    static HOLD: Mutex<()> = Mutex::new(());
    let hold = HOLD.lock().unwrap();
    let (mut pool, bell) = pool(Arc::new(spawn_thread), |_, _, _| {
        drop(HOLD.lock());
        Answer::Status { status: 200, body: String::new(), retry_after: None }
    });
    pool.configure(&Egress::default(), 8);
    for ticket in 1..=5 {
        pool.submit(Job { limit: 2, ..job(ticket) });
    }
    while pool.shared.state().jobs.len() > 3 {
        thread::yield_now();
    }
    assert_eq!(pool.recall(7), Vec::<u64>::new());
    assert_eq!(pool.recall(1), [3, 4, 5]);
    drop(hold);
    let mut done: Vec<u64> = faults(&mut pool, &bell, 2).into_iter().map(|(ticket, _)| ticket).collect();
    done.sort_unstable();
    assert_eq!(done, [1, 2]);
}

#[test]
fn after_an_answer_that_is_no_success_nothing_starts_before_the_recall() {
    let (mut pool, bell) = pool(Arc::new(spawn_thread), |_, job, _| {
        let status = if job.ticket == 1 { 429 } else { 200 };
        Answer::Status { status, body: String::new(), retry_after: None }
    });
    for ticket in 1..=3 {
        pool.submit(Job { limit: 1, ..job(ticket) });
    }
    assert_eq!(faults(&mut pool, &bell, 1), [(1, None)]);
    assert_eq!(pool.recall(1), [2, 3]);
    pool.submit(job(4));
    assert_eq!(faults(&mut pool, &bell, 1), [(4, None)]);
}
