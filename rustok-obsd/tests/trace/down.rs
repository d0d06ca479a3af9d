//! Collectors that are not there, or never answer.

use crate::{accept_export, addresses, exchange};
use rustok_obsd::config::parse_pairs;
use rustok_obsd::config::{Endpoint, Protocol, Traces};
use rustok_obsd::trace::{SpanCounts, TargetKey, Tracing};
use std::io::Write;
use std::net::TcpListener;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const OFFERS: u64 = 100_000;

/// Resident memory, bytes.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

/// Offers many spans, until the exporter has tried, ends, and yields the counts.
fn offer_all(endpoint: &str, protocol: Protocol, within: Duration) -> SpanCounts {
    let settings = Traces {
        endpoint: Some(Endpoint { url: endpoint.into(), exact: false }),
        protocol,
        timeout: Duration::from_millis(400),
        export_timeout: Duration::from_millis(300),
        schedule_delay: Duration::from_millis(50),
        ..Traces::default()
    };
    let tracing = Tracing::start(&settings).unwrap().unwrap();
    let counters = tracing.counters();
    let mut tracer = tracing.tracer();
    let before = resident();
    // That an offer never waits is tested beside the exporter, in the exporter's own thread.
    let mut offers = 0;
    while offers < OFFERS || counters.read().exports_failed == 0 {
        tracer.offer(TargetKey(1), &exchange(), None, addresses());
        offers += 1;
        if offers >= OFFERS {
            // The first export is given up in its own time.
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    let grown = resident().saturating_sub(before);
    // All the records together would be 23 MB; the queue is 0.5.
    assert!(grown < 16 << 20, "{grown} bytes more");
    assert!(tracing.shutdown(within), "not ended in time");
    drop(tracer);
    let counts = counters.read();
    assert_eq!(counts.offered, offers);
    assert_eq!(counts.unsampled + counts.exported + counts.dropped(), offers, "{counts:?}");
    counts
}

#[test]
fn a_closed_port_costs_a_bounded_queue_and_every_span_is_counted() {
    // Bound and closed again: nothing listens.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for protocol in [Protocol::Grpc, Protocol::HttpProtobuf] {
        let counts = offer_all(&format!("http://127.0.0.1:{port}"), protocol, Duration::from_secs(3));
        assert_eq!(counts.exported, 0, "{counts:?}");
        assert!(counts.dropped_queue_full > 0 && counts.exports_failed > 0, "{counts:?}");
        assert!(counts.dropped_export_failed + counts.dropped_export_timeout > 0, "{counts:?}");
    }
}

#[test]
fn a_collector_that_never_answers_costs_the_same_and_never_holds_up_the_end() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    // Connections are taken by the kernel's backlog and never served.
    for protocol in [Protocol::Grpc, Protocol::HttpProtobuf] {
        let counts = offer_all(&endpoint, protocol, Duration::from_secs(1));
        assert_eq!(counts.exported, 0, "{counts:?}");
        assert!(counts.dropped_export_timeout > 0 && counts.dropped_queue_full > 0, "{counts:?}");
    }
}

#[test]
fn what_is_offered_after_the_end_is_counted_too() {
    let settings =
        Traces { endpoint: Some(Endpoint { url: "http://127.0.0.1:1".into(), exact: false }), ..Traces::default() };
    let tracing = Tracing::start(&settings).unwrap().unwrap();
    let (counters, mut tracer) = (tracing.counters(), tracing.tracer());
    assert!(tracing.shutdown(Duration::from_secs(1)));
    for _ in 0..5000 {
        assert_eq!(tracer.offer(TargetKey(1), &exchange(), None, addresses()), None);
    }
    drop(tracer);
    let counts = counters.read();
    assert_eq!((counts.offered, counts.dropped()), (5000, 5000), "{counts:?}");
}

#[test]
fn the_log_tells_once_when_a_collector_goes_and_once_when_it_is_back() {
    let log = Arc::new(Mutex::new(Vec::new()));
    let writer = Arc::clone(&log);
    // The exporter's thread has no subscriber of its own; the other tests' lines are told apart by the port.
    tracing_subscriber::fmt()
        .with_ansi(false)
        .with_max_level(tracing::Level::INFO)
        .with_writer(move || Lines(Arc::clone(&writer)))
        .init();
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let settings = Traces {
        endpoint: Some(Endpoint { url: format!("http://{address}"), exact: false }),
        protocol: Protocol::HttpProtobuf,
        headers: parse_pairs("authorization=Bearer%20s3cret").unwrap(),
        timeout: Duration::from_millis(200),
        schedule_delay: Duration::from_millis(10),
        ..Traces::default()
    };
    let tracing = Tracing::start(&settings).unwrap().unwrap();
    let (counters, mut tracer) = (tracing.counters(), tracing.tracer());
    let mut offer_until = |done: &dyn Fn(SpanCounts) -> bool| {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !done(counters.read()) {
            tracer.offer(TargetKey(1), &exchange(), None, addresses());
            std::thread::sleep(Duration::from_millis(5));
            assert!(Instant::now() < deadline, "{:?}", counters.read());
        }
    };
    offer_until(&|counts| counts.exports_failed >= 3);
    let listener = TcpListener::bind(address).unwrap();
    let (heads, received) = sync_channel(1);
    // The first head is looked at; the collector goes on taking exports after it.
    std::thread::spawn(move || {
        loop {
            let _ = heads.try_send(accept_export(&listener));
        }
    });
    offer_until(&|counts| counts.exports >= 3);
    let head = received.recv().unwrap();
    assert!(head.starts_with("post /v1/traces http/1.1"), "{head}");
    assert!(head.contains("authorization: bearer s3cret"), "{head}");
    assert!(tracing.shutdown(Duration::from_secs(3)));
    let text = String::from_utf8(log.lock().unwrap().clone()).unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| line.contains(&address.to_string())).collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(lines[0].contains("WARN") && lines[0].contains("http/protobuf"), "{text}");
    assert!(lines[1].contains("INFO") && lines[1].contains("exported again"), "{text}");
    assert!(!text.contains("s3cret"), "{text}");
}

/// Writes to memory.
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
