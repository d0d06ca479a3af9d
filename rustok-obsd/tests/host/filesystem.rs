//! Mounts that exist: one that never answers, and very many.
//!
//! Reads: mounts made in a mount namespace of the test's own. Yields: what a scrape says of them, and how long it took.

use rustok_obsd::config::Paths;
use rustok_obsd::config::collector::Collectors;
use rustok_obsd::exposition::{Format, Scrape, to_text_of};
use rustok_obsd::host::{Host, Settings};
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use test_support::{Scraped, Skip, skip};

/// Runs `body` in a thread with a mount namespace of its own, and others by `flags`; they go with the thread.
pub fn alone(test: &'static str, flags: libc::c_int, body: impl FnOnce(&Path) -> Result<(), Skip> + Send + 'static) {
    let run = move || {
        // SAFETY: changes this thread alone.
        if unsafe { libc::unshare(libc::CLONE_NEWNS | libc::CLONE_FS | flags) } != 0 {
            return Err(Skip::new(format!("unshare: {}", std::io::Error::last_os_error())));
        }
        mount("none", "/", "", libc::MS_REC | libc::MS_PRIVATE, "")?;
        let folder = tempfile::tempdir().expect("a folder");
        body(folder.path())
    };
    if let Err(reason) = std::thread::spawn(run).join().expect("the test's thread") {
        skip(test, reason);
    }
}

/// Mounts in this thread's namespace.
pub fn mount(device: &str, point: &str, kind: &str, flags: libc::c_ulong, data: &str) -> Result<(), Skip> {
    let text = |text: &str| CString::new(text).expect("no NUL");
    let [device, target, fs_type, data] = [device, point, kind, data].map(text);
    // SAFETY: all texts end in NUL.
    let done = unsafe { libc::mount(device.as_ptr(), target.as_ptr(), fs_type.as_ptr(), flags, data.as_ptr().cast()) };
    let error = std::io::Error::last_os_error();
    if done == 0 { Ok(()) } else { Err(Skip::new(format!("mount of {kind} at {point}: {error}"))) }
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

/// Answers the kernel's first request of a FUSE connection, and no other (include/uapi/linux/fuse.h).
fn serve_nothing(mut device: File) {
    const INIT: u32 = 26;
    let mut request = vec![0; 64 * 1024];
    while let Ok(length) = device.read(&mut request) {
        let word = |at: usize| u32::from_ne_bytes(request[at..at + 4].try_into().expect("four bytes"));
        if length >= 16 && word(4) == INIT {
            let mut answer = Vec::new();
            let body: [u32; 16] = [7, 31, 0, 0, 0, 4096, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            answer.extend_from_slice(&80u32.to_ne_bytes());
            answer.extend_from_slice(&0i32.to_ne_bytes());
            answer.extend_from_slice(&request[8..16]);
            body.iter().for_each(|word| answer.extend_from_slice(&word.to_ne_bytes()));
            device.write_all(&answer).expect("the kernel takes the answer");
        }
    }
}

#[test]
fn a_mount_that_never_answers_costs_its_own_series_only() {
    alone("a_mount_that_never_answers_costs_its_own_series_only", 0, |folder| {
        let device = File::options().read(true).write(true).open("/dev/fuse");
        let device = device.map_err(|error| Skip::new(format!("/dev/fuse: {error}")))?;
        let (dead, alive) = (folder.join("dead"), folder.join("alive"));
        for point in [&dead, &alive] {
            fs::create_dir(point).expect("a folder");
        }
        let data = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
        mount("silence", dead.to_str().unwrap(), "fuse", 0, &data)?;
        mount("lively", alive.to_str().unwrap(), "tmpfs", 0, "size=1m")?;
        let connection = fs::read_to_string("/proc/thread-self/mountinfo").expect("mounts");
        let connection = connection.lines().find(|line| line.contains("- fuse silence")).expect("it is mounted");
        let minor = connection.split([' ', ':']).nth(3).expect("its number").to_owned();
        let server = std::thread::spawn(move || serve_nothing(device));
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
        let abort = format!("/sys/fs/fuse/connections/{minor}/abort");
        if let Err(error) = fs::write(&abort, "1") {
            mount("c", "/sys/fs/fuse/connections", "fusectl", 0, "")?;
            fs::write(&abort, "1").unwrap_or_else(|again| panic!("{abort}: {error}; {again}"));
        }
        server.join().expect("the server ends with its connection");
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
            mount(&format!("many{number}"), point.to_str().unwrap(), "tmpfs", 0, "size=64k")?;
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
