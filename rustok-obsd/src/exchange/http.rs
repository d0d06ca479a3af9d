//! One HTTP/1 connection: pairs its requests with its responses.
//!
//! Reads: sends and receives in order ([`Io`]), end of stream, errors, routes, the close. Yields: one [`Exchange`] per
//! request, exactly once, where its head was seen or it was answered. Costs: at most 240 bytes for a connection that
//! waits, plus a queue of 32 bytes once it carried a request; no allocation per exchange once [`Shared`] is warm.
//!
//! What happens when bytes are missing:
//! * A gap inside a body of known length, or inside a chunk, changes nothing.
//! * A gap over chunk framing loses the body's end. It is recognised by a record that ends with the last chunk, by the
//!   next message that begins a record when its turn has come, or by the close.
//! * A gap between messages of the request's direction: the next record that begins with a request line while nothing
//!   is in flight begins anew. What lay in the gap is lost; its responses are dropped and counted.
//! * Lost records of the response's direction: nobody knows how many responses lay in them, so that all requests in
//!   flight end [`Outcome::Incomplete`]. A wrong pair would be worse than none.

use super::pending::{Pending, Shared};
use super::{Exchange, Io, Method, Outcome, Side};
use crate::protocol::http1::{Body, Malformed, Parser, Piece, Request, Response, Step, may_resume, starts_response};
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
    routes_exact: bool,
    /// A request's head was read since the last [`Self::take_started`].
    started: bool,
    /// Records seen while undecided.
    undecided: u8,
}

const _: () = assert!(size_of::<HttpConnection>() <= 240, "an idle connection became expensive");

impl HttpConnection {
    /// Requests in flight on one connection: what fits into one captured record when they are pipelined.
    pub const IN_FLIGHT: usize = 256;
    /// A connection older than the daemon that shows no protocol within so many records is opaque.
    const UNDECIDED: u8 = 200;

    /// A connection. `side` is `None` where nobody saw who opened it: the first request line tells. `mid_stream`:
    /// bytes went over it before the daemon watched. `routes_exact`: axum's uprobe watches the target.
    #[must_use]
    pub fn new(side: Option<Side>, mid_stream: bool, routes_exact: bool) -> Self {
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

    /// The methods of the requests whose heads were read since the last call and that are still in flight.
    pub fn take_started(&mut self) -> impl Iterator<Item = Method> {
        let any = std::mem::take(&mut self.started);
        let started = if any { self.in_flight.iter_mut() } else { Default::default() };
        started.filter(|pending| pending.head_seen && !pending.told).map(|pending| {
            pending.told = true;
            pending.method()
        })
    }

    /// Tells whether axum's uprobe watches the target; holds for requests that begin from now on.
    pub const fn set_routes_exact(&mut self, exact: bool) {
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

    /// A router of the target matched this path, in the task that this connection's request runs in. It belongs to the
    /// oldest request whose head is whole and whose response has not begun: hyper answers one after the other. The
    /// same path has to come as the same `Arc` each time, so that joining nested ones allocates once.
    pub fn on_route(&mut self, path: &Arc<str>, shared: &mut Shared) {
        match self.in_flight.iter_mut().find(|pending| !pending.answered) {
            Some(pending) if pending.head_seen => pending.routed(path, &mut shared.joins),
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
            self.on_request_bytes(io, side, shared);
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

    fn on_request_bytes(&mut self, io: &Io<'_>, side: Side, shared: &mut Shared) {
        if io.lost > 0 {
            self.read_requests(Piece::Gap(io.lost), io, side, Place::Lost, shared);
        }
        // While the sequence is lost, a request line that begins a record counts when nothing is left to answer but,
        // at most, a response whose end is not known either.
        if self.requests.is_lost() && self.may_begin() && may_resume(io.data) {
            self.requests.resume();
            self.receiving = false;
            self.unsure = true;
            shared.stats.resyncs += 1;
        }
        let mut place = Place::Start;
        for piece in pieces(io) {
            self.read_requests(piece, io, side, place, shared);
            place = Place::Inside;
        }
        if self.requests.end_of_record(&mut shared.buffers) && self.receiving {
            self.requests.resume();
            self.end_of_request(io.time_ns);
            shared.stats.resyncs += 1;
        }
    }

    fn may_begin(&self) -> bool {
        match self.in_flight.front() {
            None => self.overflow == 0,
            Some(front) => self.in_flight.len() == 1 && front.answered && self.responses.is_lost(),
        }
    }

    fn read_requests(&mut self, mut piece: Piece<'_>, io: &Io<'_>, side: Side, mut place: Place, shared: &mut Shared) {
        while !piece.is_empty() {
            let begins = self.requests.is_at_start();
            let before = piece.len();
            let step = self.requests.next(&mut piece, Method::Other, &mut shared.buffers);
            let bytes = before - piece.len();
            match step {
                Step::Blank => continue,
                Step::Missing => {
                    shared.stats.lost_sync += 1;
                    self.receiving = false;
                    return;
                }
                _ if begins => {
                    self.receiving = self.overflow == 0 && self.in_flight.len() < Self::IN_FLIGHT;
                    if self.receiving {
                        self.in_flight.push_back(shared.begin(io, side, place == Place::Start, self.routes_exact));
                    } else {
                        self.overflow += 1;
                        shared.stats.pipeline_overflow += 1;
                    }
                }
                _ => {}
            }
            if place == Place::Start {
                place = Place::Inside;
            }
            let pending = self.in_flight.back_mut().filter(|_| self.receiving);
            let (content, ended) = match &step {
                Step::Body(content) => (*content, false),
                Step::End(content) => (*content, true),
                Step::Head(head) => (0, head.body == Body::None),
                Step::FramingLost(content) => {
                    shared.stats.lost_sync += 1;
                    (*content, false)
                }
                Step::Malformed(reason) => {
                    match reason {
                        Malformed::NotCaptured | Malformed::TooLong => shared.stats.truncated_heads += 1,
                        _ => shared.stats.malformed_requests += 1,
                    }
                    (0, false)
                }
                Step::Skipped => (bytes, false),
                Step::Partial | Step::Blank | Step::Missing => (0, false),
            };
            if let Step::Head(head) = &step {
                shared.stats.malformed_requests += u64::from(head.malformed.is_some());
                shared.stats.truncated_heads +=
                    u64::from(head.malformed.is_none() && matches!(head.body, Body::Lost(_)));
            }
            if let Some(pending) = pending {
                match &step {
                    Step::Head(head) => {
                        pending.head(head);
                        self.unsure = false;
                    }
                    Step::Malformed(Malformed::NotCaptured) => pending.unread = true,
                    // What looked like a request was none.
                    Step::Malformed(_) if !pending.head_seen => {
                        pending.unread = self.unsure;
                        pending.malformed = !self.unsure;
                    }
                    _ => {}
                }
                pending.request_bytes = pending.request_bytes.saturating_add(bytes);
                pending.request_body = pending.request_body.saturating_add(content);
            }
            if ended {
                self.end_of_request(if place == Place::Lost { 0 } else { io.time_ns });
            }
        }
    }

    fn end_of_request(&mut self, time_ns: u64) {
        if let Some(last) = self.in_flight.back_mut().filter(|_| self.receiving) {
            last.request_end_ns = time_ns;
        }
        self.receiving = false;
    }

    fn on_response_bytes(&mut self, io: &Io<'_>, side: Side, shared: &mut Shared, sink: &mut Sink<'_>) {
        if io.lost > 0 {
            if self.responses.absorbs(io.lost) {
                self.read_responses(Piece::Gap(io.lost), io, side, Place::Lost, shared, sink);
            } else {
                self.lose_responses(side, io.time_ns, shared, sink);
            }
        }
        if self.responses.is_lost() && starts_response(io.data) {
            self.resume_responses(io.data.len() >= 8, side, shared, sink);
        }
        for piece in pieces(io) {
            self.read_responses(piece, io, side, Place::Inside, shared, sink);
        }
        if self.responses.end_of_record(&mut shared.buffers)
            && self.in_flight.front().is_some_and(|front| front.answered)
        {
            self.responses.resume();
            shared.stats.resyncs += 1;
            self.finish_front(side, Outcome::Complete, io.time_ns, shared, sink);
        }
    }

    /// A record begins like a response while the sequence is lost. `certain`: by its whole version.
    fn resume_responses(&mut self, certain: bool, side: Side, shared: &mut Shared, sink: &mut Sink<'_>) {
        match self.in_flight.front() {
            // It may be the content of the body whose end is not known, unless another answer is due.
            Some(front) if front.answered && (self.in_flight.len() == 1 || !certain) => return,
            Some(front) if front.answered => {
                let end_ns = front.response_last_ns;
                self.finish_front(side, Outcome::Complete, end_ns, shared, sink);
            }
            Some(_) => {}
            None if self.overflow > 0 => {}
            None => {
                shared.stats.unmatched_responses += 1;
                return;
            }
        }
        shared.stats.resyncs += 1;
        self.responses.resume();
    }

    /// Records were lost where responses may have begun and ended.
    fn lose_responses(&mut self, side: Side, time_ns: u64, shared: &mut Shared, sink: &mut Sink<'_>) {
        shared.stats.lost_sync += 1;
        self.responses.lose();
        self.overflow = 0;
        while !self.in_flight.is_empty() {
            self.finish_front(side, Outcome::Incomplete, time_ns, shared, sink);
        }
    }

    fn read_responses(
        &mut self,
        mut piece: Piece<'_>,
        io: &Io<'_>,
        side: Side,
        place: Place,
        shared: &mut Shared,
        sink: &mut Sink<'_>,
    ) {
        while !piece.is_empty() {
            let due = self.in_flight.len();
            let Some(front) = self.in_flight.front_mut() else {
                return self.read_unwanted(piece, shared);
            };
            let before = piece.len();
            let step = self.responses.next(&mut piece, front.method, &mut shared.buffers);
            let bytes = before - piece.len();
            let time_ns = if place == Place::Lost { front.response_last_ns } else { io.time_ns };
            match step {
                Step::Blank => {}
                Step::Partial => front.response_part(bytes, 0, time_ns),
                Step::Head(head) => {
                    front.response_part(bytes, 0, time_ns);
                    shared.stats.malformed_responses += u64::from(head.malformed.is_some());
                    shared.stats.truncated_heads +=
                        u64::from(head.malformed.is_none() && matches!(head.body, Body::Lost(_)));
                    if head.status < 200 && head.status != 101 {
                        shared.stats.interim_responses += 1;
                        front.forget_response();
                        continue;
                    }
                    front.status = head.status;
                    front.answered = true;
                    if head.status == 101 || (front.method == Method::Connect && head.status < 300) {
                        self.finish_front(side, Outcome::Upgraded, time_ns, shared, sink);
                        self.lose_responses(side, time_ns, shared, sink);
                        return self.turn_opaque(Protocol::Upgraded, shared);
                    }
                    let method_known = front.head_seen || front.malformed;
                    if !method_known {
                        // It may answer a HEAD: nobody knows whether a body follows.
                        self.responses.lose();
                    }
                    if head.body == Body::None || !method_known {
                        self.finish_front(side, Outcome::Complete, time_ns, shared, sink);
                    }
                }
                Step::Body(content) => {
                    front.response_part(bytes, content, time_ns);
                }
                Step::End(content) => {
                    front.response_part(bytes, content, time_ns);
                    // When the last byte went is not known where its record was lost.
                    let outcome = if place == Place::Lost { Outcome::Incomplete } else { Outcome::Complete };
                    self.finish_front(side, outcome, time_ns, shared, sink);
                }
                Step::FramingLost(content) => {
                    shared.stats.lost_sync += 1;
                    front.response_part(bytes, content, time_ns);
                }
                Step::Malformed(reason) => {
                    match reason {
                        Malformed::NotCaptured | Malformed::TooLong => shared.stats.truncated_heads += 1,
                        _ => shared.stats.malformed_responses += 1,
                    }
                    if front.answered {
                        front.response_part(bytes, 0, time_ns);
                    }
                }
                Step::Missing if due == 1 && front.head_seen => {
                    shared.stats.lost_sync += 1;
                    front.answered = true;
                    front.response_part(bytes, 0, time_ns);
                }
                Step::Missing => self.lose_responses(side, time_ns, shared, sink),
                Step::Skipped if front.answered => {
                    front.response_part(bytes, bytes, time_ns);
                }
                Step::Skipped => {}
            }
        }
    }

    /// Responses that nothing in flight waits for: to requests that found no place, else to nobody knows what.
    #[cold]
    fn read_unwanted(&mut self, mut piece: Piece<'_>, shared: &mut Shared) {
        while !piece.is_empty() && self.overflow > 0 {
            match self.responses.next(&mut piece, Method::Other, &mut shared.buffers) {
                Step::Head(head) if head.body == Body::None && (head.status >= 200) => self.overflow -= 1,
                Step::End(_) => self.overflow -= 1,
                Step::Missing | Step::Malformed(_) | Step::FramingLost(_) => self.overflow = 0,
                _ => {}
            }
        }
        if let Piece::Bytes(bytes) = piece {
            if bytes.iter().all(|byte| matches!(byte, b'\r' | b'\n')) {
                return;
            }
            shared.stats.unmatched_responses += u64::from(!self.responses.is_lost() && starts_response(bytes));
        }
        if !piece.is_empty() {
            self.responses.lose();
        }
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
                    Step::Head(head) => front.head(&head),
                    _ => front.unread = true,
                }
            }
            if partial || (front.expects_continue && front.request_body == 0) {
                self.requests.lose();
            }
        }
        shared.finish(front, side, outcome, end_ns, sink);
    }

    fn end_all(&mut self, time_ns: u64, closed: bool, shared: &mut Shared, sink: &mut Sink<'_>) {
        let side = self.side.unwrap_or(Side::Server);
        let aborted = closed && side == Side::Server && (self.peer_ended || self.peer_failed);
        let outcome = if aborted { Outcome::ClientAborted } else { Outcome::Incomplete };
        // A body without length, or one whose framing was lost, ends with the connection.
        let closes = closed && !self.peer_failed && (self.responses.is_until_close() || self.responses.is_lost());
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

/// The record as bytes, gap, bytes.
fn pieces<'a>(io: &Io<'a>) -> [Piece<'a>; 3] {
    let data = &io.data[..io.data.len().min(io.len)];
    let missing = io.len - data.len();
    let tail = &io.tail[io.tail.len().saturating_sub(missing)..];
    [Piece::Bytes(data), Piece::Gap((missing - tail.len()) as u64), Piece::Bytes(tail)]
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
