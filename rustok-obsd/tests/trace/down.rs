//! Collectors that are not there, or never answer.

use crate::{addresses, exchange};
use rustok_obsd::config::{Endpoint, Protocol, Traces};
use rustok_obsd::trace::{SpanCounts, TargetKey, Tracing};
use std::net::TcpListener;
use std::time::{Duration, Instant};

const OFFERS: u64 = 100_000;

/// Resident memory, bytes.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

/// Offers many spans at a pace that lets the exporter try, ends, and yields the counts.
fn offer_all(endpoint: &str, protocol: Protocol, within: Duration) -> SpanCounts {
    let settings = Traces {
        endpoint: Some(Endpoint {
            url: endpoint.into(),
            exact: false,
        }),
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
    let mut slowest = Duration::ZERO;
    for number in 0..OFFERS {
        let start = Instant::now();
        tracer.offer(TargetKey(1), &exchange(), None, addresses());
        slowest = slowest.max(start.elapsed());
        if number % 100 == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    let grown = resident().saturating_sub(before);
    // All the records together would be 25 MB; the queue is 0.6.
    assert!(grown < 12 << 20, "{grown} bytes more");
    // Nothing on the way waits for the collector; a busy machine may still take the thread away.
    assert!(slowest < Duration::from_millis(250), "{slowest:?}");
    let start = Instant::now();
    assert!(tracing.shutdown(within), "not ended in time");
    assert!(start.elapsed() <= within, "{:?}", start.elapsed());
    drop(tracer);
    let counts = counters.read();
    assert_eq!(counts.offered, OFFERS);
    assert_eq!(
        counts.unsampled + counts.exported + counts.dropped(),
        OFFERS,
        "{counts:?}"
    );
    counts
}

#[test]
fn a_closed_port_costs_a_bounded_queue_and_every_span_is_counted() {
    // Bound and closed again: nothing listens.
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    for protocol in [Protocol::Grpc, Protocol::HttpProtobuf] {
        let counts = offer_all(
            &format!("http://127.0.0.1:{port}"),
            protocol,
            Duration::from_secs(3),
        );
        assert_eq!(counts.exported, 0, "{counts:?}");
        assert!(
            counts.dropped_queue_full > 0 && counts.exports_failed > 0,
            "{counts:?}"
        );
        assert!(
            counts.dropped_export_failed + counts.dropped_export_timeout > 0,
            "{counts:?}"
        );
    }
}

#[test]
fn a_collector_that_never_answers_costs_the_same_and_never_holds_up_the_end() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    // Connections are taken by the kernel's backlog and never served.
    for protocol in [Protocol::Grpc, Protocol::HttpProtobuf] {
        let counts = offer_all(&endpoint, protocol, Duration::from_millis(500));
        assert_eq!(counts.exported, 0, "{counts:?}");
        assert!(
            counts.dropped_export_timeout > 0 && counts.dropped_queue_full > 0,
            "{counts:?}"
        );
    }
}

#[test]
fn what_is_offered_after_the_end_is_counted_too() {
    let settings = Traces {
        endpoint: Some(Endpoint {
            url: "http://127.0.0.1:1".into(),
            exact: false,
        }),
        ..Traces::default()
    };
    let tracing = Tracing::start(&settings).unwrap().unwrap();
    let (counters, mut tracer) = (tracing.counters(), tracing.tracer());
    assert!(tracing.shutdown(Duration::from_secs(1)));
    for _ in 0..5000 {
        assert_eq!(
            tracer.offer(TargetKey(1), &exchange(), None, addresses()),
            None
        );
    }
    drop(tracer);
    let counts = counters.read();
    assert_eq!(
        (counts.offered, counts.dropped()),
        (5000, 5000),
        "{counts:?}"
    );
}
