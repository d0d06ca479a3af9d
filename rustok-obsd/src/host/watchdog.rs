//! Watchdog timers.
//!
//! Reads: `/sys/class/watchdog/watchdog*` (drivers/watchdog/watchdog_core.c). Yields: `node_watchdog_*`. Costs: up to twelve
//! small files per timer.

use super::folder::{Folder, unsigned};
use super::{Bag, CollectError, Collector, Context, Settings, attribute, family::gauge};
use crate::contract::Family;
use crate::exposition::Encoder;

const NAME: &[&str] = &["name"];
/// Labels beside the name; each is the text of the file.
const INFO: Family<'static> = gauge(
    "node_watchdog_info",
    &["name", "options", "identity", "state", "status", "pretimeout_governor"],
    "Info of /sys/class/watchdog/<watchdog>",
);

/// File and family.
const NUMBERS: [(&str, Family<'static>); 7] = [
    ("bootstatus", gauge("node_watchdog_bootstatus", NAME, "Value of /sys/class/watchdog/<watchdog>/bootstatus")),
    ("fw_version", gauge("node_watchdog_fw_version", NAME, "Value of /sys/class/watchdog/<watchdog>/fw_version")),
    ("nowayout", gauge("node_watchdog_nowayout", NAME, "Value of /sys/class/watchdog/<watchdog>/nowayout")),
    ("timeleft", gauge("node_watchdog_timeleft_seconds", NAME, "Value of /sys/class/watchdog/<watchdog>/timeleft")),
    ("timeout", gauge("node_watchdog_timeout_seconds", NAME, "Value of /sys/class/watchdog/<watchdog>/timeout")),
    (
        "pretimeout",
        gauge("node_watchdog_pretimeout_seconds", NAME, "Value of /sys/class/watchdog/<watchdog>/pretimeout"),
    ),
    ("access_cs0", gauge("node_watchdog_access_cs0", NAME, "Value of /sys/class/watchdog/<watchdog>/access_cs0")),
];

/// Its families.
pub const FAMILIES: &[Family<'static>] =
    &[NUMBERS[0].1, NUMBERS[1].1, NUMBERS[2].1, NUMBERS[3].1, NUMBERS[4].1, NUMBERS[5].1, NUMBERS[6].1, INFO];

struct Watchdog {
    folder: Folder,
    bag: Bag,
}

/// Makes it.
pub fn make(settings: &Settings) -> Box<dyn Collector> {
    Box::new(Watchdog { folder: Folder::new(settings.sysfs("class/watchdog")), bag: Bag::default() })
}

impl Collector for Watchdog {
    fn collect(&mut self, _: &Context<'_>, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        self.folder.refresh()?;
        for name in self.folder.names() {
            let folder = self.folder.path().join(name);
            for (file, family) in &NUMBERS {
                if let Some(value) = unsigned(&folder.join(file)) {
                    self.bag.add(family, &[name], value);
                }
            }
            let texts: Vec<String> =
                INFO.labels[1..].iter().map(|file| attribute(&folder.join(file)).unwrap_or_default()).collect();
            let mut labels = vec![name.as_str()];
            labels.extend(texts.iter().map(String::as_str));
            self.bag.add(&INFO, &labels, 1u64);
        }
        self.bag.write(out);
        Ok(())
    }
}
