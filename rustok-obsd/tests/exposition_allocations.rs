//! Nothing is allocated per exchange or database operation recorded, nor per sample rendered, once buffers have grown.
//!
//! One test, for the counter is the whole process's.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use rustok_obsd::contract::HttpMetrics;
use rustok_obsd::contract::database::{ConnectionState, DatabaseMetrics, DatabaseRecorder, Settings};
use rustok_obsd::contract::recorder::{Behind, Exemplar, HttpRecorder, Limits, TargetKey, TargetLabels};
use rustok_obsd::database::{Ending, Operation, Parent, Sight, Spent};
use rustok_obsd::exchange::{Exchange, Method, Outcome, Side};
use rustok_obsd::exposition::{Exposition, Format, Part, Scrape, Scratch};
use rustok_obsd::route::{Route, Source};
use rustok_obsd::statement::{Knowledge, Statement};
use std::sync::Arc;

#[global_allocator]
static COUNTING: test_support::Counting = test_support::Counting;

const TARGET: TargetKey = TargetKey(1);

fn exchange(side: Side, status: u16, i: u64) -> Exchange<'static> {
    Exchange {
        side,
        task: 1,
        tid: 1,
        start_ns: 1_000_000_000,
        first_io_ns: 1_000_000_000,
        request_end_ns: 1_000_000_000,
        response_start_ns: 1_000_000_000,
        end_ns: 1_000_000_000 + i * 7_919 % 12_000_000_000,
        method: Method::Get,
        path: b"/",
        host: b"example.com",
        version: 1,
        status,
        outcome: Outcome::Complete,
        request_bytes: 0,
        response_bytes: 0,
        request_body: i,
        response_body: i * 100,
        traceparent: None,
        route: None,
        awaited: None,
        routes_exact: true,
        told: false,
        id: 1,
        spent: None,
        ids: rustok_obsd::trace::Decision::Undecided,
        tenant: b"",
        headers: rustok_obsd::exchange::Headers::default(),
    }
}

fn record(recorder: &mut HttpRecorder, routes: &[Route]) {
    for i in 0..20_000u64 {
        let route = &routes[i as usize % routes.len()];
        let status = if i % 50 == 0 { 500 } else { 200 };
        let trace = (i % 2 == 0).then_some(Exemplar { trace_id: [1; 16], span_id: [2; 8] });
        recorder.request_started(TARGET, Method::Get);
        recorder.observe(TARGET, &exchange(Side::Server, status, i), route, trace);
        recorder.request_ended(TARGET, Method::Get);
        recorder.observe(TARGET, &exchange(Side::Client, status, i), route, trace);
    }
}

fn statements() -> Vec<Arc<Statement>> {
    let statement = |i| Statement {
        text: format!("SELECT * FROM table_{i} WHERE id = ?").into(),
        summary: format!("SELECT table_{i}").into(),
        operation: "SELECT".into(),
        collection: Some(format!("table_{i}").into()),
        fingerprint: i,
        knowledge: Knowledge::Whole,
    };
    (0..100).map(|i| Arc::new(statement(i))).collect()
}

fn record_database(
    recorder: &mut DatabaseRecorder,
    namespaces: &[Arc<str>; 2],
    statements: &[Arc<Statement>],
    routes: &[Route],
) {
    let server = "127.0.0.1:5432".parse().unwrap();
    let pool = recorder.pool(TARGET, Some(server), Some(&namespaces[0])).unwrap();
    for i in 0..20_000u64 {
        let failed = i % 50 == 0;
        let statement = &statements[i as usize % statements.len()];
        let operation = Operation {
            statement,
            sight: Sight::Sqlx,
            system: rustok_obsd::database::System::Postgresql,
            task: 1,
            tid: 1,
            parent: Parent::Request(i),
            parent_span: None,
            call_ns: 1_000_000_000,
            start_ns: 1_000_500_000,
            send_ns: 1_000_500_000,
            first_ns: 1_001_000_000,
            end_ns: 1_001_000_000 + i * 7_919 % 12_000_000_000,
            rows: Some(i % 100),
            ending: if failed { Ending::Failed } else { Ending::Complete },
            sqlstate: failed.then_some(*b"23505"),
            addresses: Some((server, server)),
            // Each connection reads the name for itself.
            namespace: Some(&namespaces[i as usize % 2]),
        };
        let trace = (i % 2 == 0).then_some(Exemplar { trace_id: [1; 16], span_id: [2; 8] });
        recorder.connection_opened(pool);
        recorder.connection_used(pool);
        recorder.observe(TARGET, &operation, trace);
        recorder.connection_idle(pool);
        recorder.connection_closed(pool, ConnectionState::Idle);
        let spent = Spent { queries: 2, most_repeated: Some((statement, 6)), ..Spent::default() };
        let request =
            Exchange { id: i, spent: Some(&spent), ..exchange(Side::Server, if failed { 500 } else { 200 }, i) };
        recorder.observe_request(TARGET, &request, &routes[i as usize % routes.len()]);
    }
}

#[test]
fn nothing_is_allocated_per_exchange_operation_or_sample_in_steady_state() {
    let (mut recorder, metrics): (_, Arc<HttpMetrics>) = HttpRecorder::new(Limits::default());
    let labels = TargetLabels { service_name: "shop".into(), ..TargetLabels::default() };
    recorder.register_target(TARGET, labels);
    let routes: Vec<_> =
        (0..100).map(|i| Route { template: format!("/{i}/{{id}}").into(), source: Source::Axum }).collect();
    let exposition = Exposition::new();
    exposition.register(Part::App, metrics);
    let (mut database, metrics): (_, Arc<DatabaseMetrics>) = DatabaseRecorder::new(Settings::default());
    database.register_target(TARGET, "shop", Behind::Trusted);
    exposition.register(Part::App, metrics);
    let (statements, namespaces) = (statements(), ["shop".into(), "shop".into()]);
    let mut scratch = Scratch::default();
    let mut allocations = |formats: &[(Format, bool)]| {
        let before = test_support::allocations();
        record(&mut recorder, &routes);
        record_database(&mut database, &namespaces, &statements, &routes);
        let mut bytes = 0;
        for (format, gzip) in formats {
            bytes += exposition.render_into(&mut scratch, &Scrape::default(), *format, *gzip).len();
        }
        assert!(bytes > 100_000, "{bytes}");
        test_support::allocations() - before
    };
    let formats =
        [(Format::Text, false), (Format::OpenMetrics, false), (Format::Text, true), (Format::OpenMetrics, true)];
    let warm_up = allocations(&formats);
    allocations(&formats);
    assert!(warm_up > 0, "the counter works");
    assert_eq!(allocations(&formats), 0);
}
