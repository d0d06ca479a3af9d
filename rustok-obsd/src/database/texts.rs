//! Statements of all targets: a cache for each, within one budget.
//!
//! Reads: SQL text as captured, and whose it is. Yields: shared [`Statement`]s. Costs: a look-up by an integer on top of
//! [`StatementCache`]; the budget is looked at when a text is new.

use crate::budget::{Budget, Meter, Store, shrink};
use crate::statement::{Dialect, Statement, StatementCache};
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// See the module's head.
#[derive(Debug)]
pub(super) struct Texts {
    caches: FxHashMap<u32, StatementCache>,
    budget: Budget,
}

impl Default for Texts {
    fn default() -> Self {
        Self { caches: FxHashMap::default(), budget: Budget::new(Store::Statements) }
    }
}

impl Texts {
    /// The statement of a raw text of this owner. `truncated`: it is the beginning of a longer one.
    pub(super) fn get(&mut self, owner: u32, raw: &[u8], truncated: bool, dialect: Dialect) -> Arc<Statement> {
        let cache = self.caches.entry(owner).or_default();
        match cache.find(raw, truncated, dialect) {
            Some(statement) => statement,
            None => self.add(owner, raw, truncated, dialect),
        }
    }

    fn add(&mut self, owner: u32, raw: &[u8], truncated: bool, dialect: Dialect) -> Arc<Statement> {
        let Self { caches, budget } = self;
        let cache = caches.entry(owner).or_default();
        let before = cache.stats();
        let statement = cache.add(raw, truncated, dialect, budget.allowance(owner));
        budget.resize(owner, cache.bytes());
        let now = cache.stats();
        budget.evicted(now.evictions - before.evictions);
        if now.shortened > before.shortened {
            budget.refuse();
        }
        statement
    }

    /// The owner is gone.
    pub(super) fn forget(&mut self, owner: u32) {
        self.caches.remove(&owner);
        self.budget.resize(owner, 0);
        shrink(&mut self.caches);
    }

    /// Forgets statements that nobody holds any more.
    pub(super) fn sweep(&mut self) {
        for (owner, cache) in &mut self.caches {
            cache.sweep();
            self.budget.resize(*owner, cache.bytes());
        }
    }

    /// What the owner has counts for this user, who is not trusted.
    pub(super) fn join(&mut self, owner: u32, user: Option<u32>) {
        self.budget.join(owner, user);
    }

    pub(super) fn meter(&self) -> Arc<Meter> {
        self.budget.meter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn long(number: usize) -> Vec<u8> {
        format!("SELECT column_{number} FROM t WHERE {}", "b = c AND ".repeat(1600)).into_bytes()
    }

    #[test]
    fn a_target_that_floods_leaves_the_statements_of_another_alone() {
        let mut texts = Texts::default();
        let good = |texts: &mut Texts| -> Vec<_> {
            (0..100).map(|n| texts.get(2, format!("SELECT a{n} FROM good").as_bytes(), false, Dialect::ANY)).collect()
        };
        let first = good(&mut texts);
        let misses = |texts: &Texts| texts.caches[&2].stats().misses;
        let mut kept = Vec::new();
        for number in 0..2000 {
            kept.push(texts.get(1, &long(number), false, Dialect::ANY));
        }
        let meter = texts.meter();
        assert!(texts.budget.held(1) <= Store::Statements.limit() / 2, "{}", texts.budget.held(1));
        assert!(meter.refused() > 1000 && meter.evicted() > 100, "{meter:?}");
        let before = misses(&texts);
        assert!(first.iter().zip(good(&mut texts)).all(|(a, b)| Arc::ptr_eq(a, &b)));
        assert_eq!(misses(&texts), before, "none of them was analysed again");
        // It goes on, and nobody holds what it sent.
        drop(kept);
        texts.sweep();
        assert!(texts.budget.held(1) <= Store::Statements.limit() / 2);
        texts.forget(1);
        assert_eq!(texts.budget.held(1), 0);
        assert_eq!(meter.used(), texts.caches[&2].bytes() as u64);
    }
}
