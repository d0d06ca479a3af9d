//! Processes of an unprivileged user that do their worst beside a server that is observed all the while.
//!
//! Reads: what the daemon says of both. Yields: that the good one is counted exactly, scrapes are answered, and the daemon
//! ends in time.

use std::{
    fs,
    os::unix::fs::chown,
    process::Command,
    time::{Duration, Instant},
};

use test_support::{Child, Fuse, Served, Skip, http_get, skip};

use super::{
    faults::{is_root, or_skip},
    running::{Binary, Daemon, Script, Shop},
    serial,
};

const REQUESTS: &str = "rustok_http_requests_total";
const REFUSED: &str = "rustok_obsd_targets_refused_total";
/// One that every user may run, unlike those that version managers put before it.
const PYTHON: &str = "/usr/bin/python3";
/// A user that owns nothing else.
pub const STRANGER: u32 = 41_414;

/// A command that runs as the stranger.
pub fn as_stranger() -> Result<Command, Skip> {
    is_root()?;
    let user = STRANGER.to_string();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &user, "--regid", &user, "--clear-groups"]);
    match Command::new("setpriv").args(["--reuid", &user, "--regid", &user, "--clear-groups", "true"]).status() {
        Ok(status) if status.success() => Ok(command),
        other => Err(Skip::new(format!("setpriv (package util-linux): {other:?}"))),
    }
}

/// The server serves, and the daemon counts every request of it.
fn is_counted(daemon: &Daemon, server: &Shop) {
    let before = daemon.metrics().sum(REQUESTS, &[("path", "/health/ready"), ("status", "200")]);
    server.get("/health/ready", 25);
    daemon.counts(before + 25.0, REQUESTS, &[("path", "/health/ready"), ("status", "200")]);
}

/// A whole scrape takes less than a second, as the issue of hostile processes wants it.
pub fn scrapes_in_time(daemon: &Daemon) {
    let start = Instant::now();
    let (status, _, _) = http_get(daemon.address, "/metrics").expect("/metrics answers");
    let took = start.elapsed();
    assert!(status == 200 && took < Duration::from_secs(1), "{status} after {took:?}");
}

#[test]
fn an_executable_of_a_stranger_gets_no_uprobes_unless_its_owner_is_trusted() {
    let name = "an_executable_of_a_stranger_gets_no_uprobes_unless_its_owner_is_trusted";
    let _alone = serial();
    let (good, other) = (or_skip!(name, Binary::shop()), or_skip!(name, Binary::shop()));
    let mut command = or_skip!(name, as_stranger());
    chown(&other.path, Some(STRANGER), Some(STRANGER)).expect("chown");
    let good_server = or_skip!(name, Shop::start(&good.path));
    command.arg(&other.path);
    let other_server = or_skip!(name, Shop::start_by(command, "127.0.0.1:0"));
    {
        let mut daemon = or_skip!(name, Daemon::observing(&["--exe", "shop-copy"]));
        daemon.observes(good_server.child.id());
        let told = daemon.observes(other_server.child.id());
        let reason = told["sockets_only"].as_str().unwrap_or_default();
        assert!(reason.contains(&format!("--trusted-owners {STRANGER}")), "{told:#}");
        let (state, why) = daemon.probe("axum_matched_path", &other.path);
        assert!(state == "disabled" && why.contains(&STRANGER.to_string()), "{state} {why}");
        assert_eq!(daemon.probe("axum_matched_path", &good.path).0, "attached");
        // Its requests are seen at its sockets, and its routes are no business of axum's.
        other_server.get("/health/ready", 5);
        daemon.counts(5.0, REQUESTS, &[("status", "200")]);
        assert_eq!(daemon.metrics().sum("rustok_obsd_routes", &[("source", "axum")]), 0.0);
        is_counted(&daemon, &good_server);
        daemon.ends_by(libc::SIGTERM);
    }
    let daemon = or_skip!(name, Daemon::observing(&["--exe", "shop-copy", "--trusted-owners", &STRANGER.to_string()]));
    let told = daemon.observes(other_server.child.id());
    assert!(told["sockets_only"].is_null(), "{told:#}");
    assert_eq!(daemon.probe("axum_matched_path", &other.path).0, "attached");
}

#[test]
fn a_path_that_exists_only_in_a_namespace_of_a_strangers_own_selects_nothing() {
    let name = "a_path_that_exists_only_in_a_namespace_of_a_strangers_own_selects_nothing";
    let _alone = serial();
    let (good, other) = (or_skip!(name, Binary::shop()), or_skip!(name, Binary::shop()));
    let mut command = or_skip!(name, as_stranger());
    let unshare = ["unshare", "--user", "--map-root-user", "--mount"];
    match or_skip!(name, as_stranger()).args(unshare).arg("true").output() {
        Ok(output) if output.status.success() => {}
        other => return skip(name, format!("user namespaces of unprivileged users: {other:?}")),
    }
    chown(&other.path, Some(STRANGER), Some(STRANGER)).expect("chown");
    // In the stranger's world the path of the good server leads to the stranger's file.
    let script = "mount --bind \"$1\" \"$0\"; shift; exec \"$0\" \"$@\"";
    command.args(unshare).args(["sh", "-ec", script]).arg(&good.path).arg(&other.path);
    let good_server = or_skip!(name, Shop::start(&good.path));
    let other_server = or_skip!(name, Shop::start_by(command, "127.0.0.1:0"));
    let exe = fs::read_link(format!("/proc/{}/exe", other_server.child.id())).expect("its executable");
    assert_eq!(exe, good.path, "the stranger's process says that it is the good server");
    let daemon = or_skip!(name, Daemon::observing(&["--exe", good.text()]));
    daemon.observes(good_server.child.id());
    other_server.get("/health/ready", 5);
    is_counted(&daemon, &good_server);
    assert!(daemon.target(other_server.child.id()).is_none(), "{:#}", daemon.status());
    assert_eq!(daemon.metrics().sum(REQUESTS, &[]), 25.0, "{}", daemon.metrics().matching(&[REQUESTS]));
    drop(daemon);
    // Its control group, which it cannot choose, may name it.
    let daemon = or_skip!(name, Daemon::observing(&["--pid", &other_server.child.id().to_string()]));
    let told = daemon.observes(other_server.child.id());
    assert!(told["sockets_only"].is_string(), "{told:#}");
}

/// Forks without end, and its children wait.
const FORKS: &str = r"
import os, sys, time
print('port 1')
for n in range(int(sys.argv[2])):
    if os.fork() == 0:
        time.sleep(600)
while True: time.sleep(1)
";

#[test]
fn a_target_that_forks_without_end_leaves_room_for_a_later_server() {
    let name = "a_target_that_forks_without_end_leaves_room_for_a_later_server";
    let _alone = serial();
    let command = or_skip!(name, as_stranger());
    let good = or_skip!(name, Binary::shop());
    // No other run of the tests has it.
    let marker = &*format!("fork-without-end-{}", std::process::id());
    let mut python = command;
    python.arg(PYTHON);
    let daemon = or_skip!(name, Daemon::observing(&["--exe", good.text(), "--command-line", &format!("*{marker}*")]));
    python.args(["-u", "-c", FORKS, marker, "700"]);
    let forks = Child::spawn("python3", &mut python).expect("it starts");
    daemon.observes(forks.id());
    daemon.wait("children to be refused", |daemon| {
        let refused = |reason: &str| daemon.metrics().sum(REFUSED, &[("reason", reason)]);
        (refused("child") + refused("file_share") > 0.0).then_some(())
    });
    let server = or_skip!(name, Shop::start(&good.path));
    daemon.observes(server.child.id());
    is_counted(&daemon, &server);
    scrapes_in_time(&daemon);
    // The children end with their parent's group; then there is room again, and readiness says so.
    drop(forks);
    let mut daemon = daemon;
    is_counted(&daemon, &server);
    daemon.ends_by(libc::SIGTERM);
}

#[test]
fn an_executable_that_stops_to_answer_keeps_nobody_waiting() {
    let name = "an_executable_that_stops_to_answer_keeps_nobody_waiting";
    let _alone = serial();
    let good = or_skip!(name, Binary::shop());
    let folder = tempfile::tempdir().expect("a folder");
    fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("open to all");
    let copy = folder.path().join("silent-copy");
    fs::write(&copy, "").expect("a file to mount over");
    let program = fs::read(&good.path).expect("the program");
    // Dropped after the file system: they end when nothing of theirs waits for it.
    let mut stuck: Vec<Shop> = Vec::new();
    let silent = or_skip!(name, Fuse::mount(&copy, Served::File(program)));
    let start = || {
        let mut command = as_stranger()?;
        command.arg(&copy);
        Shop::start_by(command, "127.0.0.1:0")
    };
    // More than threads are given to one user.
    stuck.extend(or_skip!(name, (0..4).map(|_| start()).collect::<Result<Vec<_>, Skip>>()));
    silent.keep_content();
    // What was read so far is forgotten, all but what the processes have mapped.
    fs::write("/proc/sys/vm/drop_caches", "1").expect("root may");
    let server = or_skip!(name, Shop::start(&good.path));
    let arguments = ["--exe", good.text(), "--exe", "silent-copy"];
    let mut daemon = or_skip!(name, Daemon::observing(&arguments));
    daemon.observes(server.child.id());
    is_counted(&daemon, &server);
    // They are observed at their sockets, with the reason, and nobody asked the file system anything.
    for shop in &stuck {
        let told = daemon.observes(shop.child.id());
        let reason = told["sockets_only"].as_str().unwrap_or_default();
        assert!(reason.contains("a program serves"), "{told:#}");
    }
    assert_eq!(silent.unanswered(), 0);
    // Another server that starts now is found at once, and counted whole.
    let later = or_skip!(name, Shop::start(&good.path));
    daemon.observes(later.child.id());
    assert_eq!(daemon.probe("axum_matched_path", &good.path).0, "attached");
    is_counted(&daemon, &later);
    scrapes_in_time(&daemon);
    daemon.ends_by(libc::SIGTERM);
}

#[test]
fn nothing_of_targets_that_ended_stays_in_the_maps() {
    let name = "nothing_of_targets_that_ended_stays_in_the_maps";
    let _alone = serial();
    let good = or_skip!(name, Binary::shop());
    let server = or_skip!(name, Script::server("stays-alive"));
    let daemon = or_skip!(name, Daemon::observing(&["--exe", good.text(), "--command-line", "*stays-alive"]));
    daemon.observes(server.child.id());
    let entries = |daemon: &Daemon| {
        let metrics = daemon.metrics();
        ["TARGETS", "PORTS", "LAYOUTS"].map(|map| metrics.sum("rustok_obsd_ebpf_map_entries", &[("map", map)]))
    };
    let before = entries(&daemon);
    for _ in 0..5 {
        let shop = or_skip!(name, Shop::start(&good.path));
        daemon.observes(shop.child.id());
        assert!(entries(&daemon)[0] > before[0]);
    }
    daemon.wait("the maps to be as before", |daemon| (entries(daemon) == before).then_some(()));
}
