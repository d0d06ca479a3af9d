//! What happens in the field: restarts, upgrades, several targets, namespaces, IPv6, late starts, sudden ends.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::PathBuf,
    process::Command,
    sync::Arc,
    time::Duration,
};

use rustok_obsd::exposition::{self, Exposition, server};
use test_support::{Child, Skip, skip, wait_until};

use super::{
    faults::or_skip,
    running::{Attachments, Binary, Daemon, KeepAlive, PATIENCE, Script, Shop, get},
    serial,
};

const REQUESTS: &str = "rustok_http_requests_total";
const DURATIONS: &str = "http_server_request_duration_seconds_count";

#[test]
fn an_upgrade_in_place_and_a_restart_are_followed_and_counters_go_on() {
    let name = "an_upgrade_in_place_and_a_restart_are_followed_and_counters_go_on";
    let _alone = serial();
    let shop = or_skip!(name, Binary::shop());
    let daemon = or_skip!(name, Daemon::observing(&["--exe", shop.text()]));
    let (links, mut total) = (daemon.attachments().links.len(), 0);
    for generation in 0..3 {
        let server = or_skip!(name, Shop::start(&shop.path));
        let target = daemon.observes(server.child.id());
        assert_eq!(target["exe_deleted"], false, "{target}");
        server.get("/hello", 5);
        total += 5;
        daemon.counts(f64::from(total), REQUESTS, &[("path", "/hello")]);
        assert_eq!(daemon.probe("axum_matched_path", &shop.path).0, "attached");
        // The next build takes the path while this one runs: another file, by the second time another content too.
        let next = shop.folder.path().join("next");
        fs::copy(&shop.path, &next).expect("copy");
        if generation == 1 {
            let status = Command::new("objcopy").args(["--remove-section", ".comment"]).arg(&next).status();
            assert!(status.is_ok_and(|status| status.success()), "objcopy (package binutils)");
        }
        fs::rename(&next, &shop.path).expect("replace");
        server.get("/hello", 1);
        total += 1;
        daemon.counts(f64::from(total), REQUESTS, &[("path", "/hello")]);
        drop(server);
        daemon.counts(0.0, "rustok_obsd_targets", &[]);
        assert!(daemon.metrics().sum(REQUESTS, &[("path", "/hello")]) >= f64::from(total), "a counter fell");
    }
    daemon.wait("the uprobes of old files to go", |daemon| (daemon.attachments().links.len() == links).then_some(()));
    assert_eq!(daemon.metrics().sum("rustok_obsd_routes", &[("source", "axum")]), 1.0);
}

#[test]
fn several_targets_have_series_of_their_own_by_the_names_they_say() {
    let name = "several_targets_have_series_of_their_own_by_the_names_they_say";
    let _alone = serial();
    let (shop, other) = (or_skip!(name, Binary::shop()), or_skip!(name, Binary::shop()));
    let environment = [("OTEL_SERVICE_NAME", "orders"), ("OTEL_RESOURCE_ATTRIBUTES", "service.version=1.2.3")];
    let orders = or_skip!(name, Shop::start_on(&shop.path, "127.0.0.1:0", &environment));
    let attributes = [("OTEL_RESOURCE_ATTRIBUTES", "service.name=carts,deployment.environment.name=test")];
    let carts = or_skip!(name, Shop::start_on(&other.path, "127.0.0.1:0", &attributes));
    let marker = format!("marker-{}", std::process::id());
    let (by_line, by_port) = (or_skip!(name, Script::server(&marker)), or_skip!(name, Script::server("by-port")));
    let (line, port) = (format!("*{marker}"), by_port.address.port().to_string());
    let file = shop.folder.path().join("targets.toml");
    let text = format!(
        "[[targets]]\nexe = [{:?}, {:?}]\n[[targets]]\ncommand_line = {line:?}\nservice_name = \"by-line\"\n[[targets]]\nport = {port}\nservice_name = \"by-port\"\nroutes = [\"/a/{{rest}}\"]\n",
        shop.text(),
        other.text()
    );
    fs::write(&file, text).expect("write");
    let daemon = or_skip!(name, Daemon::observing(&["--config.file", file.to_str().expect("UTF-8")]));
    for (pid, service) in [
        (orders.child.id(), "orders"),
        (carts.child.id(), "carts"),
        (by_line.child.id(), "by-line"),
        (by_port.child.id(), "by-port"),
    ] {
        assert_eq!(daemon.observes(pid)["service_name"], service);
    }
    orders.get("/hello", 3);
    carts.get("/hello", 4);
    get(by_line.address, "/hello", 5);
    get(by_port.address, "/a/x", 6);
    for (service, count) in [("orders", 3.0), ("carts", 4.0), ("by-line", 5.0), ("by-port", 6.0)] {
        daemon.counts(count, DURATIONS, &[("service_name", service)]);
    }
    daemon.counts(12.0, REQUESTS, &[("path", "/hello")]);
    daemon.counts(6.0, REQUESTS, &[("path", "/a/{rest}")]);
    let metrics = daemon.metrics();
    let info = |labels: &[(&str, &str)]| metrics.sum("target_info", labels);
    assert_eq!(
        info(&[("service_name", "orders"), ("service_version", "1.2.3")]),
        1.0,
        "{}",
        metrics.matching(&["target_info"])
    );
    assert_eq!(info(&[("service_name", "carts"), ("deployment_environment_name", "test")]), 1.0);
}

#[test]
fn a_target_is_found_by_its_control_group_and_named_by_the_daemons_own_variable() {
    let name = "a_target_is_found_by_its_control_group_and_named_by_the_daemons_own_variable";
    let _alone = serial();
    let group = or_skip!(name, Group::create());
    let shop = or_skip!(name, Binary::shop());
    let outside = or_skip!(name, Shop::start(&shop.path));
    let mut command = Command::new("sh");
    command.args(["-ec", "echo $$ > \"$0\"; exec \"$@\""]).arg(group.0.join("cgroup.procs")).arg(&shop.path);
    let inside = or_skip!(name, Shop::start_by(command, "127.0.0.1:0"));
    let mut command = Command::new(or_skip!(name, super::scene::program("RUSTOK_OBSD_BIN")));
    command.env("OTEL_SERVICE_NAME", "named");
    let glob = format!("**/{}", group.0.file_name().and_then(|name| name.to_str()).expect("a name"));
    let daemon = or_skip!(name, Daemon::start_with(command, &["--cgroup", &glob]));
    let daemon = or_skip!(name, daemon.ready());
    let target = daemon.observes(inside.child.id());
    assert_eq!(target["service_name"], "named", "{target}");
    assert!(daemon.target(outside.child.id()).is_none());
    outside.get("/hello", 2);
    inside.get("/hello", 3);
    daemon.counts(3.0, DURATIONS, &[("service_name", "named")]);
    drop(inside);
}

struct Group(PathBuf);

impl Group {
    fn create() -> Result<Self, Skip> {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let version2 = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let mut version2 = version2.filter(|words| words.get(2) == Some(&"cgroup2"));
        let root = version2.next().ok_or_else(|| Skip::new("no control groups of version 2 are mounted"))?[1];
        let path = PathBuf::from(root).join(format!("rustok-obsd-e2e-{}", std::process::id()));
        fs::create_dir(&path).map_err(|error| Skip::new(format!("{}: {error}", path.display())))?;
        Ok(Self(path))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        wait_until(Duration::from_secs(5), || fs::remove_dir(&self.0).ok());
    }
}

#[test]
fn a_target_in_mount_and_pid_namespaces_of_its_own_is_observed_by_its_own_path() {
    let name = "a_target_in_mount_and_pid_namespaces_of_its_own_is_observed_by_its_own_path";
    let _alone = serial();
    let shop = or_skip!(name, Binary::shop());
    let folder = shop.folder.path().join("inside");
    fs::create_dir(&folder).expect("a folder");
    // The path exists only in the target's mount namespace, the pid 1 only in its pid namespace.
    let script = "mount -t tmpfs none \"$0\"; cp \"$1\" \"$0/app\"; shift; exec \"$0/app\" \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-ec", script]).arg(&folder).arg(&shop.path);
    match Command::new("unshare").args(["--mount", "--pid", "--fork", "true"]).status() {
        Ok(status) if status.success() => {}
        other => return skip(name, format!("unshare --mount --pid: {other:?}")),
    }
    let daemon = or_skip!(name, Daemon::observing(&["--exe", &format!("{}/app", folder.display())]));
    let mut server = or_skip!(name, Shop::start_by(command, "127.0.0.1:0"));
    let exe = folder.join("app");
    let target = daemon.wait("the namespaced process", |daemon| {
        daemon.status()["targets"].as_array()?.iter().find(|target| target["exe"] == exe.to_str().unwrap()).cloned()
    });
    assert!(!exe.exists(), "the path is the target's alone");
    assert_ne!(target["pid"], 1);
    assert_eq!(daemon.probe("axum_matched_path", &exe).0, "attached", "{}", daemon.child.log_tail());
    server.get("/health/ready", 4);
    daemon.counts(4.0, REQUESTS, &[("path", "/health/ready"), ("status", "200")]);
    assert_eq!(daemon.metrics().sum("rustok_obsd_routes", &[("source", "axum")]), 1.0);
    // `unshare` waits for its child, and takes it along only when it is killed.
    server.child.stop(libc::SIGKILL, PATIENCE);
}

/// The parent listens, forks two workers, and they serve.
const PREFORK: &str = r"
import http.server, os, sys, time
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header('Content-Length', '2')
        self.end_headers()
        self.wfile.write(b'ok')
    def log_message(self, *args): pass
server = http.server.HTTPServer(('127.0.0.1', 0), Handler)
print('port', server.server_port)
while not os.path.exists(sys.argv[1]): time.sleep(0.01)
os.fork()
os.fork()
server.serve_forever()
";

#[test]
fn children_that_a_target_forks_are_observed_too() {
    let name = "children_that_a_target_forks_are_observed_too";
    let _alone = serial();
    let folder = tempfile::tempdir().expect("a folder");
    let go = folder.path().join("go");
    let marker = go.to_str().expect("UTF-8");
    let script = or_skip!(name, Script::start(Command::new("python3"), marker, PREFORK));
    let daemon = or_skip!(name, Daemon::observing(&["--command-line", &format!("*{marker}")]));
    daemon.observes(script.child.id());
    fs::write(&go, "").expect("write");
    // Two forks in two processes make four.
    daemon.counts(4.0, "rustok_obsd_targets", &[]);
    get(script.address, "/hello", 40);
    daemon.counts(40.0, REQUESTS, &[("path", "/hello")]);
}

#[test]
fn ipv6_and_dual_stack_servers_are_observed_as_ipv4_ones() {
    let name = "ipv6_and_dual_stack_servers_are_observed_as_ipv4_ones";
    let _alone = serial();
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        return skip(name, "this machine has no IPv6");
    }
    let shop = or_skip!(name, Binary::shop());
    let only = or_skip!(name, Shop::start_on(&shop.path, "[::1]:0", &[("OTEL_SERVICE_NAME", "only")]));
    let dual = or_skip!(name, Shop::start_on(&shop.path, "[::]:0", &[("OTEL_SERVICE_NAME", "dual")]));
    let daemon = or_skip!(name, Daemon::observing(&["--exe", shop.text()]));
    daemon.observes(only.child.id());
    daemon.observes(dual.child.id());
    only.get("/hello", 3);
    get(([127, 0, 0, 1], dual.address.port()).into(), "/hello", 4);
    get((std::net::Ipv6Addr::LOCALHOST, dual.address.port()).into(), "/hello", 5);
    daemon.counts(3.0, DURATIONS, &[("service_name", "only"), ("http_route", "/hello")]);
    daemon.counts(9.0, DURATIONS, &[("service_name", "dual"), ("http_route", "/hello")]);
}

#[test]
fn connections_older_than_the_daemon_count_from_their_next_request_on() {
    let name = "connections_older_than_the_daemon_count_from_their_next_request_on";
    let _alone = serial();
    let shop = or_skip!(name, Binary::shop());
    let server = or_skip!(name, Shop::start(&shop.path));
    let mut old: Vec<KeepAlive> = (0..8).map(|_| KeepAlive::open(server.address)).collect();
    old.iter_mut().for_each(|connection| connection.get("/health"));
    // Under load, too: connections with a request in flight.
    let mut load = or_skip!(name, server.load(&["--duration", "3s", "--concurrency", "16", "--seed", "3"]));
    let daemon = or_skip!(name, Daemon::observing(&["--exe", shop.text()]));
    daemon.observes(server.child.id());
    daemon.wait("the load to be seen", |daemon| {
        (daemon.metrics().sum(REQUESTS, &[("path", "/hello")]) > 0.0).then_some(())
    });
    assert!(load.wait(PATIENCE).is_some_and(|status| status.success()), "{}", load.log_tail());
    for connection in &mut old {
        (0..10).for_each(|_| connection.get("/health"));
    }
    daemon.counts(80.0, REQUESTS, &[("path", "/health"), ("status", "200")]);
    let metrics = daemon.metrics();
    assert_eq!(metrics.sum("rustok_obsd_records_lost_total", &[("reason", "ring_full")]), 0.0);
    // What the client sent: at most one request of each connection was under way when the daemon came.
    let summary: serde_json::Value = serde_json::from_str(&load.log_tail()).expect("a summary");
    let text = metrics.matching(&[REQUESTS, "problems", "lost"]);
    assert!(
        metrics.sum(REQUESTS, &[("path", "/hello")]) <= summary["requests"].as_f64().unwrap_or(f64::MAX),
        "{summary} {text}"
    );
    let before = metrics.sum(REQUESTS, &[("path", "/hello")]);
    let mut load = or_skip!(name, server.load(&["--requests", "2000", "--concurrency", "16"]));
    assert!(load.wait(PATIENCE).is_some_and(|status| status.success()), "{}", load.log_tail());
    daemon.counts(before + 2000.0, REQUESTS, &[("path", "/hello")]);
}

/// Set for the copy of this test program that serves.
const SERVE: &str = "RUSTOK_OBSD_E2E_SERVE";

/// The daemon's own exposition, a server on Tokio as any, built as the tests are.
fn serve() {
    struct Ready;
    impl server::Status for Ready {
        fn ready(&self) -> Result<(), String> {
            Ok(())
        }

        fn status(&self) -> serde_json::Value {
            serde_json::Value::Null
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = exposition::bind("127.0.0.1:0").await.expect("a port");
        println!("\nlistening on http://{}", listener.local_addr().expect("an address"));
        let server = server::Server::new(Arc::new(Exposition::new()), Arc::new(Ready), server::Limits::default());
        server::serve(listener, server, std::future::pending()).await;
    });
}

#[test]
fn a_debug_build_is_calibrated_while_it_runs_and_the_uprobe_goes_again() {
    let name = "a_debug_build_is_calibrated_while_it_runs_and_the_uprobe_goes_again";
    if std::env::var_os(SERVE).is_some() {
        return serve();
    }
    let _alone = serial();
    let binary = or_skip!(name, Binary::copy(&std::env::current_exe().expect("this program"), "debug-copy"));
    let mut command = Command::new(&binary.path);
    command.args([&format!("field::{name}"), "--exact", "--nocapture"]).env(SERVE, "1");
    let child = Child::spawn("debug-copy", &mut command).expect("it starts");
    let address = child
        .wait_for_line(PATIENCE, |line| line.strip_prefix("listening on http://")?.parse().ok())
        .unwrap_or_else(|error| panic!("{error}"));
    let daemon = or_skip!(name, Daemon::observing(&["--exe", binary.text()]));
    let target = daemon.observes(child.id());
    let slot = target["task_slot"].as_str().unwrap_or_default();
    if !slot.starts_with("to be calibrated") {
        return skip(name, format!("this build's slot needs no calibration: {slot}"));
    }
    let during = daemon.attachments().links.len();
    let mut sent = 0;
    daemon.wait("calibration", |daemon| {
        get(address, "/healthz", 5);
        sent += 5;
        (daemon.probe("tokio_task_slot", &binary.path).0 == "attached").then_some(())
    });
    // Those that watch spawned tasks stay.
    assert_eq!(daemon.probe("tokio_task_enter", &binary.path).0, "disabled");
    daemon.wait("the uprobe to go", |daemon| (daemon.attachments().links.len() < during).then_some(()));
    assert_eq!(daemon.probe("tokio_task_enter", &binary.path).1, "calibration is done");
    daemon.counts(f64::from(sent), REQUESTS, &[("path", "/healthz"), ("status", "200")]);
}

#[test]
fn a_signal_ends_it_in_time_under_load_and_nothing_stays_attached() {
    let name = "a_signal_ends_it_in_time_under_load_and_nothing_stays_attached";
    let _alone = serial();
    let shop = or_skip!(name, Binary::shop());
    let server = or_skip!(name, Shop::start(&shop.path));
    let mut load = or_skip!(name, server.load(&["--duration", "8s", "--concurrency", "32"]));
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGKILL] {
        let mut daemon = or_skip!(name, Daemon::observing(&["--exe", shop.text()]));
        daemon.observes(server.child.id());
        daemon.wait("requests", |daemon| (daemon.metrics().sum(REQUESTS, &[]) > 100.0).then_some(()));
        let held = daemon.attachments();
        assert!(held.links.len() >= 2, "{held:?}");
        if signal == libc::SIGKILL {
            daemon.child.signal(signal);
            assert!(daemon.child.wait(PATIENCE).is_some());
        } else {
            daemon.ends_by(signal);
        }
        assert_eq!(held.left(), Attachments::default(), "left after signal {signal}");
    }
    assert!(load.wait(PATIENCE).is_some_and(|status| status.success()), "the server was harmed: {}", load.log_tail());
    server.get("/hello", 1);
}

#[test]
fn memory_stays_within_its_budget_under_churn_of_connections() {
    let name = "memory_stays_within_its_budget_under_churn_of_connections";
    let _alone = serial();
    let shop = or_skip!(name, Binary::shop());
    let server = or_skip!(name, Shop::start(&shop.path));
    let mut daemon = or_skip!(name, Daemon::observing(&["--exe", shop.text()]));
    daemon.observes(server.child.id());
    let churn = |times: usize| {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| server.get("/hello", times / 4));
            }
        });
    };
    churn(2000);
    daemon.counts(2000.0, REQUESTS, &[("path", "/hello")]);
    let early = daemon.memory_kib("RssAnon");
    churn(6000);
    daemon.counts(8000.0, REQUESTS, &[("path", "/hello")]);
    let (late, whole) = (daemon.memory_kib("RssAnon"), daemon.memory_kib("VmRSS"));
    assert!(late <= early + 2048, "grew from {early} KiB to {late} KiB");
    // The code of a debug build alone can be larger than the budget: what counts is its own.
    let shared = daemon.memory_kib("RssShmem");
    assert!(late + shared <= 30 << 10, "{whole} KiB resident, {late} KiB of them its own, {shared} KiB of maps");
    let metrics = daemon.metrics();
    let maps = metrics.sum("rustok_obsd_ebpf_map_memory_bytes", &[]);
    assert!(maps > 0.0 && maps <= f64::from(16 << 20), "{maps} bytes of maps: {}", metrics.matching(&["map_memory"]));
    daemon.counts(0.0, "rustok_http_active_connections", &[]);
    println!("resident {whole} KiB, own {late} KiB, shared {shared} KiB, maps {maps} bytes");
    daemon.ends_by(libc::SIGTERM);
}

#[test]
fn status_and_readiness_tell_what_is_observed_and_no_secret() {
    let name = "status_and_readiness_tell_what_is_observed_and_no_secret";
    let _alone = serial();
    let shop = or_skip!(name, Binary::shop());
    let server = or_skip!(name, Shop::start(&shop.path));
    let daemon = or_skip!(name, Daemon::observing(&["--exe", shop.text()]));
    let target = daemon.observes(server.child.id());
    let status = daemon.status();
    assert_eq!(status["ready"], true);
    assert_eq!(status["targets_configured"], 1);
    assert!(status["kernel"]["release"].as_str().is_some_and(|release| !release.is_empty()));
    assert!(status["kernel"]["refusal"].is_null());
    assert_eq!(target["exe"], shop.text());
    assert!(target["rustc"].as_str().is_some_and(|version| version.starts_with("1.")), "{target}");
    let libraries = target["libraries"].to_string();
    assert!(["tokio", "axum", "sqlx-core"].iter().all(|library| libraries.contains(library)), "{libraries}");
    for probe in ["sock_send_length", "sock_recv_length", "inet_sock_set_state", "sched_process_exec"] {
        let all = status["probes"].as_array().expect("probes");
        assert!(all.iter().any(|told| told["probe"] == probe && told["state"] == "attached"), "{probe}: {all:?}");
    }
    let text = status.to_string();
    assert!(!text.contains("postgres://") && !text.contains("--listen"), "arguments or environment leaked: {text}");
}

/// Answers with chunks that each go in a `send` of their own, the last one too, and keeps the connection.
const CHUNKS: &str = r"
import socket
listener = socket.create_server(('127.0.0.1', 0))
print('port', listener.getsockname()[1])
while True:
    connection, _ = listener.accept()
    request = b''
    while not request.endswith(b'\r\n\r\n'):
        request += connection.recv(4096)
    connection.sendall(b'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n')
    for _ in range(64):
        connection.sendall(b'1000\r\n' + 4096 * b'x' + b'\r\n')
    connection.sendall(b'0\r\n\r\n')
    connection.recv(1)
";

/// So much was sent since the request that no byte of the last send is captured, but its end is.
#[test]
fn a_last_chunk_that_goes_alone_ends_its_answer() {
    let name = "a_last_chunk_that_goes_alone_ends_its_answer";
    let _alone = serial();
    let marker = format!("chunks-{}", std::process::id());
    let script = or_skip!(name, Script::start(Command::new("python3"), &marker, CHUNKS));
    let daemon = or_skip!(name, Daemon::observing(&["--command-line", &format!("*{marker}*")]));
    daemon.observes(script.child.id());
    let mut client = TcpStream::connect(script.address).expect("connect");
    client.write_all(b"GET /healthz HTTP/1.1\r\nhost: e2e\r\n\r\n").expect("send");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n0\r\n\r\n") {
        let mut buffer = [0; 1 << 16];
        let count = client.read(&mut buffer).expect("an answer");
        assert!(count > 0, "closed");
        answer.extend_from_slice(&buffer[..count]);
    }
    daemon.counts(1.0, REQUESTS, &[("status", "200")]);
    daemon.counts(0.0, "http_server_active_requests", &[]);
    drop(client);
}
