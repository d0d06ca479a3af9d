//! The host by OpenTelemetry's semantic conventions (1.44, `system.*`, in development), under the names that its compatibility
//! specification gives them for Prometheus. node_exporter has no such collector; it is off by default (`--collector.otel`).
//!
//! Reads: `/proc/stat`, `meminfo`, `swaps`, `vmstat`, `diskstats`, `PID/stat`; the table of network interfaces; the clock since
//! boot. Yields: `system_*`. Costs: five files and the walk over the processes: three system calls for each. The devices'
//! filters are those of `diskstats` and `netdev`.
//!
//! Not told: `system.filesystem.*`, for its statfs(2) may hang: the collector `filesystem` asks each mount on threads that it can
//! afford to lose, and a second asking would lose as many again. `system.network.connection.count`: a dump of all sockets.
//! `system.*.utilization`: a ratio or `rate` of what is told.

mod cpu;
mod disk;
mod memory;
mod network;
mod paging;
mod process;

use super::{CollectError, Collector, Context, Settings};
use crate::contract::{Family, Kind, Origin, Stability};
use crate::exposition::{Encoder, Value};

/// A counter: a monotonic sum.
const fn counter(
    name: &'static str,
    unit: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Family<'static> {
    Family { name, kind: Kind::Counter, unit, help, labels, origin: Origin::Kernel, stability: Stability::Development }
}

/// A gauge: a sum that goes up and down is one for Prometheus, too.
const fn gauge(
    name: &'static str,
    unit: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Family<'static> {
    Family { kind: Kind::Gauge, ..counter(name, unit, labels, help) }
}

const UPTIME: Family<'static> =
    gauge("system_uptime_seconds", "seconds", &[], "The time the system has been running, sleep included.");

/// Its families.
pub const FAMILIES: &[Family<'static>] = &[
    UPTIME,
    cpu::TIME,
    cpu::LOGICAL,
    cpu::PHYSICAL,
    process::CREATED,
    memory::USAGE,
    memory::LIMIT,
    memory::AVAILABLE,
    memory::SLAB,
    paging::USAGE,
    paging::FAULTS,
    paging::OPERATIONS,
    disk::IO,
    disk::OPERATIONS,
    disk::IO_TIME,
    disk::OPERATION_TIME,
    disk::MERGED,
    network::IO,
    network::PACKETS,
    network::DROPPED,
    network::ERRORS,
    process::COUNT,
];

struct System {
    cpu: cpu::Cpus,
    memory: memory::Memory,
    paging: paging::Paging,
    disk: disk::Disk,
    network: network::Network,
    process: process::Count,
}

/// Makes it.
pub fn make(settings: &Settings) -> Box<dyn Collector> {
    Box::new(System {
        cpu: cpu::Cpus::new(settings),
        memory: memory::Memory::new(settings),
        paging: paging::Paging::new(settings),
        disk: disk::Disk::new(settings),
        network: network::Network::new(settings),
        process: process::Count::new(settings),
    })
}

impl Collector for System {
    fn collect(&mut self, context: &Context<'_>, out: &mut Encoder<'_>) -> Result<(), CollectError> {
        out.family(&UPTIME).put([], Value::Nanos(crate::process::since_boot_ns()));
        // One that fails does not take the others with it; one that this host does not have is no failure.
        let results = [
            self.cpu.collect(out),
            self.memory.collect(out),
            self.paging.collect(out),
            self.disk.collect(out),
            self.network.collect(context, out),
            self.process.collect(out),
        ];
        let failed = |result: &Result<(), CollectError>| !matches!(result, Ok(()) | Err(CollectError::NoData(_)));
        results.into_iter().find(failed).unwrap_or(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::FAMILIES;
    use crate::contract::{CATALOGUE, Kind};
    use crate::host::COLLECTORS;
    use std::collections::HashSet;

    #[test]
    fn names_follow_the_rules_and_are_nobody_elses() {
        let base = |name: &'static str| name.strip_suffix("_total").or(name.strip_suffix("_info")).unwrap_or(name);
        let others = COLLECTORS.iter().filter(|entry| entry.name != "otel").flat_map(|entry| entry.families);
        let catalogue = CATALOGUE.iter().flat_map(|area| area.families);
        let mut bases: HashSet<&str> = others.chain(catalogue).map(|family| base(family.name)).collect();
        for family in FAMILIES {
            let name = family.name;
            assert!(name.starts_with("system_") && bases.insert(base(name)), "{name} is another's in OpenMetrics");
            assert_eq!(family.kind == Kind::Counter, name.ends_with("_total"), "{name}: suffix of a counter");
            assert!(base(name).ends_with(family.unit), "{name} does not end in its unit");
            for unit in ["seconds", "bytes"] {
                assert!(!base(name).ends_with(unit) || family.unit == unit, "{name} hides its unit");
            }
            assert!(family.help.ends_with('.'), "{name}: {}", family.help);
        }
    }
}
