//! Runs work that may never return, on threads that nobody waits for.
//!
//! Reads: jobs; each belongs to a user, and has a bound. Yields: its result, or [`Overdue`] once the bound has passed; a
//! result that comes later is dropped. Costs: some threads. What a process maps, mounts or links can make a read of its
//! files or memory wait for ever (FUSE, userfaultfd, a dead file server); such a thread is left to its wait, another one
//! takes its place, and the user whose process it is gets no more of them than [`STUCK_PER_USER`], so that nobody else is
//! kept waiting. Jobs of a user who has as many are refused at once.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use crate::target::FileNode;

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
/// Between two lines on threads that cannot be started.
const QUIET: Duration = Duration::from_secs(60);

/// What a job is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Whose share of the threads it takes.
    pub user: u32,
    /// The process that it reads.
    pub pid: u32,
    /// What the process ran when the job was submitted.
    pub file: Option<FileNode>,
}

/// Why there is no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Overdue {
    /// It was begun, and did not return in time.
    #[error("it takes longer than {0:?}: a file or memory of the process does not answer")]
    Late(Duration),
    /// It met a fault of the daemon's own.
    #[error("it met a fault of the daemon, which is in its log")]
    Panicked,
    /// It was not begun: earlier jobs for the same user do not return, or too many wait.
    #[error("earlier jobs for the same user do not return, or too many of them wait")]
    Refused,
}

type Work = Box<dyn FnOnce() + Send>;
type GiveUp = Box<dyn FnOnce(Overdue) + Send>;

struct Job {
    subject: Subject,
    bound: Duration,
    work: Work,
    give_up: GiveUp,
}

/// What a thread does now.
struct Running {
    subject: Subject,
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
    /// When the log last said that no thread could be started.
    said: Option<Instant>,
}

impl State {
    fn stuck(&self) -> usize {
        self.running.values().filter(|running| running.give_up.is_none()).count()
    }

    /// Threads that work for a user, and those of them that are stuck.
    fn of_user(&self, user: u32) -> (usize, usize) {
        let of_user = || self.running.values().filter(move |running| running.subject.user == user);
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
    /// Does `work`, then calls `done` with its result, on that thread; or with [`Overdue`], on the thread that calls
    /// [`Self::tick`] or this one. `done` should not wait.
    pub fn submit<T: Send + 'static>(
        &self,
        subject: Subject,
        bound: Duration,
        work: impl FnOnce() -> T + Send + 'static,
        done: impl FnOnce(Result<T, Overdue>) + Send + 'static,
    ) {
        let done = Arc::new(Mutex::new(Some(done)));
        let take = |done: &Mutex<Option<_>>| done.lock().unwrap_or_else(PoisonError::into_inner).take();
        let late = Arc::clone(&done);
        let job = Job {
            subject,
            bound,
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
        let user = subject.user;
        let mut state = self.0.lock();
        let waiting = state.waiting.get(&user).map_or(0, VecDeque::len);
        if state.is_barred(user) || waiting >= WAITING_PER_USER {
            state.refused += 1;
            drop(state);
            return (job.give_up)(Overdue::Refused);
        }
        state.waiting.entry(user).or_default().push_back(job);
        if waiting == 0 {
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
            let jobs = state.waiting.remove(&user).unwrap_or_default();
            state.refused += jobs.len() as u64;
            over.extend(jobs.into_iter().map(|job| (job.give_up, Overdue::Refused)));
        }
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

    /// What the threads that are stuck now are about.
    #[must_use]
    pub fn stuck(&self) -> Vec<Subject> {
        let state = self.0.lock();
        state.running.values().filter(|running| running.give_up.is_none()).map(|running| running.subject).collect()
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
                    if state.said.is_none_or(|said| said.elapsed() >= QUIET) {
                        state.said = Some(Instant::now());
                        tracing::warn!(
                            "no thread to read processes in: {error}; raise the limit of processes (ulimit -u)"
                        );
                    }
                }
            }
        }
    }

    fn run(self: Arc<Self>, number: u64) {
        let mut state = self.lock();
        while !state.ending {
            let Some(Job { subject, bound, work, give_up }) = state.next() else {
                state.idle += 1;
                let (after, timeout) = self.work.wait_timeout(state, IDLE).unwrap_or_else(PoisonError::into_inner);
                state = after;
                state.idle -= 1;
                if timeout.timed_out() && state.turns.is_empty() {
                    break;
                }
                continue;
            };
            let running = Running { subject, bound, until: Instant::now() + bound, give_up: Some(give_up) };
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
        let done = move |result| done.send(result).unwrap_or_default();
        aside.submit(Subject { user, pid: 1, file: None }, bound, work, done);
        (go, begins, result)
    }

    /// Waits until so many threads are stuck: some were let go.
    fn comes_back(aside: &Aside, stuck: usize) {
        let until = Instant::now() + PATIENCE;
        while aside.stuck().len() > stuck {
            assert!(Instant::now() < until, "it was let go");
            thread::yield_now();
        }
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
        // A third one waits, and is not begun; although it could wait for longer, nobody waits for it.
        let (_go, begins, third) = held(&aside, 1000, PATIENCE);
        aside.tick(Instant::now() + Duration::from_secs(6));
        for (_, result) in &stuck {
            assert_eq!(result.recv_timeout(PATIENCE).unwrap(), Err(Overdue::Late(Duration::from_secs(5))));
        }
        assert_eq!(third.recv_timeout(PATIENCE).unwrap(), Err(Overdue::Refused));
        assert_eq!(begins.recv_timeout(Duration::ZERO), Err(RecvTimeoutError::Disconnected));
        assert_eq!((aside.stuck().len(), aside.given_up()), (2, (2, 1)));
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
        comes_back(&aside, 0);
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

    /// As many stuck threads of a user; what lets them go.
    fn stick(aside: &Aside, user: u32, count: usize) -> Vec<mpsc::SyncSender<()>> {
        let one = || {
            let (go, begins, result) = held(aside, user, Duration::from_secs(5));
            begins.recv_timeout(PATIENCE).unwrap();
            aside.tick(Instant::now() + Duration::from_secs(6));
            assert_eq!(result.recv_timeout(PATIENCE).unwrap(), Err(Overdue::Late(Duration::from_secs(5))));
            go
        };
        std::iter::repeat_with(one).take(count).collect()
    }

    /// Whether a job of the user is begun; otherwise it has to be refused before anybody calls [`Aside::tick`].
    fn is_served(aside: &Aside, user: u32) -> bool {
        let (go, begins, result) = held(aside, user, PATIENCE);
        if let Ok(refused) = result.try_recv() {
            assert_eq!(refused, Err(Overdue::Refused));
            return false;
        }
        begins.recv_timeout(PATIENCE).unwrap();
        go.send(()).unwrap();
        result.recv_timeout(PATIENCE).unwrap().is_ok()
    }

    #[test]
    fn who_has_too_many_stuck_threads_is_refused_at_once() {
        let aside = Aside::default();
        let held = stick(&aside, 1000, STUCK_PER_USER - 1);
        assert!(is_served(&aside, 1000));
        let more = stick(&aside, 1000, 1);
        assert_eq!(aside.stuck(), vec![Subject { user: 1000, pid: 1, file: None }; STUCK_PER_USER]);
        assert!(!is_served(&aside, 1000) && is_served(&aside, 1001) && is_served(&aside, 0));
        drop((held, more));
        comes_back(&aside, 0);
        assert!(is_served(&aside, 1000));
    }

    #[test]
    fn roots_share_is_its_own() {
        let aside = Aside::default();
        let roots = stick(&aside, 0, STUCK_OF_ROOT - 1);
        assert!(is_served(&aside, 0) && is_served(&aside, 1000));
        let last = stick(&aside, 0, 1);
        assert!(!is_served(&aside, 0) && is_served(&aside, 1000));
        drop((roots, last));
    }

    #[test]
    fn all_users_but_root_share_a_total() {
        let aside = Aside::default();
        let users = 1000..1000 + (MOST_STUCK / STUCK_PER_USER) as u32;
        let mut held: Vec<_> = users.flat_map(|user| stick(&aside, user, STUCK_PER_USER)).collect();
        assert_eq!(aside.stuck().len(), MOST_STUCK);
        assert!(!is_served(&aside, 5000) && is_served(&aside, 0));
        // Who comes back makes room for all.
        held.pop();
        comes_back(&aside, MOST_STUCK - 1);
        assert!(is_served(&aside, 5000));
    }

    #[test]
    fn a_queue_has_an_end() {
        let aside = Aside::default();
        let jobs: Vec<_> = (0..WAITING_PER_USER + PER_USER + 10).map(|_| held(&aside, 7, PATIENCE)).collect();
        let refused = jobs.iter().filter(|(_, _, result)| result.try_recv() == Ok(Err(Overdue::Refused))).count();
        assert!((8..=10).contains(&refused), "{refused}");
    }
}
