//! The span of every kind of exchange.

use super::record::Record;
use super::span::{scope, span};
use super::*;
use crate::exchange::{Method, Outcome, Side, TraceParent};
use crate::route::Source;
use opentelemetry::Value;
use opentelemetry::trace::{SpanId, SpanKind, Status};
use opentelemetry_sdk::trace::SpanData;

fn exchange() -> Exchange<'static> {
    Exchange {
        side: Side::Server,
        task: 77,
        tid: 4242,
        start_ns: 1_000_000,
        first_io_ns: 1_100_000,
        request_end_ns: 1_100_000,
        response_start_ns: 3_000_000,
        end_ns: 3_500_000,
        method: Method::Get,
        path: b"/api/orders/42",
        host: b"shop.example:8080",
        version: 1,
        status: 200,
        outcome: Outcome::Complete,
        request_bytes: 120,
        response_bytes: 300,
        request_body: 0,
        response_body: 180,
        traceparent: None,
        route: None,
        routes_exact: true,
        told: false,
        id: 1,
        spent: None,
        ids: None,
    }
}

fn addresses() -> Addresses {
    Addresses { local: "10.0.0.1:3000".parse().unwrap(), remote: "[::ffff:10.0.0.2]:5555".parse().unwrap() }
}

fn spanned(exchange: &Exchange<'_>, route: Option<(&str, Source)>, keep_path: bool) -> SpanData {
    let ids = TraceIds { trace_id: [7; 16], span_id: [8; 8] };
    let route = route.map(|(template, source)| Route { template: template.into(), source });
    let host = HostCache::default().get(exchange.host);
    let resource = Arc::new(TargetResource::unknown());
    let record = Record::new(ids, resource, exchange, route.as_ref(), host, addresses(), keep_path);
    span(&record, &Clock::new(), &scope())
}

fn get(span: &SpanData, key: &str) -> Option<Value> {
    let found: Vec<_> = span.attributes.iter().filter(|pair| pair.key.as_str() == key).collect();
    assert!(found.len() < 2, "{key} twice");
    found.first().map(|pair| pair.value.clone())
}

#[test]
fn a_server_span_carries_the_conventions_attributes_and_nothing_raw() {
    let span = spanned(&exchange(), Some(("/api/orders/{id}", Source::Axum)), false);
    assert_eq!(span.name, "GET /api/orders/{id}");
    assert_eq!(span.span_kind, SpanKind::Server);
    assert_eq!(span.status, Status::Unset);
    assert_eq!(span.end_time.duration_since(span.start_time).unwrap(), Duration::from_micros(2500));
    assert_eq!((span.parent_span_id, span.parent_span_is_remote), (SpanId::INVALID, false));
    let expected: Vec<(&str, Value)> = vec![
        ("http.request.method", "GET".into()),
        ("url.scheme", "http".into()),
        ("http.route", "/api/orders/{id}".into()),
        (ROUTE_SOURCE, "axum".into()),
        ("http.response.status_code", 200.into()),
        ("server.address", "shop.example".into()),
        ("server.port", 8080.into()),
        ("client.address", "10.0.0.2".into()),
        ("network.peer.address", "10.0.0.2".into()),
        ("network.peer.port", 5555.into()),
        ("network.protocol.name", "http".into()),
        ("network.protocol.version", "1.1".into()),
        ("http.request.size", 120.into()),
        ("http.response.size", 300.into()),
        ("http.request.body.size", 0.into()),
        ("http.response.body.size", 180.into()),
        ("thread.id", 4242.into()),
        (TASK_ID, 77.into()),
    ];
    for (key, value) in &expected {
        assert_eq!(get(&span, key).as_ref(), Some(value), "{key}");
    }
    assert_eq!(span.attributes.len(), expected.len(), "{:?}", span.attributes);
}

#[test]
fn names_and_routes_follow_the_conventions() {
    for (method, route, name, kept) in [
        (Method::Post, Some(("/a", Source::Pattern)), "POST /a", Some("/a")),
        (Method::Post, Some(("/b/{id}", Source::Learned)), "POST /b/{id}", Some("/b/{id}")),
        (Method::Put, Some(("~other", Source::Overflow)), "PUT", None),
        (Method::Put, Some(("~unmatched", Source::Unmatched)), "PUT", None),
        (Method::Delete, None, "DELETE", None),
        (Method::Other, None, "HTTP", None),
        (Method::Other, Some(("/a", Source::Axum)), "HTTP /a", Some("/a")),
    ] {
        let span = spanned(&Exchange { method, ..exchange() }, route, false);
        assert_eq!(span.name, name);
        assert_eq!(get(&span, "http.route"), kept.map(|route| route.to_owned().into()), "{name}");
    }
    let span = spanned(&Exchange { method: Method::Other, ..exchange() }, None, false);
    assert_eq!(get(&span, "http.request.method"), Some("_OTHER".into()));
}

#[test]
fn errors_are_told_by_side_status_and_outcome() {
    use {Outcome::*, Side::*};
    for (side, status, outcome, error, told) in [
        (Server, 200, Complete, None, None),
        (Server, 404, Complete, None, None),
        (Server, 503, Complete, Some("503"), None),
        (Client, 302, Complete, None, None),
        (Client, 404, Complete, Some("404"), None),
        (Client, 500, Complete, Some("500"), None),
        (Server, 0, ClientAborted, Some("client_aborted"), Some("client_aborted")),
        (Server, 200, ClientAborted, Some("client_aborted"), Some("client_aborted")),
        (Client, 0, ClientAborted, Some("server_closed"), Some("server_closed")),
        (Server, 101, Upgraded, None, Some("upgraded")),
        (Server, 0, Incomplete, None, Some("incomplete")),
    ] {
        let span = spanned(&Exchange { side, status, outcome, ..exchange() }, None, false);
        let name = format!("{side:?} {status} {outcome:?}");
        assert_eq!(get(&span, "error.type"), error.map(Value::from), "{name}");
        assert_eq!(span.status, if error.is_some() { Status::error("") } else { Status::Unset }, "{name}");
        assert_eq!(get(&span, OUTCOME), told.map(Value::from), "{name}");
        let code = (status != 0).then(|| Value::from(i64::from(status)));
        assert_eq!(get(&span, "http.response.status_code"), code, "{name}");
    }
}

#[test]
fn a_client_span_names_the_other_end() {
    let span = spanned(&Exchange { side: Side::Client, host: b"", task: 0, version: 0, ..exchange() }, None, false);
    assert_eq!(span.span_kind, SpanKind::Client);
    assert_eq!(get(&span, "server.address"), Some("10.0.0.2".into()));
    assert_eq!(get(&span, "server.port"), Some(5555.into()));
    assert_eq!(get(&span, "network.protocol.version"), Some("1.0".into()));
    assert_eq!(get(&span, "client.address"), None);
    assert_eq!(get(&span, TASK_ID), None);
}

#[test]
fn the_path_comes_only_when_asked_for_and_never_with_its_query() {
    let asked = Exchange { path: b"/api/orders/42?token=x", ..exchange() };
    let span = spanned(&asked, None, true);
    assert_eq!(get(&span, "url.path"), Some("/api/orders/42".into()));
    let client = spanned(&Exchange { side: Side::Client, ..asked }, None, true);
    assert_eq!(get(&client, "url.full"), Some("http://shop.example:8080/api/orders/42".into()));
    for span in [&span, &client, &spanned(&asked, None, false)] {
        assert!(!format!("{span:?}").contains("token"));
    }
    assert!(!format!("{:?}", spanned(&asked, None, false)).contains("orders"));
}

#[test]
fn the_caller_is_the_parent() {
    let parent = TraceParent { trace_id: [1; 16], parent_id: [2; 8], flags: 1 };
    let span = spanned(&Exchange { traceparent: Some(parent), ..exchange() }, None, false);
    assert_eq!((span.parent_span_id, span.parent_span_is_remote), (SpanId::from_bytes([2; 8]), true));
}

#[test]
fn times_out_of_order_never_yield_a_negative_duration() {
    let span = spanned(&Exchange { start_ns: 5, end_ns: 0, ..exchange() }, None, false);
    assert_eq!(span.start_time, span.end_time);
}

#[test]
fn without_an_endpoint_tracing_is_off() {
    assert!(Tracing::start(&Traces::default()).unwrap().is_none());
}
