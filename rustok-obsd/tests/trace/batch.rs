//! What waits leaves before the end. When a batch leaves, to the span, is tested beside the exporter, where the clock
//! stands still.

use crate::{accept_export, addresses, exchange};
use rustok_obsd::config::{Endpoint, Protocol, Traces};
use rustok_obsd::trace::{TargetKey, Tracing};
use std::net::TcpListener;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

#[test]
fn the_end_exports_everything_that_waits_to_a_collector_that_took_its_time() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let settings = Traces {
        endpoint: Some(Endpoint { url: format!("http://{}", listener.local_addr().unwrap()), exact: false }),
        protocol: Protocol::HttpProtobuf,
        queue_size: 1000,
        batch_size: 50,
        schedule_delay: Duration::from_secs(3600),
        ..Traces::default()
    };
    let (go, gone) = sync_channel::<()>(16);
    std::thread::spawn(move || {
        // It takes no connection before all is offered.
        gone.recv().unwrap();
        loop {
            accept_export(&listener);
        }
    });
    let tracing = Tracing::start(&settings).unwrap().unwrap();
    let mut tracer = tracing.tracer();
    for _ in 0..140 {
        tracer.offer(TargetKey(1), &exchange(), None, addresses());
    }
    let counters = tracing.counters();
    go.send(()).unwrap();
    assert!(tracing.shutdown(Duration::from_secs(10)));
    let counts = counters.read();
    assert_eq!((counts.exported, counts.exports, counts.dropped()), (140, 3, 0), "{counts:?}");
}
