//! What each request under way spent in the database so far.
//!
//! Reads: the begin and end of its operations. Yields: [`Spent`] when it ends, and afterwards what links need. Costs: an
//! account for a request that asks the database, from a pool; nothing for others.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::{Ending, Operation, Spent, aging::Aging, busy::Busy};
use crate::budget::{Budget, Meter, Store, shrink};
use crate::statement::Statement;
use crate::trace::Decision;

/// Bytes of an account, with its place in the table.
const SIZE: usize = size_of::<Account>() + 256;
/// Ended requests that late work may still name.
const ENDED: usize = 16 * 1024;
/// Statements told apart within a request.
const STATEMENTS: usize = 64;

/// The account of one request.
#[derive(Debug, Default)]
struct Account {
    /// Whose budget it draws on.
    owner: u32,
    decision: Decision,
    /// When each operation under way began.
    open: Vec<u64>,
    busy: Busy,
    /// When the request was heard of last.
    touched_ns: u64,
    queries: u32,
    failed: u32,
    pool_wait_ns: u64,
    first_byte_ns: u64,
    database_ns: u64,
    statements: Vec<(Arc<Statement>, u32)>,
    partial: bool,
}

impl Account {
    fn reset(&mut self) {
        let Self { mut statements, mut open, mut busy, .. } = std::mem::take(self);
        statements.clear();
        open.clear();
        busy.clear();
        *self = Self { statements, open, busy, ..Self::default() };
    }
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// It is under way.
    UnderWay(Decision),
    /// Its response was sent, or its client left.
    Ended(Decision),
    /// Too long ago.
    Forgotten,
}

/// All of them.
#[derive(Debug)]
pub struct Requests {
    under_way: FxHashMap<u64, Box<Account>>,
    ended: Aging<u64, Decision>,
    #[expect(clippy::vec_box, reason = "they move between requests by their address")]
    spare: Vec<Box<Account>>,
    budget: Budget,
}

impl Default for Requests {
    fn default() -> Self {
        let budget = Budget::new(Store::Accounts);
        Self { under_way: FxHashMap::default(), ended: Aging::new(ENDED), spare: Vec::new(), budget }
    }
}

impl Requests {
    /// The request of a target shows up for the first time, or again: `decide` tells once whether it is traced. `false`
    /// where the target has too many: their operations are of unknown parent.
    pub fn open(&mut self, owner: u32, id: u64, time_ns: u64, decide: impl FnOnce() -> Decision) -> bool {
        if let Some(account) = self.under_way.get_mut(&id) {
            account.touched_ns = account.touched_ns.max(time_ns);
            return true;
        }
        if !self.budget.charge(owner, SIZE) {
            return false;
        }
        let mut account = self.spare.pop().unwrap_or_default();
        account.owner = owner;
        account.decision = decide();
        account.touched_ns = time_ns;
        self.under_way.insert(id, account);
        true
    }

    /// Forgets requests of which nothing was heard since then: their end was not told (a connection that changed its
    /// protocol, a head that could not be read).
    pub fn reap(&mut self, before_ns: u64) {
        self.retain(|account| account.touched_ns >= before_ns);
        shrink(&mut self.under_way);
    }

    /// The target is gone.
    pub fn forget(&mut self, owner: u32) {
        if self.budget.held(owner) > 0 {
            self.retain(|account| account.owner != owner);
        }
    }

    fn retain(&mut self, stays: impl Fn(&Account) -> bool) {
        let Self { under_way, ended, budget, .. } = self;
        under_way.retain(|id, account| {
            let stays = stays(account);
            if !stays {
                ended.insert(*id, account.decision);
                budget.release(account.owner, SIZE);
            }
            stays
        });
    }

    /// What the owner has counts for this user, who is not trusted.
    pub fn join(&mut self, owner: u32, user: Option<u32>) {
        self.budget.join(owner, user);
    }

    /// Figures of the budget.
    pub fn meter(&self) -> Arc<Meter> {
        self.budget.meter()
    }

    /// An operation of the request began.
    pub fn began(&mut self, id: u64, time_ns: u64) {
        if let Some(account) = self.under_way.get_mut(&id) {
            account.open.push(time_ns);
            account.touched_ns = account.touched_ns.max(time_ns);
        }
    }

    /// An operation of the request ended while the request is under way.
    pub fn ended(&mut self, id: u64, operation: &Operation<'_>) {
        let Some(account) = self.under_way.get_mut(&id) else { return };
        account.queries = account.queries.saturating_add(1);
        account.failed = account.failed.saturating_add(u32::from(operation.ending == Ending::Failed));
        account.partial |= operation.ending == Ending::Incomplete;
        account.pool_wait_ns = account.pool_wait_ns.saturating_add(operation.pool_wait_ns().unwrap_or(0));
        if operation.first_ns != 0 && operation.send_ns != 0 {
            let waited = operation.first_ns.saturating_sub(operation.send_ns);
            account.first_byte_ns = account.first_byte_ns.saturating_add(waited);
        }
        account.database_ns = account.database_ns.saturating_add(operation.duration_ns());
        let begin = if operation.call_ns == 0 { operation.start_ns } else { operation.call_ns };
        account.busy.add(begin, operation.end_ns);
        account.touched_ns = account.touched_ns.max(operation.end_ns);
        if let Some(at) = account.open.iter().position(|open| *open == begin) {
            account.open.swap_remove(at);
        }
        if let Some((_, count)) =
            account.statements.iter_mut().find(|(known, _)| known.fingerprint == operation.statement.fingerprint)
        {
            *count += 1;
        } else if account.statements.len() < STATEMENTS {
            account.statements.push((Arc::clone(operation.statement), 1));
        }
    }

    /// Something of the request may have gone unseen.
    pub fn doubt(&mut self, id: u64) {
        if let Some(account) = self.under_way.get_mut(&id) {
            account.partial = true;
        }
    }

    /// Whether the request is under way, and whether it is traced.
    pub fn known(&mut self, id: u64) -> Known {
        match self.under_way.get(&id) {
            Some(account) => Known::UnderWay(account.decision),
            None => self.ended.get_mut(id).map_or(Known::Forgotten, |decision| Known::Ended(*decision)),
        }
    }

    /// The request ended: hands its account, if it has one, to `take`.
    pub fn end<T>(&mut self, id: u64, end_ns: u64, take: impl FnOnce(Option<(&Spent<'_>, Decision)>) -> T) -> T {
        let Some(mut account) = self.under_way.remove(&id) else { return take(None) };
        self.budget.release(account.owner, SIZE);
        let Account { open, busy, partial, .. } = &mut *account;
        *partial |= !open.is_empty();
        open.drain(..).for_each(|begin| busy.add(begin, end_ns));
        let most = account.statements.iter().max_by_key(|(_, count)| *count);
        let spent = Spent {
            queries: account.queries,
            failed: account.failed,
            pool_wait_ns: account.pool_wait_ns,
            first_byte_ns: account.first_byte_ns,
            database_ns: account.database_ns,
            busy_ns: account.busy.total_ns(),
            most_repeated: most.map(|(statement, count)| (statement, *count)),
            partial: account.partial,
        };
        let result = take(Some((&spent, account.decision)));
        self.ended.insert(id, account.decision);
        if self.spare.len() < 1024 {
            account.reset();
            self.spare.push(account);
        }
        result
    }

    /// Accounts of requests under way.
    #[must_use]
    pub fn len(&self) -> usize {
        self.under_way.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_that_never_end_leave_room_for_those_of_another_target() {
        let mut requests = Requests::default();
        let open = |requests: &mut Requests, owner, id| requests.open(owner, id, 1, || Decision::Unsampled);
        let wave = (0..).take_while(|id| open(&mut requests, 1, *id)).count();
        assert_eq!(wave, Store::Accounts.limit() / 2 / SIZE);
        assert!(open(&mut requests, 2, u64::MAX));
        requests.end(u64::MAX, 5, |spent| assert!(spent.is_some()));
        assert_eq!(requests.meter().refused(), 1);
        requests.forget(1);
        assert_eq!((requests.len(), requests.meter().used()), (0, 0));
        requests.reap(0);
        assert!(requests.under_way.capacity() < 1000);
    }
}
