//! Batteries, mains and other supplies of power.
//!
//! Reads: the files of `/sys/class/power_supply/*` (drivers/power/supply/power_supply_sysfs.c). Yields:
//! `node_power_supply_PROPERTY` for what each supply has, and `node_power_supply_info` with the texts that are not empty.
//! Costs: a folder and a file per property of each supply; most ask the firmware, so it blocks.

use super::folder::{Folder, names};
use super::{Bag, CollectError, Collector, Context, Settings, attribute};
use crate::config::collector::Pattern;
use crate::contract::{Family, Kind};
use crate::exposition::Encoder;

/// Families depend on the properties that a supply has.
pub const FAMILIES: &[Family<'static>] = &[];

/// File, what follows `node_power_supply_`, divisor: the kernel counts in millionths, temperatures in tenths.
const PROPERTIES: &[(&str, &str, f64)] = &[
    ("authentic", "authentic", 1.0),
    ("calibrate", "calibrate", 1.0),
    ("capacity", "capacity", 1.0),
    ("capacity_alert_max", "capacity_alert_max", 1.0),
    ("capacity_alert_min", "capacity_alert_min", 1.0),
    ("charge_control_limit", "charge_control_limit", 1e6),
    ("charge_control_limit_max", "charge_control_limit_max", 1e6),
    ("charge_counter", "charge_counter", 1e6),
    ("charge_empty", "charge_empty", 1e6),
    ("charge_empty_design", "charge_empty_design", 1e6),
    ("charge_full", "charge_full", 1e6),
    ("charge_full_design", "charge_full_design", 1e6),
    ("charge_now", "charge_ampere", 1e6),
    ("charge_term_current", "charge_term_current", 1e6),
    ("constant_charge_current", "constant_charge_current", 1e6),
    ("constant_charge_current_max", "constant_charge_current_max", 1e6),
    ("constant_charge_voltage", "constant_charge_voltage", 1e6),
    ("constant_charge_voltage_max", "constant_charge_voltage_max", 1e6),
    ("current_boot", "current_boot", 1e6),
    ("current_max", "current_max", 1e6),
    ("current_now", "current_ampere", 1e6),
    ("cycle_count", "cyclecount", 1.0),
    ("energy_empty", "energy_empty", 1e6),
    ("energy_empty_design", "energy_empty_design", 1e6),
    ("energy_full", "energy_full", 1e6),
    ("energy_full_design", "energy_full_design", 1e6),
    ("energy_now", "energy_watthour", 1e6),
    ("input_current_limit", "input_current_limit", 1e6),
    ("online", "online", 1.0),
    ("power_now", "power_watt", 1e6),
    ("precharge_current", "precharge_current", 1e6),
    ("present", "present", 1.0),
    ("temp", "temp_celsius", 10.0),
    ("temp_alert_max", "temp_alert_max_celsius", 10.0),
    ("temp_alert_min", "temp_alert_min_celsius", 10.0),
    ("temp_ambient", "temp_ambient_celsius", 10.0),
    ("temp_ambient_alert_max", "temp_ambient_max_celsius", 10.0),
    ("temp_ambient_alert_min", "temp_ambient_min_celsius", 10.0),
    ("temp_max", "temp_max_celsius", 10.0),
    ("temp_min", "temp_min_celsius", 10.0),
    ("time_to_empty_now", "time_to_empty_seconds", 1.0),
    ("time_to_full_now", "time_to_full_seconds", 1.0),
    ("voltage_boot", "voltage_boot", 1e6),
    ("voltage_max", "voltage_max", 1e6),
    ("voltage_max_design", "voltage_max_design", 1e6),
    ("voltage_min", "voltage_min", 1e6),
    ("voltage_min_design", "voltage_min_design", 1e6),
    ("voltage_now", "voltage_volt", 1e6),
    ("voltage_ocv", "voltage_ocv", 1e6),
];

/// Files whose text is a label of the same name.
const TEXTS: [&str; 11] = [
    "capacity_level",
    "charge_type",
    "health",
    "manufacturer",
    "model_name",
    "scope",
    "serial_number",
    "status",
    "technology",
    "type",
    "usb_type",
];

struct PowerSupply {
    folder: Folder,
    ignored: Pattern,
    bag: Bag,
}

/// Makes it.
pub fn make(settings: &Settings) -> Box<dyn Collector> {
    let ignored = settings.options.powersupply_ignored_supplies.clone();
    Box::new(PowerSupply { folder: Folder::new(settings.sysfs("class/power_supply")), ignored, bag: Bag::default() })
}

impl Collector for PowerSupply {
    fn collect(&mut self, _: &Context<'_>, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        self.folder.refresh()?;
        for supply in self.folder.names() {
            if self.ignored.matches(supply) {
                continue;
            }
            let folder = self.folder.path().join(supply);
            // Only what is there is opened: a supply has about twenty of the sixty.
            let files = names(&folder).unwrap_or_default();
            let has = |file: &str| files.binary_search_by(|name| name.as_str().cmp(file)).is_ok();
            for (file, name, divisor) in PROPERTIES.iter().filter(|(file, ..)| has(file)) {
                // ENODATA, ENODEV: the supply cannot tell now.
                let Some(value) = attribute(&folder.join(file)).and_then(|text| text.parse::<i64>().ok()) else {
                    continue;
                };
                #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
                let value = value as f64 / divisor;
                let help = format!("{name} value of /sys/class/power_supply/<power_supply>.");
                let name = format!("node_power_supply_{name}");
                self.bag.put(&name, Kind::Gauge, &help, &[("power_supply", supply)], value);
            }
            let texts = TEXTS.iter().filter(|file| has(file));
            let texts: Vec<(&str, String)> =
                texts.filter_map(|file| Some((*file, attribute(&folder.join(file))?))).collect();
            let mut labels = vec![("power_supply", supply.as_str())];
            labels.extend(texts.iter().filter(|(_, text)| !text.is_empty()).map(|(name, text)| (*name, text.as_str())));
            let help = "info of /sys/class/power_supply/<power_supply>.";
            self.bag.put("node_power_supply_info", Kind::Gauge, help, &labels, 1u64);
        }
        self.bag.write(out);
        Ok(())
    }
}
