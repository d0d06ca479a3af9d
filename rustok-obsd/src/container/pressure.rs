//! Pressure on a cgroup.
//!
//! Reads: `{cpu,memory,io}.pressure` of cgroup v2, which a hybrid host has beside the controllers of v1; so has its root.
//! Yields: time in which some, or all, of its tasks waited. Costs: three small files.

use super::files::{Files, Reader, Source};
use crate::host::text;

/// Of one resource, µs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// Some task waited.
    pub waiting: Option<u64>,
    /// All tasks waited.
    pub stalled: Option<u64>,
}

/// The resources, in the order of [`read`].
pub const RESOURCES: [&str; 3] = ["cpu", "memory", "io"];

/// Reads all three.
#[must_use]
pub fn read(id: &str, files: &mut Files, reader: &mut Reader) -> [Pressure; 3] {
    [Source::PressureCpu, Source::PressureMemory, Source::PressureIo]
        .map(|source| reader.read(id, files, source).map(parse).unwrap_or_default())
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=1`, and the same with `full`.
#[must_use]
pub fn parse(text: &[u8]) -> Pressure {
    let mut found = Pressure::default();
    for line in text::lines(text) {
        let total = text::words(line).find_map(|word| word.strip_prefix(b"total=")).and_then(text::u64);
        match line.first() {
            Some(b's') => found.waiting = total,
            Some(b'f') => found.stalled = total,
            _ => {}
        }
    }
    found
}
