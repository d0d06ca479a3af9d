//! What became of the spans.
//!
//! Reads: nothing. Yields: counts for the exposition. Costs: one or two relaxed additions per span.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counts since start, of spans: exchanges, operations and waits alike. `offered` equals the sum of all others once nothing waits and the tracers are dropped.
#[derive(Debug, Default)]
pub struct SpanCounters {
    /// Exchanges and operations offered, and waits for pooled connections of sampled ones.
    pub offered: AtomicU64,
    /// Left out by the sampler.
    pub unsampled: AtomicU64,
    /// Accepted by the collector. One that rejects some spans of an export it accepts (OTLP partial success) is not
    /// seen: the exporter's library does not pass that on.
    pub exported: AtomicU64,
    /// Dropped: the queue was full.
    pub dropped_queue_full: AtomicU64,
    /// Dropped: the collector could not be reached or refused, after the retries.
    pub dropped_export_failed: AtomicU64,
    /// Dropped: the collector did not answer within `traces.export_timeout`.
    pub dropped_export_timeout: AtomicU64,
    /// Dropped: still waiting or on the way at the end of a shutdown. The collector may have got those on the way.
    pub dropped_shutdown: AtomicU64,
    /// Exports that the collector accepted.
    pub exports: AtomicU64,
    /// Exports given up.
    pub exports_failed: AtomicU64,
}

/// One reading of [`SpanCounters`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of SpanCounters")]
pub struct SpanCounts {
    pub offered: u64,
    pub unsampled: u64,
    pub exported: u64,
    pub dropped_queue_full: u64,
    pub dropped_export_failed: u64,
    pub dropped_export_timeout: u64,
    pub dropped_shutdown: u64,
    pub exports: u64,
    pub exports_failed: u64,
}

impl SpanCounters {
    /// Reads all counts, each by itself.
    pub fn read(&self) -> SpanCounts {
        SpanCounts {
            offered: self.offered.load(Relaxed),
            unsampled: self.unsampled.load(Relaxed),
            exported: self.exported.load(Relaxed),
            dropped_queue_full: self.dropped_queue_full.load(Relaxed),
            dropped_export_failed: self.dropped_export_failed.load(Relaxed),
            dropped_export_timeout: self.dropped_export_timeout.load(Relaxed),
            dropped_shutdown: self.dropped_shutdown.load(Relaxed),
            exports: self.exports.load(Relaxed),
            exports_failed: self.exports_failed.load(Relaxed),
        }
    }
}

impl SpanCounts {
    /// Spans dropped, whatever the reason.
    pub fn dropped(&self) -> u64 {
        self.dropped_queue_full + self.dropped_export_failed + self.dropped_export_timeout + self.dropped_shutdown
    }
}
