//! More records than fit: what is lost is counted to the last one, and the daemon goes on.

use std::{collections::HashMap, path::Path};

use rustok_obsd::{
    capture::{pipeline, record::Record},
    probe::{Kernel, Loaded, ProbeBoard, Programs, Settings, loader},
    target::{BinaryCache, InProcess, Reader, Rule, Scanner, Selector, Target, TaskSlot, Trust},
};
use rustok_obsd_ebpf::{Counter, SocketIo, Tag};
use test_support::{Skip, skip};

use super::{
    faults::or_skip,
    running::{Binary, Daemon, KeepAlive, PATIENCE, Shop},
    serial,
};

const REQUESTS: &str = "rustok_http_requests_total";
const LOST: &str = "rustok_obsd_records_lost_total";
/// Requests of a connection that reaches across the loss.
const WITNESSED: u32 = 1000;
const SMALLEST_RING: u32 = 65_536;

#[test]
fn a_ring_that_is_far_too_small_loses_records_by_count_and_the_daemon_recovers() {
    let name = "a_ring_that_is_far_too_small_loses_records_by_count_and_the_daemon_recovers";
    let _alone = serial();
    let shop = or_skip!(name, Binary::shop());
    let server = or_skip!(name, Shop::start(&shop.path));
    let ring = SMALLEST_RING.to_string();
    let mut daemon = or_skip!(name, Daemon::observing(&["--exe", shop.text(), "--capture.ring-bytes", &ring]));
    daemon.observes(server.child.id());
    let mut load = or_skip!(name, server.load(&["--duration", "60m", "--concurrency", "64"]));
    let mut witness = KeepAlive::open(server.address);
    witness.get("/hello");
    daemon.wait("requests", |daemon| (daemon.metrics().sum(REQUESTS, &[]) > 0.0).then_some(()));
    // A daemon that gets no processor: the ring is full within a moment, for sockets and for processes. These requests
    // alone make more than it takes.
    daemon.child.signal(libc::SIGSTOP);
    (1..WITNESSED).for_each(|_| witness.get("/hello"));
    let second = or_skip!(name, Shop::start(&shop.path));
    let gone = or_skip!(name, Shop::start(&shop.path));
    drop(gone);
    daemon.child.signal(libc::SIGCONT);
    let lost = daemon.wait("lost records", |daemon| {
        Some(daemon.metrics().sum(LOST, &[("reason", "ring_full")])).filter(|lost| *lost > 0.0)
    });
    drop(witness);
    // It awaits what it asked for.
    let status = load.stop(libc::SIGTERM, PATIENCE);
    assert!(status.is_some_and(|status| status.success()), "{status:?}: {}", load.log_tail());
    // Processes whose start was lost are found, and those whose end was lost are buried.
    daemon.observes(second.child.id());
    daemon.counts(2.0, "rustok_obsd_targets", &[]);
    daemon.counts(0.0, "rustok_http_active_connections", &[]);

    let metrics = daemon.metrics();
    let details = metrics.matching(&[REQUESTS, LOST, "problems", "lost_bytes", "records_total"]);
    assert!(metrics.sum("rustok_obsd_lost_bytes_total", &[]) > 0.0, "{lost} records lost: {details}");
    let summary: serde_json::Value = serde_json::from_str(&load.log_tail()).expect("a summary");
    let sent = summary["requests"].as_f64().expect("requests") + f64::from(WITNESSED);
    assert!(metrics.sum(REQUESTS, &[("path", "/hello"), ("status", "200")]) < sent, "{sent} sent: {details}");
    // Details are lost, and no request is: what the kernel refused is counted where it was.
    daemon.counts(sent, REQUESTS, &[]);
    assert!(daemon.metrics().sum(REQUESTS, &[("path", "~lost")]) > 0.0, "{details}");
    // It is itself again: below what the ring can take, everything counts. However late it reads, it never holds more than
    // 20 requests.
    daemon.counts(0.0, "rustok_obsd_recovering", &[]);
    let before = daemon.metrics().sum(REQUESTS, &[("path", "/hello"), ("status", "200")]);
    for round in 1..=10 {
        server.get("/hello", 10);
        second.get("/hello", 10);
        daemon.counts(before + f64::from(20 * round), REQUESTS, &[("path", "/hello"), ("status", "200")]);
    }
    daemon.ends_by(libc::SIGTERM);
}

#[test]
fn records_read_and_records_lost_are_all_the_kernel_made() {
    let name = "records_read_and_records_lost_are_all_the_kernel_made";
    let _alone = serial();
    let shop = or_skip!(name, Binary::shop());
    let server = or_skip!(name, Shop::start(&shop.path));
    let settings = Settings { ring_bytes: SMALLEST_RING, ..Settings::default() };
    let loaded = Programs::load(loader::OBJECT, &Kernel::inspect(), settings, &ProbeBoard::default());
    let loaded = or_skip!(name, loaded.map_err(|error| Skip::new(error.to_string())));
    let Loaded { mut programs, capture, mut targets, counts } = loaded;
    let (mut ring, _verdicts) = pipeline::split(capture);
    let pid = server.child.id();
    let selector = Selector::new(&[Rule { pid: Some(pid), ..Rule::default() }]).expect("a rule");
    let process = Scanner::new(Path::new("/proc"), selector).inspect(pid).expect("the process");
    let target =
        Target::new(process, &BinaryCache::default(), &Trust::of([0]), Path::new("/proc"), &Reader::new(InProcess))
            .expect("its binary");
    let slot = if let TaskSlot::Known(slot) = target.task_slot() { slot } else { 0 };
    targets.ports.insert(server.address.port(), 1, 0).expect("follow the port");
    let words = rustok_obsd_ebpf::Target::new(pid, slot, 0, Tag::NONE).words();
    targets.targets.insert(pid, words, 0).expect("follow");

    let mut entries: Vec<Vec<u8>> = Vec::new();
    // A connection that was there before, sends while nothing fits, and goes on after that: its gap has two ends.
    let mut witness = KeepAlive::open(server.address);
    witness.get("/hello");
    let mut load = or_skip!(name, server.load(&["--requests", "3000", "--concurrency", "8"]));
    assert!(load.wait(PATIENCE).is_some_and(|status| status.success()), "{}", load.log_tail());
    (0..3).for_each(|_| witness.get("/hello"));
    while ring.drain(4096, |entry| entries.push(entry.to_vec())) > 0 {}
    witness.get("/hello");
    drop(witness);
    programs.detach();
    while ring.drain(4096, |entry| entries.push(entry.to_vec())) > 0 {}
    let (written, lost) = (counts.get(Counter::Submitted), counts.get(Counter::RingFull));
    assert!(lost > 0, "nothing was lost of {written}");
    assert_eq!(entries.len() as u64, written, "read and written ({lost} lost)");
    // A gap in the bytes of a connection is where records are missing, and the close tells the whole.
    let mut moved: HashMap<(u64, bool), u64> = HashMap::new();
    let mut gaps = 0;
    for entry in &entries {
        let mut count = |io: SocketIo, received| {
            let seen = moved.entry((io.conn, received)).or_default();
            assert!(io.offset >= *seen, "{io:?} comes before what was read, {seen}");
            gaps += io.offset - *seen;
            *seen = io.offset + u64::try_from(io.result).unwrap_or(0);
        };
        match Record::parse(entry).expect("a record") {
            Record::Send(io, _) => count(io, false),
            Record::Receive(io, _) => count(io, true),
            Record::Close(close) => {
                for (received, total) in [(false, close.sent), (true, close.received)] {
                    let seen = moved.remove(&(close.conn, received)).unwrap_or(0);
                    assert!(total >= seen, "{close:?} after {seen}");
                    gaps += total - seen;
                }
            }
            _ => {}
        }
    }
    assert!(gaps > 0, "{lost} records lost, and no byte is missing");
}
