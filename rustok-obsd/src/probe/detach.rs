//! Closes links in the background: each close waits for the kernel, some 0.1 s, and nobody should wait with it.
//!
//! Reads: descriptors of links. Yields: nothing; [`Detacher::finish`] waits for those under way. Costs: up to
//! [`MOST_THREADS`] threads while there is something to close, none otherwise.

use std::{
    collections::VecDeque,
    os::fd::OwnedFd,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Instant,
};

/// Links of one grace period are closed together.
const MOST_THREADS: usize = 16;

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<OwnedFd>,
    /// Threads; each closes one link at a time.
    threads: usize,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    done: Condvar,
}

/// See the module's head.
#[derive(Clone, Debug, Default)]
pub struct Detacher(Arc<Shared>);

impl Detacher {
    /// Closes them, later.
    pub fn close(&self, links: impl IntoIterator<Item = OwnedFd>) {
        let mut state = self.0.lock();
        state.waiting.extend(links);
        while state.threads < MOST_THREADS.min(state.waiting.len()) {
            let shared = Arc::clone(&self.0);
            match thread::Builder::new().name("detach".into()).spawn(move || shared.work()) {
                Ok(_) => state.threads += 1,
                Err(error) => {
                    // The kernel closes them when the daemon ends, or the next call does.
                    tracing::warn!("no thread to detach {} probes in: {error}", state.waiting.len());
                    break;
                }
            }
        }
    }

    /// Waits until all are closed, at most until `deadline`. Yields how many are not.
    pub fn finish(&self, deadline: Instant) -> usize {
        let mut state = self.0.lock();
        loop {
            let open = state.waiting.len() + state.threads;
            let left = deadline.saturating_duration_since(Instant::now());
            if open == 0 || left.is_zero() {
                return open;
            }
            state = self.0.done.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut state = self.lock();
        while let Some(link) = state.waiting.pop_front() {
            drop(state);
            drop(link);
            state = self.lock();
        }
        state.threads -= 1;
        drop(state);
        self.done.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn all_are_closed_before_the_end() {
        let detacher = Detacher::default();
        let (mut readers, writers): (Vec<_>, Vec<_>) =
            (0..100).map(|_| std::io::pipe().unwrap()).map(|(reader, writer)| (reader, OwnedFd::from(writer))).unzip();
        detacher.close(writers);
        assert_eq!(detacher.finish(Instant::now() + Duration::from_secs(60)), 0);
        for reader in &mut readers {
            // The end of the stream: nobody holds the other side.
            assert_eq!(std::io::Read::read(reader, &mut [0]).unwrap(), 0);
        }
    }
}
