//! One HTTP/1 connection: pairs its requests with its responses.
//!
//! Reads: sends and receives in order ([`Io`]), end of stream, errors, routes, the close. Yields: one [`Exchange`] per
//! request, exactly once, where its head was seen or it was answered. Costs: at most 248 bytes for a connection that
//! waits, plus a queue of 32 bytes once it carried a request; no allocation per exchange once [`Shared`] is warm.
//!
//! What happens when bytes are missing:
//! * A gap inside a body of known length, or inside a chunk, changes nothing.
//! * A gap over chunk framing loses the body's end. It is recognised by a record that ends with the last chunk, by the
//!   next message that begins a record when its turn has come, or by the close.
//! * A gap between messages of the request's direction: the next record that begins with a request line while nothing
//!   is in flight begins anew. What lay in the gap is lost; its responses are dropped and counted.
//! * Lost records of the request's direction while requests wait for their answers: these end [`Outcome::Incomplete`] once a
//!   record begins with a request line, for the answers may be lost, too.
//! * Lost records of the response's direction: nobody knows how many responses lay in them, so that all requests in
//!   flight end [`Outcome::Incomplete`]. A wrong pair would be worse than none.

mod requests;
mod responses;

use super::pending::{Pending, Shared};
use super::{Exchange, Hit, Io, Method, Outcome, RoutesExact, Side, TraceParent, pieces};
use crate::protocol::http1::{Parser, Piece, Request, Response, Step};
use crate::protocol::{Detected, Protocol, detect};
use std::collections::VecDeque;
use std::sync::Arc;

/// What is known of a connection's protocol, for the capture to decide what to copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Too few bytes seen.
    Undecided,
    /// HTTP/1: payload is needed.
    Http1,
    /// Something else, for good: this module needs nothing more of it but the close.
    Opaque(Protocol),
}

/// A request under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Current {
    /// Its number.
    pub id: u64,
    /// Thread that read its first byte.
    pub tid: u32,
    /// The caller's trace context.
    pub traceparent: Option<TraceParent>,
}

/// Takes each exchange.
pub type Sink<'a> = dyn FnMut(&Exchange<'_>) + 'a;

/// A connection's state. To be fed in order, and closed by [`Self::on_close`] or [`Self::on_abandon`]: dropping it
/// drops what is in flight.
#[derive(Debug)]
pub struct HttpConnection {
    requests: Parser<Request>,
    responses: Parser<Response>,
    in_flight: VecDeque<Box<Pending>>,
    /// Requests behind those in flight that found no place.
    overflow: u32,
    side: Option<Side>,
    verdict: Verdict,
    /// The last of those in flight is still being received.
    receiving: bool,
    /// The request being received began where the sequence was lost; its head was not read yet.
    unsure: bool,
    mid_stream: bool,
    /// The peer sent its end of stream.
    peer_ended: bool,
    /// The peer reset or vanished.
    peer_failed: bool,
    routes_exact: RoutesExact,
    last_request: u64,
    /// A request's head was read since the last [`Self::take_started`].
    started: bool,
    /// Records seen while undecided.
    undecided: u8,
}

const _: () = assert!(size_of::<HttpConnection>() <= 248, "an idle connection became expensive");

impl HttpConnection {
    /// Requests in flight on one connection: what fits into one captured record when they are pipelined.
    pub const IN_FLIGHT: usize = 256;
    /// A connection older than the daemon that shows no protocol within so many records is opaque.
    const UNDECIDED: u8 = 200;

    /// A connection. `side` is `None` where nobody saw who opened it: the first request line tells. `mid_stream`:
    /// bytes went over it before the daemon watched. `routes_exact`: see [`Self::set_routes_exact`].
    #[must_use]
    pub fn new(side: Option<Side>, mid_stream: bool, routes_exact: RoutesExact) -> Self {
        let mid_stream = mid_stream || side.is_none();
        Self {
            requests: if mid_stream { Parser::lost() } else { Parser::new() },
            responses: if mid_stream { Parser::lost() } else { Parser::new() },
            in_flight: VecDeque::new(),
            overflow: 0,
            side,
            verdict: Verdict::Undecided,
            receiving: false,
            unsure: false,
            mid_stream,
            peer_ended: false,
            peer_failed: false,
            routes_exact,
            last_request: 0,
            started: false,
            undecided: 0,
        }
    }

    /// What is known of the protocol.
    #[must_use]
    pub const fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Which end the target is, once known.
    #[must_use]
    pub const fn side(&self) -> Option<Side> {
        self.side
    }

    /// Requests in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// The request under way: hyper and its like answer one after the other, so that it is the oldest.
    #[must_use]
    pub fn current(&self) -> Option<Current> {
        let front = self.in_flight.front().filter(|front| front.head_seen)?;
        Some(Current { id: front.id, tid: front.tid(), traceparent: front.traceparent() })
    }

    /// Whether nobody knows which request is under way: the end of the first one's answer is not known, and the next
    /// one has come.
    #[must_use]
    pub fn is_ambiguous(&self) -> bool {
        self.in_flight.len() > 1
            && self.responses.is_lost()
            && self.in_flight.front().is_some_and(|front| front.answered)
    }

    /// Number of the request that ended last, 0 where there was none.
    #[must_use]
    pub const fn last_request(&self) -> u64 {
        self.last_request
    }

    /// The methods of the requests whose heads were read since the last call and that are still in flight.
    pub fn take_started(&mut self) -> impl Iterator<Item = Method> {
        let any = std::mem::take(&mut self.started);
        let started = if any { self.in_flight.iter_mut() } else { Default::default() };
        started.filter(|pending| pending.head_seen && !pending.told).map(|pending| {
            pending.told = true;
            pending.method()
        })
    }

    /// Sets from when on a request without a route is one that matched none; holds for requests whose first record
    /// is read from now on.
    pub const fn set_routes_exact(&mut self, exact: RoutesExact) {
        self.routes_exact = exact;
    }

    /// The target received.
    pub fn on_receive(&mut self, io: &Io<'_>, shared: &mut Shared, sink: &mut Sink<'_>) {
        self.on_io(io, true, shared, sink);
    }

    /// The target sent.
    pub fn on_send(&mut self, io: &Io<'_>, shared: &mut Shared, sink: &mut Sink<'_>) {
        self.on_io(io, false, shared, sink);
    }

    /// The peer will send no more (a receive returned 0). A half-closed connection can still be answered.
    pub fn on_end_of_stream(&mut self, time_ns: u64, shared: &mut Shared, sink: &mut Sink<'_>) {
        self.peer_ended = true;
        if self.side == Some(Side::Client) {
            // Nothing can come any more, and a body without length ends here.
            self.end_all(time_ns, true, shared, sink);
        }
    }

    /// A send or receive failed with this errno (positive).
    pub const fn on_error(&mut self, errno: i32) {
        if matches!(errno, libc::ECONNRESET | libc::EPIPE | libc::ETIMEDOUT | libc::ECONNABORTED | libc::EHOSTUNREACH) {
            self.peer_failed = true;
        }
    }

    /// The target closed the connection.
    pub fn on_close(&mut self, time_ns: u64, shared: &mut Shared, sink: &mut Sink<'_>) {
        self.end_all(time_ns, true, shared, sink);
    }

    /// The daemon stops following the connection, which lives on.
    pub fn on_abandon(&mut self, time_ns: u64, shared: &mut Shared, sink: &mut Sink<'_>) {
        self.end_all(time_ns, false, shared, sink);
    }

    /// A router of the target matched a path that cannot be read: that none was told proves nothing then.
    pub fn on_unknown_route(&mut self) {
        if let Some(pending) = self.in_flight.iter_mut().find(|pending| !pending.answered) {
            pending.routed_unknown();
        }
    }

    /// A router of the target matched this path, in the task that this connection's request runs in. It belongs to the
    /// oldest request whose head is whole and whose response has not begun: hyper answers one after the other. The
    /// same path has to come as the same `Arc` each time, so that joining nested ones allocates once.
    pub fn on_route(&mut self, path: &Arc<str>, shared: &mut Shared) {
        self.on_hit(Hit { map: 0, route: 0 }, Some(path), shared);
    }

    /// The same for a route whose path may still be awaited (`None`): its exchange says so at its end.
    pub fn on_hit(&mut self, hit: Hit, path: Option<&Arc<str>>, shared: &mut Shared) {
        match self.in_flight.iter_mut().find(|pending| !pending.answered) {
            Some(pending) if pending.head_seen => pending.routed(hit, path, &mut shared.joins),
            _ => shared.stats.unmatched_routes += 1,
        }
    }

    fn on_io(&mut self, io: &Io<'_>, received: bool, shared: &mut Shared, sink: &mut Sink<'_>) {
        if self.verdict != Verdict::Http1 {
            self.decide(io, received, shared);
        }
        let (Verdict::Undecided | Verdict::Http1, Some(side)) = (self.verdict, self.side) else {
            return;
        };
        shared.stats.lost_bytes = shared.stats.lost_bytes.saturating_add(io.lost);
        if received == (side == Side::Server) {
            self.on_request_bytes(io, side, shared, sink);
        } else {
            self.on_response_bytes(io, side, shared, sink);
        }
    }

    /// Looks at a record's beginning for the protocol, and for the side where nobody knows it.
    #[cold]
    fn decide(&mut self, io: &Io<'_>, received: bool, shared: &mut Shared) {
        if matches!(self.verdict, Verdict::Opaque(_)) {
            return;
        }
        // The first bytes were among what was lost: what comes now is no beginning.
        self.mid_stream |= io.lost > 0;
        let asks = self.side.map(|side| received == (side == Side::Server));
        let mut start = [0; 24];
        let known = if asks == Some(true) { self.requests.partial() } else { self.responses.partial() };
        let length = known.iter().chain(io.data).zip(&mut start).map(|(byte, place)| *place = *byte).count();
        let (protocol, asking) = match detect(&start[..length], self.mid_stream) {
            Detected::Request(protocol) => (protocol, Some(true)),
            Detected::Response(protocol) => (protocol, Some(false)),
            Detected::Either(protocol) => (protocol, None),
            Detected::NeedMore if length > 0 && !self.mid_stream => return,
            Detected::Nothing if !self.mid_stream => {
                return self.turn_opaque(Protocol::Unknown, shared);
            }
            Detected::NeedMore | Detected::Nothing => {
                // What was not captured leaves the connection like one that is older than the daemon.
                self.mid_stream = true;
                self.undecided += 1;
                if self.undecided >= Self::UNDECIDED {
                    self.turn_opaque(Protocol::Unknown, shared);
                }
                return;
            }
        };
        match (protocol, asking) {
            (Protocol::Http1, Some(asking)) if self.side.is_none() => {
                self.side = Some(if received == asking { Side::Server } else { Side::Client });
                self.verdict = Verdict::Http1;
            }
            (Protocol::Http1, Some(_)) if asks == asking => self.verdict = Verdict::Http1,
            // A body that looks like a head of the other direction.
            (Protocol::Http1, _) if self.mid_stream => {}
            (Protocol::Http1, _) => self.turn_opaque(Protocol::Unknown, shared),
            (protocol, _) => self.turn_opaque(protocol, shared),
        }
    }

    fn turn_opaque(&mut self, protocol: Protocol, shared: &mut Shared) {
        self.verdict = Verdict::Opaque(protocol);
        shared.stats.opaque_connections += 1;
        self.requests.lose();
        self.responses.lose();
        self.requests.end_of_record(&mut shared.buffers);
        self.responses.end_of_record(&mut shared.buffers);
        for pending in std::mem::take(&mut self.in_flight) {
            shared.discard(pending);
        }
        self.receiving = false;
    }

    /// Yields the oldest in flight.
    fn finish_front(&mut self, side: Side, outcome: Outcome, end_ns: u64, shared: &mut Shared, sink: &mut Sink<'_>) {
        let Some(mut front) = self.in_flight.pop_front() else {
            return;
        };
        if self.receiving && self.in_flight.is_empty() {
            // Answered before it was received whole. The rest of its body is counted off, unless nobody knows whether
            // there will be one (RFC 9110, 10.1.1) or where it begins.
            self.receiving = false;
            let partial = !front.head_seen;
            if partial && !self.requests.is_lost() {
                // Read what there is of the head, as if the rest had not been captured.
                match self.requests.next(&mut Piece::Gap(1), Method::Other, &mut shared.buffers) {
                    Step::Head(head) => {
                        shared.take_head(&mut front, &head);
                        front.unread = self.unsure && head.method == Method::Other;
                    }
                    _ => front.unread = true,
                }
            }
            if partial || (front.expects_continue && front.request_body == 0) {
                self.requests.lose();
            }
        }
        self.last_request = front.id;
        shared.finish(front, side, outcome, end_ns, sink);
    }

    fn end_all(&mut self, time_ns: u64, closed: bool, shared: &mut Shared, sink: &mut Sink<'_>) {
        let side = self.side.unwrap_or(Side::Server);
        let aborted = closed && side == Side::Server && (self.peer_ended || self.peer_failed);
        let outcome = if aborted { Outcome::ClientAborted } else { Outcome::Incomplete };
        // A body without length ends with the connection. So does one whose framing was lost, unless the client left
        // first: the last chunk would have been recognised at the end of its record.
        let ends = self.responses.is_until_close() || self.responses.is_lost() && !aborted;
        let closes = closed && !self.peer_failed && ends;
        if let Some(front) = self.in_flight.front().filter(|front| closes && front.answered) {
            let end_ns = front.response_last_ns;
            self.finish_front(side, Outcome::Complete, end_ns, shared, sink);
        }
        while let Some(front) = self.in_flight.front() {
            if front.head_seen || front.answered {
                self.finish_front(side, outcome, time_ns, shared, sink);
            } else if let Some(front) = self.in_flight.pop_front() {
                shared.stats.partial_requests += 1;
                shared.discard(front);
            }
        }
        self.receiving = false;
        self.overflow = 0;
        self.requests.lose();
        self.responses.lose();
        self.requests.end_of_record(&mut shared.buffers);
        self.responses.end_of_record(&mut shared.buffers);
    }
}

/// Where in a record a piece lies.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// At its beginning.
    Start,
    /// Behind it.
    Inside,
    /// In records before it, which were lost.
    Lost,
}

#[cfg(test)]
mod tests;
