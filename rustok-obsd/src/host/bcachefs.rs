//! Mounted file systems of bcachefs.
//!
//! Reads: `/sys/fs/bcachefs/UUID` (fs/bcachefs/sysfs.c). Yields: `node_bcachefs_*`, of the counters one family each. Costs: a
//! file per counter, some more per file system and device.

use super::family::{counter, gauge};
use super::folder::{Folder, metric_name, names, unsigned};
use super::{Bag, CollectError, Collector, Context, Settings, attribute};
use crate::contract::{Family, Kind};
use crate::exposition::Encoder;
use std::path::Path;

const UUID: &[&str] = &["uuid"];
const DEVICE: &[&str] = &["uuid", "device"];

const INFO: Family<'static> = gauge("node_bcachefs_info", UUID, "Filesystem information.");
const CACHE: Family<'static> =
    gauge("node_bcachefs_btree_cache_size_bytes", UUID, "Btree cache memory usage in bytes.");
const COMPRESSED: Family<'static> =
    gauge("node_bcachefs_compression_compressed_bytes", &["uuid", "algorithm"], "Compressed size by algorithm.");
const UNCOMPRESSED: Family<'static> =
    gauge("node_bcachefs_compression_uncompressed_bytes", &["uuid", "algorithm"], "Uncompressed size by algorithm.");
const ERRORS: Family<'static> =
    counter("node_bcachefs_errors_total", &["uuid", "error_type"], "Error count by error type.");
const WRITES: Family<'static> =
    counter("node_bcachefs_btree_writes_total", &["uuid", "type"], "Number of btree writes by type.");
const WRITE_SIZE: Family<'static> =
    gauge("node_bcachefs_btree_write_average_size_bytes", &["uuid", "type"], "Average btree write size by type.");
const DEVICE_INFO: Family<'static> =
    gauge("node_bcachefs_device_info", &["uuid", "device", "label", "state"], "Device information.");
const BUCKET: Family<'static> = gauge("node_bcachefs_device_bucket_size_bytes", DEVICE, "Bucket size in bytes.");
const BUCKETS: Family<'static> = gauge("node_bcachefs_device_buckets", DEVICE, "Total number of buckets.");
const DURABILITY: Family<'static> = gauge("node_bcachefs_device_durability", DEVICE, "Device durability setting.");
const IO_DONE: Family<'static> = counter(
    "node_bcachefs_device_io_done_bytes_total",
    &["uuid", "device", "operation", "data_type"],
    "IO bytes by operation type and data type.",
);
const IO_ERRORS: Family<'static> =
    counter("node_bcachefs_device_io_errors_total", &["uuid", "device", "type"], "IO errors by error type.");

/// Its families but for the counters'.
pub const FAMILIES: &[Family<'static>] = &[
    INFO,
    CACHE,
    COMPRESSED,
    UNCOMPRESSED,
    ERRORS,
    WRITES,
    WRITE_SIZE,
    DEVICE_INFO,
    BUCKET,
    BUCKETS,
    DURABILITY,
    IO_DONE,
    IO_ERRORS,
];

struct Bcachefs {
    folder: Folder,
    bag: Bag,
}

/// Makes it.
pub fn make(settings: &Settings) -> Box<dyn Collector> {
    Box::new(Bcachefs { folder: Folder::new(settings.sysfs("fs/bcachefs")), bag: Bag::default() })
}

/// `48.9G`: a number that was cut for people, whole again as far as that goes.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, as is wanted")]
fn bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    if let Ok(exact) = text.parse() {
        return Some(exact);
    }
    let unit = text.chars().last()?;
    let exponent = "KMGTPE".find(unit.to_ascii_uppercase());
    let (digits, factor) = match exponent {
        Some(exponent) => (&text[..text.len() - 1], 1024f64.powi(i32::try_from(exponent).ok()? + 1)),
        None => (text, 1.0),
    };
    Some((digits.trim().parse::<f64>().ok()? * factor) as u64)
}

impl Bcachefs {
    fn file_system(&mut self, folder: &Path, uuid: &str) {
        self.bag.add(&INFO, &[uuid], 1u64);
        let read = |file: &str| attribute(&folder.join(file)).unwrap_or_default();
        if let Some(size) = bytes(&read("btree_cache_size")) {
            self.bag.add(&CACHE, &[uuid], size);
        }
        // Tables with a line of titles.
        for line in read("compression_stats").lines().skip(1) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [algorithm, compressed, uncompressed, ..] = words[..] else { continue };
            let labels = [uuid, algorithm.trim_end_matches(':')];
            for (family, size) in [(&COMPRESSED, bytes(compressed)), (&UNCOMPRESSED, bytes(uncompressed))] {
                if let Some(size) = size {
                    self.bag.add(family, &labels, size);
                }
            }
        }
        for line in read("btree_write_stats").lines().skip(1) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [kind, count, size, ..] = words[..] else { continue };
            let labels = [uuid, kind.trim_end_matches(':')];
            if let (Ok(count), Some(size)) = (count.parse::<u64>(), bytes(size)) {
                self.bag.add(&WRITES, &labels, count);
                self.bag.add(&WRITE_SIZE, &labels, size);
            }
        }
        for line in read("errors").lines() {
            let mut words = line.split_whitespace();
            if let (Some(kind), Some(Ok(count))) = (words.next(), words.next().map(str::parse::<u64>)) {
                self.bag.add(&ERRORS, &[uuid, kind], count);
            }
        }
    }

    fn counters(&mut self, folder: &Path, uuid: &str) {
        for name in names(folder).unwrap_or_default() {
            let Some(text) = attribute(&folder.join(&name)) else { continue };
            let value = text.lines().find_map(|line| bytes(line.strip_prefix("since filesystem creation:")?));
            if let Some(value) = value {
                let family = format!("node_bcachefs_{}_total", metric_name(&name));
                let help = format!("Bcachefs counter {name} since filesystem creation.");
                self.bag.put(&family, Kind::Counter, &help, &[("uuid", uuid)], value);
            }
        }
    }

    fn device(&mut self, folder: &Path, uuid: &str, device: &str) {
        let read = |file: &str| attribute(&folder.join(file)).unwrap_or_default();
        self.bag.add(&DEVICE_INFO, &[uuid, device, &read("label"), &read("state")], 1u64);
        let numbers = [
            (&BUCKET, bytes(&read("bucket_size"))),
            (&BUCKETS, unsigned(&folder.join("nbuckets"))),
            (&DURABILITY, unsigned(&folder.join("durability"))),
        ];
        for (family, number) in numbers {
            if let Some(number) = number {
                self.bag.add(family, &[uuid, device], number);
            }
        }
        // `read:`, the kinds of data below it, `write:`, the same again.
        let (text, mut operation) = (read("io_done"), "");
        for line in text.lines() {
            let Some((name, value)) = line.trim().split_once(':') else { continue };
            if value.is_empty() {
                operation = name;
            } else if let Ok(value) = value.trim().parse::<u64>() {
                self.bag.add(&IO_DONE, &[uuid, device, operation, name.trim_end()], value);
            }
        }
        let text = read("io_errors");
        let since_creation = text.lines().skip_while(|line| !line.starts_with("IO errors since filesystem creation"));
        for line in since_creation.skip(1).take_while(|line| !line.starts_with("IO errors since ")) {
            let Some((kind, value)) = line.trim().split_once(':') else { continue };
            if let Ok(value) = value.trim().parse::<u64>() {
                self.bag.add(&IO_ERRORS, &[uuid, device, kind.trim_end()], value);
            }
        }
    }
}

impl Collector for Bcachefs {
    fn collect(&mut self, _: &Context<'_>, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        self.folder.refresh()?;
        for uuid in self.folder.names().to_vec() {
            let folder = self.folder.path().join(&uuid);
            self.file_system(&folder, &uuid);
            self.counters(&folder.join("counters"), &uuid);
            for entry in names(&folder).unwrap_or_default() {
                if let Some(device) = entry.strip_prefix("dev-") {
                    self.device(&folder.join(&entry), &uuid, device);
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
    fn sizes_for_people_are_read() {
        assert_eq!((bytes("720"), bytes(" 1.26k"), bytes("44.5T")), (Some(720), Some(1290), Some(48_928_267_436_032)));
        assert_eq!(
            (bytes("18446744073709551615"), bytes(""), bytes("G"), bytes("x")),
            (Some(u64::MAX), None, None, None)
        );
    }
}
