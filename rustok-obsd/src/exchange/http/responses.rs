//! The response's direction of a connection.
//!
//! Reads: records, in order. Yields: exchanges, as soon as their response is whole. Costs: see the module above.

use super::{HttpConnection, Place, Sink, pieces};
use crate::exchange::pending::Shared;
use crate::exchange::{Io, Method, Outcome, Side};
use crate::protocol::Protocol;
use crate::protocol::http1::{Body, Malformed, Piece, Step, starts_response};

impl HttpConnection {
    pub(super) fn on_response_bytes(&mut self, io: &Io<'_>, side: Side, shared: &mut Shared, sink: &mut Sink<'_>) {
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
    pub(super) fn lose_responses(&mut self, side: Side, time_ns: u64, shared: &mut Shared, sink: &mut Sink<'_>) {
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
                    let method_known = !front.unread && (front.head_seen || front.malformed);
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
                        Malformed::NotCaptured | Malformed::TooLong => {
                            shared.stats.truncated_heads += 1;
                        }
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
                Step::Head(head) if head.body == Body::None && (head.status >= 200) => {
                    self.overflow -= 1;
                }
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
}
