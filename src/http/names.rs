//! Asking the system for the addresses of a name, never longer than there is time.
//!
//! A lookup cannot be interrupted: it takes as long as the system's resolver does (`timeout` and `attempts` in
//! resolv.conf, 10 s by default, for each server). So it runs on a thread of its own, and whoever asks waits until a
//! deadline. Callers that ask for one name at the same time share one lookup, also one that hangs.
//!
//! When there is no answer about a name, either its own name servers are broken, which is the endpoint's fault, or the
//! resolver is down, which is ours. **To tell them apart, the resolver is asked for a name that cannot exist.** One
//! that says so is alive (RFC 6761, section 6.4). Without this, a domain that lost its name servers would never run
//! out of attempts.

use std::collections::HashMap;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{fmt, io};

use super::failure::{Failure, is_our_own};
use super::thread::spawn_thread;
use crate::outcome::Fault;

/// Cannot exist. The dot at the end keeps the search list away.
const PROBE: &str = "webhook-pg-probe.invalid.";
/// What is kept of the time for the probe: a quarter, up to this much.
const PROBE_TIME: Duration = Duration::from_secs(2);
/// Lookups that may hang at the same time.
const MAX_LOOKUPS: usize = 256;

/// How names are looked up. The system's way, except in tests.
pub(super) type Lookup = Arc<dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync>;

/// The lookups of one client.
pub(super) struct Names {
    lookup: Lookup,
    running: Mutex<HashMap<String, Arc<Slot>>>,
}

/// Where the answer to one lookup will stand.
#[derive(Default)]
struct Slot {
    found: Mutex<Option<Found>>,
    ready: Condvar,
}

#[derive(Clone)]
enum Found {
    Addresses(Vec<IpAddr>),
    /// The resolver says that there is no such name, or no address for it.
    Nothing(String),
    /// The resolver has no answer.
    Silence(String),
    /// It never got to the resolver.
    Ours(String),
}

impl Names {
    pub(super) fn new(lookup: Lookup) -> Self {
        Self { lookup, running: Mutex::default() }
    }

    /// The system's resolver.
    pub(super) fn of_the_system() -> Self {
        Self::new(Arc::new(|name| {
            Ok((name, 0).to_socket_addrs()?.map(|address| address.ip()).collect::<Vec<_>>())
        }))
    }

    /// All addresses of this name, at least one.
    pub(super) fn addresses(
        self: &Arc<Self>,
        name: &str,
        until: Option<Instant>,
    ) -> Result<Vec<IpAddr>, Failure> {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let kept = left.map_or(Duration::ZERO, |left| (left / 4).min(PROBE_TIME));
        let why = match self.ask(name, until.and_then(|until| until.checked_sub(kept))) {
            Some(Found::Addresses(found)) if !found.is_empty() => return Ok(found),
            Some(Found::Addresses(_)) => return Err(Failure::new(Fault::Dns, "the name has no address")),
            Some(Found::Nothing(why)) => return Err(Failure::new(Fault::Dns, why)),
            Some(Found::Ours(why)) => return Err(Failure::new(Fault::Internal, why)),
            Some(Found::Silence(why)) => why,
            None => "the lookup took too long".to_owned(),
        };
        match self.ask(PROBE, until) {
            Some(Found::Nothing(_) | Found::Addresses(_)) => Err(Failure::new(Fault::Dns, why)),
            _ => Err(Failure::new(Fault::Internal, format!("our resolver does not answer: {why}"))),
        }
    }

    /// `None`: no answer in time. The lookup goes on, and the next caller finds it.
    fn ask(self: &Arc<Self>, name: &str, until: Option<Instant>) -> Option<Found> {
        let mut running = self.running();
        let slot = match running.get(name) {
            Some(slot) => Arc::clone(slot),
            None if running.len() >= MAX_LOOKUPS => {
                return Some(Found::Ours(format!("{MAX_LOOKUPS} lookups hang")));
            }
            None => {
                let slot = Arc::new(Slot::default());
                let (names, mine, wanted) = (Arc::clone(self), Arc::clone(&slot), name.to_owned());
                let body = move || {
                    let found = Found::of((names.lookup)(&wanted));
                    names.running().remove(&wanted);
                    mine.put(found);
                };
                // A thread of the pool starts it, so it has inherited that all signals are blocked.
                if let Err(error) = spawn_thread("webhook_pg dns".to_owned(), Box::new(body)) {
                    return Some(Found::Ours(format!("no thread: {error}")));
                }
                running.insert(name.to_owned(), Arc::clone(&slot));
                slot
            }
        };
        drop(running);
        slot.wait(until)
    }

    fn running(&self) -> MutexGuard<'_, HashMap<String, Arc<Slot>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Names").field("running", &self.running().len()).finish_non_exhaustive()
    }
}

impl Slot {
    fn put(&self, found: Found) {
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
        self.ready.notify_all();
    }

    fn wait(&self, until: Option<Instant>) -> Option<Found> {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if found.is_some() {
                return found.clone();
            }
            found = match until.map(|until| until.saturating_duration_since(Instant::now())) {
                None => self.ready.wait(found).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => return None,
                Some(left) => self.ready.wait_timeout(found, left).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
    }
}

impl Found {
    fn of(answer: io::Result<Vec<IpAddr>>) -> Self {
        match answer {
            Ok(addresses) => Self::Addresses(addresses),
            Err(error) if is_our_own(&error) || error.raw_os_error().is_some() => {
                Self::Ours(error.to_string())
            }
            Err(error) if is_silence(&error) => Self::Silence(error.to_string()),
            Err(error) => Self::Nothing(error.to_string()),
        }
    }
}

/// EAI_AGAIN: no name server had an answer. The standard library keeps only the text of that code, glibc's in English
/// (the worker runs with `lc_messages = C`); in another language it counts as the endpoint's fault, the lesser mistake.
fn is_silence(error: &io::Error) -> bool {
    error.to_string().contains("Temporary failure in name resolution")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    const SILENCE: &str = "failed to lookup address information: Temporary failure in name resolution";
    const NOTHING: &str = "failed to lookup address information: Name or service not known";

    fn names(lookup: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static) -> Arc<Names> {
        Arc::new(Names::new(Arc::new(lookup)))
    }

    fn no(text: &'static str) -> io::Result<Vec<IpAddr>> {
        Err(io::Error::other(text))
    }

    fn soon() -> Option<Instant> {
        Some(Instant::now() + Duration::from_millis(400))
    }

    fn fault(names: &Arc<Names>) -> Fault {
        names.addresses("example.com", soon()).unwrap_err().fault
    }

    /// Never answers.
    fn hang() -> io::Result<Vec<IpAddr>> {
        loop {
            thread::park();
        }
    }

    #[test]
    fn a_name_that_does_not_exist_is_the_endpoints_fault() {
        assert_eq!(fault(&names(|_| no(NOTHING))), Fault::Dns);
    }

    #[test]
    fn a_name_without_addresses_is_the_endpoints_fault() {
        assert_eq!(fault(&names(|_| Ok(vec![]))), Fault::Dns);
    }

    #[test]
    fn a_resolver_that_is_down_is_our_own_fault() {
        assert_eq!(fault(&names(|_| no(SILENCE))), Fault::Internal);
    }

    #[test]
    fn a_name_with_broken_name_servers_is_the_endpoints_fault_while_the_resolver_answers() {
        assert_eq!(fault(&names(|name| no(if name == PROBE { NOTHING } else { SILENCE }))), Fault::Dns);
    }

    #[test]
    fn a_lookup_that_hangs_is_the_endpoints_fault_while_the_resolver_answers() {
        assert_eq!(fault(&names(|name| if name == PROBE { no(NOTHING) } else { hang() })), Fault::Dns);
    }

    #[test]
    fn a_resolver_that_hangs_is_our_own_fault_and_takes_no_longer_than_there_is_time() {
        let start = Instant::now();
        assert_eq!(fault(&names(|_| hang())), Fault::Internal);
        assert!(start.elapsed() < Duration::from_millis(1400), "{:?}", start.elapsed());
    }

    #[test]
    fn running_out_of_descriptors_is_our_own_fault() {
        assert_eq!(fault(&names(|_| Err(io::Error::from_raw_os_error(libc::EMFILE)))), Fault::Internal);
    }

    #[test]
    fn callers_at_the_same_time_share_one_lookup() {
        let count = Arc::new(AtomicUsize::new(0));
        let (go, gate) = mpsc::channel::<()>();
        let (counted, gate) = (Arc::clone(&count), Mutex::new(gate));
        let names = names(move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
            gate.lock().unwrap().recv().ok();
            Ok(vec![IpAddr::from([192, 0, 2, 1])])
        });
        let callers: Vec<_> = (0..8)
            .map(|_| {
                let names = Arc::clone(&names);
                thread::spawn(move || names.addresses("example.com", None).unwrap())
            })
            .collect();
        // Each caller holds the slot while it waits: two of them are the map's and the lookup's own.
        while names.running().get("example.com").is_none_or(|slot| Arc::strong_count(slot) < 10) {
            thread::yield_now();
        }
        go.send(()).unwrap();
        for caller in callers {
            assert_eq!(caller.join().unwrap(), [IpAddr::from([192, 0, 2, 1])]);
        }
        assert_eq!(count.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn lookups_that_hang_are_bounded() {
        let names = names(|_| hang());
        let now = Some(Instant::now());
        for number in 0..MAX_LOOKUPS {
            assert!(names.ask(&format!("{number}.example"), now).is_none());
        }
        assert!(matches!(names.ask("one.more.example", now), Some(Found::Ours(_))));
    }
}
