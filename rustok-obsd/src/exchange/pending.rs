//! A request that was not answered whole yet.
//!
//! Reads: what the connection tells it. Yields: an [`Exchange`]. Costs: about 320 bytes while the request is in
//! flight, from a shared pool; a connection that waits for its next request holds none.

use super::nested::Joins;
use super::{Exchange, Headers, Hit, Io, Method, Outcome, Routed, Side, TraceParent, Wanted};
use crate::budget::{Budget, Meter, Store};
use crate::protocol::http1::{Buffers, RequestHead};
use crate::route::Route;
use crate::trace::Decision;
use std::sync::Arc;

#[derive(Debug, Default)]
pub(super) struct Pending {
    /// Whose budget it draws on, and with how many bytes.
    owner: u32,
    charged: u32,
    /// Number of the request.
    pub(super) id: u64,
    /// Path, host, tenant, and the values of wanted fields, one behind the other.
    text: Vec<u8>,
    path_length: usize,
    host_length: usize,
    tenant_length: usize,
    task: u64,
    tid: u32,
    start_ns: u64,
    first_io_ns: u64,
    pub(super) request_end_ns: u64,
    pub(super) response_start_ns: u64,
    pub(super) response_last_ns: u64,
    pub(super) request_bytes: u64,
    pub(super) response_bytes: u64,
    pub(super) request_body: u64,
    pub(super) response_body: u64,
    traceparent: Option<TraceParent>,
    routed: Routed,
    pub(super) method: Method,
    version: u8,
    pub(super) status: u16,
    /// The request's head was read.
    pub(super) head_seen: bool,
    /// Its first line was not captured: nobody knows what was asked.
    pub(super) unread: bool,
    /// Its first line is none of a request.
    pub(super) malformed: bool,
    pub(super) expects_continue: bool,
    /// The final response's head was seen, or its place is known.
    pub(super) answered: bool,
    routes_exact: bool,
    /// [`super::HttpConnection::take_started`] told it.
    pub(super) told: bool,
}

impl Pending {
    /// `at_start`: the request's first byte is the record's first.
    fn begin(&mut self, io: &Io<'_>, side: Side, at_start: bool, routes_exact: bool) {
        let (mut text, mut routed) = (std::mem::take(&mut self.text), std::mem::take(&mut self.routed));
        text.clear();
        routed.clear();
        let arrived = side == Side::Server && at_start && io.ready_ns != 0 && io.ready_ns <= io.time_ns;
        *self = Self {
            text,
            routed,
            task: io.task,
            tid: io.tid,
            start_ns: if arrived { io.ready_ns } else { io.time_ns },
            first_io_ns: io.time_ns,
            routes_exact,
            ..Self::default()
        };
    }

    pub(super) const fn method(&self) -> Method {
        self.method
    }

    pub(super) const fn tid(&self) -> u32 {
        self.tid
    }

    pub(super) const fn traceparent(&self) -> Option<TraceParent> {
        self.traceparent
    }

    fn head(&mut self, head: &RequestHead<'_>, wanted: &Wanted) {
        self.text.extend_from_slice(head.path);
        self.path_length = head.path.len();
        self.text.extend_from_slice(head.host);
        self.host_length = head.host.len();
        self.tenant_length = wanted.gather(head, &mut self.text);
        self.method = head.method;
        self.version = head.version;
        self.traceparent = head.traceparent;
        self.expects_continue = head.expects_continue;
        self.head_seen = true;
    }

    /// A router matched; its path is known or awaited.
    pub(super) fn routed(&mut self, hit: Hit, path: Option<&Arc<str>>, joins: &mut Joins) {
        if !self.routed.hit(hit, path, joins) {
            self.routes_exact = false;
        }
    }

    /// A router matched a path that cannot be read.
    pub(super) const fn routed_unknown(&mut self) {
        self.routes_exact = false;
    }

    /// A part of the response, with so many bytes of content; `time_ns` is when its first byte was seen unless an earlier one was.
    pub(super) fn response_part(&mut self, bytes: u64, content: u64, time_ns: u64) {
        if self.response_start_ns == 0 {
            self.response_start_ns = time_ns;
        }
        self.response_last_ns = time_ns;
        self.response_bytes = self.response_bytes.saturating_add(bytes);
        self.response_body = self.response_body.saturating_add(content);
    }

    /// What came of the response was an interim one (RFC 9110, 15.2).
    pub(super) const fn forget_response(&mut self) {
        self.response_start_ns = 0;
        self.response_last_ns = 0;
        self.response_bytes = 0;
    }
}

/// Counts of what pairing could not follow; each goes up only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Exchanges yielded.
    pub exchanges: u64,
    /// Responses that no known request waited for: dropped.
    pub unmatched_responses: u64,
    /// Routes that no waiting request was there for: dropped.
    pub unmatched_routes: u64,
    /// Interim responses (1xx but 101), skipped as they should be.
    pub interim_responses: u64,
    /// Places where the sequence of messages was lost: between messages, or in a body whose framing was not captured.
    pub lost_sync: u64,
    /// Returns to the sequence of messages.
    pub resyncs: u64,
    /// Bytes of records that were lost before they reached this module.
    pub lost_bytes: u64,
    /// Heads whose end was not captured, or that were longer than the limit.
    pub truncated_heads: u64,
    /// Requests whose first line or framing is malformed.
    pub malformed_requests: u64,
    /// Responses whose first line or framing is malformed.
    pub malformed_responses: u64,
    /// Requests that ended inside their head and were not answered: no exchange.
    pub partial_requests: u64,
    /// Requests whose first line was not captured: no exchange.
    pub unread_requests: u64,
    /// Requests past the bound of requests in flight on one connection: no exchange.
    pub pipeline_overflow: u64,
    /// Connections that turned out to speak something else, or left HTTP/1.
    pub opaque_connections: u64,
}

/// What all connections of a thread share: spare memory, joined routes, and the counts.
#[derive(Debug)]
pub struct Shared {
    /// Counts over all connections.
    pub stats: Stats,
    /// Fields of request heads to keep.
    pub(super) wanted: Wanted,
    /// Number of the newest request.
    last_id: u64,
    pub(super) buffers: Buffers,
    pub(super) joins: Joins,
    #[expect(clippy::vec_box, reason = "they move between connections by their address")]
    spare: Vec<Box<Pending>>,
    budget: Budget,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            stats: Stats::default(),
            wanted: Wanted::default(),
            last_id: 0,
            buffers: Buffers::default(),
            joins: Joins::default(),
            spare: Vec::new(),
            budget: Budget::new(Store::Requests),
        }
    }
}

impl Shared {
    /// Bytes of a request under way with a text of usual length.
    const REQUEST: usize = size_of::<Pending>() + Self::USUAL;
    /// The text of most requests is shorter.
    const USUAL: usize = 256;
    /// More than so many are freed.
    const SPARE: usize = 1024;
    /// A longer text is freed: few paths are longer, and what is wanted of a head is bounded.
    const TEXT: usize = 1024 + Wanted::TOTAL;

    /// Keeps these fields of request heads.
    #[must_use]
    pub fn wanting(wanted: Wanted) -> Self {
        Self { wanted, ..Self::default() }
    }

    /// Number of the newest request.
    #[must_use]
    pub const fn last_id(&self) -> u64 {
        self.last_id
    }

    /// What follows is of connections of this target: what is kept of them counts for it.
    pub const fn set_owner(&mut self, owner: u32) {
        self.buffers.owner = owner;
    }

    /// What a target has counts for this user, who is not trusted.
    pub fn join(&mut self, owner: u32, user: Option<u32>) {
        self.budget.join(owner, user);
        self.buffers.join(owner, user);
    }

    /// Figures of what is kept.
    pub fn meters(&self) -> impl Iterator<Item = Arc<Meter>> {
        [self.budget.meter(), self.buffers.meter(), self.joins.meter()].into_iter()
    }

    /// A request begins; `None` where its target has too many.
    pub(super) fn begin(
        &mut self,
        io: &Io<'_>,
        side: Side,
        at_start: bool,
        routes_exact: bool,
    ) -> Option<Box<Pending>> {
        let owner = self.buffers.owner;
        if !self.budget.charge(owner, Self::REQUEST) {
            return None;
        }
        let mut pending = self.spare.pop().unwrap_or_default();
        pending.begin(io, side, at_start, routes_exact);
        (pending.owner, pending.charged) = (owner, Self::REQUEST as u32);
        self.last_id += 1;
        pending.id = self.last_id;
        Some(pending)
    }

    /// The head of a request was read. A text that is longer than usual is not kept where its target has its share: the
    /// request has no path then.
    pub(super) fn take_head(&mut self, pending: &mut Pending, head: &RequestHead<'_>) {
        pending.head(head, &self.wanted);
        let more = pending.text.len().saturating_sub(Self::USUAL);
        if more == 0 {
            return;
        }
        if self.budget.charge(pending.owner, more) {
            // A head has at most some thousand bytes.
            pending.charged += more as u32;
        } else {
            pending.text = Vec::new();
            (pending.path_length, pending.host_length, pending.tenant_length) = (0, 0, 0);
        }
    }

    /// The route of an exchange that waited for it, and whether all of it is known now.
    pub(crate) fn resolve(
        &mut self,
        routed: &mut Routed,
        path: impl FnMut(Hit) -> Option<Arc<str>>,
    ) -> (Option<Route>, bool) {
        let all = routed.resolve(&mut self.joins, path);
        (routed.route(&mut self.joins), all)
    }

    /// Yields the exchange and takes its memory back.
    pub(super) fn finish(
        &mut self,
        pending: Box<Pending>,
        side: Side,
        outcome: Outcome,
        end_ns: u64,
        sink: &mut dyn FnMut(&Exchange<'_>),
    ) {
        if pending.unread {
            self.stats.unread_requests += 1;
            return self.discard(pending);
        }
        self.stats.exchanges += 1;
        let awaited = Some(&pending.routed).filter(|routed| !routed.awaited().is_empty());
        let route = if awaited.is_none() { pending.routed.route(&mut self.joins) } else { None };
        let (path, rest) = pending.text.split_at(pending.path_length);
        let (host, rest) = rest.split_at(pending.host_length);
        let (tenant, headers) = rest.split_at(pending.tenant_length);
        sink(&Exchange {
            id: pending.id,
            side,
            task: pending.task,
            tid: pending.tid,
            start_ns: pending.start_ns,
            first_io_ns: pending.first_io_ns,
            request_end_ns: pending.request_end_ns,
            response_start_ns: pending.response_start_ns,
            end_ns,
            method: pending.method,
            path,
            host,
            tenant,
            headers: Headers::of(headers),
            version: pending.version,
            status: pending.status,
            outcome,
            request_bytes: pending.request_bytes,
            response_bytes: pending.response_bytes,
            request_body: pending.request_body,
            response_body: pending.response_body,
            traceparent: pending.traceparent,
            route: route.as_ref(),
            awaited,
            routes_exact: pending.routes_exact,
            told: pending.told,
            spent: None,
            ids: Decision::Undecided,
        });
        self.discard(pending);
    }

    pub(super) fn discard(&mut self, mut pending: Box<Pending>) {
        self.budget.release(pending.owner, pending.charged as usize);
        if self.spare.len() < Self::SPARE {
            if pending.text.capacity() > Self::TEXT {
                pending.text = Vec::new();
            }
            pending.routed.clear();
            self.spare.push(pending);
        }
    }
}
