//! NVMe controllers and their namespaces.
//!
//! Reads: `/sys/class/nvme/nvme*` (drivers/nvme/host/sysfs.c). Yields: `node_nvme_info`, `node_nvme_namespace_*`. Costs: a
//! folder per controller, state and firmware of it, size and use of each namespace; identity and block size once.
//!
//! Sizes are what node_exporter says: the kernel's sectors of 512 bytes multiplied with the logical block size.

use super::folder::{Folder, names, numbered, unsigned};
use super::{Bag, CollectError, Collector, Context, Settings, attribute, family::gauge};
use crate::contract::Family;
use crate::exposition::Encoder;

const NAMESPACE: &[&str] = &["device", "nsid"];
const INFO: Family<'static> = gauge(
    "node_nvme_info",
    &["device", "firmware_revision", "model", "serial", "state", "cntlid"],
    "Non-numeric data from /sys/class/nvme/<device>, value is always 1.",
);
const NAMESPACE_INFO: Family<'static> = gauge(
    "node_nvme_namespace_info",
    &["device", "nsid", "ana_state"],
    "Information about NVMe namespaces. Value is always 1",
);
const CAPACITY: Family<'static> = gauge(
    "node_nvme_namespace_capacity_bytes",
    NAMESPACE,
    "Capacity of the NVMe namespace in bytes. Computed as namespace_size * namespace_logical_block_size",
);
const SIZE: Family<'static> = gauge(
    "node_nvme_namespace_size_bytes",
    NAMESPACE,
    "Size of the NVMe namespace in bytes. Available in /sys/class/nvme/<device>/<namespace>/size",
);
const USED: Family<'static> = gauge(
    "node_nvme_namespace_used_bytes",
    NAMESPACE,
    "Used space of the NVMe namespace in bytes. Available in /sys/class/nvme/<device>/<namespace>/nuse",
);
const BLOCK: Family<'static> = gauge(
    "node_nvme_namespace_logical_block_size_bytes",
    NAMESPACE,
    "Logical block size of the NVMe namespace in bytes. Usually 4Kb. Available in /sys/class/nvme/<device>/<namespace>/queue/logical_block_size",
);

/// Its families.
pub const FAMILIES: &[Family<'static>] = &[INFO, NAMESPACE_INFO, CAPACITY, SIZE, USED, BLOCK];

struct Nvme {
    folder: Folder,
    bag: Bag,
}

/// Makes it.
pub fn make(settings: &Settings) -> Box<dyn Collector> {
    Box::new(Nvme { folder: Folder::new(settings.sysfs("class/nvme")), bag: Bag::default() })
}

/// The id in the name of a namespace of `device`: `nvme0n1`, or `nvme0c1n1` behind several controllers.
fn namespace_id<'a>(name: &'a str, device: &str) -> Option<&'a str> {
    let rest = name.strip_prefix(device)?;
    if rest.starts_with('n') {
        return numbered(rest, "n");
    }
    let (controller, id) = rest.strip_prefix('c')?.split_once('n')?;
    numbered(controller, "")?;
    numbered(id, "")
}

impl Collector for Nvme {
    fn collect(&mut self, _: &Context<'_>, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        self.folder.refresh()?;
        for device in self.folder.names().to_vec() {
            let folder = self.folder.path().join(&device);
            let mut fixed = |file: &str| self.folder.fixed(&format!("{device}/{file}")).unwrap_or_default().to_owned();
            let [model, serial, controller] = ["model", "serial", "cntlid"].map(&mut fixed);
            // It can be renewed while the device works.
            let firmware = attribute(&folder.join("firmware_rev")).unwrap_or_default();
            let state = attribute(&folder.join("state")).unwrap_or_default();
            self.bag.add(&INFO, &[&device, &firmware, &model, &serial, &state, &controller], 1u64);
            for name in names(&folder).unwrap_or_default() {
                let Some(id) = namespace_id(&name, &device) else { continue };
                let namespace = folder.join(&name);
                let state = attribute(&namespace.join("ana_state")).unwrap_or_else(|| "unknown".into());
                self.bag.add(&NAMESPACE_INFO, &[&device, id, &state], 1u64);
                let block = fixed(&format!("{name}/queue/logical_block_size")).parse::<u64>().ok();
                let size = unsigned(&namespace.join("size"));
                let used = unsigned(&namespace.join("nuse"));
                let bytes = |blocks: Option<u64>| Some(blocks?.saturating_mul(block?));
                let values = [(&CAPACITY, bytes(size)), (&SIZE, bytes(size)), (&USED, bytes(used)), (&BLOCK, block)];
                for (family, value) in values {
                    if let Some(value) = value {
                        self.bag.add(family, &[&device, id], value);
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
    fn namespaces_are_told_by_their_names() {
        let ids = ["nvme0n1", "nvme0c12n3", "nvme0c12", "nvme01n1", "nvme0n1p1", "model", "nvme0cxn1"];
        let ids: Vec<_> = ids.iter().map(|name| namespace_id(name, "nvme0")).collect();
        assert_eq!(ids, [Some("1"), Some("3"), None, None, None, None, None]);
    }
}
