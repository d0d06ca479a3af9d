//! Batches spans and sends them, on a thread of its own.
//!
//! Reads: the queue. Yields: OTLP exports, one per target and batch. Costs: conversion and encoding, off the capture
//! thread; memory for one batch besides the queue.
//!
//! Batching as the specification's batch processor has it
//! (<https://opentelemetry.io/docs/specs/otel/trace/sdk/#batching-processor>): a full batch leaves at once, and what is
//! less than one leaves `schedule_delay` after the last batch did. Retries, three with growing pauses within `timeout`, are opentelemetry-otlp's; a batch that
//! still fails is dropped and counted, so that an absent collector costs a bounded queue and nothing else.

use super::record::Record;
use super::span::Conventions;
use super::{Clock, SpanCounters, TargetResource, TraceError};
use crate::budget::{SharedBudget, Store};
use crate::config::{Choice, Compression, Protocol, Traces};
use crate::liveness;
use opentelemetry_otlp::tonic_types::metadata::MetadataMap;
use opentelemetry_otlp::{SpanExporter as OtlpExporter, WithExportConfig, WithHttpConfig, WithTonicConfig};
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

/// How long the thread may be silent: nothing in its runtime blocks.
const BOUND: Duration = Duration::from_secs(60);

/// What tracers and exporter share besides the queue.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) counters: Arc<SpanCounters>,
    /// Of the queue; each target has its share.
    pub(super) budget: SharedBudget,
    batch_size: usize,
    /// Spans in the queue; one that is being pushed counts.
    waiting: AtomicUsize,
    /// A batch is full.
    ready: Notify,
    closed: AtomicBool,
    /// The queue after the exporter's end: a span that was pushed at that moment is counted when the last tracer goes.
    leftover: Mutex<Option<Receiver<Record>>>,
}

impl Shared {
    /// One target may fill a queue of so many spans.
    pub(super) fn new(batch_size: usize, queue_size: usize) -> Self {
        let limit = queue_size.saturating_mul(2 * Record::ROOM);
        Self {
            counters: Arc::default(),
            budget: SharedBudget::with_limit(Store::Spans, limit),
            batch_size,
            waiting: AtomicUsize::new(0),
            ready: Notify::new(),
            closed: AtomicBool::new(false),
            leftover: Mutex::new(None),
        }
    }

    /// Before a push; yields how many then wait.
    pub(super) fn enter(&self) -> usize {
        self.waiting.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// After a push: wakes the exporter once per full batch.
    pub(super) fn entered(&self, waiting: usize) {
        if waiting.is_multiple_of(self.batch_size) {
            self.ready.notify_one();
        }
    }

    /// After a pop, or a push that failed.
    pub(super) fn leave(&self, records: &[Record]) {
        self.waiting.fetch_sub(records.len(), Ordering::Relaxed);
        for record in records {
            self.budget.release(&record.resource().queued, record.size());
        }
    }

    /// A whole batch waits.
    fn is_full(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) >= self.batch_size
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let leftover = self.leftover.get_mut().ok().and_then(Option::take);
        let count = leftover.map_or(0, |queue| queue.try_iter().count());
        self.counters.dropped_shutdown.fetch_add(count as u64, Ordering::Relaxed);
    }
}

/// The running exporter. Dropped without [`Handle::shutdown`], it ends at once.
#[derive(Debug)]
pub(super) struct Handle {
    stop: watch::Sender<Option<Instant>>,
    done: Receiver<()>,
}

impl Handle {
    pub(super) fn shutdown(self, within: Duration) -> bool {
        // The rest is for the thread to end, also where the machine is busy.
        let margin = Duration::from_millis(200).min(within / 4);
        let _ = self.stop.send(Some(Instant::now() + within - margin));
        self.done.recv_timeout(within).is_ok()
    }
}

/// Starts the thread; yields once the exporter is built.
pub(super) fn start(settings: &Traces, queue: Receiver<Record>, shared: Arc<Shared>) -> Result<Handle, TraceError> {
    let (stop, stopped) = watch::channel(None);
    let (finished, done) = sync_channel(1);
    let (built, result) = sync_channel(1);
    let settings = settings.clone();
    let body = move || {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build() {
            Ok(runtime) => runtime,
            Err(error) => return drop(built.send(Err(TraceError::Thread(error)))),
        };
        let beat = liveness::process().register("span-export", BOUND);
        runtime.block_on(beat.beside(async {
            // gRPC's channel starts a task when it is built.
            let exporter = match build(&settings) {
                Ok(exporter) => exporter,
                Err(error) => return drop(built.send(Err(error))),
            };
            let _ = built.send(Ok(()));
            let worker = Worker {
                exporter,
                clock: Clock::new(),
                conventions: Conventions::new(&settings.request_headers),
                url: settings.shown_url(),
                down: false,
                settings,
                queue,
                shared,
                stopped,
            };
            worker.run().await;
        }));
        beat.done();
        // A name look-up that hangs must not hold the end up.
        runtime.shutdown_background();
        let _ = finished.send(());
    };
    let thread = std::thread::Builder::new().name("span-export".into());
    thread.spawn(body).map_err(TraceError::Thread)?;
    let dead = || TraceError::Thread(std::io::Error::other("the thread ended at once"));
    result.recv().map_err(|_| dead())??;
    Ok(Handle { stop, done })
}

/// The library's exporter. It reads `OTEL_EXPORTER_OTLP_*` too, but only below what is set here.
fn build(settings: &Traces) -> Result<OtlpExporter, TraceError> {
    let url = settings.url();
    // The library's words may hold the URL and the headers.
    let refuse = |reason: String| TraceError::Exporter { url: settings.shown_url(), reason: hide(&reason, settings) };
    let gzip = settings.compression == Compression::Gzip;
    if settings.resolved_protocol() == Protocol::Grpc {
        let mut headers = axum::http::HeaderMap::new();
        for (name, value) in &settings.headers.0 {
            let name = axum::http::HeaderName::try_from(name).map_err(|error| refuse(error.to_string()))?;
            let value = axum::http::HeaderValue::try_from(value).map_err(|error| refuse(error.to_string()))?;
            headers.insert(name, value);
        }
        let mut builder = OtlpExporter::builder()
            .with_tonic()
            .with_endpoint(&url)
            .with_timeout(settings.timeout)
            .with_metadata(MetadataMap::from_headers(headers));
        if gzip {
            builder = builder.with_compression(opentelemetry_otlp::Compression::Gzip);
        }
        builder.build().map_err(|error| refuse(error.to_string()))
    } else {
        let mut builder = OtlpExporter::builder()
            .with_http()
            .with_protocol(opentelemetry_otlp::Protocol::HttpBinary)
            .with_endpoint(&url)
            .with_timeout(settings.timeout)
            .with_headers(settings.headers.0.iter().cloned().collect());
        if gzip {
            builder = builder.with_compression(opentelemetry_otlp::Compression::Gzip);
        }
        builder.build().map_err(|error| refuse(error.to_string()))
    }
}

/// A reason without the secrets of the settings: the URL's query, the values of headers.
fn hide(reason: &str, settings: &Traces) -> String {
    let url = settings.url();
    let query = url.split_once(['?', '#']).map(|(_, query)| query);
    let values = settings.headers.0.iter().map(|(_, value)| value.as_str());
    let secrets = query.into_iter().chain(values).filter(|secret| !secret.is_empty());
    secrets.fold(reason.to_owned(), |reason, secret| reason.replace(secret, "…"))
}

/// Why a group of spans did not get through.
enum Failure {
    Failed(String),
    Timeout,
    Shutdown,
}

/// Takes batches out of the queue. Generic over the exporter, so that a test holds the answers back; the clock is
/// Tokio's, which a test can stop.
struct Worker<E> {
    exporter: E,
    clock: Clock,
    conventions: Conventions,
    url: String,
    down: bool,
    settings: Traces,
    queue: Receiver<Record>,
    shared: Arc<Shared>,
    stopped: watch::Receiver<Option<Instant>>,
}

impl<E: SpanExporter> Worker<E> {
    async fn run(mut self) {
        let mut deadline = None;
        let mut pause = std::pin::pin!(sleep(self.settings.schedule_delay));
        while deadline.is_none() {
            let due = tokio::select! {
                () = self.shared.ready.notified() => false,
                () = pause.as_mut() => true,
                // An error: the handle was dropped without a shutdown.
                result = self.stopped.changed() => {
                    deadline = stop_time(result.is_ok(), &self.stopped);
                    false
                }
            };
            let mut left = due;
            // Before its time, only a whole batch leaves.
            while due || deadline.is_some() || self.shared.is_full() {
                let batch = self.take();
                let (full, empty) = (batch.len() == self.settings.batch_size, batch.is_empty());
                if !empty {
                    self.export(batch).await;
                    left = true;
                }
                deadline = deadline.or_else(|| stop_time(self.stopped.has_changed().is_ok(), &self.stopped));
                let done = match deadline {
                    // Asked to end: everything that there is time for.
                    Some(deadline) => empty || Instant::now() >= deadline,
                    None => !full,
                };
                if done {
                    break;
                }
            }
            if left {
                pause.set(sleep(self.settings.schedule_delay));
            }
        }
        self.shared.closed.store(true, Ordering::Release);
        let left: Vec<Record> = self.queue.try_iter().collect();
        self.shared.leave(&left);
        self.shared.counters.dropped_shutdown.fetch_add(left.len() as u64, Ordering::Relaxed);
        if let Ok(mut leftover) = self.shared.leftover.lock() {
            *leftover = Some(self.queue);
        }
    }

    /// The next batch, empty where nothing waits.
    fn take(&self) -> Vec<Record> {
        let batch: Vec<Record> = self.queue.try_iter().take(self.settings.batch_size).collect();
        self.shared.leave(&batch);
        batch
    }

    /// Sends a batch, one export per target: a resource belongs to an export as a whole.
    async fn export(&mut self, batch: Vec<Record>) {
        self.clock.refresh();
        let mut groups: Vec<(Arc<TargetResource>, Vec<SpanData>)> = Vec::new();
        for record in &batch {
            let span = self.conventions.span(record, &self.clock);
            match groups.iter_mut().find(|(resource, _)| Arc::ptr_eq(resource, record.resource())) {
                Some((_, spans)) => spans.push(span),
                None => groups.push((Arc::clone(record.resource()), vec![span])),
            }
        }
        drop(batch);
        let limit = Instant::now() + self.settings.export_timeout;
        for (resource, spans) in groups {
            let count = spans.len() as u64;
            self.exporter.set_resource(&resource.resource);
            let result = tokio::select! {
                biased;
                () = reached(&mut self.stopped) => Err(Failure::Shutdown),
                result = timeout_at(limit, self.exporter.export(spans)) => match result {
                    Ok(Ok(())) => Ok(()),
                    Ok(Err(error)) => Err(Failure::Failed(error.to_string())),
                    Err(_) => Err(Failure::Timeout),
                },
            };
            self.account(count, result);
        }
    }

    /// Counts, and logs when the collector goes or comes back.
    fn account(&mut self, count: u64, result: Result<(), Failure>) {
        let counters = &self.shared.counters;
        let (spans, exports) = match result {
            Ok(()) => (&counters.exported, &counters.exports),
            Err(Failure::Failed(_)) => (&counters.dropped_export_failed, &counters.exports_failed),
            Err(Failure::Timeout) => (&counters.dropped_export_timeout, &counters.exports_failed),
            Err(Failure::Shutdown) => (&counters.dropped_shutdown, &counters.exports_failed),
        };
        spans.fetch_add(count, Ordering::Relaxed);
        exports.fetch_add(1, Ordering::Relaxed);
        match result {
            Ok(()) => {
                if std::mem::take(&mut self.down) {
                    let dropped = counters.read().dropped();
                    tracing::info!(collector = self.url, dropped, "spans are exported again");
                }
            }
            Err(Failure::Failed(reason)) => {
                let reason = hide(&reason, &self.settings);
                self.report_down(&reason);
            }
            Err(Failure::Timeout) => self.report_down("no answer within traces.export_timeout"),
            Err(Failure::Shutdown) => {}
        }
    }

    /// Once, not per batch.
    fn report_down(&mut self, reason: &str) {
        if std::mem::replace(&mut self.down, true) {
            return;
        }
        tracing::warn!(
            collector = self.url,
            reason,
            "spans cannot be exported: they are dropped and counted until the collector is back; check that it \
             listens there and speaks traces.protocol = {}",
            self.settings.resolved_protocol().name()
        );
    }
}

/// When to end, if that was asked for; at once where nobody can ask any more.
fn stop_time(open: bool, stopped: &watch::Receiver<Option<Instant>>) -> Option<Instant> {
    if open { *stopped.borrow() } else { Some(Instant::now()) }
}

/// Ends when a shutdown's time is over.
async fn reached(stopped: &mut watch::Receiver<Option<Instant>>) {
    let deadline = match stopped.wait_for(Option::is_some).await {
        Ok(deadline) => *deadline,
        Err(_) => None,
    };
    if let Some(deadline) = deadline {
        sleep_until(deadline).await;
    }
}

#[cfg(test)]
#[path = "export_tests.rs"]
mod tests;

#[cfg(test)]
mod secrets {
    use super::*;
    use crate::config::{Endpoint, Pairs};

    #[test]
    fn what_the_library_says_is_told_without_secrets() {
        let url = "http://127.0.0.1:4318/v1/traces?key=s3cret".to_owned();
        let settings = Traces {
            endpoint: Some(Endpoint { url: url.clone(), exact: true }),
            headers: Pairs(vec![("x-key".into(), "s3cret-too".into()), ("x-none".into(), String::new())]),
            ..Traces::default()
        };
        assert_eq!(
            hide(&format!("{url} refused s3cret-too"), &settings),
            "http://127.0.0.1:4318/v1/traces?… refused …"
        );
        let broken =
            Traces { headers: Pairs(vec![("x-key".into(), "s3cret\n".into())]), protocol: Protocol::Grpc, ..settings };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let error = runtime.block_on(async { build(&broken).unwrap_err().to_string() });
        assert!(error.contains("http://127.0.0.1:4318/v1/traces:") && !error.contains("s3cret"), "{error}");
    }
}
