//! The same spans read back from a real Jaeger.

use crate::{addresses, exchange, operation, statement};
use rustok_obsd::config::{Compression, Config, Endpoint, Protocol, Target, Traces, parse_pairs};
use rustok_obsd::database::{Ending, Operation, Parent, Spent};
use rustok_obsd::exchange::{Exchange, Method, Outcome, Side, TraceParent};
use rustok_obsd::route::{Route, Source};
use rustok_obsd::trace::{
    BUSY, FINGERPRINT, POOL_WAIT, QUERIES, REPEATED_COUNT, Resources, SIGHT, TENANT, TIME_TO_FIRST_BYTE, TargetKey,
    TraceIds, Tracing,
};
use serde_json::Value;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use test_support::{Jaeger, skip, wait_until};

/// The one span of a trace, with its process' tags.
fn span_of(jaeger: &Jaeger, ids: TraceIds) -> (Value, Value) {
    let found = wait_until(Duration::from_secs(10), || {
        let trace = jaeger.trace(&hex(&ids.trace_id))[0].clone();
        let spans = trace["spans"].as_array()?;
        let span = spans.iter().find(|span| span["spanID"] == hex(&ids.span_id))?.clone();
        let process = trace["processes"][span["processID"].as_str()?].clone();
        Some((span, process))
    });
    found.unwrap_or_else(|| panic!("{ids:?} never came"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn tag(of: &Value, key: &str) -> Option<Value> {
    of["tags"].as_array()?.iter().find(|tag| tag["key"] == key).map(|tag| tag["value"].clone())
}

fn expect(of: &Value, expected: &[(&str, Value)]) {
    for (key, value) in expected {
        assert_eq!(tag(of, key).as_ref(), Some(value), "{key} of {of}");
    }
}

#[test]
fn spans_arrive_in_jaeger_as_offered_over_grpc_and_http_plain_and_compressed() {
    let jaeger = match Jaeger::start() {
        Ok(jaeger) => jaeger,
        Err(reason) => {
            return skip("spans_arrive_in_jaeger_as_offered_over_grpc_and_http_plain_and_compressed", reason);
        }
    };
    for compression in [Compression::None, Compression::Gzip] {
        round_trip(&jaeger, Protocol::Grpc, jaeger.otlp_grpc(), compression);
        round_trip(&jaeger, Protocol::HttpProtobuf, jaeger.otlp_http(), compression);
    }
}

fn round_trip(jaeger: &Jaeger, protocol: Protocol, url: String, compression: Compression) {
    let name = format!("shop-{protocol:?}-{compression:?}");
    let settings = Traces {
        endpoint: Some(Endpoint { url, exact: false }),
        protocol,
        compression,
        headers: parse_pairs("x-test=1").unwrap(),
        ..Traces::default()
    };
    let mut config = Config { targets: vec![Target::default(), Target::default()], ..Config::default() };
    config.resource.attributes = parse_pairs("deployment.environment=production").unwrap();
    let resources = Resources::new(&config);
    let shop = Target { service_name: Some(name.clone()), service_version: Some("1.2.3".into()), ..Target::default() };
    let other = Target { service_name: Some(format!("{name}-other")), ..Target::default() };

    let tracing = Tracing::start(&settings).unwrap().unwrap();
    let mut tracer = tracing.tracer();
    let own_pid = std::process::id();
    tracer.add_target(TargetKey(1), Arc::new(resources.describe(&shop, own_pid)));
    tracer.add_target(TargetKey(2), Arc::new(resources.describe(&other, own_pid)));
    let route = Route { template: "/api/orders/{id}".into(), source: Source::Axum };
    let before = SystemTime::now();
    let root = exchange();
    let root_ids = tracer.offer(TargetKey(1), &root, Some(&route), addresses()).unwrap();
    let parent = TraceParent { trace_id: root_ids.trace_id, parent_id: root_ids.span_id, flags: 1 };
    let child = Exchange {
        method: Method::Post,
        status: 503,
        outcome: Outcome::Complete,
        traceparent: Some(parent),
        side: Side::Client,
        ..exchange()
    };
    let child_ids = tracer.offer(TargetKey(2), &child, None, addresses()).unwrap();
    assert_eq!(child_ids.trace_id, root_ids.trace_id);
    let unsampled = Exchange { traceparent: Some(TraceParent { flags: 0, ..parent }), ..exchange() };
    assert_eq!(tracer.offer(TargetKey(1), &unsampled, None, addresses()), None);
    // Sooner than the schedule's five seconds: the end flushes.
    let counters = tracing.counters();
    assert!(tracing.shutdown(Duration::from_secs(3)));
    let counts = counters.read();
    assert_eq!((counts.offered, counts.unsampled, counts.exported, counts.exports), (3, 1, 2, 2), "{counts:?}");

    let (span, process) = span_of(jaeger, root_ids);
    assert_eq!(span["operationName"], "GET /api/orders/{id}");
    assert_eq!(process["serviceName"], name.as_str());
    assert_eq!(span["references"], serde_json::json!([]));
    expect(
        &span,
        &[
            ("span.kind", "server".into()),
            ("http.request.method", "GET".into()),
            ("http.route", "/api/orders/{id}".into()),
            ("http.response.status_code", 200.into()),
            ("url.scheme", "http".into()),
            ("server.address", "shop.example".into()),
            ("server.port", 8080.into()),
            ("client.address", "10.0.0.2".into()),
            ("network.peer.port", 5555.into()),
            ("network.protocol.version", "1.1".into()),
            ("http.response.body.size", 180.into()),
            ("thread.id", 4242.into()),
            ("rustok_obsd.tokio.task.id", 77.into()),
            ("otel.scope.name", "rustok-obsd".into()),
        ],
    );
    assert_eq!(tag(&span, "url.path"), None);
    assert_eq!(tag(&span, "error"), None);
    let executable = std::env::current_exe().unwrap();
    expect(
        &process,
        &[
            ("service.version", "1.2.3".into()),
            ("process.pid", own_pid.into()),
            ("process.executable.path", executable.to_str().unwrap().into()),
            ("deployment.environment.name", "production".into()),
            ("deployment.environment", "production".into()),
            ("telemetry.sdk.name", "opentelemetry".into()),
            ("telemetry.distro.name", "rustok-obsd".into()),
        ],
    );
    assert!(tag(&process, "host.name").is_some() && tag(&process, "service.instance.id").is_some());
    // Jaeger keeps microseconds.
    assert_eq!(span["duration"], 2500);
    let start = UNIX_EPOCH + Duration::from_micros(span["startTime"].as_u64().unwrap());
    let microsecond = Duration::from_micros(2);
    assert!(start + microsecond >= before && start <= SystemTime::now(), "{start:?} is not now");

    let (span, process) = span_of(jaeger, child_ids);
    assert_eq!((&span["operationName"], &process["serviceName"]), (&"POST".into(), &format!("{name}-other").into()));
    assert_eq!(span["references"][0]["refType"], "CHILD_OF");
    assert_eq!(span["references"][0]["spanID"], hex(&root_ids.span_id));
    expect(&span, &[("span.kind", "client".into()), ("error", true.into()), ("error.type", "503".into())]);
}

#[test]
fn the_tree_of_one_request_is_server_pool_wait_and_queries_and_what_outlives_it_is_linked() {
    const NAME: &str = "the_tree_of_one_request_is_server_pool_wait_and_queries_and_what_outlives_it_is_linked";
    let jaeger = match Jaeger::start() {
        Ok(jaeger) => jaeger,
        Err(reason) => return skip(NAME, reason),
    };
    let settings = Traces {
        endpoint: Some(Endpoint { url: jaeger.otlp_grpc(), exact: false }),
        protocol: Protocol::Grpc,
        ..Traces::default()
    };
    let tracing = Tracing::start(&settings).unwrap().unwrap();
    let mut tracer = tracing.tracer();
    let key = TargetKey(1);

    let statement = statement();
    let request = exchange();
    // The first operation begins: the request's span has ids before it has an end.
    let request_ids = tracer.begin(key, None).unwrap();
    let waited = Operation { parent_span: Some(request_ids), ..operation(&statement) };
    let at_once = Operation { start_ns: waited.call_ns + 1000, ..waited };
    let failed = Operation { ending: Ending::Failed, sqlstate: Some(*b"23505"), rows: None, ..at_once };
    let ids = [waited, at_once, failed].map(|operation| tracer.offer_operation(key, &operation).unwrap());
    let spent = Spent { queries: 3, busy_ns: 800_000, most_repeated: Some((&statement, 6)), ..Spent::default() };
    let ended = Exchange { ids: Some(request_ids).into(), spent: Some(&spent), tenant: b"acme", ..request };
    assert_eq!(tracer.offer(key, &ended, None, addresses()), Some(request_ids));
    let late = Operation { parent: Parent::Linked(1), ..waited };
    let late_ids = tracer.offer_operation(key, &late).unwrap();
    let lone_ids = tracer.offer_operation(key, &Operation { parent: Parent::Unknown, ..waited }).unwrap();
    let counters = tracing.counters();
    assert!(tracing.shutdown(Duration::from_secs(3)));
    let counts = counters.read();
    assert_eq!((counts.offered, counts.exported), (7, 7), "{counts:?}");

    let trace = wait_until(Duration::from_secs(10), || {
        let trace = jaeger.trace(&hex(&request_ids.trace_id))[0].clone();
        (trace["spans"].as_array()?.len() == 5).then_some(trace)
    });
    let trace = trace.expect("the request, its wait and its three queries");
    let spans = trace["spans"].as_array().unwrap();
    let span = |name: &str| spans.iter().filter(|span| span["operationName"] == name).collect::<Vec<_>>();
    let (servers, waits, queries) = (span("GET"), span("pool wait"), span("SELECT shop.products"));
    assert_eq!((servers.len(), waits.len(), queries.len()), (1, 1, 3), "{trace}");
    assert_eq!(
        (&servers[0]["spanID"], &servers[0]["references"]),
        (&hex(&request_ids.span_id).into(), &serde_json::json!([]))
    );
    let mut seen: Vec<String> = queries.iter().map(|query| query["spanID"].as_str().unwrap().to_owned()).collect();
    let mut offered = ids.map(|ids| hex(&ids.span_id));
    seen.sort();
    offered.sort();
    assert_eq!(seen, offered);
    for below in waits.iter().chain(&queries) {
        let references = below["references"].as_array().unwrap();
        assert_eq!(references.len(), 1, "{below}");
        assert_eq!(references[0]["refType"], "CHILD_OF");
        assert_eq!(references[0]["spanID"], hex(&request_ids.span_id), "beside each other, below the request");
        expect(below, &[("db.system.name", "postgresql".into()), ("server.port", 5432.into())]);
    }
    expect(
        servers[0],
        &[
            ("span.kind", "server".into()),
            (QUERIES, 3.into()),
            (BUSY, 0.0008.into()),
            (REPEATED_COUNT, 6.into()),
            (TENANT, "acme".into()),
        ],
    );
    expect(waits[0], &[("span.kind", "internal".into())]);
    assert_eq!(waits[0]["duration"], 300);
    let query = queries.iter().find(|query| query["spanID"] == hex(&ids[0].span_id)).unwrap();
    // The wait ends where the query begins; Jaeger keeps microseconds.
    let end = |span: &Value| span["startTime"].as_u64().unwrap() + span["duration"].as_u64().unwrap();
    assert!(end(waits[0]).abs_diff(query["startTime"].as_u64().unwrap()) <= 1, "{trace}");
    assert!(end(query) <= end(servers[0]) && waits[0]["startTime"].as_u64() >= servers[0]["startTime"].as_u64());
    expect(
        query,
        &[
            ("span.kind", "client".into()),
            ("db.query.text", "SELECT * FROM shop.products WHERE id = ?".into()),
            ("db.query.summary", "SELECT shop.products".into()),
            ("db.operation.name", "SELECT".into()),
            ("db.collection.name", "shop.products".into()),
            ("db.response.returned_rows", 1.into()),
            ("network.peer.address", "10.0.0.9".into()),
            (SIGHT, "sea_orm".into()),
            (FINGERPRINT, "00000000000000ff".into()),
            (POOL_WAIT, 0.0003.into()),
            (TIME_TO_FIRST_BYTE, 0.0004.into()),
        ],
    );
    assert_eq!((tag(query, "error"), tag(query, "db.response.status_code")), (None, None));
    let failed = queries.iter().find(|query| query["spanID"] == hex(&ids[2].span_id)).unwrap();
    expect(
        failed,
        &[("error", true.into()), ("error.type", "23505".into()), ("db.response.status_code", "23505".into())],
    );

    let (late, _) = span_of(&jaeger, late_ids);
    let references = late["references"].as_array().unwrap();
    assert_eq!((references.len(), &references[0]["refType"]), (1, &"FOLLOWS_FROM".into()), "{late}");
    assert_eq!(references[0]["traceID"], hex(&request_ids.trace_id));
    assert_eq!(references[0]["spanID"], hex(&request_ids.span_id));
    assert_ne!(late["traceID"], hex(&request_ids.trace_id));
    let (lone, _) = span_of(&jaeger, lone_ids);
    assert_eq!(lone["references"], serde_json::json!([]));
}

#[test]
fn many_spans_arrive_whole_and_once() {
    const SPANS: u64 = 20_000;
    let jaeger = match Jaeger::start() {
        Ok(jaeger) => jaeger,
        Err(reason) => return skip("many_spans_arrive_whole_and_once", reason),
    };
    let settings = Traces {
        endpoint: Some(Endpoint { url: jaeger.otlp_grpc(), exact: false }),
        protocol: Protocol::Grpc,
        queue_size: 32_768,
        ..Traces::default()
    };
    let tracing = Tracing::start(&settings).unwrap().unwrap();
    let mut tracer = tracing.tracer();
    let counters = tracing.counters();
    let ids: Vec<TraceIds> =
        (0..SPANS).filter_map(|_| tracer.offer(TargetKey(1), &exchange(), None, addresses())).collect();
    assert!(tracing.shutdown(Duration::from_secs(20)));
    let counts = counters.read();
    assert_eq!((ids.len() as u64, counts.exported, counts.dropped()), (SPANS, SPANS, 0), "{counts:?}");
    assert!(counts.exports >= SPANS / 512, "{counts:?}");
    for ids in ids.iter().step_by(500).chain(ids.last()) {
        let (span, process) = span_of(&jaeger, *ids);
        assert_eq!(span["operationName"], "GET");
        assert_eq!(process["serviceName"], "unknown_service");
    }
}
