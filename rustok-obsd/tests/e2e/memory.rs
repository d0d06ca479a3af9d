//! Targets whose memory never answers, beside a server that is observed all the while.
//!
//! Reads: what the daemon says of both, and what it asks the file system behind that memory. Yields: that the good server is
//! counted exactly and with its routes, scrapes are answered, and the daemon ends in time. Costs: a FUSE mount of the test's
//! own, and copies of this test program that serve.

use std::{
    env,
    fs::{self, File},
    hint::black_box,
    net::SocketAddr,
    os::{
        fd::AsRawFd as _,
        unix::fs::{PermissionsExt as _, chown},
    },
    path::Path,
};

use test_support::{Child, Fuse, Served, Skip, skip};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::{
    faults::or_skip,
    hostile::{STRANGER, as_stranger, scrapes_in_time},
    running::{Binary, Daemon, PATIENCE, Shop, get},
    serial,
};

const REQUESTS: &str = "rustok_http_requests_total";
const PAGE: usize = 4096;
/// More than the daemon reads of one user at a time.
const HOSTILE: usize = 3;
/// Set for a copy of this test program that serves: the file whose pages never come.
const PAGES: &str = "RUSTOK_OBSD_E2E_PAGES";

/// Has the name of the function by which axum says which route it matched, and where the map of its routes lies.
#[unsafe(export_name = "_ZN4axum7extract12matched_path28set_matched_path_for_request17h0123456789abcdefE")]
#[inline(never)]
extern "C" fn matched(route: u32, map: u64) {
    black_box((route, map));
}

/// Serves with Tokio. `/hang` matches a route of a map that lies in memory which this process itself never touches.
fn serve(pages: &Path) {
    let file = File::open(pages).expect("the file of pages");
    // The kernel knows its size when it was asked for.
    assert_eq!(file.metadata().expect("its size").len(), PAGE as u64);
    let (none, read) = (std::ptr::null_mut(), libc::PROT_READ);
    // SAFETY: a new mapping, which nobody in this process touches.
    let map = unsafe { libc::mmap(none, PAGE, read, libc::MAP_PRIVATE, file.as_raw_fd(), 0) };
    assert_ne!(map, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
    let map = map as u64;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        println!("\nlistening on http://{}", listener.local_addr().expect("an address"));
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, map));
        }
    });
}

/// One request a connection.
async fn answer(mut stream: TcpStream, map: u64) {
    let mut head = vec![0; 4096];
    if stream.read(&mut head).await.is_ok() {
        if head.starts_with(b"GET /hang") {
            matched(1, map);
        }
        // Who asked may have gone.
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok").await;
    }
}

/// A copy that serves as the stranger.
fn hostile(binary: &Binary, name: &str, pages: &Path) -> Result<(Child, SocketAddr), Skip> {
    let mut command = as_stranger()?;
    command.arg(&binary.path).args([&format!("memory::{name}"), "--exact", "--nocapture"]).env(PAGES, pages);
    let child = Child::spawn("hostile-copy", &mut command).expect("it starts");
    let address = child.wait_for_line(PATIENCE, |line| line.strip_prefix("listening on http://")?.parse().ok());
    Ok((child, address.unwrap_or_else(|error| panic!("{error}"))))
}

#[test]
fn a_route_map_whose_memory_never_answers_keeps_nobody_else_waiting() {
    let name = "a_route_map_whose_memory_never_answers_keeps_nobody_else_waiting";
    if let Some(pages) = env::var_os(PAGES) {
        return serve(Path::new(&pages));
    }
    let _alone = serial();
    let good = or_skip!(name, Binary::shop());
    let bad = or_skip!(name, Binary::copy(&env::current_exe().expect("this program"), "hostile-copy"));
    chown(&bad.path, Some(STRANGER), Some(STRANGER)).expect("chown");
    let owner = STRANGER.to_string();
    let arguments = ["--exe", good.text(), "--exe", bad.text(), "--trusted-owners", &owner];
    // Dropped after the file system: one that waits for it ends only then.
    let mut daemon = or_skip!(name, Daemon::observing(&arguments));
    let folder = tempfile::tempdir().expect("a folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("open to all");
    let pages = folder.path().join("pages");
    fs::write(&pages, "").expect("a file to mount over");
    let pages = or_skip!(name, Fuse::mount(&pages, Served::File(vec![0; PAGE])));
    pages.keep_content();
    let targets: Vec<(Child, SocketAddr)> =
        or_skip!(name, (0..HOSTILE).map(|_| hostile(&bad, name, pages.path())).collect::<Result<_, Skip>>());
    let server = or_skip!(name, Shop::start(&good.path));
    daemon.observes(server.child.id());
    for (target, _) in &targets {
        // An analysis that a busy machine was too slow for comes again.
        daemon.wait("a hostile process to be observed with its uprobes", |daemon| {
            daemon.target(target.id()).filter(|told| told["sockets_only"].is_null())
        });
    }
    daemon.wait("axum's probe on the hostile program", |daemon| {
        (daemon.probe("axum_matched_path", &bad.path).0 == "attached").then_some(())
    });
    // A route belongs to a request by Tokio's task, whose place in a debug build is found by what it does.
    daemon.wait("calibration", |daemon| {
        targets.iter().for_each(|(_, address)| get(*address, "/", 5));
        let state = daemon.probe("tokio_task_slot", &bad.path).0;
        (state == "attached").then_some(())
    });
    daemon.wait("the daemon to read the memory that never answers", |_| {
        targets.iter().for_each(|(_, address)| get(*address, "/hang", 1));
        (pages.unanswered() > 0).then_some(())
    });

    // The good server's own map is read only now. Whoever reads on the thread of capture counts nothing from here on.
    let hanging = |daemon: &Daemon| daemon.metrics().sum("rustok_obsd_memory_reads_hanging", &[]);
    for round in 1..=4_u8 {
        targets.iter().for_each(|(_, address)| get(*address, "/hang", 5));
        server.get("/api/slow/1", 25);
        server.get("/health/ready", 25);
        scrapes_in_time(&daemon);
        for path in ["/api/slow/{ms}", "/health/ready"] {
            daemon.counts(f64::from(round) * 25.0, REQUESTS, &[("path", path), ("status", "200")]);
        }
    }
    daemon.wait("all of the hostile processes to hang", |daemon| {
        targets.iter().for_each(|(_, address)| get(*address, "/hang", 1));
        (hanging(daemon) == HOSTILE as f64).then_some(())
    });
    let metrics = daemon.metrics();
    assert!(metrics.sum("rustok_obsd_routes", &[("source", "axum")]) >= 2.0, "{}", metrics.matching(&["routes"]));
    let events = |event| metrics.sum("rustok_obsd_route_table_events_total", &[("event", event)]);
    let late = metrics.sum("rustok_obsd_memory_reads_total", &[("result", "late")]);
    let text = metrics.matching(&["route_table_events", "memory_reads"]);
    assert!(late >= HOSTILE as f64 && events("timed_out") >= HOSTILE as f64, "{text}");
    // A process whose memory hangs is not read again.
    daemon.wait("a refusal", |daemon| {
        targets.iter().for_each(|(_, address)| get(*address, "/hang", 1));
        (daemon.metrics().sum("rustok_obsd_memory_reads_total", &[("result", "refused")]) > 0.0).then_some(())
    });
    scrapes_in_time(&daemon);
    assert_eq!(hanging(&daemon), HOSTILE as f64, "it hangs to the end");
    daemon.ends_by(libc::SIGTERM);
}
