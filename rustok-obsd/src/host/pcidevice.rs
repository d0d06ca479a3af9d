//! PCI devices: identity, link, power, virtual functions.
//!
//! Reads: `/sys/bus/pci/devices/*` (drivers/pci/pci-sysfs.c). Yields: `node_pcidevice_*`. Costs: ten files per device;
//! identity once. A device that sleeps is not woken by these files.

use super::folder::{Folder, unsigned};
use super::{Bag, CollectError, Collector, Context, Settings, attribute, family::gauge, text};
use crate::contract::Family;
use crate::exposition::{Encoder, Value};
use std::fs;
use std::path::Path;

const DEVICE: &[&str] = &["segment", "bus", "device", "function"];
const INFO: Family<'static> = gauge(
    "node_pcidevice_info",
    &[
        "segment",
        "bus",
        "device",
        "function",
        "parent_segment",
        "parent_bus",
        "parent_device",
        "parent_function",
        "class_id",
        "vendor_id",
        "device_id",
        "subsystem_vendor_id",
        "subsystem_device_id",
        "revision",
    ],
    "Non-numeric data from /sys/bus/pci/devices/<location>, value is always 1.",
);
const POWER: Family<'static> = gauge(
    "node_pcidevice_power_state",
    &["segment", "bus", "device", "function", "state"],
    "PCIe device power state, one of: D0, D1, D2, D3hot, D3cold, unknown or error.",
);
const NUMA: Family<'static> = gauge(
    "node_pcidevice_numa_node",
    DEVICE,
    "NUMA node number for the PCI device. -1 indicates unknown or not available.",
);

/// File and family of a speed.
const SPEEDS: [(&str, Family<'static>); 2] = [
    (
        "max_link_speed",
        gauge(
            "node_pcidevice_max_link_transfers_per_second",
            DEVICE,
            "Value of maximum link's transfers per second (T/s)",
        ),
    ),
    (
        "current_link_speed",
        gauge(
            "node_pcidevice_current_link_transfers_per_second",
            DEVICE,
            "Value of current link's transfers per second (T/s)",
        ),
    ),
];

/// File, what stands for a device that does not have it (as in node_exporter), family.
const NUMBERS: [(&str, i64, Family<'static>); 7] = [
    (
        "max_link_width",
        -1,
        gauge("node_pcidevice_max_link_width", DEVICE, "Value of maximum link's width (number of lanes)"),
    ),
    (
        "current_link_width",
        -1,
        gauge("node_pcidevice_current_link_width", DEVICE, "Value of current link's width (number of lanes)"),
    ),
    (
        "d3cold_allowed",
        0,
        gauge("node_pcidevice_d3cold_allowed", DEVICE, "Whether the PCIe device supports D3cold power state (0/1)."),
    ),
    (
        "sriov_drivers_autoprobe",
        0,
        gauge(
            "node_pcidevice_sriov_drivers_autoprobe",
            DEVICE,
            "Whether SR-IOV drivers autoprobe is enabled for the device (0/1).",
        ),
    ),
    (
        "sriov_numvfs",
        0,
        gauge("node_pcidevice_sriov_numvfs", DEVICE, "Number of Virtual Functions (VFs) currently enabled for SR-IOV."),
    ),
    (
        "sriov_totalvfs",
        0,
        gauge(
            "node_pcidevice_sriov_totalvfs",
            DEVICE,
            "Total number of Virtual Functions (VFs) supported by the device.",
        ),
    ),
    (
        "sriov_vf_total_msix",
        0,
        gauge("node_pcidevice_sriov_vf_total_msix", DEVICE, "Total number of MSI-X vectors for Virtual Functions."),
    ),
];

/// Its families.
pub const FAMILIES: &[Family<'static>] = &[
    INFO,
    POWER,
    NUMA,
    SPEEDS[0].1,
    SPEEDS[1].1,
    NUMBERS[0].2,
    NUMBERS[1].2,
    NUMBERS[2].2,
    NUMBERS[3].2,
    NUMBERS[4].2,
    NUMBERS[5].2,
    NUMBERS[6].2,
];

const STATES: [&str; 7] = ["D0", "D1", "D2", "D3hot", "D3cold", "unknown", "error"];

/// Segment, bus, device, function.
type Location = [String; 4];

struct Device {
    entry: String,
    location: Location,
    /// Labels of [`INFO`] after the location.
    identity: Vec<String>,
}

struct PciDevices {
    folder: Folder,
    devices: Vec<Device>,
    bag: Bag,
}

/// Makes it.
pub fn make(settings: &Settings) -> Box<dyn Collector> {
    Box::new(PciDevices {
        folder: Folder::new(settings.sysfs("bus/pci/devices")),
        devices: Vec::new(),
        bag: Bag::default(),
    })
}

/// The parts of `0000:00:02.1`.
fn location(name: &str) -> Option<Location> {
    let (rest, function) = name.split_once('.')?;
    let mut parts = rest.split(':');
    let location = [parts.next()?, parts.next()?, parts.next()?, function].map(ToOwned::to_owned);
    let hex = |part: &String| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    (parts.next().is_none() && location.iter().all(hex)).then_some(location)
}

/// Transfers a second of `8.0 GT/s PCIe`; `Unknown` is none.
fn speed(text: &str) -> Option<f64> {
    Some(text.split_once(" GT/s")?.0.parse::<f64>().ok()? * 1e9)
}

fn identity(folder: &Path) -> Vec<String> {
    // The link leads to the device's place below the bridges that it is behind.
    let place = fs::read_link(folder).unwrap_or_default();
    let parent = place.parent().and_then(Path::file_name).and_then(|name| location(&name.to_string_lossy()));
    let mut labels = parent.unwrap_or_else(|| [const { "*" }; 4].map(ToOwned::to_owned)).to_vec();
    for (file, digits) in
        [("class", 6), ("vendor", 4), ("device", 4), ("subsystem_vendor", 4), ("subsystem_device", 4), ("revision", 2)]
    {
        let id = attribute(&folder.join(file)).and_then(|id| text::hex(id.as_bytes())).unwrap_or(0);
        labels.push(format!("0x{id:0digits$x}"));
    }
    labels
}

impl Collector for PciDevices {
    fn collect(&mut self, _: &Context<'_>, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        if self.folder.refresh()? {
            let device = |entry: &String| {
                let identity = identity(&self.folder.path().join(entry));
                Some(Device { entry: entry.clone(), location: location(entry)?, identity })
            };
            self.devices = self.folder.names().iter().filter_map(device).collect();
        }
        for Device { entry, location, identity } in &self.devices {
            let folder = self.folder.path().join(entry);
            let labels = location.each_ref().map(String::as_str);
            let all: Vec<&str> = labels.into_iter().chain(identity.iter().map(String::as_str)).collect();
            self.bag.add(&INFO, &all, 1u64);
            for (file, family) in &SPEEDS {
                let speed = attribute(&folder.join(file)).as_deref().and_then(speed);
                self.bag.add(family, &labels, speed.unwrap_or(-1.0));
            }
            for (file, otherwise, family) in &NUMBERS {
                let number = unsigned(&folder.join(file)).map_or(Value::I64(*otherwise), Value::U64);
                self.bag.add(family, &labels, number);
            }
            if let Some(state) = attribute(&folder.join("power_state")) {
                for one in STATES {
                    let [segment, bus, device, function] = labels;
                    self.bag.add(&POWER, &[segment, bus, device, function, one], u64::from(state == one));
                }
            }
            // -1: the machine does not say.
            if let Some(node) = unsigned(&folder.join("numa_node")) {
                self.bag.add(&NUMA, &labels, node);
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
    fn locations_and_speeds_are_read_or_refused() {
        assert_eq!(location("0000:00:02.1"), Some(["0000", "00", "02", "1"].map(ToOwned::to_owned)));
        assert_eq!((location("pci0000:00"), location("0000:00:02"), location("a:b:c:d.e")), (None, None, None));
        assert_eq!((speed("2.5 GT/s PCIe"), speed("Unknown")), (Some(2.5e9), None));
    }
}
