//! What the other checks build upon: this machine is the one that they mean.
//!
//! Reads: `/proc`, `/sys`. Yields: verdicts. Costs: nothing.

use std::fs;

use crate::guest::{Guest, Verdict, ensure};

/// No controller is held by a hierarchy of version 1, and those that limit containers are there.
pub fn v2_is_the_only_hierarchy(_: &mut Guest) -> Result<(), Verdict> {
    let own = fs::read_to_string("/proc/self/cgroup")?;
    ensure(own.trim() == "0::/", || format!("/proc/self/cgroup is {own}"))?;
    let controllers = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers")?;
    let there = |name: &&str| controllers.split_whitespace().any(|controller| controller == *name);
    let missing: Vec<_> = ["cpu", "io", "memory", "pids"].into_iter().filter(|name| !there(name)).collect();
    ensure(missing.is_empty(), || format!("no controller {missing:?} among {controllers}"))
}

/// Pressure stall information, of the machine.
pub fn pressure_is_accounted(_: &mut Guest) -> Result<(), Verdict> {
    for resource in ["cpu", "io", "memory"] {
        let text = fs::read_to_string(format!("/proc/pressure/{resource}"))?;
        ensure(text.starts_with("some avg10="), || format!("/proc/pressure/{resource} is {text}"))?;
    }
    Ok(())
}

/// 64 MB, for whoever wants to write to a real queue.
pub fn a_disk_is_there(_: &mut Guest) -> Result<(), Verdict> {
    let sectors = fs::read_to_string("/sys/block/nvme0n1/size")?;
    ensure(sectors.trim() == "131072", || format!("/dev/nvme0n1 has {sectors} sectors"))
}
