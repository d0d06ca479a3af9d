//! What groups tell of real processes, against `/proc` as read before and after.

use super::{Stage, value};
use rustok_obsd::config::Config;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use test_support::wait_until;

/// Children that end with the test.
pub struct Children(pub Vec<Child>);

impl Drop for Children {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A program of a name of its own, hence a group of its own.
pub fn program(folder: &Path, name: &str, source: &str) -> PathBuf {
    let path = folder.join(name);
    fs::copy(source, &path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// What `/proc` tells of processes together.
#[derive(Debug, Default)]
struct Told {
    user: f64,
    system: f64,
    minor: f64,
    voluntary: f64,
    involuntary: f64,
    written: f64,
    descriptors: f64,
    threads: f64,
}

fn told(children: &[Child]) -> Told {
    let mut told = Told::default();
    for child in children {
        let read = |name: &str| fs::read_to_string(format!("/proc/{}/{name}", child.id())).unwrap();
        let field = |text: &str, name: &str| -> f64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim_start_matches(':').trim().parse().unwrap()
        };
        let stat = read("stat");
        let fields: Vec<f64> =
            stat.rsplit_once(") ").unwrap().1.split_whitespace().skip(1).map(|word| word.parse().unwrap()).collect();
        // The parent, field 4, is the first.
        told.minor += fields[10 - 4];
        told.user += fields[14 - 4] / 100.0;
        told.system += fields[15 - 4] / 100.0;
        told.threads += fields[20 - 4];
        let status = read("status");
        told.voluntary += field(&status, "voluntary_ctxt_switches");
        told.involuntary += field(&status, "nonvoluntary_ctxt_switches");
        told.written += field(&read("io"), "write_bytes");
        told.descriptors += fs::read_dir(format!("/proc/{}/fd", child.id())).unwrap().count() as f64;
    }
    told
}

/// Whatever of it is kept open, or nothing: the same is told.
#[test]
fn a_group_is_told_as_proc_tells_its_members() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let spin = program(folder.path(), "obsd-spin", "/bin/sh");
    // A child of it would be of its name, and group, until it runs its own program.
    let script = "exec 3</dev/null 4</dev/null 5</dev/null; while :; do echo x >/dev/null; done";
    let spinning = (0..3).map(|_| Command::new(&spin).args(["-c", script]).spawn().unwrap()).collect();
    let mut children = Children(spinning);
    // Writes what it gets, and waits for more.
    let copy = program(folder.path(), "obsd-copy", "/bin/dd");
    let mut command = Command::new(&copy);
    command.arg(format!("of={}", folder.path().join("copied").display())).args(["bs=64k", "conv=fsync"]);
    let mut copying = command.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut pipe = copying.stdin.take().unwrap();
    pipe.write_all(&vec![b'x'; 1 << 20]).unwrap();
    children.0.push(copying);
    let (spinning, copying) = children.0.split_at(3);
    let mut stages = [Stage::new(&Config::default()), Stage::new(&Config::default())];
    stages[1].groups.with_table(|table| table.set_most_kept(0));
    let named = |name: &str| format!("namedprocess_namegroup_{name}");
    let rose = wait_until(Duration::from_secs(60), || {
        for stage in &mut stages {
            let before = (told(spinning), told(copying));
            let scraped = stage.scrape();
            let after = (told(spinning), told(copying));
            let between = |name: &str, labels: &[(&str, &str)], low: f64, high: f64| {
                let found = value(&scraped, &named(name), labels);
                assert!(low <= found + 1e-6 && found <= high + 1e-6, "{name} {labels:?}: {found}, not {low} to {high}");
            };
            let spin = ("groupname", "obsd-spin");
            let copy = ("groupname", "obsd-copy");
            let (low, high) = (&before.0, &after.0);
            between("cpu_seconds_total", &[spin, ("mode", "user")], low.user, high.user);
            between("cpu_seconds_total", &[spin, ("mode", "system")], low.system, high.system);
            between("minor_page_faults_total", &[spin], low.minor, high.minor);
            let switches = "context_switches_total";
            between(switches, &[spin, ("ctxswitchtype", "voluntary")], low.voluntary, high.voluntary);
            between(switches, &[spin, ("ctxswitchtype", "nonvoluntary")], low.involuntary, high.involuntary);
            between("write_bytes_total", &[copy], before.1.written, after.1.written);
            between(
                "context_switches_total",
                &[copy, ("ctxswitchtype", "voluntary")],
                before.1.voluntary,
                after.1.voluntary,
            );
            between("open_filedesc", &[copy], before.1.descriptors, after.1.descriptors);
            between("num_procs", &[copy], 1.0, 1.0);
            between("num_threads", &[copy], before.1.threads, after.1.threads);
            assert!(value(&scraped, &named("worst_fd_ratio"), &[copy]) > 0.0);
            assert!(value(&scraped, &named("memory_bytes"), &[copy, ("memtype", "resident")]) > 100_000.0);
        }
        let now = told(spinning);
        let ran = now.user > 0.3 && now.system > 0.02 && now.involuntary > 20.0 && told(copying).written >= 1_048_576.0;
        ran.then_some(())
    });
    assert!(rose.is_some(), "the children hardly ran: {:?} {:?}", told(spinning), told(copying));
    drop(pipe);
}

#[test]
fn nothing_is_allocated_while_the_same_processes_go_on() {
    let mut stage = Stage::new(&Config::default());
    stage.text();
    // Whatever begins on this machine meanwhile is new, and costs.
    let quiet = (0..200).any(|_| {
        std::thread::sleep(Duration::from_millis(5));
        let before = test_support::allocations();
        let length = stage.text().len();
        length > 1000 && test_support::allocations() == before
    });
    assert!(quiet, "every scrape allocated");
}

#[test]
fn shares_of_memory_are_told_on_demand() {
    let mut config = Config::default();
    config.process.smaps = true;
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let sleep = program(folder.path(), "obsd-share", "/bin/sleep");
    let children = Children((0..4).map(|_| Command::new(&sleep).arg("300").spawn().unwrap()).collect());
    // Each runs its program by now.
    let group = [("groupname", "obsd-share")];
    let scraped = wait_until(Duration::from_secs(60), || {
        let scraped = Stage::new(&config).scrape();
        let there = scraped.sum("namedprocess_namegroup_num_procs", &group) == Some(4.0)
            && value(&scraped, "namedprocess_namegroup_memory_bytes", &[group[0], ("memtype", "resident")]) > 100_000.0;
        there.then_some(scraped)
    });
    let scraped = scraped.expect("the children run");
    let memory = |kind: &str| {
        value(&scraped, "namedprocess_namegroup_memory_bytes", &[("groupname", "obsd-share"), ("memtype", kind)])
    };
    let (share, resident) = (memory("proportionalResident"), memory("resident"));
    assert!(share > 100_000.0 && share < resident, "{share} of {resident}");
    drop(children);
}
