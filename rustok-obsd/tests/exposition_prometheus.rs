//! A real Prometheus scrapes OpenMetrics with gzip from the server: every sample arrives, exemplars too.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use rustok_obsd::contract::database::{DatabaseRecorder, Settings};
use rustok_obsd::contract::own::{Build, SelfMetrics};
use rustok_obsd::contract::recorder::{Behind, Exemplar, HttpRecorder, Limits, TargetKey, TargetLabels};
use rustok_obsd::database::{Ending, Operation, Parent, Sight, Spent};
use rustok_obsd::exchange::{Exchange, Method, Outcome, Side};
use rustok_obsd::exposition::server::{self, Server, Status, serve};
use rustok_obsd::exposition::{Exposition, Format, Part, Scrape, bind};
use rustok_obsd::route::{Route, Source};
use rustok_obsd::statement::{Knowledge, Statement};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use test_support::{Ports, Prometheus, skip, wait_until};

struct Ready;

impl Status for Ready {
    fn ready(&self) -> Result<(), String> {
        Ok(())
    }

    fn status(&self) -> Value {
        Value::Null
    }
}

fn exposition() -> Arc<Exposition> {
    let (mut recorder, metrics) = HttpRecorder::new(Limits::default());
    let target = TargetKey(1);
    let labels =
        TargetLabels { service_name: "sh\"op\\".into(), service_version: "1.0".into(), ..TargetLabels::default() };
    recorder.register_target(target, labels);
    let exchange = Exchange {
        side: Side::Server,
        task: 0,
        tid: 0,
        start_ns: 1,
        first_io_ns: 1,
        request_end_ns: 1,
        response_start_ns: 1,
        end_ns: 1,
        method: Method::Get,
        path: b"/",
        host: b"",
        version: 1,
        status: 200,
        outcome: Outcome::Complete,
        request_bytes: 1,
        response_bytes: 1,
        request_body: 1,
        response_body: 1,
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
    };
    // Prometheus refuses exemplars from before its start: end now by the monotonic clock.
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
    let seconds: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
    let now = (seconds * 1e9) as u64;
    let (mut database, database_metrics) = DatabaseRecorder::new(Settings::default());
    database.register_target(target, "shop", Behind::Trusted);
    let statement = Arc::new(Statement {
        text: "SELECT \"id\", E'\\?' FROM nodes\nWHERE id = ?".into(),
        summary: "SELECT nodes".into(),
        operation: "SELECT".into(),
        collection: Some("nodes".into()),
        fingerprint: 1,
        knowledge: Knowledge::Whole,
    });
    for i in 0..50 {
        let route = Route { template: format!("/{i}/{{id}}").into(), source: Source::Axum };
        let trace = Exemplar { trace_id: [0xab; 16], span_id: [0xcd; 8] };
        let duration = (i + 1) * 1_000_000;
        let exchange = Exchange { start_ns: now - duration, end_ns: now, ..exchange };
        recorder.observe(target, &exchange, &route, Some(trace));
        recorder.observe(target, &Exchange { side: Side::Client, ..exchange }, &route, None);
        let operation = Operation {
            statement: &statement,
            sight: Sight::Wire,
            system: rustok_obsd::database::System::Postgresql,
            task: 0,
            tid: 0,
            parent: Parent::Unknown,
            parent_span: None,
            call_ns: 0,
            start_ns: now - duration,
            send_ns: now - duration,
            first_ns: now,
            end_ns: now,
            rows: Some(1),
            ending: Ending::Complete,
            sqlstate: None,
            addresses: None,
            namespace: None,
        };
        database.observe(target, &operation, Some(trace));
        let spent = Spent { queries: 1, ..Spent::default() };
        database.observe_request(target, &Exchange { spent: Some(&spent), ..exchange }, &route);
    }
    let exposition = Exposition::new();
    exposition.register(Part::App, metrics);
    exposition.register(Part::App, database_metrics);
    exposition.register(Part::App, Arc::new(SelfMetrics::new(Build { version: "0", revision: "0", rustc: "0" })));
    Arc::new(exposition)
}

#[test]
fn a_real_prometheus_takes_every_sample_and_exemplar() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let listener = runtime.block_on(bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let config = format!(
        "scrape_configs:\n- job_name: obsd\n  scrape_interval: 500ms\n  scrape_timeout: 500ms\n  static_configs:\n  - targets: ['{address}']\n"
    );
    let prometheus = match Prometheus::start_with(Ports::Free, |_| config) {
        Ok(prometheus) => prometheus,
        Err(reason) => return skip("a_real_prometheus_takes_every_sample_and_exemplar", reason),
    };
    let exposition = exposition();
    let text = exposition.render(&Scrape::default(), Format::OpenMetrics, false);
    let samples = std::str::from_utf8(&text.body).unwrap().lines().filter(|line| !line.starts_with('#')).count();
    let server = Server::new(exposition, Arc::new(Ready), server::Limits::default());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = std::thread::spawn(move || {
        runtime.block_on(serve(listener, server, async { drop(stopped.await) }));
    });

    let limit = Duration::from_secs(30);
    let target = wait_until(limit, || {
        let target = prometheus.get("/api/v1/targets")["activeTargets"][0].clone();
        matches!(target["health"].as_str(), Some("up" | "down")).then_some(target)
    });
    let target = target.expect("Prometheus scrapes within 30 s");
    assert_eq!((&target["health"], &target["lastError"]), (&"up".into(), &"".into()));
    // A target is up a moment before its samples can be queried.
    let number = |query: &str| wait_until(limit, || prometheus.query(query)[0]["value"][1].as_str().map(str::to_owned));
    assert_eq!(number("scrape_samples_scraped").unwrap(), samples.to_string());
    assert_eq!(number("scrape_samples_post_metric_relabeling").unwrap(), samples.to_string());
    assert_eq!(number("sum(rustok_http_requests_total)").unwrap(), "50");
    assert_eq!(number("count(target_info)").unwrap(), "1");
    assert_eq!(number("sum(rustok_database_query_duration_seconds_count)").unwrap(), "50");
    assert_eq!(number("sum(rustok_obsd_http_request_queries_sum)").unwrap(), "50");
    let text = &prometheus.query("rustok_obsd_statement_calls_total")[0]["metric"]["statement"];
    assert_eq!(text, "SELECT \"id\", E'\\?' FROM nodes\nWHERE id = ?");
    let exemplars = "/api/v1/query_exemplars?query=db_client_operation_duration_seconds_bucket&start=0&end=9999999999";
    assert_eq!(prometheus.get(exemplars)[0]["exemplars"][0]["labels"]["trace_id"], "ab".repeat(16));
    assert_eq!(prometheus.query("target_info")[0]["metric"]["service_name"], "sh\"op\\");
    for name in ["http_server_request_duration_seconds_bucket", "rustok_http_requests_total"] {
        let exemplars = prometheus.get(&format!("/api/v1/query_exemplars?query={name}&start=0&end=9999999999"));
        assert_eq!(exemplars.as_array().unwrap().len(), 50, "{name}: {exemplars}");
        assert_eq!(exemplars[0]["exemplars"][0]["labels"]["trace_id"], "ab".repeat(16));
    }
    let types = prometheus.get("/api/v1/metadata?metric=rustok_http_requests");
    assert_eq!(types["rustok_http_requests"][0]["type"], "counter");
    drop(stop);
    serving.join().unwrap();
}
