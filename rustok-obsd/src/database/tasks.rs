//! Whose work a Tokio task is.
//!
//! Reads: spawns ([`Tasks::spawned`]). Yields: an [`Origin`] for each task. Costs: one map entry a task, forgotten when it
//! was not asked for in a while; a task that was forgotten, or began before the daemon watched, is of unknown origin.
//!
//! The rule: a task that reads requests from a connection works for the request under way there. Any other task works
//! for whatever the task worked for that spawned it, at the moment of the spawn. There is no other evidence, and no guess.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::aging::Aging;
use crate::budget::{Budget, Meter, Store};

/// Tasks of a target that are remembered at least, where the budget has room for them.
const REMEMBERED: usize = 32 * 1024;
/// Fewer are always remembered.
const FEW: usize = 64;
/// Bytes of a task.
const SIZE: usize = 2 * size_of::<((u32, u64), Origin)>();

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
    /// By whose budget they draw on.
    origins: FxHashMap<u32, Aging<(u32, u64), Origin>>,
    budget: Budget,
}

impl Default for Tasks {
    fn default() -> Self {
        Self { origins: FxHashMap::default(), budget: Budget::new(Store::Tasks) }
    }
}

impl Tasks {
    /// A task was spawned by work of this origin.
    pub fn spawned(&mut self, owner: u32, tgid: u32, child: u64, origin: Origin) {
        let Self { origins, budget } = self;
        let tasks = origins.entry(owner).or_insert_with(|| Aging::new(REMEMBERED));
        tasks.set_half((budget.allowance(owner) / SIZE / 2).clamp(FEW, REMEMBERED));
        let forgotten = tasks.forgotten;
        tasks.insert((tgid, child), origin);
        budget.resize(owner, tasks.len() * SIZE);
        budget.evicted(tasks.forgotten - forgotten);
    }

    /// Whose work a task is that reads from no connection itself.
    pub fn origin(&mut self, owner: u32, tgid: u32, task: u64) -> Origin {
        let known = self.origins.get_mut(&owner).and_then(|tasks| tasks.get_mut((tgid, task)).copied());
        known.unwrap_or(Origin::Unknown(Ignorance::NoSpawn))
    }

    /// The process ended.
    pub fn forget(&mut self, owner: u32, tgid: u32) {
        let Some(tasks) = self.origins.get_mut(&owner) else { return };
        if owner == tgid {
            self.origins.remove(&owner);
            return self.budget.resize(owner, 0);
        }
        tasks.retain(|(process, _), _| *process != tgid);
        self.budget.resize(owner, tasks.len() * SIZE);
    }

    /// Gives the room of a wave back.
    pub fn shrink(&mut self) {
        self.origins.values_mut().for_each(Aging::shrink);
    }

    /// What the owner has counts for this user, who is not trusted.
    pub fn join(&mut self, owner: u32, user: Option<u32>) {
        self.budget.join(owner, user);
    }

    /// Figures of the budget.
    pub fn meter(&self) -> Arc<Meter> {
        self.budget.meter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_that_spawns_without_end_forgets_its_own_tasks_alone() {
        let mut tasks = Tasks::default();
        tasks.spawned(2, 2, 7, Origin::Request(5));
        for task in 0..1_000_000 {
            tasks.spawned(1, 1, task, Origin::Background);
        }
        assert_eq!(tasks.origin(2, 2, 7), Origin::Request(5));
        assert_eq!(tasks.origin(1, 1, 999_999), Origin::Background);
        assert_eq!(tasks.origin(1, 1, 0), Origin::Unknown(Ignorance::NoSpawn));
        let meter = tasks.meter();
        assert!(meter.used() <= Store::Tasks.limit() as u64 / 2 + 1000 && meter.evicted() > 900_000, "{meter:?}");
        tasks.forget(1, 1);
        assert_eq!(meter.used(), SIZE as u64);
    }
}
