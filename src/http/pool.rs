//! The threads that do HTTP.
//!
//! At most `threads` of them, each started when a job waits and nobody is idle. Jobs wait in one queue, and pass those
//! whose endpoint is at its limit; a thread that is done takes the next job without asking the main thread. **One thread
//! is roused at a time, and it rouses the next when it has taken its job and more are waiting.** So a fast receiver is
//! served by the few threads it takes, which matters (64 threads cost 40 % more CPU for each request than 8), while jobs
//! that hang get all threads up within microseconds each. The thread that went idle last is roused first.
//!
//! A thread that had nothing to do for a while ends, and closes idle connections on its way out. Threads are never
//! joined: a process that ends must not wait for a receiver. No lock is held across I/O; a panic costs one attempt.

use std::collections::{HashMap, HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant, SystemTime};
use std::{io, mem};

use super::client::Client;
use super::thread::Spawn;
use crate::engine::{Completion, Job, Transport};
use crate::event::Timestamp;
use crate::outcome::{Answer, Attempt, Fault};
use crate::settings::Egress;

/// Called from a pool thread when there is something to [collect](Transport::collect) and there was nothing before.
pub type Notify = Arc<dyn Fn() + Send + Sync>;

/// A thread without work for this long ends.
const IDLE: Duration = Duration::from_secs(10);

/// The transport of the worker: HTTP on a bounded number of threads.
pub struct Pool {
    shared: Arc<Shared>,
}

impl Pool {
    /// A pool with no threads and the default policy. Nothing is sent before [`configure`](Transport::configure)
    /// says how many threads there may be.
    pub fn new(spawn: Spawn, notify: Notify) -> Self {
        Self::with_exchange(spawn, notify, Client::attempt)
    }

    fn with_exchange(spawn: Spawn, notify: Notify, exchange: Exchange) -> Self {
        let state = State {
            jobs: VecDeque::new(),
            running: HashMap::new(),
            held: HashSet::new(),
            idle: Vec::new(),
            alive: 0,
            limit: 0,
            rousing: false,
            client: Arc::new(Client::new(&Egress::default(), 0)),
        };
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                done: Mutex::default(),
                spawn,
                notify,
                exchange,
            }),
        }
    }
}

impl Transport for Pool {
    fn configure(&mut self, egress: &Egress, threads: usize) {
        let mut state = self.shared.state();
        state.limit = threads;
        // The same policy keeps its connections.
        let old = (!state.client.obeys(egress, threads))
            .then(|| mem::replace(&mut state.client, Arc::new(Client::new(egress, threads))));
        self.shared.rouse(state);
        // The old connections close here, outside the lock.
        drop(old);
    }

    fn submit(&mut self, job: Job) {
        let mut state = self.shared.state();
        state.jobs.push_back(job);
        self.shared.rouse(state);
    }

    fn recall(&mut self, endpoint: i64) -> Vec<u64> {
        let mut state = self.shared.state();
        state.held.remove(&endpoint);
        let (recalled, jobs) =
            mem::take(&mut state.jobs).into_iter().partition(|job| job.endpoint.id == endpoint);
        state.jobs = jobs;
        let recalled: VecDeque<Job> = recalled;
        recalled.iter().map(|job| job.ticket).collect()
    }

    fn collect(&mut self, into: &mut Vec<Completion>) {
        into.append(&mut self.shared.done());
    }
}

impl State {
    /// The first job whose endpoint is neither at its limit nor held. There are never more jobs than `max_in_flight`.
    fn startable(&self) -> Option<usize> {
        let room = |job: &Job| self.running.get(&job.endpoint.id).is_none_or(|&n| n < job.limit);
        self.jobs.iter().position(|job| room(job) && !self.held.contains(&job.endpoint.id))
    }

    fn take(&mut self) -> Option<Job> {
        let job = self.jobs.remove(self.startable()?)?;
        *self.running.entry(job.endpoint.id).or_default() += 1;
        Some(job)
    }

    fn ended(&mut self, endpoint: i64) {
        if let Some(count) = self.running.get_mut(&endpoint) {
            *count -= 1;
            if *count == 0 {
                self.running.remove(&endpoint);
            }
        }
    }
}

type Exchange = fn(&Client, &Job, Timestamp) -> Answer;

struct Shared {
    state: Mutex<State>,
    done: Mutex<Vec<Completion>>,
    spawn: Spawn,
    notify: Notify,
    exchange: Exchange,
}

struct State {
    jobs: VecDeque<Job>,
    /// Requests in flight by endpoint.
    running: HashMap<i64, usize>,
    /// Endpoints whose last answer was no success: nothing of theirs starts before the main thread has seen it and recalled what
    /// waits. It may have asked us to wait.
    held: HashSet<i64>,
    /// Parked threads, the last to park at the end.
    idle: Vec<Thread>,
    alive: usize,
    limit: usize,
    /// A thread was roused or started and has not come to the queue yet.
    rousing: bool,
    client: Arc<Client>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn done(&self) -> MutexGuard<'_, Vec<Completion>> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gets one more thread to the queue if jobs wait, nobody is on the way, and there is one to get.
    fn rouse(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        if state.rousing || state.startable().is_none() {
            return;
        }
        if let Some(thread) = state.idle.pop() {
            state.rousing = true;
            drop(state);
            thread.unpark();
        } else if state.alive < state.limit {
            state.rousing = true;
            state.alive += 1;
            drop(state);
            let shared = Arc::clone(self);
            let spawned = (self.spawn)("webhook_pg http".to_owned(), Box::new(move || shared.work()));
            if let Err(error) = spawned {
                self.not_spawned(&error);
            }
        }
    }

    /// Others will take the jobs, and the next job tries again. With no others nobody would ever: the jobs fail, as
    /// a fault of our own.
    fn not_spawned(&self, error: &io::Error) {
        let mut state = self.state();
        state.rousing = false;
        state.alive -= 1;
        let orphans = if state.alive == 0 { mem::take(&mut state.jobs) } else { VecDeque::new() };
        drop(state);
        for job in orphans {
            let message = format!("no thread: {error}");
            let answer = Answer::Failed { fault: Fault::Internal, message };
            self.complete(job.ticket, Attempt { started_at: wall_clock(), duration: Duration::ZERO, answer });
        }
    }

    /// The life of a thread.
    fn work(self: Arc<Self>) {
        self.state().rousing = false;
        let mut ended = None;
        while let Some((job, client)) = self.next(ended) {
            ended = Some(job.endpoint.id);
            let (started_at, start) = (wall_clock(), Instant::now());
            // One bad job must not take the thread along, nor, as a panic across threads could, the server.
            let answer =
                catch_unwind(AssertUnwindSafe(|| (self.exchange)(&client, &job, started_at))).unwrap_or_else(
                    |_| Answer::Failed { fault: Fault::Poison, message: "the attempt panicked".to_owned() },
                );
            if !matches!(answer, Answer::Status { status: 200..=299, .. }) {
                // Before the main thread can see the answer.
                self.state().held.insert(job.endpoint.id);
            }
            self.complete(job.ticket, Attempt { started_at, duration: start.elapsed(), answer });
        }
    }

    /// Waits for a job; `None` ends the thread. `ended`: the endpoint of the request that this thread has done.
    fn next(self: &Arc<Self>, ended: Option<i64>) -> Option<(Job, Arc<Client>)> {
        let mut state = self.state();
        if let Some(endpoint) = ended {
            state.ended(endpoint);
        }
        loop {
            if state.alive > state.limit {
                state.alive -= 1;
                self.rouse(state);
                return None;
            }
            if let Some(job) = state.take() {
                let client = Arc::clone(&state.client);
                self.rouse(state);
                return Some((job, client));
            }
            let me = thread::current();
            let id = me.id();
            state.idle.push(me);
            drop(state);
            thread::park_timeout(IDLE);
            state = self.state();
            match state.idle.iter().position(|thread| thread.id() == id) {
                // Roused: whoever did it took us off the list.
                None => state.rousing = false,
                // Nothing to do for a while, or one of park's spurious returns, which are rare enough.
                Some(at) => {
                    state.idle.remove(at);
                    state.alive -= 1;
                    let client = Arc::clone(&state.client);
                    drop(state);
                    client.rest();
                    return None;
                }
            }
        }
    }

    fn complete(&self, ticket: u64, attempt: Attempt) {
        let mut done = self.done();
        let first = done.is_empty();
        done.push(Completion { ticket, attempt });
        drop(done);
        if first {
            (self.notify)();
        }
    }
}

fn wall_clock() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::try_from(since.as_micros()).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests;
