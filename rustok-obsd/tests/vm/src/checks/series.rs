//! The series of cgroups, each against the kernel's own file of it.
//!
//! Reads: `/metrics/cadvisor`; the files of a container's cgroup and of its pod's, before and after the scrape. Yields:
//! verdicts. Costs: a container, six scrapes.
//!
//! A counter must lie between the two readings. So must a gauge, give or take what the kernel charges in advance, in
//! batches of 64 pages a CPU.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use test_support::{LabelMap, Runc, Scraped, Workload, wait_until};

use crate::guest::{CGROUPS, Daemon, Guest, PATIENCE, Verdict, ensure};
use crate::kernel::{self, DISK, Source};
use Source::{Disk, Line, Number, Total, Zero};

/// A series: family, labels beside those of the cgroup, where its value stands, and how many of the kernel's units make
/// one of the series'.
type Row = (&'static str, &'static [(&'static str, &'static str)], Source, u32);

const US: u32 = 1_000_000;
const TOTAL: &[(&str, &str)] = &[("cpu", "total")];
const DEVICE: &[(&str, &str)] = &[("device", "/dev/nvme0n1")];

const COUNTERS: &[Row] = &[
    ("container_cpu_usage_seconds_total", TOTAL, Line("cpu.stat", "usage_usec"), US),
    ("container_cpu_user_seconds_total", &[], Line("cpu.stat", "user_usec"), US),
    ("container_cpu_system_seconds_total", &[], Line("cpu.stat", "system_usec"), US),
    ("container_memory_failcnt", &[], Zero, 1),
    ("container_memory_failures_total", &fault("pgfault", "container"), Line("memory.stat", "pgfault"), 1),
    ("container_memory_failures_total", &fault("pgfault", "hierarchy"), Line("memory.stat", "pgfault"), 1),
    ("container_memory_failures_total", &fault("pgmajfault", "container"), Line("memory.stat", "pgmajfault"), 1),
    ("container_memory_failures_total", &fault("pgmajfault", "hierarchy"), Line("memory.stat", "pgmajfault"), 1),
    ("container_memory_events_high_total", &[], Line("memory.events", "high"), 1),
    ("container_memory_events_max_total", &[], Line("memory.events", "max"), 1),
    ("container_memory_pgscan_total", &[], Line("memory.stat", "pgscan"), 1),
    ("container_memory_pgsteal_total", &[], Line("memory.stat", "pgsteal"), 1),
    ("container_memory_workingset_refault_anon_total", &[], Line("memory.stat", "workingset_refault_anon"), 1),
    ("container_memory_workingset_refault_file_total", &[], Line("memory.stat", "workingset_refault_file"), 1),
    ("container_oom_events_total", &[], Line("memory.events.local", "oom_kill"), 1),
    ("container_fs_reads_bytes_total", DEVICE, Disk("rbytes"), 1),
    ("container_fs_writes_bytes_total", DEVICE, Disk("wbytes"), 1),
    ("container_fs_reads_total", DEVICE, Disk("rios"), 1),
    ("container_fs_writes_total", DEVICE, Disk("wios"), 1),
    ("container_pressure_cpu_waiting_seconds_total", &[], Total("cpu.pressure", "some"), US),
    ("container_pressure_cpu_stalled_seconds_total", &[], Total("cpu.pressure", "full"), US),
    ("container_pressure_memory_waiting_seconds_total", &[], Total("memory.pressure", "some"), US),
    ("container_pressure_memory_stalled_seconds_total", &[], Total("memory.pressure", "full"), US),
    ("container_pressure_io_waiting_seconds_total", &[], Total("io.pressure", "some"), US),
    ("container_pressure_io_stalled_seconds_total", &[], Total("io.pressure", "full"), US),
];

/// Where there is a quota, and nowhere else.
const QUOTA_COUNTERS: &[Row] = &[
    ("container_cpu_cfs_periods_total", &[], Line("cpu.stat", "nr_periods"), 1),
    ("container_cpu_cfs_throttled_periods_total", &[], Line("cpu.stat", "nr_throttled"), 1),
    ("container_cpu_cfs_throttled_seconds_total", &[], Line("cpu.stat", "throttled_usec"), US),
    ("container_cpu_cfs_burst_periods_total", &[], Line("cpu.stat", "nr_bursts"), 1),
    ("container_cpu_cfs_burst_seconds_total", &[], Line("cpu.stat", "burst_usec"), US),
];

const GAUGES: &[Row] = &[
    ("container_memory_usage_bytes", &[], Number("memory.current"), 1),
    ("container_memory_max_usage_bytes", &[], Number("memory.peak"), 1),
    ("container_memory_swap", &[], Number("memory.swap.current"), 1),
    ("container_memory_cache", &[], Line("memory.stat", "file"), 1),
    ("container_memory_rss", &[], Line("memory.stat", "anon"), 1),
    ("container_memory_kernel_usage", &[], Line("memory.stat", "kernel"), 1),
    ("container_memory_mapped_file", &[], Line("memory.stat", "file_mapped"), 1),
    ("container_memory_total_active_file_bytes", &[], Line("memory.stat", "active_file"), 1),
    ("container_memory_total_inactive_file_bytes", &[], Line("memory.stat", "inactive_file"), 1),
    ("container_memory_file_dirty_bytes", &[], Line("memory.stat", "file_dirty"), 1),
    ("container_memory_file_writeback_bytes", &[], Line("memory.stat", "file_writeback"), 1),
    ("container_spec_memory_limit_bytes", &[], Number("memory.max"), 1),
    ("container_spec_memory_reservation_limit_bytes", &[], Number("memory.min"), 1),
    ("container_spec_memory_swap_limit_bytes", &[], Number("memory.swap.max"), 1),
];

/// What the workload must have moved, lest 0 is compared with 0.
const MOVED: [&str; 16] = [
    "container_cpu_usage_seconds_total",
    "container_cpu_user_seconds_total",
    "container_cpu_system_seconds_total",
    "container_cpu_cfs_periods_total",
    "container_cpu_cfs_throttled_periods_total",
    "container_cpu_cfs_throttled_seconds_total",
    "container_fs_reads_bytes_total",
    "container_fs_writes_bytes_total",
    "container_fs_reads_total",
    "container_fs_writes_total",
    "container_pressure_cpu_waiting_seconds_total",
    "container_pressure_cpu_stalled_seconds_total",
    "container_pressure_io_waiting_seconds_total",
    "container_pressure_io_stalled_seconds_total",
    "container_memory_cache",
    "container_memory_total_inactive_file_bytes",
];

/// The same of one that ran out of memory.
const MOVED_BY_PRESSURE: [&str; 7] = [
    "container_oom_events_total",
    "container_memory_events_max_total",
    "container_memory_pgscan_total",
    "container_memory_pgsteal_total",
    "container_memory_workingset_refault_file_total",
    "container_pressure_memory_waiting_seconds_total",
    "container_pressure_memory_stalled_seconds_total",
];

/// Charged in advance: 64 pages for each of two CPUs.
const SLACK: f64 = (2 * 64 * 4096) as f64;

const fn fault(kind: &'static str, scope: &'static str) -> [(&'static str, &'static str); 2] {
    [("failure_type", kind), ("scope", scope)]
}

/// Families and labels of one cgroup that were checked.
type Seen = BTreeSet<(String, LabelMap)>;

/// One cgroup, and what is expected of it.
struct Subject<'s> {
    folder: &'s Path,
    id: &'s str,
    name: Option<&'s str>,
    quota: bool,
}

/// Every series of a container with limits, and of the cgroup of its pod.
pub fn are_what_the_kernel_says(guest: &mut Guest) -> Result<(), Verdict> {
    let daemon = guest.daemon()?;
    // The open file keeps the device's pages in memory, which would go with its last close. Pages that are written later
    // may be accounted to whoever wrote to the device first; direct writes are not.
    let workload = Workload {
        script: "exec 3</disk; dd if=/dev/zero of=/disk bs=1048576 count=4 oflag=direct && \
                 dd if=/disk of=/dev/null bs=1048576 skip=8 count=4 && echo written && while :; do :; done",
        cpus: Some(0.5),
        memory: Some(64 << 20),
        binds: &[(Path::new("/dev/nvme0n1"), "/disk")],
    };
    let begun = now();
    let (container, folder) = guest.container(&workload)?;
    let ready = wait_until(PATIENCE, || {
        let throttled = Line("cpu.stat", "nr_throttled").read(&folder).ok()?;
        (throttled > 0 && container.log().contains("written")).then_some(())
    });
    ensure(ready.is_some(), || format!("not throttled, or nothing written: {}", container.log()))?;

    let id = container.cgroup();
    let subject = Subject { folder: &folder, id: &id, name: Some(container.id()), quota: true };
    let (scraped, mut seen) = subject.check(&daemon)?;
    moved(&scraped, &id, &MOVED)?;
    let only = |family: &str, expected: f64| is(&scraped, family, &id, &[], expected);
    only("container_spec_cpu_quota", 50_000.0)?;
    only("container_spec_cpu_period", 100_000.0)?;
    only("container_spec_memory_limit_bytes", f64::from(64 << 20))?;
    let again = subject.check(&daemon)?.0;
    let usage = |of: &Scraped| of.sum("container_cpu_usage_seconds_total", &[("id", &id)]);
    ensure(usage(&again) > usage(&scraped), || format!("CPU time of a busy loop stays: {:?}", usage(&again)))?;
    let created = scraped.sum("container_start_time_seconds", &[("id", &id)]).unwrap_or_default() as u64;
    ensure((begun..=now()).contains(&created), || format!("it was started at {created}, it says, not after {begun}"))?;
    for family in ["container_spec_cpu_quota", "container_spec_cpu_period"] {
        seen.insert((family.to_owned(), labels(&id, Some(container.id()), &[])));
    }
    nothing_else(&scraped, &id, &seen)?;

    let (pod, _) = id.rsplit_once('/').unwrap_or_default();
    let folder = format!("{CGROUPS}{pod}");
    let subject = Subject { folder: Path::new(&folder), id: pod, name: None, quota: false };
    let (scraped, mut seen) = subject.check(&daemon)?;
    // `max 100000`: a period without a quota.
    seen.insert(("container_spec_cpu_period".to_owned(), labels(pod, None, &[])));
    nothing_else(&scraped, pod, &seen)
}

/// Every series of a container that has been out of memory: `container` read more than its limit from the disk, and had a
/// process killed.
pub fn hold_under_pressure(daemon: &Daemon, container: &Runc, folder: &Path) -> Result<(), Verdict> {
    let id = container.cgroup();
    let subject = Subject { folder, id: &id, name: Some(container.id()), quota: false };
    let (scraped, mut seen) = subject.check(daemon)?;
    moved(&scraped, &id, &MOVED_BY_PRESSURE)?;
    seen.insert(("container_spec_cpu_period".to_owned(), labels(&id, Some(container.id()), &[])));
    nothing_else(&scraped, &id, &seen)
}

/// The root cgroup, which lacks most files, and the machine.
pub fn of_the_root_are_the_machine_s(guest: &mut Guest) -> Result<(), Verdict> {
    let daemon = guest.daemon()?;
    let root = Path::new(CGROUPS);
    let rows = COUNTERS.iter().filter(|(family, ..)| family.contains("_cpu_"));
    let rows: Vec<_> = rows.filter(|(family, ..)| !family.starts_with("container_pressure")).collect();
    let before = rows.iter().map(|row| row.2.read(root)).collect::<Result<Vec<_>, _>>()?;
    let scraped = daemon.scrape("/metrics/cadvisor")?;
    for (row, before) in rows.iter().zip(before) {
        between(&scraped, row, "/", None, [before, row.2.read(root)?], 0.0)?;
    }
    let meminfo = kernel::read(Path::new("/proc/meminfo"))?;
    let total =
        meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse().ok());
    let total: f64 = total.unwrap_or(0.0) * 1024.0;
    is(&scraped, "container_spec_memory_limit_bytes", "/", &[], total)?;
    for (family, expected) in [("machine_memory_bytes", total), ("machine_cpu_cores", 2.0)] {
        let found = scraped.sum(family, &[]);
        ensure(found == Some(expected), || format!("{family} is {found:?}, not {expected}"))?;
    }
    let usage = scraped.sum("container_memory_usage_bytes", &[("id", "/")]);
    let anon = Line("memory.stat", "anon").read(root)? as f64;
    ensure(usage > Some(anon / 2.0) && usage < Some(total), || {
        format!("/ uses {usage:?} of {total}, {anon} anonymous")
    })?;
    let error = scraped.sum("container_scrape_error", &[]);
    ensure(error == Some(0.0), || format!("container_scrape_error is {error:?}"))
}

impl Subject<'_> {
    /// Reads, scrapes, reads, compares. Yields the scrape and what was compared.
    fn check(&self, daemon: &Daemon) -> Result<(Scraped, Seen), Verdict> {
        let quota: &[Row] = if self.quota { QUOTA_COUNTERS } else { &[] };
        let counters = || COUNTERS.iter().chain(quota);
        let rows: Vec<_> = counters().map(|row| (row, 0.0)).chain(GAUGES.iter().map(|row| (row, SLACK))).collect();
        let read = || rows.iter().map(|(row, _)| row.2.read(self.folder)).collect::<Result<Vec<_>, _>>();
        let (before, begun) = (read()?, now());
        let text = daemon.text("/metrics/cadvisor")?;
        let after = read()?;
        let stamped = text.lines().find(|line| !line.starts_with('#') && after_labels(line).contains(' '));
        ensure(stamped.is_none(), || format!("a timestamp: {stamped:?}"))?;
        let scraped = Scraped::parse(&text).map_err(|what| Verdict::Fail(format!("/metrics/cadvisor: {what}")))?;
        let mut seen = Seen::new();
        for ((row, slack), bounds) in rows.iter().zip(before.into_iter().zip(after)) {
            let kind = if *slack > 0.0 { "gauge" } else { "counter" };
            let told = scraped.families.get(row.0).map(|family| family.kind.as_str());
            ensure(told == Some(kind), || format!("{} is a {told:?}, not a {kind}", row.0))?;
            between(&scraped, row, self.id, self.name, bounds.into(), *slack)?;
            seen.insert((row.0.to_owned(), labels(self.id, self.name, row.1)));
        }
        self.derived(&scraped, begun, &mut seen)?;
        Ok((scraped, seen))
    }

    /// What stands in no file as it is told.
    fn derived(&self, scraped: &Scraped, begun: u64, seen: &mut Seen) -> Result<(), Verdict> {
        let weight = Number("cpu.weight").read(self.folder)?;
        let created = fs::metadata(self.folder)?.ctime();
        let value = |family: &str| scraped.sum(family, &[("id", self.id)]).unwrap_or(f64::NAN);
        let last_seen = value("container_last_seen");
        ensure((begun..=now()).contains(&(last_seen as u64)), || format!("last seen {last_seen}, not after {begun}"))?;
        let working = value("container_memory_usage_bytes") - value("container_memory_total_inactive_file_bytes");
        for (family, expected) in [
            ("container_memory_working_set_bytes", working.max(0.0)),
            ("container_spec_cpu_shares", (2 + (weight - 1) * 262_142 / 9999) as f64),
            ("container_health_state", -1.0),
            ("container_last_seen", last_seen),
            ("container_creation_time_seconds", value("container_start_time_seconds")),
            ("container_start_time_seconds", value("container_creation_time_seconds")),
        ] {
            is(scraped, family, self.id, &[], expected)?;
            seen.insert((family.to_owned(), labels(self.id, self.name, &[])));
        }
        let told = value("container_creation_time_seconds");
        ensure(told <= created as f64, || format!("{} was made at {told}, it says, after {created}", self.id))?;
        let number = kernel::disk().unwrap_or_default();
        let (major, minor) = number.split_once(':').unwrap_or_default();
        for (operation, family) in
            [("Read", "container_fs_reads_bytes_total"), ("Write", "container_fs_writes_bytes_total")]
        {
            let device = format!("/dev/{DISK}");
            let more = [("device", &*device), ("major", major), ("minor", minor), ("operation", operation)];
            is(scraped, "container_blkio_device_usage_total", self.id, &more, value(family))?;
            seen.insert(("container_blkio_device_usage_total".to_owned(), labels(self.id, self.name, &more)));
        }
        Ok(())
    }
}

fn moved(scraped: &Scraped, id: &str, families: &[&str]) -> Result<(), Verdict> {
    let sums = families.iter().map(|family| (*family, scraped.sum(family, &[("id", id)])));
    let unmoved: Vec<_> = sums.filter(|(_, sum)| *sum <= Some(0.0)).collect();
    ensure(unmoved.is_empty(), || format!("of a container that did: {unmoved:?}"))
}

/// All labels of a cgroup's series.
fn labels(id: &str, name: Option<&str>, more: &[(&str, &str)]) -> LabelMap {
    let own = [("id", id)].into_iter().chain(name.map(|name| ("name", name)));
    own.chain(more.iter().copied()).map(|(label, value)| (label.to_owned(), value.to_owned())).collect()
}

fn between(
    scraped: &Scraped,
    (family, more, source, unit): &Row,
    id: &str,
    name: Option<&str>,
    [before, after]: [u64; 2],
    slack: f64,
) -> Result<(), Verdict> {
    let wanted = labels(id, name, more);
    let samples = scraped.families.get(*family).map(|family| &family.samples);
    let found = samples.and_then(|samples| samples.get(&((*family).to_owned(), wanted.clone())));
    let bound = |units: u64| units as f64 / f64::from(*unit);
    let (low, high) = (bound(before.min(after)) - slack, bound(before.max(after)) + slack);
    ensure(found.is_some_and(|value| (low..=high).contains(value)), || {
        format!("{family}{wanted:?} is {found:?}, while {source:?} went from {before} to {after}")
    })
}

fn is(scraped: &Scraped, family: &str, id: &str, more: &[(&str, &str)], expected: f64) -> Result<(), Verdict> {
    let wanted: Vec<_> = [("id", id)].into_iter().chain(more.iter().copied()).collect();
    let found = scraped.sum(family, &wanted);
    ensure(found == Some(expected), || format!("{family}{wanted:?} is {found:?}, not {expected}"))
}

/// No series of the cgroup is left that nobody looked at.
fn nothing_else(scraped: &Scraped, id: &str, seen: &Seen) -> Result<(), Verdict> {
    let all = scraped.families.values().flat_map(|family| family.samples.keys());
    let of_it = all.filter(|(_, labels)| labels.get("id").is_some_and(|of| of == id));
    let unknown: Vec<_> = of_it.filter(|series| !seen.contains(series)).collect();
    ensure(unknown.is_empty(), || format!("series that no file of the kernel was compared with: {unknown:?}"))
}

/// Value, and timestamp if any.
fn after_labels(line: &str) -> &str {
    let end = line.rfind('}').map(|brace| brace + 1).or_else(|| line.find(' ')).unwrap_or(0);
    line[end..].trim()
}

fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |time| time.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_is_seen() {
        assert_eq!(after_labels("a{id=\"x} 1\"} 1 1700000000000"), "1 1700000000000");
        assert_eq!(after_labels("a 1"), "1");
    }

    #[test]
    fn a_series_that_nobody_looked_at_is_found() {
        let scraped = Scraped::parse("a{id=\"/x\"} 1\nb{id=\"/x\"} 2\nb{id=\"/y\"} 2\n").expect("an exposition");
        let seen = Seen::from([("a".to_owned(), labels("/x", None, &[]))]);
        let failed = nothing_else(&scraped, "/x", &seen).expect_err("b was not looked at");
        assert!(format!("{failed:?}").contains("\\\"b\\\""), "{failed:?}");
        let row: Row = ("b", &[], Zero, 1);
        assert!(between(&scraped, &row, "/x", None, [1, 2], 0.0).is_ok());
        assert!(between(&scraped, &row, "/x", None, [3, 4], 0.0).is_err());
        assert!(between(&scraped, &row, "/x", Some("n"), [1, 2], 0.0).is_err(), "another label");
    }
}
