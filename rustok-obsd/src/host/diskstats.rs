//! Block devices.
//!
//! Reads: `/proc/diskstats` (Documentation/admin-guide/iostats.rst: 14, 18 or 20 columns by kernel), udev's database below
//! `path.udev_data`, `queue/rotational` of sysfs. Yields: `node_disk_*`. Costs: one file, and one stat(2) per device: what a
//! device is, is read again only when its number changed or udev wrote its file anew.

use super::family::{counter, gauge};
use super::{CollectError, Collector, Context, KeptFile, Settings, attribute, text};
use crate::config::collector::{Collectors, Filter};
use crate::contract::Family;
use crate::exposition::{Encoder, LabelSet, Value};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

const DEVICE: &[&str] = &["device"];

/// How a column is told.
#[derive(Clone, Copy)]
enum Unit {
    Count,
    /// 512 bytes each, whatever the device's own are.
    Sectors,
    Milliseconds,
}

use Unit::{Count, Milliseconds, Sectors};

/// The columns after the name, in the kernel's order.
const COLUMNS: [(Unit, Family<'static>); 17] = [
    (Count, counter("node_disk_reads_completed_total", DEVICE, "The total number of reads completed successfully.")),
    (Count, counter("node_disk_reads_merged_total", DEVICE, "The total number of reads merged.")),
    (Sectors, counter("node_disk_read_bytes_total", DEVICE, "The total number of bytes read successfully.")),
    (
        Milliseconds,
        counter("node_disk_read_time_seconds_total", DEVICE, "The total number of seconds spent by all reads."),
    ),
    (Count, counter("node_disk_writes_completed_total", DEVICE, "The total number of writes completed successfully.")),
    (Count, counter("node_disk_writes_merged_total", DEVICE, "The number of writes merged.")),
    (Sectors, counter("node_disk_written_bytes_total", DEVICE, "The total number of bytes written successfully.")),
    (
        Milliseconds,
        counter(
            "node_disk_write_time_seconds_total",
            DEVICE,
            "This is the total number of seconds spent by all writes.",
        ),
    ),
    (Count, gauge("node_disk_io_now", DEVICE, "The number of I/Os currently in progress.")),
    (Milliseconds, counter("node_disk_io_time_seconds_total", DEVICE, "Total seconds spent doing I/Os.")),
    (
        Milliseconds,
        counter("node_disk_io_time_weighted_seconds_total", DEVICE, "The weighted # of seconds spent doing I/Os."),
    ),
    (
        Count,
        counter("node_disk_discards_completed_total", DEVICE, "The total number of discards completed successfully."),
    ),
    (Count, counter("node_disk_discards_merged_total", DEVICE, "The total number of discards merged.")),
    (
        Count,
        counter("node_disk_discarded_sectors_total", DEVICE, "The total number of sectors discarded successfully."),
    ),
    (
        Milliseconds,
        counter(
            "node_disk_discard_time_seconds_total",
            DEVICE,
            "This is the total number of seconds spent by all discards.",
        ),
    ),
    (
        Count,
        counter("node_disk_flush_requests_total", DEVICE, "The total number of flush requests completed successfully"),
    ),
    (
        Milliseconds,
        counter(
            "node_disk_flush_requests_time_seconds_total",
            DEVICE,
            "This is the total number of seconds spent by all flush requests.",
        ),
    ),
];

const INFO: Family<'static> = gauge(
    "node_disk_info",
    &["device", "major", "minor", "path", "wwn", "model", "serial", "revision", "rotational"],
    "Info of /sys/block/<block_device>.",
);
const FILESYSTEM: Family<'static> =
    gauge("node_disk_filesystem_info", &["device", "type", "usage", "uuid", "version"], "Info about disk filesystem.");
const MAPPER: Family<'static> = gauge(
    "node_disk_device_mapper_info",
    &["device", "name", "uuid", "vg_name", "lv_name", "lv_layer"],
    "Info about disk device mapper.",
);

/// Property of udev, family.
const ATA: [(&str, Family<'static>); 3] = [
    ("ID_ATA_WRITE_CACHE", gauge("node_disk_ata_write_cache", DEVICE, "ATA disk has a write cache.")),
    (
        "ID_ATA_WRITE_CACHE_ENABLED",
        gauge("node_disk_ata_write_cache_enabled", DEVICE, "ATA disk has its write cache enabled."),
    ),
    (
        "ID_ATA_ROTATION_RATE_RPM",
        gauge("node_disk_ata_rotation_rate_rpm", DEVICE, "ATA disk rotation rate in RPMs (0 for SSDs)."),
    ),
];

/// Its families.
pub const FAMILIES: &[Family<'static>] = &{
    let mut families = [INFO; COLUMNS.len() + ATA.len() + 3];
    let mut at = 0;
    while at < COLUMNS.len() {
        families[at] = COLUMNS[at].1;
        at += 1;
    }
    while at < COLUMNS.len() + ATA.len() {
        families[at] = ATA[at - COLUMNS.len()].1;
        at += 1;
    }
    families[at] = FILESYSTEM;
    families[at + 1] = MAPPER;
    families
};

/// The devices of `/proc/diskstats`.
pub struct Disks {
    file: KeptFile,
    devices: Vec<Device>,
    filter: Filter,
    sys_block: PathBuf,
    udev: PathBuf,
}

struct Device {
    name: Box<str>,
    wanted: bool,
    number: [u64; 2],
    udev: PathBuf,
    /// Second and nanosecond at which udev wrote the file.
    written: Option<(i64, i64)>,
    identity: Option<Identity>,
    columns: usize,
    values: [u64; COLUMNS.len()],
}

/// What a device is, as labels.
struct Identity {
    info: LabelSet,
    filesystem: Option<LabelSet>,
    mapper: Option<LabelSet>,
    ata: [Option<f64>; ATA.len()],
}

/// Makes it.
pub fn make(settings: &Settings) -> Box<dyn Collector> {
    Box::new(Disks::new(settings))
}

impl Collector for Disks {
    fn collect(&mut self, _: &Context<'_>, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        self.read()?;
        for device in self.devices.iter_mut().filter(|device| device.wanted) {
            device.identify(&self.sys_block);
        }
        self.write(out);
        Ok(())
    }
}

impl Disks {
    /// None yet.
    pub fn new(settings: &Settings) -> Self {
        let options = &settings.options;
        Self {
            file: settings.kept_procfs("diskstats"),
            devices: Vec::new(),
            filter: Collectors::filter(&options.diskstats_device_include, &options.diskstats_device_exclude),
            sys_block: settings.sysfs("block"),
            udev: settings.paths.udev_data.clone(),
        }
    }

    /// Takes the lines; the devices stand in their order afterwards.
    pub fn read(&mut self) -> Result<(), CollectError> {
        let mut at = 0;
        for line in text::lines(self.file.read()?) {
            let mut words = text::words(line);
            let mut number = || words.next().and_then(text::u64);
            let (Some(major), Some(minor)) = (number(), number()) else { continue };
            let Some(name) = words.next().and_then(text::utf8) else { continue };
            match self.devices[at..].iter().position(|device| &*device.name == name) {
                // Those before it are gone, or come later: then they are made anew.
                Some(ahead) => drop(self.devices.drain(at..at + ahead)),
                None => self.devices.insert(at, Device::new(name, self.filter.wants(name))),
            }
            let device = &mut self.devices[at];
            if device.number != [major, minor] {
                device.number = [major, minor];
                device.udev = self.udev.join(format!("b{major}:{minor}"));
                device.identity = None;
            }
            device.columns = 0;
            for (value, word) in device.values.iter_mut().zip(words) {
                let Some(number) = text::u64(word) else { break };
                *value = number;
                device.columns += 1;
            }
            at += 1;
        }
        self.devices.truncate(at);
        Ok(())
    }

    /// Name and value of each device that is wanted and has the column.
    pub fn values(&self, column: usize) -> impl Iterator<Item = (&str, Value)> {
        let devices = self.devices.iter().filter(move |device| device.wanted && device.columns > column);
        devices.map(move |device| {
            let value = device.values[column];
            let value = match COLUMNS[column].0 {
                Count => Value::U64(value),
                Sectors => Value::U64(value.saturating_mul(512)),
                Milliseconds => Value::Nanos(value.saturating_mul(1_000_000)),
            };
            (&*device.name, value)
        })
    }

    fn write(&self, out: &mut Encoder<'_>) {
        let wanted = || self.devices.iter().filter(|device| device.wanted);
        let identified = || wanted().filter_map(|device| Some((device, device.identity.as_ref()?)));
        for (at, (_, family)) in COLUMNS.iter().enumerate() {
            let mut samples = out.family(family);
            for (name, value) in self.values(at) {
                samples.put([name], value);
            }
        }
        let mut samples = out.family(&INFO);
        for (_, identity) in identified() {
            samples.put(&identity.info, 1u64);
        }
        let mut samples = out.family(&FILESYSTEM);
        for labels in identified().filter_map(|(_, identity)| identity.filesystem.as_ref()) {
            samples.put(labels, 1u64);
        }
        let mut samples = out.family(&MAPPER);
        for labels in identified().filter_map(|(_, identity)| identity.mapper.as_ref()) {
            samples.put(labels, 1u64);
        }
        for (at, (_, family)) in ATA.iter().enumerate() {
            let mut samples = out.family(family);
            for (device, identity) in identified() {
                if let Some(value) = identity.ata[at] {
                    samples.put([&*device.name], value);
                }
            }
        }
    }
}

impl Device {
    fn new(name: &str, wanted: bool) -> Self {
        Self {
            name: name.into(),
            wanted,
            number: [u64::MAX; 2],
            udev: PathBuf::new(),
            written: None,
            identity: None,
            columns: 0,
            values: [0; COLUMNS.len()],
        }
    }

    /// Reads what the device is, where that may be news.
    fn identify(&mut self, sys_block: &Path) {
        let written = fs::metadata(&self.udev).ok().map(|file| (file.mtime(), file.mtime_nsec()));
        if self.identity.is_some() && written == self.written {
            return;
        }
        self.written = written;
        let properties = fs::read(&self.udev).unwrap_or_default();
        let properties = String::from_utf8_lossy(&properties);
        let property = |name: &str| {
            let mut lines = properties.lines().filter_map(|line| line.strip_prefix("E:")?.split_once('='));
            lines.find(|(property, _)| *property == name).map(|(_, value)| value)
        };
        let text = |name| property(name).unwrap_or_default();
        // The one on the disk's label, the short one, that of virtio.
        let serials = ["SCSI_IDENT_SERIAL", "ID_SERIAL_SHORT", "ID_SERIAL"];
        let serial = serials.into_iter().map(text).find(|serial| !serial.is_empty()).unwrap_or_default();
        let [major, minor] = self.number.map(|number| number.to_string());
        // A slash in a name is an exclamation mark in sysfs. A partition has no queue.
        let queue = sys_block.join(self.name.replace('/', "!")).join("queue/rotational");
        let rotational = attribute(&queue).unwrap_or_else(|| "0".into());
        let pairs = |family: &Family<'static>, values: &[&str]| {
            LabelSet::new(family.labels.iter().copied().zip(values.iter().copied()))
        };
        let given = |name: &str| property(name).filter(|value| !value.is_empty());
        self.identity = Some(Identity {
            info: pairs(
                &INFO,
                &[
                    &self.name,
                    &major,
                    &minor,
                    text("ID_PATH"),
                    text("ID_WWN"),
                    text("ID_MODEL"),
                    serial,
                    text("ID_REVISION"),
                    &rotational,
                ],
            ),
            filesystem: given("ID_FS_TYPE").map(|kind| {
                let values = [&self.name, kind, text("ID_FS_USAGE"), text("ID_FS_UUID"), text("ID_FS_VERSION")];
                pairs(&FILESYSTEM, &values)
            }),
            mapper: given("DM_NAME").map(|name| {
                let rest = ["DM_UUID", "DM_VG_NAME", "DM_LV_NAME", "DM_LV_LAYER"].map(text);
                pairs(&MAPPER, &[&self.name, name, rest[0], rest[1], rest[2], rest[3]])
            }),
            ata: ATA.map(|(name, _)| given("ID_ATA").and(property(name)).and_then(|value| value.parse().ok())),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Paths;

    #[test]
    fn devices_come_go_and_change_what_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let paths = Paths { procfs: root.into(), sysfs: root.into(), rootfs: root.into(), udev_data: root.into() };
        let settings = Settings { paths, ..Settings::default() };
        let mut disks = Disks {
            file: settings.kept_procfs("diskstats"),
            devices: Vec::new(),
            filter: Collectors::filter(&Default::default(), &settings.options.diskstats_device_exclude),
            sys_block: root.into(),
            udev: root.into(),
        };
        let mut scrape = |text: &str| {
            fs::write(root.join("diskstats"), text).unwrap();
            disks.read().unwrap();
            for device in disks.devices.iter_mut().filter(|device| device.wanted) {
                device.identify(root);
            }
            let shown = |device: &Device| {
                let labels = device.identity.as_ref().map(|identity| format!("{:?}", identity.info));
                (device.name.to_string(), device.columns, device.values[0], labels.is_some())
            };
            disks.devices.iter().map(shown).collect::<Vec<_>>()
        };
        let seen = scrape("8 0 sda 1 0 0 0 0 0 0 0 0 0 0\n8 1 sda1 2 0\n8 16 sdb 3 0 0 0 0 0 0 0 0 0 0 1 2 3 4\nx\n");
        assert_eq!(
            seen,
            [("sda".into(), 11, 1, true), ("sda1".into(), 2, 2, false), ("sdb".into(), 15, 3, true)],
            "partitions are left out, short and old lines are not"
        );
        fs::write(root.join("b8:32"), "E:ID_MODEL=later\n").unwrap();
        let seen = scrape("8 32 sdb 4 0 0 0 0 0 0 0 0 0 0\n8 0 sda 5 0 0 0 0 0 0 0 0 0 0\n");
        assert_eq!(seen, [("sdb".into(), 11, 4, true), ("sda".into(), 11, 5, true)]);
        let identity = |disks: &Disks| disks.devices[0].identity.as_ref().map(|identity| identity.info.clone());
        let labels = |model: &str| {
            let pairs = [("device", "sdb"), ("major", "8"), ("minor", "32"), ("model", model), ("rotational", "0")];
            Some(LabelSet::new(pairs))
        };
        assert_eq!(identity(&disks), labels("later"), "another number is another device");
        fs::write(root.join("b8:32"), "E:ID_MODEL=again\n").unwrap();
        let later = std::time::SystemTime::now() + std::time::Duration::from_secs(9);
        fs::File::options().write(true).open(root.join("b8:32")).unwrap().set_modified(later).unwrap();
        disks.devices[0].identify(root);
        assert_eq!(identity(&disks), labels("again"), "udev wrote the file anew");
    }
}
