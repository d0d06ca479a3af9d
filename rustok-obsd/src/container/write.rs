//! Writes the families of all cgroups, one after the other.
//!
//! Reads: the values of the scrape. Yields: samples. Costs: a pass over the cgroups per family; a copy of the labels per
//! sample.

use super::families as f;
use super::filesystem::{DiskStat, Volume};
use super::group::Group;
use super::io::{Devices, OPERATIONS};
use super::oom::Ghosts;
use crate::contract::Family;
use crate::exposition::{Encoder, Labels, Value, WrittenLabels};

/// What is written.
pub struct Scene<'s, G> {
    /// Cgroups that were read.
    pub groups: G,
    /// Names of devices.
    pub devices: &'s Devices,
    /// File systems of the host.
    pub volumes: &'s [Volume],
    /// Labels of CPUs.
    pub cpus: &'s [String],
    /// Cgroups that are gone.
    pub ghosts: &'s Ghosts,
    /// Seconds since the epoch.
    pub now: u64,
    /// Whether constants are told.
    pub constants: bool,
}

/// Labels of a cgroup and some more, of which empty ones are left out.
#[derive(Clone, Copy)]
struct And<'l, const N: usize>(&'l [u8], [(&'l str, &'l str); N]);

impl<const N: usize> Labels for And<'_, N> {
    fn write(&self, _: &[&str], out: &mut Vec<u8>) {
        out.extend_from_slice(self.0);
        for (name, value) in self.1.iter().filter(|(_, value)| !value.is_empty()) {
            out.push(b',');
            WrittenLabels::append([(*name, *value)], out);
        }
    }
}

impl<'s, G: Iterator<Item = &'s Group> + Clone> Scene<'s, G> {
    /// Writes everything.
    pub fn write(&self, out: &mut Encoder<'_>) {
        self.specs(out);
        self.cpu(out);
        self.memory(out);
        self.volumes(out);
        self.disks(out);
        self.network(out);
        self.kills(out);
        self.pressure(out);
        self.tasks(out);
    }

    fn one<V: Into<Value>>(&self, out: &mut Encoder<'_>, family: &Family<'_>, value: impl Fn(&Group) -> Option<V>) {
        let mut samples = out.family(family);
        for group in self.groups.clone() {
            if let Some(value) = value(group) {
                samples.put(WrittenLabels(&group.labels), value);
            }
        }
    }

    /// What this kernel does not measure is a constant 0, if constants are wanted.
    fn or_zero(&self, value: Option<u64>) -> Option<u64> {
        value.or(self.constants.then_some(0))
    }

    fn specs(&self, out: &mut Encoder<'_>) {
        self.one(out, &f::LAST_SEEN, |_| Some(self.now));
        self.one(out, &f::HEALTH_STATE, |group| Some(group.health()));
        self.one(out, &f::CREATION_TIME_SECONDS, |group| Some(group.created));
        self.one(out, &f::START_TIME_SECONDS, |group| Some(group.started()));
        self.one(out, &f::SPEC_CPU_PERIOD, |group| group.cpu_spec.period);
        self.one(out, &f::SPEC_CPU_QUOTA, |group| group.cpu_spec.quota);
        self.one(out, &f::SPEC_CPU_SHARES, |group| group.cpu_spec.shares);
        let limits = |group: &Group| Some(group.memory_spec).filter(|spec| spec.there);
        self.one(out, &f::SPEC_MEMORY_LIMIT_BYTES, |group| Some(limits(group)?.limit));
        self.one(out, &f::SPEC_MEMORY_RESERVATION_LIMIT_BYTES, |group| Some(limits(group)?.reservation));
        self.one(out, &f::SPEC_MEMORY_SWAP_LIMIT_BYTES, |group| Some(limits(group)?.swap));
    }

    fn cpu(&self, out: &mut Encoder<'_>) {
        let mut samples = out.family(&f::CPU_USAGE_SECONDS);
        for group in self.groups.clone() {
            let each = group.cpu.per_cpu.iter().zip(self.cpus).filter(|(ns, _)| **ns > 0);
            for (ns, cpu) in each {
                samples.put(And(&group.labels, [("cpu", cpu)]), Value::Nanos(*ns));
            }
            if let (true, Some(ns)) = (group.cpu.per_cpu.is_empty(), group.cpu.total_ns) {
                samples.put(And(&group.labels, [("cpu", "total")]), Value::Nanos(ns));
            }
        }
        self.one(out, &f::CPU_USER_SECONDS, |group| group.cpu.user_ns.map(Value::Nanos));
        self.one(out, &f::CPU_SYSTEM_SECONDS, |group| group.cpu.system_ns.map(Value::Nanos));
        self.one(out, &f::CPU_CFS_PERIODS, |group| Some(group.cpu.throttling?.periods));
        self.one(out, &f::CPU_CFS_THROTTLED_PERIODS, |group| Some(group.cpu.throttling?.throttled));
        self.one(out, &f::CPU_CFS_THROTTLED_SECONDS, |group| Some(Value::Nanos(group.cpu.throttling?.throttled_ns)));
        self.one(out, &f::CPU_CFS_BURST_PERIODS, |group| Some(group.cpu.throttling?.bursts));
        self.one(out, &f::CPU_CFS_BURST_SECONDS, |group| Some(Value::Nanos(group.cpu.throttling?.burst_ns)));
    }

    fn memory(&self, out: &mut Encoder<'_>) {
        self.one(out, &f::MEMORY_CACHE, |group| group.memory.cache);
        self.one(out, &f::MEMORY_RSS, |group| group.memory.rss);
        self.one(out, &f::MEMORY_KERNEL_USAGE, |group| group.memory.kernel);
        self.one(out, &f::MEMORY_MAPPED_FILE, |group| group.memory.mapped);
        self.one(out, &f::MEMORY_SWAP, |group| group.memory.swap);
        self.one(out, &f::MEMORY_FAILCNT, |group| group.memory.failures);
        self.one(out, &f::MEMORY_USAGE, |group| group.memory.usage);
        self.one(out, &f::MEMORY_MAX_USAGE_BYTES, |group| group.memory.peak);
        self.one(out, &f::MEMORY_WORKING_SET_BYTES, |group| group.memory.working_set);
        self.one(out, &f::MEMORY_TOTAL_ACTIVE_FILE_BYTES, |group| group.memory.active_file);
        self.one(out, &f::MEMORY_TOTAL_INACTIVE_FILE_BYTES, |group| group.memory.inactive_file);
        self.one(out, &f::MEMORY_FILE_DIRTY_BYTES, |group| group.memory.dirty);
        self.one(out, &f::MEMORY_FILE_WRITEBACK_BYTES, |group| group.memory.writeback);
        self.one(out, &f::MEMORY_WORKINGSET_REFAULT_FILE, |group| group.memory.refault_file);
        self.one(out, &f::MEMORY_WORKINGSET_REFAULT_ANON, |group| group.memory.refault_anon);
        // These are v2's alone; a cgroup without memory has none of them.
        let v2 = |group: &Group, value| if group.memory.usage.is_some() { self.or_zero(value) } else { None };
        self.one(out, &f::MEMORY_EVENTS_HIGH, |group| v2(group, group.memory.events_high));
        self.one(out, &f::MEMORY_EVENTS_MAX, |group| v2(group, group.memory.events_max));
        self.one(out, &f::MEMORY_PGSCAN, |group| v2(group, group.memory.scanned));
        self.one(out, &f::MEMORY_PGSTEAL, |group| v2(group, group.memory.stolen));
        let mut samples = out.family(&f::MEMORY_FAILURES);
        for group in self.groups.clone() {
            let kinds = [("pgfault", group.memory.faults), ("pgmajfault", group.memory.major_faults)];
            for (kind, values) in kinds {
                for (value, scope) in values.iter().flatten().zip(["container", "hierarchy"]) {
                    samples.put(And(&group.labels, [("failure_type", kind), ("scope", scope)]), *value);
                }
            }
        }
    }

    /// File systems are those of the root; a container has that of its layer.
    fn volumes(&self, out: &mut Encoder<'_>) {
        let root = self.groups.clone().find(|group| &*group.id == "/");
        let families = [f::FS_LIMIT_BYTES, f::FS_USAGE_BYTES, f::FS_INODES, f::FS_INODES_FREE];
        for (family, at) in families.iter().zip(0..) {
            let mut samples = out.family(family);
            for (group, volume) in root.iter().flat_map(|root| self.volumes.iter().map(move |volume| (root, volume))) {
                samples.put(And(&group.labels, [("device", &volume.device)]), volume.space[at]);
            }
            for group in self.groups.clone() {
                let Some(used) = group.used else { continue };
                let volume = self.volumes.iter().find(|volume| volume.number == used.device);
                let device = volume.map_or("", |volume| &volume.device);
                let limit = volume.map(|volume| volume.space[0]);
                // Free inodes are the volume's, which is the root's to tell.
                let value = [limit, Some(used.bytes), Some(used.inodes), None][at];
                if let Some(value) = value {
                    samples.put(And(&group.labels, [("device", device)]), value);
                }
            }
        }
    }

    fn disks(&self, out: &mut Encoder<'_>) {
        for (family, at) in [(f::FS_READS_BYTES, 0), (f::FS_WRITES_BYTES, 1)] {
            let mut samples = out.family(&family);
            for group in self.groups.clone() {
                for disk in &group.disks {
                    if let Some(bytes) = disk.bytes[at] {
                        samples.put(And(&group.labels, [("device", self.devices.name(disk.number))]), bytes);
                    }
                }
            }
        }
        for (family, at, field) in [(f::FS_READS, 0, 0), (f::FS_WRITES, 1, 4)] {
            let mut samples = out.family(&family);
            for group in self.groups.clone() {
                for disk in &group.disks {
                    if let Some(requests) = disk.requests[at] {
                        samples.put(And(&group.labels, [("device", self.devices.name(disk.number))]), requests);
                    }
                }
                for (volume, stat) in self.volumes_of(group) {
                    // What the cgroup's own file told is not told twice.
                    if !group.disks.iter().any(|disk| self.devices.name(disk.number) == volume.device) {
                        samples.put(And(&group.labels, [("device", &volume.device)]), stat[field]);
                    }
                }
            }
        }
        let ms = |ms: u64| Value::Nanos(ms.saturating_mul(1_000_000));
        let count = Value::U64;
        type Unit<'u> = &'u dyn Fn(u64) -> Value;
        let fields: [(&Family<'_>, usize, Unit<'_>); 9] = [
            (&f::FS_READS_MERGED, 1, &count),
            (&f::FS_SECTOR_READS, 2, &count),
            (&f::FS_READ_SECONDS, 3, &ms),
            (&f::FS_WRITES_MERGED, 5, &count),
            (&f::FS_SECTOR_WRITES, 6, &count),
            (&f::FS_WRITE_SECONDS, 7, &ms),
            (&f::FS_IO_CURRENT, 8, &count),
            (&f::FS_IO_TIME_SECONDS, 9, &ms),
            (&f::FS_IO_TIME_WEIGHTED_SECONDS, 10, &ms),
        ];
        for (family, field, unit) in fields {
            let mut samples = out.family(family);
            for group in self.groups.clone().filter(|group| &*group.id == "/") {
                for (volume, stat) in self.volumes_of(group) {
                    samples.put(And(&group.labels, [("device", &volume.device)]), unit(stat[field]));
                }
            }
        }
        let costs = [
            f::FS_IO_COST_USAGE_SECONDS,
            f::FS_IO_COST_WAIT_SECONDS,
            f::FS_IO_COST_INDEBT_SECONDS,
            f::FS_IO_COST_INDELAY_SECONDS,
        ];
        for (family, at) in costs.iter().zip(0..) {
            let mut samples = out.family(family);
            for group in self.groups.clone() {
                for disk in &group.disks {
                    if let Some(us) = disk.cost[at] {
                        let labels = And(&group.labels, [("device", self.devices.name(disk.number))]);
                        samples.put(labels, Value::Nanos(us.saturating_mul(1000)));
                    }
                }
            }
        }
        let mut samples = out.family(&f::BLKIO_DEVICE_USAGE);
        let (mut major, mut minor) = (itoa::Buffer::new(), itoa::Buffer::new());
        for group in self.groups.clone() {
            for disk in &group.disks {
                let device = self.devices.name(disk.number);
                let (major, minor) = (major.format(disk.number.0), minor.format(disk.number.1));
                for (operation, bytes) in OPERATIONS.iter().zip(disk.bytes) {
                    if let Some(bytes) = bytes {
                        let labels = [("device", device), ("major", major), ("minor", minor), ("operation", operation)];
                        samples.put(And(&group.labels, labels), bytes);
                    }
                }
            }
        }
    }

    fn volumes_of(&self, group: &Group) -> impl Iterator<Item = (&'s Volume, &'s DiskStat)> {
        let volumes = if &*group.id == "/" { self.volumes } else { &[] };
        volumes.iter().filter_map(|volume| Some((volume, volume.stat.as_ref()?)))
    }

    fn network(&self, out: &mut Encoder<'_>) {
        let families = [
            f::NETWORK_RECEIVE_BYTES,
            f::NETWORK_RECEIVE_PACKETS,
            f::NETWORK_RECEIVE_PACKETS_DROPPED,
            f::NETWORK_RECEIVE_ERRORS,
            f::NETWORK_TRANSMIT_BYTES,
            f::NETWORK_TRANSMIT_PACKETS,
            f::NETWORK_TRANSMIT_PACKETS_DROPPED,
            f::NETWORK_TRANSMIT_ERRORS,
        ];
        for (family, at) in families.iter().zip(0..) {
            let mut samples = out.family(family);
            for group in self.groups.clone() {
                for interface in &group.interfaces {
                    let labels = And(&group.labels, [("interface", &interface.name)]);
                    samples.put(labels, interface.counters[at]);
                }
            }
        }
    }

    fn kills(&self, out: &mut Encoder<'_>) {
        let mut samples = out.family(&f::OOM_EVENTS);
        for group in self.groups.clone() {
            samples.put(WrittenLabels(&group.labels), group.kills.total());
        }
        for (labels, kills) in self.ghosts.killed() {
            samples.put(WrittenLabels(labels), kills);
        }
    }

    fn pressure(&self, out: &mut Encoder<'_>) {
        let families = [
            [f::PRESSURE_CPU_WAITING_SECONDS, f::PRESSURE_CPU_STALLED_SECONDS],
            [f::PRESSURE_MEMORY_WAITING_SECONDS, f::PRESSURE_MEMORY_STALLED_SECONDS],
            [f::PRESSURE_IO_WAITING_SECONDS, f::PRESSURE_IO_STALLED_SECONDS],
        ];
        let seconds = |us: Option<u64>| self.or_zero(us).map(|us| Value::Nanos(us.saturating_mul(1000)));
        for ([waiting, stalled], at) in families.iter().zip(0..) {
            self.one(out, waiting, |group| seconds(group.pressure[at].waiting));
            self.one(out, stalled, |group| seconds(group.pressure[at].stalled));
        }
    }

    /// What cAdvisor does not measure unless told to, and tells as 0.
    fn tasks(&self, out: &mut Encoder<'_>) {
        if !self.constants {
            return;
        }
        self.one(out, &f::CPU_LOAD_AVERAGE_10S, |_| Some(0u64));
        self.one(out, &f::CPU_LOAD_D_AVERAGE_10S, |_| Some(0u64));
        let mut samples = out.family(&f::TASKS_STATE);
        for group in self.groups.clone() {
            for state in ["iowaiting", "running", "sleeping", "stopped", "uninterruptible"] {
                samples.put(And(&group.labels, [("state", state)]), 0u64);
            }
        }
    }
}
