//! Many containers that come and go.
//!
//! Reads: `/metrics/cadvisor`, the daemon's `/proc/PID`. Yields: verdicts. Costs: 200 cgroups with a process each.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command};

use test_support::Scraped;

use crate::guest::{CGROUPS, Daemon, Guest, Verdict, ensure};
use crate::kernel::Cgroup;

const ROUNDS: usize = 5;
const EACH: usize = 40;
/// What the daemon may grow by in a round: 4 KiB a container. What leaks grows in every round; a thread that gets its
/// buffers late is one larger step, and there may be one.
const STEP: u64 = (EACH as u64) << 12;
/// That step, and all of them together.
const GROWTH: u64 = 8 << 20;

/// What should be the same before and after.
#[derive(Debug, PartialEq)]
struct Held {
    cgroups: Option<f64>,
    watches: Option<f64>,
    files: Option<f64>,
    descriptors: usize,
}

/// All are seen by event, and when they are gone nothing of them is left.
pub fn leaves_nothing_behind(guest: &mut Guest) -> Result<(), Verdict> {
    let daemon = guest.daemon()?;
    let parent = Cgroup::new(PathBuf::from(format!("{CGROUPS}/kubepods/churn")))?;
    let controllers = parent.folder().join("cgroup.subtree_control");
    for folder in [PathBuf::from(CGROUPS), PathBuf::from(format!("{CGROUPS}/kubepods"))] {
        fs::write(folder.join("cgroup.subtree_control"), "+cpu +io +memory +pids")?;
    }
    fs::write(controllers, "+cpu +io +memory +pids")?;
    let scraped = daemon.scrape("/metrics/cadvisor")?;
    let (held, looks) = (held(&daemon, &scraped)?, looks(&scraped));
    let mut resident = Vec::new();
    for round in 0..ROUNDS {
        let containers = (0..EACH).map(|number| Sleeper::start(&parent, round * EACH + number));
        let containers = containers.collect::<Result<Vec<_>, _>>()?;
        let scraped = daemon.scrape("/metrics/cadvisor")?;
        for container in &containers {
            // What the process has was charged before it came here.
            let usage = scraped.sum("container_memory_usage_bytes", &[("name", &container.id)]);
            ensure(usage.is_some(), || format!("round {round}: {} is not told", container.id))?;
        }
        drop(containers);
        let scraped = daemon.scrape("/metrics/cadvisor")?;
        let left = of_churn(&scraped);
        ensure(left == 0, || format!("round {round}: {left} containers are told that are gone"))?;
        resident.push(daemon.resident()?);
    }
    let scraped = daemon.scrape("/metrics/cadvisor")?;
    let after = self::held(&daemon, &scraped)?;
    ensure(after == held, || format!("{held:?} became {after:?}"))?;
    let looked = self::looks(&scraped);
    ensure(looked == looks, || format!("the tree was looked through again: {looks:?}, then {looked:?}"))?;
    let kib: Vec<_> = resident.iter().map(|bytes| bytes >> 10).collect();
    guest.note(format!("KiB after each {EACH} containers: {kib:?}"));
    ensure(is_flat(&resident), || format!("the daemon grows: {kib:?} KiB after each {EACH}"))
}

fn is_flat(resident: &[u64]) -> bool {
    let mut steps: Vec<_> = resident.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).collect();
    steps.sort_unstable();
    let largest = steps.pop().unwrap_or_default();
    steps.iter().all(|step| *step <= STEP) && largest + steps.iter().sum::<u64>() <= GROWTH
}

fn held(daemon: &Daemon, scraped: &Scraped) -> Result<Held, Verdict> {
    Ok(Held {
        cgroups: scraped.sum("rustok_obsd_containers", &[]),
        watches: scraped.sum("rustok_obsd_container_watches", &[]),
        files: scraped.sum("rustok_obsd_container_open_files", &[]),
        descriptors: descriptors(daemon)?,
    })
}

/// Descriptors but for sockets: those of scrapes may be closing still.
fn descriptors(daemon: &Daemon) -> Result<usize, Verdict> {
    let all = fs::read_dir(format!("/proc/{}/fd", daemon.pid()))?.flatten();
    let targets = all.filter_map(|entry| fs::read_link(entry.path()).ok());
    Ok(targets.filter(|target| !target.to_string_lossy().starts_with("socket:")).count())
}

/// Looks through the whole tree, for whatever reason.
fn looks(scraped: &Scraped) -> Option<f64> {
    scraped.sum("rustok_obsd_container_rescans_total", &[])
}

/// Containers of this check that have series.
fn of_churn(scraped: &Scraped) -> usize {
    let usage = scraped.families.get("container_last_seen").map(|family| &family.samples);
    let ids = usage.into_iter().flatten().filter_map(|((_, labels), _)| labels.get("id"));
    ids.filter(|id| id.starts_with("/kubepods/churn/")).count()
}

/// A cgroup as a container's, with a process that sleeps.
struct Sleeper {
    id: String,
    process: Child,
    cgroup: Cgroup,
}

impl Sleeper {
    fn start(parent: &Cgroup, number: usize) -> Result<Self, Verdict> {
        let id = format!("{number:064x}");
        let cgroup = Cgroup::new(parent.folder().join(&id))?;
        let process = Command::new("/bin/sleep").arg("1000").spawn()?;
        let sleeper = Self { id, process, cgroup };
        fs::write(sleeper.cgroup.folder().join("cgroup.procs"), sleeper.process.id().to_string())?;
        Ok(sleeper)
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        // The cgroup goes after this.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_step_is_no_leak_and_many_are() {
        let mib = |quarters: &[u64]| quarters.iter().map(|quarter| quarter << 18).collect::<Vec<_>>();
        assert!(is_flat(&mib(&[120, 120, 134, 134, 134])));
        assert!(is_flat(&mib(&[120, 119, 121, 118, 118])));
        assert!(!is_flat(&mib(&[120, 121, 122, 123, 124])));
        assert!(!is_flat(&mib(&[120, 120, 160, 160, 160])));
    }
}
