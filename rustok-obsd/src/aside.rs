//! Runs work that may never return, on threads that nobody waits for.
//!
//! Reads: jobs; each belongs to a user, and has a bound. Yields: its result, or [`Overdue`] once the bound has passed; a
//! result that comes later is dropped. Costs: some threads. What a process maps, mounts or links can make a read of its
//! files or memory wait for ever (FUSE, userfaultfd, a dead file server); such a thread is left to its wait, another one
//! takes its place, and the user whose process it is gets no more of them than [`STUCK_PER_USER`], so that nobody else is
//! kept waiting.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// Threads at work, without those that are stuck.
const THREADS: usize = 4;
/// Of these at most so many work for one user: the rest is free for others.
const PER_USER: usize = 2;
/// Stuck threads of one user; further jobs of that user are refused until one of them returns.
pub const STUCK_PER_USER: usize = 2;
/// The same for root, whose processes are many and who could do worse than to keep us waiting.
const STUCK_OF_ROOT: usize = 16;
/// Stuck threads in total, of all users but root.
const MOST_STUCK: usize = 64;
/// Jobs of one user that wait.
const WAITING_PER_USER: usize = 4096;
/// An idle thread ends after this time.
const IDLE: Duration = Duration::from_secs(10);

/// Why there is no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Overdue {
    /// It was begun, and did not return in time.
    #[error("it takes longer than {0:?}: a file or memory of the process does not answer")]
    Late(Duration),
    /// It met a fault of the daemon's own.
    #[error("it met a fault of the daemon, which is in its log")]
    Panicked,
    /// It was not begun: earlier reads for the same user do not return.
    #[error("earlier reads of processes of the same user do not return")]
    Refused,
}

type Work = Box<dyn FnOnce() + Send>;
type GiveUp = Box<dyn FnOnce(Overdue) + Send>;

struct Job {
    user: u32,
    bound: Duration,
    submitted: Instant,
    work: Work,
    give_up: GiveUp,
}

/// What a thread does now.
struct Running {
    user: u32,
    bound: Duration,
    until: Instant,
    /// Taken when the bound has passed: the thread is stuck from then on.
    give_up: Option<GiveUp>,
}

#[derive(Default)]
struct State {
    /// Waiting jobs by user, in the order of submission.
    waiting: HashMap<u32, VecDeque<Job>>,
    /// Users whose turn comes, each once.
    turns: VecDeque<u32>,
    running: HashMap<u64, Running>,
    next_thread: u64,
    threads: usize,
    idle: usize,
    ending: bool,
    refused: u64,
    late: u64,
}

impl State {
    fn stuck(&self) -> usize {
        self.running.values().filter(|running| running.give_up.is_none()).count()
    }

    /// Threads that work for a user, and those of them that are stuck.
    fn of_user(&self, user: u32) -> (usize, usize) {
        let of_user = || self.running.values().filter(move |running| running.user == user);
        (of_user().count(), of_user().filter(|running| running.give_up.is_none()).count())
    }

    /// Whether nothing more is begun for the user now.
    fn is_barred(&self, user: u32) -> bool {
        let most = if user == 0 { STUCK_OF_ROOT } else { STUCK_PER_USER };
        user != 0 && self.stuck() >= MOST_STUCK || self.of_user(user).1 >= most
    }

    /// The next job, users in turn.
    fn next(&mut self) -> Option<Job> {
        for _ in 0..self.turns.len() {
            let user = self.turns.pop_front()?;
            let (running, stuck) = self.of_user(user);
            let may = !self.is_barred(user) && running - stuck < PER_USER;
            let Some(jobs) = self.waiting.get_mut(&user) else { continue };
            let job = if may { jobs.pop_front() } else { None };
            if jobs.is_empty() {
                self.waiting.remove(&user);
            } else {
                self.turns.push_back(user);
            }
            if job.is_some() {
                return job;
            }
        }
        None
    }
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    work: Condvar,
}

/// See the module's head. Dropping it ends the idle threads; those that are stuck end with the process.
#[derive(Default)]
pub struct Aside(Arc<Shared>);

impl Aside {
    /// Does `work` for `user`, then calls `done` with its result, on that thread; or with [`Overdue`], on the thread
    /// that calls [`Self::tick`]. `done` should not wait.
    pub fn submit<T: Send + 'static>(
        &self,
        user: u32,
        bound: Duration,
        work: impl FnOnce() -> T + Send + 'static,
        done: impl FnOnce(Result<T, Overdue>) + Send + 'static,
    ) {
        let done = Arc::new(Mutex::new(Some(done)));
        let take = |done: &Mutex<Option<_>>| done.lock().unwrap_or_else(PoisonError::into_inner).take();
        let late = Arc::clone(&done);
        let job = Job {
            user,
            bound,
            submitted: Instant::now(),
            work: Box::new(move || {
                let result = work();
                if let Some(done) = take(&done) {
                    done(Ok(result));
                }
            }),
            give_up: Box::new(move |overdue| {
                if let Some(done) = take(&late) {
                    done(Err(overdue));
                }
            }),
        };
        let mut state = self.0.lock();
        let jobs = state.waiting.entry(user).or_default();
        if jobs.len() >= WAITING_PER_USER {
            state.refused += 1;
            drop(state);
            return (job.give_up)(Overdue::Refused);
        }
        let first = jobs.is_empty();
        jobs.push_back(job);
        if first {
            state.turns.push_back(user);
        }
        self.0.staff(&mut state);
    }

    /// Gives up what is overdue. To be called some times a second.
    pub fn tick(&self, now: Instant) {
        let mut over: Vec<(GiveUp, Overdue)> = Vec::new();
        let mut state = self.0.lock();
        for running in state.running.values_mut().filter(|running| now >= running.until) {
            over.extend(running.give_up.take().map(|give_up| (give_up, Overdue::Late(running.bound))));
        }
        state.late += over.len() as u64;
        let barred: Vec<u32> = state.waiting.keys().copied().filter(|user| state.is_barred(*user)).collect();
        for user in barred {
            let Some(jobs) = state.waiting.get_mut(&user) else { continue };
            let (late, still): (VecDeque<Job>, VecDeque<Job>) =
                std::mem::take(jobs).into_iter().partition(|job| now.duration_since(job.submitted) >= job.bound);
            *jobs = still;
            state.refused += late.len() as u64;
            over.extend(late.into_iter().map(|job| (job.give_up, Overdue::Refused)));
        }
        state.waiting.retain(|_, jobs| !jobs.is_empty());
        let State { waiting, turns, .. } = &mut *state;
        turns.retain(|user| waiting.contains_key(user));
        self.0.staff(&mut state);
        drop(state);
        over.into_iter().for_each(|(give_up, overdue)| give_up(overdue));
    }

    /// Jobs that did not return in time, and jobs that were refused, since the start.
    #[must_use]
    pub fn given_up(&self) -> (u64, u64) {
        let state = self.0.lock();
        (state.late, state.refused)
    }

    /// Threads that are stuck now.
    #[must_use]
    pub fn stuck(&self) -> usize {
        self.0.lock().stuck()
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.ending = true;
        state.waiting.clear();
        state.turns.clear();
        self.0.work.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes a thread for what waits, or starts one.
    fn staff(self: &Arc<Self>, state: &mut State) {
        if state.turns.is_empty() {
            return;
        }
        if state.idle > 0 {
            self.work.notify_one();
        } else if state.threads - state.stuck() < THREADS {
            let (shared, number) = (Arc::clone(self), state.next_thread);
            state.next_thread += 1;
            match thread::Builder::new().name("aside".into()).spawn(move || shared.run(number)) {
                Ok(_) => state.threads += 1,
                // What waits is begun by a thread that there is, or by a later tick.
                Err(error) => {
                    tracing::warn!("no thread to read processes in: {error}; raise the limit of processes (ulimit -u)");
                }
            }
        }
    }

    fn run(self: Arc<Self>, number: u64) {
        let mut state = self.lock();
        while !state.ending {
            let Some(Job { user, bound, work, give_up, .. }) = state.next() else {
                state.idle += 1;
                let (after, timeout) = self.work.wait_timeout(state, IDLE).unwrap_or_else(PoisonError::into_inner);
                state = after;
                state.idle -= 1;
                if timeout.timed_out() && state.turns.is_empty() {
                    break;
                }
                continue;
            };
            let running = Running { user, bound, until: Instant::now() + bound, give_up: Some(give_up) };
            state.running.insert(number, running);
            // More may wait, for other threads.
            self.staff(&mut state);
            drop(state);
            // The panic hook has logged it; nobody waits for an answer that does not come.
            let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_err();
            state = self.lock();
            if panicked && let Some(give_up) = state.running.get_mut(&number).and_then(|running| running.give_up.take())
            {
                drop(state);
                give_up(Overdue::Panicked);
                state = self.lock();
            }
            // Whoever was stuck comes back to a place that another thread has taken.
            let was_stuck = state.running.remove(&number).is_some_and(|running| running.give_up.is_none());
            if was_stuck && state.threads - state.stuck() > THREADS {
                break;
            }
        }
        state.threads -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{self, Receiver, RecvTimeoutError};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    /// Lets a job go, says when it was begun, and what came of it.
    type Held = (mpsc::SyncSender<()>, Receiver<()>, Receiver<Result<u32, Overdue>>);

    /// Submits a job that waits until the test lets it go.
    fn held(aside: &Aside, user: u32, bound: Duration) -> Held {
        let (go, wait) = mpsc::sync_channel::<()>(1);
        let (begun, begins) = mpsc::sync_channel(1);
        let (done, result) = mpsc::sync_channel(1);
        let work = move || {
            let _ = begun.send(());
            let _ = wait.recv();
            user
        };
        // The test may have gone on without it.
        aside.submit(user, bound, work, move |result| done.send(result).unwrap_or_default());
        (go, begins, result)
    }

    #[test]
    fn a_job_that_does_not_return_is_given_up_and_others_go_on() {
        let aside = Aside::default();
        let mut stuck = Vec::new();
        for _ in 0..STUCK_PER_USER {
            let (go, begins, result) = held(&aside, 1000, Duration::from_secs(5));
            begins.recv_timeout(PATIENCE).unwrap();
            stuck.push((go, result));
        }
        // A third one waits, and is not begun.
        let (_go, begins, third) = held(&aside, 1000, Duration::from_secs(5));
        aside.tick(Instant::now() + Duration::from_secs(6));
        for (_, result) in &stuck {
            assert_eq!(result.recv_timeout(PATIENCE).unwrap(), Err(Overdue::Late(Duration::from_secs(5))));
        }
        assert_eq!(third.recv_timeout(PATIENCE).unwrap(), Err(Overdue::Refused));
        assert_eq!(begins.recv_timeout(Duration::ZERO), Err(RecvTimeoutError::Disconnected));
        assert_eq!((aside.stuck(), aside.given_up()), (2, (2, 1)));
        // Others are served by as many threads as before.
        let others: Vec<_> = (1..=4).map(|user| held(&aside, 2000 + user, PATIENCE)).collect();
        for (go, begins, result) in others {
            begins.recv_timeout(PATIENCE).unwrap();
            go.send(()).unwrap();
            assert!(result.recv_timeout(PATIENCE).unwrap().is_ok());
        }
        // What comes back late is dropped, and its user is served again.
        for (go, result) in stuck {
            go.send(()).unwrap();
            assert!(result.recv_timeout(PATIENCE).is_err(), "told once");
        }
        let (go, begins, result) = held(&aside, 1000, PATIENCE);
        begins.recv_timeout(PATIENCE).unwrap();
        go.send(()).unwrap();
        assert_eq!(result.recv_timeout(PATIENCE).unwrap(), Ok(1000));
    }

    #[test]
    fn one_user_does_not_take_all_threads() {
        let aside = Aside::default();
        let many: Vec<_> = (0..100).map(|_| held(&aside, 1000, PATIENCE)).collect();
        let begun = |jobs: &[Held]| jobs.iter().filter(|(_, begins, _)| begins.try_recv().is_ok()).count();
        let (go, begins, result) = held(&aside, 1001, PATIENCE);
        begins.recv_timeout(PATIENCE).unwrap();
        go.send(()).unwrap();
        assert_eq!(result.recv_timeout(PATIENCE).unwrap(), Ok(1001));
        assert!(begun(&many) <= PER_USER);
        // All of them come in turn.
        for (go, _, result) in many {
            go.send(()).unwrap();
            assert_eq!(result.recv_timeout(PATIENCE).unwrap(), Ok(1000));
        }
    }

    #[test]
    fn a_queue_has_an_end() {
        let aside = Aside::default();
        let jobs: Vec<_> = (0..WAITING_PER_USER + PER_USER + 10).map(|_| held(&aside, 7, PATIENCE)).collect();
        let refused = jobs.iter().filter(|(_, _, result)| result.try_recv() == Ok(Err(Overdue::Refused))).count();
        assert!((8..=10).contains(&refused), "{refused}");
    }
}
