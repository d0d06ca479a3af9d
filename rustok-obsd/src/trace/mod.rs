//! One span per exchange and per database operation, sampled on the capture thread, exported to a collector by a thread
//! of its own.
//!
//! Reads: an [`Exchange`] with its route, addresses and target; an [`Operation`] with the span of its request. Yields:
//! OTLP spans by OpenTelemetry's semantic conventions for HTTP and databases, version 1.37
//! (<https://opentelemetry.io/docs/specs/semconv/>), and the [`TraceIds`] for exemplars. Costs: an unsampled exchange
//! some nanoseconds; a sampled one a copy into a bounded queue, without allocation in steady state and without ever
//! waiting; what does not fit is counted.
//!
//! The tree of one request: the server's span, below it, side by side, each wait for a pooled connection and each
//! operation. Operations that outlived the request are traces of their own with a link to it.
//!
//! The files: `sample` decides and makes ids, `record` is what crosses the queue, `clock` turns monotonic
//! times into wall clock, `span` and `database` apply the conventions, `names` are ours where they have none,
//! `resource` describes the target, `export` batches and sends.

mod clock;
mod counters;
mod database;
mod export;
mod names;
mod record;
mod resource;
mod sample;
mod span;

use crate::budget::Meter;
use crate::config::Traces;
use crate::database::{Operation, Parent};
use crate::exchange::{Exchange, TraceParent, Wanted};
use crate::route::Route;
use database::{QueryRecord, Relation, WaitRecord};
use record::{Caches, HttpRecord, Keep, Record};
use rustc_hash::FxHashMap;
use sample::{Ids, Sampling};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::Duration;

pub use clock::Clock;
pub use counters::{SpanCounters, SpanCounts};
pub use names::*;
pub use resource::{Resources, TargetResource};

/// A shorter wait for a pooled connection gets no span of its own, only the attribute [`POOL_WAIT`] of its operation: a
/// free connection is handed out in some microseconds, ping included in some hundred.
pub const POOL_WAIT_SPAN_NS: u64 = 50_000;

pub use crate::contract::recorder::TargetKey;

/// The two ends of a connection, as the target sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// The target's own.
    pub local: SocketAddr,
    /// The peer's.
    pub remote: SocketAddr,
}

/// Ids of a sampled span, as an exemplar names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceIds {
    /// Trace, not all zero.
    pub trace_id: [u8; 16],
    /// Span, not all zero.
    pub span_id: [u8; 8],
}

/// Whether the trace of a request is kept. Decided once: when its first operation begins, else when it has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Decision {
    /// Not decided yet.
    #[default]
    Undecided,
    /// It is not kept, nor is what belongs to it.
    Unsampled,
    /// It is kept; these are the ids of the request's span.
    Sampled(TraceIds),
}

impl Decision {
    /// The span that operations of the request name as their parent.
    #[must_use]
    pub const fn ids(self) -> Option<TraceIds> {
        match self {
            Self::Sampled(ids) => Some(ids),
            Self::Undecided | Self::Unsampled => None,
        }
    }
}

impl From<Option<TraceIds>> for Decision {
    /// What [`Tracer::begin`] told.
    fn from(ids: Option<TraceIds>) -> Self {
        ids.map_or(Self::Unsampled, Self::Sampled)
    }
}

/// Tracing cannot start.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The exporter's library refuses the settings.
    #[error("cannot export spans to {url}: {reason}; check traces.endpoint, traces.protocol and OTEL_EXPORTER_OTLP_*")]
    Exporter {
        /// The collector.
        url: String,
        /// What the library says.
        reason: String,
    },
    /// No thread or no runtime.
    #[error("cannot start the thread that exports spans: {0}; raise the limit of processes (ulimit -u) or free memory")]
    Thread(#[source] std::io::Error),
}

/// The exporter, running.
#[derive(Debug)]
pub struct Tracing {
    exporter: export::Handle,
    queue: SyncSender<Record>,
    shared: Arc<export::Shared>,
    settings: Traces,
    repeated: u32,
}

/// Default of `database.repeated`.
pub const REPEATED: u32 = 5;

/// The fields of request heads that spans need; none where tracing is off.
#[must_use]
pub fn wanted(settings: &Traces) -> Wanted {
    if !settings.enabled() {
        return Wanted::default();
    }
    Wanted { tenant: settings.tenant_header.clone().unwrap_or_default(), fields: settings.request_headers.clone() }
}

impl Tracing {
    /// Starts the exporter; `None` where tracing is off, that is without an endpoint, or told so.
    ///
    /// A collector that is absent is no error: see [`SpanCounters`].
    ///
    /// # Errors
    /// The settings cannot be used, or there is no thread.
    pub fn start(settings: &Traces) -> Result<Option<Self>, TraceError> {
        if !settings.enabled() {
            return Ok(None);
        }
        let mut settings = settings.clone();
        settings.queue_size = settings.queue_size.max(1);
        settings.batch_size = settings.batch_size.clamp(1, settings.queue_size);
        // Room for a second target beside one that fills its share, which is `queue_size` spans of usual length.
        let (queue, waiting) = std::sync::mpsc::sync_channel(settings.queue_size.saturating_mul(2));
        let shared = Arc::new(export::Shared::new(settings.batch_size, settings.queue_size));
        let exporter = export::start(&settings, waiting, Arc::clone(&shared))?;
        Ok(Some(Self { exporter, queue, shared, settings, repeated: REPEATED }))
    }

    /// With a bound of its own for statements that a request repeats (`database.repeated`); a span names one that ran
    /// more often.
    #[must_use]
    pub const fn with_repeated(mut self, bound: u32) -> Self {
        self.repeated = bound;
        self
    }

    /// A tracer for one capture thread, with ids of its own.
    pub fn tracer(&self) -> Tracer {
        Tracer {
            sampling: Sampling::new(self.settings.sampler, self.settings.sampler_arg),
            ids: Ids::seeded(),
            targets: FxHashMap::default(),
            unknown: Arc::new(TargetResource::unknown()),
            caches: Caches::default(),
            keep: Keep { path: self.settings.url_path, repeated: self.repeated },
            queue: self.queue.clone(),
            shared: Arc::clone(&self.shared),
        }
    }

    /// What became of the spans.
    pub fn counters(&self) -> Arc<SpanCounters> {
        Arc::clone(&self.shared.counters)
    }

    /// Exports what waits and ends, at the latest when `within` has passed; what is then left is counted as
    /// `shutdown`. Blocks the calling thread. Returns whether everything was exported or given up in time.
    pub fn shutdown(self, within: Duration) -> bool {
        self.exporter.shutdown(within)
    }
}

/// Offers exchanges; one per capture thread.
#[derive(Debug)]
pub struct Tracer {
    sampling: Sampling,
    ids: Ids,
    targets: FxHashMap<TargetKey, Arc<TargetResource>>,
    unknown: Arc<TargetResource>,
    caches: Caches,
    keep: Keep,
    queue: SyncSender<Record>,
    shared: Arc<export::Shared>,
}

impl Tracer {
    /// Says what a target is; replaces what was said before. Spans keep the description they were offered under.
    pub fn add_target(&mut self, key: TargetKey, resource: Arc<TargetResource>) {
        self.targets.insert(key, resource);
    }

    /// Forgets a target that has ended. Its spans on the way are exported as they are.
    pub fn remove_target(&mut self, key: TargetKey) {
        self.targets.remove(&key);
    }

    /// Decides on the trace of a server's request while it runs: to be called when its first operation begins, and the
    /// [`Decision`] of the answer to be kept until the request is offered as [`Exchange::ids`]. Counts nothing: the
    /// request is counted when it is offered.
    pub fn begin(&mut self, target: TargetKey, traceparent: Option<&TraceParent>) -> Option<TraceIds> {
        // Sampling is one for all targets so far.
        let _ = target;
        let trace_id = self.sampling.decide(traceparent, &mut self.ids)?;
        Some(TraceIds { trace_id, span_id: self.ids.span_id() })
    }

    /// Offers one exchange. Yields the span's ids if it is sampled and was queued; never waits. A target that was
    /// never added is exported as `unknown_service`.
    pub fn offer(
        &mut self,
        target: TargetKey,
        exchange: &Exchange<'_>,
        route: Option<&Route>,
        addresses: Addresses,
    ) -> Option<TraceIds> {
        self.shared.counters.offered.fetch_add(1, Relaxed);
        let decided = match exchange.ids {
            Decision::Undecided => self.begin(target, exchange.traceparent.as_ref()),
            decided => decided.ids(),
        };
        let Some(ids) = decided else {
            self.shared.counters.unsampled.fetch_add(1, Relaxed);
            return None;
        };
        let resource = self.resource(target);
        let record = HttpRecord::new(ids, resource, exchange, route, addresses, &mut self.caches, self.keep);
        self.queue(Record::Http(record), ids)
    }

    /// Offers one operation that ended, and its wait for a pooled connection where that was long enough
    /// ([`POOL_WAIT_SPAN_NS`]) and belongs to a request. Yields the operation's ids if it is sampled and was queued; never
    /// waits.
    ///
    /// An operation of a request ([`Parent::Request`], [`Parent::Linked`]) goes with it: without
    /// [`Operation::parent_span`] it is not sampled. Any other is a root, and decided as one.
    pub fn offer_operation(&mut self, target: TargetKey, operation: &Operation<'_>) -> Option<TraceIds> {
        self.shared.counters.offered.fetch_add(1, Relaxed);
        let relation = match (operation.parent, operation.parent_span) {
            (Parent::Request(_), parent) => parent.map(|parent| (parent.trace_id, Relation::Child(parent))),
            (Parent::Linked(_), parent) => parent.map(|parent| (self.ids.trace_id(), Relation::Linked(parent))),
            (Parent::Background | Parent::Unknown, _) => {
                self.sampling.decide(None, &mut self.ids).map(|trace_id| (trace_id, Relation::Root))
            }
        };
        let Some((trace_id, relation)) = relation else {
            self.shared.counters.unsampled.fetch_add(1, Relaxed);
            return None;
        };
        let waited = operation.pool_wait_ns().is_some_and(|wait| wait > POOL_WAIT_SPAN_NS);
        if let (true, Relation::Child(parent)) = (waited, relation) {
            self.shared.counters.offered.fetch_add(1, Relaxed);
            let ids = TraceIds { trace_id, span_id: self.ids.span_id() };
            let record = WaitRecord::new(ids, parent, self.resource(target), operation);
            self.queue(Record::Wait(record), ids);
        }
        let ids = TraceIds { trace_id, span_id: self.ids.span_id() };
        let record = QueryRecord::new(ids, relation, self.resource(target), operation);
        self.queue(Record::Query(record), ids)
    }

    fn resource(&self, target: TargetKey) -> Arc<TargetResource> {
        Arc::clone(self.targets.get(&target).unwrap_or(&self.unknown))
    }

    /// Figures of the queue.
    #[must_use]
    pub fn meter(&self) -> Arc<Meter> {
        self.shared.budget.meter()
    }

    fn queue(&self, record: Record, ids: TraceIds) -> Option<TraceIds> {
        if !self.shared.budget.charge(&record.resource().queued, record.size()) {
            self.shared.counters.dropped_queue_full.fetch_add(1, Relaxed);
            return None;
        }
        let waiting = self.shared.enter();
        match self.queue.try_send(record) {
            Ok(()) => {
                self.shared.entered(waiting);
                // Closed: it is counted when the tracer goes, see `Shared::leftover`.
                (!self.shared.is_closed()).then_some(ids)
            }
            Err(error) => {
                let counters = &self.shared.counters;
                let (record, dropped) = match error {
                    TrySendError::Full(record) => (record, &counters.dropped_queue_full),
                    TrySendError::Disconnected(record) => (record, &counters.dropped_shutdown),
                };
                self.shared.leave(&[record]);
                dropped.fetch_add(1, Relaxed);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests;
