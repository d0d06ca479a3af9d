//! Block devices.
//!
//! Reads: `/proc/diskstats`, as the collector [`diskstats`](crate::host::diskstats) does, with its filter. Yields:
//! `system_disk_*`. Costs: one file.

use super::counter;
use crate::contract::Family;
use crate::exposition::Encoder;
use crate::host::diskstats::Disks;
use crate::host::{CollectError, Settings};

const LABELS: &[&str] = &["system_device", "disk_io_direction"];

pub const IO: Family<'static> = counter("system_disk_io_bytes_total", "bytes", LABELS, "Disk bytes transferred.");
pub const OPERATIONS: Family<'static> = counter("system_disk_operations_total", "", LABELS, "Disk operations count.");
pub const IO_TIME: Family<'static> =
    counter("system_disk_io_time_seconds_total", "seconds", &["system_device"], "Time disk spent activated.");
pub const OPERATION_TIME: Family<'static> = counter(
    "system_disk_operation_time_seconds_total",
    "seconds",
    LABELS,
    "Sum of the time each operation took to complete.",
);
pub const MERGED: Family<'static> = counter(
    "system_disk_merged_total",
    "",
    LABELS,
    "The number of disk reads/writes merged into single physical disk access operations.",
);

/// Family, columns of reads and writes.
const ROWS: [(Family<'static>, [usize; 2]); 4] =
    [(IO, [2, 6]), (OPERATIONS, [0, 4]), (OPERATION_TIME, [3, 7]), (MERGED, [1, 5])];
const BUSY: usize = 9;

pub struct Disk(Disks);

impl Disk {
    pub fn new(settings: &Settings) -> Self {
        Self(Disks::new(settings))
    }

    pub fn collect(&mut self, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        self.0.read()?;
        for (family, columns) in &ROWS {
            let mut samples = out.family(family);
            for (direction, column) in ["read", "write"].into_iter().zip(columns) {
                for (device, value) in self.0.values(*column) {
                    samples.put([device, direction], value);
                }
            }
        }
        let mut samples = out.family(&IO_TIME);
        for (device, value) in self.0.values(BUSY) {
            samples.put([device], value);
        }
        Ok(())
    }
}
