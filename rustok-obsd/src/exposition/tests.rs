//! Encoder and exposition: golden outputs, escaping, formats, and what `promtool` says.

use super::encoder::write_value;
use super::parse::parse;
use super::*;
use crate::contract::database::{self, DatabaseRecorder, Settings};
use crate::contract::own::{Build, SelfMetrics};
use crate::contract::recorder::{HttpRecorder, Limits};
use crate::contract::{Bounds, Family, Kind, Origin, Stability, bounds, families, http, own};
use proptest::prelude::*;
use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use std::sync::Arc;

const BOUNDS: Bounds = bounds!(0.5 1.0 1e+06);

const fn family<'a>(name: &'a str, kind: Kind, unit: &'a str, help: &'a str, labels: &'a [&'a str]) -> Family<'a> {
    Family { name, kind, unit, help, labels, origin: Origin::Own, stability: Stability::Development }
}

/// One family of each kind, and the unusual.
struct Golden;

impl Collect for Golden {
    fn collect(&self, out: &mut Encoder<'_>) {
        let trace = Exemplar {
            trace_id: 0x0102,
            span_id: 0xa,
            value: Value::Nanos(700_000_000),
            unix_ns: 1_795_000_000_123_456_789,
        };
        let mut samples = out.family(
            &const { family("requests_total", Kind::Counter, "", "A \"quoted\" back\\slash\nand line.", &["path"]) },
        );
        samples.put(["a\"b\\c\nd"], 7u64);
        samples.put_traced(["/é"], 1u64, Some(&trace));
        out.family(&const { family("empty", Kind::Gauge, "", "No samples, hence no head.", &[]) });
        out.family(&const { family("hits", Kind::Counter, "", "A counter without the suffix.", &[]) }).put([], 2u64);
        let mut samples =
            out.family(&const { family("temperature_celsius", Kind::Gauge, "celsius", "A gauge.", &["chip"]) });
        samples.put(["a"], -1.5);
        samples.put(["b"], f64::NAN);
        samples.put(["c"], -3i64);
        out.family(&const { family("build_info", Kind::Info, "", "An info.", &["version"]) }).put(["1"], 1u64);
        out.family(&const { family("node_vmstat_x", Kind::Untyped, "", "", &[]) }).put([], 1e300);
        out.family(&const { family("cpu_seconds_total", Kind::Counter, "seconds", "Seconds.", &[]) })
            .put([], Value::Nanos(1_500_000_001));
        let exemplars = [None, Some(trace), None, None];
        let histogram = HistogramValue {
            bounds: &BOUNDS,
            buckets: &[1, 2, 0, 3],
            sum: Value::Nanos(2_050_000_000),
            exemplars: &exemplars,
        };
        let latency = const { family("latency_seconds", Kind::Histogram, "seconds", "A histogram.", &["route"]) };
        out.family(&latency).put_histogram(["/"], &histogram);
        out.family(&const { family("plain", Kind::Histogram, "", "Without labels.", &[]) })
            .put_histogram([], &histogram);
    }
}

#[test]
fn text_format_is_written_as_its_specification_says() {
    assert_eq!(to_text(&Golden, Format::Text), include_str!("golden.txt"));
}

#[test]
fn openmetrics_is_written_as_its_specification_says() {
    assert_eq!(to_text(&Golden, Format::OpenMetrics), include_str!("golden.openmetrics"));
}

#[test]
fn values_are_the_shortest_text_that_reads_back() {
    let text = |value| {
        let mut out = Vec::new();
        write_value(value, &mut out);
        String::from_utf8(out).unwrap()
    };
    for (value, wanted) in [
        (Value::F64(0.0), "0"),
        (Value::F64(-0.0), "0"),
        (Value::F64(1e15), "1000000000000000"),
        (Value::F64(1e22), "1e22"),
        (Value::F64(0.1), "0.1"),
        (Value::F64(f64::INFINITY), "+Inf"),
        (Value::F64(f64::NEG_INFINITY), "-Inf"),
        (Value::F64(f64::NAN), "NaN"),
        (Value::U64(u64::MAX), "18446744073709551615"),
        (Value::I64(i64::MIN), "-9223372036854775808"),
        (Value::Nanos(0), "0"),
        (Value::Nanos(1), "0.000000001"),
        (Value::Nanos(1_000_000_000), "1"),
        (Value::Nanos(12_340_000_000), "12.34"),
        (Value::Nanos(u64::MAX), "18446744073.709551615"),
    ] {
        assert_eq!(text(value), wanted);
    }
}

proptest! {
    #[test]
    fn any_float_reads_back_as_itself(value: f64) {
        let mut out = Vec::new();
        write_value(Value::F64(value), &mut out);
        let read: f64 = std::str::from_utf8(&out).unwrap().parse().unwrap();
        prop_assert!(read == value || read.is_nan() && value.is_nan());
    }

    #[test]
    fn any_label_value_and_help_read_back_as_themselves(
        value in "[\\\\\"\n,={}# a-zé☃]{0,24}",
        free in any::<String>(),
        help in "[\\\\\"\n a-zé]{0,24}",
    ) {
        struct Source<'s>(&'s str, &'s str, &'s str);
        impl Collect for Source<'_> {
            fn collect(&self, out: &mut Encoder<'_>) {
                let gauge = family("x", Kind::Gauge, "", self.2, &["a", "b"]);
                out.family(&gauge).put([self.0, self.1], 1u64);
                let set = LabelSet::new([("a", self.0), ("b", self.1)]);
                let buckets = family("y", Kind::Histogram, "", self.2, &["a", "b"]);
                let histogram = HistogramValue { bounds: &BOUNDS, buckets: &[0; 4], sum: Value::U64(0), exemplars: &[] };
                out.family(&buckets).put_histogram(&set, &histogram);
            }
        }
        for format in [Format::Text, Format::OpenMetrics] {
            let text = to_text(&Source(&value, &free, &help), format);
            let parsed = parse(&text, format == Format::OpenMetrics);
            parsed.check();
            prop_assert_eq!(parsed.samples.len(), 7);
            prop_assert_eq!(&parsed.samples[0].labels["a"], &value);
            prop_assert_eq!(&parsed.samples[0].labels["b"], &free);
            for sample in &parsed.samples[1..] {
                prop_assert_eq!(sample.labels.get("a").map_or("", |value| value), &value);
                prop_assert_eq!(sample.labels.get("b").map_or("", |value| value), &free);
            }
            if !help.is_empty() {
                prop_assert_eq!(&parsed.help["x"], &help);
            }
        }
    }
}

#[test]
fn a_second_source_of_a_family_is_left_out_and_counted() {
    let exposition = Exposition::new();
    exposition.register(Part::App, Arc::new(Golden));
    exposition.register(Part::App, Arc::new(Golden));
    for format in [Format::Text, Format::OpenMetrics] {
        let rendered = exposition.render(&Scrape::default(), format, false);
        parse(std::str::from_utf8(&rendered.body).unwrap(), format == Format::OpenMetrics).check();
    }
    let rendered = exposition.render(&Scrape::default(), Format::Text, false);
    let parsed = parse(std::str::from_utf8(&rendered.body).unwrap(), false);
    // Nine families, three renderings.
    assert_eq!(parsed.sum("rustok_obsd_exposition_families_dropped_total", &[]), 27.0);
    assert_eq!(parsed.sum("rustok_obsd_scrapes_total", &[("result", "ok")]), 2.0);
    assert_eq!(parsed.sum("rustok_obsd_scrape_duration_seconds_count", &[]), 2.0);
}

#[test]
fn names_that_clash_in_openmetrics_only_keep_their_data() {
    struct Clash;
    impl Collect for Clash {
        fn collect(&self, out: &mut Encoder<'_>) {
            out.family(&const { family("x", Kind::Gauge, "", "A gauge.", &[]) }).put([], 1u64);
            out.family(&const { family("x_total", Kind::Counter, "", "A counter.", &[]) }).put([], 2u64);
        }
    }
    let text = to_text(&Clash, Format::OpenMetrics);
    assert!(text.contains("# TYPE x gauge\nx 1\n") && text.contains("# TYPE x_total unknown\nx_total 2\n"), "{text}");
}

/// A sample for every family of the catalogue that no other source of the test writes.
struct Rest(Vec<&'static str>);

impl Collect for Rest {
    fn collect(&self, out: &mut Encoder<'_>) {
        for family in families().filter(|family| !self.0.contains(&family.name)) {
            let values: Vec<_> = family.labels.iter().map(|_| "x").collect();
            let mut samples = out.family(family);
            if family.kind == Kind::Histogram {
                let histogram =
                    HistogramValue { bounds: &BOUNDS, buckets: &[1; 4], sum: Value::U64(4), exemplars: &[] };
                samples.put_histogram(values.as_slice(), &histogram);
            } else {
                samples.put(values.as_slice(), 1u64);
            }
        }
    }
}

/// An exposition with every family of the catalogue.
fn everything() -> Exposition {
    let exposition = Exposition::new();
    let build = Build { version: "0.1.0", revision: "unknown", rustc: "rustc 1.95.0 (\"x\")" };
    let own_metrics: Arc<SelfMetrics> = Arc::new(SelfMetrics::new(build));
    let (mut recorder, http_metrics) = HttpRecorder::new(Limits::default());
    crate::contract::tests::fill(&mut recorder);
    exposition.register(Part::App, own_metrics);
    exposition.register(Part::App, http_metrics);
    let (mut recorder, database_metrics) = DatabaseRecorder::new(Settings::default());
    database::tests::fill(&mut recorder);
    exposition.register(Part::App, database_metrics);
    let rendered = exposition.render(&Scrape::default(), Format::Text, false);
    let parsed = parse(std::str::from_utf8(&rendered.body).unwrap(), false);
    let written = families().map(|family| family.name).filter(|name| parsed.types.contains_key(*name)).collect();
    exposition.register(Part::App, Arc::new(Rest(written)));
    exposition
}

#[test]
fn every_family_of_the_catalogue_renders_and_the_recorders_write_most_of_them() {
    let exposition = everything();
    for format in [Format::Text, Format::OpenMetrics] {
        let rendered = exposition.render(&Scrape::default(), format, false);
        let parsed = parse(std::str::from_utf8(&rendered.body).unwrap(), format == Format::OpenMetrics);
        parsed.check();
        assert_eq!(parsed.types.len(), families().count());
        assert_eq!(parsed.sum("rustok_obsd_exposition_families_dropped_total", &[]), 0.0);
    }
    let database = [database::RUSTOK, database::OTEL, database::REQUESTS, database::OWN].into_iter().flatten();
    let all = http::RUSTOK.iter().chain(http::OTEL).chain([&own::EXCHANGES, &own::ROUTES, &own::SPANS]);
    for family in all.chain(database) {
        let rendered = exposition.render(&Scrape::default(), Format::Text, false);
        let text = std::str::from_utf8(&rendered.body).unwrap();
        let head = format!("# TYPE {} {}\n", family.name, family.kind.text());
        let sample = text.split_once(&head).expect("the family is there").1.lines().next().unwrap();
        assert!(!sample.contains("=\"x\""), "{} was written by the test: {sample}", family.name);
    }
}

#[test]
fn promtool_finds_nothing_to_criticise() {
    let child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => {
            return skip("promtool_finds_nothing_to_criticise", &format!("promtool does not start: {error}"));
        }
    };
    let rendered = everything().render(&Scrape::default(), Format::Text, false);
    child.stdin.take().unwrap().write_all(&rendered.body).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    // Names of the semantic conventions end in `_count`; those of other programs are theirs.
    let foreign = |name: &str| families().any(|family| family.name == name && family.stability.is_foreign());
    let excused = |line: &str| {
        let name = line.split(' ').next().unwrap_or_default();
        foreign(name) || (name.ends_with("_count") && line.contains("should not have \"_count\" suffix"))
    };
    let critique: Vec<_> = said.lines().filter(|line| !line.is_empty() && !excused(line)).collect();
    // 3: there is something to criticise.
    let status = output.status.code();
    assert!(critique.is_empty() && matches!(status, Some(0 | 3)), "{}: {critique:?}", output.status);
}

/// Says that a test was skipped, also in the file that the test command collects such lines in.
fn skip(test: &str, reason: &str) {
    let line = format!("skipped: {test}: {reason}\n");
    print!("{line}");
    if let Some(path) = std::env::var_os("RUSTOK_OBSD_SKIPS") {
        let mut file = std::fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
        file.write_all(line.as_bytes()).unwrap();
    }
}

#[test]
fn a_gzip_body_is_the_plain_body_compressed_also_beyond_one_chunk_and_in_reused_memory() {
    struct Large(u64);
    impl Collect for Large {
        fn collect(&self, out: &mut Encoder<'_>) {
            let mut samples = out.family(&const { family("large", Kind::Gauge, "", "Many samples.", &["i"]) });
            for i in 0..self.0 {
                // Digits that do not compress to nothing.
                samples.put([i.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_string().as_str()], i);
            }
        }
    }
    for samples in [0, 1, 20_000] {
        let source = Large(samples);
        let plain = to_text(&source, Format::Text);
        let mut output = Output::default();
        let mut seen = encoder::Seen::default();
        let scrape = Scrape::default();
        for _ in 0..2 {
            output.begin(true);
            let mut encoder = Encoder::new(&mut output, &mut seen, Format::Text, &scrape);
            source.collect(&mut encoder);
            encoder.finish();
            let body = output.finish();
            let mut text = String::new();
            flate2::read::GzDecoder::new(body).read_to_string(&mut text).unwrap();
            assert!(text == plain, "{samples} samples");
            assert!(samples < 20_000 || body.len() < plain.len() * 2 / 3, "{} of {} bytes", body.len(), plain.len());
        }
    }
}
