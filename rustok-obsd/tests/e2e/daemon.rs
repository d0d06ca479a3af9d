//! The daemon as a user runs it: its counts against the server's own, through Prometheus, Jaeger and promtool.

use std::{
    collections::{BTreeMap, HashSet},
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::Command,
    time::Duration,
};

use serde_json::Value;
use test_support::{
    Child, Jaeger, Job, Prometheus, Scraping, Skip, Tls, http_get, http_get_with, promtool_check_metrics, skip,
    wait_until,
};

use super::{
    running::LONG_PATIENCE,
    scene::{Scene, program},
    truth::Request,
};

/// Requests by route, method and status.
type Counts = BTreeMap<(String, String, String), u64>;

/// A running daemon.
pub struct Daemon {
    pub child: Child,
    pub addr: SocketAddr,
}

impl Daemon {
    /// A Prometheus that scrapes it, as the job of the repository's prometheus.yml does.
    pub fn prometheus(&self) -> Result<Prometheus, Skip> {
        let job = Job::new("test", self.addr).path("/metrics/app");
        Prometheus::scrape(&Scraping::every(Duration::from_secs(1)).job(job))
    }

    pub fn start(args: &[&str], variables: &[(&str, &str)]) -> Result<Self, Skip> {
        let mut command = Command::new(program("RUSTOK_OBSD_BIN")?);
        command.args(["run", "--web.listen-address", "127.0.0.1:0"]).args(args).envs(variables.iter().copied());
        let child = Child::spawn("rustok-obsd", &mut command).expect("start the daemon");
        let addr = child
            .wait_for_line(LONG_PATIENCE, |line| {
                line.split_once("serving http://")?.1.strip_suffix("/metrics")?.parse().ok()
            })
            .unwrap_or_else(|error| panic!("the daemon serves: {error}"));
        Ok(Self { child, addr })
    }

    pub fn metrics(&self) -> String {
        let (status, _, body) = http_get(self.addr, "/metrics/app").expect("a scrape");
        assert_eq!(status, 200);
        String::from_utf8(body).expect("UTF-8")
    }

    /// A scrape, once the daemon has processed every record of what was done so far: none waits in the ring, and what was
    /// counted until then is the same a moment later.
    pub fn settled(&self) -> String {
        let counted = |text: &str| {
            let names =
                ["rustok_obsd_database_operations_total{", "rustok_http_requests_total{", "rustok_obsd_records_total{"];
            text.lines().filter(|line| names.iter().any(|name| line.starts_with(name))).collect::<Vec<_>>().join("\n")
        };
        let (mut last, mut text) = (None, String::new());
        let settled = wait_until(LONG_PATIENCE, || {
            text = self.metrics();
            let now = Some(counted(&text)).filter(|_| value(&text, "rustok_obsd_records_waiting") == Some(0.0));
            let same = now.is_some() && now == last;
            last = now;
            same.then_some(())
        });
        assert!(settled.is_some(), "the records are never all processed: {text}");
        text
    }

    /// Waits until so many processes are observed; the reason if the daemon cannot observe anything here.
    pub fn wait_for_targets(&self, wanted: u64) -> Result<(), Skip> {
        let (status, _, body) = http_get(self.addr, "/readyz").expect("readiness");
        if status != 200 {
            return Err(Skip::new(String::from_utf8_lossy(&body).trim().to_owned()));
        }
        wait_until(LONG_PATIENCE, || {
            (value(&self.metrics(), "rustok_obsd_targets") == Some(wanted as f64)).then_some(())
        })
        .unwrap_or_else(|| panic!("{wanted} targets: {}", self.child.log_tail()));
        Ok(())
    }
}

/// The value of one series, by its whole name with labels.
pub fn value(text: &str, series: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

/// `rustok_http_requests_total` of an exposition.
pub fn requests(text: &str) -> Counts {
    let mut counts = Counts::new();
    for line in text.lines() {
        let Some(rest) = line.strip_prefix("rustok_http_requests_total{method=\"") else { continue };
        let (method, rest) = rest.split_once("\",path=\"").expect("a path");
        let (path, rest) = rest.split_once("\",status=\"").expect("a status");
        let (status, count) = rest.split_once("\"} ").expect("a value");
        let count = count.parse().expect("a whole number");
        assert!(counts.insert((path.into(), method.into(), status.into()), count).is_none(), "{line} is there twice");
    }
    counts
}

/// What the server says that it answered; `gone`: requests whose client left, by the client's own account.
fn expected(truth: &[Request], gone: &HashSet<String>) -> Counts {
    let mut counts = Counts::new();
    for request in truth {
        let left = request.aborted || request.client_id.as_ref().is_some_and(|id| gone.contains(id));
        let status = if left { "499".into() } else { request.status.map_or("000".into(), |status| status.to_string()) };
        *counts.entry((request.label().into(), request.method.clone(), status)).or_default() += 1;
    }
    counts
}

/// Differences, one a line. A client that left may have been answered whole, or not even been read: for these the total
/// is bounded by what both sides know.
fn differences(ours: &Counts, truth: &[Request], gone: &HashSet<String>) -> Vec<String> {
    let expected = expected(truth, gone);
    let mut differences = Vec::new();
    let keys: HashSet<_> = ours.keys().chain(expected.keys()).collect();
    let tolerated: BTreeMap<(&str, &str), u64> = truth
        .iter()
        .filter(|request| request.aborted || request.client_id.as_ref().is_some_and(|id| gone.contains(id)))
        .fold(BTreeMap::new(), |mut counts, request| {
            *counts.entry((request.label(), request.method.as_str())).or_default() += 1;
            counts
        });
    let seen: HashSet<&str> = truth.iter().filter_map(|request| request.client_id.as_deref()).collect();
    let unread = gone.iter().filter(|id| !seen.contains(id.as_str())).count() as u64;
    for key in keys {
        let (we, they) = (ours.get(key).copied().unwrap_or(0), expected.get(key).copied().unwrap_or(0));
        let slack = if key.0 == "~unmatched" && key.2 == "499" {
            unread
        } else {
            tolerated.get(&(key.0.as_str(), key.1.as_str())).copied().unwrap_or(0)
        };
        if we.abs_diff(they) > slack {
            differences.push(format!("{key:?}: {we} counted, {they} by the server's account"));
        }
    }
    let total = |counts: &Counts| counts.values().sum::<u64>();
    if !(total(&expected)..=total(&expected) + unread).contains(&total(ours)) {
        differences.push(format!(
            "{} in all, {} by the server's account, {unread} unread",
            total(ours),
            total(&expected)
        ));
    }
    differences
}

#[test]
fn every_request_is_counted_and_traced_with_its_route_and_status() {
    let name = "every_request_is_counted_and_traced_with_its_route_and_status";
    if let Err(reason) = run(name) {
        skip(name, reason);
    }
}

fn run(name: &str) -> Result<(), Skip> {
    let _alone = super::serial();
    let mut scene = Scene::start(Tls::On)?;
    let jaeger = Jaeger::start().map_err(|reason| skip(&format!("{name} (Jaeger)"), reason)).ok();
    let service = "shop-under-test";
    let mut variables = vec![("OTEL_SERVICE_NAME", service.to_owned())];
    if let Some(jaeger) = &jaeger {
        variables.push(("OTEL_EXPORTER_OTLP_ENDPOINT", jaeger.otlp_grpc()));
        variables.push(("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc".into()));
        variables.push(("OTEL_BSP_MAX_QUEUE_SIZE", "65536".into()));
        variables.push(("OTEL_BSP_SCHEDULE_DELAY", "500".into()));
    }
    let variables: Vec<(&str, &str)> = variables.iter().map(|(key, value)| (*key, value.as_str())).collect();
    let mut daemon = Daemon::start(&["--pid", &scene.shop.id().to_string()], &variables)?;
    daemon.wait_for_targets(1)?;
    let prometheus = daemon.prometheus().map_err(|reason| skip(&format!("{name} (Prometheus)"), reason)).ok();

    assert_counted_while_active(&daemon, &scene);
    let summary = scene.load(&["--requests", "8000", "--concurrency", "64", "--seed", "17"])?;
    let truth = scene.finish();
    let gone: HashSet<String> =
        scene.client_log().into_iter().filter(|sent| sent.aborted).map(|sent| sent.id).collect();
    assert!(truth.len() >= 8000 && summary["errors"] == 0, "{summary}");

    // Counts: to the last one.
    let mut last = Vec::new();
    wait_until(LONG_PATIENCE, || {
        last = differences(&requests(&daemon.metrics()), &truth, &gone);
        last.is_empty().then_some(())
    });
    assert!(last.is_empty(), "{}\n{}", last.join("\n"), daemon.metrics());
    let text = daemon.metrics();
    let ours = requests(&text);
    let total: u64 = ours.values().sum();
    for lost in ["ring_full", "socket_map_full", "malformed", "unknown_connection"] {
        assert_eq!(value(&text, &format!("rustok_obsd_records_lost_total{{reason=\"{lost}\"}}")), Some(0.0), "{lost}");
    }
    assert_same_under_every_name(&text, &ours, service);
    match promtool_check_metrics(&text) {
        Ok(said) => {
            // The semantic conventions' own name.
            let excused = |line: &&str| !line.starts_with("db_client_connection_count non-histogram");
            let said: Vec<&str> = said.lines().filter(excused).collect();
            assert!(said.is_empty(), "promtool complains: {said:?}");
        }
        Err(reason) => skip(&format!("{name} (promtool)"), reason),
    }

    if let Some(prometheus) = prometheus {
        let sum = wait_until(LONG_PATIENCE, || {
            let sum = prometheus.query("sum(rustok_http_requests_total)");
            (number(&sum) == Some(total as f64)).then_some(())
        });
        assert!(sum.is_some(), "Prometheus has {}", prometheus.query("sum(rustok_http_requests_total)"));
        let p99 =
            prometheus.query("histogram_quantile(0.99, sum by (le) (rustok_http_request_duration_seconds_bucket))");
        assert!(number(&p99).is_some_and(|p99| p99 > 0.0 && p99 < 10.0), "{p99}");
        assert_dashboard_has_data(&prometheus, &daemon.metrics(), false);
    }
    if let Some(jaeger) = jaeger {
        assert_traced(&daemon, &jaeger, service, &ours);
    }
    let status = daemon.child.stop(libc::SIGTERM, Duration::from_secs(4)).expect("SIGTERM ends it within 3 s");
    assert!(status.success(), "{status}: {}", daemon.child.log_tail());
    Ok(())
}

/// Every expression of the shipped dashboard returns data, if the daemon exports what it names: an error that never
/// happened has no series. With `databases`, every one that names a family of databases does.
pub fn assert_dashboard_has_data(prometheus: &Prometheus, metrics: &str, databases: bool) {
    let families = [
        "rustok_database_",
        "db_client_",
        "rustok_obsd_statement_",
        "rustok_obsd_database_",
        "rustok_obsd_http_request_",
        "rustok_obsd_repeated_",
        "rustok_errors_",
    ];
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    // Each selector begins with the label `job`.
    let exported = |expression: &str| {
        let names = expression.match_indices("{job=").map(|(at, _)| expression[..at].rsplit(|c| !is_word(c)).next());
        names.flatten().all(|name| {
            metrics.lines().any(|line| line.strip_prefix(name).is_some_and(|rest| !rest.starts_with(is_word)))
        })
    };
    let board: Value =
        serde_json::from_str(include_str!("../../../grafana/dashboards/rustok-overview.json")).expect("JSON");
    let panels = board["panels"].as_array().expect("panels");
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let (mut expressions, mut of_databases) = (0, 0);
    for target in targets {
        let expression = target["expr"].as_str().expect("an expression");
        // What Grafana puts in: the test's Prometheus scrapes each second.
        let filled = expression.replace("$job", "test").replace("$__rate_interval", "1m").replace("$__range", "5m");
        assert!(!filled.contains('$'), "{filled}");
        let is_of_databases = families.iter().any(|family| expression.contains(family));
        if !exported(expression) {
            assert!(!(databases && is_of_databases), "not exported: {filled}\n{metrics}");
            continue;
        }
        let data = || prometheus.query(&filled).as_array().is_some_and(|result| !result.is_empty()).then_some(());
        assert!(wait_until(LONG_PATIENCE, data).is_some(), "no data: {filled}");
        expressions += 1;
        of_databases += usize::from(is_of_databases);
    }
    assert!(expressions > 10 && (!databases || of_databases > 15), "{expressions}, {of_databases} of databases");
}

fn number(result: &Value) -> Option<f64> {
    result[0]["value"][1].as_str()?.parse().ok()
}

/// A request in flight, and its connection, are in the gauges while they last.
fn assert_counted_while_active(daemon: &Daemon, scene: &Scene) {
    // Its answer waits for the rest of its body.
    let mut client = TcpStream::connect(("127.0.0.1", scene.port())).expect("connect");
    client
        .write_all(b"POST /api/upload HTTP/1.1\r\nhost: e2e\r\ncontent-length: 8\r\nconnection: close\r\n\r\nhalf")
        .expect("send");
    let active = "http_server_active_requests{service_name=\"shop-under-test\",http_request_method=\"POST\",url_scheme=\"http\"}";
    let both = |text: &str, wanted: f64| {
        value(text, active) == Some(wanted) && value(text, "rustok_http_active_connections") == Some(wanted)
    };
    let seen = wait_until(LONG_PATIENCE, || both(&daemon.metrics(), 1.0).then_some(()));
    assert!(seen.is_some(), "{}", daemon.metrics());
    client.write_all(b"rest").expect("send");
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let gone = wait_until(LONG_PATIENCE, || both(&daemon.metrics(), 0.0).then_some(()));
    assert!(gone.is_some(), "{}", daemon.metrics());
}

/// RusToK's and OpenTelemetry's families come from one observation: they agree to the last one.
fn assert_same_under_every_name(text: &str, ours: &Counts, service: &str) {
    let total: u64 = ours.values().sum();
    let sum = |prefix: &str| -> f64 {
        let lines = text.lines().filter(|line| line.starts_with(prefix));
        lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    };
    assert_eq!(sum("rustok_http_request_duration_seconds_count{"), total as f64);
    assert_eq!(sum("rustok_http_request_size_bytes_count{"), total as f64);
    assert_eq!(sum(&format!("http_server_request_duration_seconds_count{{service_name=\"{service}\"")), total as f64);
    assert_eq!(sum("http_server_active_requests{"), 0.0, "nothing is in flight");
    assert_eq!(value(text, "rustok_http_active_connections"), Some(0.0), "nothing is connected");
}

/// Every exchange is a server span in Jaeger, by route, method and status; an exemplar leads to its trace.
fn assert_traced(daemon: &Daemon, jaeger: &Jaeger, service: &str, ours: &Counts) {
    let total: u64 = ours.values().sum();
    let exported = || value(&daemon.metrics(), "rustok_obsd_spans_total{result=\"exported\"}").unwrap_or(0.0) as u64;
    let arrived = wait_until(LONG_PATIENCE, || (exported() >= total).then_some(()));
    assert!(arrived.is_some(), "{} of {total} spans exported: {}", exported(), daemon.child.log_tail());
    let mut spans = Counts::new();
    wait_until(LONG_PATIENCE, || {
        spans = server_spans(&jaeger.traces(service, 50_000));
        (spans.values().sum::<u64>() >= total).then_some(())
    });
    // A span has the status that was on the wire; the label 499 is of our metrics.
    let on_wire = |counts: &Counts| {
        let mut sums = Counts::new();
        for ((route, method, status), count) in counts {
            let status = if matches!(status.as_str(), "499" | "000") { String::new() } else { status.clone() };
            *sums.entry((route.clone(), method.clone(), status)).or_default() += count;
        }
        sums
    };
    let (ours, theirs) = (on_wire(ours), on_wire(&spans));
    let wrong: Vec<_> = ours
        .iter()
        .filter(|(key, count)| {
            // A response that was cut has its status in the span.
            let slack: u64 = if key.2.is_empty() {
                **count
            } else {
                ours.get(&(key.0.clone(), key.1.clone(), String::new())).copied().unwrap_or(0)
            };
            theirs.get(key).copied().unwrap_or(0).abs_diff(**count) > slack
        })
        .collect();
    assert!(wrong.is_empty(), "not so in Jaeger: {wrong:?}");
    assert_eq!(theirs.values().sum::<u64>(), total, "every exchange is one span");

    let (status, headers, body) =
        http_get_with(daemon.addr, "/metrics/app", &[("accept", "application/openmetrics-text; version=1.0.0")])
            .expect("a scrape");
    assert_eq!(status, 200);
    assert!(
        headers.iter().any(|(name, value)| name == "content-type" && value.starts_with("application/openmetrics-text"))
    );
    let text = String::from_utf8(body).expect("UTF-8");
    let exemplar = text.split_once("# {trace_id=\"").expect("an exemplar").1.get(..32).expect("a trace id");
    assert!(jaeger.trace(exemplar)[0]["spans"].as_array().is_some_and(|spans| !spans.is_empty()), "trace {exemplar}");
}

/// Server spans by route, method and status.
fn server_spans(traces: &Value) -> Counts {
    let mut counts = Counts::new();
    for span in
        traces.as_array().into_iter().flatten().flat_map(|trace| trace["spans"].as_array().into_iter().flatten())
    {
        let tag = |key: &str| {
            let tags = span["tags"].as_array()?;
            let tag = tags.iter().find(|tag| tag["key"] == key)?;
            Some(tag["value"].as_str().map_or_else(|| tag["value"].to_string(), str::to_owned))
        };
        if tag("span.kind").as_deref() != Some("server") {
            continue;
        }
        let route = tag("http.route").unwrap_or_else(|| "~unmatched".into());
        let method = tag("http.request.method").expect("a method");
        let status = tag("http.response.status_code").unwrap_or_default();
        *counts.entry((route, method, status)).or_default() += 1;
    }
    counts
}
