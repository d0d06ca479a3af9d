//! One direction of an HTTP/1 connection as a sequence of messages.
//!
//! Reads: [`Piece`]s, in order. Yields: [`Step`]s: heads, parts and ends of bodies, and every place where the
//! sequence is lost. Costs: no copy for a head that lies in one piece; 56 bytes of state.

use super::body::Progress;
use super::head::{self, Parsed};
use super::{Body, Buffers, HEAD_LIMIT, Malformed, Piece, RequestHead, ResponseHead, Starts};
use crate::exchange::Method;
use memchr::memchr_iter;
use std::marker::PhantomData;

/// What a direction carries: [`Request`]s or [`Response`]s.
pub trait Message: sealed::Sealed {}

/// Requests.
#[derive(Debug)]
pub enum Request {}

/// Responses.
#[derive(Debug)]
pub enum Response {}

impl Message for Request {}
impl Message for Response {}

mod sealed {
    use super::{Body, Malformed, Method, Parsed};

    pub trait Sealed {
        type Head<'a>;
        fn parse(bytes: &[u8], request: Method, truncated: bool) -> Parsed<Self::Head<'_>>;
        fn body(head: &Self::Head<'_>) -> Body;
        fn refuse(bytes: &[u8]) -> Option<Malformed>;
    }
}

impl sealed::Sealed for Request {
    type Head<'a> = RequestHead<'a>;

    fn parse(bytes: &[u8], _: Method, truncated: bool) -> Parsed<RequestHead<'_>> {
        head::request(bytes, truncated)
    }

    fn body(head: &RequestHead<'_>) -> Body {
        head.body
    }

    fn refuse(bytes: &[u8]) -> Option<Malformed> {
        (head::starts_request(bytes) == Starts::No).then_some(Malformed::RequestLine)
    }
}

impl sealed::Sealed for Response {
    type Head<'a> = ResponseHead;

    fn parse(bytes: &[u8], request: Method, truncated: bool) -> Parsed<ResponseHead> {
        head::response(bytes, request, truncated)
    }

    fn body(head: &ResponseHead) -> Body {
        head.body
    }

    fn refuse(bytes: &[u8]) -> Option<Malformed> {
        (!head::starts_response(bytes)).then_some(Malformed::StatusLine)
    }
}

/// What one call of [`Parser::next`] read off its piece.
#[derive(Debug)]
pub enum Step<'p, M: Message> {
    /// Line ends before a message.
    Blank,
    /// Part of a head.
    Partial,
    /// A head. Where its `body` is [`Body::None`] the message ended with it.
    Head(M::Head<'p>),
    /// Part of a body, with so many bytes of content.
    Body(u64),
    /// The last of a body, with so many bytes of content.
    End(u64),
    /// Part of a body whose framing was lost at this step. The sequence is lost until [`Parser::resume`].
    FramingLost(u64),
    /// The first line or a chunk is malformed. The sequence is lost until [`Parser::resume`].
    Malformed(Malformed),
    /// A gap between messages: whole messages may lie in it. The sequence is lost until [`Parser::resume`].
    Missing,
    /// Bytes while the sequence is lost.
    Skipped,
}

/// Reads one direction of a connection. It never fails for good: after bytes that it cannot place it says so, skips,
/// and waits to be told ([`Parser::resume`]) that a message begins.
#[derive(Debug)]
pub struct Parser<M> {
    /// What is left of a body; [`Body::None`] where a head comes next.
    rest: Body,
    /// A head's beginning.
    partial: Vec<u8>,
    /// `partial` is no longer needed.
    spent: bool,
    message: PhantomData<M>,
}

impl<M: Message> Parser<M> {
    /// A direction that begins with a message.
    #[must_use]
    pub const fn new() -> Self {
        Self { rest: Body::None, partial: Vec::new(), spent: false, message: PhantomData }
    }

    /// A direction that begins anywhere.
    #[must_use]
    pub const fn lost() -> Self {
        Self { rest: Body::Lost(0), partial: Vec::new(), spent: false, message: PhantomData }
    }

    /// Reads the next step off the front of `piece`, which must not be empty. `request` is the method of the request
    /// that a response answers.
    pub fn next<'p, 'i: 'p>(
        &'p mut self,
        piece: &mut Piece<'i>,
        request: Method,
        buffers: &mut Buffers,
    ) -> Step<'p, M> {
        if self.spent {
            self.recycle(buffers);
        }
        if self.rest != Body::None {
            return self.next_of_body(piece);
        }
        match piece {
            Piece::Bytes(bytes) => self.next_of_head(bytes, request, buffers),
            Piece::Gap(_) if self.partial.is_empty() => {
                self.rest = Body::Lost(0);
                self.rest.read(piece);
                Step::Missing
            }
            // The head's end was not captured: read what is there, and let the gap be skipped next.
            Piece::Gap(_) => self.gathered(request, true, Malformed::NotCaptured),
        }
    }

    fn next_of_body<'p>(&mut self, piece: &mut Piece<'_>) -> Step<'p, M> {
        let lost = self.is_lost();
        let (content, progress) = self.rest.read(piece);
        match progress {
            Progress::More if lost => Step::Skipped,
            Progress::More => Step::Body(content),
            Progress::End => {
                self.rest = Body::None;
                Step::End(content)
            }
            Progress::Lost => {
                self.rest = Body::Lost(0);
                Step::FramingLost(content)
            }
            Progress::Malformed => {
                self.rest = Body::Lost(0);
                self.rest.read(piece);
                Step::Malformed(Malformed::Chunk)
            }
        }
    }

    fn next_of_head<'p, 'i: 'p>(
        &'p mut self,
        input: &mut &'i [u8],
        request: Method,
        buffers: &mut Buffers,
    ) -> Step<'p, M> {
        let bytes: &'i [u8] = input;
        if self.partial.is_empty() {
            let blank = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
            if blank > 0 {
                *input = &bytes[blank..];
                return Step::Blank;
            }
            let window = &bytes[..bytes.len().min(HEAD_LIMIT)];
            let parsed = match M::parse(window, request, false) {
                Parsed::Partial if window.len() == HEAD_LIMIT => M::parse(window, request, true),
                Parsed::Partial => M::refuse(bytes).map_or(Parsed::Partial, Parsed::Malformed),
                parsed => parsed,
            };
            match parsed {
                Parsed::Head(head, length) => {
                    *input = &bytes[length..];
                    self.rest = M::body(&head);
                    return Step::Head(head);
                }
                Parsed::Partial if window.len() < HEAD_LIMIT => {}
                Parsed::Partial => return self.refuse(input, Malformed::TooLong),
                Parsed::Malformed(reason) => return self.refuse(input, reason),
            }
        }
        let known = self.partial.len();
        let added = bytes.len().min(HEAD_LIMIT - known);
        if !buffers.append(&mut self.partial, &bytes[..added]) {
            // As if the rest had not been captured.
            if known == 0 {
                return self.refuse(input, Malformed::NotCaptured);
            }
            return self.gathered(request, true, Malformed::NotCaptured);
        }
        if let Some(end) = find_end(&self.partial, known.saturating_sub(2)) {
            self.partial.truncate(end);
            *input = &bytes[end - known..];
            return self.gathered(request, false, Malformed::TooLong);
        }
        *input = &bytes[added..];
        if self.partial.len() < HEAD_LIMIT { Step::Partial } else { self.gathered(request, true, Malformed::TooLong) }
    }

    /// Reads the head in `partial`.
    fn gathered(&mut self, request: Method, truncated: bool, no_line: Malformed) -> Step<'_, M> {
        self.spent = true;
        match M::parse(&self.partial, request, truncated) {
            Parsed::Head(head, _) => {
                self.rest = M::body(&head);
                Step::Head(head)
            }
            Parsed::Partial => {
                self.rest = Body::Lost(0);
                Step::Malformed(no_line)
            }
            Parsed::Malformed(reason) => {
                self.rest = Body::Lost(0);
                Step::Malformed(reason)
            }
        }
    }

    fn refuse<'p>(&mut self, input: &mut &[u8], reason: Malformed) -> Step<'p, M> {
        self.lose();
        *input = &[];
        Step::Malformed(reason)
    }

    /// To be called after each record: gives the buffer of a head that was read back, and tells whether the sequence
    /// is lost and the record ended with what ends a chunked body.
    pub fn end_of_record(&mut self, buffers: &mut Buffers) -> bool {
        if self.spent {
            self.recycle(buffers);
        }
        self.rest.ends_with_last_chunk()
    }

    fn recycle(&mut self, buffers: &mut Buffers) {
        self.spent = false;
        buffers.give(std::mem::take(&mut self.partial));
    }

    /// Begins with a head again.
    pub const fn resume(&mut self) {
        self.rest = Body::None;
        self.spent = true;
    }

    /// Skips until [`Self::resume`].
    pub const fn lose(&mut self) {
        self.rest = Body::Lost(0);
        self.spent = true;
    }

    /// Skips until [`Self::resume`].
    #[must_use]
    pub const fn is_lost(&self) -> bool {
        matches!(self.rest, Body::Lost(_))
    }

    /// Everything until the close belongs to the current body.
    #[must_use]
    pub const fn is_until_close(&self) -> bool {
        matches!(self.rest, Body::UntilClose)
    }

    /// Between messages.
    #[must_use]
    pub const fn is_at_start(&self) -> bool {
        matches!(self.rest, Body::None) && (self.spent || self.partial.is_empty())
    }

    /// What was gathered of a head.
    #[must_use]
    pub fn partial(&self) -> &[u8] {
        if self.spent { &[] } else { &self.partial }
    }

    /// Whether so many bytes that nobody saw lie certainly inside the current body.
    #[must_use]
    pub const fn absorbs(&self, lost: u64) -> bool {
        self.rest.absorbs(lost)
    }
}

impl<M: Message> Default for Parser<M> {
    fn default() -> Self {
        Self::new()
    }
}

/// Length of the head: up to and with its first empty line, looked for from `from` on.
fn find_end(bytes: &[u8], from: usize) -> Option<usize> {
    memchr_iter(b'\n', &bytes[from..]).find_map(|index| {
        let next = from + index + 1;
        match bytes[next..] {
            [b'\n', ..] => Some(next + 1),
            [b'\r', b'\n', ..] => Some(next + 2),
            _ => None,
        }
    })
}
