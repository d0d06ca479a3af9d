//! `[collector]`: which collectors of the host are on, and their options, by the meaning of node_exporter's flags.
//!
//! Reads: nothing. Yields: [`Collectors`] and its keys. Costs: nothing.
//!
//! An option's flag is node_exporter's own (`--collector.filesystem.mount-points-exclude`); `--collector.NAME` and
//! `--no-collector.NAME` switch a collector. Include and exclude exclude each other, as there.

use super::Slot;
use super::keys::{Key, key};
use regex::Regex;
use std::sync::OnceLock;
use std::time::Duration;

/// A regular expression that was checked; compiled when first used.
#[derive(Clone, Debug, Default)]
pub struct Pattern {
    text: String,
    regex: OnceLock<Option<Regex>>,
}

impl Pattern {
    /// Checks a text; empty is none.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        match Regex::new(text) {
            Ok(regex) => Ok(Self { text: text.to_owned(), regex: OnceLock::from(Some(regex)) }),
            Err(error) => {
                let reason = error.to_string();
                let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
                Err(format!("`{text}` is no regular expression ({reason}); allowed: syntax of the crate `regex`"))
            }
        }
    }

    /// One of the defaults below.
    fn built_in(text: &str) -> Self {
        Self { text: text.to_owned(), regex: OnceLock::new() }
    }

    /// Its text; empty for none.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether there is one.
    #[must_use]
    pub fn is_set(&self) -> bool {
        !self.text.is_empty()
    }

    /// Whether it matches somewhere in `text`; none matches nothing.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        self.regex().is_some_and(|regex| regex.is_match(text))
    }

    /// The expression, for its captures.
    #[must_use]
    pub fn regex(&self) -> Option<&Regex> {
        if self.is_set() { self.regex.get_or_init(|| Regex::new(&self.text).ok()).as_ref() } else { None }
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

/// What of a kind is wanted: all, those that `include` matches, or all but those that `exclude` matches.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    /// Wanted; none is all.
    pub include: Pattern,
    /// Unwanted.
    pub exclude: Pattern,
}

impl Filter {
    /// Whether `name` is wanted.
    #[must_use]
    pub fn wants(&self, name: &str) -> bool {
        !self.exclude.matches(name) && (!self.include.is_set() || self.include.matches(name))
    }
}

macro_rules! options {
    ($($(#[doc = $doc:literal])+ $field:ident: $kind:ty = $default:expr, $path:literal, $flag:literal, $slot:expr;)+) => {
        /// Options of the collectors, flat, by the names of node_exporter's flags.
        #[derive(Clone, Debug, PartialEq)]
        #[allow(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
        pub struct Collectors {
            $($(#[doc = $doc])+ pub $field: $kind,)+
        }

        impl Default for Collectors {
            fn default() -> Self {
                Self { $($field: $default,)+ }
            }
        }

        /// The keys of `[collector]`.
        pub(super) static KEYS: &[Key] = &[
            $(key(
                concat!("collector.", $path),
                concat!("collector.", $flag),
                &[],
                |c| {
                    let slot: fn(&mut $kind) -> Slot<'_> = $slot;
                    slot(&mut c.collector.$field)
                },
                concat!($($doc,)+),
            ),)+
        ];
    };
}

options! {
    #[doc = "Collectors that are on besides the defaults; `--collector.NAME` adds one."]
    enable: Vec<String> = Vec::new(), "enable", "enable", |slot| Slot::Names(slot);
    #[doc = "Collectors that are off; `--no-collector.NAME` adds one. It wins over `enable`."]
    disable: Vec<String> = Vec::new(), "disable", "disable", |slot| Slot::Names(slot);
    #[doc = "Start from no collector instead of the defaults."]
    disable_defaults: bool = false, "disable_defaults", "disable-defaults", |slot| Slot::Bool(slot);
    #[doc = "Devices whose entries are counted."]
    arp_device_include: Pattern = Pattern::default(), "arp.device_include", "arp.device-include", |slot| Slot::Pattern(slot);
    #[doc = "Devices whose entries are not counted."]
    arp_device_exclude: Pattern = Pattern::default(), "arp.device_exclude", "arp.device-exclude", |slot| Slot::Pattern(slot);
    #[doc = "Ask the kernel by netlink instead of reading /proc/net/arp."]
    arp_netlink: bool = true, "arp.netlink", "arp.netlink", |slot| Slot::Bool(slot);
    #[doc = "Read the expensive priority statistics."]
    bcache_priority_stats: bool = false, "bcache.priority_stats", "bcache.priorityStats", |slot| Slot::Bool(slot);
    #[doc = "Times of guests, node_cpu_guest_seconds_total."]
    cpu_guest: bool = true, "cpu.guest", "cpu.guest", |slot| Slot::Bool(slot);
    #[doc = "node_cpu_info, with model, cache and microcode."]
    cpu_info: bool = false, "cpu.info", "cpu.info", |slot| Slot::Bool(slot);
    #[doc = "Flags of /proc/cpuinfo to tell; needs `cpu.info`."]
    cpu_flags_include: Pattern = Pattern::default(), "cpu.info_flags_include", "cpu.info.flags-include", |slot| Slot::Pattern(slot);
    #[doc = "Bugs of /proc/cpuinfo to tell; needs `cpu.info`."]
    cpu_bugs_include: Pattern = Pattern::default(), "cpu.info_bugs_include", "cpu.info.bugs-include", |slot| Slot::Pattern(slot);
    #[doc = "Block devices that are left out."]
    diskstats_device_exclude: Pattern = Pattern::built_in(DISKS), "diskstats.device_exclude", "diskstats.device-exclude", |slot| Slot::Pattern(slot);
    #[doc = "Block devices that are told; instead of the exclusion."]
    diskstats_device_include: Pattern = Pattern::default(), "diskstats.device_include", "diskstats.device-include", |slot| Slot::Pattern(slot);
    #[doc = "Mount points that are left out."]
    filesystem_mount_points_exclude: Pattern = Pattern::built_in(MOUNTS), "filesystem.mount_points_exclude", "filesystem.mount-points-exclude", |slot| Slot::Pattern(slot);
    #[doc = "Mount points that are told; instead of the exclusion."]
    filesystem_mount_points_include: Pattern = Pattern::default(), "filesystem.mount_points_include", "filesystem.mount-points-include", |slot| Slot::Pattern(slot);
    #[doc = "Types of file systems that are left out."]
    filesystem_fs_types_exclude: Pattern = Pattern::built_in(FS_TYPES), "filesystem.fs_types_exclude", "filesystem.fs-types-exclude", |slot| Slot::Pattern(slot);
    #[doc = "Types of file systems that are told; instead of the exclusion."]
    filesystem_fs_types_include: Pattern = Pattern::default(), "filesystem.fs_types_include", "filesystem.fs-types-include", |slot| Slot::Pattern(slot);
    #[doc = "A mount that does not answer for so long is told as stuck; the scrape itself waits no longer than its time-out."]
    filesystem_mount_timeout: Duration = Duration::from_secs(5), "filesystem.mount_timeout", "filesystem.mount-timeout", |slot| Slot::Duration(slot, Duration::from_millis(10), Duration::from_secs(3600));
    #[doc = "Chips that are told."]
    hwmon_chip_include: Pattern = Pattern::default(), "hwmon.chip_include", "hwmon.chip-include", |slot| Slot::Pattern(slot);
    #[doc = "Chips that are left out."]
    hwmon_chip_exclude: Pattern = Pattern::default(), "hwmon.chip_exclude", "hwmon.chip-exclude", |slot| Slot::Pattern(slot);
    #[doc = "Sensors (`chip;sensor`) that are told."]
    hwmon_sensor_include: Pattern = Pattern::default(), "hwmon.sensor_include", "hwmon.sensor-include", |slot| Slot::Pattern(slot);
    #[doc = "Sensors (`chip;sensor`) that are left out."]
    hwmon_sensor_exclude: Pattern = Pattern::default(), "hwmon.sensor_exclude", "hwmon.sensor-exclude", |slot| Slot::Pattern(slot);
    #[doc = "Interrupts that are told, by `type;info;devices` as node_exporter joins them."]
    interrupts_name_include: Pattern = Pattern::default(), "interrupts.name_include", "interrupts.name-include", |slot| Slot::Pattern(slot);
    #[doc = "Interrupts that are left out."]
    interrupts_name_exclude: Pattern = Pattern::default(), "interrupts.name_exclude", "interrupts.name-exclude", |slot| Slot::Pattern(slot);
    #[doc = "Tell interrupts that never came."]
    interrupts_include_zeros: bool = true, "interrupts.include_zeros", "interrupts.include-zeros", |slot| Slot::Bool(slot);
    #[doc = "Labels of the backends."]
    ipvs_backend_labels: Vec<String> = ["local_address","local_port","remote_address","remote_port","proto","local_mark"].map(Into::into).to_vec(), "ipvs.backend_labels", "ipvs.backend-labels", |slot| Slot::Names(slot);
    #[doc = "Interfaces that are left out."]
    netclass_ignored_devices: Pattern = Pattern::built_in("^$"), "netclass.ignored_devices", "netclass.ignored-devices", |slot| Slot::Pattern(slot);
    #[doc = "Leave node_network_speed_bytes out where the speed is unknown, instead of a negative one."]
    netclass_ignore_invalid_speed: bool = false, "netclass.ignore_invalid_speed", "netclass.ignore-invalid-speed", |slot| Slot::Bool(slot);
    #[doc = "Ask the kernel by netlink instead of reading 30 files per interface; what netlink does not tell is still read."]
    netclass_netlink: bool = true, "netclass.netlink", "netclass.netlink", |slot| Slot::Bool(slot);
    #[doc = "Interfaces that are told."]
    netdev_device_include: Pattern = Pattern::default(), "netdev.device_include", "netdev.device-include", |slot| Slot::Pattern(slot);
    #[doc = "Interfaces that are left out."]
    netdev_device_exclude: Pattern = Pattern::default(), "netdev.device_exclude", "netdev.device-exclude", |slot| Slot::Pattern(slot);
    #[doc = "Ask the kernel by netlink instead of reading /proc/net/dev."]
    netdev_netlink: bool = true, "netdev.netlink", "netdev.netlink", |slot| Slot::Bool(slot);
    #[doc = "Fields of /proc/net/{netstat,snmp,snmp6} that are told."]
    netstat_fields: Pattern = Pattern::built_in(NETSTAT), "netstat.fields", "netstat.fields", |slot| Slot::Pattern(slot);
    #[doc = "Power supplies that are left out."]
    powersupply_ignored_supplies: Pattern = Pattern::built_in("^$"), "powersupply.ignored_supplies", "powersupply.ignored-supplies", |slot| Slot::Pattern(slot);
    #[doc = "One family with the zone as a label, instead of one per zone."]
    rapl_enable_zone_label: bool = false, "rapl.enable_zone_label", "rapl.enable-zone-label", |slot| Slot::Bool(slot);
    #[doc = "Slabs that are told."]
    slabinfo_slabs_include: Pattern = Pattern::default(), "slabinfo.slabs_include", "slabinfo.slabs-include", |slot| Slot::Pattern(slot);
    #[doc = "Slabs that are left out."]
    slabinfo_slabs_exclude: Pattern = Pattern::default(), "slabinfo.slabs_exclude", "slabinfo.slabs-exclude", |slot| Slot::Pattern(slot);
    #[doc = "Soft interrupts by vector."]
    stat_softirq: bool = false, "stat.softirq", "stat.softirq", |slot| Slot::Bool(slot);
    #[doc = "Settings of the kernel to tell as numbers; `fs.file-nr:total,current,max` names those of a setting with several."]
    sysctl_include: Vec<String> = Vec::new(), "sysctl.include", "sysctl.include", |slot| Slot::Names(slot);
    #[doc = "Settings of the kernel to tell as texts."]
    sysctl_include_info: Vec<String> = Vec::new(), "sysctl.include_info", "sysctl.include-info", |slot| Slot::Names(slot);
    #[doc = "Units that are told; the whole name must match."]
    systemd_unit_include: Pattern = Pattern::built_in(".+"), "systemd.unit_include", "systemd.unit-include", |slot| Slot::Pattern(slot);
    #[doc = "Units that are left out; the whole name must match."]
    systemd_unit_exclude: Pattern = Pattern::built_in(r".+\.(automount|device|mount|scope|slice)"), "systemd.unit_exclude", "systemd.unit-exclude", |slot| Slot::Pattern(slot);
    #[doc = "Use the private socket of systemd instead of the system bus."]
    systemd_private: bool = false, "systemd.private", "systemd.private", |slot| Slot::Bool(slot);
    #[doc = "Tasks of each unit."]
    systemd_task_metrics: bool = false, "systemd.enable_task_metrics", "systemd.enable-task-metrics", |slot| Slot::Bool(slot);
    #[doc = "Restarts of each service."]
    systemd_restarts_metrics: bool = false, "systemd.enable_restarts_metrics", "systemd.enable-restarts-metrics", |slot| Slot::Bool(slot);
    #[doc = "Start time of each unit."]
    systemd_start_time_metrics: bool = false, "systemd.enable_start_time_metrics", "systemd.enable-start-time-metrics", |slot| Slot::Bool(slot);
    #[doc = "Tapes that are left out."]
    tapestats_ignored_devices: Pattern = Pattern::built_in("^$"), "tapestats.ignored_devices", "tapestats.ignored-devices", |slot| Slot::Pattern(slot);
    #[doc = "Folders, `*` allowed, whose files `*.prom` are served."]
    textfile_directory: Vec<String> = Vec::new(), "textfile.directory", "textfile.directory", |slot| Slot::Names(slot);
    #[doc = "Fields of /proc/vmstat that are told."]
    vmstat_fields: Pattern = Pattern::built_in(VMSTAT), "vmstat.fields", "vmstat.fields", |slot| Slot::Pattern(slot);
}

const MOUNTS: &str = r"^/(dev|proc|run/credentials/.+|sys|var/lib/docker/.+|var/lib/containers/storage/.+)($|/)";
const FS_TYPES: &str = "^(autofs|binfmt_misc|bpf|cgroup2?|configfs|debugfs|devpts|devtmpfs|fusectl|hugetlbfs|iso9660|mqueue|nsfs|overlay|proc|procfs|pstore|rpc_pipefs|securityfs|selinuxfs|squashfs|erofs|sysfs|tracefs)$";
const DISKS: &str = r"^(z?ram|loop|fd|(h|s|v|xv)d[a-z]|nvme\d+n\d+p)\d+$";
const NETSTAT: &str = "^(.*_(InErrors|InErrs)|Ip_Forwarding|Ip(6|Ext)_(InOctets|OutOctets)|Icmp6?_(InMsgs|OutMsgs)|TcpExt_(Listen.*|Syncookies.*|TCPSynRetrans|TCPTimeouts|TCPOFOQueue|TCPRcvQDrop)|Tcp_(ActiveOpens|InSegs|OutSegs|OutRsts|PassiveOpens|RetransSegs|CurrEstab)|Udp6?_(InDatagrams|OutDatagrams|NoPorts|RcvbufErrors|SndbufErrors))$";
const VMSTAT: &str = "^(oom_kill|pgpg|pswp|pg.*fault).*";

impl Collectors {
    /// What is wanted of a kind. Where something is to be included the default exclusion does not count.
    #[must_use]
    pub fn filter(include: &Pattern, exclude: &Pattern) -> Filter {
        Filter {
            include: include.clone(),
            exclude: if include.is_set() { Pattern::default() } else { exclude.clone() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_patterns_and_mean_what_node_exporter_has() {
        let options = Collectors::default();
        for text in [MOUNTS, FS_TYPES, DISKS, NETSTAT, VMSTAT] {
            Pattern::parse(text).unwrap();
        }
        assert!(options.filesystem_mount_points_exclude.matches("/var/lib/docker/overlay2/x"));
        assert!(!options.filesystem_mount_points_exclude.matches("/data/sys"));
        assert!(
            options.diskstats_device_exclude.matches("nvme0n1p2")
                && !options.diskstats_device_exclude.matches("nvme0n1")
        );
        assert!(options.netstat_fields.matches("TcpExt_ListenDrops") && !options.netstat_fields.matches("Tcp_MaxConn"));
        let error = Pattern::parse("a(").unwrap_err();
        assert!(error.contains("`a(`") && error.contains("unclosed group"), "{error}");
    }

    #[test]
    fn an_include_takes_the_place_of_the_exclusion() {
        let pattern = |text: &str| Pattern::parse(text).unwrap();
        let filter = Collectors::filter(&pattern("^sda"), &pattern("^sda1$"));
        assert!(filter.wants("sda1") && !filter.wants("sdb"));
        let filter = Collectors::filter(&Pattern::default(), &pattern("^sda1$"));
        assert!(!filter.wants("sda1") && filter.wants("sdb"));
    }
}
