//! Families of the daemon about itself, and the counters that the rooms write into ([`SelfMetrics`]).
//!
//! Reads: additions from any thread. Yields: every value of every bounded label from the start, so that `rate()` has a
//! first point. Costs: one relaxed atomic addition.
//!
//! A family has exactly one source: the `ebpf_*` and `probe_state` families are written by the probe room's own
//! [`Collect`], those of exchanges by the recorder's, those of scrapes by the exposition itself.

use super::{Bounds, Family, Kind, Origin, Stability, bounds};
use crate::exposition::{Collect, Encoder};
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::budget::Meters;
use crate::trace::SpanCounters;

/// What was built.
pub const BUILD: Build = Build {
    version: env!("CARGO_PKG_VERSION"),
    revision: env!("RUSTOK_OBSD_GIT_REVISION"),
    rustc: env!("RUSTOK_OBSD_RUSTC_VERSION"),
};

pub use super::database::problem::DatabaseProblem;

/// Every family of this file.
pub const FAMILIES: &[Family<'static>] = &[
    BUILD_INFO,
    RECORDS,
    RECORDS_LOST,
    RECORDS_WAITING,
    RECOVERING,
    TRANSFERS_SKIPPED,
    EBPF_PROGRAM_RUNS,
    EBPF_PROGRAM_RUN_SECONDS,
    EBPF_MAP_ENTRIES,
    EBPF_MAP_MAX_ENTRIES,
    EBPF_MAP_MEMORY,
    PROBE_STATE,
    TARGETS,
    TARGETS_REFUSED,
    EXCHANGES,
    EXCHANGE_PROBLEMS,
    LOST_BYTES,
    ROUTES,
    ROUTES_OVERFLOW,
    SPANS,
    SERIES,
    SERIES_OVERFLOW,
    SCRAPES,
    SCRAPE_DURATION,
    FAMILIES_DROPPED,
    SAMPLES_OVER_LIMIT,
];

pub(crate) const fn own(
    name: &'static str,
    kind: Kind,
    unit: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Family<'static> {
    Family { name, kind, unit, help, labels, origin: Origin::Own, stability: Stability::Development }
}

/// What was built.
pub const BUILD_INFO: Family<'static> = own(
    "rustok_obsd_build_info",
    Kind::Info,
    "",
    &["version", "revision", "rustc"],
    "Version, source revision and compiler of the daemon.",
);

/// Records read.
pub const RECORDS: Family<'static> = own(
    "rustok_obsd_records_total",
    Kind::Counter,
    "",
    &["kind"],
    "Records read from the kernel programs' ring buffer.",
);

/// Records lost.
pub const RECORDS_LOST: Family<'static> = own(
    "rustok_obsd_records_lost_total",
    Kind::Counter,
    "",
    &["reason"],
    "Records, or parts of them, that never reached the daemon's parsers.",
);

/// Records that the daemon has yet to process.
pub const RECORDS_WAITING: Family<'static> = own(
    "rustok_obsd_records_waiting",
    Kind::Gauge,
    "",
    &[],
    "Records in the kernel programs' ring buffer that the daemon has not processed yet.",
);

/// Whether a loss can still be felt.
pub const RECOVERING: Family<'static> = own(
    "rustok_obsd_recovering",
    Kind::Gauge,
    "",
    &[],
    "1 from a loss of records in the ring buffer until all that was read lies behind it and ten seconds have passed, in \
     which requests of that time end; 0 when everything that begins is reported whole.",
);

/// Sends and receives without a record, as it should be.
pub const TRANSFERS_SKIPPED: Family<'static> = own(
    "rustok_obsd_transfers_skipped_total",
    Kind::Counter,
    "",
    &["reason"],
    "Sends and receives of targets that the kernel programs leave out on purpose.",
);

/// Processes that are not observed as they should be.
pub const TARGETS_REFUSED: Family<'static> = own(
    "rustok_obsd_targets_refused_total",
    Kind::Counter,
    "",
    &["reason"],
    "Processes that match the targets, or descend from one, and are not observed or only at their sockets, by the bound that forbids it.",
);

/// Runs of a kernel program.
pub const EBPF_PROGRAM_RUNS: Family<'static> = own(
    "rustok_obsd_ebpf_program_runs_total",
    Kind::Counter,
    "",
    &["program"],
    "Runs of each kernel program (needs kernel.bpf_stats_enabled).",
);

/// Time in a kernel program.
pub const EBPF_PROGRAM_RUN_SECONDS: Family<'static> = own(
    "rustok_obsd_ebpf_program_run_seconds_total",
    Kind::Counter,
    "seconds",
    &["program"],
    "Time spent in each kernel program (needs kernel.bpf_stats_enabled).",
);

/// Entries of a map.
pub const EBPF_MAP_ENTRIES: Family<'static> =
    own("rustok_obsd_ebpf_map_entries", Kind::Gauge, "", &["map"], "Entries in each BPF map.");

/// Room of a map.
pub const EBPF_MAP_MAX_ENTRIES: Family<'static> =
    own("rustok_obsd_ebpf_map_max_entries", Kind::Gauge, "", &["map"], "Entries that each BPF map can hold.");

/// Memory of a map.
pub const EBPF_MAP_MEMORY: Family<'static> = own(
    "rustok_obsd_ebpf_map_memory_bytes",
    Kind::Gauge,
    "bytes",
    &["map"],
    "Kernel memory of each BPF map, as the kernel accounts it.",
);

/// State of a probe.
pub const PROBE_STATE: Family<'static> = own(
    "rustok_obsd_probe_state",
    Kind::Gauge,
    "",
    &["probe", "target", "state", "reason"],
    "1 for the state that each probe of each target is in, with the reason where it is not attached.",
);

/// Targets.
pub const TARGETS: Family<'static> = own("rustok_obsd_targets", Kind::Gauge, "", &[], "Processes that are observed.");

/// Exchanges.
pub const EXCHANGES: Family<'static> = own(
    "rustok_obsd_exchanges_total",
    Kind::Counter,
    "",
    &["service_name", "side", "outcome"],
    "HTTP exchanges that were recorded, by the target's side and how they ended.",
);

/// What went wrong with exchanges.
pub const EXCHANGE_PROBLEMS: Family<'static> = own(
    "rustok_obsd_exchange_problems_total",
    Kind::Counter,
    "",
    &["problem"],
    "Events that made an exchange unusable, incomplete or inexact.",
);

/// Bytes of lost records.
pub const LOST_BYTES: Family<'static> = own(
    "rustok_obsd_lost_bytes_total",
    Kind::Counter,
    "bytes",
    &[],
    "Bytes of observed HTTP connections whose records were lost.",
);

/// Routes.
pub const ROUTES: Family<'static> = own(
    "rustok_obsd_routes",
    Kind::Gauge,
    "",
    &["service_name", "source"],
    "Routes recorded for each service, by where their names came from.",
);

/// Exchanges without a route of their own.
pub const ROUTES_OVERFLOW: Family<'static> = own(
    "rustok_obsd_routes_overflow_total",
    Kind::Counter,
    "",
    &["service_name"],
    "Server exchanges recorded under the route ~other because a cap was reached.",
);

/// Spans.
pub const SPANS: Family<'static> =
    own("rustok_obsd_spans_total", Kind::Counter, "", &["result"], "Spans by what became of them.");

/// Series held.
pub const SERIES: Family<'static> = own(
    "rustok_obsd_series",
    Kind::Gauge,
    "",
    &["family"],
    "Label sets that the recorder holds for each of its families.",
);

/// Exchanges without a series of their own.
pub const SERIES_OVERFLOW: Family<'static> = own(
    "rustok_obsd_series_overflow_total",
    Kind::Counter,
    "",
    &["family"],
    "Exchanges recorded under ~other because the recorder's cap on series was reached.",
);

/// Scrapes.
pub const SCRAPES: Family<'static> = own(
    "rustok_obsd_scrapes_total",
    Kind::Counter,
    "",
    &["result"],
    "Requests for metrics by result: ok, busy (refused with 503) or failed.",
);

/// Duration of scrapes.
pub const SCRAPE_DURATION: Family<'static> = own(
    "rustok_obsd_scrape_duration_seconds",
    Kind::Histogram,
    "seconds",
    &[],
    "Time to collect, encode and compress an exposition, without sending it; earlier scrapes only.",
);

/// Families refused by the encoder.
pub const FAMILIES_DROPPED: Family<'static> = own(
    "rustok_obsd_exposition_families_dropped_total",
    Kind::Counter,
    "",
    &[],
    "Families left out of an exposition because another source had written one of the same name.",
);

/// Samples beyond the limit of an answer.
pub const SAMPLES_OVER_LIMIT: Family<'static> = own(
    "rustok_obsd_samples_over_limit_total",
    Kind::Counter,
    "",
    &[],
    "Samples that were left out of an answer because it had reached web.sample_limit.",
);

/// Bounds of [`SCRAPE_DURATION`], seconds.
pub const SCRAPE: Bounds = bounds!(0.0005 0.001 0.0025 0.005 0.01 0.025 0.05 0.1 0.25 0.5 1.0 2.5);

/// The bounded values of one label.
pub trait LabelValue: Copy {
    /// All values, as exported.
    const TEXTS: &'static [&'static str];
    /// Position in `TEXTS`.
    fn index(self) -> usize;
}

/// Declares the values of a bounded label.
macro_rules! label_values {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$doc])* $variant,)+ }
        impl $crate::contract::own::LabelValue for $name {
            const TEXTS: &'static [&'static str] = &[$($text),+];
            fn index(self) -> usize { self as usize }
        }
    };
}
pub(super) use label_values;

label_values! {
    /// `kind` of [`RECORDS`], as in the records shared with the kernel programs.
    RecordKind {
        /// A socket was announced.
        Open = "open",
        /// A send returned.
        Send = "send",
        /// A receive returned.
        Receive = "receive",
        /// A socket was closed.
        Close = "close",
        /// axum matched a route.
        Route = "route",
        /// A process replaced its program.
        Exec = "exec",
        /// A process ended.
        Exit = "exit",
        /// Calibration of Tokio's slot.
        TaskEnter = "task_enter",
        /// A target forked.
        Fork = "fork",
        /// A database library was called.
        Call = "call",
        /// A task was spawned.
        Spawn = "spawn",
    }
}

label_values! {
    /// `reason` of [`RECORDS_LOST`].
    LossReason {
        /// The ring buffer was full.
        RingFull = "ring_full",
        /// A socket could not be tracked because the kernel's socket map was full.
        SocketMapFull = "socket_map_full",
        /// A payload could not be read; its byte count was.
        PayloadUnreadable = "payload_unreadable",
        /// A Tokio task id could not be read although its place is known.
        TaskUnreadable = "task_unreadable",
        /// The id of a task that was spawned could not be read.
        SpawnUnreadable = "spawn_unreadable",
        /// A record was too short or of an unknown kind.
        Malformed = "malformed",
        /// A record named a connection that is not known (any more).
        UnknownConnection = "unknown_connection",
    }
}

label_values! {
    /// `reason` of [`TARGETS_REFUSED`].
    Refusal {
        /// As many targets are observed as can be.
        Room = "room",
        /// As many processes of its executable are observed as may be.
        FileShare = "file_share",
        /// As many processes of its user, whose executables are not trusted, are observed as may be.
        UserShare = "user_share",
        /// The child of a target that has as many followed children as may be.
        Child = "child",
        /// Its files or its memory do not answer: it is not observed, or only at its sockets.
        Hung = "hung",
        /// Its executable cannot be opened.
        Unreadable = "unreadable",
        /// The analysis of its executable passed a bound: it is observed at its sockets.
        TooCostly = "too_costly",
        /// Its executable kept changing while probes were attached: it is observed at its sockets.
        FileChanges = "file_changes",
    }
}

label_values! {
    /// `reason` of [`TRANSFERS_SKIPPED`].
    SkipReason {
        /// It returned EAGAIN: nothing was transferred.
        WouldBlock = "would_block",
        /// The socket is not TCP.
        OtherSocket = "other_socket",
    }
}

label_values! {
    /// `problem` of [`EXCHANGE_PROBLEMS`].
    Problem {
        /// A response without a request that was seen.
        UnmatchedResponse = "unmatched_response",
        /// Bytes that are no HTTP/1 message; the connection is resynchronised at the next request.
        Malformed = "malformed",
        /// A message head longer than the bytes that are captured.
        HeadTooLong = "head_too_long",
        /// The sequence of messages was lost, between messages or in a body; it is found again at the next one.
        LostSync = "lost_sync",
        /// A request that ended inside its head.
        PartialRequest = "partial_request",
        /// The connection speaks another protocol (TLS, HTTP/2, …) and is followed by count only.
        OtherProtocol = "other_protocol",
        /// More pipelined requests than are followed.
        PipelineTooDeep = "pipeline_too_deep",
        /// The connection's state was evicted, by the daemon or by the kernel, because the cap on connections was reached.
        Evicted = "evicted",
        /// A route that the uprobe told could not be assigned to a request.
        RouteUnassigned = "route_unassigned",
    }
}

/// One counter for each value of a label.
#[derive(Debug)]
pub struct Counters<L> {
    cells: Box<[AtomicU64]>,
    label: PhantomData<fn(L)>,
}

impl<L: LabelValue> Default for Counters<L> {
    fn default() -> Self {
        Self { cells: L::TEXTS.iter().map(|_| AtomicU64::new(0)).collect(), label: PhantomData }
    }
}

impl<L: LabelValue> Counters<L> {
    /// Adds to a counter.
    pub fn add(&self, value: L, by: u64) {
        self.cells[value.index()].fetch_add(by, Ordering::Relaxed);
    }

    /// Takes over a total that is counted elsewhere (by a kernel program); a lower one than before is ignored.
    pub fn raise_to(&self, value: L, total: u64) {
        self.cells[value.index()].fetch_max(total, Ordering::Relaxed);
    }

    /// The counter's value.
    #[must_use]
    pub fn get(&self, value: L) -> u64 {
        self.cells[value.index()].load(Ordering::Relaxed)
    }

    /// All of them.
    fn total(&self) -> u64 {
        self.cells.iter().map(|cell| cell.load(Ordering::Relaxed)).sum()
    }

    pub(crate) fn collect(&self, family: &Family<'_>, out: &mut Encoder<'_>) {
        let mut samples = out.family(family);
        for (cell, text) in self.cells.iter().zip(L::TEXTS) {
            samples.put([*text], cell.load(Ordering::Relaxed));
        }
    }
}

/// What was built, for [`BUILD_INFO`].
#[derive(Clone, Copy, Debug)]
pub struct Build {
    /// Version of the package.
    pub version: &'static str,
    /// Source revision, `unknown` outside a repository.
    pub revision: &'static str,
    /// Compiler, as `rustc --version` says.
    pub rustc: &'static str,
}

/// The daemon's counters about itself, shared by every room.
#[derive(Debug)]
pub struct SelfMetrics {
    build: Build,
    /// [`RECORDS`].
    pub records: Counters<RecordKind>,
    /// [`RECORDS_LOST`].
    pub lost: Counters<LossReason>,
    /// How many records were taken from the ring, and whatever they say counted.
    pub processed: AtomicU64,
    /// How many records the full ring had refused when the loss was last felt, see [`RECOVERING`].
    pub recovered: AtomicU64,
    /// [`TRANSFERS_SKIPPED`].
    pub skipped: Counters<SkipReason>,
    /// [`TARGETS_REFUSED`].
    pub refusals: Counters<Refusal>,
    /// [`EXCHANGE_PROBLEMS`].
    pub problems: Counters<Problem>,
    /// [`super::database::PROBLEMS`].
    pub database_problems: Counters<DatabaseProblem>,
    /// Families of [`super::routing`].
    pub routing: super::routing::Routing,
    /// [`LOST_BYTES`].
    pub lost_bytes: AtomicU64,
    /// [`SPANS`], where spans are exported.
    pub spans: OnceLock<Arc<SpanCounters>>,
    /// [`super::stores`].
    pub stores: Meters,
}

impl SelfMetrics {
    /// All zero.
    #[must_use]
    pub fn new(build: Build) -> Self {
        let (records, lost) = (Counters::default(), Counters::default());
        Self {
            build,
            records,
            lost,
            processed: AtomicU64::new(0),
            recovered: AtomicU64::new(0),
            skipped: Counters::default(),
            refusals: Counters::default(),
            problems: Counters::default(),
            database_problems: Counters::default(),
            routing: super::routing::Routing::default(),
            lost_bytes: AtomicU64::new(0),
            spans: OnceLock::new(),
            stores: Meters::default(),
        }
    }
}

impl SelfMetrics {
    /// What was taken so far is processed, and its counts are published.
    pub fn set_processed(&self) {
        self.processed.store(self.records.total() + self.lost.get(LossReason::Malformed), Ordering::Relaxed);
    }

    /// Of so many records, those that wait: see [`RECORDS_WAITING`].
    #[must_use]
    pub fn waiting(&self, written: u64) -> u64 {
        written.saturating_sub(self.processed.load(Ordering::Relaxed))
    }

    /// The ring refused records, and that can still be felt: see [`RECOVERING`].
    #[must_use]
    pub fn is_recovering(&self) -> bool {
        self.lost.get(LossReason::RingFull) != self.recovered.load(Ordering::Relaxed)
    }
}

impl Collect for SelfMetrics {
    fn collect(&self, out: &mut Encoder<'_>) {
        let Build { version, revision, rustc } = self.build;
        out.family(&BUILD_INFO).put([version, revision, rustc], 1u64);
        self.records.collect(&RECORDS, out);
        self.lost.collect(&RECORDS_LOST, out);
        self.skipped.collect(&TRANSFERS_SKIPPED, out);
        self.refusals.collect(&TARGETS_REFUSED, out);
        self.problems.collect(&EXCHANGE_PROBLEMS, out);
        self.database_problems.collect(&super::database::PROBLEMS, out);
        self.routing.collect(out);
        out.family(&LOST_BYTES).put([], self.lost_bytes.load(Ordering::Relaxed));
        self.stores.collect(out);
        let spans = self.spans.get().map(|counters| counters.read()).unwrap_or_default();
        let mut samples = out.family(&SPANS);
        for (result, count) in [
            ("exported", spans.exported),
            ("unsampled", spans.unsampled),
            ("dropped_queue_full", spans.dropped_queue_full),
            ("dropped_export_failed", spans.dropped_export_failed),
            ("dropped_export_timeout", spans.dropped_export_timeout),
            ("dropped_shutdown", spans.dropped_shutdown),
        ] {
            samples.put([result], count);
        }
    }
}
