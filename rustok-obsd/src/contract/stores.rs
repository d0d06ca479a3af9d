//! Families of the budgets: what the stores that targets fill hold, may hold, and refused.
//!
//! Reads: [`Meters`]. Yields: a sample for every store from the start. Costs: a lock that nobody else holds for long.

use super::own::own;
use super::{Family, Kind};
use crate::budget::{Meters, Reading, Store};
use crate::exposition::{Collect, Encoder};

/// Every family of this file.
pub const FAMILIES: &[Family<'static>] = &[BYTES, LIMIT, REFUSED, EVICTED];

/// In use.
pub const BYTES: Family<'static> = own(
    "rustok_obsd_store_bytes",
    Kind::Gauge,
    "bytes",
    &["store"],
    "Bytes that each store of what targets do holds, as its budget counts them.",
);

/// At most.
pub const LIMIT: Family<'static> = own(
    "rustok_obsd_store_limit_bytes",
    Kind::Gauge,
    "bytes",
    &["store"],
    "Bytes that each store may hold for all targets together; a target may hold as much as is free, hence alone half.",
);

/// Refused.
pub const REFUSED: Family<'static> = own(
    "rustok_obsd_store_refused_total",
    Kind::Counter,
    "",
    &["store"],
    "Times that a store kept nothing, or less than it was given, because the target held its share of the budget.",
);

/// Given way.
pub const EVICTED: Family<'static> = own(
    "rustok_obsd_store_evicted_total",
    Kind::Counter,
    "",
    &["store"],
    "Entries that a store gave up to make room for others of the same target.",
);

impl Collect for Meters {
    fn collect(&self, out: &mut Encoder<'_>) {
        let mut each = |family: &Family<'static>, value: fn(Reading) -> u64| {
            let mut samples = out.family(family);
            for store in Store::ALL {
                samples.put([store.name()], value(self.read(*store)));
            }
        };
        each(&BYTES, |reading| reading.used);
        each(&LIMIT, |reading| reading.limit);
        each(&REFUSED, |reading| reading.refused);
        each(&EVICTED, |reading| reading.evicted);
    }
}
