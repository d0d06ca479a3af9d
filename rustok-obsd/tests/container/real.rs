//! Real processes in real cgroups: CPU with a quota, memory with a limit and the OOM killer, block devices, networks.

use crate::cgroups::{Cgroups, scrape};
use rustok_obsd::container::mounts::Controller;
use rustok_obsd::container::names::{Facts, Lookup, Names};
use rustok_obsd::events::{Event, OomKill, Subscriber as _};
use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::{Duration, Instant};
use test_support::{Scraped, skip, wait_until};

fn value(scraped: &Scraped, name: &str, id: &str) -> f64 {
    scraped.sum(name, &[("id", id)]).unwrap_or_else(|| panic!("{name} of {id} is missing"))
}

macro_rules! cgroups {
    ($name:literal) => {
        match Cgroups::new($name) {
            Ok(cgroups) => cgroups,
            Err(reason) => return skip($name, reason),
        }
    };
}

#[test]
fn a_busy_process_with_a_quota() {
    let cgroups = cgroups!("quota");
    let id = cgroups.make("busy");
    let containers = cgroups.containers(|_| ());
    scrape(&containers);
    // A fifth of a CPU, set after the cgroup was first told.
    if cgroups.is_v2() {
        cgroups.write("busy", Controller::Cpu, "cpu.max", "20000 100000").unwrap();
    } else {
        cgroups.write("busy", Controller::Cpu, "cpu.cfs_period_us", "100000").unwrap();
        cgroups.write("busy", Controller::Cpu, "cpu.cfs_quota_us", "20000").unwrap();
    }
    let _running = cgroups.run("busy", "while :; do :; done");
    // The quota is found at one of the next scrapes. A busy machine may give it less than that for a long time.
    let throttled = |scraped: &Scraped| scraped.sum("container_cpu_cfs_throttled_periods_total", &[("id", &id)]);
    let within = Duration::from_secs(60);
    let ran = |scraped: &Scraped| scraped.sum("container_cpu_usage_seconds_total", &[("id", &id)]);
    let first = wait_until(within, || {
        Some(scrape(&containers)).filter(|first| throttled(first).is_some() && ran(first).is_some())
    });
    let (start, first) = (Instant::now(), first.expect("its quota is told"));
    let second = wait_until(within, || {
        Some(scrape(&containers)).filter(|second| throttled(second) >= throttled(&first).map(|before| before + 5.0))
    });
    let (second, elapsed) = (second.expect("it is throttled"), start.elapsed().as_secs_f64());
    assert_eq!(value(&second, "container_spec_cpu_quota", &id), 20_000.0);
    assert_eq!(value(&second, "container_spec_cpu_period", &id), 100_000.0);
    let rise = |name: &str| value(&second, name, &id) - value(&first, name, &id);
    let usage = rise("container_cpu_usage_seconds_total");
    // In each of five periods it had its fifth.
    assert!(usage > 0.08 && usage < 0.2 * elapsed + 0.1, "{usage} s of CPU in {elapsed} s");
    let modes = rise("container_cpu_user_seconds_total") + rise("container_cpu_system_seconds_total");
    assert!((modes - usage).abs() < 0.1, "{modes} s by mode, {usage} s in all");
    let (periods, throttled) =
        (rise("container_cpu_cfs_periods_total"), rise("container_cpu_cfs_throttled_periods_total"));
    assert!(throttled >= 1.0 && throttled <= periods, "{throttled} of {periods} periods");
    assert!(rise("container_cpu_cfs_throttled_seconds_total") > 0.0);
    // The parent has no quota.
    assert_eq!(second.sum("container_cpu_cfs_periods_total", &[("id", &cgroups.id)]), None);
}

#[test]
fn a_process_beyond_its_memory() {
    let cgroups = cgroups!("memory");
    let id = cgroups.make("eater");
    let failures = if cgroups.is_v2() { "container_memory_events_max_total" } else { "container_memory_failcnt" };
    cgroups.limit_memory("eater", 20 << 20);
    let inode = cgroups.folder("eater", Controller::Memory).metadata().unwrap().ino();
    let containers = cgroups.containers(|_| ());
    let before = scrape(&containers);
    assert_eq!(value(&before, "container_spec_memory_limit_bytes", &id), 20_971_520.0);
    assert_eq!(value(&before, "container_oom_events_total", &id), 0.0);
    let eat = || eat(&cgroups, "eater");
    eat();
    let after = scrape(&containers);
    assert_eq!(value(&after, "container_oom_events_total", &id), 1.0);
    assert!(value(&after, failures, &id) > 0.0);
    let peak = value(&after, "container_memory_max_usage_bytes", &id);
    assert!((15e6..=20_971_520.0).contains(&peak), "{peak}");
    // The kernel's event of the same kill adds nothing.
    containers.oom(inode);
    assert_eq!(value(&scrape(&containers), "container_oom_events_total", &id), 1.0);
    // Killed once more, and removed before a scrape: only the event knows.
    eat();
    containers.oom(inode);
    cgroups.remove("eater");
    let gone = scrape(&containers);
    assert_eq!(value(&gone, "container_oom_events_total", &id), 2.0);
    assert_eq!(gone.sum("container_last_seen", &[("id", &id)]), None);
    // The same path again goes on from there.
    cgroups.make("eater");
    assert_eq!(value(&scrape(&containers), "container_oom_events_total", &id), 2.0);
}

/// Needs more than 20 MB.
fn eat(cgroups: &Cgroups, child: &str) {
    let mut running = cgroups.run(child, "head -c 200000000 /dev/zero | tail");
    let status = running.0.wait().expect("its end");
    assert!(!status.success(), "it was killed: {status:?}");
}

/// A runtime that answers late.
#[derive(Default)]
struct Late {
    /// Names by id.
    known: Mutex<HashMap<String, &'static str>>,
    version: AtomicU64,
    wanted: Mutex<Vec<String>>,
    forgotten: Mutex<Vec<String>>,
}

impl Names for Late {
    fn lookup(&self, id: &str) -> Lookup {
        self.known.lock().expect("no panic").get(id).map_or(Lookup::NotYet, |name| {
            let (name, image) = ((*name).to_owned(), "shop:1".to_owned());
            Lookup::Known(Arc::new(Facts { id: id.to_owned(), name, image, ..Facts::default() }))
        })
    }

    fn pod(&self, _: &str) -> Option<Arc<Facts>> {
        None
    }

    fn wanted(&self, id: &str) {
        self.wanted.lock().expect("no panic").push(id.to_owned());
    }

    fn forget(&self, id: &str) {
        self.forgotten.lock().expect("no panic").push(id.to_owned());
    }

    fn version(&self) -> u64 {
        self.version.load(Ordering::Relaxed)
    }
}

#[test]
fn a_kill_in_a_container_that_no_scrape_saw_is_told_by_name() {
    let cgroups = cgroups!("unseen");
    let names = Arc::new(Late::default());
    let containers = cgroups.containers_named(|_| (), Arc::clone(&names) as _);
    scrape(&containers);
    let number = cgroups.memory_number();
    let made = |child: &str| {
        let id = cgroups.make(child);
        let cgroup = cgroups.folder(child, Controller::Memory).metadata().unwrap().ino();
        containers.event(&Event::CgroupMade { cgroup, hierarchy: number, level: 2, path: Some(id.as_bytes()) });
        (id, cgroup)
    };
    let removed = |child: &str, cgroup: u64| {
        cgroups.remove(child);
        containers.event(&Event::CgroupRemoved { cgroup, hierarchy: number, level: 2, path: None });
    };
    let kill = |cgroup| containers.event(&Event::Oom(OomKill { pid: 1, cgroup: Some(cgroup), comm: [0; 16] }));
    let kills = |id: &str| scrape(&containers).sum("container_oom_events_total", &[("id", id)]);
    let unknown = || scrape(&containers).sum("rustok_obsd_container_oom_events_unknown_total", &[]);

    let child = format!("{:064x}", 9);
    let (id, cgroup) = made(&child);
    assert_eq!(*names.wanted.lock().unwrap(), [child.as_str()], "asked for while it is there");
    cgroups.limit_memory(&child, 20 << 20);
    eat(&cgroups, &child);
    kill(cgroup);
    removed(&child, cgroup);
    assert_eq!(kills(&id), None, "its name is on its way");
    names.known.lock().unwrap().insert(child.clone(), "web");
    names.version.fetch_add(1, Ordering::Relaxed);
    let scraped = scrape(&containers);
    let labels = [("id", id.as_str()), ("name", "web"), ("image", "shop:1")];
    assert_eq!(scraped.sum("container_oom_events_total", &labels), Some(1.0));
    assert_eq!(scraped.sum("container_last_seen", &[("id", &id)]), None);
    assert!(names.forgotten.lock().unwrap().is_empty(), "{:?}", names.forgotten);
    // Killed once more in the same way, and then it stays.
    let (_, cgroup) = made(&child);
    kill(cgroup);
    removed(&child, cgroup);
    let (_, cgroup) = made(&child);
    kill(cgroup);
    assert_eq!(kills(&id), Some(3.0));
    kill(cgroup);
    assert_eq!(kills(&id), Some(4.0), "the tree has it by now");

    names.forgotten.lock().unwrap().clear();
    let other = format!("{:064x}", 10);
    let (_, cgroup) = made(&other);
    removed(&other, cgroup);
    assert_eq!(*names.forgotten.lock().unwrap(), [other], "nothing to tell of it");
    assert_eq!(unknown(), Some(0.0));
    kill(cgroup);
    assert_eq!(unknown(), Some(1.0));
}

#[test]
fn reads_and_writes_of_a_device() {
    let cgroups = cgroups!("io");
    let id = cgroups.make("writer");
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let file = folder.path().join("file");
    if !cgroups.is_v2() {
        // Since 6.10 blk-throttle counts only where it has something to do: a limit that nobody reaches.
        let device = folder.path().metadata().unwrap().dev();
        let limit = format!("{}:{} {}", libc::major(device), libc::minor(device), 1u64 << 40);
        let wrote = cgroups.write("writer", Controller::Io, "blkio.throttle.write_bps_device", &limit);
        if let Err(error) = wrote {
            return skip("reads_and_writes_of_a_device", format!("the device cannot be limited: {error}"));
        }
    }
    let script = format!(
        "dd if=/dev/zero of={0} bs=1M count=8 oflag=direct && dd if={0} of=/dev/null bs=1M iflag=direct",
        file.display()
    );
    let mut running = cgroups.run("writer", &script);
    if !running.0.wait().unwrap().success() {
        return skip("reads_and_writes_of_a_device", "this file system has no direct I/O");
    }
    let containers = cgroups.containers(|_| ());
    let scraped = scrape(&containers);
    let name = "container_fs_writes_bytes_total";
    let Some(family) = scraped.families.get(name) else {
        return skip("reads_and_writes_of_a_device", "this file system has no block device whose I/O is accounted");
    };
    let (_, labels) = family.samples.keys().find(|(_, labels)| labels.get("id") == Some(&id)).expect("a device");
    assert!(labels["device"].starts_with("/dev/"), "{labels:?}");
    assert!(value(&scraped, name, &id) >= 8e6, "{family:?}");
    assert!(value(&scraped, "container_fs_reads_bytes_total", &id) >= 8e6);
    assert!(value(&scraped, "container_fs_writes_total", &id) >= 1.0);
    let write = [("id", id.as_str()), ("operation", "Write")];
    assert_eq!(scraped.sum("container_blkio_device_usage_total", &write), scraped.sum(name, &[("id", &id)]));
}

#[test]
fn a_container_shows_its_own_network_and_not_the_hosts() {
    let cgroups = cgroups!("net");
    let made = Command::new("unshare").args(["-n", "ip", "link", "add", "veth7", "type", "dummy"]).status();
    let veth = Command::new("unshare")
        .args(["-n", "ip", "link", "add", "veth7", "type", "veth", "peer", "name", "x"])
        .status();
    let kind = match (made, veth) {
        (Ok(status), _) if status.success() => "type dummy",
        (_, Ok(status)) if status.success() => "type veth peer name x",
        _ => {
            return skip(
                "a_container_shows_its_own_network_and_not_the_hosts",
                "no interface can be made in a namespace",
            );
        }
    };
    let child = format!("{:064x}", 7);
    let other = format!("{:064x}", 8);
    let (own, host) = (cgroups.make(&child), cgroups.make(&other));
    // As runc: it is seen in the host's network before it has its own.
    let script =
        format!("sleep 0.5; exec unshare -n sh -c 'ip link add veth7 {kind}; ip link set veth7 up; sleep 60; :'");
    let _own = cgroups.run(&child, &script);
    let _host = cgroups.run(&other, "sleep 60");
    let containers = cgroups.containers(|_| ());
    let until = Instant::now() + Duration::from_secs(10);
    let name = "container_network_transmit_packets_total";
    loop {
        let scraped = scrape(&containers);
        // A user's interface is told although the host's of that name are not.
        if scraped.sum(name, &[("id", &own), ("interface", "veth7"), ("name", &child)]).is_some() {
            assert_eq!(scraped.sum(name, &[("id", &host)]), None, "the host's network is not the container's");
            assert_eq!(scraped.sum(name, &[("id", &own), ("interface", "lo")]), None);
            return;
        }
        assert!(Instant::now() < until, "no network of its own");
        sleep(Duration::from_millis(50));
    }
}
