//! Mounted file systems of btrfs: space, commits, devices and their errors.
//!
//! Reads: `/sys/fs/btrfs/UUID` (fs/btrfs/sysfs.c), and of file systems that are mounted in our sight the device statistics
//! ([`super::btrfs_device`]). Yields: `node_btrfs_*`. Costs: some thirty small files and a few ioctls per file system, which
//! wait for one that changes its devices, so it blocks.

use super::btrfs_device::{self, Device};
use super::family::{counter, gauge};
use super::folder::{Folder, names, unsigned};
use super::{Bag, CollectError, Collector, Context, KeptFile, Settings, attribute};
use crate::contract::{Family, Kind};
use crate::exposition::{Encoder, Value};
use std::path::{Path, PathBuf};

const UUID: &[&str] = &["uuid"];
const GROUP: &[&str] = &["uuid", "block_group_type"];
const LAYOUT: &[&str] = &["uuid", "block_group_type", "mode"];
const INFO: Family<'static> = gauge("node_btrfs_info", &["uuid", "label"], "Filesystem information");
const RESERVE: Family<'static> = gauge("node_btrfs_global_rsv_size_bytes", UUID, "Size of global reserve.");
const COMMITS: Family<'static> =
    counter("node_btrfs_commits_total", UUID, "The total number of commits that have occurred.");

/// Key of `commit_stats`, in milliseconds.
const COMMIT_TIMES: [(&str, Family<'static>); 3] = [
    (
        "last_commit_ms",
        gauge("node_btrfs_last_commit_seconds", UUID, "Duration of the most recent commit, in seconds."),
    ),
    ("max_commit_ms", gauge("node_btrfs_max_commit_seconds", UUID, "Duration of the slowest commit, in seconds.")),
    (
        "total_commit_ms",
        counter("node_btrfs_commit_seconds_total", UUID, "Sum of the duration of all commits, in seconds."),
    ),
];
const RESERVED: Family<'static> = gauge("node_btrfs_reserved_bytes", GROUP, "Amount of space reserved for a data type");
const USED: Family<'static> = gauge("node_btrfs_used_bytes", LAYOUT, "Amount of used space by a layout/data type");
const SIZE: Family<'static> =
    gauge("node_btrfs_size_bytes", LAYOUT, "Amount of space allocated for a layout/data type");
const RATIO: Family<'static> =
    gauge("node_btrfs_allocation_ratio", LAYOUT, "Data allocation ratio for a layout/data type");

const DEVICE_SIZE: (&str, &str) = ("node_btrfs_device_size_bytes", "Size of a device that is part of the filesystem.");
const UNUSED: (&str, &str) =
    ("node_btrfs_device_unused_bytes", "Unused bytes unused on a device that is part of the filesystem.");
const ERRORS: (&str, &str) = ("node_btrfs_device_errors_total", "Errors reported for the device");

/// Its families; those of devices have labels that depend on where they are known from.
pub const FAMILIES: &[Family<'static>] =
    &[INFO, RESERVE, COMMITS, COMMIT_TIMES[0].1, COMMIT_TIMES[1].1, COMMIT_TIMES[2].1, RESERVED, USED, SIZE, RATIO];

struct Btrfs {
    folder: Folder,
    mounts: KeptFile,
    root: PathBuf,
    bag: Bag,
}

/// Makes it.
pub fn make(settings: &Settings) -> Box<dyn Collector> {
    Box::new(Btrfs {
        folder: Folder::new(settings.sysfs("fs/btrfs")),
        mounts: settings.kept_procfs("1/mountinfo"),
        root: settings.paths.rootfs.clone(),
        bag: Bag::default(),
    })
}

/// How much of the disks a byte of data takes.
#[expect(clippy::cast_precision_loss, reason = "a number of devices")]
fn ratio(mode: &str, devices: usize) -> f64 {
    let devices = devices as f64;
    match mode {
        "single" | "raid0" => 1.0,
        "dup" | "raid1" | "raid10" => 2.0,
        "raid1c3" => 3.0,
        "raid1c4" => 4.0,
        "raid5" => devices / (devices - 1.0),
        "raid6" => devices / (devices - 2.0),
        _ => 0.0,
    }
}

impl Btrfs {
    /// What sysfs says; yields the devices and their sizes.
    fn file_system(&mut self, folder: &Path, uuid: &str) -> Vec<(String, u64)> {
        let label = attribute(&folder.join("label")).unwrap_or_default();
        self.bag.add(&INFO, &[uuid, &label], 1u64);
        let devices = names(&folder.join("devices")).unwrap_or_default();
        let sizes = devices.into_iter().map(|device| {
            let sectors = unsigned(&folder.join("devices").join(&device).join("size")).unwrap_or(0);
            (device, sectors.saturating_mul(512))
        });
        let sizes: Vec<_> = sizes.collect();
        if let Some(bytes) = unsigned(&folder.join("allocation/global_rsv_size")) {
            self.bag.add(&RESERVE, &[uuid], bytes);
        }
        // Kernels before 6.0 do not count them, which node_exporter tells as 0.
        let commits = attribute(&folder.join("commit_stats")).unwrap_or_default();
        let of = |key: &str| {
            let line = commits.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
            line.and_then(|value| value.trim().parse::<u64>().ok()).unwrap_or(0)
        };
        self.bag.add(&COMMITS, &[uuid], of("commits"));
        for (key, family) in &COMMIT_TIMES {
            self.bag.add(family, &[uuid], Value::Nanos(of(key).saturating_mul(1_000_000)));
        }
        for group in ["data", "metadata", "system"] {
            let folder = folder.join("allocation").join(group);
            if let Some(bytes) = unsigned(&folder.join("bytes_reserved")) {
                self.bag.add(&RESERVED, &[uuid, group], bytes);
            }
            for mode in names(&folder).unwrap_or_default() {
                // Layouts are the folders among the files.
                let Some(used) = unsigned(&folder.join(&mode).join("used_bytes")) else { continue };
                let labels = [uuid, group, &mode];
                self.bag.add(&USED, &labels, used);
                if let Some(size) = unsigned(&folder.join(&mode).join("total_bytes")) {
                    self.bag.add(&SIZE, &labels, size);
                }
                self.bag.add(&RATIO, &labels, ratio(&mode, sizes.len()));
            }
        }
        sizes
    }

    /// What the file system itself says of a device.
    fn device(&mut self, uuid: &str, device: &Device) {
        let labels = [("uuid", uuid), ("device", device.name.as_str()), ("btrfs_dev_uuid", device.uuid.as_str())];
        self.bag.put(DEVICE_SIZE.0, Kind::Gauge, DEVICE_SIZE.1, &labels, device.size);
        self.bag.put(UNUSED.0, Kind::Gauge, UNUSED.1, &labels, device.size.saturating_sub(device.used));
        for (kind, errors) in btrfs_device::ERRORS.iter().zip(device.errors) {
            let labels = [labels[0], labels[1], labels[2], ("type", kind)];
            self.bag.put(ERRORS.0, Kind::Counter, ERRORS.1, &labels, errors);
        }
    }
}

impl Collector for Btrfs {
    fn collect(&mut self, _: &Context<'_>, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        self.folder.refresh_if_there()?;
        // `features` is there as soon as the module is.
        let found: Vec<String> = self.folder.names().iter().filter(|name| name.contains('-')).cloned().collect();
        if found.is_empty() {
            return Ok(());
        }
        let mounted = self.mounts.read().map(|mounts| btrfs_device::mounted(mounts, &self.root)).unwrap_or_default();
        for name in &found {
            let folder = self.folder.path().join(name);
            let uuid = attribute(&folder.join("metadata_uuid")).filter(|uuid| !uuid.is_empty());
            let uuid = uuid.unwrap_or_else(|| name.clone());
            let sizes = self.file_system(&folder, &uuid);
            match mounted.iter().find(|(id, _)| *id == *name || *id == uuid) {
                Some((_, devices)) => devices.iter().for_each(|device| self.device(&uuid, device)),
                None => sizes.iter().for_each(|(device, bytes)| {
                    let labels = [("uuid", uuid.as_str()), ("device", device)];
                    self.bag.put(DEVICE_SIZE.0, Kind::Gauge, DEVICE_SIZE.1, &labels, *bytes);
                }),
            }
        }
        self.bag.write(out);
        Ok(())
    }
}
