//! Text format 0.0.4, as somebody's script wrote it.
//!
//! Reads: one file's text. Yields: its [`ParsedFamily`]s, or the first thing that is wrong, with its line and without a word
//! of the file: who chose it may not be allowed to read it. Costs: allocations per sample; done when a file changed only.
//!
//! Source: <https://prometheus.io/docs/instrumenting/exposition_formats/>. As strict as Prometheus' own parser: a half-written
//! file must not pass for a whole one.

use crate::contract::Kind;
use crate::exposition::WrittenLabels;
use rustc_hash::FxHashMap;
use std::borrow::Cow;
use thiserror::Error;

/// What is wrong with a file.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("line {line}: {what}")]
pub struct ParseError {
    line: usize,
    what: String,
}

/// One family of a file.
#[derive(Debug)]
pub struct ParsedFamily {
    /// Name.
    pub name: String,
    /// Type; untyped where the file does not say.
    pub kind: Option<Kind>,
    /// HELP; empty where the file does not say.
    pub help: String,
    /// Samples, in the file's order.
    pub samples: Vec<Sample>,
}

/// One line.
#[derive(Debug)]
pub struct Sample {
    /// `_bucket`, `_sum`, `_count` or none.
    pub suffix: &'static str,
    /// Labels, sorted and written, `le` and `quantile` last.
    pub labels: Box<[u8]>,
    /// The same for OpenMetrics, where whole bounds end in `.0`.
    pub openmetrics: Option<Box<[u8]>>,
    /// The same without `le` and `quantile`: what the lines of one histogram or summary have in common.
    group: Box<[u8]>,
    /// Value.
    pub value: f64,
}

/// Reads a text.
///
/// # Errors
/// The first line that is not of the format, or has what a file may not have.
pub fn parse(text: &[u8]) -> Result<Vec<ParsedFamily>, ParseError> {
    let mut families = Families::default();
    let fail = |line: usize, what: String| ParseError { line, what };
    let text = std::str::from_utf8(text).map_err(|error| {
        let line = text[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
        fail(line, "is no UTF-8".into())
    })?;
    for (at, line) in text.lines().enumerate() {
        families.line(line.trim_matches([' ', '\t'])).map_err(|what| fail(at + 1, what))?;
    }
    if !text.is_empty() && !text.ends_with('\n') {
        let what = "does not end in a line feed, so the file may be half written; write it aside and rename it";
        return Err(fail(text.lines().count(), what.into()));
    }
    families.list.retain(|family| !family.samples.is_empty());
    families.list.iter_mut().for_each(ParsedFamily::complete);
    Ok(families.list)
}

impl ParsedFamily {
    /// Puts the lines of each histogram and summary together, and adds those that one must have.
    fn complete(&mut self) {
        let needed: &[&'static str] = match self.kind {
            Some(Kind::Histogram) => &["_bucket", "_sum", "_count"],
            Some(Kind::Summary) => &["_sum", "_count"],
            _ => return,
        };
        let mut groups: Vec<(Box<[u8]>, Vec<Sample>)> = Vec::new();
        let mut by_labels: FxHashMap<Box<[u8]>, usize> = FxHashMap::default();
        for sample in self.samples.drain(..) {
            let at = *by_labels.entry(sample.group.clone()).or_insert(groups.len());
            if at == groups.len() {
                groups.push((sample.group.clone(), Vec::new()));
            }
            groups[at].1.push(sample);
        }
        for (group, mut samples) in groups {
            let count = samples.iter().find(|sample| sample.suffix == "_count").map_or(0.0, |sample| sample.value);
            for suffix in needed {
                let mut labels = group.to_vec();
                let mut value = 0.0;
                if *suffix == "_bucket" {
                    labels.extend_from_slice(if labels.is_empty() { b"" } else { b"," });
                    WrittenLabels::append([("le", "+Inf")], &mut labels);
                    value = count;
                }
                let labels = labels.into_boxed_slice();
                if !samples.iter().any(|sample| sample.suffix == *suffix && sample.labels == labels) {
                    // The last bucket stands behind the other ones.
                    let at =
                        samples.iter().rposition(|sample| sample.suffix == *suffix).map_or(samples.len(), |at| at + 1);
                    samples.insert(at, Sample { suffix, labels, openmetrics: None, group: group.clone(), value });
                }
            }
            self.samples.append(&mut samples);
        }
    }
}

#[derive(Default)]
struct Families {
    list: Vec<ParsedFamily>,
    by_name: FxHashMap<String, usize>,
    helped: Vec<String>,
}

impl Families {
    fn named(&mut self, name: &str) -> &mut ParsedFamily {
        let at = *self.by_name.entry(name.to_owned()).or_insert_with(|| {
            self.list.push(ParsedFamily { name: name.into(), kind: None, help: String::new(), samples: Vec::new() });
            self.list.len() - 1
        });
        &mut self.list[at]
    }

    fn line(&mut self, line: &str) -> Result<(), String> {
        match line.strip_prefix('#') {
            Some(comment) => self.comment(comment.trim_start_matches([' ', '\t'])),
            None if line.is_empty() => Ok(()),
            None => self.sample(line),
        }
    }

    fn comment(&mut self, comment: &str) -> Result<(), String> {
        let word = |text: &str| text.find([' ', '\t']).unwrap_or(text.len());
        let (keyword, rest) = comment.split_at(word(comment));
        if !matches!(keyword, "HELP" | "TYPE") {
            return Ok(());
        }
        let rest = rest.trim_start_matches([' ', '\t']);
        let (name, rest) = rest.split_at(word(rest));
        let rest = rest.trim_start_matches([' ', '\t']);
        if !is_name(name, true) {
            return Err(format!("{keyword} of what is no name of a metric"));
        }
        if keyword == "HELP" {
            if self.helped.iter().any(|helped| helped == name) {
                return Err("a second HELP of one metric".into());
            }
            self.helped.push(name.into());
            self.named(name).help = unescape(rest)?.into_owned();
            return Ok(());
        }
        let kind = match rest.to_ascii_lowercase().as_str() {
            "counter" => Kind::Counter,
            "gauge" => Kind::Gauge,
            "histogram" => Kind::Histogram,
            "summary" => Kind::Summary,
            "untyped" => Kind::Untyped,
            _ => return Err("an unknown type; there are counter, gauge, histogram, summary, untyped".into()),
        };
        let family = self.named(name);
        if family.kind.is_some() || !family.samples.is_empty() {
            return Err("a second TYPE of one metric, or one after its samples".into());
        }
        family.kind = Some(kind);
        Ok(())
    }

    /// `NAME[{LABEL="VALUE",…}] VALUE`
    fn sample(&mut self, line: &str) -> Result<(), String> {
        let end = line.find(['{', ' ', '\t']).unwrap_or(line.len());
        let (name, rest) = line.split_at(end);
        if !is_name(name, true) {
            return Err("does not begin with the name of a metric".into());
        }
        let rest = rest.trim_start_matches([' ', '\t']);
        let (mut labels, rest) = match rest.strip_prefix('{') {
            Some(rest) => read_labels(rest)?,
            None => (Vec::new(), rest),
        };
        let mut words = rest.split([' ', '\t']).filter(|word| !word.is_empty());
        let value = words.next().ok_or("has no value")?;
        let value = number(value).ok_or("its value is no number")?;
        if words.next().is_some() {
            let what = "has a timestamp, which Prometheus would take for the time of the scrape; leave it out";
            return Err(what.into());
        }
        let (base, suffix, bound) = self.part_of(name)?;
        let bound = match bound {
            None => None,
            Some(label) => {
                let at = labels.iter().position(|(name, _)| name == label);
                let (_, text) = labels.remove(at.ok_or_else(|| format!("lacks the label {label}"))?);
                let bound = number(&text).ok_or_else(|| format!("its {label} is no number"))?;
                Some((label, bound))
            }
        };
        labels.sort_unstable();
        if labels.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return Err("has a label twice".into());
        }
        let written = |bound: Option<(&str, String)>| {
            let mut out = Vec::new();
            let pairs = labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
            let given = pairs.filter(|(_, value)| !value.is_empty());
            WrittenLabels::append(given.chain(bound.as_ref().map(|(name, text)| (*name, text.as_str()))), &mut out);
            out.into_boxed_slice()
        };
        let text = |bound: f64, whole: &str| {
            let mut text = go_float(bound);
            if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') {
                text.push_str(whole);
            }
            text
        };
        let sample = Sample {
            suffix,
            labels: written(bound.map(|(label, bound)| (label, text(bound, "")))),
            openmetrics: bound.map(|(label, bound)| written(Some((label, text(bound, ".0"))))),
            group: written(None),
            value,
        };
        let base = base.to_owned();
        self.named(&base).samples.push(sample);
        Ok(())
    }

    /// Family of a sample's name, the rest of the name, and the label that the sample must have.
    fn part_of<'n>(&self, name: &'n str) -> Result<Part<'n>, String> {
        let kind = |name: &str| self.by_name.get(name).map(|at| self.list[*at].kind);
        match kind(name) {
            Some(Some(Kind::Summary)) => return Ok((name, "", Some("quantile"))),
            Some(Some(Kind::Histogram)) => {
                return Err("a sample of a histogram that is none of its _bucket, _sum, _count".into());
            }
            Some(_) => return Ok((name, "", None)),
            None => {}
        }
        for (suffix, label) in [("_bucket", Some("le")), ("_sum", None), ("_count", None)] {
            match name.strip_suffix(suffix).map(|base| (base, kind(base).flatten())) {
                Some((base, Some(Kind::Histogram))) => return Ok((base, suffix, label)),
                Some((base, Some(Kind::Summary))) if label.is_none() => return Ok((base, suffix, None)),
                _ => {}
            }
        }
        Ok((name, "", None))
    }
}

type Part<'n> = (&'n str, &'static str, Option<&'static str>);

type LabelPairs = Vec<(String, String)>;

/// Labels behind the opening brace, and what follows the closing one.
fn read_labels(text: &str) -> Result<(LabelPairs, &str), String> {
    let blanks = [' ', '\t'];
    let mut labels = Vec::new();
    let mut rest = text.trim_start_matches(blanks);
    loop {
        if let Some(after) = rest.strip_prefix('}') {
            return Ok((labels, after));
        }
        let (name, after) = rest.split_once('=').ok_or("labels without an end")?;
        let name = name.trim_end_matches(blanks);
        if !is_name(name, false) || name == "__name__" {
            return Err("has what is no name of a label".into());
        }
        let after = after.trim_start_matches(blanks);
        let value = after.strip_prefix('"').ok_or("the value of a label is not in double quotes")?;
        let mut escaped = false;
        let end = value.find(|letter| {
            let ends = letter == '"' && !escaped;
            escaped = letter == '\\' && !escaped;
            ends
        });
        let end = end.ok_or("the value of a label does not end")?;
        labels.push((name.to_owned(), unescape(&value[..end])?.into_owned()));
        rest = value[end + 1..].trim_start_matches(blanks);
        match rest.strip_prefix(',') {
            Some(after) => rest = after.trim_start_matches(blanks),
            None if rest.starts_with('}') => {}
            None => return Err("neither comma nor brace after the value of a label".into()),
        }
    }
}

fn is_name(name: &str, colons: bool) -> bool {
    let fits = |(at, byte): (usize, u8)| {
        byte.is_ascii_alphabetic() || byte == b'_' || colons && byte == b':' || at > 0 && byte.is_ascii_digit()
    };
    !name.is_empty() && name.bytes().enumerate().all(fits)
}

fn unescape(text: &str) -> Result<Cow<'_, str>, String> {
    if !text.contains('\\') {
        return Ok(text.into());
    }
    let mut out = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => match letters.next() {
                Some('n') => out.push('\n'),
                Some(escaped @ ('\\' | '"')) => out.push(escaped),
                _ => return Err("an unknown escape; there are \\\\, \\\" and \\n".into()),
            },
            letter => out.push(letter),
        }
    }
    Ok(out.into())
}

/// A number as Go reads it, but for its underscores and hexadecimal floats.
fn number(text: &str) -> Option<f64> {
    text.parse().ok()
}

/// A number as Go writes it (`%g`, shortest): with an exponent of two digits at least from 1e+06 on and from 1e-05 down.
fn go_float(value: f64) -> String {
    if !value.is_finite() {
        return if value.is_nan() { "NaN".into() } else { if value > 0.0 { "+Inf" } else { "-Inf" }.into() };
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if (-4..6).contains(&exponent) {
        return format!("{value}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        parse(text.as_bytes()).map(|_| ()).expect_err(text).to_string()
    }

    #[test]
    fn numbers_are_written_as_go_does() {
        for (value, text) in [
            (0.0, "0"),
            (0.5, "0.5"),
            (100.0, "100"),
            (409_600.0, "409600"),
            (1e6, "1e+06"),
            (1_638_400.0, "1.6384e+06"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (2.2083e-5, "2.2083e-05"),
            (f64::INFINITY, "+Inf"),
        ] {
            assert_eq!(go_float(value), text);
        }
    }

    #[test]
    fn a_sample_has_its_labels_sorted_and_escaped() {
        let text =
            "# comment\n#TYPE x counter\n# HELP x a \\\\ b\\n\n x{b=\"1\\\"\\\\\\n\" , a = \"{}\",} \t +Inf \nx NaN\n";
        let families = parse(text.as_bytes()).unwrap();
        let [family] = families.as_slice() else { panic!("{families:?}") };
        assert_eq!((family.name.as_str(), family.kind, family.help.as_str()), ("x", Some(Kind::Counter), "a \\ b\n"));
        assert_eq!(&*family.samples[0].labels, br#"a="{}",b="1\"\\\n""#);
        assert!(family.samples[0].value == f64::INFINITY && family.samples[1].value.is_nan());
        assert!(parse(b"# HELP alone x\n# TYPE alone gauge\n").unwrap().is_empty());
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line_and_without_a_word_of_the_file() {
        // Each has `s3cret` wherever a text of the file's own can stand.
        for (text, expected) in [
            ("s3cret 1", "line 1: does not end in a line feed"),
            ("a 1\ns3cret 2 1600000000000\n", "line 2: has a timestamp"),
            ("s3cret\n", "line 1: has no value"),
            ("s3cret s3cret\n", "its value is no number"),
            ("1s3cret 1\n", "does not begin with the name of a metric"),
            ("-----BEGIN s3cret KEY-----\n", "line 1: does not begin with the name of a metric"),
            ("s3cret{s3cret=\"1\" 1\n", "neither comma nor brace"),
            ("s3cret{s3cret=\"1} 1\n", "does not end"),
            ("s3cret{s3cret=1} 1\n", "not in double quotes"),
            ("s3cret{s3cret:c=\"1\"} 1\n", "what is no name of a label"),
            ("s3cret{s3cret=\"1\",s3cret=\"2\"} 1\n", "a label twice"),
            ("s3cret{s3cret=\"\\s3cret\"} 1\n", "an unknown escape"),
            ("s3cret{", "labels without an end"),
            ("# TYPE s3cret s3cret\n", "an unknown type"),
            ("# TYPE 1s3cret gauge\n", "TYPE of what is no name"),
            ("s3cret 1\n# TYPE s3cret gauge\n", "one after its samples"),
            ("# HELP s3cret x\n# HELP s3cret x\n", "a second HELP"),
            ("# TYPE s3cret histogram\ns3cret_bucket 1\n", "lacks the label le"),
            ("# TYPE s3cret histogram\ns3cret 1\n", "a sample of a histogram"),
            ("# TYPE s3cret summary\ns3cret{quantile=\"s3cret\"} 1\n", "its quantile is no number"),
        ] {
            let error = error(text);
            assert!(error.contains(expected) && !error.contains("s3cret"), "{text:?}: {error}");
        }
        assert_eq!(parse(b"a 1\n\xff 2\n").unwrap_err().to_string(), "line 2: is no UTF-8");
    }

    proptest::proptest! {
        #[test]
        fn no_word_of_a_file_is_in_what_is_wrong_with_it(text in "([a-z{}=\",# \\\\\n]{0,6}(s3cret|HELP|TYPE)?){0,8}") {
            if let Err(error) = parse(text.as_bytes()) {
                proptest::prop_assert!(!error.to_string().contains("s3cret"), "{}", error);
            }
        }
    }
}
