//! Reads targets' memory where nobody waits for it.
//!
//! Reads: the memory of processes, by jobs that are handed to [`Reader::submit`]. Yields: what each job makes of it, by a
//! channel of the job's own. Costs: a lock and a small allocation a job; threads that end when idle, and one helper
//! process for each read that is under way ([`super::memory_helper`]).
//!
//! A process decides what lies behind its addresses: a page that never comes holds up whoever reads it, for good. So a
//! read has [`DEADLINE`], one process has one read under way, the processes of one user have [`PER_USER`], and a process
//! whose read hangs is not read until the kernel lets go of it. Who asks too much is refused, and that is counted. A
//! thread and half of the places to wait in are root's alone; users share the rest ([`Spender`]).

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use super::executable::FileNode;
use super::memory::{Memory, ProcessMemory};
use super::spender::Spender;

/// From the submission of a job to the end of its last read.
pub const DEADLINE: Duration = Duration::from_secs(1);
/// Jobs that run at a time.
pub const THREADS: usize = 4;
/// Of these, for the processes of one user: others find a thread whatever that user's processes do.
pub const PER_USER: usize = 2;
/// The others are root's.
const OF_USERS: usize = THREADS - 1;
/// Jobs that wait: of root's processes, of all other users', and of one process.
const WAITING_OF_ROOT: usize = 128;
const WAITING_OF_USERS: usize = 128;
const WAITING_OF_ONE: usize = 8;
/// An idle thread ends after this time.
const IDLE: Duration = Duration::from_secs(30);
const STACK: usize = 256 * 1024;

/// Why a job was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Too many jobs wait.
    #[error("too many reads of process {0} or of others of its user wait already; try again later")]
    Full(u32),
    /// An earlier read hangs.
    #[error("an earlier read of process {0} (or of others of its user) hangs; it is read again when that one ends")]
    Hangs(u32),
    /// Nothing is left to read with.
    #[error(
        "process {0} is not read: the process that starts the helpers which read targets' memory is gone, and the daemon is \
         confined and cannot start another one; restart the daemon"
    )]
    NoHelper(u32),
    /// No thread could be started.
    #[error("no thread to read process {0} with: raise the limit of processes (ulimit -u) or free memory")]
    NoThread(u32),
}

/// A read that hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hanging {
    /// The process whose memory it is.
    pub pid: u32,
    /// What that ran when the read began.
    pub file: Option<FileNode>,
}

/// How memory is reached.
pub trait Access: Send + Sync {
    /// The memory of a process; reads of it end by `until` where that can be had.
    fn memory(&self, pid: u32, until: Instant) -> Box<dyn Memory + '_>;

    /// Whether a process must not be read now, because a read of it, or too many of its user's, hang.
    fn hangs(&self, _pid: u32, _spender: Spender) -> bool {
        false
    }

    /// Reads that hang.
    fn hanging(&self) -> Vec<Hanging> {
        Vec::new()
    }

    /// Whether nothing can be read any more.
    fn lost(&self) -> bool {
        false
    }
}

/// Reads in the reader's own threads. A read that hangs keeps its thread, and this process from ending: for tests and
/// commands that a person waits for.
#[derive(Clone, Copy, Debug)]
pub struct InProcess;

impl Access for InProcess {
    fn memory(&self, pid: u32, _until: Instant) -> Box<dyn Memory + '_> {
        Box::new(ProcessMemory::new(pid))
    }
}

type Work = Box<dyn FnOnce(&dyn Memory) + Send>;

struct Job {
    pid: u32,
    spender: Spender,
    until: Instant,
    work: Work,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Job>,
    /// Process, whose it is and deadline of each job that runs.
    running: Vec<(u32, Spender, Instant)>,
    threads: usize,
    idle: usize,
}

struct Shared {
    access: Box<dyn Access>,
    state: Mutex<State>,
    ready: Condvar,
    done: AtomicU64,
    late: AtomicU64,
    refused: AtomicU64,
}

/// What the reader did since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReaderStats {
    /// Jobs that ended in time.
    pub done: u64,
    /// Jobs that did not, or never began in time.
    pub late: u64,
    /// Jobs that were not taken.
    pub refused: u64,
    /// Reads that hang now.
    pub hanging: u64,
}

/// See the module's head. Clones share the threads.
#[derive(Clone)]
pub struct Reader {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("stats", &self.stats()).finish()
    }
}

impl Reader {
    /// A reader without threads yet.
    #[must_use]
    pub fn new(access: impl Access + 'static) -> Self {
        let shared = Shared {
            access: Box::new(access),
            state: Mutex::default(),
            ready: Condvar::new(),
            done: AtomicU64::new(0),
            late: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Has `work` done with the memory of a process, soon and elsewhere. It may never be done: `work` is dropped then, and
    /// with it the sending end of whatever channel it holds. A read that is late fails with
    /// [`super::MemoryError::TimedOut`]; the caller keeps a deadline of its own all the same.
    ///
    /// # Errors
    /// [`Refused`]; nothing was done.
    pub fn submit(&self, pid: u32, work: impl FnOnce(&dyn Memory) + Send + 'static) -> Result<(), Refused> {
        let result = self.enqueue(pid, Box::new(work));
        if result.is_err() {
            self.shared.refused.fetch_add(1, Ordering::Relaxed);
        }
        result
    }

    /// The same, with the answer by a channel of its own: it disconnects where there will be none.
    ///
    /// # Errors
    /// [`Refused`]; nothing was done.
    pub fn ask<T: Send + 'static>(
        &self,
        pid: u32,
        work: impl FnOnce(&dyn Memory) -> T + Send + 'static,
    ) -> Result<mpsc::Receiver<T>, Refused> {
        let (answer, answered) = mpsc::sync_channel(1);
        self.submit(pid, move |memory| _ = answer.send(work(memory)))?;
        Ok(answered)
    }

    /// Counts so far.
    #[must_use]
    pub fn stats(&self) -> ReaderStats {
        let count = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        let Shared { access, done, late, refused, .. } = &*self.shared;
        let now = Instant::now();
        let overdue = lock(&self.shared.state).running.iter().filter(|(_, _, until)| *until < now).count();
        // One that was given up holds a thread, too, but for a moment.
        let hanging = access.hanging().len().max(overdue) as u64;
        ReaderStats { done: count(done), late: count(late), refused: count(refused), hanging }
    }

    /// Reads that hang now: who waits for the locks of these processes' memory waits with them.
    #[must_use]
    pub fn hanging(&self) -> Vec<Hanging> {
        self.shared.access.hanging()
    }

    fn enqueue(&self, pid: u32, work: Work) -> Result<(), Refused> {
        let shared = &self.shared;
        let now = Instant::now();
        {
            let mut state = lock(&shared.state);
            shared.drop_late(&mut state, now);
            if state.waiting.iter().filter(|job| job.pid == pid).count() >= WAITING_OF_ONE {
                return Err(Refused::Full(pid));
            }
        }
        let spender = spender(pid);
        if shared.access.hangs(pid, spender) {
            return Err(Refused::Hangs(pid));
        }
        if shared.access.lost() {
            return Err(Refused::NoHelper(pid));
        }
        let mut state = lock(&shared.state);
        if state.running.iter().any(|(running, _, until)| *running == pid && *until < now) {
            return Err(Refused::Hangs(pid));
        }
        if !state.has_room(spender) {
            return Err(Refused::Full(pid));
        }
        let job = Job { pid, spender, until: now + DEADLINE, work };
        state.waiting.push_back(job);
        if state.idle > 0 || state.threads >= THREADS {
            shared.ready.notify_one();
            return Ok(());
        }
        state.threads += 1;
        drop(state);
        let thread = Arc::clone(shared);
        let builder = thread::Builder::new().name("memory".into()).stack_size(STACK);
        if let Err(error) = builder.spawn(move || thread.serve()) {
            let mut state = lock(&shared.state);
            state.threads -= 1;
            if state.threads == 0 {
                state.waiting.clear();
                tracing::warn!("cannot start the thread that reads targets' memory: {error}");
                return Err(Refused::NoThread(pid));
            }
        }
        Ok(())
    }
}

impl Shared {
    fn serve(&self) {
        let mut idle_since = Instant::now();
        let mut state = lock(&self.state);
        loop {
            self.drop_late(&mut state, Instant::now());
            let Some(job) = state.take() else {
                let left = IDLE.saturating_sub(idle_since.elapsed());
                if left.is_zero() {
                    state.threads -= 1;
                    return;
                }
                state.idle += 1;
                state = self.ready.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
                state.idle -= 1;
                continue;
            };
            let Job { pid, spender, until, work } = job;
            let running = (pid, spender, until);
            state.running.push(running);
            drop(state);
            let memory = self.access.memory(pid, until);
            // A job that panics has said so through the panic hook; its answer never comes, as if it were late.
            let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&*memory))).is_ok();
            drop(memory);
            let count = if ended && Instant::now() <= until { &self.done } else { &self.late };
            count.fetch_add(1, Ordering::Relaxed);
            state = lock(&self.state);
            if let Some(at) = state.running.iter().position(|other| *other == running) {
                state.running.swap_remove(at);
            }
            idle_since = Instant::now();
            // Jobs of this process or user that nobody else could take.
            self.ready.notify_one();
        }
    }

    /// Nobody waits for these any more.
    fn drop_late(&self, state: &mut State, now: Instant) {
        while state.waiting.front().is_some_and(|job| job.until < now) {
            state.waiting.pop_front();
            self.late.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl State {
    /// Whether one more job may wait: of a user as many as are then free.
    fn has_room(&self, spender: Spender) -> bool {
        let waiting = |of: &dyn Fn(Spender) -> bool| self.waiting.iter().filter(|job| of(job.spender)).count();
        if spender.is_root() {
            return waiting(&Spender::is_root) < WAITING_OF_ROOT;
        }
        let free = WAITING_OF_USERS.saturating_sub(waiting(&|other| !other.is_root()));
        waiting(&|other| other == spender) < free
    }

    /// The first job whose process has no other one running and whose user has not its share.
    fn take(&mut self) -> Option<Job> {
        let running = &self.running;
        let of_users = running.iter().filter(|(_, spender, _)| !spender.is_root()).count();
        let at = self.waiting.iter().position(|job| {
            running.iter().all(|(pid, ..)| *pid != job.pid)
                && running.iter().filter(|(_, spender, _)| *spender == job.spender).count() < PER_USER
                && (job.spender.is_root() || of_users < OF_USERS)
        })?;
        self.waiting.remove(at)
    }
}

/// Whose process it is, by the pid that reads it.
pub(super) fn spender(pid: u32) -> Spender {
    Spender::of(Path::new("/proc"), pid)
}

/// A mutex whose content is valid after a panic of its holder.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;
