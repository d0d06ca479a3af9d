//! The request's direction of a connection.
//!
//! Reads: records, in order. Yields: requests in flight, and their ends. Costs: see the module above.

use super::{HttpConnection, Place, Sink};
use crate::exchange::pending::Shared;
use crate::exchange::{Io, Method, Side, pieces};
use crate::protocol::http1::{Body, Malformed, Piece, Step, may_resume};

impl HttpConnection {
    pub(super) fn on_request_bytes(&mut self, io: &Io<'_>, side: Side, shared: &mut Shared, sink: &mut Sink<'_>) {
        if io.lost > 0 {
            self.read_requests(Piece::Gap(io.lost), io, side, Place::Lost, shared);
            // Whole requests may have been lost, and answers with them: who waits for which is not known any more. Each
            // request is told all the same.
            if self.requests.is_lost() && !self.may_begin() && may_resume(io.data) {
                self.lose_responses(side, io.time_ns, shared, sink);
            }
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
                    let fits = self.overflow == 0 && self.in_flight.len() < Self::IN_FLIGHT;
                    let exact = self.routes_exact.covers(io.time_ns);
                    let begun = if fits { shared.begin(io, side, place == Place::Start, exact) } else { None };
                    self.receiving = begun.is_some();
                    if let Some(begun) = begun {
                        self.in_flight.push_back(begun);
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
                        Malformed::NotCaptured | Malformed::TooLong => {
                            shared.stats.truncated_heads += 1;
                        }
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
                        shared.take_head(pending, head);
                        self.started = true;
                        // The first bytes of the method may have been lost.
                        pending.unread = self.unsure && head.method == Method::Other;
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
}
