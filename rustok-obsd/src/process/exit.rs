//! Ends of processes, as the kernel tells them.
//!
//! Reads: what the kernel's programs say ([`Ended`]). Yields: what a process used after it was last looked at, or all of
//! it where it was never. Costs: a look-up an event; 100 bytes for a minute per process that ended unannounced.

use super::clock::TICK_NS;
use super::member::{COUNTS, Counts, INVOLUNTARY, MAJOR, MINOR, Member, READ, SYSTEM, USER, VOLUNTARY, WRITE};
use super::table::NOTHING;
use crate::budget::shrink;
use crate::events::{ProcessId, Totals};
use rustc_hash::FxHashMap;
use std::time::{Duration, Instant};

/// A process that has ended and was reaped: it is in procfs no more, and these are its final totals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Which.
    pub process: ProcessId,
    /// Its name, up to the first zero.
    pub comm: [u8; 16],
    /// A thread of the kernel.
    pub kernel_thread: bool,
    /// What it used.
    pub totals: Totals,
}

impl Ended {
    /// When it was forked, as `/proc/PID/stat` tells it.
    #[must_use]
    pub fn start_ticks(&self) -> u64 {
        self.process.start_ns / TICK_NS
    }

    /// What it used.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let cpu = self.totals.cpu();
        let mut counts = NOTHING;
        counts[USER] = cpu.user_ns;
        counts[SYSTEM] = cpu.system_ns;
        counts[READ] = self.totals.read_bytes;
        counts[WRITE] = self.totals.write_bytes;
        counts[MINOR] = self.totals.minor_faults;
        counts[MAJOR] = self.totals.major_faults;
        counts[VOLUNTARY] = self.totals.voluntary_switches;
        counts[INVOLUNTARY] = self.totals.involuntary_switches;
        counts
    }
}

/// How long the news of an end is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// More than these wait in no sane case.
pub const MOST: usize = 1 << 16;

/// Processes that are gone from procfs, and of whose end the kernel may still tell.
#[derive(Debug, Default)]
pub struct Ghosts {
    /// The kernel tells of ends at all.
    expected: bool,
    /// What was not remembered since there were too many.
    pub refused: u64,
    /// Those of each user.
    by_user: FxHashMap<u32, usize>,
    gone: FxHashMap<(u32, u64), Ghost>,
    /// Parents of processes that are about to end.
    parents: FxHashMap<(u32, u64), (u32, Instant)>,
}

/// A process that is gone.
#[derive(Clone, Copy, Debug)]
pub struct Ghost {
    /// Its group.
    pub group: Option<u32>,
    user: u32,
    /// What it used when last looked at.
    counts: Counts,
    /// It was seen with more threads than one.
    threaded: bool,
    since: Instant,
}

impl Ghost {
    /// What it used since. Where it had several threads, scrapes have told the switches of the main thread, and the totals
    /// are those of all: the difference would be what the others did in all their lives, told at once at the end. None
    /// is told then, since the kernel does not say which of them are the main thread's.
    #[must_use]
    pub fn rest(&self, totals: &Counts) -> Counts {
        let mut rest = NOTHING;
        for at in 0..COUNTS {
            rest[at] = totals[at].saturating_sub(self.counts[at]);
        }
        if self.threaded {
            (rest[VOLUNTARY], rest[INVOLUNTARY]) = (0, 0);
        }
        rest
    }
}

impl Ghosts {
    /// The kernel tells of ends.
    pub fn expect_ends(&mut self) {
        self.expected = true;
    }

    /// A process is gone.
    pub fn add(&mut self, member: &Member, group: Option<u32>) {
        if !self.expected {
            return;
        }
        let Member { pid, stat, counts, threaded, user, .. } = *member;
        // Nobody but root has more than is free then.
        let of_user = self.by_user.entry(user).or_default();
        let free = MOST.saturating_sub(self.gone.len());
        if free == 0 || (user != 0 && *of_user >= free) {
            self.refused += 1;
            return;
        }
        let ghost = Ghost { group, user, counts, threaded, since: Instant::now() };
        if self.gone.insert((pid, stat.start_ticks), ghost).is_none() {
            *of_user += 1;
        }
    }

    /// The process of whose end was told now.
    pub fn take(&mut self, pid: u32, start_ticks: u64) -> Option<Ghost> {
        let ghost = self.gone.remove(&(pid, start_ticks))?;
        if let Some(of_user) = self.by_user.get_mut(&ghost.user) {
            *of_user = of_user.saturating_sub(1);
        }
        Some(ghost)
    }

    /// Remembers a parent.
    pub fn note_parent(&mut self, pid: u32, start_ticks: u64, parent: u32) {
        if self.parents.len() < MOST {
            self.parents.insert((pid, start_ticks), (parent, Instant::now()));
        } else {
            self.refused += 1;
        }
    }

    /// The parent that was remembered.
    pub fn parent(&mut self, ended: &Ended) -> Option<u32> {
        self.parents.remove(&(ended.process.pid, ended.start_ticks())).map(|(parent, _)| parent)
    }

    /// Forgets those whose news were lost.
    pub fn expire(&mut self) {
        let Self { gone, by_user, parents, .. } = self;
        by_user.clear();
        gone.retain(|_, ghost| {
            let stays = ghost.since.elapsed() < PATIENCE;
            if stays {
                *by_user.entry(ghost.user).or_default() += 1;
            }
            stays
        });
        parents.retain(|_, (_, since)| since.elapsed() < PATIENCE);
        shrink(gone);
        shrink(parents);
    }
}
