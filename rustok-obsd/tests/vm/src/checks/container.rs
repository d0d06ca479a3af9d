//! Containers, as cgroup v2 accounts for them.
//!
//! Reads: their cgroups. Yields: verdicts. Costs: two seconds for a container.

use std::fs;

use test_support::{Workload, wait_until};

use crate::guest::{Guest, PATIENCE, Verdict, ensure};

/// Limits are where Kubernetes' go, and the CPU quota bites.
pub fn is_held_to_its_limits(guest: &mut Guest) -> Result<(), Verdict> {
    let workload =
        Workload { script: "while :; do :; done", cpus: Some(0.2), memory: Some(64 << 20), ..Workload::default() };
    let (container, folder) = guest.container(&workload)?;
    let read = |name: &str| fs::read_to_string(folder.join(name));
    for (name, expected) in [("cpu.max", "20000 100000"), ("memory.max", "67108864")] {
        let found = read(name)?;
        ensure(found.trim() == expected, || format!("{name} is {found}, not {expected}"))?;
    }
    let throttled = wait_until(PATIENCE, || {
        let stat = read("cpu.stat").ok()?;
        let count = stat.lines().find_map(|line| line.strip_prefix("nr_throttled ")?.parse::<u64>().ok())?;
        (count > 0).then_some(())
    });
    ensure(throttled.is_some(), || format!("not throttled: {:?}; {}", read("cpu.stat"), container.log()))?;
    let pressure = read("cpu.pressure")?;
    ensure(pressure.starts_with("some avg10="), || format!("cpu.pressure is {pressure}"))
}
