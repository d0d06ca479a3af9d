//! Pairs request and response on a connection, with its timings.
//!
//! Reads: sends and receives of one connection, in order ([`Io`]). Yields: one [`Exchange`] per request, exactly once.
//! Costs: no allocation per exchange in steady state; see `benches/pipeline.rs`.

mod http;
mod nested;
mod pending;
pub mod postgres;
mod routed;
mod wanted;

pub use http::{HttpConnection, Sink, Verdict};
pub use nested::NEST_TAIL;
pub use pending::{Shared, Stats};
pub use routed::{Hit, Routed};
pub use wanted::{Headers, Wanted};

use crate::protocol::Piece;
use crate::route::Route;

/// One send or receive of a connection, as captured.
#[derive(Clone, Copy, Debug)]
pub struct Io<'a> {
    /// When the system call returned, `CLOCK_MONOTONIC` ns.
    pub time_ns: u64,
    /// When the data arrived at the socket (receive only), 0 where unknown.
    pub ready_ns: u64,
    /// Tokio task, 0 where unknown.
    pub task: u64,
    /// Thread.
    pub tid: u32,
    /// Bytes transferred, of which `data` is the beginning.
    pub len: usize,
    /// The bytes captured.
    pub data: &'a [u8],
    /// The last bytes transferred where `data` is shorter than `len`, else empty.
    pub tail: &'a [u8],
    /// Bytes of earlier records in this direction that were lost just before this one.
    pub lost: u64,
}

/// Which end of the connection the target is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The target answers.
    Server,
    /// The target asks.
    Client,
}

/// How an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The response was sent whole.
    Complete,
    /// The request was answered by 101 or a CONNECT by 2xx: the connection speaks another protocol from here on.
    Upgraded,
    /// The peer, a client, closed before the response was whole: status 499 in our own labels (nginx' convention).
    /// Only where the target is the server.
    ClientAborted,
    /// The target closed, the server that it asked closed, records were lost, or the daemon stopped following, before
    /// the response was whole.
    Incomplete,
}

/// From when on a request without a route is one that matched none: axum's uprobe watches the target, and the kernel
/// programs know where Tokio keeps the task's id.
///
/// A moment and no `bool`: records wait in the ring, so that one which was made earlier is read later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoutesExact(u64);

impl RoutesExact {
    /// For every request.
    pub const ALWAYS: Self = Self(0);
    /// For none.
    pub const NEVER: Self = Self(u64::MAX);

    /// For requests whose first byte the target read at this time of `CLOCK_MONOTONIC` or later.
    #[must_use]
    pub const fn since(monotonic_ns: u64) -> Self {
        Self(monotonic_ns)
    }

    /// Whether it holds for a request whose first byte the target read then.
    #[must_use]
    pub const fn covers(self, read_ns: u64) -> bool {
        self.0 != u64::MAX && read_ns >= self.0
    }
}

/// HTTP request methods of RFC 9110 and RFC 5789; everything else is `_OTHER`, as the semantic conventions want.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the variants are the methods")]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Connect,
    Options,
    Trace,
    Patch,
    #[default]
    Other,
}

impl Method {
    /// The value of `http.request.method` (OpenTelemetry semantic conventions).
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
            Self::Options => "OPTIONS",
            Self::Trace => "TRACE",
            Self::Patch => "PATCH",
            Self::Other => "_OTHER",
        }
    }
}

/// A W3C `traceparent` (Trace Context level 1, version 00 and forward-compatible).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    /// Trace id, not all zero.
    pub trace_id: [u8; 16],
    /// Span id of the caller, not all zero.
    pub parent_id: [u8; 8],
    /// Bit 0: sampled.
    pub flags: u8,
}

/// One HTTP request and what became of it. Times are `CLOCK_MONOTONIC` ns.
#[derive(Clone, Copy, Debug)]
pub struct Exchange<'a> {
    /// Number of the request, unique for the life of the daemon: what operations name as their [`crate::database::Parent`].
    pub id: u64,
    /// Which end the target is.
    pub side: Side,
    /// Tokio task that read the request (server) or sent it (client), 0 where unknown.
    pub task: u64,
    /// Thread that read or sent the first byte.
    pub tid: u32,
    /// Server: the first byte arrived at the socket (falls back to `first_io_ns`). Client: the send returned.
    pub start_ns: u64,
    /// The first byte was read (server) or sent (client).
    pub first_io_ns: u64,
    /// The request's last byte was read or sent; 0 where it never was.
    pub request_end_ns: u64,
    /// The response's first byte was sent (server) or read (client); 0 where it never was.
    pub response_start_ns: u64,
    /// The end: the response's last byte, or the close.
    pub end_ns: u64,
    /// Method.
    pub method: Method,
    /// Request target as on the wire up to `?`: for templates only, never a label.
    pub path: &'a [u8],
    /// Value of `Host`, empty where absent or not captured.
    pub host: &'a [u8],
    /// The tenant that the request names ([`Wanted::tenant`]), empty where it names none or a doubtful one.
    pub tenant: &'a [u8],
    /// Values of the fields in [`Wanted::fields`].
    pub headers: Headers<'a>,
    /// Minor version of HTTP/1.
    pub version: u8,
    /// Status of the final response, 0 where there was none or it was not captured; `ClientAborted` without one is told by `outcome`.
    pub status: u16,
    /// How it ended.
    pub outcome: Outcome,
    /// Bytes of the request on the wire, head and body.
    pub request_bytes: u64,
    /// Bytes of the response on the wire, head and body.
    pub response_bytes: u64,
    /// Bytes of the request's body (content, without chunk framing where that was seen).
    pub request_body: u64,
    /// Bytes of the response's body.
    pub response_body: u64,
    /// The caller's trace context.
    pub traceparent: Option<TraceParent>,
    /// What axum matched, where the uprobe told.
    pub route: Option<&'a Route>,
    /// What axum matched, where its path is still being read: then there is no [`Self::route`] yet.
    pub awaited: Option<&'a Routed>,
    /// axum's uprobe watches this target, so that no route means that none matched.
    pub routes_exact: bool,
    /// [`HttpConnection::take_started`] told when it began, so that its end is to be told too.
    pub told: bool,
    /// What it spent in the database; `None` where nothing is known of that.
    pub spent: Option<&'a crate::database::Spent<'a>>,
    /// Whether its trace is kept and by which ids, where that was decided while it ran because operations name them.
    pub ids: crate::trace::Decision,
}

/// What a request's time went into, one after the other: the four parts add up to its duration. `None` where an end of
/// a part is not known.
impl Exchange<'_> {
    /// A copy without what is borrowed: path, host, tenant, headers, routes, and what it spent.
    #[must_use]
    pub const fn detached(&self) -> Exchange<'static> {
        Exchange {
            id: self.id,
            side: self.side,
            task: self.task,
            tid: self.tid,
            start_ns: self.start_ns,
            first_io_ns: self.first_io_ns,
            request_end_ns: self.request_end_ns,
            response_start_ns: self.response_start_ns,
            end_ns: self.end_ns,
            method: self.method,
            path: b"",
            host: b"",
            tenant: b"",
            headers: Headers::of(b""),
            version: self.version,
            status: self.status,
            outcome: self.outcome,
            request_bytes: self.request_bytes,
            response_bytes: self.response_bytes,
            request_body: self.request_body,
            response_body: self.response_body,
            traceparent: self.traceparent,
            route: None,
            awaited: None,
            routes_exact: self.routes_exact,
            told: self.told,
            spent: None,
            ids: self.ids,
        }
    }

    /// The bytes lay in the socket until the target read them, because it was busy; 0 where the arrival was not seen.
    #[must_use]
    pub const fn socket_wait_ns(&self) -> u64 {
        self.first_io_ns.saturating_sub(self.start_ns)
    }

    /// From the first byte read to the last: the request came in pieces, or its body did.
    #[must_use]
    pub const fn read_ns(&self) -> Option<u64> {
        if self.request_end_ns == 0 { None } else { Some(self.begun_ns().saturating_sub(self.first_io_ns)) }
    }

    /// From the last byte of the request to the first of the response, database and all.
    #[must_use]
    pub const fn handler_ns(&self) -> Option<u64> {
        if self.request_end_ns == 0 || self.response_start_ns == 0 {
            return None;
        }
        Some(self.response_start_ns.saturating_sub(self.begun_ns()))
    }

    /// From the first byte of the response to the last.
    #[must_use]
    pub const fn write_ns(&self) -> Option<u64> {
        if self.response_start_ns == 0 { None } else { Some(self.end_ns.saturating_sub(self.response_start_ns)) }
    }

    /// When the request was read, or its answer begun before that: then the rest of the request overlaps the writing.
    const fn begun_ns(&self) -> u64 {
        if self.response_start_ns != 0 && self.response_start_ns < self.request_end_ns {
            self.response_start_ns
        } else {
            self.request_end_ns
        }
    }
}

/// The record as bytes, gap, bytes.
fn pieces<'a>(io: &Io<'a>) -> [Piece<'a>; 3] {
    let data = &io.data[..io.data.len().min(io.len)];
    let missing = io.len - data.len();
    let tail = &io.tail[io.tail.len().saturating_sub(missing)..];
    [Piece::Bytes(data), Piece::Gap((missing - tail.len()) as u64), Piece::Bytes(tail)]
}
