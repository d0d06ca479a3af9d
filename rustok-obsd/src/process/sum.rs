//! What several processes are and used together.
//!
//! Reads: [`Member`]s. Yields: [`Sum`]. Costs: a few additions a member.

use super::member::{Counts, Member};

/// Names of the states.
pub const STATES: [&str; 5] = ["Running", "Sleeping", "Waiting", "Zombie", "Other"];

/// The members of a group as of now.
#[derive(Clone, Debug, Default)]
pub struct Sum {
    /// How many.
    pub processes: u64,
    /// Their threads.
    pub threads: u64,
    /// In each of [`STATES`].
    pub states: [u64; STATES.len()],
    /// Memory, bytes.
    pub resident: u64,
    /// Memory, bytes.
    pub virtual_bytes: u64,
    /// Memory, bytes.
    pub swapped: u64,
    /// Shares of resident memory and swap, bytes.
    pub shares: [u64; 2],
    /// Open descriptors.
    pub descriptors: u64,
    /// Open descriptors of the limit, where that is nearest.
    pub worst_ratio: f64,
    /// Start of the oldest, ticks since boot.
    pub oldest: Option<u64>,
    /// What was used so far, those that are gone included.
    pub counts: Counts,
}

impl Sum {
    /// Forgets the members, not what was used.
    pub fn restart(&mut self) {
        *self = Self { counts: self.counts, ..Self::default() };
    }

    /// One more member; its counts are not added.
    pub fn add(&mut self, member: &Member) {
        self.processes += 1;
        self.threads += member.stat.threads;
        let state = match member.stat.state {
            b'R' => 0,
            b'S' => 1,
            b'D' => 2,
            b'Z' => 3,
            _ => 4,
        };
        self.states[state] += 1;
        self.resident += member.resident();
        self.virtual_bytes += member.stat.virtual_bytes;
        self.swapped += member.swapped;
        for (sum, share) in self.shares.iter_mut().zip(member.shares) {
            *sum += share;
        }
        let open = member.descriptors.unwrap_or(0);
        self.descriptors += open;
        if let Some(most) = member.most_descriptors.filter(|most| *most > 0) {
            self.worst_ratio = self.worst_ratio.max(open as f64 / most as f64);
        }
        let start = member.stat.start_ticks;
        self.oldest = Some(self.oldest.map_or(start, |oldest| oldest.min(start)));
    }
}
