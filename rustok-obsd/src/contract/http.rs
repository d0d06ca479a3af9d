//! HTTP families: RusToK's published names and OpenTelemetry's, from the same observation.
//!
//! Sources: RusToK `crates/rustok-telemetry/src/lib.rs`; OpenTelemetry semantic conventions "HTTP metrics" under the
//! names that the OpenTelemetry-to-Prometheus compatibility specification gives them.

use super::{Bounds, Family, Kind, Origin, Stability, bounds};

/// Bounds of durations in seconds: those of RusToK (prometheus-rs' default), those that the semantic conventions advise,
/// and 0.5, 1 and 2.5 ms below them.
pub const DURATION: Bounds =
    bounds!(0.0005 0.001 0.0025 0.005 0.01 0.025 0.05 0.075 0.1 0.25 0.5 0.75 1.0 2.5 5.0 7.5 10.0);

/// Bounds of body sizes in bytes: those of RusToK; the semantic conventions advise none.
pub const SIZE: Bounds = bounds!(100.0 1000.0 10000.0 100000.0 1e+06);

/// RusToK's families: sums over all observed servers, so that they keep exactly RusToK's labels.
pub const RUSTOK: &[Family<'static>] = &[REQUESTS, REQUEST_DURATION, ACTIVE_CONNECTIONS, REQUEST_SIZE, RESPONSE_SIZE];

/// OpenTelemetry's families.
pub const OTEL: &[Family<'static>] = &[
    SERVER_REQUEST_DURATION,
    SERVER_ACTIVE_REQUESTS,
    SERVER_REQUEST_BODY_SIZE,
    SERVER_RESPONSE_BODY_SIZE,
    CLIENT_REQUEST_DURATION,
    TARGET_INFO,
];

pub(super) const fn rustok(
    name: &'static str,
    kind: Kind,
    unit: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Family<'static> {
    Family { name, kind, unit, help, labels, origin: Origin::Ebpf, stability: Stability::Rustok }
}

pub(super) const fn otel(
    name: &'static str,
    kind: Kind,
    unit: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Family<'static> {
    Family { name, kind, unit, help, labels, origin: Origin::Ebpf, stability: Stability::Stable }
}

/// As [`otel`], of a convention that is still in development.
pub(super) const fn developing(
    name: &'static str,
    kind: Kind,
    unit: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Family<'static> {
    Family { name, kind, unit, help, labels, origin: Origin::Ebpf, stability: Stability::Development }
}

/// Requests that ended.
pub const REQUESTS: Family<'static> = rustok(
    "rustok_http_requests_total",
    Kind::Counter,
    "",
    &["method", "path", "status"],
    "HTTP requests that ended, by method, route and status: 499 where the client left before the response was whole, 000 where no status was seen; path ~lost: requests whose records were lost, so that the total stays exact.",
);

/// Duration of requests.
pub const REQUEST_DURATION: Family<'static> = rustok(
    "rustok_http_request_duration_seconds",
    Kind::Histogram,
    "seconds",
    &["method", "path"],
    "Duration of HTTP requests, from the arrival of the first byte at the socket to the last byte sent.",
);

/// Open connections.
pub const ACTIVE_CONNECTIONS: Family<'static> = rustok(
    "rustok_http_active_connections",
    Kind::Gauge,
    "",
    &[],
    "Open connections on which an observed server speaks HTTP.",
);

/// Sizes of request bodies.
pub const REQUEST_SIZE: Family<'static> = rustok(
    "rustok_http_request_size_bytes",
    Kind::Histogram,
    "bytes",
    &["method", "endpoint"],
    "Size of HTTP request bodies as transferred, without head.",
);

/// Sizes of response bodies.
pub const RESPONSE_SIZE: Family<'static> = rustok(
    "rustok_http_response_size_bytes",
    Kind::Histogram,
    "bytes",
    &["method", "endpoint"],
    "Size of HTTP response bodies as transferred, without head.",
);

const SERVER_LABELS: &[&str] =
    &["service_name", "http_request_method", "http_route", "http_response_status_code", "url_scheme", "error_type"];

/// `http.server.request.duration`.
pub const SERVER_REQUEST_DURATION: Family<'static> = otel(
    "http_server_request_duration_seconds",
    Kind::Histogram,
    "seconds",
    SERVER_LABELS,
    "Duration of HTTP server requests.",
);

/// `http.server.active_requests`.
pub const SERVER_ACTIVE_REQUESTS: Family<'static> = developing(
    "http_server_active_requests",
    Kind::Gauge,
    "",
    &["service_name", "http_request_method", "url_scheme"],
    "Number of active HTTP server requests.",
);

/// `http.server.request.body.size`.
pub const SERVER_REQUEST_BODY_SIZE: Family<'static> = developing(
    "http_server_request_body_size_bytes",
    Kind::Histogram,
    "bytes",
    SERVER_LABELS,
    "Size of HTTP server request bodies as transferred.",
);

/// `http.server.response.body.size`.
pub const SERVER_RESPONSE_BODY_SIZE: Family<'static> = developing(
    "http_server_response_body_size_bytes",
    Kind::Histogram,
    "bytes",
    SERVER_LABELS,
    "Size of HTTP server response bodies as transferred.",
);

/// `http.client.request.duration`.
pub const CLIENT_REQUEST_DURATION: Family<'static> = otel(
    "http_client_request_duration_seconds",
    Kind::Histogram,
    "seconds",
    &[
        "service_name",
        "http_request_method",
        "http_response_status_code",
        "server_address",
        "server_port",
        "error_type",
    ],
    "Duration of HTTP client requests.",
);

/// The resource of each observed target.
pub const TARGET_INFO: Family<'static> = otel(
    "target_info",
    Kind::Info,
    "",
    &["service_name", "service_version", "service_namespace", "deployment_environment_name", "host_name"],
    "Resource attributes of each observed service, while one of its processes is observed.",
);
