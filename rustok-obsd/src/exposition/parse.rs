//! Reads expositions back, for tests: strict about what the encoder may write, in either format.

use std::collections::{BTreeMap, HashSet};

/// One sample.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: f64,
    /// Labels, value and timestamp.
    pub(crate) exemplar: Option<(BTreeMap<String, String>, f64, f64)>,
}

/// A parsed exposition.
#[derive(Debug, Default)]
pub(crate) struct Parsed {
    pub(crate) samples: Vec<Sample>,
    pub(crate) help: BTreeMap<String, String>,
    pub(crate) types: BTreeMap<String, String>,
    pub(crate) units: BTreeMap<String, String>,
}

impl Parsed {
    /// The samples of this name whose labels contain `labels`.
    pub(crate) fn find<'p>(&'p self, name: &'p str, labels: &'p [(&str, &str)]) -> impl Iterator<Item = &'p Sample> {
        let fits =
            |sample: &&Sample| labels.iter().all(|(name, value)| sample.labels.get(*name).is_some_and(|v| v == value));
        self.samples.iter().filter(move |sample| sample.name == name).filter(fits)
    }

    /// Their sum.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.find(name, labels).map(|sample| sample.value).sum()
    }

    /// Checks that buckets rise, that count equals +Inf and that no series comes twice.
    pub(crate) fn check(&self) {
        let mut seen = HashSet::new();
        for sample in &self.samples {
            assert!(seen.insert((sample.name.clone(), sample.labels.clone())), "twice: {sample:?}");
        }
        let mut last: BTreeMap<(String, BTreeMap<String, String>), f64> = BTreeMap::new();
        for sample in &self.samples {
            let mut labels = sample.labels.clone();
            if let (Some(base), Some(_)) = (sample.name.strip_suffix("_bucket"), labels.remove("le")) {
                let before = last.insert((base.to_owned(), labels), sample.value);
                assert!(before.unwrap_or(0.0) <= sample.value, "buckets fall: {sample:?}");
            } else if let Some(infinite) =
                sample.name.strip_suffix("_count").and_then(|base| last.get(&(base.to_owned(), labels)))
            {
                assert_eq!(*infinite, sample.value, "count and +Inf differ: {sample:?}");
            }
        }
    }
}

/// Parses a whole exposition; panics where it is not well-formed.
pub(crate) fn parse(text: &str, openmetrics: bool) -> Parsed {
    let mut parsed = Parsed::default();
    let mut family = String::new();
    let mut lines = text.split_terminator('\n').collect::<Vec<_>>();
    assert!(text.is_empty() || text.ends_with('\n'), "the last line has no end");
    if openmetrics {
        assert_eq!(lines.pop(), Some("# EOF"));
    }
    for line in lines {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut parts = comment.splitn(3, ' ');
            let (keyword, name, rest) = (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap_or(""));
            if name != family {
                assert!(!parsed.types.contains_key(name), "{name} is not contiguous");
                name.clone_into(&mut family);
            }
            let (map, rest) = match keyword {
                "HELP" => (&mut parsed.help, unescape(rest, openmetrics)),
                "TYPE" => (&mut parsed.types, rest.to_owned()),
                "UNIT" => (&mut parsed.units, rest.to_owned()),
                _ => panic!("unknown keyword: {line}"),
            };
            assert!(map.insert(name.to_owned(), rest).is_none(), "twice: {line}");
            continue;
        }
        let (name, labels, rest) = sample_head(line);
        let allowed = ["", "_total", "_info", "_bucket", "_sum", "_count"];
        assert!(allowed.iter().any(|suffix| name == format!("{family}{suffix}")), "{name} is not of {family}");
        let (value, exemplar) = match rest.split_once(" # ") {
            Some((value, exemplar)) => {
                let (_, labels, rest) = sample_head(exemplar);
                let (value_of, time) = rest.split_once(' ').expect("an exemplar has a timestamp");
                (value, Some((labels, value_of.parse().unwrap(), time.parse().unwrap())))
            }
            None => (rest, None),
        };
        let value = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
        parsed.samples.push(Sample { name, labels, value, exemplar });
    }
    parsed
}

/// Name, labels, and what follows the space.
fn sample_head(line: &str) -> (String, BTreeMap<String, String>, &str) {
    let name_end = line.find(['{', ' ']).expect("a sample has a value");
    let (name, mut rest) = line.split_at(name_end);
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, after) = rest.split_once("=\"").expect("a label has a value");
            let mut escaped = false;
            let end = after
                .find(|c| {
                    let ends = c == '"' && !escaped;
                    escaped = c == '\\' && !escaped;
                    ends
                })
                .expect("a label's value ends");
            assert!(labels.insert(label.to_owned(), unescape(&after[..end], true)).is_none(), "label twice: {line}");
            rest = &after[end + 1..];
            rest = rest.strip_prefix(',').unwrap_or(rest);
        }
        rest = &rest[1..];
    }
    (name.to_owned(), labels, rest.strip_prefix(' ').expect("a space before the value"))
}

fn unescape(text: &str, quotes: bool) -> String {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        out.push(match c {
            '\\' => match chars.next() {
                Some('\\') => '\\',
                Some('n') => '\n',
                Some('"') if quotes => '"',
                other => panic!("bad escape {other:?} in {text:?}"),
            },
            '"' if quotes => panic!("a bare quote in {text:?}"),
            other => other,
        });
    }
    out
}
