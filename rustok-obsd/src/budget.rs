//! Budgets in bytes for what a target can fill, and who gets how much of them.
//!
//! Reads: sizes, as the stores charge and release them. Yields: yes or no, and counts for the daemon's own metrics
//! ([`Meters`]). Costs: a look-up by an integer and two additions a charge; what is there already is not charged again, so
//! that a store in steady state charges nothing.
//!
//! The rule of sharing is that of dynamic thresholds (Choudhury, Hahne: "Dynamic queue length thresholds for shared-memory
//! packet switches", 1998): an owner may hold as much as is free. One owner alone gets half of a budget, two get a third
//! each, and with any number of them a newcomer finds room: no store is full because somebody came first. Who is above its
//! share makes room from its own, never from another owner's.
//!
//! What an owner is, a store says: mostly the process that is the target; forked children count for it. Owners of one user
//! that is not trusted have three quarters of what is free together ([`Budget::join`]): whoever has many processes, or names
//! many services, leaves a quarter for others all the same.

use rustc_hash::FxHashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

const MIB: usize = 1 << 20;

/// Declares the stores.
macro_rules! stores {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $limit:expr;)+) => {
        /// What is kept of targets.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Store { $($(#[$doc])* $variant,)+ }

        impl Store {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The value of the label `store`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// Bytes of all targets, unless the configuration decides; one target alone gets half.
            #[must_use]
            pub const fn limit(self) -> usize {
                match self { $(Self::$variant => $limit,)+ }
            }
        }
    };
}

stores! {
    /// Texts of statements, raw and normalised. Beyond it the oldest of the target go, and new ones keep a short text.
    Statements = "statements", 8 * MIB;
    /// Names of prepared statements and portals of connections in clear text, with their texts. Beyond it the connection
    /// forgets its names: what it executes is an unknown statement.
    Prepared = "prepared", 8 * MIB;
    /// Database operations under way. Beyond it an operation is not followed.
    Operations = "operations", 8 * MIB;
    /// Calls of the mapper that wait for a connection. Beyond it the wait is not known.
    Calls = "calls", 2 * MIB;
    /// What requests under way have spent in the database. Beyond it operations are of unknown parent.
    Accounts = "accounts", 8 * MIB;
    /// Which request each task works for. Beyond it the tasks of the target that were used longest ago are forgotten.
    Tasks = "tasks", 8 * MIB;
    /// HTTP requests under way, with their paths. Beyond it a request is not followed, or its path not kept.
    Requests = "requests", 16 * MIB;
    /// Beginnings of messages that came in pieces. Beyond it a message is read as far as its first piece goes.
    Buffers = "buffers", 4 * MIB;
    /// Connections (`capture.sockets` decides). Beyond it those idle longest of the target that has most are given up.
    Connections = "connections", 32 * MIB;
    /// Joined paths of nested routers. Beyond it a path is joined anew each time.
    Paths = "paths", 2 * MIB;
    /// Exchanges that wait until their route is read. Beyond it one is named as if its route could not be told.
    Parked = "parked", 8 * MIB;
    /// Label sets of requests and operations. Beyond it they are `~other`.
    Series = "series", 16 * MIB;
    /// Spans that wait for their export (`traces.queue_size` decides). Beyond it they are dropped.
    Spans = "spans", 4 * MIB;
}

/// Figures of one budget, as scrapes read them. The budget's thread alone writes.
#[derive(Debug)]
pub struct Meter {
    store: Store,
    limit: u64,
    used: AtomicU64,
    refused: AtomicU64,
    evicted: AtomicU64,
}

impl Meter {
    fn new(store: Store, limit: usize) -> Arc<Self> {
        let zero = || AtomicU64::new(0);
        Arc::new(Self { store, limit: limit as u64, used: zero(), refused: zero(), evicted: zero() })
    }

    /// Bytes in use.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Bytes that may be in use.
    #[must_use]
    pub const fn limit(&self) -> u64 {
        self.limit
    }

    /// Charges that were refused.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Entries that gave way to others.
    pub fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }
}

/// One budget, and what each owner holds of it.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    used: usize,
    owners: FxHashMap<u32, usize>,
    /// The user of each owner that has one, and what the owners of a user hold together.
    users: FxHashMap<u32, u32>,
    shares: FxHashMap<u32, usize>,
    meter: Arc<Meter>,
}

impl Budget {
    /// Of the store's usual size.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self::with_limit(store, store.limit())
    }

    /// Of another size.
    #[must_use]
    pub fn with_limit(store: Store, limit: usize) -> Self {
        Self {
            limit,
            used: 0,
            owners: FxHashMap::default(),
            users: FxHashMap::default(),
            shares: FxHashMap::default(),
            meter: Meter::new(store, limit),
        }
    }

    /// Its figures.
    #[must_use]
    pub fn meter(&self) -> Arc<Meter> {
        Arc::clone(&self.meter)
    }

    /// Bytes in use.
    #[must_use]
    pub const fn used(&self) -> usize {
        self.used
    }

    /// What an owner holds.
    #[must_use]
    pub fn held(&self, owner: u32) -> usize {
        self.owners.get(&owner).copied().unwrap_or(0)
    }

    /// The owner is one of this user's, who is not trusted; `None`: it counts for itself.
    pub fn join(&mut self, owner: u32, user: Option<u32>) {
        let held = self.held(owner);
        self.resize(owner, 0);
        self.users.remove(&owner);
        if let Some(user) = user {
            self.users.insert(owner, user);
        }
        self.resize(owner, held);
    }

    /// What an owner may hold now: as much as is then free, and with all others of its user three times as much.
    #[must_use]
    pub fn allowance(&self, owner: u32) -> usize {
        let held = self.held(owner);
        let own = self.limit.saturating_sub(self.used - held) / 2;
        match self.share(owner) {
            Some(share) => {
                let most = self.limit.saturating_sub(self.used - share).saturating_mul(3) / 4;
                own.min(most.saturating_sub(share - held))
            }
            None => own,
        }
    }

    /// What all owners of an owner's user hold, where it has one.
    fn share(&self, owner: u32) -> Option<usize> {
        if self.users.is_empty() {
            return None;
        }
        self.users.get(&owner).map(|user| self.shares.get(user).copied().unwrap_or(0))
    }

    /// Takes bytes for an owner; false, and counted, where it would have more than its share.
    #[must_use]
    pub fn charge(&mut self, owner: u32, bytes: usize) -> bool {
        let held = self.held(owner);
        if held + bytes > self.allowance(owner) {
            self.refuse();
            return false;
        }
        self.resize(owner, held + bytes);
        true
    }

    /// Counts a refusal that the store decided.
    pub fn refuse(&self) {
        let refused = &self.meter.refused;
        refused.store(refused.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// Counts entries that gave way.
    pub fn evicted(&self, count: u64) {
        if count > 0 {
            let evicted = &self.meter.evicted;
            evicted.store(evicted.load(Ordering::Relaxed) + count, Ordering::Relaxed);
        }
    }

    /// Gives bytes back.
    pub fn release(&mut self, owner: u32, bytes: usize) {
        self.resize(owner, self.held(owner).saturating_sub(bytes));
    }

    /// An owner holds so much now, whatever its share: the store has seen to that.
    pub fn resize(&mut self, owner: u32, bytes: usize) {
        let before = if bytes == 0 { self.owners.remove(&owner) } else { self.owners.insert(owner, bytes) };
        let before = before.unwrap_or(0);
        if !self.users.is_empty()
            && let Some(user) = self.users.get(&owner)
        {
            let share = self.shares.entry(*user).or_insert(0);
            *share = share.saturating_sub(before) + bytes;
            if *share == 0 {
                self.shares.remove(user);
            }
        }
        self.set_used(self.used - before + bytes);
    }

    /// An owner has so much more, whatever its share: it had that before the store was made anew.
    pub fn carry(&mut self, owner: u32, bytes: usize) {
        self.resize(owner, self.held(owner) + bytes);
    }

    /// Nobody holds anything any more, and no owner is anybody's.
    pub fn clear(&mut self) {
        self.owners.clear();
        self.users.clear();
        self.shares.clear();
        self.set_used(0);
    }

    /// The owner that holds most, or that of a user whose owners hold most together.
    #[must_use]
    pub fn greatest(&self) -> Option<u32> {
        let most =
            self.owners.iter().max_by_key(|(owner, held)| (self.share(**owner).unwrap_or(**held), **held, **owner));
        most.map(|(owner, _)| *owner)
    }

    fn set_used(&mut self, used: usize) {
        self.used = used;
        self.meter.used.store(used as u64, Ordering::Relaxed);
    }
}

/// Figures of all budgets.
#[derive(Debug, Default)]
pub struct Meters(Mutex<Vec<Arc<Meter>>>);

/// What all budgets of one store say together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Bytes in use.
    pub used: u64,
    /// Bytes that may be in use.
    pub limit: u64,
    /// Charges that were refused.
    pub refused: u64,
    /// Entries that gave way to others.
    pub evicted: u64,
}

impl Meters {
    /// Adds those of a store.
    pub fn add(&self, meters: impl IntoIterator<Item = Arc<Meter>>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(meters);
    }

    /// The figures of a store.
    pub fn read(&self, store: Store) -> Reading {
        let meters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of = meters.iter().filter(|meter| meter.store == store);
        of.fold(Reading::default(), |sum, meter| Reading {
            used: sum.used + meter.used(),
            limit: sum.limit + meter.limit,
            refused: sum.refused + meter.refused(),
            evicted: sum.evicted + meter.evicted(),
        })
    }

    /// Bytes in use in all stores.
    pub fn used(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|meter| meter.used()).sum()
    }
}

/// A budget that threads share: charged by one, released by another. The bytes of one owner are in [`Share`].
#[derive(Debug)]
pub struct SharedBudget {
    meter: Arc<Meter>,
}

/// What one owner holds of a [`SharedBudget`].
#[derive(Debug, Default)]
pub struct Share(AtomicU64);

impl SharedBudget {
    /// Of this size.
    #[must_use]
    pub fn with_limit(store: Store, limit: usize) -> Self {
        Self { meter: Meter::new(store, limit) }
    }

    /// Its figures.
    #[must_use]
    pub fn meter(&self) -> Arc<Meter> {
        Arc::clone(&self.meter)
    }

    /// Takes bytes for an owner; false, and counted, where it would have more than its share. One thread only charges.
    #[must_use]
    pub fn charge(&self, owner: &Share, bytes: u64) -> bool {
        let (used, held) = (self.meter.used(), owner.0.load(Ordering::Relaxed));
        if held + bytes > self.meter.limit.saturating_sub(used.saturating_sub(held)) / 2 {
            self.meter.refused.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        self.meter.used.fetch_add(bytes, Ordering::Relaxed);
        owner.0.fetch_add(bytes, Ordering::Relaxed);
        true
    }

    /// Gives back what was charged. Any thread.
    pub fn release(&self, owner: &Share, bytes: u64) {
        owner.0.fetch_sub(bytes, Ordering::Relaxed);
        self.meter.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// A map that grew for a wave gives its room back. To be called now and then.
pub fn shrink<K: Eq + std::hash::Hash, V, S: std::hash::BuildHasher>(map: &mut std::collections::HashMap<K, V, S>) {
    if map.capacity() > 4 * map.len().max(64) {
        map.shrink_to(2 * map.len());
    }
}

/// The beginning of a text, of at most so many bytes, between characters.
#[must_use]
pub fn cut(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(budget: &mut Budget, owner: u32) -> usize {
        while budget.charge(owner, 10) {}
        budget.held(owner)
    }

    #[test]
    fn one_owner_gets_half_and_every_newcomer_finds_room() {
        let mut budget = Budget::with_limit(Store::Statements, 16_000);
        assert_eq!(fill(&mut budget, 1), 8000);
        for newcomer in 2..10 {
            let free = 16_000 - budget.used();
            assert_eq!(fill(&mut budget, newcomer), free / 2 / 10 * 10, "{newcomer}");
        }
        assert!(budget.used() < 16_000);
        assert_eq!(budget.meter().refused(), 9);
        assert_eq!(budget.allowance(1), (16_000 - (budget.used() - 8000)) / 2, "who came first has to make room");
    }

    #[test]
    fn owners_that_take_turns_end_with_equal_shares() {
        let mut budget = Budget::with_limit(Store::Statements, 30_000);
        while (1..=2).any(|owner| budget.charge(owner, 10)) {}
        for _ in 0..10_000 {
            for owner in 1..=2 {
                if !budget.charge(owner, 10) {
                    let allowed = budget.allowance(owner).min(budget.held(owner));
                    budget.resize(owner, allowed);
                }
            }
        }
        assert!((1..=2).all(|owner| (9_900..10_100).contains(&budget.held(owner))), "{budget:?}");
    }

    #[test]
    fn many_owners_of_one_user_leave_room_for_others() {
        let mut budget = Budget::with_limit(Store::Statements, 16_000);
        (100..200).for_each(|owner| budget.join(owner, Some(1000)));
        assert_eq!((fill(&mut budget, 100), fill(&mut budget, 101)), (8000, 4000), "two as if they were nobody's");
        assert_eq!((102..200).map(|owner| fill(&mut budget, owner)).sum::<usize>(), 0);
        assert_eq!(fill(&mut budget, 1), 2000, "of somebody else");
        budget.join(300, Some(1001));
        assert_eq!(fill(&mut budget, 300), 1000, "of another such user");
        assert_eq!(budget.greatest(), Some(100));
        // What one of them gives back is there for the others of the user.
        budget.release(100, 4000);
        assert_eq!(budget.allowance(101), 4500);
        assert!(fill(&mut budget, 102) > 1000);
        budget.resize(1, 4500);
        assert_eq!(budget.greatest(), Some(101), "more than any of them, and less than all of them");
        (100..200).for_each(|owner| budget.join(owner, None));
        assert_eq!((budget.shares.len(), budget.held(101)), (1, 4000), "what they hold stays theirs");
        (1..400).for_each(|owner| budget.release(owner, usize::MAX));
        assert_eq!((budget.used(), budget.shares.len()), (0, 0));
        (100..140).for_each(|owner| _ = fill(&mut budget, owner));
        assert!(budget.used() > 15_900, "without a user each counts for itself");
    }

    #[test]
    fn what_is_given_back_is_there_for_others() {
        let mut budget = Budget::with_limit(Store::Operations, 1000);
        let all = fill(&mut budget, 1);
        budget.release(1, 100);
        assert_eq!((budget.used(), budget.meter().used()), (all - 100, all as u64 - 100));
        assert_eq!(budget.greatest(), Some(1));
        budget.release(1, usize::MAX);
        budget.release(7, 5);
        assert_eq!((budget.used(), budget.greatest()), (0, None));
        assert_eq!(fill(&mut budget, 2), 500);
        budget.resize(2, 0);
        assert_eq!((budget.used(), budget.owners.len()), (0, 0));
    }

    #[test]
    fn threads_share_by_the_same_rule() {
        let budget = SharedBudget::with_limit(Store::Spans, 1000);
        let (first, second) = (Share::default(), Share::default());
        assert_eq!((0..100).filter(|_| budget.charge(&first, 10)).count(), 50);
        assert_eq!((0..100).filter(|_| budget.charge(&second, 10)).count(), 25);
        std::thread::scope(|scope| scope.spawn(|| (0..50).for_each(|_| budget.release(&first, 10))).join()).unwrap();
        assert_eq!(budget.meter().used(), 250);
        assert_eq!(budget.meter().refused(), 125);
    }

    #[test]
    fn a_store_is_read_over_all_its_budgets() {
        let meters = Meters::default();
        let mut budgets =
            [Budget::new(Store::Series), Budget::with_limit(Store::Series, 100), Budget::new(Store::Tasks)];
        meters.add(budgets.iter().map(Budget::meter));
        assert!(budgets[0].charge(1, 10) && budgets[1].charge(1, 20) && !budgets[1].charge(1, 90));
        budgets[2].evicted(3);
        let limit = Store::Series.limit() as u64 + 100;
        assert_eq!(meters.read(Store::Series), Reading { used: 30, limit, refused: 1, evicted: 0 });
        assert_eq!((meters.read(Store::Tasks).evicted, meters.used()), (3, 30));
    }
}
