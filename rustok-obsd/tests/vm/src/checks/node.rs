//! The host's families on this kernel.
//!
//! Reads: `/metrics/node`; the kernel's files before and after. Yields: verdicts. Costs: three scrapes.

use std::fs;
use std::path::Path;

use test_support::{Child, Scraped, wait_until};

use crate::guest::{Guest, PATIENCE, Verdict, ensure};
use crate::kernel::{self, Source};
use Source::{Line, Number, Total};

/// Collectors that may find nothing, each with what must be absent then: hardware, modules, files of a distribution.
const OPTIONAL: &[(&str, &str)] = &[
    ("bcache", "/sys/fs/bcache"),
    ("bcachefs", "/sys/fs/bcachefs"),
    ("bonding", "/sys/class/net/bonding_masters"),
    ("btrfs", "/sys/fs/btrfs"),
    ("conntrack", "/proc/sys/net/netfilter/nf_conntrack_count"),
    ("dmmultipath", "/sys/block/dm-0"),
    ("drbd", "/proc/drbd"),
    ("edac", "/sys/devices/system/edac/mc/mc0"),
    ("fibrechannel", "/sys/class/fc_host"),
    ("hwmon", "/sys/class/hwmon/hwmon0"),
    ("infiniband", "/sys/class/infiniband"),
    ("ipvs", "/proc/net/ip_vs"),
    ("kernel_hung", "/proc/sys/kernel/hung_task_detect_count"),
    ("mdadm", "/proc/mdstat"),
    ("nfs", "/proc/net/rpc/nfs"),
    ("nfsd", "/proc/net/rpc/nfsd"),
    ("os", "/etc/os-release"),
    ("powersupplyclass", "/sys/class/power_supply"),
    ("rapl", "/sys/class/powercap/intel-rapl:0"),
    ("systemd", "/run/systemd/private"),
    ("tapestats", "/sys/class/scsi_tape"),
    ("watchdog", "/sys/class/watchdog"),
    ("xfs", "/sys/fs/xfs"),
    ("zfs", "/proc/spl/kstat/zfs"),
];

/// A family, labels, where its value stands, units in one of the family's.
type Row = (&'static str, &'static [(&'static str, &'static str)], &'static str, Source, u32);

const COUNTERS: &[Row] = &[
    ("node_context_switches_total", &[], "/proc", Line("stat", "ctxt"), 1),
    ("node_forks_total", &[], "/proc", Line("stat", "processes"), 1),
    ("node_boot_time_seconds", &[], "/proc", Line("stat", "btime"), 1),
    ("node_vmstat_pgfault", &[], "/proc", Line("vmstat", "pgfault"), 1),
    ("node_vmstat_oom_kill", &[], "/proc", Line("vmstat", "oom_kill"), 1),
    ("node_pressure_cpu_waiting_seconds_total", &[], "/proc/pressure", Total("cpu", "some"), 1_000_000),
    ("node_pressure_io_waiting_seconds_total", &[], "/proc/pressure", Total("io", "some"), 1_000_000),
    ("node_pressure_io_stalled_seconds_total", &[], "/proc/pressure", Total("io", "full"), 1_000_000),
    ("node_pressure_memory_waiting_seconds_total", &[], "/proc/pressure", Total("memory", "some"), 1_000_000),
    ("node_pressure_memory_stalled_seconds_total", &[], "/proc/pressure", Total("memory", "full"), 1_000_000),
    ("node_network_receive_bytes_total", LO, "/sys/class/net/lo/statistics", Number("rx_bytes"), 1),
    ("node_network_transmit_packets_total", LO, "/sys/class/net/lo/statistics", Number("tx_packets"), 1),
    ("node_network_mtu_bytes", LO, "/sys/class/net/lo", Number("mtu"), 1),
];
const LO: &[(&str, &str)] = &[("device", "lo")];

/// Every collector finds what it looks for, or has nothing to find.
pub fn collectors_succeed(guest: &mut Guest) -> Result<(), Verdict> {
    let daemon = guest.daemon()?;
    let scraped = daemon.scrape("/metrics/node")?;
    let success = scraped.families.get("node_scrape_collector_success").map(|family| &family.samples);
    let all: Vec<_> = success.into_iter().flatten().collect();
    ensure(all.len() > 30, || format!("only {} collectors: {all:?}", all.len()))?;
    let failed = all.iter().filter(|(_, value)| **value != 1.0);
    let failed: Vec<_> = failed.filter_map(|((_, labels), _)| labels.get("collector").map(String::as_str)).collect();
    let excused = |name: &str| OPTIONAL.iter().any(|(of, path)| *of == name && !Path::new(path).exists());
    let wrong: Vec<_> = failed.iter().filter(|name| !excused(name)).collect();
    ensure(wrong.is_empty(), || format!("without success though this kernel has what they read: {wrong:?}"))?;
    guest.note(format!(
        "{} collectors, {} families; nothing to read for {}",
        all.len(),
        scraped.families.len(),
        failed.join(" ")
    ));
    Ok(())
}

/// Counters lie between two readings of the kernel's files, and what this kernel lacks is not told.
pub fn values_are_the_kernel_s(guest: &mut Guest) -> Result<(), Verdict> {
    let daemon = guest.daemon()?;
    let read = || COUNTERS.iter().map(|row| row.3.read(Path::new(row.2))).collect::<Result<Vec<_>, _>>();
    let disk = || -> Result<Vec<f64>, Verdict> {
        let stat = kernel::read(&Path::new("/sys/block").join(kernel::DISK).join("stat"))?;
        Ok(stat.split_whitespace().filter_map(|field| field.parse().ok()).collect())
    };
    let (before, written) = (read()?, disk()?);
    let scraped = daemon.scrape("/metrics/node")?;
    let after = read()?;
    for ((family, labels, _, source, unit), (before, after)) in COUNTERS.iter().zip(before.into_iter().zip(after)) {
        let found = scraped.sum(family, labels);
        let bound = |units: u64| units as f64 / f64::from(*unit);
        ensure(found.is_some_and(|value| (bound(before)..=bound(after)).contains(&value)), || {
            format!("{family} is {found:?}, while {source:?} went from {before} to {after}")
        })?;
    }
    // Sectors have 512 bytes, times are ms.
    for (family, field, factor) in [
        ("node_disk_reads_completed_total", 0, 1.0),
        ("node_disk_written_bytes_total", 6, 512.0),
        ("node_disk_write_time_seconds_total", 7, 0.001),
    ] {
        let found = scraped.sum(family, &[("device", kernel::DISK)]).unwrap_or(f64::NAN);
        let expected = written.get(field).copied().unwrap_or(f64::NAN) * factor;
        // Nobody writes now.
        ensure((found - expected).abs() < 1e-6, || format!("{family} is {found}, not {expected}"))?;
    }
    // A kernel has it if it was built with CONFIG_IRQ_TIME_ACCOUNTING.
    let irq = Path::new("/proc/pressure/irq").exists();
    let told = scraped.families.get("node_pressure_irq_stalled_seconds_total").is_some_and(|of| !of.samples.is_empty());
    ensure(irq == told, || format!("/proc/pressure/irq is there: {irq}, and told: {told}"))?;
    Ok(())
}

/// Modes of both CPUs, which `/proc/stat` has in hundredths of a second.
pub fn cpu_time_is_the_kernel_s(guest: &mut Guest) -> Result<(), Verdict> {
    let daemon = guest.daemon()?;
    let before = cpu_times()?;
    let scraped = daemon.scrape("/metrics/node?collect[]=cpu")?;
    let after = cpu_times()?;
    ensure(before.len() == 8 && after.len() == 8, || format!("two CPUs, four modes: {before:?}"))?;
    for ((cpu, mode, low), (.., high)) in before.iter().zip(&after) {
        let found = scraped.sum("node_cpu_seconds_total", &[("cpu", cpu), ("mode", mode)]);
        ensure(found.is_some_and(|value| (*low..=*high).contains(&value)), || {
            format!("CPU {cpu} was in mode {mode} for {found:?} s, and by the kernel for {low} to {high}")
        })?;
    }
    Ok(())
}

/// CPU, mode, seconds. Time without work is not among them, for it may go backwards.
fn cpu_times() -> Result<Vec<(String, &'static str, f64)>, Verdict> {
    const MODES: [(&str, usize); 4] = [("user", 0), ("nice", 1), ("system", 2), ("softirq", 6)];
    let stat = kernel::read(Path::new("/proc/stat"))?;
    let lines = stat.lines().filter_map(|line| line.strip_prefix("cpu")?.split_once(' '));
    let mut times = Vec::new();
    for (cpu, columns) in lines.filter(|(cpu, _)| !cpu.is_empty()) {
        let columns: Vec<f64> = columns.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let of = MODES.iter().filter_map(|(mode, at)| Some((cpu.to_owned(), *mode, columns.get(*at)? / 100.0)));
        times.extend(of);
    }
    Ok(times)
}

/// The processes of a name are one group, with the threads, memory and time that the kernel says.
pub fn processes_are_in_groups(guest: &mut Guest) -> Result<(), Verdict> {
    let daemon = guest.daemon()?;
    let mut command = std::process::Command::new("/bin/sh");
    command.args(["-c", "cp /bin/busybox /tmp/yes; echo ready; /tmp/yes >/dev/null & /tmp/yes >/dev/null; wait"]);
    let busy = Child::spawn("yes", &mut command)?;
    busy.wait_for_line(PATIENCE, |line| (line == "ready").then_some(()))?;
    let of = |scraped: &Scraped, family: &str| scraped.sum(family, &[("groupname", "yes")]);
    let mut found = None;
    let two = wait_until(PATIENCE, || {
        let scraped = daemon.scrape("/metrics/process").ok()?;
        found = of(&scraped, "namedprocess_namegroup_num_procs");
        (found == Some(2.0)).then_some(())
    });
    ensure(two.is_some(), || format!("there are two processes `yes`, and {found:?} are told"))?;
    let first = daemon.scrape("/metrics/process")?;
    let grown = wait_until(PATIENCE, || {
        let scraped = daemon.scrape("/metrics/process").ok()?;
        let time = |of_one| of(of_one, "namedprocess_namegroup_cpu_seconds_total");
        (time(&scraped) > time(&first)).then_some(scraped)
    });
    let scraped = grown.ok_or_else(|| "the CPU time of two busy processes stays".to_owned())?;
    let threads = of(&scraped, "namedprocess_namegroup_num_threads");
    ensure(threads == Some(2.0), || format!("they have {threads:?} threads"))?;
    let resident = scraped
        .sum("namedprocess_namegroup_memory_bytes", &[("groupname", "yes"), ("memtype", "resident")])
        .unwrap_or_default();
    let mut expected = 0.0;
    for entry in fs::read_dir("/proc")?.flatten() {
        let status = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        if status.starts_with("Name:\tyes\n") {
            let kib =
                status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok());
            expected += kib.unwrap_or(0.0) * 1024.0;
        }
    }
    // The kernel counts pages per CPU, and in batches.
    let slack = f64::from(2 * 2 * 64 * 4096);
    ensure((resident - expected).abs() <= slack && resident > 0.0, || format!("{resident} bytes, and {expected}"))
}
