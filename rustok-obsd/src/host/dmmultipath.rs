//! Multipath devices of the device mapper, and their paths.
//!
//! Reads: `/sys/block/dm-*` whose `dm/uuid` says so, and the state of the disks below (drivers/md/dm-sysfs.c). Yields:
//! `node_dmmultipath_*`. Costs: a listing of /sys/block where there is no such device; else a few files per device and path.

use super::folder::{Folder, names, numbered, unsigned};
use super::{Bag, CollectError, Collector, Context, Settings, attribute, family::gauge};
use crate::contract::Family;
use crate::exposition::Encoder;

const DEVICE: &[&str] = &["device", "sysfs_name"];
const ACTIVE: Family<'static> = gauge(
    "node_dmmultipath_device_active",
    DEVICE,
    "Whether the multipath device-mapper device is active (1) or suspended (0).",
);
const INFO: Family<'static> = gauge(
    "node_dmmultipath_device_info",
    &["device", "sysfs_name", "uuid"],
    "Non-numeric information about a DM-multipath device.",
);
const PATHS: Family<'static> =
    gauge("node_dmmultipath_device_paths", DEVICE, "Number of paths for a multipath device.");
const PATHS_ACTIVE: Family<'static> = gauge(
    "node_dmmultipath_device_paths_active",
    DEVICE,
    "Number of paths in active state (SCSI running or NVMe live) for a multipath device.",
);
const PATHS_FAILED: Family<'static> = gauge(
    "node_dmmultipath_device_paths_failed",
    DEVICE,
    "Number of paths not in active state for a multipath device.",
);
const SIZE: Family<'static> = gauge(
    "node_dmmultipath_device_size_bytes",
    DEVICE,
    "Size of the multipath device in bytes, read from /sys/block/<dm>/size.",
);
const PATH_STATE: Family<'static> = gauge(
    "node_dmmultipath_path_state",
    &["device", "path", "state"],
    "Reports the underlying device state for a multipath path, as read from /sys/block/<dev>/device/state.",
);

/// Its families.
pub const FAMILIES: &[Family<'static>] = &[INFO, ACTIVE, SIZE, PATHS, PATHS_ACTIVE, PATHS_FAILED, PATH_STATE];

struct Multipath {
    folder: Folder,
    bag: Bag,
}

/// Makes it.
pub fn make(settings: &Settings) -> Box<dyn Collector> {
    Box::new(Multipath { folder: Folder::new(settings.sysfs("block")), bag: Bag::default() })
}

impl Collector for Multipath {
    fn collect(&mut self, _: &Context<'_>, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        self.folder.refresh()?;
        for block in self.folder.names().to_vec() {
            if numbered(&block, "dm-").is_none() {
                continue;
            }
            let uuid = self.folder.fixed(&format!("{block}/dm/uuid")).unwrap_or_default().to_owned();
            if !uuid.starts_with("mpath-") {
                continue;
            }
            let folder = self.folder.path().join(&block);
            // A device can be renamed while it is there.
            let name = attribute(&folder.join("dm/name")).unwrap_or_default();
            let labels = [name.as_str(), &block];
            self.bag.add(&INFO, &[&name, &block, &uuid], 1u64);
            if let Some(suspended) = unsigned(&folder.join("dm/suspended")) {
                self.bag.add(&ACTIVE, &labels, u64::from(suspended == 0));
            }
            if let Some(sectors) = unsigned(&folder.join("size")) {
                self.bag.add(&SIZE, &labels, sectors.saturating_mul(512));
            }
            let (mut paths, mut active) = (0u64, 0u64);
            for path in names(&folder.join("slaves")).unwrap_or_default() {
                let state = attribute(&self.folder.path().join(&path).join("device/state"));
                let state = state.unwrap_or_else(|| "unknown".into());
                paths += 1;
                // Of SCSI and of NVMe.
                active += u64::from(state == "running" || state == "live");
                self.bag.add(&PATH_STATE, &[&name, &path, &state], 1u64);
            }
            for (family, count) in [(&PATHS, paths), (&PATHS_ACTIVE, active), (&PATHS_FAILED, paths - active)] {
                self.bag.add(family, &labels, count);
            }
        }
        self.bag.write(out);
        Ok(())
    }
}
