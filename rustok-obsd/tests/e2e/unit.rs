//! The systemd unit: what it grants is what the daemon needs.
//!
//! Reads: `deploy/systemd/rustok-obsd.service`. Yields: fails where a user with its capabilities alone, and with mounts of
//! its own as `ProtectHome` makes them, sees less than root does. Costs: four starts of the daemon.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::Command,
};

use rustok_obsd::probe::kernel::CAPABILITIES;
use test_support::{Scraped, http_get, skip};

use super::{
    faults::{as_nobody, daemon_copy, is_root, or_skip},
    running::{Binary, Daemon, Shop},
    serial,
};

const UNIT: &str = include_str!("../../../deploy/systemd/rustok-obsd.service");

fn line(key: &str) -> &'static str {
    UNIT.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).expect(key)
}

/// The capabilities of the unit, for setpriv.
fn granted() -> String {
    assert_eq!(line("AmbientCapabilities"), line("CapabilityBoundingSet"));
    let bit = |granted: &str| CAPABILITIES.iter().find(|known| known.name == granted).expect("one that is needed").bit;
    line("AmbientCapabilities").split_whitespace().map(|granted| format!(",+cap_{}", bit(granted))).collect()
}

#[test]
fn with_the_capabilities_of_the_systemd_unit_other_users_processes_are_observed() {
    let name = "with_the_capabilities_of_the_systemd_unit_other_users_processes_are_observed";
    let mut words = line("ExecStart").split_whitespace().skip(1);
    assert_eq!((words.next(), words.next()), (Some("run"), Some("--config.file")));

    let _alone = serial();
    or_skip!(name, is_root());
    let (binary, shop) = (or_skip!(name, daemon_copy()), or_skip!(name, Binary::shop()));
    let server = or_skip!(name, Shop::start(&shop.path));
    let file = shop.folder.path().join("config.toml");
    fs::write(&file, format!("[[targets]]\nexe = {:?}\n", shop.text())).expect("write");
    let command = as_nobody(&binary.path, &granted());
    let daemon = or_skip!(name, Daemon::start_with(command, &["--config.file", &file.to_string_lossy()]));
    let daemon = or_skip!(name, daemon.ready());
    daemon.observes(server.child.id());
    assert_eq!(daemon.probe("axum_matched_path", &shop.path), ("attached".into(), String::new()));
    server.get("/api/slow/1", 3);
    daemon.counts(3.0, "rustok_http_requests_total", &[("path", "/api/slow/{ms}"), ("status", "200")]);
}

/// What one daemon tells of the host, its processes and its containers.
struct Told {
    node: Scraped,
    process: Scraped,
    cadvisor: Scraped,
}

impl Told {
    fn by(daemon: &Daemon) -> Self {
        let get = |path: &str| {
            let (status, _, body) = http_get(daemon.address, path).expect("it answers");
            assert_eq!(status, 200, "{path}");
            Scraped::parse(&String::from_utf8_lossy(&body)).expect("text format")
        };
        Self { node: get("/metrics/node"), process: get("/metrics/process"), cadvisor: get("/metrics/cadvisor") }
    }

    /// Collectors with data.
    fn collectors(&self) -> BTreeSet<&str> {
        let samples = &self.node.families["node_scrape_collector_success"].samples;
        let fine = samples.iter().filter(|(_, value)| **value == 1.0);
        fine.map(|((_, labels), _)| labels["collector"].as_str()).collect()
    }

    /// Processes that could be read in part only.
    fn partial(&self) -> f64 {
        self.process.families["namedprocess_scrape_partial_errors"].samples.values().sum()
    }

    /// Sizes of file systems by mount point, and by device as cAdvisor tells them.
    fn sizes(&self) -> BTreeMap<(&'static str, &str), f64> {
        let mut sizes = BTreeMap::new();
        for (scraped, name, label) in [
            (&self.node, "node_filesystem_size_bytes", "mountpoint"),
            (&self.cadvisor, "container_fs_limit_bytes", "device"),
        ] {
            let Some(family) = scraped.families.get(name) else { continue };
            sizes.extend(family.samples.iter().map(|((_, labels), size)| ((name, labels[label].as_str()), *size)));
        }
        sizes
    }
}

#[test]
fn with_the_capabilities_of_the_systemd_unit_the_host_is_told_as_to_root() {
    let name = "with_the_capabilities_of_the_systemd_unit_the_host_is_told_as_to_root";
    // Collectors that are off by default and read what is root's, or make system calls of their own.
    let flags = ["--collector.slabinfo", "--collector.processes", "--collector.tcpstat", "--process.smaps"];
    let _alone = serial();
    or_skip!(name, is_root());
    let binary = or_skip!(name, daemon_copy());
    let root = Told::by(&or_skip!(name, Daemon::start_with(Command::new(&binary.path), &flags)));
    let bare = Told::by(&or_skip!(name, Daemon::start_with(as_nobody(&binary.path, ""), &flags)));
    // As ProtectHome does, something lies over a mount of the host's in the daemon's sight.
    let covered = root.sizes().into_keys().find(|(family, place)| family.starts_with("node_") && *place != "/");
    let covered = covered.map_or_else(|| "/home".to_owned(), |(_, place)| place.to_owned());
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-ec", "mount -t tmpfs -o size=64k none \"$0\"; exec \"$@\"", &covered, "setpriv"]);
    command.args(as_nobody(&binary.path, &granted()).get_args()).current_dir("/");
    let unit = Told::by(&or_skip!(name, Daemon::start_with(command, &flags)));

    let missing: Vec<_> = root.collectors().difference(&unit.collectors()).copied().collect();
    assert!(missing.is_empty(), "collectors that root alone has: {missing:?}");
    assert!(root.collectors().contains("timex") && !bare.collectors().contains("slabinfo"), "{:?}", bare.collectors());
    // Other users' descriptors, I/O and memory. The slack is for what ends meanwhile.
    let [root_partial, unit_partial, bare_partial] = [&root, &unit, &bare].map(Told::partial);
    assert!(unit_partial <= root_partial + 2.0, "{unit_partial} processes are told in part, {root_partial} to root");
    assert!(bare_partial > unit_partial, "{bare_partial} without capabilities, {unit_partial} with");
    assert_eq!(unit.sizes(), root.sizes(), "{covered} is covered");
    let usage = &unit.cadvisor.families["container_memory_usage_bytes"].samples;
    let all = &root.cadvisor.families["container_memory_usage_bytes"].samples;
    assert!(usage.len() + 5 > all.len(), "{} cgroups, {} for root", usage.len(), all.len());
    eprintln!("the unit's user: {} collectors, {} cgroups, as root", unit.collectors().len(), usage.len());
}
