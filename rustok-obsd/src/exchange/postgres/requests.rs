//! What the target asks.
//!
//! Reads: records of the client's direction. Yields: begins of operations, and answers that are expected. Costs: see
//! the module above.

use super::ops::{Kind, Ops};
use super::{Moment, OtherKind, PostgresConnection, Shared, Sink, WireEvent, WireSql};
use crate::exchange::{Io, pieces};
use crate::protocol::Piece;
use crate::protocol::postgres::{Chain, Frontend, FrontendMessage, Reader, Step, Target};
use std::sync::Arc;

impl PostgresConnection {
    pub(super) fn on_requests(&mut self, io: &Io<'_>, shared: &mut Shared, sink: &mut Sink<'_>) {
        if io.lost > 0 {
            self.read_requests(Piece::Gap(io.lost), io, shared, sink);
        }
        if (self.requests.is_lost() || self.requests.unread() > io.len as u64) && !self.opaque {
            let chain = Chain::follow::<Frontend>(io.data, io.tail, io.len);
            // Whole messages where a body should go on: what was taken for its head was none.
            if !self.requests.is_lost() && chain.is_some_and(|chain| chain.exact && chain.strong_or_many()) {
                shared.stats.lost_sync += 1;
                self.requests.lose();
                self.break_off(io.time_ns, shared, sink);
            }
            if self.requests.is_lost() {
                if !chain.is_some_and(|chain| chain.begins_requests()) {
                    return;
                }
                self.requests.resume();
                shared.stats.resyncs += 1;
            }
        }
        let [data, mut gap, tail] = pieces(io);
        self.read_requests(data, io, shared, sink);
        if self.requests.is_gathering() && !gap.is_empty() {
            self.read_request(&mut gap, io, shared, sink);
        }
        if let Some(inferred) = self.inferred(gap, tail) {
            shared.stats.inferred_executes += 1;
            let skipped = Piece::Gap(self.requests.unread());
            self.read_requests(skipped, io, shared, sink);
            for piece in inferred {
                self.read_requests(Piece::Bytes(piece), io, shared, sink);
            }
            return;
        }
        self.read_requests(gap, io, shared, sink);
        self.read_requests(tail, io, shared, sink);
    }

    /// The messages behind a body whose end was not captured, where the bytes left over and the last of them leave one
    /// reading: Execute and Sync (tokio-postgres); Execute, Close and Sync (sqlx); Describe, Execute and Sync (libpq); or,
    /// behind a Parse, Describe and Sync (sqlx).
    fn inferred(&self, gap: Piece<'_>, tail: Piece<'_>) -> Option<[&'static [u8]; 3]> {
        const EXECUTE: &[u8] = b"E\0\0\0\x09\0\0\0\0\0";
        const CLOSE: &[u8] = b"C\0\0\0\x06P\0";
        const DESCRIBE_PORTAL: &[u8] = b"D\0\0\0\x06P\0";
        const DESCRIBE: &[u8] = b"D\0\0\0\x06S\0";
        const SYNC: &[u8] = b"S\0\0\0\x04";
        let Piece::Bytes([a, b, c, b'S', 0, 0, 0, 4]) = tail else {
            return None;
        };
        let unread = self.requests.unread();
        if unread == 0 || unread > gap.len() {
            return None;
        }
        let rest = gap.len() + 8 - unread;
        match (self.parse_name, rest, [*a, *b, *c]) {
            // The last bytes of the row limit; or, with the type of a portal, of the Close.
            (None, 15, [_, _, _]) => Some([EXECUTE, b"", SYNC]),
            (None, 22, [6, b'P', 0]) => Some([EXECUTE, CLOSE, SYNC]),
            (None, 22, [0, 0, _]) => Some([DESCRIBE_PORTAL, EXECUTE, SYNC]),
            (Some(0), 12, [6, b'S', 0]) => Some([DESCRIBE, b"", SYNC]),
            (Some(name), rest, [_, b, 0]) if b != 0 && name > 0 && rest == 12 + name as u64 => {
                Some([DESCRIBE, b"", SYNC])
            }
            _ => None,
        }
    }

    fn read_requests(&mut self, mut piece: Piece<'_>, io: &Io<'_>, shared: &mut Shared, sink: &mut Sink<'_>) {
        while !piece.is_empty() && !self.opaque {
            self.read_request(&mut piece, io, shared, sink);
        }
    }

    fn read_request(&mut self, piece: &mut Piece<'_>, io: &Io<'_>, shared: &mut Shared, sink: &mut Sink<'_>) {
        if self.requests.is_at_start() {
            self.asked = io.into();
            self.parse_name = None;
        }
        // Taken out, because the message may borrow from the reader's buffer.
        let mut reader = std::mem::replace(&mut self.requests, Reader::lost());
        let starting = reader.is_untyped();
        match reader.next(piece, &mut shared.buffers) {
            Step::Message(message) => {
                self.on_request(&message, shared, sink);
                match message {
                    FrontendMessage::Startup { .. } => reader.typed(),
                    FrontendMessage::Parse { name, .. } => self.parse_name = name.map(<[u8]>::len),
                    _ => {}
                }
            }
            Step::Missing => {
                shared.stats.lost_sync += 1;
                self.break_off(io.time_ns, shared, sink);
            }
            Step::Malformed => {
                shared.stats.malformed += 1;
                if starting {
                    // It never spoke the protocol.
                    self.turn_opaque(io.time_ns, shared, sink);
                }
                self.break_off(io.time_ns, shared, sink);
            }
            Step::Partial | Step::Body | Step::Skipped => {}
        }
        self.requests = reader;
    }

    fn on_request(&mut self, message: &FrontendMessage<'_>, shared: &mut Shared, sink: &mut Sink<'_>) {
        let at = self.asked;
        if self.ops.is_full() {
            shared.stats.pipeline_overflow += 1;
            self.break_off(at.time_ns, shared, sink);
        }
        match *message {
            FrontendMessage::Startup { database, replication: _ } => {
                sink(WireEvent::Other(OtherKind::Startup));
                if !database.is_empty() {
                    sink(WireEvent::Startup { database });
                }
                self.ops.expect(Kind::Startup, 0);
            }
            FrontendMessage::SslRequest | FrontendMessage::GssEncRequest => {
                sink(WireEvent::Other(OtherKind::EncryptionRequest));
                self.answers.expect_answer();
            }
            FrontendMessage::CancelRequest => sink(WireEvent::Other(OtherKind::Cancel)),
            FrontendMessage::Password => sink(WireEvent::Other(OtherKind::Authentication)),
            FrontendMessage::Terminate => {
                self.drop_current(sink);
                sink(WireEvent::Other(OtherKind::Terminate));
            }
            FrontendMessage::Parse { name, sql, truncated } => {
                self.drop_current(sink);
                self.strings.asked(sql, sink);
                self.group += 1;
                let text = shared.texts.share(shared.buffers.owner, sql, truncated);
                match (name, &text) {
                    (Some(name), Some(text)) => {
                        shared.stats.forgotten_names += self.statements.set(name, Arc::clone(text));
                    }
                    // It stands for another statement from now on.
                    (Some(name), None) => self.statements.forget(name),
                    (None, _) => {}
                }
                let op = self.ops.start(at, text, false);
                self.ops.expect(Kind::Parse, op);
            }
            FrontendMessage::Bind { portal, statement } => {
                self.group += 1;
                let text = statement.and_then(|name| self.statements.get(name));
                if let Some(portal) = portal {
                    self.portals.set(portal, text.clone());
                }
                if !self.ops.bind_current(text.as_ref(), at) {
                    self.drop_current(sink);
                    self.ops.start(at, text, true);
                }
                self.ops.expect(Kind::Bind, self.ops.current());
            }
            FrontendMessage::Describe { target, .. } => {
                self.group += 1;
                let kind = if target == Target::Statement { Kind::DescribeStatement } else { Kind::Describe };
                self.ops.expect(kind, self.ops.current());
            }
            FrontendMessage::Execute { portal } => self.on_execute(portal, at, shared, sink),
            FrontendMessage::Close { target, name } => {
                self.group += 1;
                self.group_closes += 1;
                match (target, name) {
                    (Target::Statement, Some(name)) => self.statements.forget(name),
                    (Target::Portal, Some(name)) => self.portals.forget(name),
                    (_, None) => {}
                }
                self.ops.expect(Kind::Close, 0);
            }
            FrontendMessage::Sync => {
                if self.group == 0 {
                    self.drop_current(sink);
                    sink(WireEvent::Other(OtherKind::Ping));
                } else if self.group == self.group_closes {
                    sink(WireEvent::Other(OtherKind::Close));
                }
                self.group = 0;
                self.group_closes = 0;
                self.ops.expect(Kind::Sync, 0);
            }
            FrontendMessage::Query { sql, truncated } => {
                self.on_simple(Kind::Query, WireSql::Text { sql, truncated }, at, shared, sink);
                self.strings.asked(sql, sink);
            }
            FrontendMessage::FunctionCall => {
                self.on_simple(Kind::FunctionCall, WireSql::Function, at, shared, sink);
            }
            FrontendMessage::Flush
            | FrontendMessage::CopyData
            | FrontendMessage::CopyDone
            | FrontendMessage::CopyFail => {}
        }
    }

    fn on_execute(&mut self, portal: Option<&[u8]>, at: Moment, shared: &mut Shared, sink: &mut Sink<'_>) {
        self.group += 1;
        let op = if self.ops.current_is_bound() {
            self.ops.current()
        } else {
            self.drop_current(sink);
            let text = portal.and_then(|name| self.portals.get(name));
            self.ops.start(at, text, true)
        };
        self.ops.tell(op, None, shared, sink);
        if self.ops.skipping {
            // The server will not look at it.
            self.ops.refuse(op, at.time_ns, shared, sink);
        } else {
            self.ops.expect(Kind::Execute, op);
        }
    }

    /// A message that is an operation of its own and is answered by ReadyForQuery.
    fn on_simple(&mut self, kind: Kind, sql: WireSql<'_>, at: Moment, shared: &mut Shared, sink: &mut Sink<'_>) {
        self.drop_current(sink);
        self.group = 0;
        self.group_closes = 0;
        let op = self.ops.start(at, None, true);
        self.ops.tell(op, Some(sql), shared, sink);
        if self.ops.skipping {
            self.ops.refuse(op, at.time_ns, shared, sink);
        } else {
            self.ops.expect(kind, op);
        }
    }
}

const _: () = assert!(Ops::BOUND > 4096, "a captured record of pipelined messages has to fit");
