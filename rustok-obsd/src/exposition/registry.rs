//! The sources of an exposition, and one rendering of all of them.
//!
//! Reads: every registered [`Collect`], in the order of registration. Yields: a body and its format ([`Rendered`]).
//! Costs: a handful of allocations per scrape, none per sample; scratch buffers come from a small pool.

use super::encoder::{Encoder, Format, HistogramValue, Seen, Value};
use super::scrape::{Part, Scrape};
use super::{Collect, Output};
use crate::contract::own;
use crate::contract::server::ServerMetrics;
use axum::body::Bytes;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A registered source.
type Source = Arc<dyn Collect + Send + Sync>;

/// Scratch spaces and bodies kept for the next scrape: one scraper is normal, two happen at an upgrade of Prometheus.
const KEPT: usize = 2;

/// The registered sources.
pub struct Exposition {
    sources: Mutex<Arc<[(Part, Source)]>>,
    pool: Arc<Mutex<Vec<Scratch>>>,
    scrapes: Scrapes,
    pub(super) server: Arc<ServerMetrics>,
}

/// Memory that a rendering reuses.
#[derive(Default)]
pub struct Scratch {
    output: Output,
    seen: Seen,
}

/// One rendering.
#[derive(Clone, Debug)]
pub struct Rendered {
    /// The body, compressed if that was asked for. Its memory goes back to the pool when it is dropped.
    pub body: Bytes,
    /// The body's format.
    pub format: Format,
}

/// The exposition about itself.
struct Scrapes {
    /// ok, busy, failed.
    results: [AtomicU64; 3],
    buckets: [AtomicU64; SCRAPE_BOUNDS + 1],
    sum_ns: AtomicU64,
    dropped: AtomicU64,
    over_limit: AtomicU64,
}

const SCRAPE_BOUNDS: usize = own::SCRAPE.values.len();

/// A mutex whose content is valid after a panic of its holder: each section only swaps or pushes.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Default for Exposition {
    fn default() -> Self {
        Self::new()
    }
}

impl Exposition {
    /// Without sources, but for the exposition's own metrics.
    #[must_use]
    pub fn new() -> Self {
        let scrapes = Scrapes {
            results: [const { AtomicU64::new(0) }; 3],
            buckets: [const { AtomicU64::new(0) }; SCRAPE_BOUNDS + 1],
            sum_ns: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            over_limit: AtomicU64::new(0),
        };
        Self { sources: Mutex::new(Arc::new([])), pool: Arc::default(), scrapes, server: Arc::default() }
    }

    /// Adds a source; it is collected from the next scrape on.
    pub fn register(&self, part: Part, source: Source) {
        let mut sources = lock(&self.sources);
        *sources = sources.iter().cloned().chain([(part, source)]).collect();
    }

    /// What `collect[]` and `exclude[]` may name: the parts that have a source, and the collectors that are on.
    #[must_use]
    pub fn names(&self) -> Vec<&'static str> {
        let sources = Arc::clone(&lock(&self.sources));
        let mut names: Vec<_> = sources.iter().flat_map(|(_, source)| source.names()).collect();
        let parts = sources.iter().map(|(part, _)| *part).filter(|part| ![Part::Node, Part::Itself].contains(part));
        names.extend(parts.map(Part::name));
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Renders what a scrape wants into pooled memory. Blocks while it collects: not for an async thread.
    #[must_use]
    pub fn render(&self, scrape: &Scrape, format: Format, gzip: bool) -> Rendered {
        let mut scratch = lock(&self.pool).pop().unwrap_or_default();
        self.render_into(&mut scratch, scrape, format, gzip);
        let body = Body { scratch: Some(scratch), pool: Arc::clone(&self.pool) };
        Rendered { body: Bytes::from_owner(body), format }
    }

    /// Renders what a scrape wants into memory of the caller and gives the body.
    pub fn render_into<'s>(&self, scratch: &'s mut Scratch, scrape: &Scrape, format: Format, gzip: bool) -> &'s [u8] {
        let start = Instant::now();
        let sources = Arc::clone(&lock(&self.sources));
        scratch.output.begin(gzip);
        let mut encoder = Encoder::new(&mut scratch.output, &mut scratch.seen, format, scrape);
        for (_, source) in sources.iter().filter(|(part, _)| scrape.wants_part(*part)) {
            source.collect(&mut encoder);
        }
        self.scrapes.dropped.fetch_add(encoder.dropped(), Ordering::Relaxed);
        self.scrapes.over_limit.fetch_add(encoder.over_limit(), Ordering::Relaxed);
        encoder.lift_limit();
        if scrape.wants_part(Part::App) {
            self.scrapes.collect(&mut encoder);
            self.server.collect(&mut encoder);
        }
        encoder.finish();
        let body = scratch.output.finish();
        self.scrapes.rendered(start.elapsed());
        body
    }

    /// Counts a scrape that was refused because too many were running.
    pub(super) fn busy(&self) {
        self.scrapes.results[1].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a scrape that failed.
    pub(super) fn failed(&self) {
        self.scrapes.results[2].fetch_add(1, Ordering::Relaxed);
    }
}

impl Scrapes {
    fn rendered(&self, took: Duration) {
        let bucket = own::SCRAPE.values.iter().filter(|bound| took.as_secs_f64() > **bound).count();
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.sum_ns.fetch_add(ns, Ordering::Relaxed);
        self.results[0].fetch_add(1, Ordering::Relaxed);
    }
}

impl Collect for Scrapes {
    fn collect(&self, out: &mut Encoder<'_>) {
        let mut samples = out.family(&own::SCRAPES);
        for (cell, result) in self.results.iter().zip(["ok", "busy", "failed"]) {
            samples.put([result], cell.load(Ordering::Relaxed));
        }
        let buckets = self.buckets.each_ref().map(|cell| cell.load(Ordering::Relaxed));
        let sum = Value::Nanos(self.sum_ns.load(Ordering::Relaxed));
        let histogram = HistogramValue { bounds: &own::SCRAPE, buckets: &buckets, sum, exemplars: &[] };
        out.family(&own::SCRAPE_DURATION).put_histogram([], &histogram);
        out.family(&own::FAMILIES_DROPPED).put([], self.dropped.load(Ordering::Relaxed));
        out.family(&own::SAMPLES_OVER_LIMIT).put([], self.over_limit.load(Ordering::Relaxed));
    }
}

/// A body that gives its memory back.
struct Body {
    scratch: Option<Scratch>,
    pool: Arc<Mutex<Vec<Scratch>>>,
}

impl AsRef<[u8]> for Body {
    fn as_ref(&self) -> &[u8] {
        self.scratch.as_ref().map_or(&[], |scratch| scratch.output.body())
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        let mut pool = lock(&self.pool);
        if pool.len() < KEPT {
            pool.extend(self.scratch.take());
        }
    }
}

/// Renders one source alone, for tests.
#[must_use]
pub fn to_text(source: &dyn Collect, format: Format) -> String {
    to_text_of(source, &Scrape::default(), format)
}

/// Renders what a scrape wants of one source, for tests.
#[must_use]
pub fn to_text_of(source: &dyn Collect, scrape: &Scrape, format: Format) -> String {
    let mut scratch = Scratch::default();
    scratch.output.begin(false);
    let mut encoder = Encoder::new(&mut scratch.output, &mut scratch.seen, format, scrape);
    source.collect(&mut encoder);
    encoder.finish();
    String::from_utf8_lossy(scratch.output.finish()).into_owned()
}
