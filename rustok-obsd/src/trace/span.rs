//! Applies the semantic conventions: a record becomes a span.
//!
//! Reads: a [`Record`] and the clock. Yields: `SpanData` for the exporter. Costs: 20 to 30 attributes, on the exporter's
//! thread.
//!
//! <https://opentelemetry.io/docs/specs/semconv/http/http-spans/>. Two deliberate gaps: `url.path` and `url.full`, which
//! the conventions require, come only where `traces.url_path` asks for them, since paths can hold personal ids; the
//! query never does. Header values do not leave, but for the host and port of `Host`, the tenant, and those that the
//! configuration lists.

use super::database::fingerprint;
use super::record::{HttpRecord, Record};
use super::{
    BUSY, Clock, DATABASE_TIME, FAILED, HANDLER, OUTCOME, PARTIAL, POOL_WAIT, QUERIES, READ, REPEATED_COUNT,
    REPEATED_FINGERPRINT, REPEATED_SUMMARY, ROUTE_SOURCE, SOCKET_WAIT, TASK_ID, TENANT, TIME_TO_FIRST_BYTE, TraceIds,
    WRITE,
};
use crate::exchange::{Headers, Method, Outcome, Side};
use crate::route::Source;
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, Key, KeyValue, StringValue, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;

/// The conventions' version, as a schema URL.
pub(super) const SCHEMA: &str = "https://opentelemetry.io/schemas/1.37.0";

/// Who made the spans.
pub(super) fn scope() -> InstrumentationScope {
    InstrumentationScope::builder("rustok-obsd").with_version(env!("CARGO_PKG_VERSION")).with_schema_url(SCHEMA).build()
}

/// What the spans of one exporter have in common.
#[derive(Debug)]
pub(super) struct Conventions {
    pub scope: InstrumentationScope,
    /// Attributes of [`crate::exchange::Wanted::fields`], by their index.
    headers: Vec<Key>,
}

impl Conventions {
    pub(super) fn new(headers: &[String]) -> Self {
        let key = |name: &String| Key::from(format!("http.request.header.{}", name.to_ascii_lowercase()));
        Self { scope: scope(), headers: headers.iter().map(key).collect() }
    }

    /// The span of one record.
    pub(super) fn span(&self, record: &Record, clock: &Clock) -> SpanData {
        match record {
            Record::Http(record) => http_span(record, clock, self),
            Record::Query(record) => record.span(clock, &self.scope),
            Record::Wait(record) => record.span(clock, &self.scope),
        }
    }
}

/// A span but for what all have in common.
pub(super) struct SpanParts {
    pub ids: TraceIds,
    pub parent: SpanId,
    /// The parent is another process'.
    pub remote: bool,
    pub kind: SpanKind,
    pub name: Cow<'static, str>,
    pub start_ns: u64,
    pub end_ns: u64,
    pub attributes: Vec<KeyValue>,
    pub status: Status,
    pub links: SpanLinks,
}

impl SpanParts {
    pub(super) fn span(self, clock: &Clock, scope: &InstrumentationScope) -> SpanData {
        SpanData {
            span_context: context(self.ids),
            parent_span_id: self.parent,
            parent_span_is_remote: self.remote,
            span_kind: self.kind,
            name: self.name,
            start_time: clock.wall(self.start_ns),
            end_time: clock.wall(self.end_ns.max(self.start_ns)),
            attributes: self.attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: self.links,
            status: self.status,
            instrumentation_scope: scope.clone(),
        }
    }
}

/// The context of a span of ours.
pub(super) fn context(ids: TraceIds) -> SpanContext {
    SpanContext::new(
        TraceId::from_bytes(ids.trace_id),
        SpanId::from_bytes(ids.span_id),
        TraceFlags::SAMPLED,
        false,
        TraceState::NONE,
    )
}

fn http_span(record: &HttpRecord, clock: &Clock, conventions: &Conventions) -> SpanData {
    let error = error_type(record);
    let mut attributes = attributes(record, error.clone());
    add_headers(&mut attributes, record, conventions);
    add_times(&mut attributes, record);
    let parts = SpanParts {
        ids: record.ids,
        parent: SpanId::from_bytes(record.parent),
        remote: record.parent != [0; 8],
        kind: match record.side {
            Side::Server => SpanKind::Server,
            Side::Client => SpanKind::Client,
        },
        name: name(record),
        start_ns: record.start_ns,
        end_ns: record.end_ns,
        attributes,
        // The conventions: no description where the status code says it all.
        status: error.map_or(Status::Unset, |_| Status::error("")),
        links: SpanLinks::default(),
    };
    parts.span(clock, &conventions.scope)
}

/// The tenant, and the listed headers as the conventions have them: a list of values each.
fn add_headers(list: &mut Vec<KeyValue>, record: &HttpRecord, conventions: &Conventions) {
    if let Some(tenant) = &record.tenant {
        list.push(KeyValue::new(TENANT, Arc::clone(tenant)));
    }
    let Some(bytes) = &record.headers else { return };
    for (index, key) in conventions.headers.iter().enumerate() {
        let headers = Headers::of(bytes);
        let values: Vec<StringValue> =
            headers.iter().filter(|(at, _)| *at == index).map(|(_, value)| value.to_owned().into()).collect();
        if !values.is_empty() {
            list.push(KeyValue::new(key.clone(), Value::Array(values.into())));
        }
    }
}

/// What the time of a server's exchange went into.
fn add_times(list: &mut Vec<KeyValue>, record: &HttpRecord) {
    if record.side != Side::Server {
        return;
    }
    let mut add = |key: &'static str, value: Value| list.push(KeyValue::new(key, value));
    let socket_wait = (record.socket_wait_ns > 0).then_some(record.socket_wait_ns);
    let read = record.read_ns.filter(|time| *time > 0);
    for (key, time) in
        [(SOCKET_WAIT, socket_wait), (READ, read), (HANDLER, record.handler_ns), (WRITE, record.write_ns)]
    {
        if let Some(time) = time {
            add(key, seconds(time));
        }
    }
    let Some(spent) = &record.spent else { return };
    add(QUERIES, i64::from(spent.queries).into());
    if spent.failed > 0 {
        add(FAILED, i64::from(spent.failed).into());
    }
    if spent.queries > 0 {
        add(POOL_WAIT, seconds(spent.pool_wait_ns));
        add(TIME_TO_FIRST_BYTE, seconds(spent.first_byte_ns));
        add(DATABASE_TIME, seconds(spent.database_ns));
        add(BUSY, seconds(spent.busy_ns));
    }
    if let Some((statement, times)) = &spent.repeated {
        add(REPEATED_COUNT, i64::from(*times).into());
        add(REPEATED_FINGERPRINT, fingerprint(statement));
        if !statement.summary.is_empty() {
            add(REPEATED_SUMMARY, Arc::clone(&statement.summary).into());
        }
    }
    if spent.partial {
        add(PARTIAL, true.into());
    }
}

/// The unit of every time of the conventions.
#[expect(clippy::cast_precision_loss, reason = "exact up to 104 days")]
pub(super) fn seconds(nanoseconds: u64) -> Value {
    (nanoseconds as f64 / 1e9).into()
}

/// `{method} {route}`, or the method alone; `HTTP` for one that is not known.
fn name(record: &HttpRecord) -> Cow<'static, str> {
    let method = if record.method == Method::Other { "HTTP" } else { record.method.as_str() };
    match &record.route {
        Some((route, _)) => Cow::Owned(format!("{method} {route}")),
        None => Cow::Borrowed(method),
    }
}

/// Why the exchange failed: the peer went away, or a status that is an error on this side (5xx for a server, 4xx too
/// for a client). `Incomplete` is not told to be a failure: the daemon may have stopped following.
fn error_type(record: &HttpRecord) -> Option<Value> {
    match (record.outcome, record.side) {
        (Outcome::ClientAborted, Side::Server) => return Some("client_aborted".into()),
        (Outcome::ClientAborted, Side::Client) => return Some("server_closed".into()),
        _ => {}
    }
    let first = if record.side == Side::Server { 500 } else { 400 };
    (record.status >= first).then(|| record.status.to_string().into())
}

fn attributes(record: &HttpRecord, error: Option<Value>) -> Vec<KeyValue> {
    let mut list = Vec::with_capacity(40);
    let mut add = |key: &'static str, value: Value| list.push(KeyValue::new(key, value));
    let HttpRecord { addresses, .. } = record;
    add("http.request.method", record.method.as_str().into());
    add("url.scheme", "http".into());
    if let Some((route, source)) = &record.route {
        add("http.route", Arc::clone(route).into());
        let source = match source {
            Source::Axum => "axum",
            Source::Pattern => "pattern",
            Source::Learned => "learned",
            Source::Unmatched => "unmatched",
            Source::Overflow => "overflow",
        };
        add(ROUTE_SOURCE, source.into());
    }
    if record.status != 0 {
        add("http.response.status_code", i64::from(record.status).into());
    }
    if let Some(error) = error {
        add("error.type", error);
    }
    let server = match record.side {
        Side::Server => addresses.local,
        Side::Client => addresses.remote,
    };
    let (host, port) = record.host.as_deref().and_then(split_host).unwrap_or((None, None));
    let port = port.unwrap_or(server.port());
    let host = host.map_or_else(|| ip(server), ToOwned::to_owned);
    if let Some(path) = record.path.as_deref().and_then(path_of) {
        match record.side {
            Side::Server => add("url.path", path.into()),
            Side::Client => {
                let bracketed = if host.contains(':') { format!("[{host}]") } else { host.clone() };
                add("url.full", format!("http://{bracketed}:{port}{path}").into());
            }
        }
    }
    add("server.address", host.into());
    add("server.port", i64::from(port).into());
    if record.side == Side::Server {
        add("client.address", ip(addresses.remote).into());
    }
    add("network.peer.address", ip(addresses.remote).into());
    add("network.peer.port", i64::from(addresses.remote.port()).into());
    add("network.protocol.name", "http".into());
    add("network.protocol.version", if record.version == 0 { "1.0" } else { "1.1" }.into());
    add("http.request.size", count(record.request_bytes));
    add("http.response.size", count(record.response_bytes));
    add("http.request.body.size", count(record.request_body));
    add("http.response.body.size", count(record.response_body));
    add("thread.id", i64::from(record.tid).into());
    if record.task != 0 {
        add(TASK_ID, count(record.task));
    }
    let outcome = match (record.outcome, record.side) {
        (Outcome::Complete, _) => None,
        (Outcome::Upgraded, _) => Some("upgraded"),
        (Outcome::ClientAborted, Side::Server) => Some("client_aborted"),
        (Outcome::ClientAborted, Side::Client) => Some("server_closed"),
        (Outcome::Incomplete, _) => Some("incomplete"),
    };
    if let Some(outcome) = outcome {
        add(OUTCOME, outcome.into());
    }
    list
}

/// OTLP has signed integers only.
pub(super) fn count(number: u64) -> Value {
    i64::try_from(number).unwrap_or(i64::MAX).into()
}

/// IPv4 in its own form, also where the socket is IPv6.
pub(super) fn ip(address: SocketAddr) -> String {
    address.ip().to_canonical().to_string()
}

/// Host and port of a `Host` field (RFC 9110 section 7.2) without user information; `None` where it is neither a name
/// nor an address.
fn split_host(value: &str) -> Option<(Option<&str>, Option<u16>)> {
    let value = value.rsplit('@').next()?.trim();
    let (host, port) = match value.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, rest.strip_prefix(':'))
        }
        None => value.split_once(':').map_or((value, None), |(host, port)| (host, Some(port))),
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':');
    if host.is_empty() || !host.bytes().all(plain) {
        return None;
    }
    match port {
        None | Some("") => Some((Some(host), None)),
        Some(port) => Some((Some(host), Some(port.parse().ok()?))),
    }
}

/// The path of a request target (RFC 9112 section 3.2): origin form as it is, absolute form without its authority
/// (which can hold user information); the others have none. Stops at `?`, whatever the caller left.
fn path_of(target: &[u8]) -> Option<String> {
    let target = String::from_utf8_lossy(target);
    let target = target.split(['?', '#']).next()?;
    if target.starts_with('/') {
        return Some(target.to_owned());
    }
    let (_, rest) = target.split_once("://")?;
    Some(rest.find('/').map_or("/", |at| &rest[at..]).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_lose_their_user_information_and_nonsense_is_refused() {
        for (value, expected) in [
            ("shop.example", Some((Some("shop.example"), None))),
            ("shop.example:3000", Some((Some("shop.example"), Some(3000)))),
            ("user:secret@shop.example:1", Some((Some("shop.example"), Some(1)))),
            ("[::1]:80", Some((Some("::1"), Some(80)))),
            ("[::1]", Some((Some("::1"), None))),
            ("shop:", Some((Some("shop"), None))),
            ("[evil]:80", None),
            ("a b", None),
            ("shop:99999", None),
            ("x/y", None),
            ("", None),
        ] {
            assert_eq!(split_host(value), expected, "{value}");
        }
    }

    #[test]
    fn paths_come_without_query_and_authority() {
        for (target, expected) in [
            ("/a/b?token=x", Some("/a/b")),
            ("/a#b", Some("/a")),
            ("http://user:secret@h/a/b?x", Some("/a/b")),
            ("http://h", Some("/")),
            ("*", None),
            ("h:443", None),
        ] {
            assert_eq!(path_of(target.as_bytes()).as_deref(), expected, "{target}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_host_or_path_panics_or_shows_user_information(text in ".{0,40}", secret in "[a-z]{12}") {
            let _ = split_host(&text);
            let _ = path_of(text.as_bytes());
            let host = format!("{text}:{secret}@shop.example");
            proptest::prop_assert_eq!(split_host(&host), Some((Some("shop.example"), None)));
        }
    }
}
