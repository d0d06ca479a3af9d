//! What is answered to whom asks properly.

use crate::running::{GAUGE, Gate, Running, Samples, one_answer};
use rustok_obsd::contract::Family;
use rustok_obsd::exposition::server::Limits;
use rustok_obsd::exposition::{Collect, Encoder, Exposition, Part};
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

struct Panics;

impl Collect for Panics {
    fn collect(&self, _: &mut Encoder<'_>) {
        panic!("a collector's bug");
    }
}

const OPENMETRICS: &str = "Accept: application/openmetrics-text; version=1.0.0\r\n";

#[test]
fn metrics_come_in_the_format_and_coding_that_the_client_asks_for() {
    let server = Running::start(Arc::new(Samples(3)), Limits::default());
    let text = server.get("/metrics", "");
    assert_eq!(text.status, 200);
    assert_eq!(text.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert_eq!(text.header("vary"), Some("accept, accept-encoding"));
    assert_eq!(text.header("content-length"), Some(text.body.len().to_string().as_str()));
    assert!(
        text.text()
            .starts_with("# HELP test_gauge A gauge of the test.\n# TYPE test_gauge gauge\ntest_gauge{i=\"0\"} 0\n")
    );
    let openmetrics = server.get("/metrics", OPENMETRICS);
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!(openmetrics.header("content-type"), Some(content_type));
    assert!(openmetrics.text().ends_with("# EOF\n"));
    let gzip = server.get("/metrics", &format!("{OPENMETRICS}Accept-Encoding: gzip\r\n"));
    assert_eq!((gzip.header("content-type"), gzip.header("content-encoding")), (Some(content_type), Some("gzip")));
    let mut plain = String::new();
    flate2::read::GzDecoder::new(gzip.body.as_slice()).read_to_string(&mut plain).unwrap();
    assert!(plain.starts_with("# HELP test_gauge") && plain.ends_with("# EOF\n"));
    assert!(plain.contains("rustok_obsd_scrapes_total{result=\"ok\"} 2\n"));
    assert_eq!(server.get("/metrics", "Accept-Encoding: gzip;q=0\r\n").header("content-encoding"), None);
}

#[test]
fn health_status_and_index_answer_and_the_rest_is_refused() {
    let server = Running::start(Arc::new(Samples(1)), Limits::default());
    assert_eq!(server.get("/healthz", "").status, 200);
    let waiting = server.get("/readyz", "");
    assert_eq!((waiting.status, waiting.text()), (503, "not ready: no target yet\n"));
    server.health.0.store(true, Ordering::Relaxed);
    assert_eq!(server.get("/readyz", "").status, 200);
    let status = server.get("/status", "");
    assert_eq!(status.header("content-type"), Some("application/json"));
    let json: serde_json::Value = serde_json::from_slice(&status.body).unwrap();
    assert_eq!(json["targets"][0]["exe"], "shop");
    let index = server.get("/", "");
    for path in ["metrics", "status", "readyz", "healthz"] {
        assert!(index.text().contains(&format!("<a href={path}>")), "{path}");
    }
    assert_eq!(server.get("/nothing", "").status, 404);
    let head = server.ask("HEAD /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_ne!(head.header("content-length"), Some("0"));
    let post =
        server.ask("POST /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    assert_eq!((post.status, post.header("allow")), (405, Some("get,head")));
    assert_eq!(server.ask("nonsense\r\n\r\n").status, 400);
}

#[test]
fn one_connection_serves_many_scrapes() {
    let server = Running::start(Arc::new(Samples(1000)), Limits::default());
    let mut stream = server.connect();
    for _ in 0..20 {
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        assert_eq!(one_answer(&mut stream).status, 200);
    }
}

#[test]
fn scrapes_beyond_the_limit_get_503_and_are_counted_while_the_rest_is_served() {
    let gate = Arc::new(Gate::default());
    let limits = Limits { scrapes: 2, scrape_wait: Duration::from_millis(50), ..Limits::default() };
    let server = Running::start(gate.clone(), limits);
    std::thread::scope(|scope| {
        let held: Vec<_> = (0..2).map(|_| scope.spawn(|| server.get("/metrics", ""))).collect();
        while gate.waiting.load(Ordering::SeqCst) < 2 {
            std::thread::yield_now();
        }
        let refused = server.get("/metrics", "");
        assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
        assert_eq!(server.get("/healthz", "").status, 200);
        gate.open();
        for held in held {
            assert_eq!(held.join().unwrap().status, 200);
        }
    });
    assert!(server.get("/metrics", "").text().contains("rustok_obsd_scrapes_total{result=\"busy\"} 1\n"));
}

#[test]
fn many_scrapes_at_once_are_each_whole_or_refused() {
    let server = Running::start(Arc::new(Samples(5000)), Limits::default());
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                for _ in 0..10 {
                    let answer = server.get("/metrics", OPENMETRICS);
                    let whole = answer.status == 200 && answer.text().ends_with("# EOF\n");
                    assert!(whole || answer.status == 503, "{}", answer.head);
                }
            });
        }
    });
}

#[test]
fn a_collector_that_panics_costs_its_scrape_only() {
    let server = Running::start(Arc::new(Panics), Limits::default());
    assert_eq!(server.get("/metrics", "").status, 500);
    assert_eq!(server.get("/healthz", "").status, 200);
}

/// One family of a part, and a name for `collect[]`.
struct Named(&'static str, &'static [&'static str]);

impl Collect for Named {
    fn collect(&self, out: &mut Encoder<'_>) {
        let wanted = self.1.iter().any(|name| out.scrape().wants(name)) || self.1.is_empty();
        if wanted {
            out.family(&Family { name: self.0, labels: &[], ..GAUGE }).put([], 1_u64);
        }
    }

    fn names(&self) -> Vec<&'static str> {
        self.1.to_vec()
    }
}

#[test]
fn each_part_has_a_path_of_its_own_and_collectors_are_chosen_by_the_query() {
    let exposition = Arc::new(Exposition::new());
    for (part, name, collectors) in [
        (Part::App, "app", &[][..]),
        (Part::Node, "cpu", &["cpu"]),
        (Part::Node, "mem", &["mem"]),
        (Part::Cadvisor, "containers", &[]),
        (Part::Process, "groups", &[]),
        (Part::Itself, "self", &[]),
    ] {
        exposition.register(part, Arc::new(Named(name, collectors)));
    }
    let mut running = Running::serve(exposition, Limits::default());
    let families = |path: &str| {
        let answer = running.get(path, "");
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        let text = String::from_utf8(answer.body).unwrap();
        let names = text.lines().filter_map(|line| line.strip_suffix(" 1").filter(|name| !name.contains(['_', '{'])));
        names.map(str::to_owned).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(families("/metrics"), "app cpu mem containers groups self");
    assert_eq!(families("/metrics/node"), "cpu mem self");
    assert_eq!(families("/metrics/cadvisor"), "containers self");
    assert_eq!(families("/metrics/process"), "groups self");
    assert_eq!(families("/metrics/app"), "app self");
    assert_eq!(families("/metrics/node?collect[]=cpu"), "cpu self");
    assert_eq!(families("/metrics?collect%5B%5D=mem&collect[]=process"), "mem groups self");
    assert_eq!(families("/metrics?exclude[]=cpu&exclude[]=cadvisor"), "app mem groups self");
    for (query, part) in
        [("collect[]=disk", "app, cadvisor, cpu, mem, process"), ("collect[]=cpu&exclude[]=mem", "exclude each other")]
    {
        let answer = running.get(&format!("/metrics/node?{query}"), "");
        assert_eq!(answer.status, 400, "{query}");
        assert!(String::from_utf8_lossy(&answer.body).contains(part), "{answer:?}");
    }
    assert_eq!(running.get("/metrics/other", "").status, 404);
    running.stop();
}

#[test]
fn samples_beyond_the_limit_are_left_out_and_counted() {
    let mut running = Running::start(Arc::new(Samples(500)), Limits { samples: 100, ..Limits::default() });
    let count = |text: &str| text.lines().filter(|line| line.starts_with("test_gauge{")).count();
    let first = String::from_utf8(running.get("/metrics", "").body).unwrap();
    assert_eq!(count(&first), 100);
    assert!(first.contains("\nrustok_obsd_samples_over_limit_total 400\n"), "{first}");
    let second = String::from_utf8(running.get("/metrics", "").body).unwrap();
    assert!(second.contains("\nrustok_obsd_samples_over_limit_total 800\n"), "{second}");
    running.stop();
}
