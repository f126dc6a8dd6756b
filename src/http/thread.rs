//! How threads are started.

use std::io;
use std::sync::Arc;
use std::thread;

/// Starts a thread of this name. The worker's implementation blocks all signals around [`spawn_thread`], so that no
/// handler ever runs off the main thread; it is called from the main thread and from the pool's own.
pub type Spawn = Arc<dyn Fn(String, Box<dyn FnOnce() + Send>) -> io::Result<()> + Send + Sync>;

/// Enough for a TLS handshake in a debug build, several times over.
const STACK_BYTES: usize = 512 * 1024;

/// Starts a detached thread with the stack size that the pool needs.
///
/// # Errors
/// When the operating system has no thread for us.
pub fn spawn_thread(name: String, body: Box<dyn FnOnce() + Send>) -> io::Result<()> {
    thread::Builder::new().name(name).stack_size(STACK_BYTES).spawn(body).map(drop)
}
