//! Which CPUs there are.
//!
//! Reads: folders `cpuN` and lists such as `0-3,8` of `/sys/devices/system/cpu`. Yields: their numbers. Costs: one folder;
//! asked for when the set of CPUs changes, not at every scrape.

use super::{Settings, text};
use std::fs;
use std::path::PathBuf;

/// Number and folder of each CPU, those that are off line too, by number.
pub fn folders(settings: &Settings) -> Vec<(u32, PathBuf)> {
    let Ok(folder) = fs::read_dir(settings.sysfs("devices/system/cpu")) else { return Vec::new() };
    let cpu =
        |entry: fs::DirEntry| Some((entry.file_name().to_str()?.strip_prefix("cpu")?.parse().ok()?, entry.path()));
    let mut cpus: Vec<(u32, PathBuf)> = folder.flatten().filter_map(cpu).collect();
    cpus.sort_unstable();
    cpus
}

/// The ranges of a list; what is no range is left out.
pub fn ranges(list: &[u8]) -> impl Iterator<Item = std::ops::RangeInclusive<u32>> {
    list.trim_ascii().split(|byte| *byte == b',').filter_map(|range| {
        let (first, last) = match range.iter().position(|byte| *byte == b'-') {
            Some(dash) => (&range[..dash], &range[dash + 1..]),
            None => (range, range),
        };
        let number = |word| u32::try_from(text::u64(word)?).ok();
        Some(number(first)?..=number(last)?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_understood() {
        let all = |list: &[u8]| ranges(list).flatten().collect::<Vec<_>>();
        assert_eq!(all(b"1,3-5,9\n"), [1, 3, 4, 5, 9]);
        assert!(all(b"\n").is_empty() && all(b"x-2").is_empty() && all(b"5-2").is_empty());
    }
}
