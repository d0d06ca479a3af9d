//! What the HTTP recorder writes and scrapes read: one set of atomic histograms per label set.
//!
//! Reads: nothing. Yields: [`HttpMetrics`], shared by the recorder and the exposition. Costs: about 300 bytes per server
//! label set and 150 per client one, 860 more once one of its exchanges was traced. A series stays when its target ends, so
//! that no counter runs backwards when that comes back; the recorder's caps bound them, see `renew.rs`.

use super::histogram::{Histogram, Traced, TracedCell, scale};
use super::http;
use super::http_collect::Scratch;
use super::list::List;
use super::places::FIXED;
use super::recorder::Limits;
use crate::exchange::{Method, Outcome, Side};
use crate::exposition::LabelSet;
use crate::route::Source;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

pub(super) const DURATION_BOUNDS: [u64; http::DURATION.values.len()] = scale(http::DURATION.values, 1e9);
pub(super) const DURATION_BUCKETS: usize = DURATION_BOUNDS.len() + 1;
pub(super) const SIZE_BOUNDS: [u64; http::SIZE.values.len()] = scale(http::SIZE.values, 1.0);
pub(super) const SIZE_BUCKETS: usize = SIZE_BOUNDS.len() + 1;

/// The route of exchanges that have none of their own because a cap was reached; also such services and peers.
pub(super) const OTHER: &str = "~other";

/// The route of requests whose records were lost.
pub(super) const LOST: &str = "~lost";

/// Durations and the last trace of each of `N` buckets.
pub(super) struct Timed<const N: usize> {
    pub(super) duration: Histogram<N>,
    pub(super) traced: OnceLock<Box<[TracedCell; N]>>,
}

impl<const N: usize> Timed<N> {
    pub(super) const fn new() -> Self {
        Self { duration: Histogram::new(), traced: OnceLock::new() }
    }

    /// Records a duration in ns, and the trace of what ended at `end_ns`. One thread only.
    pub(super) fn observe(&self, bounds: &[u64], value: u64, end_ns: u64, trace: Option<(u128, u64)>) {
        let bucket = self.duration.observe(bounds, value);
        if let Some((trace_id, span_id)) = trace {
            let cells = self.traced.get_or_init(|| Box::new([const { TracedCell::new() }; N]));
            cells[bucket].write(&Traced { trace_id, span_id, value, time_ns: end_ns });
        }
    }
}

/// How an exchange ended, as far as labels tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Ending {
    /// Complete or upgraded; which one follows from method and status.
    Whole,
    Aborted,
    Incomplete,
}

impl From<Outcome> for Ending {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Complete | Outcome::Upgraded => Self::Whole,
            Outcome::ClientAborted => Self::Aborted,
            Outcome::Incomplete => Self::Incomplete,
        }
    }
}

/// `outcome` of `rustok_obsd_exchanges_total`.
pub(super) const OUTCOMES: [&str; 4] = ["complete", "upgraded", "client_aborted", "incomplete"];

/// Index in [`OUTCOMES`].
pub(super) fn outcome(method: Method, status: u16, ending: Ending) -> usize {
    let upgraded = status == 101 || method == Method::Connect && (200..300).contains(&status);
    match ending {
        Ending::Whole => usize::from(upgraded),
        Ending::Aborted => 2,
        Ending::Incomplete => 3,
    }
}

/// `error.type` of the semantic conventions: the status where that is an error for this side, else what went wrong.
pub(super) fn error_type(side: Side, status: u16, ending: Ending) -> String {
    let first_error = if side == Side::Server { 500 } else { 400 };
    match (ending, side) {
        (Ending::Aborted, Side::Server) => "client_aborted".to_owned(),
        (Ending::Aborted, Side::Client) => "connection_closed".to_owned(),
        (Ending::Incomplete, _) => "incomplete".to_owned(),
        (Ending::Whole, _) if status >= first_error => status.to_string(),
        (Ending::Whole, _) => String::new(),
    }
}

pub(super) const METHODS: [Method; 10] = [
    Method::Get,
    Method::Head,
    Method::Post,
    Method::Put,
    Method::Delete,
    Method::Connect,
    Method::Options,
    Method::Trace,
    Method::Patch,
    Method::Other,
];

/// `source` of `rustok_obsd_routes`, in the order of the variants of [`Source`].
pub(super) const SOURCES: [&str; 5] = ["axum", "pattern", "learned", "unmatched", "overflow"];

/// A service: one or more targets of the same name.
pub(super) struct Service {
    pub(super) name: String,
    /// Active server requests by method.
    pub(super) active: [AtomicU64; METHODS.len()],
    /// Labels of `active`, written when a method is first seen.
    pub(super) active_labels: [OnceLock<LabelSet>; METHODS.len()],
    /// Routes by source.
    pub(super) routes: [AtomicU64; SOURCES.len()],
}

impl Service {
    /// Active requests of this method are shown from now on.
    pub(super) fn label_active(&self, method: usize) {
        self.active_labels[method].get_or_init(|| {
            let names = http::SERVER_ACTIVE_REQUESTS.labels.iter().copied();
            LabelSet::new(names.zip([self.name.as_str(), METHODS[method].as_str(), "http"]))
        });
    }
}

/// Server exchanges of one label set.
pub(super) struct ServerSeries {
    pub(super) labels: LabelSet,
    pub(super) service: usize,
    /// Index of RusToK's method, path and status.
    pub(super) request: usize,
    /// Index of RusToK's method and path.
    pub(super) path: usize,
    /// Index in [`OUTCOMES`].
    pub(super) outcome: usize,
    /// The route is `~other`.
    pub(super) overflow: bool,
    /// Where the route's name came from.
    pub(super) source: Source,
    pub(super) timed: Timed<DURATION_BUCKETS>,
    pub(super) request_body: Histogram<SIZE_BUCKETS>,
    pub(super) response_body: Histogram<SIZE_BUCKETS>,
}

impl ServerSeries {
    /// Bytes of one, with labels of usual length and its places in the tables.
    pub(super) const SIZE: usize = size_of::<Self>() + 900;

    /// Adds what another one of the same labels counted; the traces of exemplars stay behind.
    pub(super) fn take_over(&self, other: &Self) {
        self.timed.duration.take_over(&other.timed.duration);
        self.request_body.take_over(&other.request_body);
        self.response_body.take_over(&other.response_body);
    }
}

impl ClientSeries {
    /// Bytes of one, with labels of usual length and its places in the tables.
    pub(super) const SIZE: usize = size_of::<Self>() + 600;
}

/// Client exchanges of one label set.
pub(super) struct ClientSeries {
    pub(super) labels: LabelSet,
    pub(super) service: usize,
    /// Index in [`OUTCOMES`].
    pub(super) outcome: usize,
    pub(super) timed: Timed<DURATION_BUCKETS>,
}

/// RusToK's labels of a method and route, which two of its families name differently.
pub(super) struct PathLabels {
    pub(super) path: LabelSet,
    pub(super) endpoint: LabelSet,
}

/// All label sets, from one renewal to the next.
pub(super) struct Lists {
    pub(super) services: List<Service>,
    pub(super) server: List<Arc<ServerSeries>>,
    pub(super) client: List<Arc<ClientSeries>>,
    pub(super) requests: List<LabelSet>,
    pub(super) paths: List<PathLabels>,
}

impl Lists {
    pub(super) fn new(limits: &Limits) -> Self {
        let server = limits.server_capacity();
        Self {
            services: List::with_capacity(limits.services + FIXED),
            server: List::with_capacity(server),
            client: List::with_capacity(limits.client_capacity()),
            requests: List::with_capacity(server),
            paths: List::with_capacity(server),
        }
    }
}

/// The HTTP families: written by one [`HttpRecorder`](super::recorder::HttpRecorder), read by scrapes.
pub struct HttpMetrics {
    /// Replaced, never changed but for what is appended: a reader holds the lock for the copy of a pointer.
    lists: Mutex<Arc<Lists>>,
    pub(super) connections: AtomicU64,
    pub(super) targets: AtomicU64,
    /// Replaced, never changed: a reader holds the lock for the copy of a pointer.
    pub(super) target_info: Mutex<Arc<[LabelSet]>>,
    /// Server requests of which nothing but their number is known.
    pub(super) lost: AtomicU64,
    pub(super) server_overflow: AtomicU64,
    pub(super) client_overflow: AtomicU64,
    /// Memory of earlier scrapes; the recorder has no part in it.
    pub(super) scratch: Mutex<Vec<Scratch>>,
}

impl HttpMetrics {
    pub(super) fn new(lists: Arc<Lists>) -> Self {
        Self {
            lists: Mutex::new(lists),
            connections: AtomicU64::new(0),
            targets: AtomicU64::new(0),
            target_info: Mutex::new(Arc::new([])),
            lost: AtomicU64::new(0),
            server_overflow: AtomicU64::new(0),
            client_overflow: AtomicU64::new(0),
            scratch: Mutex::default(),
        }
    }

    /// The label sets as of now.
    pub(super) fn lists(&self) -> Arc<Lists> {
        Arc::clone(&self.lists.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Scrapes that begin from now on read these.
    pub(super) fn replace(&self, lists: Arc<Lists>) {
        let old = std::mem::replace(&mut *self.lists.lock().unwrap_or_else(PoisonError::into_inner), lists);
        drop(old);
    }
}

/// Index of a source in [`SOURCES`].
pub(super) const fn source_index(source: Source) -> usize {
    match source {
        Source::Axum => 0,
        Source::Pattern => 1,
        Source::Learned => 2,
        Source::Unmatched => 3,
        Source::Overflow => 4,
    }
}
