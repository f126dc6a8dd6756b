//! Threads that PostgreSQL never notices.
//!
//! A signal that the kernel hands to a helper thread runs PostgreSQL's handler there: it sets a latch off the main thread
//! (pgrx panics) or eats the wake-up of one (SIGURG). A thread inherits the mask of the thread that starts it, so all
//! signals are blocked around every start, in the main thread and in the pool's threads alike.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::sync::Arc;

use crate::http::{Notify, Spawn, spawn_thread};

/// Starts threads with all signals blocked.
pub fn spawner() -> Spawn {
    Arc::new(|name, body| with_signals_blocked(|| spawn_thread(name, body)))
}

fn with_signals_blocked<R>(run: impl FnOnce() -> R) -> R {
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigfillset initialises the set; pthread_sigmask reads it and initialises `before`.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
    }
    let result = run();
    // SAFETY: `before` was initialised above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut()) };
    result
}

/// A counter in the kernel that threads raise and the main thread waits for beside its latch.
#[derive(Debug, Clone, Copy)]
pub struct Bell(RawFd);

impl Bell {
    /// A new bell. It lives as long as the process.
    ///
    /// # Errors
    /// No file descriptor is to be had.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(Self(fd)) }
    }

    /// The descriptor to wait for.
    pub fn fd(self) -> RawFd {
        self.0
    }

    /// What a thread calls to wake the main thread.
    pub fn ringer(self) -> Notify {
        Arc::new(move || {
            let one = 1u64.to_ne_bytes();
            // SAFETY: eight bytes, as eventfd wants them. It fails only when the counter is full: then it rings anyway.
            unsafe { libc::write(self.0, one.as_ptr().cast(), one.len()) };
        })
    }

    /// Stops the ringing.
    pub fn silence(self) {
        let mut count = [0u8; 8];
        // SAFETY: eight bytes, as eventfd wants them; without ringing it fails with EAGAIN, which is as good.
        unsafe { libc::read(self.0, count.as_mut_ptr().cast(), count.len()) };
    }
}
