//! Processes by OpenTelemetry's semantic conventions (1.44, `process.*`, release candidates), under the names that its
//! compatibility specification gives them for Prometheus.
//!
//! Reads: what the groups have read already. Yields: `process_*` families. Costs: text alone.
//!
//! A resource of the conventions is one process; a scrape has many. What names them here is a label: `groupname`.

use super::clock::TICKS;
use super::group::Group;
use super::member::{INVOLUNTARY, MAJOR, MINOR, READ, SYSTEM, USER, VOLUNTARY, WRITE};
use super::source::{each, each_of};
use super::table::Table;
use crate::contract::{Family, Kind, Origin, Stability};
use crate::exposition::{Encoder, Value};

const fn otel(
    name: &'static str,
    kind: Kind,
    unit: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Family<'static> {
    Family { name, kind, unit, help, labels, origin: Origin::Kernel, stability: Stability::Development }
}

const GROUP: &[&str] = &["groupname"];

/// Its families.
pub const FAMILIES: &[Family<'static>] = &[
    CPU_TIME,
    MEMORY_USAGE,
    MEMORY_VIRTUAL,
    MEMORY_SHARE,
    DISK_IO,
    THREAD_COUNT,
    DESCRIPTORS,
    CONTEXT_SWITCHES,
    PAGING_FAULTS,
    UPTIME,
];

const CPU_TIME: Family<'static> = otel(
    "process_cpu_time_seconds_total",
    Kind::Counter,
    "seconds",
    &["groupname", "cpu_mode"],
    "Time on CPUs of the processes of the group, by mode.",
);
const MEMORY_USAGE: Family<'static> = otel(
    "process_memory_usage_bytes",
    Kind::Gauge,
    "bytes",
    GROUP,
    "Physical memory that the processes of the group hold; shared pages count for each.",
);
const MEMORY_VIRTUAL: Family<'static> = otel(
    "process_memory_virtual_bytes",
    Kind::Gauge,
    "bytes",
    GROUP,
    "Address space that the processes of the group have committed.",
);
const MEMORY_SHARE: Family<'static> = otel(
    "process_memory_proportional_bytes",
    Kind::Gauge,
    "bytes",
    GROUP,
    "Physical memory of the processes of the group, shared pages divided among all that share them (no convention).",
);
const DISK_IO: Family<'static> = otel(
    "process_disk_io_bytes_total",
    Kind::Counter,
    "bytes",
    &["groupname", "disk_io_direction"],
    "Bytes that the processes of the group moved from and to storage.",
);
const THREAD_COUNT: Family<'static> =
    otel("process_thread_count", Kind::Gauge, "", GROUP, "Threads of the processes of the group.");
const DESCRIPTORS: Family<'static> = otel(
    "process_unix_file_descriptor_count",
    Kind::Gauge,
    "",
    GROUP,
    "File descriptors that the processes of the group have open.",
);
const CONTEXT_SWITCHES: Family<'static> = otel(
    "process_context_switches_total",
    Kind::Counter,
    "",
    &["groupname", "process_context_switch_type"],
    "Context switches of the main threads of the processes of the group.",
);
const PAGING_FAULTS: Family<'static> = otel(
    "process_paging_faults_total",
    Kind::Counter,
    "",
    &["groupname", "system_paging_fault_type"],
    "Page faults of the processes of the group.",
);
const UPTIME: Family<'static> = otel(
    "process_uptime_seconds",
    Kind::Gauge,
    "seconds",
    GROUP,
    "Time since the oldest process of the group started.",
);

/// Writes the families of the groups.
pub fn write_groups(table: &Table, smaps: bool, out: &mut Encoder<'_>) {
    let nanos = |group: &Group, at: usize| Value::Nanos(group.sum.counts[at]);
    let count = |group: &Group, at: usize| Value::U64(group.sum.counts[at]);
    each_of(table, &CPU_TIME, ["user", "system"], |group| [nanos(group, USER), nanos(group, SYSTEM)], out);
    each(table, &MEMORY_USAGE, |group| group.sum.resident, out);
    each(table, &MEMORY_VIRTUAL, |group| group.sum.virtual_bytes, out);
    if smaps {
        each(table, &MEMORY_SHARE, |group| group.sum.shares[0], out);
    }
    each_of(table, &DISK_IO, ["read", "write"], |group| [count(group, READ), count(group, WRITE)], out);
    each(table, &THREAD_COUNT, |group| group.sum.threads, out);
    each(table, &DESCRIPTORS, |group| group.sum.descriptors, out);
    let switches = |group: &Group| [count(group, VOLUNTARY), count(group, INVOLUNTARY)];
    each_of(table, &CONTEXT_SWITCHES, ["voluntary", "involuntary"], switches, out);
    each_of(table, &PAGING_FAULTS, ["major", "minor"], |group| [count(group, MAJOR), count(group, MINOR)], out);
    let now = super::clock::since_boot_ns();
    let tick_ns = 1_000_000_000 / TICKS;
    let uptime = |group: &Group| Value::Nanos(group.sum.oldest.map_or(0, |ticks| now.saturating_sub(ticks * tick_ns)));
    each(table, &UPTIME, uptime, out);
}
