//! The framing of messages, the same in both directions but for the start of a connection.
//!
//! Reads: pieces. Yields: [`Step`]s. Costs: see the module above.

use super::SQL_LIMIT;
use crate::protocol::{Buffers, Piece};
use std::marker::PhantomData;

/// What differs between the two directions.
pub trait Direction {
    /// A message.
    type Message<'p>: std::fmt::Debug;

    /// The type exists in this direction and its messages can have this length (which counts itself, as on the wire).
    fn plausible(kind: u8, length: u32) -> bool;

    /// How many bytes of a body of `body` bytes have to be read. `limit` is the longest SQL.
    fn wanted(kind: u8, body: u32, limit: u32) -> u32;

    /// These first bytes of a body are enough, though fewer than wanted.
    fn enough(kind: u8, prefix: &[u8]) -> bool;

    /// Reads a message. `prefix` holds the first bytes of its body, fewer than wanted where the rest was not captured.
    fn read(kind: u8, prefix: &[u8], limit: u32) -> Self::Message<'_>;

    /// The message that begins a connection, where this direction has one without a type: its code, and its length's
    /// plausibility.
    fn read_untyped(_code: u32, _prefix: &[u8]) -> Option<Self::Message<'_>> {
        None
    }

    /// The answer of one byte to a request for encryption.
    fn read_answer<'p>(_byte: u8) -> Option<Self::Message<'p>> {
        None
    }
}

/// What one call of [`Reader::next`] read off its piece.
#[derive(Debug)]
pub enum Step<M> {
    /// Part of a message of which nothing can be told yet.
    Partial,
    /// A message; the rest of its body may follow.
    Message(M),
    /// Part of a body that is not read.
    Body,
    /// A gap where a message had to begin: whole messages may lie in it. The sequence is lost until
    /// [`Reader::resume`].
    Missing,
    /// No message begins like this. The sequence is lost until [`Reader::resume`].
    Malformed,
    /// Bytes while the sequence is lost.
    Skipped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// So many bytes of a head are known.
    Head(u8),
    /// Gathering so many bytes of a body of the second length.
    Gather {
        kind: u8,
        wanted: u32,
        body: u32,
    },
    /// So many bytes of a body are left.
    Skip(u32),
    /// The answer to a request for encryption comes next.
    Answer,
    Lost,
}

/// Reads one direction of a connection. It never fails for good: after bytes that it cannot place it says so, skips,
/// and waits to be told ([`Reader::resume`]) that a message begins.
#[derive(Debug)]
pub struct Reader<D> {
    state: State,
    /// A head that came in pieces: type and length, or length and code.
    head: [u8; 8],
    /// Messages have no type yet.
    untyped: bool,
    /// `buffer` is no longer needed.
    spent: bool,
    limit: u32,
    /// A body's beginning that came in pieces.
    buffer: Vec<u8>,
    direction: PhantomData<D>,
}

/// The type that stands for a message without one; no message has it.
const UNTYPED: u8 = 0;

impl<D: Direction> Reader<D> {
    /// A direction that begins with a typed message.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            state: State::Head(0),
            head: [0; 8],
            untyped: false,
            spent: false,
            limit: SQL_LIMIT,
            buffer: Vec::new(),
            direction: PhantomData,
        }
    }

    /// A direction that begins anywhere.
    #[must_use]
    pub const fn lost() -> Self {
        let mut this = Self::new();
        this.state = State::Lost;
        this
    }

    /// Reads at most so many bytes of each statement's text.
    #[must_use]
    pub const fn with_sql_limit(mut self, limit: u32) -> Self {
        self.limit = limit;
        self
    }

    /// Messages come without a type until [`Self::typed`].
    pub(super) const fn untyped(mut self) -> Self {
        self.untyped = true;
        self
    }

    /// From here on messages have a type.
    pub const fn typed(&mut self) {
        self.untyped = false;
    }

    /// Messages have no type yet.
    #[must_use]
    pub const fn is_untyped(&self) -> bool {
        self.untyped
    }

    /// The next byte is an answer to a request for encryption.
    pub const fn expect_answer(&mut self) {
        if matches!(self.state, State::Head(0)) {
            self.state = State::Answer;
        }
    }

    /// The next byte begins a message.
    #[must_use]
    pub const fn is_at_start(&self) -> bool {
        matches!(self.state, State::Head(0) | State::Answer)
    }

    /// The sequence of messages is lost.
    #[must_use]
    pub const fn is_lost(&self) -> bool {
        matches!(self.state, State::Lost)
    }

    /// Part of a message is known of which nothing was told yet. A gap makes the reader tell it.
    #[must_use]
    pub const fn is_gathering(&self) -> bool {
        matches!(self.state, State::Gather { .. })
    }

    /// Bytes of the current body that need not be read.
    #[must_use]
    pub const fn unread(&self) -> u64 {
        if let State::Skip(left) = self.state { left as u64 } else { 0 }
    }

    /// Loses the sequence.
    pub fn lose(&mut self) {
        self.state = State::Lost;
        self.spent = true;
    }

    /// A message begins here.
    pub fn resume(&mut self) {
        self.state = State::Head(0);
        self.untyped = false;
        self.spent = true;
    }

    /// Gives memory back that is not needed until the next piece.
    pub fn end_of_record(&mut self, buffers: &mut Buffers) {
        if self.spent {
            self.recycle(buffers);
        }
    }

    fn recycle(&mut self, buffers: &mut Buffers) {
        self.spent = false;
        if self.buffer.capacity() > 0 {
            buffers.give(std::mem::take(&mut self.buffer));
        }
    }

    /// Reads the next step off the front of `piece`, which must not be empty.
    pub fn next<'p, 'i: 'p>(&'p mut self, piece: &mut Piece<'i>, buffers: &mut Buffers) -> Step<D::Message<'p>> {
        if self.spent {
            self.recycle(buffers);
        }
        match self.state {
            State::Head(known) => self.next_of_head(piece, known, buffers),
            State::Gather { kind, wanted, body } => self.next_gathered(piece, (kind, wanted, body), buffers),
            State::Skip(left) => {
                let read = skip(piece, left);
                self.state = rest(left - read);
                Step::Body
            }
            State::Answer => self.next_answer(piece),
            State::Lost => {
                skip_all(piece);
                Step::Skipped
            }
        }
    }

    fn next_answer<'p>(&mut self, piece: &mut Piece<'_>) -> Step<D::Message<'p>> {
        let Piece::Bytes([byte, after @ ..]) = piece else {
            return self.give_up(piece, Step::Missing);
        };
        self.state = State::Head(0);
        match D::read_answer(*byte) {
            Some(message) => {
                *piece = Piece::Bytes(after);
                Step::Message(message)
            }
            // Servers before 7.4 and some poolers answer with an ErrorResponse: it is read as such next.
            None => Step::Partial,
        }
    }

    fn give_up<'p>(&mut self, piece: &mut Piece<'_>, step: Step<D::Message<'p>>) -> Step<D::Message<'p>> {
        self.lose();
        skip_all(piece);
        step
    }

    fn next_of_head<'p, 'i: 'p>(
        &'p mut self,
        piece: &mut Piece<'i>,
        known: u8,
        buffers: &mut Buffers,
    ) -> Step<D::Message<'p>> {
        let Piece::Bytes(bytes) = *piece else {
            return self.give_up(piece, Step::Missing);
        };
        // The usual case: a typed head that lies whole in the piece.
        if known == 0
            && !self.untyped
            && let [kind, a, b, c, d, after @ ..] = bytes
        {
            return self.start(*kind, u32::from_be_bytes([*a, *b, *c, *d]), after, piece, buffers);
        }
        let size = if self.untyped { 8 } else { 5 };
        let (known, added) = (usize::from(known), bytes.len().min(size - usize::from(known)));
        self.head[known..known + added].copy_from_slice(&bytes[..added]);
        let bytes = &bytes[added..];
        *piece = Piece::Bytes(bytes);
        let [a, b, c, d, e, ..] = self.head;
        let (kind, length) = if self.untyped { (UNTYPED, [a, b, c, d]) } else { (a, [b, c, d, e]) };
        if known + added < size {
            self.state = State::Head((known + added) as u8);
            return Step::Partial;
        }
        self.start(kind, u32::from_be_bytes(length), bytes, piece, buffers)
    }

    /// A head was read; `bytes` follow it in the piece.
    fn start<'p, 'i: 'p>(
        &'p mut self,
        kind: u8,
        length: u32,
        bytes: &'i [u8],
        piece: &mut Piece<'i>,
        buffers: &mut Buffers,
    ) -> Step<D::Message<'p>> {
        *piece = Piece::Bytes(bytes);
        let (wanted, body) = if kind == UNTYPED {
            if !(8..=10_000).contains(&length) {
                return self.give_up(piece, Step::Malformed);
            }
            (length - 8, length - 8)
        } else {
            if !D::plausible(kind, length) {
                return self.give_up(piece, Step::Malformed);
            }
            (D::wanted(kind, length - 4, self.limit), length - 4)
        };
        let there = bytes.len().min(wanted as usize);
        let (prefix, after) = bytes.split_at(there);
        if there < wanted as usize && !(kind != UNTYPED && D::enough(kind, prefix)) {
            if buffers.append(&mut self.buffer, prefix) {
                *piece = Piece::Bytes(&[]);
                self.state = State::Gather { kind, wanted, body };
                return Step::Partial;
            }
            if kind == UNTYPED {
                return self.give_up(piece, Step::Missing);
            }
            // Told by what there is, as if the rest had not been captured.
            self.recycle(buffers);
        }
        *piece = Piece::Bytes(after);
        self.state = rest(body - there as u32);
        if kind == UNTYPED {
            let [.., e, f, g, h] = self.head;
            return D::read_untyped(u32::from_be_bytes([e, f, g, h]), prefix)
                .map_or_else(|| self.malformed(), Step::Message);
        }
        Step::Message(D::read(kind, prefix, self.limit))
    }

    fn malformed<'p>(&mut self) -> Step<D::Message<'p>> {
        self.lose();
        Step::Malformed
    }

    fn next_gathered<'p>(
        &'p mut self,
        piece: &mut Piece<'_>,
        (kind, wanted, body): (u8, u32, u32),
        buffers: &mut Buffers,
    ) -> Step<D::Message<'p>> {
        if let Piece::Bytes(bytes) = piece {
            let added = bytes.len().min(wanted as usize - self.buffer.len());
            // Where there is no room for more it is told by what there is.
            let fits = buffers.append(&mut self.buffer, &bytes[..added]);
            if fits {
                *bytes = &bytes[added..];
            }
            let enough = !fits || kind != UNTYPED && D::enough(kind, &self.buffer);
            if self.buffer.len() < wanted as usize && !enough {
                return Step::Partial;
            }
        }
        // Whole, or its rest was not captured: told by what there is, and the gap is skipped next.
        self.state = rest(body - self.buffer.len() as u32);
        self.spent = true;
        if kind != UNTYPED {
            return Step::Message(D::read(kind, &self.buffer, self.limit));
        }
        let [.., e, f, g, h] = self.head;
        match D::read_untyped(u32::from_be_bytes([e, f, g, h]), &self.buffer) {
            Some(message) => Step::Message(message),
            None => {
                self.state = State::Lost;
                Step::Malformed
            }
        }
    }
}

impl<D: Direction> Default for Reader<D> {
    fn default() -> Self {
        Self::new()
    }
}

const fn rest(left: u32) -> State {
    if left == 0 { State::Head(0) } else { State::Skip(left) }
}

/// Takes up to `most` bytes off a piece; returns how many.
fn skip(piece: &mut Piece<'_>, most: u32) -> u32 {
    let read = piece.len().min(u64::from(most));
    match piece {
        Piece::Bytes(bytes) => *bytes = &bytes[read as usize..],
        Piece::Gap(length) => *length -= read,
    }
    read as u32
}

fn skip_all(piece: &mut Piece<'_>) {
    match piece {
        Piece::Bytes(bytes) => *bytes = &[],
        Piece::Gap(length) => *length = 0,
    }
}
