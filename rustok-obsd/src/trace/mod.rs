//! One span per exchange, sampled on the capture thread, exported to a collector by a thread of its own.
//!
//! Reads: an [`Exchange`] with its route, addresses and target. Yields: OTLP spans by OpenTelemetry's semantic
//! conventions for HTTP, version 1.37 (<https://opentelemetry.io/docs/specs/semconv/http/http-spans/>), and the
//! [`TraceIds`] for exemplars. Costs: an unsampled exchange some nanoseconds; a sampled one a copy into a bounded
//! queue, without allocation in steady state and without ever waiting; what does not fit is counted.
//!
//! The files: `sample` decides and makes ids, `record` is what crosses the queue, `clock` turns monotonic
//! times into wall clock, `span` applies the conventions, `resource` describes the target, `export` batches and sends.

mod clock;
mod counters;
mod export;
mod record;
mod resource;
mod sample;
mod span;

use crate::config::Traces;
use crate::exchange::Exchange;
use crate::route::Route;
use record::{HostCache, Record};
use rustc_hash::FxHashMap;
use sample::{Ids, Sampling};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::Duration;

pub use clock::Clock;
pub use counters::{SpanCounters, SpanCounts};
pub use resource::{Resources, TargetResource};

/// Name of the attribute that holds the Tokio task's id (`tokio::task::Id`); there is no convention for it.
pub const TASK_ID: &str = "rustok_obsd.tokio.task.id";
/// Name of the attribute that tells where `http.route` came from: `axum`, `pattern` or `learned`.
pub const ROUTE_SOURCE: &str = "rustok_obsd.route.source";
/// Name of the attribute that tells how an exchange ended, where not by a whole response: `client_aborted`,
/// `server_closed`, `upgraded` or `incomplete`.
pub const OUTCOME: &str = "rustok_obsd.exchange.outcome";

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
        let (queue, waiting) = std::sync::mpsc::sync_channel(settings.queue_size);
        let shared = Arc::new(export::Shared::new(settings.batch_size));
        let exporter = export::start(&settings, waiting, Arc::clone(&shared))?;
        Ok(Some(Self { exporter, queue, shared, settings }))
    }

    /// A tracer for one capture thread, with ids of its own.
    pub fn tracer(&self) -> Tracer {
        Tracer {
            sampling: Sampling::new(self.settings.sampler, self.settings.sampler_arg),
            ids: Ids::seeded(),
            targets: FxHashMap::default(),
            unknown: Arc::new(TargetResource::unknown()),
            hosts: HostCache::default(),
            keep_path: self.settings.url_path,
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
    hosts: HostCache,
    keep_path: bool,
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

    /// Offers one exchange. Yields the span's ids if it is sampled and was queued; never waits. A target that was
    /// never added is exported as `unknown_service`.
    pub fn offer(
        &mut self,
        target: TargetKey,
        exchange: &Exchange<'_>,
        route: Option<&Route>,
        addresses: Addresses,
    ) -> Option<TraceIds> {
        let counters = &self.shared.counters;
        counters.offered.fetch_add(1, Relaxed);
        let Some(trace_id) = self.sampling.decide(exchange.traceparent.as_ref(), &mut self.ids) else {
            counters.unsampled.fetch_add(1, Relaxed);
            return None;
        };
        let ids = TraceIds { trace_id, span_id: self.ids.span_id() };
        let resource = self.targets.get(&target).unwrap_or(&self.unknown);
        let host = self.hosts.get(exchange.host);
        let record = Record::new(ids, Arc::clone(resource), exchange, route, host, addresses, self.keep_path);
        let waiting = self.shared.enter();
        match self.queue.try_send(record) {
            Ok(()) => {
                self.shared.entered(waiting);
                // Closed: it is counted when the tracer goes, see `Shared::leftover`.
                (!self.shared.is_closed()).then_some(ids)
            }
            Err(error) => {
                self.shared.leave(1);
                let dropped = match error {
                    TrySendError::Full(_) => &counters.dropped_queue_full,
                    TrySendError::Disconnected(_) => &counters.dropped_shutdown,
                };
                dropped.fetch_add(1, Relaxed);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests;
