//! Properties of a chip's sensors: which families they are, in which unit.
//!
//! Reads: the names in a chip's folder; one property at a time. Yields: [`Property`]. Costs: one `pread`; the files stay open.

use super::folder::names;
use super::hwmon::clean;
use super::{attribute, text};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// Kinds of sensors that are told.
const KINDS: [&str; 14] = [
    "vrm",
    "beep_enable",
    "update_interval",
    "in",
    "cpu",
    "fan",
    "pwm",
    "temp",
    "curr",
    "power",
    "energy",
    "humidity",
    "intrusion",
    "freq",
];

/// One number of one sensor.
pub(super) struct Property {
    path: PathBuf,
    file: Option<File>,
    gone: bool,
    divisor: f64,
    /// Only 1 is one.
    flag: bool,
    pub(super) family: String,
    pub(super) help: String,
    pub(super) counter: bool,
    pub(super) sensor: String,
}

impl Property {
    /// Its value now; `None` where the driver does not tell.
    pub(super) fn read(&mut self) -> Option<f64> {
        self.gone = false;
        let mut buffer = [0; 128];
        let read = match &self.file {
            Some(file) => file.read_at(&mut buffer, 0),
            None => {
                self.file = File::open(&self.path).ok();
                self.file.as_ref()?.read_at(&mut buffer, 0)
            }
        };
        let Ok(read) = read else {
            // ENODEV: the device is gone. Others refuse for now only, and may be asked again.
            self.gone = read.is_err_and(|error| error.raw_os_error() == Some(libc::ENODEV));
            self.file = None;
            return None;
        };
        let word = buffer[..read].trim_ascii();
        if self.flag {
            return Some(if word == b"1" { 1.0 } else { 0.0 });
        }
        Some(text::f64(word)? / self.divisor)
    }

    /// Whether the last reading found that the device is no more.
    pub(super) fn is_gone(&self) -> bool {
        self.gone
    }
}

/// `temp1_crit_alarm` is `temp`, 1, `crit_alarm`; `pwm2` and `beep_enable` are their sensor's value itself.
fn parts(file: &str) -> Option<(&str, u32, &str)> {
    let digits = file.find(|letter: char| letter.is_ascii_digit()).unwrap_or(file.len());
    let (kind, rest) = file.split_at(digits);
    let end = rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len());
    let (number, property) = rest.split_at(end);
    let number = if number.is_empty() { 0 } else { number.parse().ok()? };
    if property.is_empty() {
        return Some((kind, number, ""));
    }
    property.strip_prefix('_').filter(|property| !property.is_empty()).map(|property| (kind, number, property))
}

/// The labels and properties of the sensors in a chip's folder and its device's.
pub(super) fn sensors(folder: &Path, wants: impl Fn(&str) -> bool) -> (Vec<(String, String)>, Vec<Property>) {
    let mut found: BTreeMap<(usize, u32), BTreeMap<String, PathBuf>> = BTreeMap::new();
    // Old drivers have their files in the device's folder; those win, as there.
    for folder in [folder.to_owned(), folder.join("device")] {
        for file in names(&folder).unwrap_or_default() {
            let Some((kind, number, property)) = parts(&file) else { continue };
            if let Some(kind) = KINDS.iter().position(|known| *known == kind) {
                found.entry((kind, number)).or_default().insert(property.to_owned(), folder.join(&file));
            }
        }
    }
    let (mut labels, mut properties) = (Vec::new(), Vec::new());
    for ((kind, number), files) in found {
        let kind = KINDS[kind];
        let sensor = format!("{kind}{number}");
        if !wants(&sensor) {
            continue;
        }
        let label = files.get("label").and_then(|path| attribute(path)).filter(|label| !clean(label).is_empty());
        for (property, path) in files.iter().filter(|(property, _)| *property != "label") {
            let Some(unit) = unit(kind, property, files.contains_key("")) else { continue };
            let Unit { family, help, divisor } = unit;
            // Clock rates go by their label; without one nobody knows whose they are.
            let sensor = match (kind, &label) {
                ("freq", Some(label)) if property == "input" => clean(label),
                ("freq", None) if property == "input" => continue,
                _ => sensor.clone(),
            };
            let (flag, counter) = (kind == "beep_enable", kind == "energy" && property != "alarm");
            let path = path.clone();
            properties.push(Property { path, file: None, gone: false, divisor, flag, family, help, counter, sensor });
        }
        labels.extend(label.map(|label| (sensor, label)));
    }
    (labels, properties)
}

struct Unit {
    family: String,
    help: String,
    divisor: f64,
}

/// Family and unit of a property. `valued`: the sensor has a value of its own beside its input.
fn unit(kind: &str, property: &str, valued: bool) -> Option<Unit> {
    let unit = |family: String, help: String, divisor: f64| Some(Unit { family, help, divisor });
    match kind {
        "beep_enable" => return unit("node_hwmon_beep_enabled".into(), "Hardware beep enabled".into(), 1.0),
        "vrm" => return unit("node_hwmon_voltage_regulator_version".into(), "Hardware voltage regulator".into(), 1.0),
        "update_interval" => {
            let family = "node_hwmon_update_interval_seconds".into();
            return unit(family, "Hardware monitor update interval".into(), 1000.0);
        }
        _ => {}
    }
    let name = match property {
        "" => format!("node_hwmon_{kind}"),
        "input" if !valued => format!("node_hwmon_{kind}"),
        _ => format!("node_hwmon_{kind}_{}", clean(property)),
    };
    let suffixed = |suffix: &str, help: &str, divisor: f64| {
        unit(format!("{name}_{suffix}"), format!("Hardware monitor {help} ({property})"), divisor)
    };
    match (kind, property) {
        (_, "fault" | "alarm") => unit(name, format!("Hardware sensor {property} status ({kind})"), 1.0),
        (_, "beep") => unit(format!("{name}_enabled"), "Hardware monitor sensor has beeping enabled".into(), 1.0),
        ("in" | "cpu", _) => suffixed("volts", "for voltage", 1000.0),
        ("temp", property) if property != "type" => suffixed("celsius", "for temperature", 1000.0),
        ("curr", _) => suffixed("amps", "for current", 1000.0),
        ("energy", _) => suffixed("joule_total", "for joules used so far", 1e6),
        ("power", "accuracy") => unit(name, "Hardware monitor power meter accuracy, as a ratio".into(), 1e6),
        ("power", "average_interval" | "average_interval_min" | "average_interval_max") => {
            suffixed("seconds", "power usage update interval", 1000.0)
        }
        ("power", _) => suffixed("watt", "for power usage in watts", 1e6),
        ("humidity", _) => {
            let what = "for humidity, as a ratio (multiply with 100.0 to get the humidity as a percentage)";
            unit(name, format!("Hardware monitor {what} ({property})"), 1e6)
        }
        ("fan", "input" | "min" | "max" | "target") => suffixed("rpm", "for fan revolutions per minute", 1.0),
        ("freq", "input") => unit(format!("{name}_freq_mhz"), "Hardware monitor for GPU frequency in MHz".into(), 1e6),
        _ => unit(name, format!("Hardware monitor {kind} element {property}"), 1.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn files_are_told_apart() {
        assert_eq!(parts("temp12_crit_alarm"), Some(("temp", 12, "crit_alarm")));
        assert_eq!((parts("pwm1"), parts("beep_enable")), (Some(("pwm", 1, "")), Some(("beep_enable", 0, ""))));
        assert_eq!((parts("fan1x"), parts("fan1_"), parts("fan99999999999_input")), (None, None, None));
    }

    #[test]
    fn units_follow_the_kind() {
        let folder = tempfile::tempdir().unwrap();
        let files = [
            ("power1_average", "12500000"),
            ("power1_average_interval", "250"),
            ("energy1_input", "7000000"),
            ("humidity1_input", "45000"),
            ("curr1_input", "1500"),
            ("fan1_fault", "1"),
            ("beep_enable", "1"),
            ("update_interval", "500"),
            ("temp1_type", "4"),
            ("temp2_input", "garbage"),
            ("in3_input", "1"),
        ];
        for (file, text) in files {
            fs::write(folder.path().join(file), text).unwrap();
        }
        let (_, mut properties) = sensors(folder.path(), |sensor| sensor != "in3");
        let mut values: Vec<_> = properties
            .iter_mut()
            .filter_map(|property| Some((property.family.clone(), property.read()?, property.counter)))
            .collect();
        values.sort_by(|a, b| a.0.cmp(&b.0));
        let expected = [
            ("node_hwmon_beep_enabled", 1.0, false),
            ("node_hwmon_curr_amps", 1.5, false),
            ("node_hwmon_energy_joule_total", 7.0, true),
            ("node_hwmon_fan_fault", 1.0, false),
            ("node_hwmon_humidity", 0.045, false),
            ("node_hwmon_power_average_interval_seconds", 0.25, false),
            ("node_hwmon_power_average_watt", 12.5, false),
            ("node_hwmon_temp_type", 4.0, false),
            ("node_hwmon_update_interval_seconds", 0.5, false),
        ];
        assert_eq!(values, expected.map(|(name, value, counter)| (name.to_owned(), value, counter)));
    }
}
