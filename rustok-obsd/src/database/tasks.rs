//! Whose work a Tokio task is.
//!
//! Reads: spawns ([`Tasks::spawned`]). Yields: an [`Origin`] for each task. Costs: one map entry a task, forgotten when it
//! was not asked for in a while; a task that was forgotten, or began before the daemon watched, is of unknown origin.
//!
//! The rule: a task that reads requests from a connection works for the request under way there. Any other task works
//! for whatever the task worked for that spawned it, at the moment of the spawn. There is no other evidence, and no guess.

use super::aging::Aging;

/// Tasks that are remembered at least.
const REMEMBERED: usize = 32 * 1024;

/// Whose work something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The request with this number, which may have ended since.
    Request(u64),
    /// It is known that no request began it.
    Background,
    /// Nobody knows.
    Unknown(Ignorance),
}

/// Why an origin is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ignorance {
    /// The thread polled no task, or the place of the task's id is not known.
    NoTask,
    /// The task's spawn was not seen: it began before the daemon watched, or was forgotten, or its record was lost.
    NoSpawn,
    /// Records were lost since the request began: it may have ended. Or more requests were under way than are followed.
    Lossy,
    /// The task serves a connection on which no request can be told: another protocol, or none is under way.
    Connection,
    /// The connection to the database is read and written by a task of its own, whoever asks.
    SharedConnection,
}

impl Ignorance {
    /// How many reasons there are.
    pub const COUNT: usize = 5;
}

/// The tasks of all targets.
#[derive(Debug)]
pub struct Tasks {
    origins: Aging<(u32, u64), Origin>,
}

impl Default for Tasks {
    fn default() -> Self {
        Self { origins: Aging::new(REMEMBERED) }
    }
}

impl Tasks {
    /// A task was spawned by work of this origin.
    pub fn spawned(&mut self, tgid: u32, child: u64, origin: Origin) {
        self.origins.insert((tgid, child), origin);
    }

    /// Whose work a task is that reads from no connection itself.
    pub fn origin(&mut self, tgid: u32, task: u64) -> Origin {
        self.origins.get_mut((tgid, task)).copied().unwrap_or(Origin::Unknown(Ignorance::NoSpawn))
    }

    /// The process ended.
    pub fn forget(&mut self, tgid: u32) {
        self.origins.retain(|(process, _), _| *process != tgid);
    }
}
