//! node_exporter's fixture tree: our output against its expected output, family by family.
//!
//! Reads: `node_exporter/` of the fixtures. Yields: a table of families passed per collector; fails where a collector that is
//! ours differs in a family, its type, HELP, labels or a value. What is not ours is listed with its reason below.

use rustok_obsd::config::Paths;
use rustok_obsd::config::collector::{Collectors, Pattern};
use rustok_obsd::exposition::{Format, Scrape, to_text_of};
use rustok_obsd::host::{COLLECTORS, Host, Settings};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use test_support::{Scraped, ScrapedFamily, Skip, skip, ttar};

/// Collectors of the expected output that are out of scope, and why.
const OUT_OF_SCOPE: &[(&str, &str)] = &[
    (
        "qdisc",
        "off by default; the kernel tells it by netlink only, which the fixture stands for with a file of upstream's own",
    ),
    (
        "wifi",
        "off by default; the kernel tells it by netlink only, which the fixture stands for with files of upstream's own",
    ),
];

/// Prefixes of names whose collector is not their second word; the longest that fits counts.
const OWNERS: &[(&str, &str)] = &[
    ("node_boot_time_", "stat"),
    ("node_context_switches_", "stat"),
    ("node_cooling_device_", "thermal_zone"),
    ("node_cpu_frequency_avg_", "cpufreq"),
    ("node_cpu_frequency_max_", "cpufreq"),
    ("node_cpu_frequency_min_", "cpufreq"),
    ("node_cpu_scaling_", "cpufreq"),
    ("node_cpu_vulnerabilities_", "cpu_vulnerabilities"),
    ("node_disk_", "diskstats"),
    ("node_filefd_", "filefd"),
    ("node_forks_", "stat"),
    ("node_intr_", "stat"),
    ("node_kernel_hung_", "kernel_hung"),
    ("node_load", "loadavg"),
    ("node_md_", "mdadm"),
    ("node_memory_numa_", "meminfo_numa"),
    ("node_memory_", "meminfo"),
    ("node_mountstats_", "mountstats"),
    ("node_net_", "lnstat"),
    ("node_network_", "netclass"),
    ("node_network_receive_", "netdev"),
    ("node_network_transmit_", "netdev"),
    ("node_network_transmit_queue_length", "netclass"),
    ("node_nf_conntrack_", "conntrack"),
    ("node_os_", "os"),
    ("node_power_supply_", "powersupplyclass"),
    ("node_procs_", "stat"),
    ("node_softirqs_functions_", "softirqs"),
    ("node_softirqs_", "stat"),
    ("node_tape_", "tapestats"),
    ("node_tcp_connection_", "tcpstat"),
    ("node_textfile_", "textfile"),
    ("testmetric", "textfile"),
    ("node_thermal_zone_", "thermal_zone"),
    ("node_udp_", "udp_queues"),
    ("node_zoneinfo_", "zoneinfo"),
];

fn owner(family: &str) -> &str {
    let special = OWNERS.iter().filter(|(prefix, _)| family.starts_with(prefix)).max_by_key(|(prefix, _)| prefix.len());
    special.map_or_else(|| family.split('_').nth(1).unwrap_or(family), |(_, owner)| owner)
}

/// What upstream leaves out of its own comparison, for it depends on the machine.
fn left_out(family: &str) -> bool {
    let machine = [
        "go_",
        "process_",
        "promhttp_",
        "node_exporter_build_info",
        "node_scrape_collector_",
        "node_textfile_mtime_seconds",
    ];
    // The tree has no net/dev: as upstream's, the interface is this machine's own `lo`.
    let live = [
        "node_time_zone",
        "node_time_seconds",
        "node_network_receive_bytes_total",
        "node_network_receive_packets_total",
        "node_network_transmit_bytes_total",
        "node_network_transmit_packets_total",
        "rustok_obsd_",
    ];
    machine.iter().chain(&live).any(|prefix| family.starts_with(prefix))
}

/// The fixtures' folder.
pub fn fixtures() -> Result<PathBuf, Skip> {
    let named = std::env::var_os("RUSTOK_OBSD_FIXTURES").map(PathBuf::from);
    let folder = named.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/fixtures"));
    let found = folder.join("node_exporter/fixtures/e2e-output.txt").is_file();
    found
        .then_some(folder)
        .ok_or_else(|| Skip::new("the fixtures are absent; name their folder in RUSTOK_OBSD_FIXTURES"))
}

/// A copy of the tree with its archives unpacked.
pub fn unpacked(fixtures: &Path) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let copy = |from: &str| {
        let status =
            Command::new("cp").arg("-a").arg(fixtures.join("node_exporter").join(from)).arg(folder.path()).status();
        assert!(status.expect("cp runs").success());
    };
    ["fixtures", "fixtures_bindmount", "fixtures_hidepid"].iter().for_each(|from| copy(from));
    // Links that were stored as files with their targets, as some systems do.
    let link = folder.path().join("fixtures/proc/self");
    if let Ok(target) = fs::read_to_string(&link) {
        fs::remove_file(&link).and_then(|()| std::os::unix::fs::symlink(target.trim(), &link)).expect("a link");
    }
    for archive in ["sys.ttar", "udev.ttar"] {
        let path = folder.path().join("fixtures").join(archive);
        let text = fs::read_to_string(path).expect("the archive");
        ttar::unpack(&text, &folder.path().join("fixtures")).expect("unpacked");
    }
    folder
}

/// The options that stand for upstream's flags (end-to-end-test.sh).
pub fn settings(root: &Path) -> Settings {
    let pattern = |text: &str| Pattern::parse(text).expect("a pattern");
    let mut options = Collectors::default();
    let not_compared =
        ["nvmesubsystem", "network_route", "filesystem", "timex", "uname", "systemd", "selinux", "tcpstat", "otel"];
    options.enable = COLLECTORS.iter().map(|entry| entry.name.to_owned()).collect();
    options.disable = not_compared.map(Into::into).to_vec();
    options.cpu_info = true;
    options.cpu_bugs_include = pattern("^(cpu_meltdown|spectre_.*|mds)$");
    options.cpu_flags_include = pattern("^(aes|avx.?|constant_tsc)$");
    options.arp_device_exclude = pattern("nope");
    options.arp_netlink = false;
    options.bcache_priority_stats = true;
    options.hwmon_chip_include = pattern("(applesmc|asus_nb_wmi|coretemp|hwmon4|ieee80211|nct6779)");
    options.netclass_ignore_invalid_speed = true;
    options.netclass_ignored_devices = pattern("(dmz|int)");
    options.netclass_netlink = false;
    options.netdev_device_include = pattern("lo");
    options.stat_softirq = true;
    options.sysctl_include =
        ["fs.file-nr", "fs.file-nr:total,current,max", "kernel.threads-max"].map(Into::into).to_vec();
    options.sysctl_include_info = vec!["kernel.seccomp.actions_avail".into()];
    options.textfile_directory = vec![root.join("textfile/two_metric_files").display().to_string()];
    let paths = Paths {
        procfs: root.join("proc"),
        sysfs: root.join("sys"),
        rootfs: root.to_owned(),
        udev_data: root.join("udev/data"),
    };
    Settings { paths, options }
}

#[test]
fn the_fixture_tree_gives_the_expected_output() {
    let fixtures = match fixtures() {
        Ok(fixtures) => fixtures,
        Err(reason) => return skip("the_fixture_tree_gives_the_expected_output", reason),
    };
    let folder = unpacked(&fixtures);
    let root = folder.path().join("fixtures");
    let text = to_text_of(&Host::new(&settings(&root)), &Scrape::default(), Format::Text);
    // Paths are told as they were configured; upstream's were these.
    // Upstream's HELP names files relative to its repository.
    let text = text.replace(&root.display().to_string(), "collector/fixtures");
    let ours = Scraped::parse(&text).unwrap();
    let expected = fs::read_to_string(root.join("e2e-output.txt")).unwrap();
    let expected = Scraped::parse(&expected).unwrap();
    // Passed, missing or different, by collector.
    let mut table: BTreeMap<&str, (usize, Vec<String>)> = BTreeMap::new();
    for (name, family) in expected.families.iter().filter(|(name, _)| !left_out(name)) {
        let (passed, wrong) = table.entry(owner(name)).or_default();
        match ours.families.get(name).map(|ours| difference(ours, family)) {
            Some(None) => *passed += 1,
            Some(Some(difference)) => wrong.push(format!("{name}: {difference}")),
            None => wrong.push(format!("{name}: missing")),
        }
    }
    for name in ours.families.keys().filter(|name| !left_out(name) && !expected.families.contains_key(*name)) {
        table.entry(owner(name)).or_default().1.push(format!("{name}: not expected"));
    }
    let built = |collector: &str| COLLECTORS.iter().any(|entry| entry.name == collector);
    let mut failed = 0;
    println!("{:<22} passed  of", "collector");
    for (collector, (passed, wrong)) in &table {
        let reason = OUT_OF_SCOPE.iter().find(|(name, _)| name == collector).map(|(_, reason)| *reason);
        let note = match reason {
            Some(reason) => format!("out of scope: {reason}"),
            None if !built(collector) => "not built".into(),
            None => String::new(),
        };
        println!("{collector:<22} {passed:>6} {:>3}  {note}", passed + wrong.len());
        if reason.is_none() && built(collector) {
            wrong.iter().for_each(|line| println!("    {line}"));
            failed += wrong.len();
        }
    }
    let passed: usize = table.values().map(|(passed, _)| passed).sum();
    println!("{passed} of {} families", expected.families.keys().filter(|name| !left_out(name)).count());
    assert_eq!(failed, 0, "families differ, see above");
}

/// What differs, first things first.
fn difference(ours: &ScrapedFamily, expected: &ScrapedFamily) -> Option<String> {
    if ours.kind != expected.kind {
        return Some(format!("type {} instead of {}", ours.kind, expected.kind));
    }
    if ours.help != expected.help {
        return Some(format!("HELP {:?} instead of {:?}", ours.help, expected.help));
    }
    for (series, value) in &expected.samples {
        match ours.samples.get(series) {
            None => return Some(format!("{series:?} is missing; there: {:?}", ours.samples.keys().next())),
            Some(ours) if ours.to_bits() != value.to_bits() && (ours - value).abs() > value.abs() * 1e-12 => {
                return Some(format!("{series:?} is {ours} instead of {value}"));
            }
            Some(_) => {}
        }
    }
    let extra = ours.samples.keys().find(|series| !expected.samples.contains_key(*series));
    extra.map(|series| format!("{series:?} is not expected"))
}
