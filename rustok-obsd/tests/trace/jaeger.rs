//! The same spans read back from a real Jaeger.

use crate::{addresses, exchange, skip};
use rustok_obsd::config::{Compression, Config, Endpoint, Protocol, Target, Traces, parse_pairs};
use rustok_obsd::exchange::{Exchange, Method, Outcome, Side, TraceParent};
use rustok_obsd::route::{Route, Source};
use rustok_obsd::trace::{Resources, TargetKey, TraceIds, Tracing};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A running Jaeger; killed at the end, since it takes ten seconds to end by itself.
struct Jaeger {
    child: Child,
    query: u16,
    grpc: u16,
    http: u16,
    _folder: tempfile::TempDir,
}

impl Drop for Jaeger {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn binary() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("RUSTOK_OBSD_JAEGER") {
        return Some(path.into());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join("jaeger")).find(|file| file.is_file())
}

impl Jaeger {
    fn start(test: &str) -> Option<Self> {
        let Some(binary) = binary() else {
            skip(test, "no Jaeger: set RUSTOK_OBSD_JAEGER or put `jaeger` on PATH");
            return None;
        };
        // Bound all at once, so that they differ.
        let listeners = [(); 5].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [health, query, query_grpc, grpc, http] = listeners.each_ref().map(|l| l.local_addr().unwrap().port());
        drop(listeners);
        let folder = tempfile::tempdir().unwrap();
        let config = format!(
            r#"
service:
  extensions: [jaeger_storage, jaeger_query, healthcheckv2]
  pipelines: {{traces: {{receivers: [otlp], processors: [], exporters: [jaeger_storage_exporter]}}}}
  telemetry: {{metrics: {{level: none}}}}
extensions:
  healthcheckv2: {{use_v2: true, http: {{endpoint: "127.0.0.1:{health}"}}}}
  jaeger_query: {{storage: {{traces: mem}}, http: {{endpoint: "127.0.0.1:{query}"}}, grpc: {{endpoint: "127.0.0.1:{query_grpc}"}}}}
  jaeger_storage: {{backends: {{mem: {{memory: {{max_traces: 100000}}}}}}}}
receivers: {{otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:{grpc}"}}, http: {{endpoint: "127.0.0.1:{http}"}}}}}}}}
exporters: {{jaeger_storage_exporter: {{trace_storage: mem}}}}
"#
        );
        let file = folder.path().join("jaeger.yaml");
        std::fs::write(&file, config).unwrap();
        let child = Command::new(&binary)
            .arg(format!("--config={}", file.display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", binary.display()));
        let jaeger = Self { child, query, grpc, http, _folder: folder };
        let deadline = Instant::now() + Duration::from_secs(30);
        while get(health, "/status").is_none() || get(query, "/api/services").is_none() {
            assert!(Instant::now() < deadline, "Jaeger is not ready");
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(jaeger)
    }

    /// The one span of a trace, with its process' tags.
    fn span(&self, ids: TraceIds) -> (Value, Value) {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let found = get(self.query, &format!("/api/traces/{}", hex(&ids.trace_id)));
            let trace = found.and_then(|text| serde_json::from_str::<Value>(&text).ok());
            let trace = trace.map(|answer| answer["data"][0].clone()).unwrap_or_default();
            let spans = trace["spans"].as_array().cloned().unwrap_or_default();
            if let Some(span) = spans.iter().find(|span| span["spanID"] == hex(&ids.span_id)) {
                let process = trace["processes"][span["processID"].as_str().unwrap()].clone();
                return (span.clone(), process);
            }
            assert!(Instant::now() < deadline, "{ids:?} never came; {trace}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// The body of a successful answer.
fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    head.split(' ').nth(1)?.eq("200").then(|| body.to_owned())
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
    let Some(jaeger) = Jaeger::start("spans_arrive_in_jaeger") else {
        return;
    };
    let (grpc, http) = (jaeger.grpc, jaeger.http);
    for (protocol, port, compression) in [
        (Protocol::Grpc, grpc, Compression::None),
        (Protocol::HttpProtobuf, http, Compression::None),
        (Protocol::Grpc, grpc, Compression::Gzip),
        (Protocol::HttpProtobuf, http, Compression::Gzip),
    ] {
        round_trip(&jaeger, protocol, port, compression);
    }
}

fn round_trip(jaeger: &Jaeger, protocol: Protocol, port: u16, compression: Compression) {
    let name = format!("shop-{protocol:?}-{compression:?}");
    let settings = Traces {
        endpoint: Some(Endpoint { url: format!("http://127.0.0.1:{port}"), exact: false }),
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

    let (span, process) = jaeger.span(root_ids);
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

    let (span, process) = jaeger.span(child_ids);
    assert_eq!((&span["operationName"], &process["serviceName"]), (&"POST".into(), &format!("{name}-other").into()));
    assert_eq!(span["references"][0]["refType"], "CHILD_OF");
    assert_eq!(span["references"][0]["spanID"], hex(&root_ids.span_id));
    expect(&span, &[("span.kind", "client".into()), ("error", true.into()), ("error.type", "503".into())]);
}

#[test]
fn many_spans_arrive_whole_and_once() {
    const SPANS: u64 = 20_000;
    let Some(jaeger) = Jaeger::start("many_spans_arrive_whole_and_once") else {
        return;
    };
    let settings = Traces {
        endpoint: Some(Endpoint { url: format!("http://127.0.0.1:{}", jaeger.grpc), exact: false }),
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
        let (span, process) = jaeger.span(*ids);
        assert_eq!(span["operationName"], "GET");
        assert_eq!(process["serviceName"], "unknown_service");
    }
}
