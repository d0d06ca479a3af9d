//! Streams families as Prometheus text format 0.0.4 or OpenMetrics 1.0.0.
//!
//! Reads: families and samples, in the order in which a source writes them. Yields: text in an [`Output`]. Costs: nothing
//! is allocated per sample once the output's buffer has grown.
//!
//! Sources: <https://prometheus.io/docs/instrumenting/exposition_formats/> (0.0.4) and
//! <https://github.com/prometheus/OpenMetrics/blob/v1.0.0/specification/OpenMetrics.md>. Created timestamps, which are
//! optional, are left out.

use super::fragment::Fragment;
use super::labels::{Labels, escape};
use super::output::Output;
use super::scrape::Scrape;
use crate::contract::{Bounds, Family, Kind};
use rustc_hash::FxHasher;
use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hash as _, Hasher as _};

/// Exposition format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Prometheus text format 0.0.4.
    Text,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl Format {
    /// Value of `Content-Type`.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// A sample's value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// Unsigned integer.
    U64(u64),
    /// Signed integer.
    I64(i64),
    /// Float; the shortest text that reads back as the same value.
    F64(f64),
    /// Nanoseconds, written as exact decimal seconds.
    Nanos(u64),
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::U64(value)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::I64(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::F64(value)
    }
}

/// A trace that stands for an observation (OpenMetrics only; text format 0.0.4 has none).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Exemplar {
    /// W3C trace id.
    pub trace_id: u128,
    /// W3C span id.
    pub span_id: u64,
    /// The value observed.
    pub value: Value,
    /// When, ns since the Unix epoch.
    pub unix_ns: u64,
}

/// One histogram.
#[derive(Clone, Copy, Debug)]
pub struct HistogramValue<'h> {
    /// Upper bounds without +Inf.
    pub bounds: &'h Bounds,
    /// Observations of each bucket, not cumulative; one more than bounds.
    pub buckets: &'h [u64],
    /// Sum of the observations.
    pub sum: Value,
    /// Exemplar of each bucket; empty, or as many as buckets.
    pub exemplars: &'h [Option<Exemplar>],
}

/// Hashes of names, which need not be hashed again.
pub(super) type Seen = HashSet<u64, BuildHasherDefault<FxHasher>>;

/// Writes one exposition.
pub struct Encoder<'a> {
    out: &'a mut Output,
    format: Format,
    /// Hashes of the names written, and of the names under which they were written.
    seen: &'a mut Seen,
    scrape: &'a Scrape,
    /// Where each family is, for a fragment.
    notes: Option<&'a mut Vec<Written>>,
    dropped: u64,
    samples: u64,
    limit: u64,
    over_limit: u64,
}

/// A family in the text of a fragment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Written {
    /// Hashes of its name and of the name under which it was written.
    names: [u64; 2],
    /// Where its text begins; it ends where the next begins.
    start: usize,
    /// Samples in it.
    pub(super) samples: u64,
}

impl<'a> Encoder<'a> {
    /// Begins an exposition; `seen` is cleared, and kept by the caller for its memory.
    pub(super) fn new(out: &'a mut Output, seen: &'a mut Seen, format: Format, scrape: &'a Scrape) -> Self {
        seen.clear();
        Self {
            out,
            format,
            seen,
            scrape,
            notes: None,
            dropped: 0,
            samples: 0,
            limit: scrape.sample_limit,
            over_limit: 0,
        }
    }

    /// Has the place of each family noted.
    pub(super) fn note(&mut self, notes: &'a mut Vec<Written>) {
        self.notes = Some(notes);
    }

    /// What the scrape wants.
    #[must_use]
    pub fn scrape(&self) -> &'a Scrape {
        self.scrape
    }

    /// Samples written.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// What follows is told however much was written before.
    pub(super) fn lift_limit(&mut self) {
        self.limit = u64::MAX;
    }

    /// Samples left out because the scrape had reached its limit.
    #[must_use]
    pub fn over_limit(&self) -> u64 {
        self.over_limit
    }

    /// Takes over the families of a fragment of the same format; those whose name was written before are dropped and
    /// counted.
    pub fn absorb(&mut self, fragment: &Fragment) {
        let (written, text) = fragment.parts();
        for (at, family) in written.iter().enumerate() {
            let end = written.get(at + 1).map_or(text.len(), |next| next.start);
            if self.samples + family.samples > self.limit {
                self.over_limit += family.samples;
            } else if self.seen.insert(family.names[0]) && self.seen.insert(family.names[1]) {
                self.samples += family.samples;
                self.out.buffer.extend_from_slice(&text[family.start..end]);
                self.out.spill();
            } else {
                self.dropped += 1;
            }
        }
    }

    /// The format being written: exemplars need only be gathered for OpenMetrics.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// Families left out because their name had been written before.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Begins a family. Its head is written with its first sample; without one nothing is. A name that was written
    /// before is dropped with its samples, and counted: a repeated family would make Prometheus refuse the whole scrape.
    pub fn family<'e>(&'e mut self, family: &'e Family<'e>) -> Samples<'e, 'a> {
        let first = self.seen.insert(hash(("", family.name)));
        let (mut base, mut kind) = (family.name, family.kind.text());
        if self.format == Format::OpenMetrics {
            (base, kind) = openmetrics(family);
            if base != family.name && self.seen.contains(&hash(("base", base))) {
                // Legal in 0.0.4 (`x` and `x_total`), not here: keep the data under a type that promises nothing.
                (base, kind) = (family.name, "unknown");
            }
        }
        let state = if self.seen.insert(hash(("base", base))) && first {
            if let Some(notes) = &mut self.notes {
                let names = [hash(("", family.name)), hash(("base", base))];
                notes.push(Written { names, start: self.out.buffer.len(), samples: 0 });
            }
            State::Head
        } else {
            self.dropped += 1;
            tracing::debug!(family = family.name, "another source has written this family; left out");
            State::Dropped
        };
        Samples { encoder: self, family, base, kind, state }
    }

    /// Ends the exposition.
    pub(super) fn finish(self) {
        if self.format == Format::OpenMetrics {
            self.out.buffer.extend_from_slice(b"# EOF\n");
        }
    }
}

/// Not keyed: names of families are the daemon's own, or those of files that the operator owns.
fn hash(name: (&str, &str)) -> u64 {
    let mut hasher = FxHasher::default();
    name.hash(&mut hasher);
    hasher.finish()
}

/// Family name and type in OpenMetrics; `unknown` where the name lacks the suffix that the type needs.
fn openmetrics<'f>(family: &Family<'f>) -> (&'f str, &'static str) {
    match family.kind {
        Kind::Counter => family.name.strip_suffix("_total").map_or((family.name, "unknown"), |base| (base, "counter")),
        Kind::Info => family.name.strip_suffix("_info").map_or((family.name, "gauge"), |base| (base, "info")),
        Kind::Untyped => (family.name, "unknown"),
        Kind::Gauge | Kind::Histogram | Kind::Summary => (family.name, family.kind.text()),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// The head is still to be written.
    Head,
    Samples,
    Dropped,
}

/// Writes the samples of one family.
pub struct Samples<'e, 'a> {
    encoder: &'e mut Encoder<'a>,
    family: &'e Family<'e>,
    base: &'e str,
    kind: &'static str,
    state: State,
}

impl Samples<'_, '_> {
    /// Writes a sample of a counter, gauge, info or untyped family.
    pub fn put(&mut self, labels: impl Labels, value: impl Into<Value>) {
        self.put_traced(labels, value, None);
    }

    /// Writes a sample of a counter with an exemplar.
    pub fn put_traced(&mut self, labels: impl Labels, value: impl Into<Value>, exemplar: Option<&Exemplar>) {
        debug_assert!(self.family.kind != Kind::Histogram, "{} is a histogram", self.family.name);
        self.put_line("", labels, value.into(), exemplar);
    }

    /// Passes on one line of a family that was written elsewhere: of a histogram or summary with its `suffix`, and `le` or
    /// `quantile` among the labels.
    pub fn put_part(&mut self, suffix: &str, labels: impl Labels, value: impl Into<Value>) {
        self.put_line(suffix, labels, value.into(), None);
    }

    fn put_line(&mut self, suffix: &str, labels: impl Labels, value: Value, exemplar: Option<&Exemplar>) {
        if !self.ready() {
            return;
        }
        let out = &mut self.encoder.out.buffer;
        out.extend_from_slice(self.family.name.as_bytes());
        out.extend_from_slice(suffix.as_bytes());
        out.push(b'{');
        let start = out.len();
        labels.write(self.family.labels, out);
        if out.len() == start {
            out.pop();
        } else {
            out.push(b'}');
        }
        self.end_line(value, exemplar);
        self.encoder.out.spill();
    }

    /// Writes a histogram: its buckets, sum and count.
    pub fn put_histogram(&mut self, labels: impl Labels, histogram: &HistogramValue<'_>) {
        debug_assert!(self.family.kind == Kind::Histogram, "{} is no histogram", self.family.name);
        debug_assert_eq!(histogram.buckets.len(), histogram.bounds.values.len() + 1, "one bucket more than bounds");
        if !self.ready() {
            return;
        }
        // The labels are written once and copied from there.
        let out = &mut self.encoder.out.buffer;
        out.extend_from_slice(self.family.name.as_bytes());
        out.extend_from_slice(b"_bucket{");
        let labels_start = out.len();
        labels.write(self.family.labels, out);
        let labels_end = out.len();
        let text_format = self.encoder.format == Format::Text;
        let mut count = 0;
        for (i, observations) in histogram.buckets.iter().enumerate() {
            let out = &mut self.encoder.out.buffer;
            if i > 0 {
                out.extend_from_slice(self.family.name.as_bytes());
                out.extend_from_slice(b"_bucket{");
                out.extend_from_within(labels_start..labels_end);
            }
            if labels_end > labels_start {
                out.push(b',');
            }
            out.extend_from_slice(b"le=\"");
            let le = histogram.bounds.text.get(i).copied().unwrap_or("+Inf");
            out.extend_from_slice(if text_format { le.strip_suffix(".0").unwrap_or(le) } else { le }.as_bytes());
            out.extend_from_slice(b"\"}");
            count += observations;
            let exemplar = histogram.exemplars.get(i).and_then(Option::as_ref);
            self.end_line(Value::U64(count), exemplar);
        }
        for (suffix, value) in [("_sum", histogram.sum), ("_count", Value::U64(count))] {
            let out = &mut self.encoder.out.buffer;
            out.extend_from_slice(self.family.name.as_bytes());
            out.extend_from_slice(suffix.as_bytes());
            if labels_end > labels_start {
                out.push(b'{');
                out.extend_from_within(labels_start..labels_end);
                out.push(b'}');
            }
            self.end_line(value, None);
        }
        self.encoder.out.spill();
    }

    /// Writes the head if that is still to be done; false where the family is dropped or the limit is reached.
    fn ready(&mut self) -> bool {
        if self.state == State::Dropped {
            return false;
        }
        if self.encoder.samples >= self.encoder.limit {
            self.encoder.over_limit += 1;
            return false;
        }
        self.encoder.samples += 1;
        if let Some(written) = self.encoder.notes.as_mut().and_then(|notes| notes.last_mut()) {
            written.samples += 1;
        }
        if self.state == State::Head {
            self.state = State::Samples;
            let Family { help, unit, .. } = *self.family;
            let openmetrics = self.encoder.format == Format::OpenMetrics;
            let out = &mut self.encoder.out.buffer;
            if !help.is_empty() {
                write_keyword(b"HELP", self.base, out);
                escape(help, openmetrics, out);
                out.push(b'\n');
            }
            write_keyword(b"TYPE", self.base, out);
            out.extend_from_slice(self.kind.as_bytes());
            out.push(b'\n');
            // A unit must be the end of the family's name.
            let ends = |base: &str| base.strip_suffix(unit).is_some_and(|rest| rest.ends_with('_'));
            if openmetrics && !unit.is_empty() && ends(self.base) {
                write_keyword(b"UNIT", self.base, out);
                out.extend_from_slice(unit.as_bytes());
                out.push(b'\n');
            }
        }
        self.state == State::Samples
    }

    fn end_line(&mut self, value: Value, exemplar: Option<&Exemplar>) {
        let out = &mut self.encoder.out.buffer;
        out.push(b' ');
        write_value(value, out);
        if let (Some(exemplar), Format::OpenMetrics) = (exemplar, self.encoder.format) {
            out.extend_from_slice(b" # {trace_id=\"");
            write_hex(&exemplar.trace_id.to_be_bytes(), out);
            out.extend_from_slice(b"\",span_id=\"");
            write_hex(&exemplar.span_id.to_be_bytes(), out);
            out.extend_from_slice(b"\"} ");
            write_value(exemplar.value, out);
            out.push(b' ');
            // Prometheus keeps milliseconds.
            write_value(Value::Nanos(exemplar.unix_ns / 1_000_000 * 1_000_000), out);
        }
        out.push(b'\n');
    }
}

fn write_keyword(keyword: &[u8], family: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"# ");
    out.extend_from_slice(keyword);
    out.push(b' ');
    out.extend_from_slice(family.as_bytes());
    out.push(b' ');
}

fn write_hex(bytes: &[u8], out: &mut Vec<u8>) {
    for byte in bytes {
        let digits = b"0123456789abcdef";
        out.extend_from_slice(&[digits[usize::from(byte >> 4)], digits[usize::from(byte & 15)]]);
    }
}

/// Floats below this that are whole numbers are exact integers.
const EXACT: f64 = 9_007_199_254_740_992.0;

pub(super) fn write_value(value: Value, out: &mut Vec<u8>) {
    let mut integer = itoa::Buffer::new();
    let text = match value {
        Value::U64(value) => integer.format(value),
        Value::I64(value) => integer.format(value),
        Value::F64(value) if value.is_nan() => "NaN",
        Value::F64(f64::INFINITY) => "+Inf",
        Value::F64(f64::NEG_INFINITY) => "-Inf",
        Value::F64(value) if value.abs() < EXACT && value.trunc() == value => integer.format(value as i64),
        Value::F64(value) => {
            return out.extend_from_slice(ryu::Buffer::new().format_finite(value).as_bytes());
        }
        Value::Nanos(value) => {
            out.extend_from_slice(integer.format(value / 1_000_000_000).as_bytes());
            let mut fraction = value % 1_000_000_000;
            if fraction > 0 {
                let mut digits = [0; 10];
                for digit in digits[1..].iter_mut().rev() {
                    *digit = b'0' + (fraction % 10) as u8;
                    fraction /= 10;
                }
                digits[0] = b'.';
                let end = digits.iter().rposition(|digit| *digit != b'0').map_or(0, |last| last + 1);
                out.extend_from_slice(&digits[..end]);
            }
            return;
        }
    };
    out.extend_from_slice(text.as_bytes());
}
