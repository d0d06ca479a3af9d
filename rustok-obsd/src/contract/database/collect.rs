//! Renders the database families from one snapshot, so that RusToK's and OpenTelemetry's names agree within a scrape.
//!
//! Reads: every series once. Yields: RusToK's families, summed over services and databases, OpenTelemetry's, those of
//! requests and statements, and those of the recorder about itself. Costs: 136 bytes of scratch per label set of
//! operations, kept from scrape to scrape.

use super::series::{
    DURATION_BUCKETS, DatabaseMetrics, ENDINGS, Lists, PARENT_TEXTS, PHASE_BUCKETS, PHASES, QUERIES_BUCKETS,
    ROWS_BUCKETS, SIGHTS, TRANSACTION_OUTCOMES,
};
use super::{
    CONNECTION_COUNT, CONNECTION_WAIT, CONNECTIONS, DURATION, ERRORS, OPERATION_DURATION, OPERATIONS, PARENTS, PHASE,
    QUERIES, QUERY_DURATION, QUERY_ERRORS, REPEATED_QUERIES, REQUEST_PHASE, REQUEST_QUERIES, RETURNED_ROWS, ROWS,
    SERIES, SERIES_OVERFLOW, STATEMENT_CALLS, STATEMENT_ERRORS, STATEMENT_ROWS, STATEMENT_SECONDS, TRANSACTIONS,
};
use crate::contract::http_collect::{exemplars, realtime_offset};
use crate::exposition::{Collect, Encoder, Format, HistogramValue, Value};
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

/// A duration histogram and its sum.
const TIMED: usize = DURATION_BUCKETS + 1;

/// Memory of a rendering.
#[derive(Default)]
pub(super) struct Scratch {
    /// [`TIMED`] values per series of operations.
    operations: Vec<u64>,
    /// [`TIMED`] values per query type and table.
    queries: Vec<u64>,
    /// One count per query type and error type.
    errors: Vec<u64>,
}

impl Scratch {
    /// Copies all series. Lists are measured before those that they refer to, so that every reference is found.
    fn fill(&mut self, metrics: &Lists) {
        let operations = metrics.operations.len();
        for (values, len) in [
            (&mut self.operations, operations * TIMED),
            (&mut self.queries, metrics.queries.len() * TIMED),
            (&mut self.errors, metrics.query_errors.len()),
        ] {
            values.clear();
            values.resize(len, 0);
        }
        for (series, values) in metrics.operations.iter(operations).zip(self.operations.chunks_exact_mut(TIMED)) {
            series.timed.duration.read(values);
            if let Some(error) = series.error {
                self.errors[error] += values[..DURATION_BUCKETS].iter().sum::<u64>() + load(&series.timeless);
            }
            for (sum, value) in self.queries[series.query * TIMED..].iter_mut().zip(values) {
                *sum = sum.wrapping_add(*value);
            }
        }
    }
}

fn load(cell: &AtomicU64) -> u64 {
    cell.load(Ordering::Relaxed)
}

fn durations(values: &[u64]) -> HistogramValue<'_> {
    let (buckets, sum) = values.split_at(DURATION_BUCKETS);
    HistogramValue { bounds: &DURATION, buckets, sum: Value::Nanos(sum[0]), exemplars: &[] }
}

impl Collect for DatabaseMetrics {
    fn collect(&self, out: &mut Encoder<'_>) {
        let pool = || self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        let mut scratch = pool().pop().unwrap_or_default();
        let lists = self.lists();
        scratch.fill(&lists);
        lists.rustok(&scratch, out);
        lists.otel(&scratch, out);
        lists.requests(out);
        lists.statements(out);
        self.own(&lists, out);
        let mut pool = pool();
        if pool.len() < 2 {
            pool.push(scratch);
        }
    }
}

impl Lists {
    fn rustok(&self, scratch: &Scratch, out: &mut Encoder<'_>) {
        let mut samples = out.family(&QUERY_DURATION);
        for (labels, values) in self.queries.iter(usize::MAX).zip(scratch.queries.chunks_exact(TIMED)) {
            if any(&values[..DURATION_BUCKETS]) {
                samples.put_histogram(labels, &durations(values));
            }
        }
        let mut samples = out.family(&QUERY_ERRORS);
        for (labels, count) in self.query_errors.iter(usize::MAX).zip(&scratch.errors) {
            samples.put(labels, *count);
        }
        let mut connections = [0u64; 2];
        let mut counted = false;
        for pool in self.pools.iter(usize::MAX).filter(|pool| pool.counted.load(Ordering::Relaxed)) {
            counted = true;
            connections.iter_mut().zip(&pool.connections).for_each(|(sum, cell)| *sum += load(cell));
        }
        if counted {
            let mut samples = out.family(&CONNECTIONS);
            samples.put(["idle"], connections[0]);
            samples.put(["active"], connections[1]);
        }
        let mut samples = out.family(&ERRORS);
        for series in self.errors.iter(usize::MAX) {
            samples.put(&series.labels, load(&series.count));
        }
    }

    fn otel(&self, scratch: &Scratch, out: &mut Encoder<'_>) {
        let traces = (out.format() == Format::OpenMetrics).then(realtime_offset);
        let mut samples = out.family(&OPERATION_DURATION);
        for (series, values) in self.operations.iter(usize::MAX).zip(scratch.operations.chunks_exact(TIMED)) {
            if any(&values[..DURATION_BUCKETS]) {
                let exemplars = exemplars(&series.timed, traces);
                samples.put_histogram(&series.labels, &HistogramValue { exemplars: &exemplars, ..durations(values) });
            }
        }
        let mut samples = out.family(&CONNECTION_WAIT);
        let mut values = [0; TIMED];
        for pool in self.pools.iter(usize::MAX) {
            pool.wait.read(&mut values);
            if any(&values[..DURATION_BUCKETS]) {
                samples.put_histogram(&pool.labels, &durations(&values));
            }
        }
        let mut samples = out.family(&CONNECTION_COUNT);
        for pool in self.pools.iter(usize::MAX).filter(|pool| pool.counted.load(Ordering::Relaxed)) {
            for (labels, cell) in pool.state_labels.iter().zip(&pool.connections) {
                samples.put(labels, load(cell));
            }
        }
        let mut samples = out.family(&RETURNED_ROWS);
        let mut values = [0; ROWS_BUCKETS + 1];
        for (series, rows) in self.operations.iter(usize::MAX).filter_map(|series| Some((series, series.rows.get()?))) {
            rows.read(&mut values);
            let (buckets, sum) = (&values[..ROWS_BUCKETS], Value::U64(values[ROWS_BUCKETS]));
            samples.put_histogram(&series.labels, &HistogramValue { bounds: &ROWS, buckets, sum, exemplars: &[] });
        }
    }

    fn requests(&self, out: &mut Encoder<'_>) {
        let mut samples = out.family(&REQUEST_PHASE);
        let mut values = [0; PHASE_BUCKETS + 1];
        for series in self.requests.iter(usize::MAX) {
            for (labels, phase) in series.phase_labels.iter().zip(&series.phases) {
                phase.read(&mut values);
                let (buckets, sum) = (&values[..PHASE_BUCKETS], Value::Nanos(values[PHASE_BUCKETS]));
                // A phase that was never seen does not exist.
                if any(buckets) {
                    samples.put_histogram(labels, &HistogramValue { bounds: &PHASE, buckets, sum, exemplars: &[] });
                }
            }
        }
        let mut values = [0; QUERIES_BUCKETS + 1];
        let mut samples = out.family(&REQUEST_QUERIES);
        for series in self.requests.iter(usize::MAX) {
            series.queries.read(&mut values);
            let (buckets, sum) = (&values[..QUERIES_BUCKETS], Value::U64(values[QUERIES_BUCKETS]));
            if any(buckets) {
                let value = HistogramValue { bounds: &QUERIES, buckets, sum, exemplars: &[] };
                samples.put_histogram(&series.labels, &value);
            }
        }
        let mut samples = out.family(&REPEATED_QUERIES);
        for series in self.requests.iter(usize::MAX) {
            series.queries.read(&mut values);
            if any(&values[..QUERIES_BUCKETS]) {
                samples.put(&series.labels, load(&series.repeated));
            }
        }
    }

    fn statements(&self, out: &mut Encoder<'_>) {
        let statements = || self.services.iter(usize::MAX).flat_map(|service| service.all_statements());
        let mut samples = out.family(&STATEMENT_CALLS);
        statements().for_each(|statement| samples.put(&statement.labels, load(&statement.calls)));
        let mut samples = out.family(&STATEMENT_SECONDS);
        statements().for_each(|statement| samples.put(&statement.labels, Value::Nanos(load(&statement.ns))));
        let mut samples = out.family(&STATEMENT_ROWS);
        statements().for_each(|statement| samples.put(&statement.labels, load(&statement.rows)));
        let mut samples = out.family(&STATEMENT_ERRORS);
        statements().for_each(|statement| samples.put(&statement.labels, load(&statement.errors)));
        let mut samples = out.family(&TRANSACTIONS);
        for service in self.services.iter(usize::MAX) {
            for (outcome, cell) in TRANSACTION_OUTCOMES.iter().zip(&service.transactions) {
                samples.put([service.name.as_str(), outcome], load(cell));
            }
        }
    }
}

impl DatabaseMetrics {
    fn own(&self, lists: &Lists, out: &mut Encoder<'_>) {
        let mut samples = out.family(&OPERATIONS);
        for service in lists.services.iter(usize::MAX) {
            for (sight, cells) in SIGHTS.iter().zip(&service.operations) {
                for (ending, count) in ENDINGS.iter().zip(cells).map(|(ending, cell)| (ending, load(cell))) {
                    if count > 0 {
                        samples.put([service.name.as_str(), sight, ending], count);
                    }
                }
            }
        }
        let mut samples = out.family(&PARENTS);
        for (parent, cell) in PARENT_TEXTS.iter().zip(&self.parents) {
            samples.put([*parent], load(cell));
        }
        let statements: usize = lists.services.iter(usize::MAX).map(|service| service.all_statements().count()).sum();
        let mut samples = out.family(&SERIES);
        for (family, len) in [
            (&OPERATION_DURATION, lists.operations.len()),
            (&REQUEST_PHASE, lists.requests.len()),
            (&STATEMENT_CALLS, statements),
            (&ERRORS, lists.errors.len()),
        ] {
            samples.put([family.name], len as u64);
        }
        let lost = &self.overflow;
        let mut samples = out.family(&SERIES_OVERFLOW);
        for (family, cell) in [
            (&OPERATION_DURATION, &lost.operations),
            (&REQUEST_PHASE, &lost.requests),
            (&STATEMENT_CALLS, &lost.statements),
            (&ERRORS, &lost.errors),
        ] {
            samples.put([family.name], load(cell));
        }
    }
}

fn any(buckets: &[u64]) -> bool {
    buckets.iter().any(|count| *count > 0)
}

const _: () = assert!(PHASES.len() == 7, "REQUEST_PHASE's help names each");
