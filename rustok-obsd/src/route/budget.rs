//! Bytes that the learners of all targets may hold.
//!
//! Reads: what each takes and gives back. Yields: whether there is more. Costs: an atomic addition.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Of one target, in any case: what others hold takes nothing from it.
const GUARANTEED: usize = 32 << 10;
/// Of one target at most.
const MOST: usize = 512 << 10;
/// Of all targets, beyond what is guaranteed.
const TOTAL: usize = 16 << 20;

/// What is left for all. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Budget(Arc<AtomicUsize>);

/// One target's part.
#[derive(Debug, Default)]
pub(super) struct Share {
    budget: Budget,
    held: usize,
}

impl Share {
    pub(super) const fn of(budget: Budget) -> Self {
        Self { budget, held: 0 }
    }

    /// Takes so many bytes, if there are.
    pub(super) fn take(&mut self, bytes: usize) -> bool {
        let held = self.held + bytes;
        let beyond = held.saturating_sub(GUARANTEED) - self.beyond();
        if held > MOST || self.budget.0.load(Ordering::Relaxed) + beyond > TOTAL {
            return false;
        }
        self.budget.0.fetch_add(beyond, Ordering::Relaxed);
        self.held = held;
        true
    }

    /// Gives bytes back.
    pub(super) fn give(&mut self, bytes: usize) {
        let before = self.beyond();
        self.held = self.held.saturating_sub(bytes);
        self.budget.0.fetch_sub(before - self.beyond(), Ordering::Relaxed);
    }

    /// What is beyond the guarantee.
    fn beyond(&self) -> usize {
        self.held.saturating_sub(GUARANTEED)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.give(self.held);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_guarantee_whatever_the_others_hold_and_what_is_given_back_is_there_again() {
        let budget = Budget::default();
        let mut greedy: Vec<_> = (0..100).map(|_| Share::of(budget.clone())).collect();
        for share in &mut greedy {
            while share.take(1000) {}
            assert!(share.held <= MOST);
        }
        assert!(greedy.iter().all(|share| share.held > GUARANTEED - 1000));
        let mut late = Share::of(budget.clone());
        assert!(late.take(GUARANTEED) && !late.take(TOTAL / 64));
        greedy.clear();
        assert!(late.take(TOTAL / 64));
        drop(late);
        assert_eq!(budget.0.load(Ordering::Relaxed), 0);
    }
}
