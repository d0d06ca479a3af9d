//! Block devices that are cached by bcache.
//!
//! Reads: `/sys/fs/bcache/UUID` (drivers/md/bcache/sysfs.c). Yields: `node_bcache_*`. Costs: some thirty small files per
//! set of caches; `priority_stats`, where asked for, makes the kernel sort all buckets.

use super::family::{counter, gauge};
use super::folder::{Folder, names, numbered};
use super::{Bag, CollectError, Collector, Context, Settings, attribute};
use crate::contract::Family;
use crate::exposition::Encoder;
use std::path::Path;

const SET: &[&str] = &["uuid"];
const BACKING: &[&str] = &["uuid", "backing_device"];
const CACHE: &[&str] = &["uuid", "cache_device"];

type Table = &'static [(&'static str, Family<'static>)];

/// Files of a set.
const OF_SET: Table = &[
    (
        "average_key_size",
        gauge("node_bcache_average_key_size_sectors", SET, "Average data per key in the btree (sectors)."),
    ),
    (
        "btree_cache_size",
        gauge("node_bcache_btree_cache_size_bytes", SET, "Amount of memory currently used by the btree cache."),
    ),
    (
        "cache_available_percent",
        gauge(
            "node_bcache_cache_available_percent",
            SET,
            "Percentage of cache device without dirty data, usable for writeback (may contain clean cached data).",
        ),
    ),
    ("congested", gauge("node_bcache_congested", SET, "Congestion.")),
    (
        "root_usage_percent",
        gauge(
            "node_bcache_root_usage_percent",
            SET,
            "Percentage of the root btree node in use (tree depth increases if too high).",
        ),
    ),
    ("tree_depth", gauge("node_bcache_tree_depth", SET, "Depth of the btree.")),
    (
        "internal/active_journal_entries",
        gauge("node_bcache_active_journal_entries", SET, "Number of journal entries that are newer than the index."),
    ),
    ("internal/btree_nodes", gauge("node_bcache_btree_nodes", SET, "Total nodes in the btree.")),
    (
        "internal/btree_read_average_duration_us",
        gauge("node_bcache_btree_read_average_duration_seconds", SET, "Average btree read duration."),
    ),
    (
        "internal/cache_read_races",
        counter(
            "node_bcache_cache_read_races_total",
            SET,
            "Counts instances where while data was being read from the cache, the bucket was reused and invalidated - i.e. where the pointer was stale after the read completed.",
        ),
    ),
];

/// Files of a backing device.
const OF_BACKING: Table = &[
    (
        "dirty_data",
        gauge("node_bcache_dirty_data_bytes", BACKING, "Amount of dirty data for this backing device in the cache."),
    ),
    (
        "stats_total/bypassed",
        counter(
            "node_bcache_bypassed_bytes_total",
            BACKING,
            "Amount of IO (both reads and writes) that has bypassed the cache.",
        ),
    ),
    (
        "stats_total/cache_bypass_hits",
        counter("node_bcache_cache_bypass_hits_total", BACKING, "Hits for IO intended to skip the cache."),
    ),
    (
        "stats_total/cache_bypass_misses",
        counter("node_bcache_cache_bypass_misses_total", BACKING, "Misses for IO intended to skip the cache."),
    ),
    (
        "stats_total/cache_hits",
        counter("node_bcache_cache_hits_total", BACKING, "Hits counted per individual IO as bcache sees them."),
    ),
    (
        "stats_total/cache_miss_collisions",
        counter(
            "node_bcache_cache_miss_collisions_total",
            BACKING,
            "Instances where data insertion from cache miss raced with write (data already present).",
        ),
    ),
    (
        "stats_total/cache_misses",
        counter("node_bcache_cache_misses_total", BACKING, "Misses counted per individual IO as bcache sees them."),
    ),
    (
        "stats_total/cache_readaheads",
        counter("node_bcache_cache_readaheads_total", BACKING, "Count of times readahead occurred."),
    ),
];

/// Lines of a backing device's `writeback_rate_debug`.
const OF_WRITEBACK: Table = &[
    ("rate", gauge("node_bcache_writeback_rate", BACKING, "Current writeback rate for this backing device in bytes.")),
    (
        "target",
        gauge(
            "node_bcache_dirty_target_bytes",
            BACKING,
            "Current dirty data target threshold for this backing device in bytes.",
        ),
    ),
    (
        "proportional",
        gauge(
            "node_bcache_writeback_rate_proportional_term",
            BACKING,
            "Current result of proportional controller, part of writeback rate",
        ),
    ),
    (
        "integral",
        gauge(
            "node_bcache_writeback_rate_integral_term",
            BACKING,
            "Current result of integral controller, part of writeback rate",
        ),
    ),
    (
        "change",
        gauge("node_bcache_writeback_change", BACKING, "Last writeback rate change step for this backing device."),
    ),
];

/// Files of a cache device.
const OF_CACHE: Table = &[
    (
        "io_errors",
        gauge("node_bcache_io_errors", CACHE, "Number of errors that have occurred, decayed by io_error_halflife."),
    ),
    (
        "metadata_written",
        counter(
            "node_bcache_metadata_written_bytes_total",
            CACHE,
            "Sum of all non data writes (btree writes and all other metadata).",
        ),
    ),
    (
        "written",
        counter("node_bcache_written_bytes_total", CACHE, "Sum of all data that has been written to the cache."),
    ),
];

/// Lines of a cache device's `priority_stats`.
const OF_PRIORITIES: Table = &[
    (
        "Unused",
        gauge(
            "node_bcache_priority_stats_unused_percent",
            CACHE,
            "The percentage of the cache that doesn't contain any data.",
        ),
    ),
    ("Metadata", gauge("node_bcache_priority_stats_metadata_percent", CACHE, "Bcache's metadata overhead.")),
];

const TABLES: [Table; 5] = [OF_SET, OF_BACKING, OF_WRITEBACK, OF_CACHE, OF_PRIORITIES];
const COUNT: usize = OF_SET.len() + OF_BACKING.len() + OF_WRITEBACK.len() + OF_CACHE.len() + OF_PRIORITIES.len();

/// Its families.
pub const FAMILIES: &[Family<'static>] = &{
    let mut families = [OF_SET[0].1; COUNT];
    let (mut table, mut filled) = (0, 0);
    while table < TABLES.len() {
        let mut at = 0;
        while at < TABLES[table].len() {
            families[filled] = TABLES[table][at].1;
            (at, filled) = (at + 1, filled + 1);
        }
        table += 1;
    }
    families
};

struct Bcache {
    folder: Folder,
    priorities: bool,
    bag: Bag,
}

/// Makes it.
pub fn make(settings: &Settings) -> Box<dyn Collector> {
    let priorities = settings.options.bcache_priority_stats;
    Box::new(Bcache { folder: Folder::new(settings.sysfs("fs/bcache")), priorities, bag: Bag::default() })
}

/// A number as bcache writes it for people: `1.1M`, where what follows the point counts in 1/1024 of the unit, cut to one or
/// more digits.
fn number(text: &str) -> Option<f64> {
    let (sign, text) = text.strip_prefix('-').map_or((1.0, text), |text| (-1.0, text));
    let text = text.strip_suffix("/sec").unwrap_or(text);
    let exponent = text.chars().last().and_then(|unit| "kMGTPEZY".find(unit));
    let Some(exponent) = exponent else {
        return text.parse::<f64>().ok().map(|value| sign * value);
    };
    let digits = &text[..text.len() - 1];
    let value = match digits.split_once('.') {
        Some((whole, part)) => whole.parse::<f64>().ok()? + part.parse::<f64>().ok()? / 10.24,
        None => digits.parse::<f64>().ok()?,
    };
    let unit = 1024f64.powi(i32::try_from(exponent).ok()? + 1);
    Some(sign * (value * unit).trunc())
}

impl Bcache {
    fn files(&mut self, table: Table, folder: &Path, labels: &[&str]) {
        for (file, family) in table {
            let Some(value) = attribute(&folder.join(file)).as_deref().and_then(number) else { continue };
            // Its name says microseconds; it is nanoseconds.
            let value = if file.ends_with("duration_us") { value / 1e9 } else { value };
            self.bag.add(family, labels, value);
        }
    }

    fn lines(&mut self, table: Table, file: &Path, labels: &[&str]) {
        let Some(text) = attribute(file) else { return };
        for (name, value) in text.lines().filter_map(|line| line.split_once(':')) {
            let family = table.iter().find(|(known, _)| *known == name).map(|(_, family)| family);
            let value = number(value.trim().trim_end_matches('%'));
            if let (Some(family), Some(value)) = (family, value) {
                self.bag.add(family, labels, value);
            }
        }
    }
}

impl Collector for Bcache {
    fn collect(&mut self, _: &Context<'_>, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        self.folder.refresh_if_there()?;
        // Beside the sets there are files such as `register`.
        let sets: Vec<String> = self.folder.names().iter().filter(|name| name.contains('-')).cloned().collect();
        for set in &sets {
            let folder = self.folder.path().join(set);
            self.files(OF_SET, &folder, &[set]);
            for device in names(&folder).unwrap_or_default() {
                let (path, labels) = (folder.join(&device), [set.as_str(), &device]);
                if numbered(&device, "bdev").is_some() {
                    self.files(OF_BACKING, &path, &labels);
                    self.lines(OF_WRITEBACK, &path.join("writeback_rate_debug"), &labels);
                } else if numbered(&device, "cache").is_some() {
                    self.files(OF_CACHE, &path, &labels);
                    if self.priorities {
                        self.lines(OF_PRIORITIES, &path.join("priority_stats"), &labels);
                    }
                }
            }
        }
        self.bag.write(out);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people_are_read() {
        assert_eq!((number("512"), number("1.1M/sec"), number("-2k")), (Some(512.0), Some(1_150_976.0), Some(-2048.0)));
        assert_eq!((number(""), number("M"), number("1.xM"), number("x")), (None, None, None, None));
    }
}
