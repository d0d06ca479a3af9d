//! The HTTP recorder as a scrape sees it.

use super::recorder::{Behind, Exemplar, HttpRecorder, Limits, TargetKey, TargetLabels};
use super::series::{HttpMetrics, METHODS, SOURCES, source_index};
use crate::exchange::{Exchange, Method, Outcome, Side};
use crate::exposition::parse::{Parsed, parse};
use crate::exposition::{Format, to_text};
use crate::route::{Route, Source};

mod load;

const A: TargetKey = TargetKey(7);
const B: TargetKey = TargetKey(8);

fn exchange(side: Side, method: Method, status: u16, outcome: Outcome, duration_ns: u64) -> Exchange<'static> {
    Exchange {
        side,
        task: 1,
        tid: 1,
        start_ns: 1_000,
        first_io_ns: 1_000,
        request_end_ns: 1_000,
        response_start_ns: 1_000,
        end_ns: 1_000 + duration_ns,
        method,
        path: b"/api/content/nodes/1",
        host: b"example.com:8080",
        version: 1,
        status,
        outcome,
        request_bytes: 200,
        response_bytes: 900,
        request_body: 100,
        response_body: 700,
        traceparent: None,
        route: None,
        awaited: None,
        routes_exact: true,
        told: false,
        id: 1,
        spent: None,
        ids: crate::trace::Decision::Undecided,
        tenant: b"",
        headers: crate::exchange::Headers::default(),
    }
}

fn server(method: Method, status: u16, duration_ns: u64) -> Exchange<'static> {
    exchange(Side::Server, method, status, Outcome::Complete, duration_ns)
}

fn route(template: &str, source: Source) -> Route {
    Route { template: template.into(), source }
}

fn labels(name: &str, version: &str) -> TargetLabels {
    TargetLabels { service_name: name.into(), service_version: version.into(), ..TargetLabels::default() }
}

fn scrape(metrics: &HttpMetrics) -> Parsed {
    let parsed = parse(&to_text(metrics, Format::OpenMetrics), true);
    parsed.check();
    parsed
}

/// Writes into every HTTP family.
pub(crate) fn fill(recorder: &mut HttpRecorder) {
    recorder.register_target(A, labels("shop", "1.0"));
    recorder.connection_opened(A);
    recorder.request_started(A, Method::Get);
    let node = route("/api/content/nodes/{id}", Source::Axum);
    let trace = Exemplar { trace_id: [1; 16], span_id: [2; 8] };
    recorder.observe(A, &server(Method::Get, 200, 700_000), &node, Some(trace));
    recorder.observe(A, &exchange(Side::Client, Method::Post, 503, Outcome::Complete, 2_000_000), &node, None);
}

#[test]
fn methods_and_sources_are_listed_in_the_order_of_their_variants() {
    for (index, method) in METHODS.into_iter().enumerate() {
        assert_eq!(method as usize, index, "{}", method.as_str());
    }
    let sources = [Source::Axum, Source::Pattern, Source::Learned, Source::Unmatched, Source::Overflow];
    for (source, text) in sources.into_iter().zip(SOURCES) {
        assert_eq!(SOURCES[source_index(source)], text);
        assert_eq!(format!("{source:?}").to_lowercase(), text);
    }
}

#[test]
fn rustok_families_have_exactly_their_labels_and_sum_over_targets() {
    let (mut recorder, metrics) = HttpRecorder::new(Limits::default());
    recorder.register_target(A, labels("shop", "1"));
    recorder.register_target(B, labels("blog", "1"));
    let node = route("/nodes/{id}", Source::Axum);
    let same_text = route("/nodes/{id}", Source::Pattern);
    recorder.observe(A, &server(Method::Get, 200, 5_000_000), &node, None);
    recorder.observe(B, &server(Method::Get, 200, 5_000_001), &same_text, None);
    recorder.observe(A, &server(Method::Get, 404, 1), &node, None);
    let parsed = scrape(&metrics);
    let requests: Vec<_> = parsed.find("rustok_http_requests_total", &[]).collect();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0].labels.keys().collect::<Vec<_>>(), ["method", "path", "status"]);
    let ok = [("method", "GET"), ("path", "/nodes/{id}"), ("status", "200")];
    assert_eq!(parsed.sum("rustok_http_requests_total", &ok), 2.0);
    let durations: Vec<_> = parsed.find("rustok_http_request_duration_seconds_count", &[]).collect();
    assert_eq!(durations.len(), 1);
    assert_eq!(durations[0].value, 3.0);
    assert_eq!(durations[0].labels.keys().collect::<Vec<_>>(), ["method", "path"]);
    assert_eq!(parsed.sum("rustok_http_request_duration_seconds_sum", &[]), 0.010_000_002);
    assert_eq!(parsed.sum("rustok_http_request_duration_seconds_bucket", &[("le", "0.005")]), 2.0);
    assert_eq!(parsed.sum("rustok_http_request_duration_seconds_bucket", &[("le", "0.01")]), 3.0);
    let size = parsed.find("rustok_http_request_size_bytes_count", &[]).next().unwrap();
    assert_eq!(size.labels.keys().collect::<Vec<_>>(), ["endpoint", "method"]);
    assert_eq!(parsed.sum("rustok_http_request_size_bytes_bucket", &[("le", "100.0")]), 3.0);
    assert_eq!(parsed.sum("rustok_http_response_size_bytes_sum", &[]), 2_100.0);
    assert_eq!(parsed.sum("http_server_request_duration_seconds_count", &[("service_name", "shop")]), 2.0);
    assert_eq!(parsed.sum("http_server_request_duration_seconds_count", &[("service_name", "blog")]), 1.0);
}

#[test]
fn statuses_and_errors_are_labelled_as_documented() {
    let node = route("/x", Source::Axum);
    for (side, status, outcome, rustok, code, error) in [
        (Side::Server, 200, Outcome::Complete, "200", Some("200"), None),
        (Side::Server, 404, Outcome::Complete, "404", Some("404"), None),
        (Side::Server, 500, Outcome::Complete, "500", Some("500"), Some("500")),
        (Side::Server, 101, Outcome::Upgraded, "101", Some("101"), None),
        (Side::Server, 200, Outcome::ClientAborted, "499", Some("200"), Some("client_aborted")),
        (Side::Server, 0, Outcome::ClientAborted, "499", None, Some("client_aborted")),
        (Side::Server, 0, Outcome::Incomplete, "000", None, Some("incomplete")),
        (Side::Server, 0, Outcome::Complete, "000", None, None),
        (Side::Client, 404, Outcome::Complete, "", Some("404"), Some("404")),
        (Side::Client, 0, Outcome::ClientAborted, "", None, Some("connection_closed")),
    ] {
        let (mut recorder, metrics) = HttpRecorder::new(Limits::default());
        recorder.register_target(A, labels("shop", ""));
        recorder.observe(A, &exchange(side, Method::Get, status, outcome, 1), &node, None);
        let parsed = scrape(&metrics);
        let otel = match side {
            Side::Server => {
                assert_eq!(
                    parsed.sum("rustok_http_requests_total", &[("status", rustok)]),
                    1.0,
                    "{status} {outcome:?}"
                );
                parsed.find("http_server_request_duration_seconds_count", &[]).next().unwrap()
            }
            Side::Client => {
                assert_eq!(parsed.find("rustok_http_requests_total", &[]).count(), 0);
                const PEER: &[(&str, &str)] = &[("server_address", "example.com"), ("server_port", "8080")];
                parsed.find("http_client_request_duration_seconds_count", PEER).next().unwrap()
            }
        };
        let label = |name: &str| otel.labels.get(name).map(String::as_str);
        assert_eq!(
            (label("http_response_status_code"), label("error_type")),
            (code, error),
            "{side:?} {status} {outcome:?}"
        );
    }
}

#[test]
fn an_unmatched_route_has_a_path_for_rustok_and_no_http_route() {
    let (mut recorder, metrics) = HttpRecorder::new(Limits::default());
    recorder.register_target(A, labels("shop", ""));
    recorder.observe(A, &server(Method::Get, 404, 1), &route("~unmatched", Source::Unmatched), None);
    let parsed = scrape(&metrics);
    assert_eq!(parsed.sum("rustok_http_requests_total", &[("path", "~unmatched")]), 1.0);
    let otel = parsed.find("http_server_request_duration_seconds_count", &[]).next().unwrap();
    assert!(!otel.labels.contains_key("http_route"));
    assert_eq!(parsed.sum("rustok_obsd_routes", &[("source", "unmatched")]), 1.0);
}

#[test]
fn counters_never_fall_when_a_target_ends_and_comes_back() {
    let (mut recorder, metrics) = HttpRecorder::new(Limits::default());
    let node = route("/x", Source::Axum);
    for (round, key) in [A, B, A].into_iter().enumerate() {
        recorder.register_target(key, labels("shop", if round == 0 { "1" } else { "2" }));
        recorder.connection_opened(key);
        recorder.connection_opened(key);
        recorder.connection_closed(key);
        recorder.request_started(key, Method::Get);
        recorder.observe(key, &server(Method::Get, 200, 1), &node, None);
        let parsed = scrape(&metrics);
        assert_eq!(parsed.sum("rustok_http_requests_total", &[]), (round + 1) as f64);
        assert_eq!(
            parsed.find("http_server_request_duration_seconds_count", &[]).count(),
            1,
            "one service, one series"
        );
        assert_eq!(parsed.sum("rustok_http_active_connections", &[]), 1.0);
        assert_eq!(parsed.sum("http_server_active_requests", &[]), 1.0);
        assert_eq!(parsed.sum("target_info", &[("service_version", if round == 0 { "1" } else { "2" })]), 1.0);
        assert_eq!(parsed.sum("rustok_obsd_targets", &[]), 1.0);
        recorder.retire_target(key);
        let parsed = scrape(&metrics);
        assert_eq!(parsed.sum("rustok_http_requests_total", &[]), (round + 1) as f64);
        assert_eq!(parsed.sum("rustok_http_active_connections", &[]), 0.0);
        assert_eq!(parsed.sum("http_server_active_requests", &[]), 0.0);
        assert_eq!(parsed.find("target_info", &[]).count(), 0);
    }
}

#[test]
fn a_key_that_is_given_to_another_service_takes_no_shortcut_to_the_first() {
    let (mut recorder, metrics) = HttpRecorder::new(Limits::default());
    let node = route("/x", Source::Axum);
    recorder.observe(A, &server(Method::Get, 200, 1), &node, None);
    for service in ["shop", "blog"] {
        recorder.register_target(A, labels(service, ""));
        recorder.observe(A, &server(Method::Get, 200, 1), &node, None);
    }
    let parsed = scrape(&metrics);
    for service in ["unknown_service", "shop", "blog"] {
        let count = parsed.sum("http_server_request_duration_seconds_count", &[("service_name", service)]);
        assert_eq!(count, 1.0, "{service}");
    }
}

#[test]
fn an_exemplar_stands_at_the_bucket_of_its_observation_in_both_names() {
    let (mut recorder, metrics) = HttpRecorder::new(Limits::default());
    recorder.register_target(A, labels("shop", ""));
    let node = route("/x", Source::Axum);
    let traced = |id| Some(Exemplar { trace_id: [id; 16], span_id: [id; 8] });
    recorder.observe(A, &server(Method::Get, 200, 700_000), &node, traced(1));
    recorder.observe(A, &server(Method::Get, 200, 800_000), &node, traced(2));
    recorder.observe(A, &server(Method::Get, 500, 60_000_000_000), &node, traced(3));
    recorder.observe(A, &server(Method::Get, 200, 900_000), &node, None);
    let parsed = scrape(&metrics);
    for (name, buckets) in
        [("http_server_request_duration_seconds_bucket", 36), ("rustok_http_request_duration_seconds_bucket", 18)]
    {
        assert_eq!(parsed.find(name, &[]).count(), buckets);
        let found: Vec<_> = parsed.find(name, &[]).filter(|sample| sample.exemplar.is_some()).collect();
        assert_eq!(found.len(), 2, "{name}");
        for (sample, le, id, value) in [(found[0], "0.001", "02", 0.0008), (found[1], "+Inf", "03", 60.0)] {
            let (labels, exemplar, time) = sample.exemplar.as_ref().unwrap();
            assert_eq!((sample.labels["le"].as_str(), *exemplar), (le, value));
            assert_eq!(
                (labels["trace_id"].as_str(), labels["span_id"].as_str()),
                (id.repeat(16).as_str(), id.repeat(8).as_str())
            );
            // The exchange ended just after boot.
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
            assert!(*time > 1e9 && *time < now, "{time}");
        }
    }
    let error = parsed.find("rustok_http_requests_total", &[("status", "500")]).next().unwrap();
    assert_eq!(error.exemplar.as_ref().unwrap().0["trace_id"], "03".repeat(16));
    assert!(!to_text(&*metrics, Format::Text).contains(" # {"), "text format 0.0.4 has no exemplars");
}
