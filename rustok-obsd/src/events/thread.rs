//! The thread that keeps the ring from filling up.
//!
//! Reads: the ring's descriptor, and one that tells it to end. Yields: nothing of its own. Costs: two wake-ups a second on
//! an idle host.

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    sync::Arc,
    thread::{Builder, JoinHandle},
    time::Duration,
};

use super::EventSource;
use crate::liveness;

/// How long events wait that did not wake the thread; a scrape does not wait for it.
const PAUSE: Duration = Duration::from_millis(500);
/// How long a drain may take: it shares the ring with scrapes, and subscribers are quick.
const BOUND: Duration = Duration::from_secs(60);

/// The running thread. Dropping it ends it.
pub struct EventThread {
    kick: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl EventThread {
    /// Starts it.
    ///
    /// # Errors
    /// No descriptor or thread is left.
    pub fn start(source: Arc<EventSource>) -> io::Result<Self> {
        let ring = source.wakes()?;
        // SAFETY: plain integers; the result is checked.
        let kick = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if kick < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a descriptor that was just made, and that nobody else has.
        let kick = Arc::new(unsafe { OwnedFd::from_raw_fd(kick) });
        let end = Arc::clone(&kick);
        let run = move || {
            let beat = liveness::process().register("events", BOUND);
            while !wait(&ring, &end) {
                beat.alive();
                source.drain();
            }
            source.drain();
            beat.done();
        };
        let thread = Builder::new().name("events".into()).spawn(run)?;
        Ok(Self { kick, thread: Some(thread) })
    }

    /// Ends it, once it has handed on what is in the ring.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: a valid buffer of eight bytes. A full counter would be readable all the same.
        unsafe { libc::write(self.kick.as_raw_fd(), one.as_ptr().cast(), one.len()) };
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of kernel events panicked; please report it with the log");
        }
    }
}

impl Drop for EventThread {
    fn drop(&mut self) {
        self.end();
    }
}

/// Waits until the programs wake us, the pause is over, or the end has come; true for the end.
fn wait(ring: &OwnedFd, end: &OwnedFd) -> bool {
    let poll = |fd: &OwnedFd| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let mut fds = [poll(ring), poll(end)];
    let timeout = i32::try_from(PAUSE.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: two valid pollfds for the duration of the call. An error or a signal is a wake-up without events.
    unsafe { libc::poll(fds.as_mut_ptr(), 2, timeout) };
    fds[1].revents != 0
}
