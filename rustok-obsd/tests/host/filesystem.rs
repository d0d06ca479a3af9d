//! Mounts that exist: one that never answers, and very many.
//!
//! Reads: mounts made in a mount namespace of the test's own. Yields: what a scrape says of them, and how long it took.

use rustok_obsd::config::Paths;
use rustok_obsd::config::collector::Collectors;
use rustok_obsd::exposition::{Format, Scrape, to_text_of};
use rustok_obsd::host::{Host, Settings};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use test_support::fuse::{self, mount};
use test_support::{Fuse, Scraped, Served, Skip, skip};

/// Runs `body` with a folder, in a thread with a mount namespace of its own, and others by `flags`; they go with the thread.
pub fn alone(test: &'static str, flags: libc::c_int, body: impl FnOnce(&Path) -> Result<(), Skip> + Send) {
    let run = || {
        let folder = tempfile::tempdir().expect("a folder");
        body(folder.path())
    };
    if let Err(reason) = fuse::apart(flags, run) {
        skip(test, reason);
    }
}

/// The collector, with this thread's mounts.
fn collector(folder: &Path, timeout: Duration) -> Host {
    let procfs = folder.join("proc");
    fs::create_dir(&procfs).expect("a folder");
    // SAFETY: asks for a number.
    let thread = unsafe { libc::gettid() };
    let task = format!("/proc/{}/task/{thread}", std::process::id());
    std::os::unix::fs::symlink(task, procfs.join("1")).expect("a link");
    std::os::unix::fs::symlink("/proc/loadavg", procfs.join("loadavg")).expect("a link");
    let options = Collectors {
        disable_defaults: true,
        enable: vec!["filesystem".into(), "loadavg".into()],
        filesystem_mount_timeout: timeout,
        ..Collectors::default()
    };
    Host::new(&Settings { paths: Paths { procfs, ..Paths::default() }, options })
}

fn scrape(host: &Host) -> (Scraped, Duration) {
    let start = Instant::now();
    let text = to_text_of(host, &Scrape::default(), Format::Text);
    (Scraped::parse(&text).expect("text format"), start.elapsed())
}

#[test]
fn a_mount_that_never_answers_costs_its_own_series_only() {
    alone("a_mount_that_never_answers_costs_its_own_series_only", 0, |folder| {
        let (dead, alive) = (folder.join("dead"), folder.join("alive"));
        for point in [&dead, &alive] {
            fs::create_dir(point).expect("a folder");
        }
        let mut silence = Fuse::mount(&dead, Served::Folder)?;
        silence.fall_silent();
        mount("lively", &alive, "tmpfs", 0, "size=1m")?;
        // Far longer than a scrape that waits for nothing, on a busy machine as well.
        let timeout = Duration::from_secs(5);
        let host = collector(folder, timeout);
        let of = |scraped: &Scraped, name: &str, device: &str| scraped.sum(name, &[("device", device)]);
        for round in 0..4 {
            let (scraped, took) = scrape(&host);
            // It is waited for once.
            assert!((round == 0) == (took >= timeout), "round {round} took {took:?}");
            let error = [("device", "silence"), ("device_error", "mountpoint timeout")];
            assert_eq!(scraped.sum("node_filesystem_device_error", &error), Some(1.0));
            assert_eq!(of(&scraped, "node_filesystem_size_bytes", "silence"), None);
            assert_eq!(of(&scraped, "node_filesystem_size_bytes", "lively"), Some(1048576.0));
            assert_eq!(of(&scraped, "node_filesystem_device_error", "lively"), Some(0.0));
            assert_eq!(scraped.sum("rustok_obsd_filesystem_stuck_mounts", &[]), Some(1.0));
            let success = [("collector", "filesystem")];
            assert_eq!(scraped.sum("node_scrape_collector_success", &success), Some(1.0));
            assert!(scraped.families.contains_key("node_load1"));
        }
        // The connection is cut: the thread comes back with an error, and so do the mount's next answers.
        silence.cut();
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            let (scraped, _) = scrape(&host);
            let error = [("device", "silence"), ("device_error", "transport endpoint is not connected")];
            if scraped.sum("node_filesystem_device_error", &error) == Some(1.0) {
                assert_eq!(scraped.sum("rustok_obsd_filesystem_stuck_mounts", &[]), Some(0.0));
                return Ok(());
            }
            assert!(Instant::now() < until, "the mount is asked again");
            std::thread::sleep(Duration::from_millis(20));
        }
    });
}

#[test]
fn many_mounts_are_all_told() {
    alone("many_mounts_are_all_told", 0, |folder| {
        let points = Arc::new(folder.join("many"));
        fs::create_dir(&*points).expect("a folder");
        for number in 0..500 {
            let point = points.join(format!("m {number}"));
            fs::create_dir(&point).expect("a folder");
            mount(&format!("many{number}"), &point, "tmpfs", 0, "size=64k")?;
        }
        let host = collector(folder, Duration::from_secs(5));
        let mut fastest = Duration::MAX;
        for _ in 0..5 {
            let (scraped, took) = scrape(&host);
            let sizes = &scraped.families["node_filesystem_size_bytes"].samples;
            let ours = sizes.iter().filter(|((_, labels), _)| labels["device"].starts_with("many"));
            assert_eq!(ours.filter(|(_, size)| **size == 65536.0).count(), 500);
            let point = points.join("m 7");
            let labels = [("mountpoint", point.to_str().unwrap()), ("device_error", "")];
            assert_eq!(scraped.sum("node_filesystem_files_free", &labels).map(|free| free > 0.0), Some(true));
            fastest = fastest.min(took);
        }
        println!("500 mounts: {fastest:?} a scrape (this build is not optimized)");
        Ok(())
    });
}
