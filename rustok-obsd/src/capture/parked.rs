//! Exchanges that ended while the path of their route was still being read.
//!
//! Reads: exchanges, as owned copies. Yields: each again once its path is known or its time is over. Costs: a copy for
//! each exchange that waits, nothing for others; bounded in number per target, and in bytes ([`crate::budget`]).

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use crate::{
    budget::{Budget, Meter, Store},
    contract::recorder::TargetKey,
    database::Spent,
    exchange::{Exchange, Headers, Routed},
    statement::Statement,
    target::route_cache::PATIENCE,
    trace::{Addresses, Decision},
};

/// An exchange waits no longer: the read's own deadline, and time to take its answer.
const LONGEST: Duration = PATIENCE.saturating_add(Duration::from_millis(250));
/// Exchanges that wait, of one target: the budget of all bounds bytes.
pub(super) const MOST_OF_TARGET: usize = 2048;

/// The statement that ran most often, and how often.
type Repeated = Option<(Arc<Statement>, u32)>;

/// An exchange that waits.
pub(super) struct Parked {
    /// Its target, by process and number.
    pub(super) tgid: u32,
    pub(super) key: TargetKey,
    pub(super) addresses: Addresses,
    pub(super) routed: Routed,
    exchange: Exchange<'static>,
    /// Path, host, tenant and headers, one behind the other.
    text: Box<[u8]>,
    lengths: [usize; 3],
    spent: Option<(Spent<'static>, Repeated)>,
    until: Instant,
}

impl Parked {
    pub(super) fn new(
        (tgid, key): (u32, TargetKey),
        addresses: Addresses,
        exchange: &Exchange<'_>,
        routed: &Routed,
        account: Option<(&Spent<'_>, Decision)>,
    ) -> Self {
        let mut kept = exchange.detached();
        let spent = account.map(|(spent, ids)| {
            kept.ids = ids;
            let Spent { most_repeated, .. } = *spent;
            let numbers = Spent {
                queries: spent.queries,
                failed: spent.failed,
                pool_wait_ns: spent.pool_wait_ns,
                first_byte_ns: spent.first_byte_ns,
                database_ns: spent.database_ns,
                busy_ns: spent.busy_ns,
                most_repeated: None,
                partial: spent.partial,
            };
            (numbers, most_repeated.map(|(statement, count)| (Arc::clone(statement), count)))
        });
        let parts = [exchange.path, exchange.host, exchange.tenant, exchange.headers.as_bytes()];
        Self {
            tgid,
            key,
            addresses,
            routed: routed.clone(),
            exchange: kept,
            text: parts.concat().into(),
            lengths: [exchange.path.len(), exchange.host.len(), exchange.tenant.len()],
            spent,
            until: Instant::now() + LONGEST,
        }
    }

    /// The exchange again, without its route.
    pub(super) fn show<T>(&self, take: impl FnOnce(&Exchange<'_>) -> T) -> T {
        let (path, rest) = self.text.split_at(self.lengths[0]);
        let (host, rest) = rest.split_at(self.lengths[1]);
        let (tenant, headers) = rest.split_at(self.lengths[2]);
        let mut spent = self.spent.as_ref().map(|(spent, _)| *spent);
        if let (Some(spent), Some((_, Some((statement, count))))) = (&mut spent, &self.spent) {
            spent.most_repeated = Some((statement, *count));
        }
        let headers = Headers::of(headers);
        take(&Exchange { path, host, tenant, headers, spent: spent.as_ref(), ..self.exchange })
    }

    fn bytes(&self) -> usize {
        size_of::<Self>() + self.text.len() + 16 * self.routed.awaited().len()
    }
}

/// All that wait.
pub(super) struct Parking {
    /// In the order in which they came.
    waiting: Vec<Parked>,
    /// Number of each target's.
    counts: FxHashMap<u32, usize>,
    budget: Budget,
    /// Those at the end that nobody has looked at yet.
    fresh: usize,
    /// Exchanges that found no room, since the start.
    pub(super) refused: u64,
}

impl Default for Parking {
    fn default() -> Self {
        let budget = Budget::new(Store::Parked);
        Self { waiting: Vec::new(), counts: FxHashMap::default(), budget, fresh: 0, refused: 0 }
    }
}

impl Parking {
    /// What the owner has counts for this user, who is not trusted.
    pub(super) fn join(&mut self, owner: u32, user: Option<u32>) {
        self.budget.join(owner, user);
    }

    /// Figures of the budget.
    pub(super) fn meter(&self) -> Arc<Meter> {
        self.budget.meter()
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether some came since the last [`Self::take_fresh`].
    pub(super) const fn has_fresh(&self) -> bool {
        self.fresh > 0
    }

    /// Lets one wait; false where there is no room.
    pub(super) fn park(&mut self, parked: Parked) -> bool {
        let count = self.counts.entry(parked.tgid).or_insert(0);
        if *count >= MOST_OF_TARGET || !self.budget.charge(parked.tgid, parked.bytes()) {
            self.refused += 1;
            return false;
        }
        *count += 1;
        self.fresh += 1;
        self.waiting.push(parked);
        true
    }

    /// Whether the first one has waited for too long.
    pub(super) fn is_late(&self, now: Instant) -> bool {
        self.waiting.first().is_some_and(|first| first.until <= now)
    }

    /// Takes those that came last and that need not wait.
    pub(super) fn take_fresh(&mut self, ready: impl FnMut(&Parked) -> bool) -> Vec<Parked> {
        let from = self.waiting.len() - self.fresh;
        self.take(from, ready)
    }

    /// Takes all that need not wait, or have waited for too long.
    pub(super) fn take_ready(&mut self, now: Instant, mut ready: impl FnMut(&Parked) -> bool) -> Vec<Parked> {
        self.take(0, |parked| parked.until <= now || ready(parked))
    }

    /// Takes all of a process, or all there are.
    pub(super) fn take_all(&mut self, tgid: Option<u32>) -> Vec<Parked> {
        self.take(0, |parked| tgid.is_none_or(|tgid| parked.tgid == tgid))
    }

    fn take(&mut self, from: usize, mut ready: impl FnMut(&Parked) -> bool) -> Vec<Parked> {
        self.fresh = 0;
        let taken: Vec<Parked> = self.waiting.extract_if(from.., |parked| ready(parked)).collect();
        for parked in &taken {
            self.budget.release(parked.tgid, parked.bytes());
            if let Some(count) = self.counts.get_mut(&parked.tgid) {
                *count -= 1;
                if *count == 0 {
                    self.counts.remove(&parked.tgid);
                }
            }
        }
        taken
    }
}
