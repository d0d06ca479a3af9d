//! The daemon's own families about routes: what it reads of targets' memory, what waits for that, what it learns.
//!
//! Reads: additions of the capture thread. Yields: [`Routing`], which [`super::own::SelfMetrics`] exports. Costs: a relaxed
//! atomic addition.

use super::own::{Counters, label_values, own};
use super::{Family, Kind};
use crate::exposition::Encoder;
use crate::target::reader::ReaderStats;
use std::sync::atomic::{AtomicU64, Ordering};

/// Every family of this file.
pub const FAMILIES: &[Family<'static>] =
    &[MEMORY_READS, MEMORY_READS_HANGING, ROUTE_TABLES, ROUTE_TABLE_EVENTS, PARKED, WAITING, LEARNER];

/// Reads of targets' memory.
pub const MEMORY_READS: Family<'static> = own(
    "rustok_obsd_memory_reads_total",
    Kind::Counter,
    "",
    &["result"],
    "Reads of targets' memory by result: done, late (given up after a second), or refused because too many waited or hung.",
);

/// Reads that hang.
pub const MEMORY_READS_HANGING: Family<'static> = own(
    "rustok_obsd_memory_reads_hanging",
    Kind::Gauge,
    "",
    &[],
    "Reads of targets' memory that were given up and have not come back; their processes are not read meanwhile.",
);

/// Tables known.
pub const ROUTE_TABLES: Family<'static> =
    own("rustok_obsd_route_tables", Kind::Gauge, "", &[], "Route tables of axum's routers that the daemon holds.");

/// What became of tables.
pub const ROUTE_TABLE_EVENTS: Family<'static> = own(
    "rustok_obsd_route_table_events_total",
    Kind::Counter,
    "",
    &["event"],
    "Route tables of axum's routers that were asked for, and what came of it.",
);

/// Exchanges that waited.
pub const PARKED: Family<'static> = own(
    "rustok_obsd_exchanges_parked_total",
    Kind::Counter,
    "",
    &["result"],
    "Server exchanges that ended before their route's table was read, by what came of their wait.",
);

/// Exchanges that wait.
pub const WAITING: Family<'static> = own(
    "rustok_obsd_exchanges_waiting",
    Kind::Gauge,
    "",
    &[],
    "Server exchanges that wait for their route's table; recorded within two seconds in any case.",
);

/// What the learner did.
pub const LEARNER: Family<'static> = own(
    "rustok_obsd_learner_events_total",
    Kind::Counter,
    "",
    &["event"],
    "What the learner of routes took up and gave up: words of paths, and templates.",
);

label_values! {
    /// `event` of [`ROUTE_TABLE_EVENTS`].
    TableEvent {
        /// It was asked for.
        Read = "read",
        /// What is there is no table, or cannot be read.
        Failed = "failed",
        /// It did not come in time.
        TimedOut = "timed_out",
        /// The reader, or the bound per process, refused.
        Refused = "refused",
        /// Another router has its place now.
        Changed = "changed",
        /// Dropped to stay within the bounds.
        Evicted = "evicted",
    }
}

label_values! {
    /// `result` of [`PARKED`].
    Parked {
        /// Named by the path that axum matched.
        Named = "named",
        /// The table did not come in time.
        Late = "late",
        /// The table could not be read, or holds no such route.
        Unreadable = "unreadable",
        /// Too many waited.
        NoRoom = "no_room",
        /// The target, or the daemon, ended.
        Ended = "ended",
    }
}

label_values! {
    /// `event` of [`LEARNER`].
    LearnerEvent {
        /// A word was seen often enough to be a part of routes.
        WordLearned = "word_learned",
        /// A word was not seen for a day.
        WordAged = "word_aged",
        /// What was seen in a place turned out to be values: its words are parameters again.
        PlaceOpened = "place_opened",
        /// There was no room to learn in another place.
        PlaceRefused = "place_refused",
        /// A template that was not used for longest made room.
        RouteReclaimed = "route_reclaimed",
        /// A template found no room; its request counts as `~other`.
        RouteRefused = "route_refused",
    }
}

/// See the module's head.
#[derive(Debug, Default)]
pub struct Routing {
    /// [`ROUTE_TABLE_EVENTS`].
    pub tables: Counters<TableEvent>,
    /// [`PARKED`].
    pub parked: Counters<Parked>,
    /// [`LEARNER`].
    pub learner: Counters<LearnerEvent>,
    reads: [AtomicU64; 3],
    hanging: AtomicU64,
    known: AtomicU64,
    waiting: AtomicU64,
}

impl Routing {
    /// What is there now.
    pub fn set(&self, tables: usize, waiting: usize, reader: ReaderStats) {
        self.known.store(tables as u64, Ordering::Relaxed);
        self.waiting.store(waiting as u64, Ordering::Relaxed);
        self.hanging.store(reader.hanging, Ordering::Relaxed);
        for (cell, count) in self.reads.iter().zip([reader.done, reader.late, reader.refused]) {
            cell.store(count, Ordering::Relaxed);
        }
    }

    pub(super) fn collect(&self, out: &mut Encoder<'_>) {
        let count = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        let mut samples = out.family(&MEMORY_READS);
        for (result, cell) in ["done", "late", "refused"].iter().zip(&self.reads) {
            samples.put([*result], count(cell));
        }
        out.family(&MEMORY_READS_HANGING).put([], count(&self.hanging));
        out.family(&ROUTE_TABLES).put([], count(&self.known));
        self.tables.collect(&ROUTE_TABLE_EVENTS, out);
        self.parked.collect(&PARKED, out);
        out.family(&WAITING).put([], count(&self.waiting));
        self.learner.collect(&LEARNER, out);
    }
}
