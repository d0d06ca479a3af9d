//! Families by cAdvisor's names, types, HELP texts and labels (0.60), and the few of our own.
//!
//! Reads: nothing. Yields: constants. Costs: nothing.
//!
//! `container`, `namespace` and `pod` are the kubelet's labels, which cAdvisor by itself does not have.

use crate::contract::own::own;
use crate::contract::{Family, Kind, Origin, Stability};

const fn family(
    name: &'static str,
    kind: Kind,
    labels: &'static [&'static str],
    help: &'static str,
) -> Family<'static> {
    Family { name, kind, unit: "", help, labels, origin: Origin::Kernel, stability: Stability::Cadvisor }
}

const BASE: &[&str] = &["container", "id", "image", "name", "namespace", "pod"];
const CPU: &[&str] = &["container", "id", "image", "name", "namespace", "pod", "cpu"];
const STATE: &[&str] = &["container", "id", "image", "name", "namespace", "pod", "state"];
const FAILURE: &[&str] = &["container", "id", "image", "name", "namespace", "pod", "failure_type", "scope"];
const DEVICE: &[&str] = &["container", "id", "image", "name", "namespace", "pod", "device"];
const INTERFACE: &[&str] = &["container", "id", "image", "name", "namespace", "pod", "interface"];
const BLKIO: &[&str] =
    &["container", "id", "image", "name", "namespace", "pod", "device", "major", "minor", "operation"];
const IDS: &[&str] = &["boot_id", "machine_id", "system_uuid"];

/// `cadvisor_version_info`.
pub const VERSION_INFO: Family<'static> = family(
    "cadvisor_version_info",
    Kind::Gauge,
    &["cadvisorRevision", "cadvisorVersion", "dockerVersion", "kernelVersion", "osVersion"],
    "A metric with a constant '1' value labeled by kernel version, OS version, docker version, cadvisor version & cadvisor revision.",
);
/// `container_blkio_device_usage_total`.
pub const BLKIO_DEVICE_USAGE: Family<'static> =
    family("container_blkio_device_usage_total", Kind::Counter, BLKIO, "Blkio Device bytes usage");
/// `container_cpu_cfs_burst_periods_total`.
pub const CPU_CFS_BURST_PERIODS: Family<'static> =
    family("container_cpu_cfs_burst_periods_total", Kind::Counter, BASE, "Number of periods when burst occurs.");
/// `container_cpu_cfs_burst_seconds_total`.
pub const CPU_CFS_BURST_SECONDS: Family<'static> = family(
    "container_cpu_cfs_burst_seconds_total",
    Kind::Counter,
    BASE,
    "Total time duration the container has been bursted.",
);
/// `container_cpu_cfs_periods_total`.
pub const CPU_CFS_PERIODS: Family<'static> =
    family("container_cpu_cfs_periods_total", Kind::Counter, BASE, "Number of elapsed enforcement period intervals.");
/// `container_cpu_cfs_throttled_periods_total`.
pub const CPU_CFS_THROTTLED_PERIODS: Family<'static> =
    family("container_cpu_cfs_throttled_periods_total", Kind::Counter, BASE, "Number of throttled period intervals.");
/// `container_cpu_cfs_throttled_seconds_total`.
pub const CPU_CFS_THROTTLED_SECONDS: Family<'static> = family(
    "container_cpu_cfs_throttled_seconds_total",
    Kind::Counter,
    BASE,
    "Total time duration the container has been throttled.",
);
/// `container_cpu_load_average_10s`.
pub const CPU_LOAD_AVERAGE_10S: Family<'static> = family(
    "container_cpu_load_average_10s",
    Kind::Gauge,
    BASE,
    "Value of container cpu load average over the last 10 seconds.",
);
/// `container_cpu_load_d_average_10s`.
pub const CPU_LOAD_D_AVERAGE_10S: Family<'static> = family(
    "container_cpu_load_d_average_10s",
    Kind::Gauge,
    BASE,
    "Value of container cpu load.d average over the last 10 seconds.",
);
/// `container_cpu_system_seconds_total`.
pub const CPU_SYSTEM_SECONDS: Family<'static> = family(
    "container_cpu_system_seconds_total",
    Kind::Counter,
    BASE,
    "Cumulative system cpu time consumed in seconds.",
);
/// `container_cpu_usage_seconds_total`.
pub const CPU_USAGE_SECONDS: Family<'static> =
    family("container_cpu_usage_seconds_total", Kind::Counter, CPU, "Cumulative cpu time consumed in seconds.");
/// `container_cpu_user_seconds_total`.
pub const CPU_USER_SECONDS: Family<'static> =
    family("container_cpu_user_seconds_total", Kind::Counter, BASE, "Cumulative user cpu time consumed in seconds.");
/// `container_creation_time_seconds`.
pub const CREATION_TIME_SECONDS: Family<'static> = family(
    "container_creation_time_seconds",
    Kind::Gauge,
    BASE,
    "Container creation time since unix epoch in seconds.",
);
/// `container_fs_inodes_free`.
pub const FS_INODES_FREE: Family<'static> =
    family("container_fs_inodes_free", Kind::Gauge, DEVICE, "Number of available Inodes");
/// `container_fs_inodes_total`.
pub const FS_INODES: Family<'static> = family("container_fs_inodes_total", Kind::Gauge, DEVICE, "Number of Inodes");
/// `container_fs_io_cost_indebt_seconds_total`.
pub const FS_IO_COST_INDEBT_SECONDS: Family<'static> =
    family("container_fs_io_cost_indebt_seconds_total", Kind::Counter, DEVICE, "Cumulative IOCost debt in seconds");
/// `container_fs_io_cost_indelay_seconds_total`.
pub const FS_IO_COST_INDELAY_SECONDS: Family<'static> =
    family("container_fs_io_cost_indelay_seconds_total", Kind::Counter, DEVICE, "Cumulative IOCost delay in seconds");
/// `container_fs_io_cost_usage_seconds_total`.
pub const FS_IO_COST_USAGE_SECONDS: Family<'static> =
    family("container_fs_io_cost_usage_seconds_total", Kind::Counter, DEVICE, "Cumulative IOCost usage in seconds");
/// `container_fs_io_cost_wait_seconds_total`.
pub const FS_IO_COST_WAIT_SECONDS: Family<'static> =
    family("container_fs_io_cost_wait_seconds_total", Kind::Counter, DEVICE, "Cumulative IOCost wait in seconds");
/// `container_fs_io_current`.
pub const FS_IO_CURRENT: Family<'static> =
    family("container_fs_io_current", Kind::Gauge, DEVICE, "Number of I/Os currently in progress");
/// `container_fs_io_time_seconds_total`.
pub const FS_IO_TIME_SECONDS: Family<'static> =
    family("container_fs_io_time_seconds_total", Kind::Counter, DEVICE, "Cumulative count of seconds spent doing I/Os");
/// `container_fs_io_time_weighted_seconds_total`.
pub const FS_IO_TIME_WEIGHTED_SECONDS: Family<'static> = family(
    "container_fs_io_time_weighted_seconds_total",
    Kind::Counter,
    DEVICE,
    "Cumulative weighted I/O time in seconds",
);
/// `container_fs_limit_bytes`.
pub const FS_LIMIT_BYTES: Family<'static> = family(
    "container_fs_limit_bytes",
    Kind::Gauge,
    DEVICE,
    "Number of bytes that can be consumed by the container on this filesystem.",
);
/// `container_fs_read_seconds_total`.
pub const FS_READ_SECONDS: Family<'static> =
    family("container_fs_read_seconds_total", Kind::Counter, DEVICE, "Cumulative count of seconds spent reading");
/// `container_fs_reads_bytes_total`.
pub const FS_READS_BYTES: Family<'static> =
    family("container_fs_reads_bytes_total", Kind::Counter, DEVICE, "Cumulative count of bytes read");
/// `container_fs_reads_merged_total`.
pub const FS_READS_MERGED: Family<'static> =
    family("container_fs_reads_merged_total", Kind::Counter, DEVICE, "Cumulative count of reads merged");
/// `container_fs_reads_total`.
pub const FS_READS: Family<'static> =
    family("container_fs_reads_total", Kind::Counter, DEVICE, "Cumulative count of reads completed");
/// `container_fs_sector_reads_total`.
pub const FS_SECTOR_READS: Family<'static> =
    family("container_fs_sector_reads_total", Kind::Counter, DEVICE, "Cumulative count of sector reads completed");
/// `container_fs_sector_writes_total`.
pub const FS_SECTOR_WRITES: Family<'static> =
    family("container_fs_sector_writes_total", Kind::Counter, DEVICE, "Cumulative count of sector writes completed");
/// `container_fs_usage_bytes`.
pub const FS_USAGE_BYTES: Family<'static> = family(
    "container_fs_usage_bytes",
    Kind::Gauge,
    DEVICE,
    "Number of bytes that are consumed by the container on this filesystem.",
);
/// `container_fs_write_seconds_total`.
pub const FS_WRITE_SECONDS: Family<'static> =
    family("container_fs_write_seconds_total", Kind::Counter, DEVICE, "Cumulative count of seconds spent writing");
/// `container_fs_writes_bytes_total`.
pub const FS_WRITES_BYTES: Family<'static> =
    family("container_fs_writes_bytes_total", Kind::Counter, DEVICE, "Cumulative count of bytes written");
/// `container_fs_writes_merged_total`.
pub const FS_WRITES_MERGED: Family<'static> =
    family("container_fs_writes_merged_total", Kind::Counter, DEVICE, "Cumulative count of writes merged");
/// `container_fs_writes_total`.
pub const FS_WRITES: Family<'static> =
    family("container_fs_writes_total", Kind::Counter, DEVICE, "Cumulative count of writes completed");
/// `container_health_state`.
pub const HEALTH_STATE: Family<'static> =
    family("container_health_state", Kind::Gauge, BASE, "The result of the container's health check");
/// `container_last_seen`.
pub const LAST_SEEN: Family<'static> =
    family("container_last_seen", Kind::Gauge, BASE, "Last time a container was seen by the exporter");
/// `container_memory_cache`.
pub const MEMORY_CACHE: Family<'static> =
    family("container_memory_cache", Kind::Gauge, BASE, "Number of bytes of page cache memory.");
/// `container_memory_events_high_total`.
pub const MEMORY_EVENTS_HIGH: Family<'static> = family(
    "container_memory_events_high_total",
    Kind::Counter,
    BASE,
    "Cumulative count of memory.high throttle events for the container",
);
/// `container_memory_events_max_total`.
pub const MEMORY_EVENTS_MAX: Family<'static> = family(
    "container_memory_events_max_total",
    Kind::Counter,
    BASE,
    "Cumulative count of memory.max limit hit events for the container",
);
/// `container_memory_failcnt`.
pub const MEMORY_FAILCNT: Family<'static> =
    family("container_memory_failcnt", Kind::Counter, BASE, "Number of memory usage hits limits");
/// `container_memory_failures_total`.
pub const MEMORY_FAILURES: Family<'static> = family(
    "container_memory_failures_total",
    Kind::Counter,
    FAILURE,
    "Cumulative count of memory allocation failures.",
);
/// `container_memory_file_dirty_bytes`.
pub const MEMORY_FILE_DIRTY_BYTES: Family<'static> = family(
    "container_memory_file_dirty_bytes",
    Kind::Gauge,
    BASE,
    "Number of bytes of file cache that has been modified but not yet written back to disk.",
);
/// `container_memory_file_writeback_bytes`.
pub const MEMORY_FILE_WRITEBACK_BYTES: Family<'static> = family(
    "container_memory_file_writeback_bytes",
    Kind::Gauge,
    BASE,
    "Number of bytes of file cache that is currently being written back to disk.",
);
/// `container_memory_kernel_usage`.
pub const MEMORY_KERNEL_USAGE: Family<'static> =
    family("container_memory_kernel_usage", Kind::Gauge, BASE, "Size of kernel memory allocated in bytes.");
/// `container_memory_mapped_file`.
pub const MEMORY_MAPPED_FILE: Family<'static> =
    family("container_memory_mapped_file", Kind::Gauge, BASE, "Size of memory mapped files in bytes.");
/// `container_memory_max_usage_bytes`.
pub const MEMORY_MAX_USAGE_BYTES: Family<'static> =
    family("container_memory_max_usage_bytes", Kind::Gauge, BASE, "Maximum memory usage recorded in bytes");
/// `container_memory_pgscan_total`.
pub const MEMORY_PGSCAN: Family<'static> = family(
    "container_memory_pgscan_total",
    Kind::Counter,
    BASE,
    "Cumulative number of pages scanned by the page reclaim algorithm.",
);
/// `container_memory_pgsteal_total`.
pub const MEMORY_PGSTEAL: Family<'static> = family(
    "container_memory_pgsteal_total",
    Kind::Counter,
    BASE,
    "Cumulative number of pages reclaimed by the page reclaim algorithm.",
);
/// `container_memory_rss`.
pub const MEMORY_RSS: Family<'static> = family("container_memory_rss", Kind::Gauge, BASE, "Size of RSS in bytes.");
/// `container_memory_swap`.
pub const MEMORY_SWAP: Family<'static> =
    family("container_memory_swap", Kind::Gauge, BASE, "Container swap usage in bytes.");
/// `container_memory_total_active_file_bytes`.
pub const MEMORY_TOTAL_ACTIVE_FILE_BYTES: Family<'static> =
    family("container_memory_total_active_file_bytes", Kind::Gauge, BASE, "Current total active file in bytes.");
/// `container_memory_total_inactive_file_bytes`.
pub const MEMORY_TOTAL_INACTIVE_FILE_BYTES: Family<'static> =
    family("container_memory_total_inactive_file_bytes", Kind::Gauge, BASE, "Current total inactive file in bytes.");
/// `container_memory_usage_bytes`.
pub const MEMORY_USAGE: Family<'static> = family(
    "container_memory_usage_bytes",
    Kind::Gauge,
    BASE,
    "Current memory usage in bytes, including all memory regardless of when it was accessed",
);
/// `container_memory_working_set_bytes`.
pub const MEMORY_WORKING_SET_BYTES: Family<'static> =
    family("container_memory_working_set_bytes", Kind::Gauge, BASE, "Current working set in bytes.");
/// `container_memory_workingset_refault_anon_total`.
pub const MEMORY_WORKINGSET_REFAULT_ANON: Family<'static> = family(
    "container_memory_workingset_refault_anon_total",
    Kind::Counter,
    BASE,
    "Cumulative number of refaults of previously evicted anonymous pages.",
);
/// `container_memory_workingset_refault_file_total`.
pub const MEMORY_WORKINGSET_REFAULT_FILE: Family<'static> = family(
    "container_memory_workingset_refault_file_total",
    Kind::Counter,
    BASE,
    "Cumulative number of refaults of previously evicted file pages.",
);
/// `container_network_receive_bytes_total`.
pub const NETWORK_RECEIVE_BYTES: Family<'static> =
    family("container_network_receive_bytes_total", Kind::Counter, INTERFACE, "Cumulative count of bytes received");
/// `container_network_receive_errors_total`.
pub const NETWORK_RECEIVE_ERRORS: Family<'static> = family(
    "container_network_receive_errors_total",
    Kind::Counter,
    INTERFACE,
    "Cumulative count of errors encountered while receiving",
);
/// `container_network_receive_packets_dropped_total`.
pub const NETWORK_RECEIVE_PACKETS_DROPPED: Family<'static> = family(
    "container_network_receive_packets_dropped_total",
    Kind::Counter,
    INTERFACE,
    "Cumulative count of packets dropped while receiving",
);
/// `container_network_receive_packets_total`.
pub const NETWORK_RECEIVE_PACKETS: Family<'static> =
    family("container_network_receive_packets_total", Kind::Counter, INTERFACE, "Cumulative count of packets received");
/// `container_network_transmit_bytes_total`.
pub const NETWORK_TRANSMIT_BYTES: Family<'static> =
    family("container_network_transmit_bytes_total", Kind::Counter, INTERFACE, "Cumulative count of bytes transmitted");
/// `container_network_transmit_errors_total`.
pub const NETWORK_TRANSMIT_ERRORS: Family<'static> = family(
    "container_network_transmit_errors_total",
    Kind::Counter,
    INTERFACE,
    "Cumulative count of errors encountered while transmitting",
);
/// `container_network_transmit_packets_dropped_total`.
pub const NETWORK_TRANSMIT_PACKETS_DROPPED: Family<'static> = family(
    "container_network_transmit_packets_dropped_total",
    Kind::Counter,
    INTERFACE,
    "Cumulative count of packets dropped while transmitting",
);
/// `container_network_transmit_packets_total`.
pub const NETWORK_TRANSMIT_PACKETS: Family<'static> = family(
    "container_network_transmit_packets_total",
    Kind::Counter,
    INTERFACE,
    "Cumulative count of packets transmitted",
);
/// `container_oom_events_total`.
pub const OOM_EVENTS: Family<'static> = family(
    "container_oom_events_total",
    Kind::Counter,
    BASE,
    "Count of out of memory events observed for the container",
);
/// `container_pressure_cpu_stalled_seconds_total`.
pub const PRESSURE_CPU_STALLED_SECONDS: Family<'static> = family(
    "container_pressure_cpu_stalled_seconds_total",
    Kind::Counter,
    BASE,
    "Total time duration no tasks in the container could make progress due to CPU congestion.",
);
/// `container_pressure_cpu_waiting_seconds_total`.
pub const PRESSURE_CPU_WAITING_SECONDS: Family<'static> = family(
    "container_pressure_cpu_waiting_seconds_total",
    Kind::Counter,
    BASE,
    "Total time duration tasks in the container have waited due to CPU congestion.",
);
/// `container_pressure_io_stalled_seconds_total`.
pub const PRESSURE_IO_STALLED_SECONDS: Family<'static> = family(
    "container_pressure_io_stalled_seconds_total",
    Kind::Counter,
    BASE,
    "Total time duration no tasks in the container could make progress due to IO congestion.",
);
/// `container_pressure_io_waiting_seconds_total`.
pub const PRESSURE_IO_WAITING_SECONDS: Family<'static> = family(
    "container_pressure_io_waiting_seconds_total",
    Kind::Counter,
    BASE,
    "Total time duration tasks in the container have waited due to IO congestion.",
);
/// `container_pressure_memory_stalled_seconds_total`.
pub const PRESSURE_MEMORY_STALLED_SECONDS: Family<'static> = family(
    "container_pressure_memory_stalled_seconds_total",
    Kind::Counter,
    BASE,
    "Total time duration no tasks in the container could make progress due to memory congestion.",
);
/// `container_pressure_memory_waiting_seconds_total`.
pub const PRESSURE_MEMORY_WAITING_SECONDS: Family<'static> = family(
    "container_pressure_memory_waiting_seconds_total",
    Kind::Counter,
    BASE,
    "Total time duration tasks in the container have waited due to memory congestion.",
);
/// `container_scrape_error`.
pub const SCRAPE_ERROR: Family<'static> = family(
    "container_scrape_error",
    Kind::Gauge,
    &[],
    "1 if there was an error while getting container metrics, 0 otherwise",
);
/// `container_spec_cpu_period`.
pub const SPEC_CPU_PERIOD: Family<'static> =
    family("container_spec_cpu_period", Kind::Gauge, BASE, "CPU period of the container.");
/// `container_spec_cpu_quota`.
pub const SPEC_CPU_QUOTA: Family<'static> =
    family("container_spec_cpu_quota", Kind::Gauge, BASE, "CPU quota of the container.");
/// `container_spec_cpu_shares`.
pub const SPEC_CPU_SHARES: Family<'static> =
    family("container_spec_cpu_shares", Kind::Gauge, BASE, "CPU share of the container.");
/// `container_spec_memory_limit_bytes`.
pub const SPEC_MEMORY_LIMIT_BYTES: Family<'static> =
    family("container_spec_memory_limit_bytes", Kind::Gauge, BASE, "Memory limit for the container.");
/// `container_spec_memory_reservation_limit_bytes`.
pub const SPEC_MEMORY_RESERVATION_LIMIT_BYTES: Family<'static> = family(
    "container_spec_memory_reservation_limit_bytes",
    Kind::Gauge,
    BASE,
    "Memory reservation limit for the container.",
);
/// `container_spec_memory_swap_limit_bytes`.
pub const SPEC_MEMORY_SWAP_LIMIT_BYTES: Family<'static> =
    family("container_spec_memory_swap_limit_bytes", Kind::Gauge, BASE, "Memory swap limit for the container.");
/// `container_start_time_seconds`.
pub const START_TIME_SECONDS: Family<'static> = family(
    "container_start_time_seconds",
    Kind::Gauge,
    BASE,
    "Start time of the container since unix epoch in seconds.",
);
/// `container_tasks_state`.
pub const TASKS_STATE: Family<'static> =
    family("container_tasks_state", Kind::Gauge, STATE, "Number of tasks in given state");
/// `machine_cpu_books`.
pub const CPU_BOOKS: Family<'static> = family("machine_cpu_books", Kind::Gauge, IDS, "Number of CPU books.");
/// `machine_cpu_cores`.
pub const CPU_CORES: Family<'static> = family("machine_cpu_cores", Kind::Gauge, IDS, "Number of logical CPU cores.");
/// `machine_cpu_drawers`.
pub const CPU_DRAWERS: Family<'static> = family("machine_cpu_drawers", Kind::Gauge, IDS, "Number of CPU drawers.");
/// `machine_cpu_physical_cores`.
pub const CPU_PHYSICAL_CORES: Family<'static> =
    family("machine_cpu_physical_cores", Kind::Gauge, IDS, "Number of physical CPU cores.");
/// `machine_cpu_sockets`.
pub const CPU_SOCKETS: Family<'static> = family("machine_cpu_sockets", Kind::Gauge, IDS, "Number of CPU sockets.");
/// `machine_dimm_capacity_bytes`.
pub const DIMM_CAPACITY: Family<'static> = family(
    "machine_dimm_capacity_bytes",
    Kind::Gauge,
    &["boot_id", "machine_id", "system_uuid", "type"],
    "Total RAM DIMM capacity (all types memory modules) value labeled by dimm type.",
);
/// `machine_dimm_count`.
pub const DIMM_COUNT: Family<'static> = family(
    "machine_dimm_count",
    Kind::Gauge,
    &["boot_id", "machine_id", "system_uuid", "type"],
    "Number of RAM DIMM (all types memory modules) value labeled by dimm type.",
);
/// `machine_memory_bytes`.
pub const MEMORY_BYTES: Family<'static> =
    family("machine_memory_bytes", Kind::Gauge, IDS, "Amount of memory installed on the machine.");
/// `machine_nvm_avg_power_budget_watts`.
pub const NVM_POWER: Family<'static> =
    family("machine_nvm_avg_power_budget_watts", Kind::Gauge, IDS, "NVM power budget.");
/// `machine_nvm_capacity`.
pub const NVM_CAPACITY: Family<'static> = family(
    "machine_nvm_capacity",
    Kind::Gauge,
    &["boot_id", "machine_id", "mode", "system_uuid"],
    "NVM capacity value labeled by NVM mode (memory mode or app direct mode).",
);
/// `machine_scrape_error`.
pub const MACHINE_SCRAPE_ERROR: Family<'static> = family(
    "machine_scrape_error",
    Kind::Gauge,
    &[],
    "1 if there was an error while getting machine metrics, 0 otherwise.",
);
/// `machine_swap_bytes`.
pub const SWAP_BYTES: Family<'static> =
    family("machine_swap_bytes", Kind::Gauge, IDS, "Amount of swap memory available on the machine.");

/// Cgroups that were left out.
pub const SKIPPED: Family<'static> = own(
    "rustok_obsd_containers_skipped_total",
    Kind::Counter,
    "",
    &["reason"],
    "Cgroups left out of a scrape: beyond container.limit, not read by the deadline, gone while they were read, or without a file descriptor for them.",
);

/// Cgroups that are told.
pub const TOLD: Family<'static> =
    own("rustok_obsd_containers", Kind::Gauge, "", &[], "Cgroups told, by cAdvisor's names.");

/// Directories of cgroups.
pub const WATCHES: Family<'static> = own(
    "rustok_obsd_container_watches",
    Kind::Gauge,
    "",
    &["state"],
    "Directories of cgroups with and without a watch; those without are looked for at every scrape.",
);

/// Looks through the whole tree.
pub const RESCANS: Family<'static> = own(
    "rustok_obsd_container_rescans_total",
    Kind::Counter,
    "",
    &["reason"],
    "Times that the whole tree of cgroups was looked through, by reason.",
);

/// Kills without a cgroup.
pub const KILLS_UNKNOWN: Family<'static> = own(
    "rustok_obsd_container_oom_events_unknown_total",
    Kind::Counter,
    "",
    &[],
    "Processes killed for lack of memory in cgroups that are not told, or of which nobody knows what they were.",
);

/// Kept files.
pub const OPEN_FILES: Family<'static> =
    own("rustok_obsd_container_open_files", Kind::Gauge, "", &[], "Files of cgroups that are kept open.");

/// By cAdvisor's names.
pub const FAMILIES: &[Family<'static>] = &[
    VERSION_INFO,
    BLKIO_DEVICE_USAGE,
    CPU_CFS_BURST_PERIODS,
    CPU_CFS_BURST_SECONDS,
    CPU_CFS_PERIODS,
    CPU_CFS_THROTTLED_PERIODS,
    CPU_CFS_THROTTLED_SECONDS,
    CPU_LOAD_AVERAGE_10S,
    CPU_LOAD_D_AVERAGE_10S,
    CPU_SYSTEM_SECONDS,
    CPU_USAGE_SECONDS,
    CPU_USER_SECONDS,
    CREATION_TIME_SECONDS,
    FS_INODES_FREE,
    FS_INODES,
    FS_IO_COST_INDEBT_SECONDS,
    FS_IO_COST_INDELAY_SECONDS,
    FS_IO_COST_USAGE_SECONDS,
    FS_IO_COST_WAIT_SECONDS,
    FS_IO_CURRENT,
    FS_IO_TIME_SECONDS,
    FS_IO_TIME_WEIGHTED_SECONDS,
    FS_LIMIT_BYTES,
    FS_READ_SECONDS,
    FS_READS_BYTES,
    FS_READS_MERGED,
    FS_READS,
    FS_SECTOR_READS,
    FS_SECTOR_WRITES,
    FS_USAGE_BYTES,
    FS_WRITE_SECONDS,
    FS_WRITES_BYTES,
    FS_WRITES_MERGED,
    FS_WRITES,
    HEALTH_STATE,
    LAST_SEEN,
    MEMORY_CACHE,
    MEMORY_EVENTS_HIGH,
    MEMORY_EVENTS_MAX,
    MEMORY_FAILCNT,
    MEMORY_FAILURES,
    MEMORY_FILE_DIRTY_BYTES,
    MEMORY_FILE_WRITEBACK_BYTES,
    MEMORY_KERNEL_USAGE,
    MEMORY_MAPPED_FILE,
    MEMORY_MAX_USAGE_BYTES,
    MEMORY_PGSCAN,
    MEMORY_PGSTEAL,
    MEMORY_RSS,
    MEMORY_SWAP,
    MEMORY_TOTAL_ACTIVE_FILE_BYTES,
    MEMORY_TOTAL_INACTIVE_FILE_BYTES,
    MEMORY_USAGE,
    MEMORY_WORKING_SET_BYTES,
    MEMORY_WORKINGSET_REFAULT_ANON,
    MEMORY_WORKINGSET_REFAULT_FILE,
    NETWORK_RECEIVE_BYTES,
    NETWORK_RECEIVE_ERRORS,
    NETWORK_RECEIVE_PACKETS_DROPPED,
    NETWORK_RECEIVE_PACKETS,
    NETWORK_TRANSMIT_BYTES,
    NETWORK_TRANSMIT_ERRORS,
    NETWORK_TRANSMIT_PACKETS_DROPPED,
    NETWORK_TRANSMIT_PACKETS,
    OOM_EVENTS,
    PRESSURE_CPU_STALLED_SECONDS,
    PRESSURE_CPU_WAITING_SECONDS,
    PRESSURE_IO_STALLED_SECONDS,
    PRESSURE_IO_WAITING_SECONDS,
    PRESSURE_MEMORY_STALLED_SECONDS,
    PRESSURE_MEMORY_WAITING_SECONDS,
    SCRAPE_ERROR,
    SPEC_CPU_PERIOD,
    SPEC_CPU_QUOTA,
    SPEC_CPU_SHARES,
    SPEC_MEMORY_LIMIT_BYTES,
    SPEC_MEMORY_RESERVATION_LIMIT_BYTES,
    SPEC_MEMORY_SWAP_LIMIT_BYTES,
    START_TIME_SECONDS,
    TASKS_STATE,
    CPU_BOOKS,
    CPU_CORES,
    CPU_DRAWERS,
    CPU_PHYSICAL_CORES,
    CPU_SOCKETS,
    DIMM_CAPACITY,
    DIMM_COUNT,
    MEMORY_BYTES,
    NVM_POWER,
    NVM_CAPACITY,
    MACHINE_SCRAPE_ERROR,
    SWAP_BYTES,
];

/// Our own.
pub const OWN: &[Family<'static>] = &[SKIPPED, TOLD, WATCHES, RESCANS, KILLS_UNKNOWN, OPEN_FILES];
