//! From the ring's entries to the exposition.

mod traffic;

use rustok_obsd::exposition::{Format, to_text};
use test_support::allocations;
use traffic::{Queries, Traffic};

#[global_allocator]
static COUNTING: test_support::Counting = test_support::Counting;

#[test]
fn every_request_of_the_ring_is_in_the_exposition_with_its_route() {
    let mut traffic = Traffic::new();
    for _ in 0..3 {
        traffic.prepare(200);
        traffic.run();
        traffic.reconnect();
    }
    let text = to_text(traffic.metrics.as_ref(), Format::Text);
    for id in 0..20 {
        let series =
            format!("rustok_http_requests_total{{method=\"GET\",path=\"/api/{id}/{{id}}\",status=\"200\"}} 30\n");
        assert!(text.contains(&series), "{series}{text}");
    }
    let own = to_text(traffic.own.as_ref(), Format::Text);
    for line in own.lines().filter(|line| {
        line.starts_with("rustok_obsd_records_lost") || line.starts_with("rustok_obsd_exchange_problems")
    }) {
        assert!(line.ends_with(" 0"), "{line}");
    }
    assert!(own.contains("rustok_obsd_records_total{kind=\"route\"} 600\n"), "{own}");
}

#[test]
fn a_record_allocates_nothing_once_the_pipeline_is_warm() {
    let mut traffic = Traffic::new();
    traffic.prepare(1000);
    traffic.run();
    traffic.prepare(1000);
    let before = allocations();
    traffic.run();
    assert_eq!(allocations() - before, 0);
}

#[test]
fn each_query_is_with_its_request_and_allocates_nothing_once_warm() {
    for queries in [Queries::Tls, Queries::Clear, Queries::ClearWithCalls] {
        let mut traffic = Traffic::with(queries);
        for _ in 0..2 {
            traffic.prepare(1000);
            traffic.run();
        }
        traffic.prepare(1000);
        let before = allocations();
        traffic.run();
        assert_eq!(allocations() - before, 0, "{queries:?}");
        let text = to_text(traffic.database.as_ref(), Format::Text);
        let value = |name: &str| {
            let lines = text.lines().filter(|line| line.starts_with(name));
            lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>()
        };
        assert_eq!(value("rustok_obsd_database_parents_total{parent=\"request\"}"), 6000.0, "{queries:?}");
        assert_eq!(value("rustok_obsd_database_parents_total"), 6000.0, "{queries:?}");
        assert_eq!(value("rustok_database_query_duration_seconds_count"), 6000.0, "{queries:?}");
        assert_eq!(value("rustok_obsd_http_request_queries_sum"), 6000.0, "{queries:?}");
        let waits = if queries == Queries::Clear { 0.0 } else { 6000.0 };
        assert_eq!(value("db_client_connection_wait_time_seconds_count"), waits, "{queries:?}");
        let idle = value("rustok_database_connections{state=\"idle\"}");
        assert_eq!((idle, value("rustok_database_connections")), (1.0, 1.0), "{queries:?}");
        let own = to_text(traffic.own.as_ref(), Format::Text);
        for line in own.lines().filter(|line| line.starts_with("rustok_obsd_database_problems")) {
            assert!(line.contains("other_message") || line.ends_with(" 0"), "{queries:?}: {line}");
        }
    }
}

#[test]
fn entries_that_are_no_records_are_counted_and_change_nothing() {
    let mut traffic = Traffic::new();
    for entry in [&[][..], &[99; 64], &[2; 10], &[3; 63]] {
        traffic.pipeline.take(entry);
    }
    traffic.prepare(20);
    traffic.run();
    let own = to_text(traffic.own.as_ref(), Format::Text);
    assert!(own.contains("rustok_obsd_records_lost_total{reason=\"malformed\"} 4\n"), "{own}");
    assert!(to_text(traffic.metrics.as_ref(), Format::Text).contains("status=\"200\"} 1\n"));
}
