//! Processes that come and go while they are looked at.

use super::real::{Children, program};
use super::{Stage, value};
use rustok_obsd::config::Config;
use rustok_obsd::events::{CpuTime, Event, ProcessId, Subscriber as _, Totals};
use rustok_obsd::process::Table;
use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use test_support::Scraped;

/// The last value of each counter.
#[derive(Default)]
struct Counters(BTreeMap<String, f64>);

impl Counters {
    /// None has fallen.
    #[track_caller]
    fn check(&mut self, scraped: &Scraped) {
        for family in scraped.families.values().filter(|family| family.kind == "counter") {
            for ((name, labels), value) in &family.samples {
                let before = self.0.insert(format!("{name}{labels:?}"), *value);
                assert!(before.is_none_or(|before| before <= *value), "{name}{labels:?}: {before:?}, then {value}");
            }
        }
        assert!(self.0.len() > 10);
    }
}

#[test]
fn counters_never_fall_while_members_come_and_go() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let program = program(folder.path(), "obsd-churn", "/bin/sh");
    let mut stage = Stage::new(&Config::default());
    let mut counters = Counters::default();
    let mut children = Children(Vec::new());
    for round in 0..20 {
        for _ in 0..25 {
            let work = "i=0; while [ $i -lt 5000 ]; do i=$((i+1)); done; read x";
            let mut command = Command::new(&program);
            command.args(["-c", work]).stdin(std::process::Stdio::piped());
            children.0.push(command.spawn().unwrap());
        }
        counters.check(&stage.scrape());
        if round % 2 == 1 {
            drop(Children(children.0.split_off(children.0.len() / 3)));
        }
        counters.check(&stage.scrape());
    }
    let left = children.0.len() as f64;
    drop(children);
    let scraped = stage.scrape();
    counters.check(&scraped);
    let own = |name: &str| value(&scraped, name, &[("groupname", "obsd-churn")]);
    assert_eq!(own("namedprocess_namegroup_num_procs"), 0.0);
    // Those that were killed are all of the 500, each seen by at least one scrape.
    assert!(left > 0.0 && own("rustok_obsd_process_starts_total") >= 500.0);
    assert_eq!(own("rustok_obsd_process_starts_total"), own("rustok_obsd_process_exits_total"));
}

/// A process that does nothing and ends.
fn short_lived() -> u32 {
    // SAFETY: the child calls nothing but _exit.
    unsafe {
        let pid = libc::fork();
        if pid == 0 {
            libc::_exit(0);
        }
        assert!(pid > 0);
        libc::waitpid(pid, std::ptr::null_mut(), 0);
        pid as u32
    }
}

#[test]
fn what_vanishes_while_it_is_read_is_no_error() {
    let ended = AtomicBool::new(false);
    let born = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    short_lived();
                    born.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let mut stage = Stage::new(&Config::default());
        let mut counters = Counters::default();
        let mut scrapes = 0;
        while scrapes < 50 || born.load(Ordering::Relaxed) <= 2000 {
            let scraped = stage.scrape();
            counters.check(&scraped);
            assert_eq!(value(&scraped, "namedprocess_scrape_errors", &[]), 0.0);
            assert_eq!(value(&scraped, "namedprocess_scrape_procread_errors", &[]), 0.0);
            scrapes += 1;
        }
        ended.store(true, Ordering::Relaxed);
    });
}

fn resident() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

#[test]
fn memory_is_flat_over_20_000_short_lived_processes() {
    // In a process of its own: what other tests allocate is none of this one's business.
    super::inner("churn::flat_memory", |_| {});
}

#[test]
#[ignore = "started by the test above"]
fn flat_memory() {
    let mut stage = Stage::new(&Config::default());
    stage.groups.with_table(Table::expect_ends);
    let mut before = 0;
    for round in 0..42 {
        for at in 0..500 {
            let pid = short_lived();
            let process = ProcessId { pid, start_ns: (round * 500 + at) * 10_000_000 };
            let told = CpuTime { user_ns: 1_000_000, system_ns: 0 };
            let totals = Totals { told, ..Totals::default() };
            let comm = *b"obsd-short\0\0\0\0\0\0";
            let exit = Event::Exit { process, parent: 1, totals, comm, kernel_thread: false };
            stage.groups.event(&exit);
            stage.groups.event(&Event::Freed { process, totals, comm, kernel_thread: false });
        }
        stage.text();
        if round == 1 {
            before = resident();
        }
    }
    let after = resident();
    assert!(after < before + (4 << 20), "{before} to {after}");
    let scraped = stage.scrape();
    let group = ("groupname", "obsd-short");
    assert_eq!(value(&scraped, "rustok_obsd_process_short_lived_total", &[group]), 21_000.0);
    let user = value(&scraped, "namedprocess_namegroup_cpu_seconds_total", &[group, ("mode", "user")]);
    assert!((user - 21.0).abs() < 1e-6, "{user}");
}
