//! Text format 0.0.4, as somebody's script wrote it.
//!
//! Reads: one file's text. Yields: its [`ParsedFamily`]s, or the first thing that is wrong, with its line. Costs: allocations
//! per sample; done when a file changed only.
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
            return Err(format!("{keyword} of `{name}`, which is no name of a metric"));
        }
        if keyword == "HELP" {
            if self.helped.iter().any(|helped| helped == name) {
                return Err(format!("a second HELP of {name}"));
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
            _ => return Err(format!("type `{rest}` of {name}; there are counter, gauge, histogram, summary, untyped")),
        };
        let family = self.named(name);
        if family.kind.is_some() || !family.samples.is_empty() {
            return Err(format!("a second TYPE of {name}, or one after its samples"));
        }
        family.kind = Some(kind);
        Ok(())
    }

    /// `NAME[{LABEL="VALUE",…}] VALUE`
    fn sample(&mut self, line: &str) -> Result<(), String> {
        let end = line.find(['{', ' ', '\t']).unwrap_or(line.len());
        let (name, rest) = line.split_at(end);
        if !is_name(name, true) {
            return Err(format!("`{name}` is no name of a metric"));
        }
        let rest = rest.trim_start_matches([' ', '\t']);
        let (mut labels, rest) = match rest.strip_prefix('{') {
            Some(rest) => read_labels(rest)?,
            None => (Vec::new(), rest),
        };
        let mut words = rest.split([' ', '\t']).filter(|word| !word.is_empty());
        let value = words.next().ok_or_else(|| format!("{name} has no value"))?;
        let value = number(value).ok_or_else(|| format!("value `{value}` of {name} is no number"))?;
        if words.next().is_some() {
            return Err(format!(
                "{name} has a timestamp, which Prometheus would take for the time of the scrape; leave it out"
            ));
        }
        let (base, suffix, bound) = self.part_of(name)?;
        let bound = match bound {
            None => None,
            Some(label) => {
                let at = labels.iter().position(|(name, _)| name == label);
                let (_, text) = labels.remove(at.ok_or_else(|| format!("{name} lacks the label {label}"))?);
                let bound = number(&text).ok_or_else(|| format!("{label}=\"{text}\" of {name} is no number"))?;
                Some((label, bound))
            }
        };
        labels.sort_unstable();
        if let Some(twice) = labels.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(format!("{name} has the label {} twice", twice[0].0));
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
            Some(Some(Kind::Histogram)) => return Err(format!("{name} is a histogram: {name}_bucket, _sum or _count")),
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
            return Err(format!("`{name}` is no name of a label"));
        }
        let after = after.trim_start_matches(blanks);
        let value = after.strip_prefix('"').ok_or_else(|| format!("the value of {name} is not in double quotes"))?;
        let mut escaped = false;
        let end = value.find(|letter| {
            let ends = letter == '"' && !escaped;
            escaped = letter == '\\' && !escaped;
            ends
        });
        let end = end.ok_or_else(|| format!("the value of {name} does not end"))?;
        labels.push((name.to_owned(), unescape(&value[..end])?.into_owned()));
        rest = value[end + 1..].trim_start_matches(blanks);
        match rest.strip_prefix(',') {
            Some(after) => rest = after.trim_start_matches(blanks),
            None if rest.starts_with('}') => {}
            None => return Err(format!("neither comma nor brace after the value of {name}")),
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
                other => {
                    return Err(format!("`\\{}` is no escape; there are \\\\, \\\" and \\n", other.unwrap_or(' ')));
                }
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
    fn what_is_wrong_is_told_with_its_line() {
        for (text, expected) in [
            ("a 1", "line 1: does not end in a line feed"),
            ("a 1\nb 2 1600000000000\n", "line 2: b has a timestamp"),
            ("a\n", "a has no value"),
            ("a x\n", "value `x` of a is no number"),
            ("1a 1\n", "`1a` is no name"),
            ("a{b=\"1\" 1\n", "neither comma nor brace"),
            ("a{b=\"1} 1\n", "does not end"),
            ("a{b=1} 1\n", "not in double quotes"),
            ("a{b:c=\"1\"} 1\n", "`b:c` is no name of a label"),
            ("a{b=\"1\",b=\"2\"} 1\n", "the label b twice"),
            ("a{b=\"\\x\"} 1\n", "`\\x` is no escape"),
            ("a{", "labels without an end"),
            ("# TYPE a thing\n", "type `thing` of a"),
            ("a 1\n# TYPE a gauge\n", "one after its samples"),
            ("# HELP a x\n# HELP a x\n", "a second HELP of a"),
            ("# TYPE a histogram\na_bucket 1\n", "a_bucket lacks the label le"),
            ("# TYPE a summary\na{quantile=\"x\"} 1\n", "quantile=\"x\" of a is no number"),
        ] {
            assert!(error(text).contains(expected), "{text:?}: {}", error(text));
        }
        assert_eq!(parse(b"a 1\n\xff 2\n").unwrap_err().to_string(), "line 2: is no UTF-8");
    }
}
