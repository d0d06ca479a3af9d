//! Families of the daemon's own health: threads, panics, queues, and how it is confined.
//!
//! Reads: nothing. Yields: constants. Costs: nothing.

use super::own::own;
use super::{Family, Kind};

/// Every family of this file.
pub const FAMILIES: &[Family<'static>] = &[THREAD_SILENT, PANICS, QUEUE_REFUSED, CONFINEMENT];

/// Silence of threads.
pub const THREAD_SILENT: Family<'static> = own(
    "rustok_obsd_thread_silent_seconds",
    Kind::Gauge,
    "seconds",
    &["thread"],
    "Time since each thread of the daemon last reported, of several of one name the longest; 0 while it waits for work.",
);

/// Panics.
pub const PANICS: Family<'static> = own(
    "rustok_obsd_panics_total",
    Kind::Counter,
    "",
    &[],
    "Panics that cost one collector, scrape or connection; any other ends the daemon.",
);

/// Items that a queue refused.
pub const QUEUE_REFUSED: Family<'static> = own(
    "rustok_obsd_queue_refused_total",
    Kind::Counter,
    "",
    &["queue", "class"],
    "Items that found a queue between the daemon's threads full. After a refused event all processes are looked at anew.",
);

/// How the daemon is confined.
pub const CONFINEMENT: Family<'static> = own(
    "rustok_obsd_confinement",
    Kind::Gauge,
    "",
    &["measure", "state"],
    "1 for the state of each measure that takes rights from the daemon (applied, partial, refused, off, unsuitable).",
);
