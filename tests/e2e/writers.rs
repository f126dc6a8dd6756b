//! Load: sessions that insert rows until they are told to stop, whatever happens to the server meanwhile.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use postgres::{Client, NoTls};

use crate::scene::Scene;
use crate::wait::millis;

/// Running writers. Row ids are counted here and never used twice: a sequence would go back after a crash.
pub struct Writers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    address: String,
    insert: String,
    session: String,
    pause: Duration,
    next: AtomicI64,
    stop: AtomicBool,
    acknowledged: Mutex<BTreeSet<i64>>,
}

impl Writers {
    /// Starts `n` sessions that insert into the scene's table, with a pause after each row. `session` are statements
    /// at the start of each session.
    pub fn start(scene: &Scene<'_>, n: usize, session: &str, pause: Duration) -> Self {
        let shared = Arc::new(Shared {
            address: format!("host={} user=postgres dbname=postgres", scene.cluster.home().display()),
            insert: scene.sql("INSERT INTO public.{} VALUES ($1, 'written under load')"),
            session: session.to_owned(),
            pause,
            next: AtomicI64::new(1),
            stop: AtomicBool::new(false),
            acknowledged: Mutex::default(),
        });
        let spawn = |_| {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || {
                while !shared.stop.load(Ordering::Relaxed) {
                    // The server may be down: then try again.
                    if shared.write().is_err() {
                        std::thread::sleep(millis(20));
                    }
                }
            })
        };
        Self { threads: (0..n).map(spawn).collect(), shared }
    }

    /// Rows whose COMMIT was answered.
    pub fn acknowledged(&self) -> BTreeSet<i64> {
        self.shared.acknowledged.lock().unwrap().clone()
    }

    /// Stops them; answers the rows whose COMMIT was answered.
    pub fn stop(mut self) -> BTreeSet<i64> {
        self.end();
        self.acknowledged()
    }

    fn end(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    /// Inserts rows until an error.
    fn write(&self) -> Result<(), postgres::Error> {
        let mut client = Client::connect(&self.address, NoTls)?;
        client.batch_execute(&self.session)?;
        let insert = client.prepare(&self.insert)?;
        while !self.stop.load(Ordering::Relaxed) {
            let id = self.next.fetch_add(1, Ordering::Relaxed);
            client.execute(&insert, &[&id])?;
            self.acknowledged.lock().expect("the acknowledged rows").insert(id);
            std::thread::sleep(self.pause);
        }
        Ok(())
    }
}
