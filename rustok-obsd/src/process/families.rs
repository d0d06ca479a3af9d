//! Families of processes: process-exporter's, the client libraries' for the daemon itself, and the daemon's own.

use crate::contract::{Family, Kind, Origin, Stability, own::own};

const fn named(name: &'static str, kind: Kind, labels: &'static [&'static str], help: &'static str) -> Family<'static> {
    Family { name, kind, unit: "", help, labels, origin: Origin::Kernel, stability: Stability::ProcessExporter }
}

const GROUP: &[&str] = &["groupname"];
const THREAD: &[&str] = &["groupname", "threadname"];

/// As process-exporter has them; HELP texts with their mistakes.
pub const NAMED: &[Family<'static>] = &[
    NUM_PROCS,
    CPU,
    READ_BYTES,
    WRITE_BYTES,
    MAJOR_FAULTS,
    MINOR_FAULTS,
    CONTEXT_SWITCHES,
    MEMORY,
    OPEN_DESCRIPTORS,
    WORST_RATIO,
    OLDEST_START,
    NUM_THREADS,
    STATES,
    THREADS_WCHAN,
    THREAD_COUNT,
    THREAD_CPU,
    THREAD_IO,
    THREAD_MAJOR_FAULTS,
    THREAD_MINOR_FAULTS,
    THREAD_CONTEXT_SWITCHES,
    SCRAPE_ERRORS,
    PROCREAD_ERRORS,
    PARTIAL_ERRORS,
];

/// Members now.
pub const NUM_PROCS: Family<'static> =
    named("namedprocess_namegroup_num_procs", Kind::Gauge, GROUP, "number of processes in this group");
/// Time on CPUs.
pub const CPU: Family<'static> = named(
    "namedprocess_namegroup_cpu_seconds_total",
    Kind::Counter,
    &["groupname", "mode"],
    "Cpu user usage in seconds",
);
/// From storage.
pub const READ_BYTES: Family<'static> =
    named("namedprocess_namegroup_read_bytes_total", Kind::Counter, GROUP, "number of bytes read by this group");
/// To storage.
pub const WRITE_BYTES: Family<'static> =
    named("namedprocess_namegroup_write_bytes_total", Kind::Counter, GROUP, "number of bytes written by this group");
/// With a read.
pub const MAJOR_FAULTS: Family<'static> =
    named("namedprocess_namegroup_major_page_faults_total", Kind::Counter, GROUP, "Major page faults");
/// Without.
pub const MINOR_FAULTS: Family<'static> =
    named("namedprocess_namegroup_minor_page_faults_total", Kind::Counter, GROUP, "Minor page faults");
/// Of the main threads.
pub const CONTEXT_SWITCHES: Family<'static> = named(
    "namedprocess_namegroup_context_switches_total",
    Kind::Counter,
    &["groupname", "ctxswitchtype"],
    "Context switches",
);
/// Memory.
pub const MEMORY: Family<'static> = named(
    "namedprocess_namegroup_memory_bytes",
    Kind::Gauge,
    &["groupname", "memtype"],
    "number of bytes of memory in use",
);
/// Descriptors.
pub const OPEN_DESCRIPTORS: Family<'static> =
    named("namedprocess_namegroup_open_filedesc", Kind::Gauge, GROUP, "number of open file descriptors for this group");
/// Of one process.
pub const WORST_RATIO: Family<'static> = named(
    "namedprocess_namegroup_worst_fd_ratio",
    Kind::Gauge,
    GROUP,
    "the worst (closest to 1) ratio between open fds and max fds among all procs in this group",
);
/// Of the oldest.
pub const OLDEST_START: Family<'static> = named(
    "namedprocess_namegroup_oldest_start_time_seconds",
    Kind::Gauge,
    GROUP,
    "start time in seconds since 1970/01/01 of oldest process in group",
);
/// Threads.
pub const NUM_THREADS: Family<'static> =
    named("namedprocess_namegroup_num_threads", Kind::Gauge, GROUP, "Number of threads");
/// Of the main threads.
pub const STATES: Family<'static> = named(
    "namedprocess_namegroup_states",
    Kind::Gauge,
    &["groupname", "state"],
    "Number of processes in states Running, Sleeping, Waiting, Zombie, or Other",
);
/// Where they wait.
pub const THREADS_WCHAN: Family<'static> = named(
    "namedprocess_namegroup_threads_wchan",
    Kind::Gauge,
    &["groupname", "wchan"],
    "Number of threads in this group waiting on each wchan",
);
/// Threads by name.
pub const THREAD_COUNT: Family<'static> = named(
    "namedprocess_namegroup_thread_count",
    Kind::Gauge,
    THREAD,
    "Number of threads in this group with same threadname",
);
/// Their time.
pub const THREAD_CPU: Family<'static> = named(
    "namedprocess_namegroup_thread_cpu_seconds_total",
    Kind::Counter,
    &["groupname", "threadname", "mode"],
    "Cpu user/system usage in seconds",
);
/// Their I/O.
pub const THREAD_IO: Family<'static> = named(
    "namedprocess_namegroup_thread_io_bytes_total",
    Kind::Counter,
    &["groupname", "threadname", "iomode"],
    "number of bytes read/written by these threads",
);
/// Their faults.
pub const THREAD_MAJOR_FAULTS: Family<'static> = named(
    "namedprocess_namegroup_thread_major_page_faults_total",
    Kind::Counter,
    THREAD,
    "Major page faults for these threads",
);
/// Their faults.
pub const THREAD_MINOR_FAULTS: Family<'static> = named(
    "namedprocess_namegroup_thread_minor_page_faults_total",
    Kind::Counter,
    THREAD,
    "Minor page faults for these threads",
);
/// Their switches.
pub const THREAD_CONTEXT_SWITCHES: Family<'static> = named(
    "namedprocess_namegroup_thread_context_switches_total",
    Kind::Counter,
    &["groupname", "threadname", "ctxswitchtype"],
    "Context switches for these threads",
);
/// Procfs could not be listed.
pub const SCRAPE_ERRORS: Family<'static> = named(
    "namedprocess_scrape_errors",
    Kind::Counter,
    &[],
    "general scrape errors: no proc metrics collected during a cycle",
);
/// A process could not be read.
pub const PROCREAD_ERRORS: Family<'static> = named(
    "namedprocess_scrape_procread_errors",
    Kind::Counter,
    &[],
    "incremented each time a proc's metrics collection fails",
);
/// Something of a process could not be read.
pub const PARTIAL_ERRORS: Family<'static> = named(
    "namedprocess_scrape_partial_errors",
    Kind::Counter,
    &[],
    "incremented each time a tracked proc's metrics collection fails partially, e.g. unreadable I/O stats",
);

/// Of groups, without a counterpart there.
pub const OWN: &[Family<'static>] = &[STARTS, EXITS, SHORT_LIVED, OVERFLOW, RECLAIMED, ENDS_LOST];

/// Processes that came.
pub const STARTS: Family<'static> = own(
    "rustok_obsd_process_starts_total",
    Kind::Counter,
    "",
    GROUP,
    "Processes that came into the group: seen by a scrape or, where the kernel tells of exits, by that alone.",
);
/// Processes that went.
pub const EXITS: Family<'static> = own(
    "rustok_obsd_process_exits_total",
    Kind::Counter,
    "",
    GROUP,
    "Processes that left the group, mostly since they ended.",
);
/// Processes that no scrape saw.
pub const SHORT_LIVED: Family<'static> = own(
    "rustok_obsd_process_short_lived_total",
    Kind::Counter,
    "",
    GROUP,
    "Processes that lived between two scrapes, as the kernel told at their end; what they used is in the group's counters.",
);
/// Beyond the cap.
pub const OVERFLOW: Family<'static> = own(
    "rustok_obsd_process_groups_overflow_total",
    Kind::Counter,
    "",
    &[],
    "Processes in the group ~other, since process.groups_limit or their user's share was reached or nobody knows their group.",
);
/// Given up.
pub const RECLAIMED: Family<'static> = own(
    "rustok_obsd_process_groups_reclaimed_total",
    Kind::Counter,
    "",
    &[],
    "Groups without members for five minutes that were given up for others; one that comes back begins at 0.",
);
/// Not remembered.
pub const ENDS_LOST: Family<'static> = own(
    "rustok_obsd_process_ends_lost_total",
    Kind::Counter,
    "",
    &[],
    "Ends of processes that were not accounted for in full, because too many came at once or their user had its share.",
);

const fn itself(name: &'static str, kind: Kind, help: &'static str) -> Family<'static> {
    Family { name, kind, unit: "", help, labels: &[], origin: Origin::Own, stability: Stability::Prometheus }
}

/// The daemon's own process, as Prometheus' client libraries tell it.
pub const ITSELF: &[Family<'static>] = &[
    itself("process_cpu_seconds_total", Kind::Counter, "Total user and system CPU time spent in seconds."),
    itself("process_max_fds", Kind::Gauge, "Maximum number of open file descriptors."),
    itself(
        "process_network_receive_bytes_total",
        Kind::Counter,
        "Number of bytes received by the process over the network.",
    ),
    itself(
        "process_network_transmit_bytes_total",
        Kind::Counter,
        "Number of bytes sent by the process over the network.",
    ),
    itself("process_open_fds", Kind::Gauge, "Number of open file descriptors."),
    itself("process_resident_memory_bytes", Kind::Gauge, "Resident memory size in bytes."),
    itself("process_start_time_seconds", Kind::Gauge, "Start time of the process since unix epoch in seconds."),
    itself("process_threads", Kind::Gauge, "Number of OS threads in the process."),
    itself("process_virtual_memory_bytes", Kind::Gauge, "Virtual memory size in bytes."),
    itself("process_virtual_memory_max_bytes", Kind::Gauge, "Maximum amount of virtual memory available in bytes."),
];
