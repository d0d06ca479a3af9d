//! Samples gathered in any order and written family by family, for collectors that go device by device.
//!
//! Reads: samples with names made at scrape time. Yields: families, in the order in which each was first named. Costs: text
//! in one buffer, kept from scrape to scrape; a sort. Not for the hottest collectors, which know their families.

use crate::contract::{Family, Kind, Origin, Stability};
use crate::exposition::{Encoder, Value, WrittenLabels};
use rustc_hash::FxHashMap;
use std::ops::Range;

/// Gathered samples.
#[derive(Debug, Default)]
pub struct Bag {
    text: Vec<u8>,
    families: Vec<Named>,
    by_name: FxHashMap<Box<str>, usize>,
    samples: Vec<Sample>,
}

#[derive(Debug)]
struct Named {
    name: Box<str>,
    help: Box<str>,
    kind: Kind,
}

#[derive(Debug)]
struct Sample {
    family: usize,
    labels: Range<usize>,
    value: Value,
}

impl Bag {
    /// Adds a sample. Type and help of a name's first sample count.
    pub fn put(&mut self, name: &str, kind: Kind, help: &str, labels: &[(&str, &str)], value: impl Into<Value>) {
        let family = self.index(name, kind, help);
        let start = self.text.len();
        WrittenLabels::append(labels.iter().copied(), &mut self.text);
        self.samples.push(Sample { family, labels: start..self.text.len(), value: value.into() });
    }

    /// Adds a sample of a family that is known beforehand, with a value for each of its labels.
    pub fn add(&mut self, family: &Family<'_>, labels: &[&str], value: impl Into<Value>) {
        debug_assert_eq!(family.labels.len(), labels.len(), "{}: one value for each label", family.name);
        let index = self.index(family.name, family.kind, family.help);
        let start = self.text.len();
        WrittenLabels::append(family.labels.iter().copied().zip(labels.iter().copied()), &mut self.text);
        self.samples.push(Sample { family: index, labels: start..self.text.len(), value: value.into() });
    }

    fn index(&mut self, name: &str, kind: Kind, help: &str) -> usize {
        if let Some(family) = self.by_name.get(name) {
            return *family;
        }
        self.families.push(Named { name: name.into(), help: help.into(), kind });
        self.by_name.insert(name.into(), self.families.len() - 1);
        self.families.len() - 1
    }

    /// Writes everything and empties the bag; the names are kept for the next scrape.
    pub fn write(&mut self, out: &mut Encoder<'_>) {
        // Stable: the samples of a family stay in the order in which they came.
        self.samples.sort_by_key(|sample| sample.family);
        let mut rest = self.samples.as_slice();
        while let Some(first) = rest.first() {
            let end = rest.iter().position(|sample| sample.family != first.family).unwrap_or(rest.len());
            let Named { name, help, kind } = &self.families[first.family];
            let family = Family {
                name,
                kind: *kind,
                unit: "",
                help,
                labels: &[],
                origin: Origin::Kernel,
                stability: Stability::NodeExporter,
            };
            let mut samples = out.family(&family);
            for sample in &rest[..end] {
                samples.put(WrittenLabels(&self.text[sample.labels.clone()]), sample.value);
            }
            rest = &rest[end..];
        }
        self.samples.clear();
        self.text.clear();
    }
}
