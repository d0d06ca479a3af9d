//! A real Prometheus scrapes OpenMetrics with gzip from the server: every sample arrives, exemplars too.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use rustok_obsd::contract::own::{Build, SelfMetrics};
use rustok_obsd::contract::recorder::{Exemplar, HttpRecorder, Limits, TargetKey, TargetLabels};
use rustok_obsd::exchange::{Exchange, Method, Outcome, Side};
use rustok_obsd::exposition::server::{self, Server, Status, serve};
use rustok_obsd::exposition::{Exposition, Format, bind};
use rustok_obsd::route::{Route, Source};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

struct Ready;

impl Status for Ready {
    fn ready(&self) -> Result<(), String> {
        Ok(())
    }

    fn status(&self) -> Value {
        Value::Null
    }
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Asks Prometheus' API; `None` while it does not answer.
fn api(port: u16, path: &str) -> Option<Value> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    write!(stream, "GET /api/v1/{path} HTTP/1.0\r\nHost: x\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
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
        routes_exact: true,
        told: false,
    };
    // Prometheus refuses exemplars from before its start: end now by the monotonic clock.
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
    let seconds: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
    let now = (seconds * 1e9) as u64;
    for i in 0..50 {
        let route = Route { template: format!("/{i}/{{id}}").into(), source: Source::Axum };
        let trace = Exemplar { trace_id: [0xab; 16], span_id: [0xcd; 8] };
        let duration = (i + 1) * 1_000_000;
        let exchange = Exchange { start_ns: now - duration, end_ns: now, ..exchange };
        recorder.observe(target, &exchange, &route, Some(trace));
        recorder.observe(target, &Exchange { side: Side::Client, ..exchange }, &route, None);
    }
    let exposition = Exposition::new();
    exposition.register(metrics);
    exposition.register(Arc::new(SelfMetrics::new(Build { version: "0", revision: "0", rustc: "0" })));
    Arc::new(exposition)
}

#[test]
fn a_real_prometheus_takes_every_sample_and_exemplar() {
    let data = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let listener = runtime.block_on(bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let config = data.path().join("prometheus.yml");
    let yaml = format!(
        "scrape_configs:\n- job_name: obsd\n  scrape_interval: 500ms\n  scrape_timeout: 500ms\n  static_configs:\n  - targets: ['{address}']\n"
    );
    std::fs::write(&config, yaml).unwrap();
    let prometheus = Command::new("prometheus")
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", data.path().join("data").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .args(["--enable-feature=exemplar-storage", "--log.level=warn"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let _prometheus = match prometheus {
        Ok(child) => Killed(child),
        Err(error) => return skip(&format!("prometheus does not start: {error}")),
    };
    let exposition = exposition();
    let text = exposition.render(Format::OpenMetrics, false);
    let samples = std::str::from_utf8(&text.body).unwrap().lines().filter(|line| !line.starts_with('#')).count();
    let server = Server::new(exposition, Arc::new(Ready), server::Limits::default());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = std::thread::spawn(move || {
        runtime.block_on(serve(listener, server, async { drop(stopped.await) }));
    });

    let deadline = Instant::now() + Duration::from_secs(30);
    let target = loop {
        assert!(Instant::now() < deadline, "Prometheus did not scrape within 30 s");
        let targets = api(port, "targets");
        let target = targets.as_ref().map(|targets| &targets["data"]["activeTargets"][0]);
        match target.and_then(|target| target["health"].as_str()) {
            Some("up" | "down") => break target.cloned().unwrap(),
            _ => std::thread::sleep(Duration::from_millis(100)),
        }
    };
    assert_eq!((&target["health"], &target["lastError"]), (&"up".into(), &"".into()));
    // A target is up a moment before its samples can be queried.
    let number = |query: &str| loop {
        let answer = api(port, &format!("query?query={query}"));
        let value = answer.and_then(|answer| answer["data"]["result"][0]["value"][1].as_str().map(str::to_owned));
        if value.is_some() || Instant::now() > deadline {
            break value;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(number("scrape_samples_scraped").unwrap(), samples.to_string());
    assert_eq!(number("scrape_samples_post_metric_relabeling").unwrap(), samples.to_string());
    assert_eq!(number("sum(rustok_http_requests_total)").unwrap(), "50");
    assert_eq!(number("count(target_info)").unwrap(), "1");
    let info = api(port, "query?query=target_info").unwrap();
    assert_eq!(info["data"]["result"][0]["metric"]["service_name"], "sh\"op\\");
    for name in ["http_server_request_duration_seconds_bucket", "rustok_http_requests_total"] {
        let exemplars = api(port, &format!("query_exemplars?query={name}&start=0&end=9999999999")).unwrap();
        assert_eq!(exemplars["data"].as_array().unwrap().len(), 50, "{name}: {exemplars}");
        assert_eq!(exemplars["data"][0]["exemplars"][0]["labels"]["trace_id"], "ab".repeat(16));
    }
    let types = api(port, "metadata?metric=rustok_http_requests").unwrap();
    assert_eq!(types["data"]["rustok_http_requests"][0]["type"], "counter");
    drop(stop);
    serving.join().unwrap();
}

/// Says that the test was skipped, also in the file that the test command collects such lines in.
fn skip(reason: &str) {
    let line = format!("skipped: a_real_prometheus_takes_every_sample_and_exemplar: {reason}\n");
    print!("{line}");
    if let Some(path) = std::env::var_os("RUSTOK_OBSD_SKIPS") {
        let mut file = std::fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
        file.write_all(line.as_bytes()).unwrap();
    }
}
