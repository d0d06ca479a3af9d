//! Heartbeats of the daemon's threads, and the watchdog that goes by them.
//!
//! Reads: a counter of each thread, which the thread raises once per round of its loop. Yields: what `/readyz`, `/status`,
//! `rustok_obsd_thread_silent_seconds` and systemd's watchdog report; the end of the process where a thread panics or is
//! silent past its bound. Costs: a relaxed store per round of a thread; one wake-up of the watchdog every two seconds.
//!
//! A thread registers itself: [`Heartbeats::register`] yields its [`Beat`]. The watchdog compares counters, not times: a
//! thread reads no clock, and a process that was stopped, or whose machine was suspended, is judged by the watchdog's own
//! rounds, of which none took place meanwhile.

mod keep;
mod last_words;
mod notify;
mod panic;
#[cfg(test)]
mod process_tests;
pub mod queue;
#[cfg(test)]
mod tests;
mod watchdog;

use std::{
    cell::Cell,
    marker::PhantomData,
    sync::{
        Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use serde::Serialize;
use thiserror::Error;

pub use {
    keep::keep,
    last_words::{end, exit_after},
    notify::Notify,
    panic::{install as install_panic_hook, panics},
    watchdog::{TICK, Watchdog},
};

/// What the silence of a thread costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Late {
    /// Past its bound the process ends, and so it does if the thread panics or ends unasked.
    Ends,
    /// `/readyz` says so. For what a restart would not cure: a reader that a file of another user holds up.
    Unready,
    /// It is shown in `/status` and the metrics. For threads that may block by design.
    Shown,
}

/// Why the process ends.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Fault {
    /// A thread is silent past its bound.
    #[error(
        "thread {name} has been silent for {} s, its bound is {} s: it hangs. The daemon ends, and systemd starts it again (Restart=on-failure); if it comes back, report it with the log before this line, and with /proc/PID/task/TID/{{wchan,stack}} of the thread",
        silent.as_secs(), bound.as_secs()
    )]
    Hung {
        /// The thread.
        name: &'static str,
        /// For how long, by the watchdog's rounds.
        silent: Duration,
        /// How long it may be.
        bound: Duration,
    },
    /// A thread panicked.
    #[error(
        "thread {name} panicked, see the line before. The daemon ends, and systemd starts it again (Restart=on-failure); please report it with the log"
    )]
    Panicked {
        /// The thread.
        name: &'static str,
    },
    /// A thread returned although the daemon goes on.
    #[error(
        "thread {name} ended although nobody asked it to. The daemon ends, and systemd starts it again (Restart=on-failure); please report it with the log"
    )]
    Ended {
        /// The thread.
        name: &'static str,
    },
}

/// One thread.
#[derive(Debug)]
struct Pulse {
    name: &'static str,
    bound: Duration,
    late: Late,
    /// Raised by 2 per round; odd while the thread waits without a bound.
    count: AtomicU64,
    /// `count` at the watchdog's last look.
    seen: AtomicU64,
    /// Since when `count` has stood still, by the watchdog's rounds.
    silent_ms: AtomicU64,
}

impl Pulse {
    fn silent(&self) -> Duration {
        Duration::from_millis(self.silent_ms.load(Ordering::Relaxed))
    }

    /// Notes whether it moved within the time that the watchdog answers for.
    fn look(&self, credit: Duration) {
        let count = self.count.load(Ordering::Relaxed);
        let moved = self.seen.swap(count, Ordering::Relaxed) != count;
        let silent = if moved || count % 2 == 1 { Duration::ZERO } else { self.silent() + credit };
        self.silent_ms.store(u64::try_from(silent.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

type OnFault = Box<dyn Fn(&Fault) + Send + Sync>;

struct Inner {
    pulses: Mutex<Vec<Arc<Pulse>>>,
    stopping: AtomicBool,
    on_fault: OnceLock<OnFault>,
}

/// The threads that are watched. Clones share them.
#[derive(Clone)]
pub struct Heartbeats(Arc<Inner>);

impl Default for Heartbeats {
    fn default() -> Self {
        Self(Arc::new(Inner { pulses: Mutex::default(), stopping: AtomicBool::new(false), on_fault: OnceLock::new() }))
    }
}

/// Those of this process. A room registers its threads here, wherever it is; without a daemon nobody watches them.
#[must_use]
pub fn process() -> &'static Heartbeats {
    static PROCESS: LazyLock<Heartbeats> = LazyLock::new(Heartbeats::default);
    &PROCESS
}

/// A thread as `/status` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Its name.
    pub name: &'static str,
    /// `alive`, `waiting` (without a bound, for work) or `late`: silent for more than half of its bound.
    pub state: &'static str,
    /// Since when it has been silent.
    pub silent_seconds: u64,
    /// How long it may be.
    pub bound_seconds: u64,
}

impl Heartbeats {
    /// A thread that the daemon cannot go on without; silent for longer than `bound`, it ends the process.
    #[must_use = "a thread that drops its beat counts as ended"]
    pub fn register(&self, name: &'static str, bound: Duration) -> Beat {
        self.register_as(name, bound, Late::Ends)
    }

    /// A thread, and what its silence costs.
    #[must_use = "a thread that drops its beat counts as ended"]
    pub fn register_as(&self, name: &'static str, bound: Duration, late: Late) -> Beat {
        let (count, seen, silent_ms) = (AtomicU64::new(2), AtomicU64::new(0), AtomicU64::new(0));
        let pulse = Arc::new(Pulse { name, bound, late, count, seen, silent_ms });
        self.pulses().push(Arc::clone(&pulse));
        Beat { pulse, board: self.clone(), one_thread: PhantomData }
    }

    /// What happens at a fault; the first call counts. Without one nothing does.
    pub fn on_fault(&self, act: impl Fn(&Fault) + Send + Sync + 'static) {
        let _ = self.0.on_fault.set(Box::new(act));
    }

    /// From now on threads end because they were asked to, and none of them is judged.
    pub fn stopping(&self) {
        self.0.stopping.store(true, Ordering::Release);
    }

    /// Names of the threads that are still there.
    #[must_use]
    pub fn names(&self) -> Vec<&'static str> {
        self.pulses().iter().map(|pulse| pulse.name).collect()
    }

    /// All threads.
    #[must_use]
    pub fn report(&self) -> Vec<Report> {
        let report = |pulse: &Arc<Pulse>| {
            let silent = pulse.silent();
            let state = match pulse.count.load(Ordering::Relaxed) % 2 {
                1 => "waiting",
                _ if silent * 2 > pulse.bound => "late",
                _ => "alive",
            };
            let (silent_seconds, bound_seconds) = (silent.as_secs(), pulse.bound.as_secs());
            Report { name: pulse.name, state, silent_seconds, bound_seconds }
        };
        self.pulses().iter().map(report).collect()
    }

    /// For `/readyz`: a thread that should have reported long since makes the daemon unready before it ends it.
    ///
    /// # Errors
    /// The thread, and for how long it has been silent.
    pub fn ready(&self) -> Result<(), String> {
        let late = |pulse: &&Arc<Pulse>| pulse.late != Late::Shown && pulse.silent() * 2 > pulse.bound;
        self.pulses().iter().find(late).map_or(Ok(()), |pulse| {
            let (silent, bound) = (pulse.silent().as_secs(), pulse.bound.as_secs());
            Err(format!("thread {} has been silent for {silent} s, its bound is {bound} s", pulse.name))
        })
    }

    /// The watchdog's look at all threads, `credit` after its last one. Yields the first that hangs.
    pub fn look(&self, credit: Duration) -> Option<Fault> {
        let pulses = self.pulses();
        pulses.iter().for_each(|pulse| pulse.look(credit));
        if self.is_stopping() {
            return None;
        }
        let hangs = |pulse: &&Arc<Pulse>| pulse.late == Late::Ends && pulse.silent() > pulse.bound;
        let hung = |pulse: &Arc<Pulse>| Fault::Hung { name: pulse.name, silent: pulse.silent(), bound: pulse.bound };
        pulses.iter().find(hangs).map(hung)
    }

    /// See [`Heartbeats::stopping`].
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.0.stopping.load(Ordering::Acquire)
    }

    fn fail(&self, fault: &Fault) {
        if let Some(act) = self.0.on_fault.get() {
            act(fault);
        }
    }

    fn pulses(&self) -> MutexGuard<'_, Vec<Arc<Pulse>>> {
        self.0.pulses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The heartbeat of one thread, which carries it with it until its end.
pub struct Beat {
    pulse: Arc<Pulse>,
    board: Heartbeats,
    /// The counter has one writer.
    one_thread: PhantomData<Cell<()>>,
}

impl Beat {
    /// Once per round: a relaxed store.
    pub fn alive(&self) {
        let count = self.pulse.count.load(Ordering::Relaxed);
        self.pulse.count.store((count | 1).wrapping_add(1), Ordering::Relaxed);
    }

    /// From now until the guard goes the thread waits for work, for however long.
    #[must_use = "the thread waits as long as the guard lives"]
    pub fn idle(&self) -> Idle<'_> {
        self.pulse.count.store(self.pulse.count.load(Ordering::Relaxed) | 1, Ordering::Relaxed);
        Idle(self)
    }

    /// Does `work` in a runtime of one thread, and beats as long as that runtime polls its tasks.
    pub async fn beside<T>(&self, work: impl Future<Output = T>) -> T {
        let pulse = async {
            loop {
                self.alive();
                tokio::time::sleep(self.pulse.bound / 8).await;
            }
        };
        tokio::select! {
            done = work => done,
            never = pulse => never,
        }
    }

    /// The thread ends as it should.
    pub fn done(self) {
        self.leave();
    }

    /// Yields whether it was still there.
    fn leave(&self) -> bool {
        let mut pulses = self.board.pulses();
        let at = pulses.iter().position(|pulse| Arc::ptr_eq(pulse, &self.pulse));
        at.map(|at| pulses.swap_remove(at)).is_some()
    }
}

impl Drop for Beat {
    fn drop(&mut self) {
        if !self.leave() || self.pulse.late != Late::Ends {
            return;
        }
        let name = self.pulse.name;
        if std::thread::panicking() {
            self.board.fail(&Fault::Panicked { name });
        } else if !self.board.is_stopping() {
            self.board.fail(&Fault::Ended { name });
        }
    }
}

/// The thread waits, see [`Beat::idle`].
pub struct Idle<'a>(&'a Beat);

impl Drop for Idle<'_> {
    fn drop(&mut self) {
        self.0.alive();
    }
}
