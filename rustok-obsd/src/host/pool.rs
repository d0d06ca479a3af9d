//! Threads for what may not come back: a system call into a dead file server, a driver that waits for its hardware.
//!
//! Reads: jobs. Yields: their results, of those that end in time ([`Pool::run`]). Costs: one wake-up of one thread where
//! nothing is stuck; a further thread for each job that does not return, up to a bound; idle threads end after a while.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::liveness::{self, Late};

/// Without a result for so long, another thread goes on with the rest.
const PATIENCE: Duration = Duration::from_millis(20);
/// An idle thread ends after this time: longer than the usual time between two scrapes.
const IDLE: Duration = Duration::from_secs(90);
/// A job that takes longer is shown in `/status`; it may never return, which is what this room is for.
const SLOW: Duration = Duration::from_secs(60);
/// Jobs run shallow code; the kernel gives memory only to the pages that are touched.
const STACK: usize = 256 * 1024;

type Job = Box<dyn FnOnce() + Send>;

/// The threads. Clones share them.
#[derive(Clone)]
pub struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    jobs: Mutex<VecDeque<Job>>,
    ready: Condvar,
    idle: AtomicUsize,
    threads: AtomicUsize,
    most: usize,
    patience: Duration,
}

impl Pool {
    /// Up to `most` threads; none is started yet.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self::with_patience(most, PATIENCE)
    }

    fn with_patience(most: usize, patience: Duration) -> Self {
        let (idle, threads) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let (jobs, ready) = (Mutex::default(), Condvar::new());
        Self { shared: Arc::new(Shared { jobs, ready, idle, threads, most, patience }) }
    }

    /// Threads that are there.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.shared.threads.load(Ordering::Relaxed)
    }

    /// Does `work` with each item, one after the other, until `deadline`; an item that takes long does not hold up the
    /// others. Yields the results in the order in which they came; an item without one was not finished, and goes on
    /// in its thread if it had begun.
    pub fn run<T, R>(
        &self,
        items: impl IntoIterator<Item = T>,
        deadline: Instant,
        work: impl Fn(T) -> R + Send + Sync + 'static,
    ) -> Vec<R>
    where
        T: Send + 'static,
        R: Send + 'static,
    {
        self.start(items, work).finish(self, deadline)
    }

    /// The same in two steps, so that the caller can do other things meanwhile.
    pub fn start<T, R>(
        &self,
        items: impl IntoIterator<Item = T>,
        work: impl Fn(T) -> R + Send + Sync + 'static,
    ) -> Running<R>
    where
        T: Send + 'static,
        R: Send + 'static,
    {
        let queue: Arc<Mutex<VecDeque<T>>> = Arc::new(Mutex::new(items.into_iter().collect()));
        let open = lock(&queue).len();
        // Each item has one result: nobody waits for a place.
        let (results, arrived) = mpsc::sync_channel(open.max(1));
        let (queued, work) = (Arc::clone(&queue), Arc::new(work));
        let worker = move || -> Job {
            let (queue, work, results) = (Arc::clone(&queued), Arc::clone(&work), results.clone());
            Box::new(move || {
                // The lock must not be held while the work is done.
                while let Some(item) = { lock(&queue).pop_front() } {
                    let unwinding = Lost(&results);
                    let result = work(item);
                    std::mem::forget(unwinding);
                    if results.send(Some(result)).is_err() {
                        return;
                    }
                }
            })
        };
        let left = Box::new(move |abandon: bool| {
            let mut queue = lock(&queue);
            if abandon {
                queue.clear();
            }
            queue.len()
        });
        let mut running = Running { arrived, open, worker: Box::new(worker), left };
        if open > 0 && !self.submit((running.worker)()) {
            running.open = 0;
        }
        running
    }

    /// Hands a job to an idle thread or a new one; false where neither is to be had.
    fn submit(&self, job: Job) -> bool {
        let shared = &self.shared;
        let mut jobs = lock(&shared.jobs);
        if shared.idle.load(Ordering::Relaxed) > jobs.len() {
            jobs.push_back(job);
            shared.ready.notify_one();
            return true;
        }
        if shared.threads.load(Ordering::Relaxed) >= shared.most {
            return false;
        }
        jobs.push_back(job);
        drop(jobs);
        shared.threads.fetch_add(1, Ordering::Relaxed);
        let thread = { Arc::clone(shared) };
        match thread::Builder::new().name("collector".into()).stack_size(STACK).spawn(move || serve(&thread)) {
            Ok(_) => true,
            Err(error) => {
                shared.threads.fetch_sub(1, Ordering::Relaxed);
                // It is the only one that nobody took: submitting happens under the scrape's own control.
                lock(&shared.jobs).pop_back();
                tracing::warn!(
                    "cannot start a thread for collectors: {error}; raise the limit of processes (ulimit -u)"
                );
                false
            }
        }
    }
}

/// Says that a result will never come, should its job panic.
struct Lost<'a, R>(&'a mpsc::SyncSender<Option<R>>);

impl<R> Drop for Lost<'_, R> {
    fn drop(&mut self) {
        // Nobody waits any more: as good.
        let _ = self.0.send(None);
    }
}

/// A run under way.
pub struct Running<R> {
    arrived: mpsc::Receiver<Option<R>>,
    /// Results that may still come, or came.
    open: usize,
    worker: Box<dyn FnMut() -> Job>,
    /// Items that nobody has begun; drops them if told so.
    left: Box<dyn Fn(bool) -> usize>,
}

impl<R> Running<R> {
    /// Waits for the results until `deadline`.
    pub fn finish(mut self, pool: &Pool, deadline: Instant) -> Vec<R> {
        let mut results = Vec::with_capacity(self.open);
        while results.len() < self.open {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.arrived.recv_timeout(pool.shared.patience.min(left)) {
                Ok(Some(result)) => results.push(result),
                Ok(None) => {
                    self.open -= 1;
                    // The panic ended its thread's turn.
                    if (self.left)(false) > 0 {
                        pool.submit((self.worker)());
                    }
                }
                Err(RecvTimeoutError::Timeout) if !left.is_zero() => {
                    if (self.left)(false) > 0 {
                        pool.submit((self.worker)());
                    }
                }
                Err(_) => break,
            }
        }
        // What nobody has begun is not to begin when nobody waits for it any more.
        (self.left)(true);
        results
    }
}

fn serve(shared: &Shared) {
    let beat = liveness::process().register_as("collector", SLOW, Late::Shown);
    loop {
        let waiting = beat.idle();
        let mut jobs = lock(&shared.jobs);
        let job = match jobs.pop_front() {
            Some(job) => job,
            None => {
                shared.idle.fetch_add(1, Ordering::Relaxed);
                let until = Instant::now() + IDLE;
                let job = loop {
                    let left = until.saturating_duration_since(Instant::now());
                    if let Some(job) = jobs.pop_front() {
                        break Some(job);
                    }
                    if left.is_zero() {
                        break None;
                    }
                    jobs = shared.ready.wait_timeout(jobs, left).unwrap_or_else(PoisonError::into_inner).0;
                };
                shared.idle.fetch_sub(1, Ordering::Relaxed);
                match job {
                    Some(job) => job,
                    None => {
                        shared.threads.fetch_sub(1, Ordering::Relaxed);
                        return;
                    }
                }
            }
        };
        drop((jobs, waiting));
        // A job that panics has said so through the panic hook, and its run learns of it.
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
    }
}

/// A mutex whose content is valid after a panic of its holder.
fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soon(ms: u64) -> Instant {
        Instant::now() + Duration::from_millis(ms)
    }

    #[test]
    fn all_items_are_done_by_one_thread_where_none_is_slow() {
        // However long one takes on a busy machine.
        let pool = Pool::with_patience(8, Duration::from_secs(60));
        for _ in 0..50 {
            let mut results = pool.run(0..100, soon(60_000), |item| item * 2);
            results.sort_unstable();
            assert_eq!(results, (0..100).map(|item| item * 2).collect::<Vec<_>>());
        }
        assert!(pool.threads() <= 2, "{}", pool.threads());
        assert!(pool.run(Vec::<u8>::new(), soon(60_000), |item| item).is_empty());
    }

    #[test]
    fn stuck_items_cost_themselves_alone() {
        let pool = Pool::with_patience(8, Duration::from_secs(1));
        let (release, stuck) = mpsc::sync_channel::<()>(1);
        let (stuck, done) = (Mutex::new(stuck), Arc::new(AtomicUsize::new(0)));
        let (counted, watched) = (Arc::clone(&done), pool.clone());
        let watch = thread::spawn(move || {
            let until = soon(60_000);
            while done.load(Ordering::SeqCst) < 18 {
                assert!(Instant::now() < until, "others wait for the stuck ones");
                thread::sleep(Duration::from_millis(10));
            }
            let threads = watched.threads();
            drop(release);
            threads
        });
        let results = pool.run(0..20, soon(60_000), move |item| {
            if item % 10 == 3 {
                let _ = lock(&stuck).recv();
            }
            counted.fetch_add(1, Ordering::SeqCst);
            item
        });
        assert_eq!((results.len(), watch.join().unwrap()), (20, 3));
        assert!(results[..18].iter().all(|item| item % 10 != 3), "{results:?}");
    }

    #[test]
    fn a_pool_whose_threads_are_all_stuck_says_so_at_once_and_recovers() {
        let pool = Pool::new(2);
        let (release, stuck) = mpsc::sync_channel::<()>(1);
        let stuck = Arc::new(Mutex::new(stuck));
        let wait = {
            let stuck = Arc::clone(&stuck);
            move |_| {
                let _ = lock(&stuck).recv();
            }
        };
        while pool.threads() < 2 {
            assert!(pool.run(0..5, soon(150), wait.clone()).is_empty());
        }
        assert!(pool.run(0..5, soon(60_000), |item| item).is_empty(), "no thread is to be had");
        drop(release);
        let until = soon(60_000);
        while pool.run(0..3, soon(1000), |item| item).len() < 3 {
            assert!(Instant::now() < until, "the threads are free again");
            thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn a_panic_loses_one_result() {
        let pool = Pool::new(4);
        let mut results = pool.run(0..6, soon(60_000), |item| {
            assert_ne!(item, 2, "on purpose");
            item
        });
        results.sort_unstable();
        assert_eq!(results, [0, 1, 3, 4, 5]);
    }
}
