//! What each request under way spent in the database so far.
//!
//! Reads: the begin and end of its operations. Yields: [`Spent`] when it ends, and afterwards what links need. Costs: an
//! account for a request that asks the database, from a pool; nothing for others.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::{Ending, Operation, Spent, aging::Aging};
use crate::statement::Statement;
use crate::trace::Decision;

/// Requests with an account at a time; more have none, and their operations are told without a sum.
const MOST: usize = 64 * 1024;
/// Ended requests that late work may still name.
const ENDED: usize = 16 * 1024;
/// Statements told apart within a request.
const STATEMENTS: usize = 64;

/// The account of one request.
#[derive(Debug, Default)]
struct Account {
    decision: Decision,
    /// Operations under way, and since when there is at least one.
    open: u32,
    busy_since: u64,
    busy_ns: u64,
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
        let mut statements = std::mem::take(&mut self.statements);
        statements.clear();
        *self = Self { statements, ..Self::default() };
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
}

impl Default for Requests {
    fn default() -> Self {
        Self { under_way: FxHashMap::default(), ended: Aging::new(ENDED), spare: Vec::new() }
    }
}

impl Requests {
    /// The request shows up for the first time, or again: `decide` tells once whether it is traced.
    pub fn open(&mut self, id: u64, decide: impl FnOnce() -> Decision) {
        if self.under_way.contains_key(&id) || self.under_way.len() >= MOST {
            return;
        }
        let mut account = self.spare.pop().unwrap_or_default();
        account.reset();
        account.decision = decide();
        self.under_way.insert(id, account);
    }

    /// An operation of the request began.
    pub fn began(&mut self, id: u64, time_ns: u64) {
        if let Some(account) = self.under_way.get_mut(&id) {
            if account.open == 0 {
                account.busy_since = time_ns;
            }
            account.open += 1;
        }
    }

    /// An operation of the request ended; its answer counts.
    pub fn ended(&mut self, id: u64, operation: &Operation<'_>) {
        let Some(account) = self.under_way.get_mut(&id) else { return };
        account.queries = account.queries.saturating_add(1);
        account.failed = account.failed.saturating_add(u32::from(operation.ending == Ending::Failed));
        account.partial |= operation.ending == Ending::Incomplete;
        account.pool_wait_ns += operation.pool_wait_ns().unwrap_or(0);
        if operation.first_ns != 0 && operation.send_ns != 0 {
            account.first_byte_ns += operation.first_ns.saturating_sub(operation.send_ns);
        }
        account.database_ns += operation.duration_ns();
        if let Some((_, count)) =
            account.statements.iter_mut().find(|(known, _)| known.fingerprint == operation.statement.fingerprint)
        {
            *count += 1;
        } else if account.statements.len() < STATEMENTS {
            account.statements.push((Arc::clone(operation.statement), 1));
        }
    }

    /// One operation less is under way, whatever came of it.
    pub fn closed(&mut self, id: u64, time_ns: u64) {
        if let Some(account) = self.under_way.get_mut(&id).filter(|account| account.open > 0) {
            account.open -= 1;
            if account.open == 0 {
                account.busy_ns += time_ns.saturating_sub(account.busy_since);
            }
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
        if account.open > 0 {
            account.busy_ns += end_ns.saturating_sub(account.busy_since);
            account.partial = true;
        }
        let most = account.statements.iter().max_by_key(|(_, count)| *count);
        let spent = Spent {
            queries: account.queries,
            failed: account.failed,
            pool_wait_ns: account.pool_wait_ns,
            first_byte_ns: account.first_byte_ns,
            database_ns: account.database_ns,
            busy_ns: account.busy_ns,
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
