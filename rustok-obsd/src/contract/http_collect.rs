//! Renders the HTTP families from one snapshot, so that RusToK's and OpenTelemetry's names agree within a scrape.
//!
//! Reads: every series once. Yields: RusToK's families, summed over services and outcomes, OpenTelemetry's, and those of
//! the recorder about itself. Costs: 264 bytes of scratch per server series, kept from scrape to scrape.

use super::histogram::Traced;
use super::series::{DURATION_BUCKETS, HttpMetrics, LOST, Lists, OUTCOMES, SIZE_BUCKETS, SOURCES, Timed};
use super::{Family, http, own};
use crate::exchange::Method;
use crate::exposition::{Collect, Encoder, Exemplar, Format, HistogramValue, Labels, Value};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

/// A duration histogram and its sum.
const DURATION: usize = DURATION_BUCKETS + 1;
/// A size histogram and its sum.
const SIZE: usize = SIZE_BUCKETS + 1;
/// Durations, request bodies, response bodies.
const SERVER: usize = DURATION + 2 * SIZE;

type Exemplars = [Option<Exemplar>; DURATION_BUCKETS];

/// Which observation was the last traced one: its time, 0 where there is none, and where to read it.
#[derive(Clone, Copy, Default)]
struct Newest {
    time_ns: u64,
    series: usize,
    bucket: usize,
}

impl Newest {
    fn offer(&mut self, other: Self) {
        if other.time_ns > self.time_ns {
            *self = other;
        }
    }
}

/// Memory of a rendering.
#[derive(Default)]
pub(super) struct Scratch {
    /// [`SERVER`] values per server series.
    server: Vec<u64>,
    /// [`DURATION`] values per client series.
    client: Vec<u64>,
    /// [`SERVER`] values per method and path.
    paths: Vec<u64>,
    /// One count per method, path and status.
    requests: Vec<u64>,
    /// One count per service, side and outcome.
    outcomes: Vec<u64>,
    /// One count per service.
    overflow: Vec<u64>,
    /// One per method, path and bucket.
    path_traces: Vec<Newest>,
    /// One per method, path and status.
    request_traces: Vec<Newest>,
}

impl Scratch {
    /// Copies all series. Lists are measured before those that they refer to, so that every reference is found.
    fn fill(&mut self, metrics: &Lists, traces: bool) {
        let reset = |values: &mut Vec<u64>, len| {
            values.clear();
            values.resize(len, 0);
        };
        let (server, client) = (metrics.server.len(), metrics.client.len());
        let (requests, paths, services) = (metrics.requests.len(), metrics.paths.len(), metrics.services.len());
        reset(&mut self.server, server * SERVER);
        reset(&mut self.client, client * DURATION);
        reset(&mut self.requests, requests);
        reset(&mut self.paths, paths * SERVER);
        reset(&mut self.outcomes, services * 2 * OUTCOMES.len());
        reset(&mut self.overflow, services);
        self.path_traces.clear();
        self.request_traces.clear();
        if traces {
            self.path_traces.resize(paths * DURATION_BUCKETS, Newest::default());
            self.request_traces.resize(requests, Newest::default());
        }
        for (index, (series, values)) in
            metrics.server.iter(server).zip(self.server.chunks_exact_mut(SERVER)).enumerate()
        {
            let (duration, sizes) = values.split_at_mut(DURATION);
            let (request, response) = sizes.split_at_mut(SIZE);
            series.timed.duration.read(duration);
            series.request_body.read(request);
            series.response_body.read(response);
            let count: u64 = duration[..DURATION_BUCKETS].iter().sum();
            self.requests[series.request] += count;
            self.outcomes[series.service * 2 * OUTCOMES.len() + series.outcome] += count;
            if series.overflow {
                self.overflow[series.service] += count;
            }
            for (sum, value) in self.paths[series.path * SERVER..].iter_mut().zip(values) {
                *sum = sum.wrapping_add(*value);
            }
            let Some(cells) = series.timed.traced.get().filter(|_| traces) else {
                continue;
            };
            for (bucket, cell) in cells.iter().enumerate() {
                if let Some(traced) = cell.read() {
                    let found = Newest { time_ns: traced.time_ns, series: index, bucket };
                    self.path_traces[series.path * DURATION_BUCKETS + bucket].offer(found);
                    self.request_traces[series.request].offer(found);
                }
            }
        }
        for (series, values) in metrics.client.iter(client).zip(self.client.chunks_exact_mut(DURATION)) {
            series.timed.duration.read(values);
            let count: u64 = values[..DURATION_BUCKETS].iter().sum();
            self.outcomes[(series.service * 2 + 1) * OUTCOMES.len() + series.outcome] += count;
        }
    }
}

impl Collect for HttpMetrics {
    fn collect(&self, out: &mut Encoder<'_>) {
        let pool = || self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        let mut scratch = pool().pop().unwrap_or_default();
        let traces = (out.format() == Format::OpenMetrics).then(realtime_offset);
        let lists = self.lists();
        scratch.fill(&lists, traces.is_some());
        self.rustok(&lists, &scratch, traces, out);
        self.otel(&lists, &scratch, traces, out);
        self.own(&lists, &scratch, out);
        let mut pool = pool();
        if pool.len() < 2 {
            pool.push(scratch);
        }
    }
}

impl HttpMetrics {
    fn rustok(&self, lists: &Lists, scratch: &Scratch, traces: Option<i128>, out: &mut Encoder<'_>) {
        let read = |newest: &Newest| {
            let traced = lists.server.get(newest.series)?.timed.traced.get()?[newest.bucket].read()?;
            (newest.time_ns > 0).then(|| exemplar(&traced, traces?)).flatten()
        };
        let mut samples = out.family(&http::REQUESTS);
        for (index, (labels, count)) in lists.requests.iter(usize::MAX).zip(&scratch.requests).enumerate() {
            let exemplar = scratch.request_traces.get(index).and_then(read);
            samples.put_traced(labels, *count, exemplar.as_ref());
        }
        let lost = self.lost.load(Ordering::Relaxed);
        if lost > 0 {
            samples.put([Method::Other.as_str(), LOST, "000"], lost);
        }
        let mut samples = out.family(&http::REQUEST_DURATION);
        for (index, (labels, values)) in
            lists.paths.iter(usize::MAX).zip(scratch.paths.chunks_exact(SERVER)).enumerate()
        {
            let mut exemplars: Exemplars = [None; DURATION_BUCKETS];
            let newest = scratch.path_traces.get(index * DURATION_BUCKETS..).unwrap_or_default();
            for (exemplar, newest) in exemplars.iter_mut().zip(newest) {
                *exemplar = read(newest);
            }
            let (buckets, sum) = (&values[..DURATION_BUCKETS], Value::Nanos(values[DURATION_BUCKETS]));
            let bounds = &http::DURATION;
            samples.put_histogram(&labels.path, &HistogramValue { bounds, buckets, sum, exemplars: &exemplars });
        }
        out.family(&http::ACTIVE_CONNECTIONS).put([], self.connections.load(Ordering::Relaxed));
        for (family, at) in [(&http::REQUEST_SIZE, DURATION), (&http::RESPONSE_SIZE, DURATION + SIZE)] {
            let series = lists.paths.iter(usize::MAX).map(|labels| &labels.endpoint);
            sizes(family, series.zip(scratch.paths.chunks_exact(SERVER)), at, out);
        }
    }

    fn otel(&self, lists: &Lists, scratch: &Scratch, traces: Option<i128>, out: &mut Encoder<'_>) {
        let mut samples = out.family(&http::SERVER_REQUEST_DURATION);
        for (series, values) in lists.server.iter(usize::MAX).zip(scratch.server.chunks_exact(SERVER)) {
            let exemplars = exemplars(&series.timed, traces);
            samples.put_histogram(&series.labels, &durations(values, &exemplars));
        }
        let mut samples = out.family(&http::SERVER_ACTIVE_REQUESTS);
        for service in lists.services.iter(usize::MAX) {
            for (labels, active) in service.active_labels.iter().zip(&service.active) {
                if let Some(labels) = labels.get() {
                    samples.put(labels, active.load(Ordering::Relaxed));
                }
            }
        }
        for (family, at) in
            [(&http::SERVER_REQUEST_BODY_SIZE, DURATION), (&http::SERVER_RESPONSE_BODY_SIZE, DURATION + SIZE)]
        {
            let series = lists.server.iter(usize::MAX).map(|series| &series.labels);
            sizes(family, series.zip(scratch.server.chunks_exact(SERVER)), at, out);
        }
        let mut samples = out.family(&http::CLIENT_REQUEST_DURATION);
        for (series, values) in lists.client.iter(usize::MAX).zip(scratch.client.chunks_exact(DURATION)) {
            let exemplars = exemplars(&series.timed, traces);
            samples.put_histogram(&series.labels, &durations(values, &exemplars));
        }
        let infos = self.target_info.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut samples = out.family(&http::TARGET_INFO);
        for labels in infos.iter() {
            samples.put(labels, 1u64);
        }
    }

    fn own(&self, lists: &Lists, scratch: &Scratch, out: &mut Encoder<'_>) {
        out.family(&own::TARGETS).put([], self.targets.load(Ordering::Relaxed));
        let mut samples = out.family(&own::EXCHANGES);
        for (service, counts) in lists.services.iter(usize::MAX).zip(scratch.outcomes.chunks_exact(2 * OUTCOMES.len()))
        {
            for (side, counts) in ["server", "client"].iter().zip(counts.chunks_exact(OUTCOMES.len())) {
                for (outcome, count) in OUTCOMES.iter().zip(counts).filter(|(_, count)| **count > 0) {
                    samples.put([service.name.as_str(), side, outcome], *count);
                }
            }
        }
        let mut samples = out.family(&own::ROUTES);
        for service in lists.services.iter(usize::MAX) {
            for (source, routes) in SOURCES.iter().zip(&service.routes) {
                samples.put([service.name.as_str(), source], routes.load(Ordering::Relaxed));
            }
        }
        let mut samples = out.family(&own::ROUTES_OVERFLOW);
        for (service, count) in lists.services.iter(usize::MAX).zip(&scratch.overflow) {
            samples.put([service.name.as_str()], *count);
        }
        let mut samples = out.family(&own::SERIES);
        let (server, client) = (scratch.server.len() / SERVER, scratch.client.len() / DURATION);
        samples.put([http::SERVER_REQUEST_DURATION.name], server as u64);
        samples.put([http::CLIENT_REQUEST_DURATION.name], client as u64);
        let mut samples = out.family(&own::SERIES_OVERFLOW);
        samples.put([http::SERVER_REQUEST_DURATION.name], self.server_overflow.load(Ordering::Relaxed));
        samples.put([http::CLIENT_REQUEST_DURATION.name], self.client_overflow.load(Ordering::Relaxed));
    }
}

fn durations<'h>(values: &'h [u64], exemplars: &'h Exemplars) -> HistogramValue<'h> {
    let sum = Value::Nanos(values[DURATION_BUCKETS]);
    HistogramValue { bounds: &http::DURATION, buckets: &values[..DURATION_BUCKETS], sum, exemplars }
}

fn sizes<'s>(
    family: &Family<'_>,
    series: impl Iterator<Item = (impl Labels, &'s [u64])>,
    at: usize,
    out: &mut Encoder<'_>,
) {
    let mut samples = out.family(family);
    for (labels, values) in series {
        let (buckets, sum) = (&values[at..at + SIZE_BUCKETS], Value::U64(values[at + SIZE_BUCKETS]));
        samples.put_histogram(labels, &HistogramValue { bounds: &http::SIZE, buckets, sum, exemplars: &[] });
    }
}

/// The exemplar of each bucket, where the time of the clocks' difference is given.
pub(super) fn exemplars<const N: usize>(timed: &Timed<N>, traces: Option<i128>) -> [Option<Exemplar>; N] {
    let mut exemplars = [None; N];
    if let (Some(cells), Some(offset)) = (timed.traced.get(), traces) {
        for (exemplar_of, cell) in exemplars.iter_mut().zip(cells.iter()) {
            *exemplar_of = cell.read().and_then(|traced| exemplar(&traced, offset));
        }
    }
    exemplars
}

/// `None` where the time would lie before 1970.
pub(super) fn exemplar(traced: &Traced, offset: i128) -> Option<Exemplar> {
    let unix_ns = u64::try_from(i128::from(traced.time_ns) + offset).ok()?;
    let Traced { trace_id, span_id, value, .. } = *traced;
    Some(Exemplar { trace_id, span_id, value: Value::Nanos(value), unix_ns })
}

/// What is to be added to `CLOCK_MONOTONIC` to get ns since 1970. Taken per scrape: the wall clock may be set.
pub(super) fn realtime_offset() -> i128 {
    let read = |clock| {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `time` is valid for writes; both clocks exist on every Linux.
        unsafe { libc::clock_gettime(clock, &raw mut time) };
        i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
    };
    read(libc::CLOCK_REALTIME) - read(libc::CLOCK_MONOTONIC)
}
