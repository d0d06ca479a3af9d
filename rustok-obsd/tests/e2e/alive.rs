//! The daemon and its service manager: what it says on `NOTIFY_SOCKET`, and the rights that it keeps.
//!
//! Reads: a datagram socket of the test's own, `/proc/PID/task`. Yields: tests. Costs: three starts of the daemon.

use std::{fs, os::unix::net::UnixDatagram, process::Command, time::Duration};

use rustok_obsd::confine::NEEDED;
use test_support::{Skip, skip};

use super::{
    faults::{daemon_copy, is_root, or_skip},
    running::{Binary, Daemon, PATIENCE, Shop, get, once},
    scene::program,
    serial,
};

/// What systemd would read.
struct Manager {
    socket: UnixDatagram,
    _folder: tempfile::TempDir,
    path: String,
}

impl Manager {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("a limit");
        Self { socket, path: path.to_string_lossy().into_owned(), _folder: folder }
    }

    /// The daemon below this manager, which wants to hear from it within `watchdog`.
    fn start(&self, watchdog: Duration) -> Result<Daemon, Skip> {
        let mut command = Command::new(program("RUSTOK_OBSD_BIN")?);
        command.env("NOTIFY_SOCKET", &self.path).env("WATCHDOG_USEC", watchdog.as_micros().to_string());
        Daemon::start_with(command, &["--exe", "no-such-program"])
    }

    fn message(&self) -> String {
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer).expect("a message");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    /// Waits for a message with this line; yields those before.
    fn hears(&self, line: &str) -> Vec<String> {
        let mut before = Vec::new();
        loop {
            let message = self.message();
            if message.lines().any(|found| found == line) {
                return before;
            }
            before.push(message);
            assert!(before.len() < 1000, "no {line} among {before:?}");
        }
    }
}

#[test]
fn the_service_manager_hears_that_the_daemon_is_ready_alive_and_ends() {
    let name = "the_service_manager_hears_that_the_daemon_is_ready_alive_and_ends";
    let _alone = serial();
    let manager = Manager::new();
    let mut daemon = or_skip!(name, manager.start(Duration::from_millis(600)));
    let early = manager.hears("READY=1");
    assert!(early.iter().all(|message| message.contains("WATCHDOG=1")), "{early:?}");
    for _ in 0..5 {
        assert!(manager.hears("WATCHDOG=1").is_empty(), "nothing else is said");
    }
    let threads = daemon.wait("its threads to be watched", |daemon| {
        let threads = daemon.status()["threads"].clone();
        let watched = |name: &&str| threads.as_array().is_some_and(|all| all.iter().any(|one| one["name"] == **name));
        ["capture", "targets", "exposition", "runtimes"].iter().all(watched).then_some(threads)
    });
    assert!(threads.as_array().is_some_and(|all| all.iter().all(|thread| thread["state"] != "late")), "{threads}");
    let metrics = daemon.metrics();
    assert!(
        metrics.0.contains("rustok_obsd_thread_silent_seconds{thread=\"capture\"}"),
        "{}",
        metrics.matching(&["thread"])
    );
    assert!(metrics.0.contains("rustok_obsd_queue_refused_total{queue=\"notices\",class=\"event\"} 0"));
    daemon.ends_by(libc::SIGTERM);
    manager.hears("STOPPING=1");
}

/// Lines of `/proc/PID/task/TID/status` of all threads: thread, key, value.
fn of_all_threads(pid: u32, keys: &[&str]) -> Vec<(String, Vec<String>)> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("its threads");
    let read = |path: std::path::PathBuf| fs::read_to_string(path.join("status")).ok();
    let line = |text: &str, key: &str| {
        let found = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        found.unwrap_or_default().trim().to_owned()
    };
    let threads = tasks.flatten().filter_map(|task| read(task.path()));
    threads.map(|text| (line(&text, "Name"), keys.iter().map(|key| line(&text, key)).collect())).collect()
}

#[test]
fn started_as_root_every_thread_keeps_the_units_capabilities_alone_and_is_filtered() {
    let name = "started_as_root_every_thread_keeps_the_units_capabilities_alone_and_is_filtered";
    let _alone = serial();
    or_skip!(name, is_root());
    let (shop, binary) = (or_skip!(name, Binary::shop()), or_skip!(name, daemon_copy()));
    let server = or_skip!(name, Shop::start(&shop.path));
    let daemon = or_skip!(name, Daemon::start_with(Command::new(&binary.path), &["--exe", shop.text()]));
    // Threads of scrapes and collectors are there as well.
    get(daemon.address, "/metrics", 2);
    let kept = NEEDED.iter().fold(0, |mask, needed| mask | needed.capability.bitmask());
    let (kept, none) = (format!("{kept:016x}"), format!("{:016x}", 0));
    let threads =
        of_all_threads(daemon.child.id(), &["CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb", "NoNewPrivs", "Seccomp"]);
    let names: Vec<_> = threads.iter().map(|(name, _)| name.as_str()).collect();
    for thread in ["rustok-obsd", "watchdog", "capture", "targets", "runtimes", "exposition"] {
        assert!(names.contains(&thread), "{thread} is not among {names:?}");
    }
    for (thread, found) in &threads {
        assert_eq!(*found, [&*kept, &*kept, &*kept, &*none, &*none, "1", "2"], "{thread}");
    }
    let told = daemon.status()["confinement"].clone();
    for measure in ["capabilities", "no_new_privileges", "system_calls", "memory_helpers"] {
        assert_eq!(told[measure]["state"], "applied", "{told}");
    }
    assert_eq!(told["landlock"]["state"], "unsuitable");
    assert_eq!(
        daemon.metrics().sum("rustok_obsd_confinement", &[("measure", "system_calls"), ("state", "applied")]),
        1.0
    );
    // Nothing is lost: uprobes attach, and kernel programs are timed.
    let daemon = or_skip!(name, daemon.ready());
    daemon.observes(server.child.id());
    daemon.wait("axum's probe", |daemon| (daemon.probe("axum_matched_path", &shop.path).0 == "attached").then_some(()));
    server.get("/api/slow/1", 3);
    daemon.counts(3.0, "rustok_http_requests_total", &[("path", "/api/slow/{ms}"), ("status", "200")]);
    daemon.wait("runs of the kernel programs", |daemon| {
        (daemon.metrics().sum("rustok_obsd_ebpf_program_runs_total", &[]) > 0.0).then_some(())
    });
}

#[test]
fn with_the_key_off_the_daemon_keeps_its_rights_and_says_so() {
    let name = "with_the_key_off_the_daemon_keeps_its_rights_and_says_so";
    let _alone = serial();
    let daemon = or_skip!(name, Daemon::start(&["--security.confine=false"]));
    let threads = of_all_threads(daemon.child.id(), &["Seccomp"]);
    let own = of_all_threads(std::process::id(), &["Seccomp"]);
    let pid = daemon.child.id();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("its children");
    let helpers: Vec<u32> = children.split_whitespace().flat_map(str::parse).collect();
    assert!(!helpers.is_empty());
    let threads = helpers.iter().fold(threads, |mut all, helper| {
        all.extend(of_all_threads(*helper, &["Seccomp"]));
        all
    });
    assert!(threads.iter().all(|(_, found)| *found == own[0].1), "{threads:?}");
    let told = daemon.status()["confinement"].clone();
    assert!(
        told.as_object().is_some_and(|all| all.len() == 5 && all.values().all(|one| one["state"] == "off")),
        "{told}"
    );
}

#[test]
fn a_daemon_that_cannot_start_says_why_and_not_that_a_thread_ended() {
    let name = "a_daemon_that_cannot_start_says_why_and_not_that_a_thread_ended";
    let _alone = serial();
    let mut command = Command::new(or_skip!(name, program("RUSTOK_OBSD_BIN")));
    command.args(["run", "--web.listen-address", "127.0.0.1:0", "--exe", "no-such-program"]);
    let folder = tempfile::tempdir().expect("a folder");
    let (code, text) = once(command, &["--path.procfs", &folder.path().join("none").to_string_lossy()]);
    assert!(code == Some(1) && text.contains("none") && !text.contains("thread "), "{code:?} {text}");
}
