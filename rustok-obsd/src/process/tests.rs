//! Groups on a made-up procfs.

use super::*;
use crate::config::process::{GroupBy, GroupRule, Template};
use crate::events::{CpuTime, Event, ProcessId, Subscriber as _, Totals};
use crate::exposition::{Format, to_text};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

mod shares;

/// A process of the made-up procfs.
#[derive(Clone, Copy)]
struct Made {
    pid: u32,
    comm: &'static str,
    parent: u32,
    flags: u64,
    state: char,
    /// Ticks in user mode and in the kernel.
    ticks: [u64; 2],
    threads: u64,
    start: u64,
    /// Times on a CPU.
    runs: u64,
    io: [u64; 2],
    switches: [u64; 2],
    swap: u64,
    arguments: &'static str,
    cgroup: &'static str,
    exe: &'static str,
    user: u32,
}

const SHOP: Made = Made {
    pid: 100,
    comm: "shop",
    parent: 1,
    flags: 0,
    state: 'S',
    ticks: [100, 50],
    threads: 1,
    start: 1000,
    runs: 5,
    io: [4096, 8192],
    switches: [7, 3],
    swap: 0,
    arguments: "shop\0--port\080\0",
    cgroup: "/system.slice/shop.service",
    exe: "/opt/shop/bin/shop-server",
    user: 0,
};

fn procfs() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("stat"), "cpu 1 2 3\nbtime 1700000000\n").unwrap();
    fs::create_dir(folder.path().join("sys")).unwrap();
    folder
}

fn put(procfs: &Path, made: Made) {
    let folder = procfs.join(made.pid.to_string());
    fs::create_dir_all(folder.join("fd")).unwrap();
    for fd in 0..4 {
        fs::write(folder.join(format!("fd/{fd}")), "").unwrap();
    }
    let Made { pid, comm, parent, flags, state, ticks: [user, system], threads, start, runs, .. } = made;
    let stat = format!(
        "{pid} ({comm}) {state} {parent} {pid} {pid} 0 -1 {flags} 11 0 2 0 {user} {system} 0 0 20 0 {threads} 0 {start} 10000000 250 0 0\n"
    );
    let status = format!(
        "Name:\t{comm}\nUid:\t{0}\t{0}\t{0}\t{0}\nVmSwap:\t{1} kB\nvoluntary_ctxt_switches:\t{2}\nnonvoluntary_ctxt_switches:\t{3}\n",
        made.user, made.swap, made.switches[0], made.switches[1]
    );
    let io = format!(
        "rchar: 1\nwchar: 2\nread_bytes: {}\nwrite_bytes: {}\ncancelled_write_bytes: 0\n",
        made.io[0], made.io[1]
    );
    let limits =
        "Limit Soft Hard Units\nMax open files            16                   1024                 files     \n";
    for (name, text) in [
        ("stat", stat.as_str()),
        ("status", &status),
        ("io", &io),
        ("limits", limits),
        ("schedstat", &format!("{} 1 {runs}\n", runs * 1000)),
        ("wchan", "ep_poll"),
        ("cmdline", made.arguments),
        ("cgroup", &format!("0::{}\n", made.cgroup)),
    ] {
        fs::write(folder.join(name), text).unwrap();
    }
    let _ = std::os::unix::fs::symlink(made.exe, folder.join("exe"));
}

fn config(procfs: &Path) -> Config {
    let mut config = Config::default();
    config.path.procfs = procfs.to_owned();
    config.path.rootfs = procfs.to_owned();
    config
}

#[track_caller]
fn assert_has(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(text.lines().any(|found| found == *line), "no {line} in\n{text}");
    }
}

#[test]
fn a_group_is_told_as_process_exporter_tells_it() {
    let procfs = procfs();
    put(procfs.path(), SHOP);
    put(procfs.path(), Made { pid: 101, start: 900, state: 'D', swap: 12, ..SHOP });
    put(procfs.path(), Made { pid: 2, comm: "kthreadd", flags: 0x20_0000, ..SHOP });
    let source = ProcessGroups::new(&config(procfs.path())).unwrap();
    let text = to_text(&source, Format::Text);
    assert_has(
        &text,
        &[
            "# HELP namedprocess_namegroup_cpu_seconds_total Cpu user usage in seconds",
            "# TYPE namedprocess_namegroup_cpu_seconds_total counter",
            r#"namedprocess_namegroup_num_procs{groupname="shop"} 2"#,
            r#"namedprocess_namegroup_cpu_seconds_total{groupname="shop",mode="user"} 2"#,
            r#"namedprocess_namegroup_cpu_seconds_total{groupname="shop",mode="system"} 1"#,
            r#"namedprocess_namegroup_read_bytes_total{groupname="shop"} 8192"#,
            r#"namedprocess_namegroup_write_bytes_total{groupname="shop"} 16384"#,
            r#"namedprocess_namegroup_major_page_faults_total{groupname="shop"} 4"#,
            r#"namedprocess_namegroup_minor_page_faults_total{groupname="shop"} 22"#,
            r#"namedprocess_namegroup_context_switches_total{groupname="shop",ctxswitchtype="voluntary"} 14"#,
            r#"namedprocess_namegroup_context_switches_total{groupname="shop",ctxswitchtype="nonvoluntary"} 6"#,
            r#"namedprocess_namegroup_memory_bytes{groupname="shop",memtype="virtual"} 20000000"#,
            r#"namedprocess_namegroup_memory_bytes{groupname="shop",memtype="swapped"} 12288"#,
            r#"namedprocess_namegroup_open_filedesc{groupname="shop"} 8"#,
            r#"namedprocess_namegroup_worst_fd_ratio{groupname="shop"} 0.25"#,
            r#"namedprocess_namegroup_oldest_start_time_seconds{groupname="shop"} 1700000009"#,
            r#"namedprocess_namegroup_num_threads{groupname="shop"} 2"#,
            r#"namedprocess_namegroup_states{groupname="shop",state="Sleeping"} 1"#,
            r#"namedprocess_namegroup_states{groupname="shop",state="Waiting"} 1"#,
            r#"namedprocess_namegroup_states{groupname="shop",state="Zombie"} 0"#,
            r#"namedprocess_namegroup_threads_wchan{groupname="shop",wchan="ep_poll"} 2"#,
            "namedprocess_scrape_errors 0",
            "namedprocess_scrape_procread_errors 0",
            "namedprocess_scrape_partial_errors 0",
        ],
    );
    assert!(!text.contains("kthreadd") && !text.contains("proportional") && !text.contains("thread_count"));
}

#[test]
fn counters_stay_when_members_leave_and_go_on_when_others_come() {
    let procfs = procfs();
    let source = ProcessGroups::new(&config(procfs.path())).unwrap();
    put(procfs.path(), SHOP);
    let _ = to_text(&source, Format::Text);
    put(procfs.path(), Made { ticks: [150, 50], runs: 6, ..SHOP });
    let text = to_text(&source, Format::Text);
    assert_has(&text, &[r#"namedprocess_namegroup_cpu_seconds_total{groupname="shop",mode="user"} 1.5"#]);
    fs::remove_dir_all(procfs.path().join("100")).unwrap();
    let text = to_text(&source, Format::Text);
    assert_has(
        &text,
        &[
            r#"namedprocess_namegroup_cpu_seconds_total{groupname="shop",mode="user"} 1.5"#,
            r#"namedprocess_namegroup_num_procs{groupname="shop"} 0"#,
            r#"namedprocess_namegroup_memory_bytes{groupname="shop",memtype="virtual"} 0"#,
            r#"rustok_obsd_process_starts_total{groupname="shop"} 1"#,
            r#"rustok_obsd_process_exits_total{groupname="shop"} 1"#,
        ],
    );
    // The pid comes again, as another process.
    put(procfs.path(), Made { ticks: [20, 0], start: 2000, ..SHOP });
    let text = to_text(&source, Format::Text);
    assert_has(&text, &[r#"namedprocess_namegroup_cpu_seconds_total{groupname="shop",mode="user"} 1.7"#]);
    // And again, between two scrapes.
    fs::remove_dir_all(procfs.path().join("100")).unwrap();
    put(procfs.path(), Made { ticks: [10, 0], start: 3000, ..SHOP });
    let text = to_text(&source, Format::Text);
    assert_has(
        &text,
        &[
            r#"namedprocess_namegroup_cpu_seconds_total{groupname="shop",mode="user"} 1.8"#,
            r#"rustok_obsd_process_starts_total{groupname="shop"} 3"#,
        ],
    );
}

#[test]
fn what_has_not_run_is_not_read_again() {
    let procfs = procfs();
    let source = ProcessGroups::new(&config(procfs.path())).unwrap();
    put(procfs.path(), SHOP);
    let _ = to_text(&source, Format::Text);
    let read = r#"namedprocess_namegroup_read_bytes_total{groupname="shop"} "#;
    let run = |made: Made, bytes: &str| {
        put(procfs.path(), made);
        assert_has(&to_text(&source, Format::Text), &[&format!("{read}{bytes}")]);
    };
    let read_more = Made { io: [9000, 8192], ..SHOP };
    run(read_more, "4096");
    run(Made { state: 'R', ..read_more }, "9000");
    let read_more = Made { io: [10_000, 8192], ..SHOP };
    run(read_more, "9000");
    run(Made { runs: 6, ..read_more }, "10000");
    // Of several threads another one may have run.
    let read_more = Made { io: [11_000, 8192], runs: 6, threads: 2, ..SHOP };
    run(read_more, "11000");
    run(Made { io: [12_000, 8192], ..read_more }, "12000");
    // One of two has ended meanwhile.
    run(Made { io: [13_000, 8192], threads: 1, ..read_more }, "13000");
    run(Made { io: [14_000, 8192], threads: 1, ..read_more }, "13000");
}

#[test]
fn a_process_that_runs_another_program_moves_and_leaves_what_it_used() {
    let procfs = procfs();
    let source = ProcessGroups::new(&config(procfs.path())).unwrap();
    put(procfs.path(), Made { comm: "sh", ..SHOP });
    let _ = to_text(&source, Format::Text);
    put(procfs.path(), Made { ticks: [300, 50], runs: 9, ..SHOP });
    let _ = to_text(&source, Format::Text);
    put(procfs.path(), Made { ticks: [400, 50], runs: 10, ..SHOP });
    assert_has(
        &to_text(&source, Format::Text),
        &[
            r#"namedprocess_namegroup_num_procs{groupname="sh"} 0"#,
            r#"namedprocess_namegroup_num_procs{groupname="shop"} 1"#,
            r#"namedprocess_namegroup_cpu_seconds_total{groupname="sh",mode="user"} 3"#,
            r#"namedprocess_namegroup_cpu_seconds_total{groupname="shop",mode="user"} 1"#,
        ],
    );
}

fn rule(name: &str) -> GroupRule {
    GroupRule { name: Template::parse(name).unwrap(), ..GroupRule::default() }
}

#[test]
fn groups_follow_rules_and_children_their_ancestors() {
    let procfs = procfs();
    fs::create_dir(procfs.path().join("etc")).unwrap();
    fs::write(procfs.path().join("etc/passwd"), "root:x:0:0::/:/bin/sh\nwww-data:x:33:33::/:/bin/sh\n").unwrap();
    put(procfs.path(), SHOP);
    put(procfs.path(), Made { pid: 50, comm: "helper", parent: 60, exe: "/x/helper", ..SHOP });
    put(procfs.path(), Made { pid: 60, comm: "sh", parent: 100, exe: "/x/sh", ..SHOP });
    put(
        procfs.path(),
        Made { pid: 70, comm: "java", exe: "/x/java", arguments: "java\0-jar\0/opt/a.jar\0secret", ..SHOP },
    );
    put(procfs.path(), Made { pid: 80, comm: "alone", exe: "/x/alone", ..SHOP });
    put(procfs.path(), Made { pid: 90, comm: "web", exe: "/x/web", user: 33, ..SHOP });
    put(procfs.path(), Made { pid: 95, comm: "pod", exe: "/x/pod", cgroup: "/kubepods/burstable/pod7", ..SHOP });
    let mut config = config(procfs.path());
    config.process.group_by = GroupBy::None;
    let pattern = |text: &str| vec![crate::config::collector::Pattern::parse(text).unwrap()];
    config.process.group = vec![
        GroupRule { exe: vec!["shop-server".into()], ..rule("{exe} of {unit}") },
        GroupRule { comm: vec!["java".into()], cmdline: pattern(r"-jar (?P<jar>\S+)"), ..rule("java {jar}") },
        GroupRule { user: vec!["www-data".into()], ..rule("{user}:{comm}") },
        GroupRule { cgroup: vec!["/kubepods/".into()], ..rule("{cgroup}") },
        GroupRule { exe: vec!["/nowhere/alone".into()], ..rule("{comm}") },
    ];
    let source = ProcessGroups::new(&config).unwrap();
    let text = to_text(&source, Format::Text);
    let groups = |text: &str| {
        let lines = text.lines().filter_map(|line| line.strip_prefix("namedprocess_namegroup_num_procs"));
        let mut groups: Vec<_> = lines.map(str::to_owned).collect();
        groups.sort();
        groups
    };
    let wanted = [
        r#"{groupname="/kubepods/burstable/pod7"} 1"#,
        r#"{groupname="java /opt/a.jar"} 1"#,
        r#"{groupname="shop-server of shop.service"} 3"#,
        r#"{groupname="www-data:web"} 1"#,
    ];
    assert_eq!(groups(&text), wanted);
    assert!(!text.contains("secret"));
    for (by, wanted) in [
        (GroupBy::Exe, r#"{groupname="shop-server"} 1"#),
        (GroupBy::Unit, r#"{groupname="shop.service"} 6"#),
        (GroupBy::Cgroup, r#"{groupname="/system.slice/shop.service"} 6"#),
    ] {
        config.process.group.clear();
        config.process.group_by = by;
        let groups = groups(&to_text(&ProcessGroups::new(&config).unwrap(), Format::Text));
        assert!(groups.iter().any(|group| group == wanted), "{groups:?}");
    }
    config.process.group_by = GroupBy::None;
    config.process.children = false;
    config.process.group = vec![GroupRule { comm: vec!["shop".into()], ..rule("{comm}") }];
    let text = to_text(&ProcessGroups::new(&config).unwrap(), Format::Text);
    assert_eq!(groups(&text), [r#"{groupname="shop"} 1"#]);
}

#[test]
fn beyond_the_cap_processes_are_counted_together() {
    let procfs = procfs();
    for (at, comm) in ["a", "b", "c", "d"].into_iter().enumerate() {
        put(procfs.path(), Made { pid: 10 + at as u32, comm, ..SHOP });
    }
    let mut config = config(procfs.path());
    config.process.groups_limit = 2;
    let source = ProcessGroups::new(&config).unwrap();
    let text = to_text(&source, Format::Text);
    assert_has(
        &text,
        &[
            r#"namedprocess_namegroup_num_procs{groupname="~other"} 2"#,
            r#"namedprocess_namegroup_cpu_seconds_total{groupname="~other",mode="user"} 2"#,
            "rustok_obsd_process_groups_overflow_total 2",
        ],
    );
    assert_eq!(text.matches("namedprocess_namegroup_num_procs{").count(), 3);
}

fn freed(pid: u32, start_ticks: u64, comm: &str, user_ms: u64, read_bytes: u64) -> Event<'static> {
    let mut name = [0; 16];
    name[..comm.len()].copy_from_slice(comm.as_bytes());
    let told = CpuTime { user_ns: user_ms * 1_000_000, system_ns: 0 };
    let totals = Totals { told, read_bytes, voluntary_switches: 1, ..Totals::default() };
    let process = ProcessId { pid, start_ns: start_ticks * 10_000_000 + 12_345 };
    Event::Freed { process, totals, comm: name, kernel_thread: false }
}

#[test]
fn an_end_adds_what_no_scrape_saw_exactly_once() {
    let procfs = procfs();
    let source = ProcessGroups::new(&config(procfs.path())).unwrap();
    source.with_table(Table::expect_ends);
    put(procfs.path(), SHOP);
    let expect = |user: &str, starts: u64, exits: u64, short: u64| {
        assert_has(
            &to_text(&source, Format::Text),
            &[
                &format!(r#"namedprocess_namegroup_cpu_seconds_total{{groupname="shop",mode="user"}} {user}"#),
                &format!(r#"rustok_obsd_process_starts_total{{groupname="shop"}} {starts}"#),
                &format!(r#"rustok_obsd_process_exits_total{{groupname="shop"}} {exits}"#),
                &format!(r#"rustok_obsd_process_short_lived_total{{groupname="shop"}} {short}"#),
            ],
        );
    };
    expect("1", 1, 0, 0);
    // Lived between two scrapes.
    source.event(&freed(200, 5000, "shop", 250, 10));
    expect("1.25", 2, 1, 1);
    // The end of one that was seen, told before a scrape misses it.
    fs::remove_dir_all(procfs.path().join("100")).unwrap();
    source.event(&freed(100, 1000, "shop", 1500, 5000));
    expect("1.75", 2, 2, 1);
    // And told after.
    put(procfs.path(), Made { pid: 101, start: 1100, ..SHOP });
    expect("2.75", 3, 2, 1);
    fs::remove_dir_all(procfs.path().join("101")).unwrap();
    expect("2.75", 3, 3, 1);
    source.event(&freed(101, 1100, "shop", 1010, 4096));
    expect("2.76", 3, 3, 1);
    // Another one of the same pid.
    source.event(&freed(101, 1200, "shop", 10, 0));
    expect("2.77", 4, 4, 2);
    assert_has(&to_text(&source, Format::Text), &[r#"namedprocess_namegroup_read_bytes_total{groupname="shop"} 9106"#]);
}

#[test]
fn switches_of_other_threads_do_not_come_at_the_end_of_a_process() {
    let procfs = procfs();
    let source = ProcessGroups::new(&config(procfs.path())).unwrap();
    source.with_table(Table::expect_ends);
    let expect = |voluntary: u64, involuntary: u64, user: &str| {
        let text = to_text(&source, Format::Text);
        let switches = "namedprocess_namegroup_context_switches_total{groupname=\"shop\",ctxswitchtype=";
        assert_has(
            &text,
            &[
                &format!(r#"{switches}"voluntary"}} {voluntary}"#),
                &format!(r#"{switches}"nonvoluntary"}} {involuntary}"#),
                &format!(r#"namedprocess_namegroup_cpu_seconds_total{{groupname="shop",mode="user"}} {user}"#),
            ],
        );
    };
    let end = |pid: u32, start_ticks: u64, [voluntary_switches, involuntary_switches]: [u64; 2]| {
        let told = CpuTime { user_ns: 1_500_000_000, system_ns: 0 };
        let totals = Totals { told, voluntary_switches, involuntary_switches, ..Totals::default() };
        let process = ProcessId { pid, start_ns: start_ticks * 10_000_000 };
        let mut comm = [0; 16];
        comm[..4].copy_from_slice(b"shop");
        let _ = fs::remove_dir_all(procfs.path().join(pid.to_string()));
        source.event(&Event::Freed { process, totals, comm, kernel_thread: false });
    };
    // Of one thread all along: the two numbers are of the same.
    put(procfs.path(), SHOP);
    expect(7, 3, "1");
    end(100, 1000, [9, 4]);
    expect(9, 4, "1.5");
    // Of several, even if only its main thread was left in the end; what else it used is comparable.
    put(procfs.path(), Made { pid: 101, threads: 8, ..SHOP });
    expect(16, 7, "2.5");
    put(procfs.path(), Made { pid: 101, switches: [8, 3], runs: 6, ..SHOP });
    expect(17, 7, "2.5");
    end(101, 1000, [5000, 600]);
    expect(17, 7, "3");
    // One that nobody saw tells all that its threads did.
    end(102, 1000, [5000, 600]);
    expect(5017, 607, "4.5");
}

#[test]
fn the_end_of_a_child_counts_for_its_parent_where_nobody_knows_more() {
    let procfs = procfs();
    put(procfs.path(), SHOP);
    let mut config = config(procfs.path());
    config.process.group_by = GroupBy::Unit;
    let source = ProcessGroups::new(&config).unwrap();
    let _ = to_text(&source, Format::Text);
    let process = ProcessId { pid: 300, start_ns: 50_000_012_345 };
    let exit = Event::Exit { process, parent: 100, totals: Totals::default(), comm: [0; 16], kernel_thread: false };
    source.event(&exit);
    source.event(&freed(300, 5000, "worker", 500, 0));
    source.event(&freed(301, 5000, "lost", 500, 0));
    assert_has(
        &to_text(&source, Format::Text),
        &[
            r#"namedprocess_namegroup_cpu_seconds_total{groupname="shop.service",mode="user"} 1.5"#,
            r#"namedprocess_namegroup_cpu_seconds_total{groupname="~other",mode="user"} 0.5"#,
            "rustok_obsd_process_groups_overflow_total 1",
        ],
    );
}

#[test]
fn what_cannot_be_read_is_counted_and_the_rest_is_told() {
    let procfs = procfs();
    put(procfs.path(), SHOP);
    put(procfs.path(), Made { pid: 101, comm: "torn", ..SHOP });
    fs::write(procfs.path().join("101/io"), "").unwrap();
    put(procfs.path(), Made { pid: 102, comm: "bad", ..SHOP });
    fs::write(procfs.path().join("102/stat"), "102 (bad").unwrap();
    fs::create_dir(procfs.path().join("103")).unwrap();
    let source = ProcessGroups::new(&config(procfs.path())).unwrap();
    for round in 1..3 {
        let text = to_text(&source, Format::Text);
        assert_has(
            &text,
            &[
                r#"namedprocess_namegroup_num_procs{groupname="shop"} 1"#,
                r#"namedprocess_namegroup_num_procs{groupname="torn"} 1"#,
                &format!("namedprocess_scrape_procread_errors {round}"),
                &format!("namedprocess_scrape_partial_errors {round}"),
            ],
        );
    }
    fs::remove_dir_all(procfs.path()).unwrap();
    let text = to_text(&source, Format::Text);
    assert!(text.contains("namedprocess_scrape_errors"), "{text}");
}

#[test]
fn threads_are_told_by_name() {
    let procfs = procfs();
    put(procfs.path(), Made { threads: 3, ..SHOP });
    for (tid, comm) in [(100, "shop"), (110, "worker"), (111, "worker")] {
        put(&procfs.path().join("100/task"), Made { pid: tid, comm, ..SHOP });
    }
    let mut config = config(procfs.path());
    config.process.threads = true;
    let source = ProcessGroups::new(&config).unwrap();
    let _ = to_text(&source, Format::Text);
    put(&procfs.path().join("100/task"), Made { pid: 110, comm: "worker", ticks: [150, 50], ..SHOP });
    fs::remove_dir_all(procfs.path().join("100/task/111")).unwrap();
    assert_has(
        &to_text(&source, Format::Text),
        &[
            r#"namedprocess_namegroup_thread_count{groupname="shop",threadname="worker"} 1"#,
            r#"namedprocess_namegroup_thread_cpu_seconds_total{groupname="shop",threadname="worker",mode="user"} 2.5"#,
            r#"namedprocess_namegroup_thread_io_bytes_total{groupname="shop",threadname="worker",iomode="read"} 8192"#,
            r#"namedprocess_namegroup_thread_context_switches_total{groupname="shop",threadname="shop",ctxswitchtype="voluntary"} 7"#,
        ],
    );
}

#[test]
fn opentelemetrys_names_tell_the_same() {
    let procfs = procfs();
    put(procfs.path(), SHOP);
    let mut config = config(procfs.path());
    config.process.otel_names = true;
    let source = ProcessGroups::new(&config).unwrap();
    assert_has(
        &to_text(&source, Format::Text),
        &[
            r#"process_cpu_time_seconds_total{groupname="shop",cpu_mode="user"} 1"#,
            r#"process_disk_io_bytes_total{groupname="shop",disk_io_direction="read"} 4096"#,
            r#"process_memory_virtual_bytes{groupname="shop"} 10000000"#,
            r#"process_context_switches_total{groupname="shop",process_context_switch_type="involuntary"} 3"#,
        ],
    );
}

#[test]
fn a_service_goes_on_when_its_process_is_replaced() {
    let procfs = procfs();
    put(procfs.path(), SHOP);
    let pids = Arc::new(std::sync::Mutex::new(vec![100]));
    let shared = Arc::clone(&pids);
    let observed = move || shared.lock().unwrap().iter().map(|pid| (*pid, "shop".to_owned())).collect();
    let source = TargetProcesses::new(&config(procfs.path()), Box::new(observed)).unwrap();
    let task = |pid: u32, tid: u32, switches: [u64; 2]| {
        put(&procfs.path().join(format!("{pid}/task")), Made { pid: tid, switches, ..SHOP });
    };
    task(100, 100, [7, 3]);
    assert_has(
        &to_text(&source, Format::Text),
        &[
            r#"rustok_obsd_target_processes{service_name="shop"} 1"#,
            r#"rustok_obsd_target_process_cpu_seconds_total{service_name="shop",cpu_mode="user"} 1"#,
            r#"rustok_obsd_target_process_file_descriptors_limit{service_name="shop",limit="soft"} 16"#,
            r#"rustok_obsd_target_process_io_bytes_total{service_name="shop",disk_io_direction="write"} 2"#,
            r#"rustok_obsd_target_process_context_switches_total{service_name="shop",process_context_switch_type="voluntary"} 7"#,
            r#"rustok_obsd_target_process_start_time_seconds{service_name="shop"} 1700000010"#,
        ],
    );
    // A thread more, and one that ended.
    put(procfs.path(), Made { threads: 3, ..SHOP });
    task(100, 110, [100, 0]);
    task(100, 111, [5, 1]);
    let _ = to_text(&source, Format::Text);
    fs::remove_dir_all(procfs.path().join("100/task/111")).unwrap();
    put(procfs.path(), Made { pid: 200, start: 2000, ticks: [30, 0], ..SHOP });
    task(200, 200, [50, 0]);
    *pids.lock().unwrap() = vec![100, 200];
    let _ = to_text(&source, Format::Text);
    fs::remove_dir_all(procfs.path().join("100")).unwrap();
    *pids.lock().unwrap() = vec![200];
    assert_has(
        &to_text(&source, Format::Text),
        &[
            r#"rustok_obsd_target_processes{service_name="shop"} 1"#,
            r#"rustok_obsd_target_process_cpu_seconds_total{service_name="shop",cpu_mode="user"} 1.3"#,
            r#"rustok_obsd_target_process_context_switches_total{service_name="shop",process_context_switch_type="voluntary"} 162"#,
            r#"rustok_obsd_target_process_context_switches_total{service_name="shop",process_context_switch_type="involuntary"} 4"#,
        ],
    );
    pids.lock().unwrap().clear();
    assert_has(
        &to_text(&source, Format::Text),
        &[
            r#"rustok_obsd_target_processes{service_name="shop"} 0"#,
            r#"rustok_obsd_target_process_cpu_seconds_total{service_name="shop",cpu_mode="user"} 1.3"#,
        ],
    );
}
