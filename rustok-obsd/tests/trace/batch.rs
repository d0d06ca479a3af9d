//! When a batch leaves.

use crate::{accept_export, addresses, exchange};
use rustok_obsd::config::{Endpoint, Protocol, Traces};
use rustok_obsd::trace::{SpanCounts, TargetKey, Tracer, Tracing};
use std::net::TcpListener;
use std::time::{Duration, Instant};

/// An exporter towards a collector that accepts everything, each time after a pause.
fn start(schedule_delay: Duration, pause: Duration) -> (Tracing, Tracer) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let settings = Traces {
        endpoint: Some(Endpoint { url: format!("http://{}", listener.local_addr().unwrap()), exact: false }),
        protocol: Protocol::HttpProtobuf,
        queue_size: 100,
        batch_size: 50,
        schedule_delay,
        ..Traces::default()
    };
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(pause);
            accept_export(&listener);
        }
    });
    let tracing = Tracing::start(&settings).unwrap().unwrap();
    let tracer = tracing.tracer();
    (tracing, tracer)
}

/// Waits until so many spans were exported; they may not be fewer than asked for nor come later than ten seconds.
fn exported(tracing: &Tracing, spans: u64) -> SpanCounts {
    let deadline = Instant::now() + Duration::from_secs(10);
    while tracing.counters().read().exported < spans {
        assert!(Instant::now() < deadline, "{:?}", tracing.counters().read());
        std::thread::sleep(Duration::from_millis(2));
    }
    tracing.counters().read()
}

#[test]
fn a_full_batch_leaves_at_once_also_after_the_queue_was_full() {
    let (tracing, mut tracer) = start(Duration::from_secs(3600), Duration::ZERO);
    let mut offer = |count: u64| {
        for _ in 0..count {
            tracer.offer(TargetKey(1), &exchange(), None, addresses());
        }
    };
    offer(50);
    assert_eq!(exported(&tracing, 50).exports, 1);
    // Far more than the queue holds at once: whatever was dropped, the next full batch leaves again.
    offer(5007);
    let deadline = Instant::now() + Duration::from_secs(10);
    let (counts, waiting) = loop {
        let counts = tracing.counters().read();
        let waiting = counts.offered - counts.exported - counts.dropped();
        if waiting < 50 {
            break (counts, waiting);
        }
        assert!(Instant::now() < deadline, "{counts:?}");
        std::thread::sleep(Duration::from_millis(2));
    };
    assert!(counts.dropped_queue_full > 0, "{counts:?}");
    // One short of a batch: it has to wait for the last.
    offer(49_u64.saturating_sub(waiting));
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(tracing.counters().read().exported, counts.exported);
    offer(1);
    assert_eq!(exported(&tracing, counts.exported + 50).dropped(), counts.dropped());
}

#[test]
fn a_part_of_a_batch_leaves_when_the_delay_is_over() {
    let (tracing, mut tracer) = start(Duration::from_millis(300), Duration::ZERO);
    let begin = Instant::now();
    for _ in 0..3 {
        tracer.offer(TargetKey(1), &exchange(), None, addresses());
    }
    let counts = exported(&tracing, 3);
    assert_eq!((counts.exports, counts.offered), (1, 3), "{counts:?}");
    assert!(begin.elapsed() >= Duration::from_millis(200), "{:?}", begin.elapsed());
}

#[test]
fn the_end_exports_everything_that_waits_not_one_batch_only() {
    let (tracing, mut tracer) = start(Duration::from_secs(3600), Duration::from_millis(200));
    for _ in 0..90 {
        tracer.offer(TargetKey(1), &exchange(), None, addresses());
    }
    // The first batch is on its way now, and the collector takes its time.
    std::thread::sleep(Duration::from_millis(50));
    for _ in 0..50 {
        tracer.offer(TargetKey(1), &exchange(), None, addresses());
    }
    let counters = tracing.counters();
    assert!(tracing.shutdown(Duration::from_secs(10)));
    assert_eq!((counters.read().exported, counters.read().dropped()), (140, 0), "{:?}", counters.read());
}
