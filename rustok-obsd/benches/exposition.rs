//! What recording an exchange or a database operation costs the capture thread, and what a scrape of some 10 000 samples costs.
//!
//! `cargo bench -p rustok-obsd --bench exposition`; throughput of the renderings is in samples.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use rustok_obsd::contract::database::{DatabaseRecorder, Settings};
use rustok_obsd::contract::recorder::{Behind, Exemplar, HttpRecorder, Limits, TargetKey, TargetLabels};
use rustok_obsd::database::{Ending, Operation, Parent, Sight, Spent};
use rustok_obsd::exchange::{Exchange, Method, Outcome, Side};
use rustok_obsd::exposition::{Exposition, Format, Part, Scrape, Scratch};
use rustok_obsd::route::{Route, Source};
use rustok_obsd::statement::{Knowledge, Statement};
use std::hint::black_box;
use std::sync::Arc;

const TARGET: TargetKey = TargetKey(1);

fn exchange(side: Side, i: u64) -> Exchange<'static> {
    Exchange {
        side,
        task: 1,
        tid: 1,
        start_ns: 1_000_000_000,
        first_io_ns: 1_000_000_000,
        request_end_ns: 1_000_000_000,
        response_start_ns: 1_000_000_000,
        end_ns: 1_000_000_000 + i * 7_919 % 100_000_000,
        method: Method::Get,
        path: b"/",
        host: b"api.example.com:8080",
        version: 1,
        status: 200,
        outcome: Outcome::Complete,
        request_bytes: 0,
        response_bytes: 0,
        request_body: 0,
        response_body: i * 100 % 2_000_000,
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

fn recorder(routes: &[Route], trace: Option<Exemplar>) -> (HttpRecorder, Exposition) {
    let (mut recorder, metrics) = HttpRecorder::new(Limits::default());
    recorder.register_target(TARGET, TargetLabels { service_name: "shop".into(), ..TargetLabels::default() });
    for i in 0..100_000u64 {
        recorder.observe(TARGET, &exchange(Side::Server, i), &routes[i as usize % routes.len()], trace);
    }
    let exposition = Exposition::new();
    exposition.register(Part::App, metrics);
    (recorder, exposition)
}

fn routes() -> Vec<Route> {
    let template = |i| Arc::from(format!("/api/content/section-{i}/nodes/{{id}}").as_str());
    (0..140).map(|i| Route { template: template(i), source: Source::Axum }).collect()
}

fn observe(criterion: &mut Criterion) {
    let routes = routes();
    let trace = Exemplar { trace_id: [1; 16], span_id: [2; 8] };
    let mut group = criterion.benchmark_group("observe");
    group.throughput(Throughput::Elements(1));
    for (name, side, trace) in
        [("server", Side::Server, None), ("server, traced", Side::Server, Some(trace)), ("client", Side::Client, None)]
    {
        let (mut recorder, _exposition) = recorder(&routes, trace);
        let mut i = 0u64;
        group.bench_function(name, |bencher| {
            bencher.iter_batched_ref(
                || (),
                |()| {
                    i += 1;
                    // A step that hits every route in an order that a cache cannot foresee.
                    let route = &routes[i as usize * 37 % routes.len()];
                    recorder.observe(TARGET, black_box(&exchange(side, i)), route, trace);
                },
                BatchSize::NumIterations(10_000),
            );
        });
    }
    group.finish();
}

fn operation(statement: &Arc<Statement>, i: u64) -> Operation<'_> {
    let server = std::net::SocketAddr::from(([127, 0, 0, 1], 5432));
    Operation {
        statement,
        sight: Sight::Sqlx,
        system: rustok_obsd::database::System::Postgresql,
        task: 1,
        tid: 1,
        parent: Parent::Request(i),
        parent_span: None,
        call_ns: 1_000_000_000,
        start_ns: 1_000_010_000,
        send_ns: 1_000_010_000,
        first_ns: 1_000_500_000,
        end_ns: 1_000_500_000 + i * 7_919 % 100_000_000,
        rows: Some(i % 100),
        ending: Ending::Complete,
        sqlstate: None,
        addresses: Some((server, server)),
        namespace: None,
    }
}

fn statements() -> Vec<Arc<Statement>> {
    let statement = |i: u64| Statement {
        text: format!("SELECT a, b FROM table_{} WHERE x_{i} = ?", i % 30).into(),
        summary: format!("SELECT table_{}", i % 30).into(),
        operation: "SELECT".into(),
        collection: Some(format!("table_{}", i % 30).into()),
        fingerprint: i,
        knowledge: Knowledge::Whole,
    };
    (0..300).map(|i| Arc::new(statement(i))).collect()
}

fn database(criterion: &mut Criterion) {
    let (routes, statements) = (routes(), statements());
    let trace = Exemplar { trace_id: [1; 16], span_id: [2; 8] };
    let mut group = criterion.benchmark_group("database");
    group.throughput(Throughput::Elements(1));
    let (mut recorder, metrics) = DatabaseRecorder::new(Settings::default());
    recorder.register_target(TARGET, "shop", Behind::Trusted);
    for (name, trace) in [("operation", None), ("operation, traced", Some(trace))] {
        let mut i = 0u64;
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                i += 1;
                let statement = &statements[i as usize * 37 % statements.len()];
                recorder.observe(TARGET, black_box(&operation(statement, i)), trace);
            });
        });
    }
    let mut i = 0u64;
    group.bench_function("request", |bencher| {
        bencher.iter(|| {
            i += 1;
            let spent = Spent { queries: 2, database_ns: i * 7_919 % 100_000_000, ..Spent::default() };
            let request = Exchange { spent: Some(&spent), ..exchange(Side::Server, i) };
            recorder.observe_request(TARGET, black_box(&request), &routes[i as usize * 37 % routes.len()]);
        });
    });
    let exposition = Exposition::new();
    exposition.register(Part::App, metrics);
    let mut scratch = Scratch::default();
    let bytes = exposition.render_into(&mut scratch, &Scrape::default(), Format::Text, false).len();
    group.bench_function(format!("render: {bytes} bytes"), |bencher| {
        bencher.iter(|| black_box(exposition.render_into(&mut scratch, &Scrape::default(), Format::Text, false).len()));
    });
    group.finish();
}

fn render(criterion: &mut Criterion) {
    let trace = Some(Exemplar { trace_id: [1; 16], span_id: [2; 8] });
    let (_recorder, exposition) = recorder(&routes(), trace);
    let mut scratch = Scratch::default();
    let text = exposition.render_into(&mut scratch, &Scrape::default(), Format::Text, false);
    let samples = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty() && line[0] != b'#').count();
    let mut group = criterion.benchmark_group("render");
    group.throughput(Throughput::Elements(samples as u64));
    for (name, format, gzip) in [
        ("text", Format::Text, false),
        ("openmetrics", Format::OpenMetrics, false),
        ("text, gzip", Format::Text, true),
        ("openmetrics, gzip", Format::OpenMetrics, true),
    ] {
        let bytes = exposition.render_into(&mut scratch, &Scrape::default(), format, gzip).len();
        group.bench_function(format!("{name}: {samples} samples, {bytes} bytes"), |bencher| {
            bencher.iter(|| black_box(exposition.render_into(&mut scratch, &Scrape::default(), format, gzip).len()));
        });
    }
    group.finish();
}

criterion_group!(benches, observe, database, render);
criterion_main!(benches);
