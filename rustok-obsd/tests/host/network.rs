//! Network interfaces by netlink against sysfs and procfs, and very many of them.
//!
//! Reads: interfaces made in a network namespace of the test's own. Yields: fails where the two ways differ in anything.

use crate::filesystem::alone;
use rustok_obsd::config::Paths;
use rustok_obsd::config::collector::Collectors;
use rustok_obsd::exposition::{Collect as _, Format, Fragment, Scrape, to_text_of};
use rustok_obsd::host::{Host, Settings};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use test_support::fuse::mount;
use test_support::{Scraped, Skip};

/// Has `ip` do `lines` in this thread's namespace.
fn ip(lines: &str) -> Result<(), Skip> {
    let started = Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut ip = started.map_err(|error| Skip::new(format!("ip: {error}; install iproute2")))?;
    ip.stdin.take().expect("a pipe").write_all(lines.as_bytes()).expect("ip reads");
    let output = ip.wait_with_output().expect("ip ends");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    // What this kernel or this user cannot do; anything else is a mistake of the test.
    let cannot = ["Unknown device type", "Operation not permitted", "Operation not supported"];
    if output.status.success() {
        Ok(())
    } else if cannot.iter().any(|reason| said.contains(reason)) {
        Err(Skip::new(format!("ip: {said}")))
    } else {
        panic!("ip: {said}")
    }
}

/// The collectors, with this thread's interfaces.
fn collectors(sysfs: &Path, netlink: bool) -> Host {
    let options = Collectors {
        disable_defaults: true,
        enable: ["arp", "netclass", "netdev"].map(Into::into).to_vec(),
        netclass_netlink: netlink,
        netdev_netlink: netlink,
        arp_netlink: netlink,
        ..Collectors::default()
    };
    // `/proc/net` is that of the process, whose namespace is another.
    let paths = Paths { sysfs: sysfs.into(), procfs: "/proc/thread-self".into(), ..Paths::default() };
    Host::new(&Settings { paths, options })
}

fn scrape(host: &Host) -> (Scraped, Duration) {
    let start = Instant::now();
    let text = to_text_of(host, &Scrape::default(), Format::Text);
    let took = start.elapsed();
    let mut scraped = Scraped::parse(&text).expect("text format");
    scraped.families.retain(|name, _| !name.starts_with("node_scrape_") && !name.starts_with("rustok_obsd_"));
    (scraped, took)
}

/// A namespace with `lines` done, and its own sysfs.
fn with_interfaces(test: &'static str, lines: String, body: impl FnOnce(&Path) -> Result<(), Skip> + Send + 'static) {
    alone(test, libc::CLONE_NEWNET, move |folder| {
        ip(&lines)?;
        let sysfs = folder.join("sys");
        std::fs::create_dir(&sysfs).expect("a folder");
        mount("own", &sysfs, "sysfs", 0, "")?;
        body(&sysfs)
    });
}

#[test]
fn netlink_tells_what_the_files_tell() {
    let lines = "link set lo up
        link add v0 type veth peer name v1
        link set v0 address 02:00:00:00:00:01 mtu 1400 txqueuelen 77 alias some-name up
        address add 10.9.0.1/24 dev v0
        tuntap add dev d0 mode tap
        link set d0 promisc on allmulticast on group 7
        link add b0 type bridge
        link set v1 master b0
        link add v2 type veth peer name v3
        neighbor add 10.9.0.7 lladdr 02:00:00:00:00:07 dev v0
        neighbor add 10.9.0.8 lladdr 02:00:00:00:00:08 dev v0
        neighbor add 10.9.0.9 lladdr 02:00:00:00:00:09 dev v0 nud noarp
        ";
    with_interfaces("netlink_tells_what_the_files_tell", lines.into(), |sysfs| {
        let (netlink, files) = (collectors(sysfs, true), collectors(sysfs, false));
        let compare = || {
            // Nothing happens there but what the kernel itself sends; those packets come seldom.
            for attempt in 0.. {
                let (mut by_netlink, by_files) = (scrape(&netlink).0, scrape(&files).0);
                by_netlink.families.remove("node_network_receive_nohandler_total");
                if by_netlink.families == by_files.families {
                    return by_netlink;
                }
                let differs = |name: &&String| by_netlink.families.get(*name) != by_files.families.get(*name);
                let name = by_netlink.families.keys().chain(by_files.families.keys()).find(differs).expect("one");
                let (a, b) = (by_netlink.families.get(name), by_files.families.get(name));
                assert!(attempt < 10, "{name}: {a:?} by netlink, {b:?} by files");
            }
            unreachable!()
        };
        let scraped = compare();
        assert_eq!(scraped.sum("node_network_info", &[("device", "v0"), ("ifalias", "some-name")]), Some(1.0));
        assert_eq!(scraped.sum("node_network_up", &[("device", "d0")]), Some(0.0));
        assert_eq!(scraped.sum("node_arp_entries", &[("device", "v0")]), Some(2.0));
        // What was read of sysfs is read again when the interface changes.
        ip("link set v1 up\nlink set d0 up\nlink del v2\nlink set b0 address 02:00:00:00:00:09 up\n")?;
        let scraped = compare();
        assert_eq!(scraped.sum("node_network_carrier", &[("device", "v0")]), Some(1.0));
        assert!(scraped.sum("node_network_up", &[("device", "v2")]).is_none());
        assert_eq!(scraped.sum("node_network_address_assign_type", &[("device", "b0")]), Some(3.0));
        Ok(())
    });
}

#[test]
fn many_interfaces_are_cheap() {
    use std::fmt::Write as _;
    let mut lines = String::new();
    for number in 0..100 {
        let _ = writeln!(lines, "link add d{number} type veth peer name e{number}\nlink set d{number} up");
    }
    with_interfaces("many_interfaces_are_cheap", lines, |sysfs| {
        let fastest = |netlink: bool| {
            let host = collectors(sysfs, netlink);
            let times = (0..5).map(|_| {
                let (scraped, took) = scrape(&host);
                assert_eq!(scraped.families["node_network_info"].samples.len(), 201);
                assert_eq!(scraped.families["node_network_receive_bytes_total"].samples.len(), 201);
                took
            });
            times.min().expect("some")
        };
        let (netlink, files) = (fastest(true), fastest(false));
        println!("200 interfaces: {netlink:?} a scrape by netlink, {files:?} by files (this build is not optimized)");
        assert!(netlink * 2 < files, "{netlink:?} by netlink, {files:?} by files");
        let host = collectors(sysfs, true);
        let mut fragment = Fragment::default();
        let mut allocated = || {
            let before = test_support::allocations();
            fragment.record(&Scrape::default(), Format::Text, |out| host.collect(out));
            test_support::allocations() - before
        };
        let first = allocated();
        let steady = (0..3).map(|_| allocated()).max().expect("some");
        println!("201 interfaces, 7 000 samples: {first} allocations at first, {steady} in steady state");
        assert!(first > 1000 && steady < 50, "{first}, {steady}");
        Ok(())
    });
}
