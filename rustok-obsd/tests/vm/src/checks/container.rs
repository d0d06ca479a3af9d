//! Containers, as cgroup v2 accounts for them.
//!
//! Reads: their cgroups. Yields: verdicts. Costs: two seconds for a container.

use std::fs;
use std::path::Path;

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

/// What a container writes to the disk is counted for it, and so is the time that it waited.
pub fn writes_are_counted(guest: &mut Guest) -> Result<(), Verdict> {
    let disk = Path::new("/dev/nvme0n1");
    let workload = Workload {
        script: "dd if=/dev/zero of=/disk bs=1048576 count=8 conv=fsync && echo written && sleep 1000",
        binds: &[(disk, "/disk")],
        ..Workload::default()
    };
    let (container, folder) = guest.container(&workload)?;
    let written = wait_until(PATIENCE, || container.log().contains("written").then_some(()));
    ensure(written.is_some(), || format!("nothing written: {}", container.log()))?;
    let device = fs::read_to_string("/sys/block/nvme0n1/dev")?;
    let stat = fs::read_to_string(folder.join("io.stat"))?;
    let bytes = stat.lines().find_map(|line| {
        let words = line.strip_prefix(device.trim())?.split_whitespace();
        words.filter_map(|word| word.strip_prefix("wbytes=")).find_map(|bytes| bytes.parse::<u64>().ok())
    });
    ensure(bytes == Some(8 << 20), || format!("io.stat for {}: {stat}", device.trim()))?;
    let pressure = fs::read_to_string(folder.join("io.pressure"))?;
    ensure(pressure.lines().any(|line| line.starts_with("full ") && !line.ends_with(" total=0")), || {
        format!("io.pressure after a fsync of 8 MB is {pressure}")
    })
}

/// A container that needs more memory than it may have is killed, and its cgroup says so.
pub fn out_of_memory_is_counted(guest: &mut Guest) -> Result<(), Verdict> {
    // `tail` keeps the last line, and that one has no end. The shell stays: so does the container.
    let workload = Workload { script: "tail /dev/zero; sleep 1000", memory: Some(32 << 20), ..Workload::default() };
    let (container, folder) = guest.container(&workload)?;
    let read = || fs::read_to_string(folder.join("memory.events"));
    let killed = wait_until(PATIENCE, || {
        let events = read().ok()?;
        let kills = events.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse::<u64>().ok())?;
        (kills > 0).then_some(())
    });
    ensure(killed.is_some(), || format!("no kill: {:?}; {}", read(), container.log()))?;
    ensure(container.is_running(), || format!("the shell was killed: {}", container.log()))
}
