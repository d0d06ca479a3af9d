//! The systemd unit: what it grants is what the daemon needs.
//!
//! Reads: `deploy/systemd/rustok-obsd.service`. Yields: fails where a user with its capabilities alone sees less
//! than root does, and where its filter stops a system call that the daemon makes. Costs: five starts of the daemon.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use rustok_obsd::{
    confine::{NEEDED, system_call_names},
    probe::kernel::CAPABILITIES,
};
use test_support::{Scraped, Skip, http_get, skip, wait_until};

use super::{
    faults::{as_nobody, daemon_copy, is_root, or_skip},
    running::{Binary, Daemon, PATIENCE, Shop},
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

/// The command in a mount namespace whose procfs is as the unit has it.
fn below_own_procfs(command: &Command) -> Command {
    let mut outer = Command::new("unshare");
    outer.args(["--mount", "sh", "-ec", "mount -t proc -o hidepid=ptraceable proc /proc; exec \"$0\" \"$@\""]);
    outer.arg(command.get_program()).args(command.get_args()).current_dir("/");
    outer
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
    // ProtectProc=ptraceable: a procfs that shows what one may trace, which the unit's capabilities make everything.
    assert_eq!(line("ProtectProc"), "ptraceable");
    let unit = as_nobody(&binary.path, &granted());
    let unit = Told::by(&or_skip!(name, Daemon::start_with(below_own_procfs(&unit), &flags)));
    let missing: Vec<_> = root.collectors().difference(&unit.collectors()).copied().collect();
    assert!(missing.is_empty(), "collectors that root alone has: {missing:?}");
    assert!(root.collectors().contains("timex") && !bare.collectors().contains("slabinfo"), "{:?}", bare.collectors());
    // Other users' descriptors, I/O and memory. The slack is for what ends meanwhile.
    let [root_partial, unit_partial, bare_partial] = [&root, &unit, &bare].map(Told::partial);
    assert!(unit_partial <= root_partial + 2.0, "{unit_partial} processes are told in part, {root_partial} to root");
    assert!(bare_partial > unit_partial, "{bare_partial} without capabilities, {unit_partial} with");
    let usage = &unit.cadvisor.families["container_memory_usage_bytes"].samples;
    let all = &root.cadvisor.families["container_memory_usage_bytes"].samples;
    assert!(usage.len() + 5 > all.len(), "{} cgroups, {} for root", usage.len(), all.len());
    eprintln!("the unit's user: {} collectors, {} cgroups, as root", unit.collectors().len(), usage.len());
}

/// The system calls of a set of systemd's.
fn set(name: &str) -> Result<BTreeSet<String>, Skip> {
    let output = Command::new("systemd-analyze").args(["syscall-filter", name]).output();
    let output = output.map_err(|error| Skip::new(format!("systemd-analyze: {error}: install systemd")))?;
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    let words = text.lines().skip(1).map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    expanded(words)
}

fn expanded<'w>(words: impl Iterator<Item = &'w str>) -> Result<BTreeSet<String>, Skip> {
    let mut calls = BTreeSet::new();
    for word in words {
        match word.starts_with('@') {
            true => calls.append(&mut set(word)?),
            false => calls.extend([word.to_owned()]),
        }
    }
    Ok(calls)
}

/// The system calls that the unit allows.
fn allowed() -> Result<BTreeSet<String>, Skip> {
    let mut calls = BTreeSet::new();
    for filter in UNIT.lines().filter_map(|line| line.strip_prefix("SystemCallFilter=")) {
        match filter.strip_prefix('~') {
            None => calls.append(&mut expanded(filter.split_whitespace())?),
            Some(not) => {
                let not = expanded(not.split_whitespace())?;
                calls.retain(|call| !not.contains(call));
            }
        }
    }
    // A filter of its own, which allows no reading either.
    if UNIT.lines().any(|line| line == "ProtectClock=yes") {
        let clock = set("@clock")?;
        calls.retain(|call| !clock.contains(call));
    }
    Ok(calls)
}

/// The system calls in strace's account: `PID NAME(…`. Those after the filter's installation are `confined`.
fn made(account: &Path, confined: bool) -> BTreeSet<String> {
    let text = fs::read_to_string(account).unwrap_or_default();
    let text = match confined {
        true => text.rsplit_once(" seccomp(").expect("a filter").1.split_once('\n').expect("more").1,
        false => &text,
    };
    let call = |line: &str| {
        let (name, _) = line.split_once(' ')?.1.trim_start().split_once('(')?;
        name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_').then(|| name.to_owned())
    };
    text.lines().filter_map(call).collect()
}

#[test]
fn the_systemd_unit_allows_the_system_calls_that_the_daemon_makes() {
    let name = "the_systemd_unit_allows_the_system_calls_that_the_daemon_makes";
    let _alone = serial();
    let allowed = or_skip!(name, allowed());
    let binary = or_skip!(name, daemon_copy());
    let account = binary.folder.path().join("calls");
    let mut command = Command::new("strace");
    // The daemon stays our own child.
    command.args(["-D", "-f", "-o"]).arg(&account).arg(&binary.path);
    let flags = ["--collector.processes", "--collector.tcpstat", "--collector.systemd", "--process.smaps"];
    let mut daemon = or_skip!(name, Daemon::start_with(command, &[&flags[..], &["--exe", "no-such-program"]].concat()));
    for path in ["/metrics", "/status", "/readyz"] {
        http_get(daemon.address, path).expect("it answers");
    }
    daemon.child.signal(libc::SIGTERM);
    assert!(daemon.child.wait(PATIENCE).is_some_and(|status| status.success()), "{}", daemon.child.log_tail());
    let written = || made(&account, false).contains("exit_group").then_some(());
    assert!(wait_until(PATIENCE, written).is_some(), "strace wrote no end");
    let confined = made(&account, true);
    let made = made(&account, false);
    assert!(made.contains("clock_adjtime") || made.contains("adjtimex"), "{made:?}");
    let stopped: Vec<_> = made.difference(&allowed).collect();
    assert!(stopped.is_empty(), "the unit's SystemCallFilter stops {stopped:?}");
    assert!(confined.contains("accept4") && confined.contains("exit_group"), "{confined:?}");
    let filtered: BTreeSet<String> = system_call_names().map(str::to_owned).collect();
    let stopped: Vec<_> = confined.difference(&filtered).collect();
    assert!(stopped.is_empty(), "the daemon's own filter stops {stopped:?}");
    let refused = fs::read_to_string(&account).unwrap_or_default();
    let (_, refused) = refused.rsplit_once(" seccomp(").expect("a filter");
    // Limits of other users' processes are CAP_SYS_RESOURCE's, which the unit does not grant.
    let refused: Vec<_> =
        refused.lines().filter(|line| line.contains("= -1 EPERM") && !line.contains("prlimit64")).collect();
    assert!(refused.is_empty(), "refused: {refused:#?}");
}

#[test]
fn systemd_rates_the_units_exposure_at_two_and_a_half_at_most() {
    let name = "systemd_rates_the_units_exposure_at_two_and_a_half_at_most";
    let folder = tempfile::tempdir().expect("a folder");
    let unit = folder.path().join("rustok-obsd.service");
    fs::write(&unit, UNIT).expect("write");
    let rate = |bound: &str| {
        let mut command = Command::new("systemd-analyze");
        command.args(["security", "--offline=true", "--no-pager", &format!("--threshold={bound}")]).arg(&unit);
        command.output().map_err(|error| Skip::new(format!("systemd-analyze: {error}: install systemd")))
    };
    // In tenths.
    let rated = or_skip!(name, rate("25"));
    let text = [&rated.stdout, &rated.stderr].map(|text| String::from_utf8_lossy(text)).concat();
    if text.contains("unrecognized option") || text.contains("Unknown") {
        return skip(name, Skip::new(format!("systemd-analyze is older than 250: {text}")));
    }
    assert!(rated.status.success(), "{text}");
    // It can fail.
    assert!(!or_skip!(name, rate("5")).status.success());
}

#[test]
fn the_unit_is_of_the_kind_that_the_daemon_speaks_to() {
    assert_eq!((line("Type"), line("Restart")), ("notify", "on-failure"));
    let seconds: u64 = line("WatchdogSec").trim_end_matches('s').parse().expect("seconds");
    // Longer than any thread may be silent: the daemon's own message comes first.
    assert!((30..=120).contains(&seconds), "{seconds}");
    let granted: BTreeSet<_> = line("CapabilityBoundingSet").split_whitespace().map(str::to_owned).collect();
    let kept: BTreeSet<_> = NEEDED.iter().map(|needed| needed.capability.to_string()).collect();
    assert_eq!(granted, kept, "the unit grants what the daemon keeps");
}
