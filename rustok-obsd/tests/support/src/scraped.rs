//! An exposition in text format 0.0.4 as a test compares it: families by name, samples by labels.
//!
//! Reads: what any exporter serves. Yields: [`Scraped`]. Costs: allocates as it likes.

use std::collections::BTreeMap;

/// Labels without those that are empty, which Prometheus takes for absent.
pub type LabelMap = BTreeMap<String, String>;

/// One family.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ScrapedFamily {
    /// HELP, with its escapes.
    pub help: String,
    /// TYPE; `untyped` where none is given.
    pub kind: String,
    /// Samples: name (a histogram has three) and labels.
    pub samples: BTreeMap<(String, LabelMap), f64>,
}

/// All families.
#[derive(Clone, Debug, Default)]
pub struct Scraped {
    /// By name.
    pub families: BTreeMap<String, ScrapedFamily>,
}

impl Scraped {
    /// Reads a body.
    ///
    /// # Errors
    /// A line that is none of the format, or a series that comes twice.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut scraped = Self::default();
        for line in text.lines() {
            let wrong = |what: &str| format!("{what}: {line}");
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap_or((rest, ""));
                help.clone_into(&mut scraped.families.entry(name.to_owned()).or_default().help);
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').ok_or_else(|| wrong("no type"))?;
                kind.clone_into(&mut scraped.families.entry(name.to_owned()).or_default().kind);
            } else if !line.is_empty() && !line.starts_with('#') {
                let (name, labels, value) = sample(line).ok_or_else(|| wrong("no sample"))?;
                let family = ["_bucket", "_sum", "_count"]
                    .iter()
                    .filter_map(|suffix| name.strip_suffix(suffix))
                    .find(|base| {
                        let kind = scraped.families.get(*base).map(|family| family.kind.as_str());
                        kind.is_some_and(|kind| ["histogram", "summary"].contains(&kind))
                    })
                    .unwrap_or(&name)
                    .to_owned();
                let samples = &mut scraped.families.entry(family).or_default().samples;
                if samples.insert((name, labels), value).is_some() {
                    return Err(wrong("twice"));
                }
            }
        }
        for family in scraped.families.values_mut().filter(|family| family.kind.is_empty()) {
            "untyped".clone_into(&mut family.kind);
        }
        Ok(scraped)
    }

    /// The sum of the samples of `name` whose labels contain `labels`; `None` where there is none.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let fits = |of: &LabelMap| labels.iter().all(|(key, value)| of.get(*key).map_or("", |v| v) == *value);
        let samples = self.families.values().flat_map(|family| &family.samples);
        let mut found = samples.filter(|((of, map), _)| of == name && fits(map)).map(|(_, value)| *value).peekable();
        found.peek().is_some().then(|| found.sum())
    }
}

fn sample(line: &str) -> Option<(String, LabelMap, f64)> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = LabelMap::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        while !rest.starts_with('}') {
            let (label, tail) = rest.split_once("=\"")?;
            let mut value = String::new();
            let mut chars = tail.char_indices();
            rest = loop {
                match chars.next()? {
                    (at, '"') => break &tail[at + 1..],
                    (_, '\\') => value.push(match chars.next()?.1 {
                        'n' => '\n',
                        other => other,
                    }),
                    (_, other) => value.push(other),
                }
            };
            if !value.is_empty() {
                labels.insert(label.trim().to_owned(), value);
            }
            rest = rest.strip_prefix(',').unwrap_or(rest);
        }
        rest = &rest[1..];
    }
    let value = rest.split_whitespace().next()?;
    Some((name.to_owned(), labels, value.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_read_with_their_labels() {
        let text = "# HELP a Help \\\\ text.\n# TYPE a counter\na{x=\"1\",y=\"\",z=\"q\\\"\\n\\\\\"} 1.5e+06 123\na NaN\n\
                    # TYPE h histogram\nh_bucket{le=\"+Inf\"} 2\nh_sum 1\nh_count 2\nb_count +Inf\n";
        let scraped = Scraped::parse(text).unwrap();
        assert_eq!(scraped.families["a"].kind, "counter");
        assert_eq!(scraped.sum("a", &[("z", "q\"\n\\")]), Some(1.5e6));
        assert_eq!(scraped.families["h"].samples.len(), 3);
        assert_eq!(scraped.families["b_count"].kind, "untyped");
        assert_eq!(scraped.sum("c", &[]), None);
        assert!(Scraped::parse("a 1\na 2\n").is_err() && Scraped::parse("a{x=\"1} 2\n").is_err());
    }
}
