//! Sensors: temperatures, fans, voltages, currents, power.
//!
//! Reads: `/sys/class/hwmon/hwmon*` and the `device` of each (Documentation/hwmon/sysfs-interface.rst). Yields: a family per
//! kind of sensor and property, `node_hwmon_sensor_label`, `node_hwmon_chip_names`. Costs: one `pread` per property of each
//! sensor; a driver may ask its chip over a slow bus, so it blocks. Chips, names and labels are remembered.
//!
//! A chip is named after its device; where several share one (1.12), its own name is added, or its number where that does
//! not tell them apart either.

use super::folder::Folder;
use super::hwmon_sensor::{Property, sensors};
use super::{Bag, CollectError, Collector, Context, Settings, attribute, family::gauge};
use crate::config::collector::{Collectors, Filter};
use crate::contract::{Family, Kind};
use crate::exposition::Encoder;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

const CHIP_NAMES: Family<'static> =
    gauge("node_hwmon_chip_names", &["chip", "chip_name"], "Annotation metric for human-readable chip names");
const LABEL: Family<'static> =
    gauge("node_hwmon_sensor_label", &["chip", "sensor", "label"], "Label for given chip and sensor");

/// Families depend on the sensors; these are always the same.
pub const FAMILIES: &[Family<'static>] = &[CHIP_NAMES, LABEL];

/// Drivers add sensors to a chip that is there already, seldom: so long after that they are seen.
const RESCAN: Duration = Duration::from_secs(300);

struct Chip {
    /// The label `chip`.
    label: String,
    name: Option<String>,
    /// Sensor and its label.
    labels: Vec<(String, String)>,
    properties: Vec<Property>,
}

struct HardwareMonitor {
    folder: Folder,
    chip: Filter,
    sensor: Filter,
    chips: Vec<Chip>,
    scanned: Option<Instant>,
    bag: Bag,
}

/// Makes it.
pub fn make(settings: &Settings) -> Box<dyn Collector> {
    let options = &settings.options;
    Box::new(HardwareMonitor {
        folder: Folder::new(settings.sysfs("class/hwmon")),
        chip: Collectors::filter(&options.hwmon_chip_include, &options.hwmon_chip_exclude),
        sensor: Collectors::filter(&options.hwmon_sensor_include, &options.hwmon_sensor_exclude),
        chips: Vec::new(),
        scanned: None,
        bag: Bag::default(),
    })
}

/// Lower case; what is neither letter nor digit is `_`, and none at the ends.
pub(super) fn clean(text: &str) -> String {
    let replaced: String = text
        .chars()
        .map(|letter| match letter.to_ascii_lowercase() {
            letter if letter.is_ascii_alphanumeric() || letter == ':' => letter,
            _ => '_',
        })
        .collect();
    replaced.trim_matches('_').to_owned()
}

/// The name of a chip after the device that it sits on.
fn base_name(folder: &Path) -> String {
    if let Ok(device) = fs::canonicalize(folder.join("device")) {
        let part = |path: Option<&Path>| clean(&path.and_then(Path::file_name).unwrap_or_default().to_string_lossy());
        let (bus, name) = (part(device.parent()), part(Some(&device)));
        if !name.is_empty() {
            return if bus.is_empty() { name } else { format!("{bus}_{name}") };
        }
    }
    own_name(folder).unwrap_or_else(|| {
        let real = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
        clean(&real.file_name().unwrap_or_default().to_string_lossy())
    })
}

/// What the driver calls it.
fn own_name(folder: &Path) -> Option<String> {
    attribute(&folder.join("name")).map(|name| clean(&name)).filter(|name| !name.is_empty())
}

impl HardwareMonitor {
    fn scan(&mut self) {
        let folders: Vec<_> = self.folder.names().iter().map(|name| (name, self.folder.path().join(name))).collect();
        let mut same: BTreeMap<String, Vec<_>> = BTreeMap::new();
        for (name, folder) in folders.iter().filter(|(_, folder)| folder.is_dir()) {
            same.entry(base_name(folder)).or_default().push((own_name(folder), name, folder));
        }
        self.chips.clear();
        for (base, chips) in &same {
            for (own, number, folder) in chips {
                let unique = || chips.iter().filter(|(other, ..)| other == own).count() == 1;
                let label = match own {
                    _ if chips.len() == 1 => base.clone(),
                    Some(own) if unique() => format!("{base}_{own}"),
                    _ => format!("{base}_{number}"),
                };
                if !self.chip.wants(&label) {
                    continue;
                }
                let wants = |sensor: &str| self.sensor.wants(&format!("{label};{sensor}"));
                let (labels, properties) = sensors(folder, wants);
                self.chips.push(Chip { label, name: own.clone(), labels, properties });
            }
        }
        self.scanned = Some(Instant::now());
    }
}

impl Collector for HardwareMonitor {
    fn collect(&mut self, _: &Context<'_>, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        let news = self.folder.refresh()?;
        if news || self.scanned.is_none_or(|scanned| scanned.elapsed() > RESCAN) {
            self.scan();
        }
        for Chip { label, name, labels, properties } in &mut self.chips {
            for property in properties {
                let Some(value) = property.read() else {
                    // The chip may have been replaced by another with its number.
                    if property.is_gone() {
                        self.scanned = None;
                    }
                    continue;
                };
                let kind = if property.counter { Kind::Counter } else { Kind::Gauge };
                let labels = [("chip", label.as_str()), ("sensor", &property.sensor)];
                self.bag.put(&property.family, kind, &property.help, &labels, value);
            }
            for (sensor, text) in labels {
                self.bag.add(&LABEL, &[label, sensor, text], 1u64);
            }
            if let Some(name) = name {
                self.bag.add(&CHIP_NAMES, &[label, name], 1u64);
            }
        }
        self.bag.write(out);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn chips_on_one_device_are_told_apart_by_name_or_number() {
        let root = tempfile::tempdir().unwrap();
        let device = root.path().join("bus/i2c-1");
        fs::create_dir_all(&device).unwrap();
        for (number, name) in ["jc42\n", "jc42\n", "Spd-5118\n"].iter().enumerate() {
            let folder = root.path().join(format!("class/hwmon/hwmon{number}"));
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("name"), name).unwrap();
            symlink(&device, folder.join("device")).unwrap();
        }
        let mut settings = Settings::default();
        settings.paths.sysfs = root.path().to_owned();
        let mut monitor = HardwareMonitor {
            folder: Folder::new(settings.sysfs("class/hwmon")),
            chip: Filter::default(),
            sensor: Filter::default(),
            chips: Vec::new(),
            scanned: None,
            bag: Bag::default(),
        };
        monitor.folder.refresh().unwrap();
        monitor.scan();
        let labels: Vec<_> = monitor.chips.iter().map(|chip| chip.label.as_str()).collect();
        assert_eq!(labels, ["bus_i2c_1_hwmon0", "bus_i2c_1_hwmon1", "bus_i2c_1_spd_5118"]);
    }
}
