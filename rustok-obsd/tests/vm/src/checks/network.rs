//! The network of a container.
//!
//! Reads: `/metrics/cadvisor`; `/proc/PID/net/dev` of its process. Yields: verdicts. Costs: a container, a pair of
//! interfaces.

use std::path::{Path, PathBuf};

use test_support::{LabelMap, Workload};

use crate::guest::{Guest, Verdict, ensure};
use crate::kernel;
use crate::system::busybox;

const MODULE: &str = "/lib/veth.ko";
const OURS: &str = "vethours";
/// What the kernel names the other end, and what it is named in the container.
const PEER: &str = "veth0";
const THEIRS: &str = "eth0";

/// Families with the column of `/proc/net/dev` that each tells.
const FAMILIES: [(&str, usize); 8] = [
    ("container_network_receive_bytes_total", 0),
    ("container_network_receive_packets_total", 1),
    ("container_network_receive_errors_total", 2),
    ("container_network_receive_packets_dropped_total", 3),
    ("container_network_transmit_bytes_total", 8),
    ("container_network_transmit_packets_total", 9),
    ("container_network_transmit_errors_total", 10),
    ("container_network_transmit_packets_dropped_total", 11),
];

/// Its interface is told under its own labels, its loopback and our end of the pair are not.
pub fn of_a_container_is_told(guest: &mut Guest) -> Result<(), Verdict> {
    if !Path::new(MODULE).exists() {
        return Err(Verdict::Skip("no module veth beside the kernel; see `cargo xtask setup --tests`".to_owned()));
    }
    let daemon = guest.daemon()?;
    let (container, _) = guest.container(&Workload { script: "sleep 1000", ..Workload::default() })?;
    let pid = container.pid().to_string();
    busybox(&["insmod", MODULE])?;
    // busybox knows no `peer name`.
    busybox(&["ip", "link", "add", OURS, "type", "veth"])?;
    busybox(&["ip", "link", "set", PEER, "netns", &pid])?;
    busybox(&["ip", "addr", "add", "10.9.0.1/24", "dev", OURS])?;
    busybox(&["ip", "link", "set", OURS, "up"])?;
    let inside = |args: &[&str]| busybox(&[&["nsenter", "-t", &pid, "-n", "/bin/busybox"], args].concat());
    inside(&["ip", "link", "set", PEER, "name", THEIRS])?;
    inside(&["ip", "addr", "add", "10.9.0.2/24", "dev", THEIRS])?;
    inside(&["ip", "link", "set", THEIRS, "up"])?;
    busybox(&["ping", "-c", "3", "-s", "1000", "10.9.0.2"])?;

    let file = PathBuf::from(format!("/proc/{pid}/net/dev"));
    let before = columns(&file)?;
    let scraped = daemon.scrape("/metrics/cadvisor")?;
    let after = columns(&file)?;
    for (family, column) in FAMILIES {
        let samples = scraped.families.get(family).map(|family| &family.samples);
        let told: Vec<_> = samples.into_iter().flatten().map(|((_, labels), value)| (labels, *value)).collect();
        let is = |labels: &LabelMap, label: &str, value: &str| labels.get(label).is_some_and(|of| of == value);
        let own: Vec<_> = told.iter().filter(|(labels, _)| is(labels, "id", &container.cgroup())).collect();
        let (low, high) = (before[column], after[column]);
        let right = matches!(own[..], [(labels, value)] if labels.len() == 3
            && is(labels, "name", container.id())
            && is(labels, "interface", THEIRS)
            && (low..=high).contains(value));
        ensure(right, || format!("{family} is {own:?}, while the kernel's went from {low} to {high}"))?;
        let ours: Vec<_> = told.iter().filter(|(labels, _)| is(labels, "interface", OURS)).collect();
        ensure(ours.is_empty(), || format!("the host's end of a container's network is told: {ours:?}"))?;
    }
    // Three echoes of 1000 bytes and their headers, each way.
    ensure(before[0] > 3000.0 && before[8] > 3000.0, || format!("no traffic: {before:?}"))
}

/// The numbers of the container's interface.
fn columns(file: &Path) -> Result<Vec<f64>, Verdict> {
    let text = kernel::read(file)?;
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix(THEIRS)?.strip_prefix(':'));
    let numbers: Vec<_> =
        line.into_iter().flat_map(str::split_whitespace).filter_map(|word| word.parse().ok()).collect();
    ensure(numbers.len() == 16, || format!("no {THEIRS} in {}: {text}", file.display()))?;
    Ok(numbers)
}
