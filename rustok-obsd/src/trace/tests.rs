//! The span of every kind of exchange.

use super::record::{Caches, HttpRecord, Keep, Record};
use super::span::Conventions;
use super::*;
use crate::database::Spent;
use crate::exchange::{Method, Outcome, Side, TraceParent};
use crate::route::Source;
use opentelemetry::Value;
use opentelemetry::trace::{SpanId, SpanKind, Status};
use opentelemetry_sdk::trace::SpanData;

pub(super) fn exchange() -> Exchange<'static> {
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
        awaited: None,
        routes_exact: true,
        told: false,
        id: 1,
        spent: None,
        ids: Decision::Undecided,
        tenant: b"",
        headers: crate::exchange::Headers::default(),
    }
}

pub(super) fn addresses() -> Addresses {
    Addresses { local: "10.0.0.1:3000".parse().unwrap(), remote: "[::ffff:10.0.0.2]:5555".parse().unwrap() }
}

fn conventions() -> Conventions {
    Conventions::new(&["x-request-id".to_owned(), "User-Agent".to_owned()])
}

fn spanned(exchange: &Exchange<'_>, route: Option<(&str, Source)>, keep_path: bool) -> SpanData {
    let ids = TraceIds { trace_id: [7; 16], span_id: [8; 8] };
    let route = route.map(|(template, source)| Route { template: template.into(), source });
    let resource = Arc::new(TargetResource::unknown());
    let keep = Keep { path: keep_path, repeated: REPEATED };
    let record = HttpRecord::new(ids, resource, exchange, route.as_ref(), addresses(), &mut Caches::default(), keep);
    conventions().span(&Record::Http(record), &Clock::new())
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
        (SOCKET_WAIT, 0.0001.into()),
        (HANDLER, 0.0019.into()),
        (WRITE, 0.0005.into()),
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

#[test]
fn the_parts_of_a_requests_time_add_up_and_what_is_unknown_is_absent() {
    let whole = Exchange { request_end_ns: 1_400_000, ..exchange() };
    let span = spanned(&whole, None, false);
    let parts: Vec<f64> = [SOCKET_WAIT, READ, HANDLER, WRITE]
        .iter()
        .map(|key| match get(&span, key) {
            Some(Value::F64(time)) => time,
            other => panic!("{key}: {other:?}"),
        })
        .collect();
    assert!((parts.iter().sum::<f64>() - 0.0025).abs() < 1e-12, "{parts:?}");
    // Answered before the request was read whole: what overlaps counts once.
    let early = Exchange { request_end_ns: 3_200_000, ..exchange() };
    let times = [early.read_ns(), early.handler_ns(), early.write_ns()];
    assert_eq!(times, [Some(1_900_000), Some(0), Some(500_000)]);
    let silent = Exchange { response_start_ns: 0, request_end_ns: 0, start_ns: 1_100_000, ..exchange() };
    let span = spanned(&silent, None, false);
    let client = spanned(&Exchange { side: Side::Client, ..whole }, None, false);
    for key in [SOCKET_WAIT, READ, HANDLER, WRITE] {
        assert_eq!((get(&span, key), get(&client, key)), (None, None), "{key}");
    }
}

#[test]
fn a_server_span_tells_what_it_spent_in_the_database() {
    let statement = database::tests::statement();
    let spent = Spent {
        queries: 9,
        failed: 1,
        pool_wait_ns: 1_000_000,
        first_byte_ns: 2_000_000,
        database_ns: 3_000_000,
        busy_ns: 2_500_000,
        most_repeated: Some((&statement, 6)),
        partial: true,
    };
    let with = |spent: &Spent<'_>| spanned(&Exchange { spent: Some(spent), ..exchange() }, None, false);
    let span = with(&spent);
    for (key, value) in [
        (QUERIES, 9.into()),
        (FAILED, 1.into()),
        (POOL_WAIT, 0.001.into()),
        (TIME_TO_FIRST_BYTE, 0.002.into()),
        (DATABASE_TIME, 0.003.into()),
        (BUSY, 0.0025.into()),
        (REPEATED_COUNT, 6.into()),
        (REPEATED_FINGERPRINT, "00000000000000ff".into()),
        (REPEATED_SUMMARY, "SELECT shop.products".into()),
        (PARTIAL, true.into()),
    ] {
        assert_eq!(get(&span, key), Some(value), "{key}");
    }
    // At the bound, nothing is repeated too often.
    let span = with(&Spent { most_repeated: Some((&statement, REPEATED)), failed: 0, partial: false, ..spent });
    for key in [FAILED, PARTIAL, REPEATED_COUNT, REPEATED_FINGERPRINT, REPEATED_SUMMARY] {
        assert_eq!(get(&span, key), None, "{key}");
    }
    let span = with(&Spent::default());
    assert_eq!((get(&span, QUERIES), get(&span, DATABASE_TIME)), (Some(0.into()), None));
    assert_eq!(get(&spanned(&exchange(), None, false), QUERIES), None, "nothing is known of it");
}

#[test]
fn the_tenant_and_the_listed_headers_are_told_and_no_other() {
    let mut shared = crate::exchange::Shared::wanting(wanted(&traces()));
    let mut connection =
        crate::exchange::HttpConnection::new(Some(Side::Server), false, crate::exchange::RoutesExact::NEVER);
    let mut spans = Vec::new();
    for fields in
        ["X-Request-Id: a\r\nx-request-id: b\r\nX-Tenant-ID: acme\r\nCookie: c=secret\r\nUser-Agent: curl\r\n", ""]
    {
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\nAuthorization: secret\r\n{fields}\r\n");
        let mut sink = |exchange: &Exchange<'_>| spans.push(spanned(exchange, None, true));
        for (time_ns, received, text) in [(1, true, &*request), (2, false, "HTTP/1.1 204 No Content\r\n\r\n")] {
            let (len, data) = (text.len(), text.as_bytes());
            let io = crate::exchange::Io { time_ns, ready_ns: 0, task: 1, tid: 1, len, data, tail: b"", lost: 0 };
            if received {
                connection.on_receive(&io, &mut shared, &mut sink);
            } else {
                connection.on_send(&io, &mut shared, &mut sink);
            }
        }
    }
    let list = |values: &[&'static str]| {
        let values: Vec<opentelemetry::StringValue> = values.iter().map(|value| (*value).into()).collect();
        Some(Value::Array(values.into()))
    };
    assert_eq!(get(&spans[0], TENANT), Some("acme".into()));
    assert_eq!(get(&spans[0], "http.request.header.x-request-id"), list(&["a", "b"]));
    assert_eq!(get(&spans[0], "http.request.header.user-agent"), list(&["curl"]));
    for key in [TENANT, "http.request.header.x-request-id", "http.request.header.user-agent"] {
        assert_eq!(get(&spans[1], key), None, "{key} of another request");
    }
    assert!(!format!("{spans:?}").contains("secret"));
    assert_eq!(wanted(&Traces::default()), Wanted::default(), "tracing is off");
}

fn traces() -> Traces {
    Traces {
        endpoint: Some(crate::config::Endpoint { url: "http://127.0.0.1:1".into(), exact: false }),
        request_headers: vec!["x-request-id".into(), "user-agent".into()],
        ..Traces::default()
    }
}
