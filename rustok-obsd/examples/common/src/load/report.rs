//! What the client saw: a log of single requests, and a summary.
//!
//! Costs: a histogram of 60 KB per connection; the log is written by a thread of its own.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, BufWriter, Write as _};
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// One request of the client's log. Times are `CLOCK_MONOTONIC` ns.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Logged {
    /// `x-request-id`.
    pub id: String,
    /// Method.
    pub method: String,
    /// Path, without the query string.
    pub path: String,
    /// The route that the server should match; `null` where its fallback should answer.
    pub route: Option<String>,
    /// Status; `null` where none came.
    pub status: Option<u16>,
    /// Before the first byte was written.
    pub start_ns: u64,
    /// After the last byte was read.
    pub end_ns: u64,
    /// Our port.
    pub local_port: u16,
    /// We went away on purpose before the end: the server may have seen all, part or nothing of it.
    pub aborted: bool,
    /// Trace id of the `traceparent` sent.
    pub trace_id: Option<String>,
}

/// Reads a log back.
///
/// # Errors
/// If the file cannot be read or a line is malformed; the message names file and line.
pub fn read(path: &Path) -> anyhow::Result<Vec<Logged>> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let lines = BufReader::new(file).lines().enumerate();
    lines
        .map(|(number, line)| {
            serde_json::from_str(&line?).with_context(|| format!("{}:{}", path.display(), number + 1))
        })
        .collect()
}

/// The thread that writes the log.
pub struct Log {
    sender: Sender<Logged>,
    thread: JoinHandle<io::Result<()>>,
}

impl Log {
    /// Creates (truncates) the file.
    ///
    /// # Errors
    /// If that fails; the message names the file.
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        let file = File::create(path).with_context(|| format!("cannot create the log {}", path.display()))?;
        #[expect(clippy::disallowed_methods, reason = "a log that is behind must not slow the load down")]
        let (sender, receiver) = channel::<Logged>();
        let thread = std::thread::spawn(move || {
            let mut file = BufWriter::with_capacity(1 << 18, file);
            for logged in receiver {
                serde_json::to_writer(&mut file, &logged)?;
                file.write_all(b"\n")?;
            }
            file.flush()
        });
        Ok(Self { sender, thread })
    }

    /// Where requests go in.
    #[must_use]
    pub fn sender(&self) -> Sender<Logged> {
        self.sender.clone()
    }

    /// Ends the file; every other sender must be gone.
    ///
    /// # Errors
    /// If writing failed.
    pub fn finish(self) -> anyhow::Result<()> {
        drop(self.sender);
        self.thread.join().map_err(|_| anyhow::anyhow!("the log's writer panicked"))?.context("cannot write the log")
    }
}

/// Counts of one connection slot, or of all.
pub struct Stats {
    latency: Histogram<u64>,
    statuses: BTreeMap<u16, u64>,
    errors: u64,
    aborted: u64,
    first_error: Option<String>,
}

impl Default for Stats {
    fn default() -> Self {
        // 1 µs to 10 min at 1 %: bounds that the constructor accepts.
        let latency = Histogram::new_with_bounds(1_000, 600_000_000_000, 2).expect("valid bounds");
        Self { latency, statuses: BTreeMap::new(), errors: 0, aborted: 0, first_error: None }
    }
}

impl Stats {
    /// A response came, after so many ns.
    pub fn response(&mut self, status: u16, latency_ns: u64) {
        *self.statuses.entry(status).or_default() += 1;
        self.latency.saturating_record(latency_ns);
    }

    /// No response came, or another than the one that should.
    pub fn error(&mut self, what: impl FnOnce() -> String) {
        self.errors += 1;
        self.first_error.get_or_insert_with(what);
    }

    /// We went away on purpose.
    pub fn abort(&mut self) {
        self.aborted += 1;
    }

    /// Adds another's counts.
    pub fn add(&mut self, other: Self) {
        // Fails only for different bounds.
        let _ = self.latency.add(&other.latency);
        for (status, count) in other.statuses {
            *self.statuses.entry(status).or_default() += count;
        }
        self.errors += other.errors;
        self.aborted += other.aborted;
        self.first_error = self.first_error.take().or(other.first_error);
    }

    /// Sums up.
    #[must_use]
    pub fn summary(self, elapsed: Duration) -> Summary {
        let requests = self.statuses.values().sum();
        let at = |quantile| self.latency.value_at_quantile(quantile) as f64 / 1e9;
        Summary {
            requests,
            errors: self.errors,
            aborted: self.aborted,
            seconds: elapsed.as_secs_f64(),
            rate: requests as f64 / elapsed.as_secs_f64(),
            latency_seconds: Latency {
                p50: at(0.5),
                p95: at(0.95),
                p99: at(0.99),
                max: self.latency.max() as f64 / 1e9,
            },
            statuses: self.statuses,
            first_error: self.first_error,
        }
    }
}

/// What `shop-load` prints in the end.
#[derive(Debug, Serialize, Deserialize)]
pub struct Summary {
    /// Whole responses.
    pub requests: u64,
    /// Requests without a response, and responses with another status than expected.
    pub errors: u64,
    /// Requests that the client gave up on purpose; in no other count.
    pub aborted: u64,
    /// Time of the run.
    pub seconds: f64,
    /// Responses per second.
    pub rate: f64,
    /// From before the first byte sent to after the last byte read; within 1 %.
    pub latency_seconds: Latency,
    /// Responses by status.
    pub statuses: BTreeMap<u16, u64>,
    /// What the first error was.
    pub first_error: Option<String>,
}

/// Quantiles in seconds.
#[derive(Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Latency {
    pub p50: f64,
    pub p95: f64,
    pub p99: f64,
    pub max: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_adds_up_its_parts() {
        let mut all = Stats::default();
        for status in [200, 404] {
            let mut part = Stats::default();
            (1..=50).for_each(|n| part.response(status, n * 1_000_000));
            part.abort();
            part.error(|| format!("error {status}"));
            all.add(part);
        }
        let summary = all.summary(Duration::from_secs(2));
        assert_eq!((summary.requests, summary.errors, summary.aborted), (100, 2, 2));
        assert_eq!(summary.statuses, BTreeMap::from([(200, 50), (404, 50)]));
        assert!((summary.rate - 50.0).abs() < 1e-9);
        assert!((summary.latency_seconds.p50 - 0.025).abs() < 0.001, "{summary:?}");
        assert_eq!(summary.first_error.as_deref(), Some("error 200"));
    }
}
