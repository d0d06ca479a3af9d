//! What is missing, broken or in the way: each is told with its remedy, and the rest works.

use std::{
    fs,
    net::TcpListener,
    os::unix::process::CommandExt as _,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use rustok_obsd::probe::{Kernel, ProbeBoard, Programs, Settings, State, loader};
use test_support::{Skip, free_port, http_get, skip, wait_until};

use super::{
    running::{Binary, Daemon, PATIENCE, Script, Shop, get, once},
    scene::program,
    serial,
};

/// Skips the test where its scene cannot be set up.
macro_rules! or_skip {
    ($name:expr, $result:expr) => {
        match $result {
            Ok(value) => value,
            Err(reason) => return skip($name, reason),
        }
    };
}
pub(super) use or_skip;

const NOBODY: [&str; 3] = ["--reuid=65534", "--regid=65534", "--clear-groups"];

pub(super) fn is_root() -> Result<(), Skip> {
    // SAFETY: takes and touches nothing.
    if unsafe { libc::geteuid() } == 0 { Ok(()) } else { Err(Skip::new("only root can become another user")) }
}

pub(super) fn daemon_copy() -> Result<Binary, Skip> {
    Binary::copy(&program("RUSTOK_OBSD_BIN")?, "rustok-obsd")
}

pub(super) fn as_nobody(path: &Path, capabilities: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(NOBODY).current_dir("/");
    command.args(["--inh-caps", "--ambient-caps"].map(|kind| format!("{kind}=-all{capabilities}"))).arg(path);
    command
}

#[test]
fn without_root_it_serves_and_says_what_is_missing_and_doctor_fails_with_the_remedy() {
    let name = "without_root_it_serves_and_says_what_is_missing_and_doctor_fails_with_the_remedy";
    let _alone = serial();
    or_skip!(name, is_root());
    let binary = or_skip!(name, daemon_copy());
    let mut daemon = or_skip!(name, Daemon::start_with(as_nobody(&binary.path, ""), &["--exe", "no-such-program"]));
    let log = daemon.child.log_tail();
    for part in ["CAP_BPF", "CAP_PERFMON", "run as root", "AmbientCapabilities="] {
        assert!(log.contains(part), "the log lacks {part}: {log}");
    }
    let (status, _, body) = http_get(daemon.address, "/readyz").expect("/readyz answers");
    let body = String::from_utf8_lossy(&body);
    assert!(status == 503 && body.contains("CAP_BPF"), "{status} {body}");
    assert_eq!(http_get(daemon.address, "/healthz").expect("/healthz answers").0, 200);
    let metrics = daemon.metrics();
    assert_eq!(metrics.sum("rustok_obsd_build_info", &[]), 1.0);
    assert!(metrics.sum("rustok_obsd_probe_state", &[("probe", "sock_recv_length"), ("state", "failed")]) == 1.0);
    assert!(daemon.status()["kernel"]["refusal"].as_str().is_some_and(|text| text.contains("CAP_BPF")));
    daemon.ends_by(libc::SIGTERM);

    let (code, text) = once(as_nobody(&binary.path, ""), &["doctor", "--exe", "no-such-program"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("FAIL") && text.contains("CAP_PERFMON") && text.contains("run as root"), "{text}");
}

fn kernel_is_at_least(major: u32, minor: u32) -> bool {
    let release = Kernel::inspect().release;
    let mut numbers = release.split('.').map_while(|number| number.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(major), Some(minor))
}

#[test]
fn with_two_capabilities_alone_the_users_own_processes_are_observed() {
    let name = "with_two_capabilities_alone_the_users_own_processes_are_observed";
    let _alone = serial();
    or_skip!(name, is_root());
    let (binary, shop) = (or_skip!(name, daemon_copy()), or_skip!(name, Binary::shop()));
    let server = or_skip!(name, Shop::start_by(as_nobody(&shop.path, ""), "127.0.0.1:0"));
    // CAP_PERFMON and CAP_BPF.
    let command = as_nobody(&binary.path, ",+cap_38,+cap_39");
    let daemon = or_skip!(name, Daemon::start_with(command, &["--exe", shop.text()]));
    let log = daemon.child.log_tail();
    assert!(log.contains("other users' processes may stay unseen: missing CAP_SYS_PTRACE"), "{log}");
    let daemon = or_skip!(name, daemon.ready());
    daemon.observes(server.child.id());
    server.get("/hello", 3);
    daemon.counts(3.0, "rustok_http_requests_total", &[("path", "/hello"), ("status", "200")]);
    // From Linux 6.6 on nothing lacks; before that a patched kernel refuses, and the daemon names the way out.
    let (state, reason) = daemon.probe("axum_matched_path", &shop.path);
    let warned = daemon.child.log_tail().contains("routes may be learned instead of exact: missing CAP_SYS_ADMIN");
    let refused = state == "failed" && reason.contains("want CAP_SYS_ADMIN");
    assert!(state == "attached" || refused && warned, "{state}: {reason}");
    assert!(!kernel_is_at_least(6, 6) || state == "attached" && !warned, "{}", daemon.child.log_tail());
}

#[test]
fn without_btf_it_names_the_file_and_serves_everything_else() {
    let name = "without_btf_it_names_the_file_and_serves_everything_else";
    let _alone = serial();
    or_skip!(name, is_root());
    let folder = tempfile::tempdir().expect("a folder");
    let sysfs = folder.path().to_str().expect("UTF-8");
    let mut daemon = or_skip!(name, Daemon::start(&["--exe", "no-such-program", "--path.sysfs", sysfs]));
    let log = daemon.child.log_tail();
    for part in [&*format!("{sysfs}/kernel/btf/vmlinux"), "CONFIG_DEBUG_INFO_BTF", "no HTTP metrics and no spans"] {
        assert!(log.contains(part), "the log lacks {part}: {log}");
    }
    assert_eq!(http_get(daemon.address, "/readyz").expect("/readyz answers").0, 503);
    assert_eq!(daemon.metrics().sum("rustok_obsd_targets", &[]), 0.0);
    daemon.ends_by(libc::SIGTERM);
    let (code, text) =
        once(Command::new(or_skip!(name, program("RUSTOK_OBSD_BIN"))), &["doctor", "--path.sysfs", sysfs]);
    assert!(code == Some(1) && text.contains("CONFIG_DEBUG_INFO_BTF"), "{code:?} {text}");
}

#[test]
fn without_tracefs_uprobes_and_tracepoints_attach_all_the_same() {
    let name = "without_tracefs_uprobes_and_tracepoints_attach_all_the_same";
    let _alone = serial();
    or_skip!(name, is_root());
    let shop = or_skip!(name, Binary::shop());
    let server = or_skip!(name, Shop::start(&shop.path));
    // An empty file system over each place where tracefs can be.
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-ec"]).arg(
        "for at in /sys/kernel/tracing /sys/kernel/debug; do [ ! -d $at ] || mount -t tmpfs none $at; done; exec \"$0\" \"$@\"",
    );
    command.arg(or_skip!(name, program("RUSTOK_OBSD_BIN")));
    let daemon = or_skip!(name, Daemon::start_with(command, &["--exe", shop.text()]));
    let daemon = or_skip!(name, daemon.ready());
    daemon.observes(server.child.id());
    assert_eq!(daemon.probe("axum_matched_path", &shop.path).0, "attached", "{}", daemon.child.log_tail());
    server.get("/health/ready", 2);
    daemon.counts(2.0, "rustok_http_requests_total", &[("path", "/health/ready")]);
    assert_eq!(daemon.metrics().sum("rustok_obsd_routes", &[("source", "axum")]), 1.0);
}

#[test]
fn targets_that_end_at_once_or_while_they_are_attached_leave_nothing_behind() {
    let name = "targets_that_end_at_once_or_while_they_are_attached_leave_nothing_behind";
    let _alone = serial();
    let shop = or_skip!(name, Binary::shop());
    let mut daemon = or_skip!(name, Daemon::observing(&["--exe", shop.text()]));
    let (files, before) = (daemon.descriptors(), daemon.attachments());
    for round in 0..60u64 {
        let mut child = Command::new(&shop.path)
            // A port that cannot be resolved would end it; so does a database that is not there.
            .args(["--listen", "127.0.0.1:0", "--database-url", "postgres://127.0.0.1:1/none"])
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("start a target");
        // The moment of its death wanders over analysis, attachment and bookkeeping.
        let until = Instant::now() + Duration::from_millis(round % 20);
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        let _ = child.kill();
        let _ = child.wait();
    }
    // One that lives is observed after all that, and then nothing is left of it either.
    let server = or_skip!(name, Shop::start(&shop.path));
    daemon.observes(server.child.id());
    server.get("/hello", 1);
    daemon.counts(1.0, "rustok_http_requests_total", &[("path", "/hello")]);
    drop(server);
    daemon.counts(0.0, "rustok_obsd_targets", &[]);
    daemon.counts(0.0, "rustok_obsd_ebpf_map_entries", &[("map", "TARGETS")]);
    daemon.counts(0.0, "rustok_obsd_ebpf_map_entries", &[("map", "PORTS")]);
    // A program once loaded stays, at one descriptor: those of the shop's uprobes.
    daemon.wait("links to go", |daemon| (daemon.attachments().links == before.links).then_some(()));
    let grown = daemon.descriptors().saturating_sub(files);
    assert!(grown <= 12, "{grown} descriptors more than before");
    daemon.ends_by(libc::SIGTERM);
}

#[test]
fn an_absent_target_is_told_and_found_within_a_second_of_its_start() {
    let name = "an_absent_target_is_told_and_found_within_a_second_of_its_start";
    let _alone = serial();
    let shop = or_skip!(name, Binary::shop());
    let daemon = or_skip!(name, Daemon::observing(&["--exe", shop.text()]));
    daemon
        .child
        .wait_for_line(PATIENCE, |line| line.contains("no process matches the targets yet").then_some(()))
        .unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(http_get(daemon.address, "/readyz").expect("/readyz answers").0, 200, "waiting is no failure");
    // Its own start, with migrations, is not ours. A busy machine may hold one up, but not each.
    let start = || {
        let server = Shop::start(&shop.path)?;
        let listening = Instant::now();
        daemon.observes(server.child.id());
        Ok::<_, Skip>((listening.elapsed(), server))
    };
    let (mut took, mut server) = or_skip!(name, start());
    for _ in 0..2 {
        if took >= Duration::from_secs(1) {
            (took, server) = or_skip!(name, start());
        }
    }
    assert!(took < Duration::from_secs(1), "observed {took:?} after it listened");
    server.get("/hello", 5);
    daemon.counts(5.0, "rustok_http_requests_total", &[("path", "/hello")]);
}

#[test]
fn a_stripped_binary_keeps_its_latency_and_says_what_it_lost() {
    let name = "a_stripped_binary_keeps_its_latency_and_says_what_it_lost";
    let _alone = serial();
    let shop = or_skip!(name, Binary::shop());
    match Command::new("strip").arg(&shop.path).status() {
        Ok(status) if status.success() => {}
        other => return skip(name, format!("strip (package binutils): {other:?}")),
    }
    let server = or_skip!(name, Shop::start(&shop.path));
    let daemon = or_skip!(name, Daemon::observing(&["--exe", shop.text()]));
    let target = daemon.observes(server.child.id());
    let (state, reason) = daemon.probe("axum_matched_path", &shop.path);
    assert!(state == "disabled" && reason.contains("stripped") && reason.contains("strip = false"), "{state} {reason}");
    assert!(target["task_slot"].as_str().is_some_and(|slot| slot.starts_with("absent")), "{target}");
    for id in 1..=7 {
        server.get(&format!("/assets/{id}"), 1);
    }
    server.get("/hello", 4);
    daemon.counts(11.0, "http_server_request_duration_seconds_count", &[("service_name", "shop-copy")]);
    daemon.counts(4.0, "rustok_http_requests_total", &[("path", "/hello"), ("status", "200")]);
    let metrics = daemon.metrics();
    assert_eq!(metrics.sum("rustok_obsd_routes", &[("source", "axum")]), 0.0);
    assert!(metrics.sum("rustok_obsd_routes", &[("source", "learned")]) >= 1.0, "{}", metrics.matching(&["routes"]));
    assert!(!metrics.0.contains("path=\"/assets/3\""), "a raw path is no label");

    let (code, text) =
        once(Command::new(or_skip!(name, program("RUSTOK_OBSD_BIN"))), &["doctor", "--exe", shop.text()]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("without") && text.contains("stripped: no symbol table"), "{text}");
}

#[test]
fn a_program_that_is_no_rust_is_observed_by_its_sockets() {
    let name = "a_program_that_is_no_rust_is_observed_by_its_sockets";
    let _alone = serial();
    let marker = format!("marker-{}", std::process::id());
    let script = or_skip!(name, Script::server(&marker));
    let daemon = or_skip!(name, Daemon::observing(&["--command-line", &format!("*{marker}")]));
    let target = daemon.observes(script.child.id());
    assert!(target["probes"].to_string().contains("not a Rust program"), "{target}");
    for id in 100..120 {
        get(script.address, &format!("/items/{id}"), 1);
    }
    daemon.counts(20.0, "rustok_http_requests_total", &[("method", "GET"), ("status", "200")]);
    daemon.counts(20.0, "rustok_http_requests_total", &[("path", "/items/{id}")]);
}

#[test]
fn a_static_binary_is_observed_by_its_sockets() {
    let name = "a_static_binary_is_observed_by_its_sockets";
    let _alone = serial();
    let busybox = Path::new("/bin/busybox");
    let Ok(report) = Command::new(busybox).args(["httpd", "--help"]).output() else {
        return skip(name, "no busybox with httpd (package busybox-static)");
    };
    if !String::from_utf8_lossy(&report.stderr).contains("Usage: httpd") {
        return skip(name, "no busybox with httpd (package busybox-static)");
    }
    let copy = or_skip!(name, Binary::copy(busybox, "busybox-copy"));
    let port = free_port();
    fs::write(copy.folder.path().join("index.html"), "ok").expect("a page");
    let mut command = Command::new(&copy.path);
    command.arg0("httpd").args(["-f", "-p", &format!("127.0.0.1:{port}"), "-h"]).arg(copy.folder.path());
    let server = test_support::Child::spawn("busybox", &mut command).expect("start busybox");
    let daemon = or_skip!(name, Daemon::observing(&["--exe", copy.text()]));
    let target = daemon.observes(server.id());
    assert!(target["probes"].to_string().contains("not a Rust program"), "{target}");
    let address = ([127, 0, 0, 1], port).into();
    assert!(wait_until(PATIENCE, || http_get(address, "/").ok()).is_some(), "busybox answers");
    // It forks for each connection: a child is followed from its fork on, and counts for its parent.
    get(address, "/", 29);
    daemon.counts(30.0, "rustok_http_requests_total", &[("path", "/"), ("status", "200")]);
    daemon.counts(1.0, "rustok_obsd_targets", &[]);
    daemon.counts(1.0, "rustok_obsd_ebpf_map_entries", &[("map", "TARGETS")]);
}

#[test]
fn a_taken_port_ends_it_before_anything_is_attached() {
    let name = "a_taken_port_ends_it_before_anything_is_attached";
    let _alone = serial();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let command = Command::new(or_skip!(name, program("RUSTOK_OBSD_BIN")));
    let (code, text) = once(command, &["run", "--exe", "no-such-program", "--web.listen-address", &address]);
    assert_eq!(code, Some(1), "{text}");
    for part in [&*address, "in use", "ss -ltnp", "--web.listen-address"] {
        assert!(text.contains(part), "lacks {part}: {text}");
    }
    assert!(!text.contains("no process matches"), "it went on: {text}");
}

#[test]
fn an_absent_or_silent_collector_costs_spans_that_are_counted_and_never_time() {
    let name = "an_absent_or_silent_collector_costs_spans_that_are_counted_and_never_time";
    let _alone = serial();
    let shop = or_skip!(name, Binary::shop());
    let server = or_skip!(name, Shop::start(&shop.path));
    // Accepts by its backlog, and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let silent = silent.local_addr().map(|address| (silent, address)).expect("an address");
    for (endpoint, protocol) in [
        (format!("http://127.0.0.1:{}", free_port()), "http/protobuf"),
        (format!("http://127.0.0.1:{}", free_port()), "grpc"),
        (format!("http://{}", silent.1), "http/protobuf"),
    ] {
        let mut command = Command::new(or_skip!(name, program("RUSTOK_OBSD_BIN")));
        command
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)
            .env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
            .env("OTEL_EXPORTER_OTLP_TIMEOUT", "500")
            .env("OTEL_BSP_EXPORT_TIMEOUT", "1000")
            .env("OTEL_BSP_SCHEDULE_DELAY", "50");
        let daemon = or_skip!(name, Daemon::start_with(command, &["--exe", shop.text()]));
        let mut daemon = or_skip!(name, daemon.ready());
        daemon.observes(server.child.id());
        server.get("/hello", 6);
        daemon.counts(6.0, "rustok_http_requests_total", &[("path", "/hello")]);
        daemon.wait("the loss to be counted", |daemon| {
            let metrics = daemon.metrics();
            let lost = |result| metrics.sum("rustok_obsd_spans_total", &[("result", result)]);
            (lost("dropped_export_failed") + lost("dropped_export_timeout") == 6.0).then_some(())
        });
        server.get("/hello", 2);
        daemon.counts(8.0, "rustok_http_requests_total", &[("path", "/hello")]);
        daemon.ends_by(libc::SIGTERM);
    }
}

#[test]
fn a_malformed_configuration_ends_it_with_file_line_key_and_what_is_allowed() {
    let name = "a_malformed_configuration_ends_it_with_file_line_key_and_what_is_allowed";
    let _alone = serial();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("bad.toml");
    fs::write(&file, "[capture]\nring_bytes = 1000\n\n[trases]\nexporter = \"otlp\"\n").expect("write");
    let path = file.to_str().expect("UTF-8");
    for command in ["run", "doctor", "check-config"] {
        let program = Command::new(or_skip!(name, program("RUSTOK_OBSD_BIN")));
        let (code, text) = once(program, &[command, "--config.file", path]);
        assert_eq!(code, Some(2), "{command}: {text}");
        for part in [
            &*format!("{path}:2: capture.ring_bytes"),
            "a power of two from 65536",
            &*format!("{path}:4: trases"),
            "did you mean `traces`?",
        ] {
            assert!(text.contains(part), "{command} lacks {part}: {text}");
        }
    }
    let program = Command::new(or_skip!(name, program("RUSTOK_OBSD_BIN")));
    let (code, text) = once(program, &["run", "--config.file", "/nonexistent/rustok-obsd.toml"]);
    assert!(code == Some(2) && text.contains("/nonexistent/rustok-obsd.toml"), "{code:?} {text}");
}

#[test]
fn an_object_of_another_version_and_none_at_all_are_refused_with_the_remedy() {
    let name = "an_object_of_another_version_and_none_at_all_are_refused_with_the_remedy";
    let _alone = serial();
    let kernel = Kernel::inspect();
    let refused =
        |object: Option<&[u8]>| match Programs::load(object, &kernel, Settings::default(), &ProbeBoard::default()) {
            Ok(_) => panic!("it was loaded"),
            Err(error) => error.to_string(),
        };
    let text = refused(None);
    assert!(text.contains("built without kernel programs") && text.contains("cargo xtask build-ebpf"), "{text}");
    let Some(object) = loader::OBJECT else { return skip(name, "built without kernel programs") };
    if let Some(reason) = kernel.refusal() {
        return skip(name, reason);
    }
    // The daemon looks for the symbol of its own ABI.
    let mut other = object.to_vec();
    let places: Vec<usize> =
        other.windows(6).enumerate().filter(|(_, bytes)| bytes == b"ABI_4\0").map(|(at, _)| at).collect();
    assert!(!places.is_empty(), "the object names its ABI");
    for at in places {
        other[at + 4] = b'0';
    }
    let text = refused(Some(&other));
    assert!(text.contains("another version") && text.contains("cargo xtask build-ebpf"), "{text}");
    // Cut anywhere, it is an error and no panic.
    for part in 0..8 {
        refused(Some(&object[..object.len() * part / 8]));
    }
    let board = ProbeBoard::default();
    let loaded = Programs::load(Some(object), &kernel, Settings::default(), &board);
    assert!(loaded.is_ok() && board.all().iter().any(|probe| probe.state == State::Attached));
}
