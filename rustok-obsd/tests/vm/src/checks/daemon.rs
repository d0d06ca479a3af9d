//! The daemon on this kernel.
//!
//! Reads: its `/metrics`, its log, its `/proc/PID`. Yields: verdicts. Costs: its start; one more daemon.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::guest::{DAEMON, Daemon, Guest, Verdict, ensure};
use crate::system::busybox;

/// It starts, and exposes its own build.
pub fn serves_metrics(guest: &mut Guest) -> Result<(), Verdict> {
    let metrics = guest.daemon()?.text("/metrics")?;
    ensure(metrics.contains("\nrustok_obsd_build_info{"), || format!("no build_info: {metrics}"))
}

/// In a mount namespace of its own, as its systemd unit gives it one, where a mount hides one of the host's: the host's is
/// told.
pub fn tells_mounts_of_the_host(_: &mut Guest) -> Result<(), Verdict> {
    let place = Path::new("/tmp/shadowed");
    fs::create_dir_all(place)?;
    busybox(&["mount", "-t", "tmpfs", "-o", "size=1m", "shadowed", "/tmp/shadowed"])?;
    let result = size_in_a_namespace();
    busybox(&["umount", "/tmp/shadowed"])?;
    let sizes = result?;
    let right = sizes == [Some(f64::from(1 << 20)); 2];
    ensure(right, || {
        format!("{sizes:?} bytes, by node_exporter's and cAdvisor's names; what the daemon sees there has 2 MiB")
    })
}

fn size_in_a_namespace() -> Result<[Option<f64>; 2], Verdict> {
    let script = format!(
        "mount -t tmpfs -o size=2m hides /tmp/shadowed && exec {DAEMON} run --ebpf.host-events=false \
         --web.listen-address=127.0.0.1:0"
    );
    let mut command = Command::new("/bin/busybox");
    command.args(["unshare", "--mount", "--propagation", "private", "/bin/sh", "-c", &script]);
    let daemon = Daemon::start(&mut command)?;
    let seen = fs::read_to_string(format!("/proc/{}/mounts", daemon.pid()))?;
    ensure(seen.contains("hides /tmp/shadowed "), || format!("nothing is hidden from it: {seen}"))?;
    let node = daemon.scrape("/metrics/node?collect[]=filesystem")?;
    let cadvisor = daemon.scrape("/metrics/cadvisor")?;
    Ok([
        node.sum("node_filesystem_size_bytes", &[("mountpoint", "/tmp/shadowed")]),
        cadvisor.sum("container_fs_limit_bytes", &[("device", "/tmp/shadowed")]),
    ])
}

/// What must not have happened in all these checks.
const LOSSES: [(&str, &str); 5] = [
    ("rustok_obsd_host_events_lost_total", "events of the kernel were lost"),
    ("rustok_obsd_host_events_incomplete_total", "events of the kernel lack fields"),
    ("namedprocess_scrape_errors", "processes could not be listed"),
    ("container_scrape_error", "cgroups could not be read"),
    ("machine_scrape_error", "the machine could not be read"),
];

/// After all the other checks: it is the same process, it said nothing of a panic, and what it tells of itself is what the
/// kernel does.
pub fn is_well(guest: &mut Guest) -> Result<(), Verdict> {
    let daemon = guest.daemon()?;
    let log = daemon.log();
    ensure(!log.contains("panicked"), || log.clone())?;
    let stat = fs::read_to_string(format!("/proc/{}/stat", daemon.pid()))?;
    ensure(stat.contains("(rustok-obsd)"), || format!("the daemon is gone: {stat}; {log}"))?;
    let before = daemon.resident()?;
    let scraped = daemon.scrape("/metrics")?;
    let after = daemon.resident()?;
    for (family, what) in LOSSES {
        let found = scraped.sum(family, &[]);
        ensure(found.is_none_or(|count| count == 0.0), || format!("{what}: {:?}", scraped.families.get(family)))?;
    }
    let told = scraped.sum("process_resident_memory_bytes", &[]).unwrap_or_default();
    // Pages are counted in batches of 64 a CPU; the scrape itself may take some.
    let slack = 2 * 64 * 4096;
    let bounds = (before.saturating_sub(slack)) as f64..=(after + slack) as f64;
    ensure(bounds.contains(&told), || format!("process_resident_memory_bytes is {told}, not in {bounds:?}"))?;
    let warnings = log.lines().filter(|line| line.contains("WARN") || line.contains("ERROR"));
    let warnings: Vec<_> = warnings.collect();
    guest.note(format!("{} KiB of memory; {} series", after >> 10, series(&scraped)));
    guest.note(format!("warnings: {warnings:?}"));
    Ok(())
}

fn series(scraped: &test_support::Scraped) -> usize {
    scraped.families.values().map(|family| family.samples.len()).sum()
}
