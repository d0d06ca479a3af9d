//! What the target is answered.
//!
//! Reads: records of the server's direction. Yields: first answers, ends, and the rest. Costs: see the module above.

use super::ops::{Expected, Kind};
use super::{Moment, OtherKind, PostgresConnection, Shared, Sink, WireEvent};
use crate::database::Ending;
use crate::exchange::{Io, pieces};
use crate::protocol::Piece;
use crate::protocol::postgres::{Backend, BackendMessage, Chain, Copy, Severity, Step, TransactionStatus, ends_ready};

impl PostgresConnection {
    pub(super) fn on_answers(&mut self, io: &Io<'_>, shared: &mut Shared, sink: &mut Sink<'_>) {
        if io.lost > 0 {
            let known = self.answers.unread() >= io.lost || self.answers.is_lost();
            self.read_answers(Piece::Gap(io.lost), io, shared, sink);
            self.strings.doubt(sink);
            if !known {
                // Whole messages were lost: nobody knows how many answers.
                self.break_off(io.time_ns, shared, sink);
            }
        }
        if self.answers.is_lost() || self.answers.unread() > io.len as u64 {
            let chain = Chain::follow::<Backend>(io.data, io.tail, io.len);
            // Whole messages where a body should go on: what was taken for its head was none.
            let no_body = chain.is_some_and(|chain| chain.exact) && ends_ready(io.data, io.tail, io.len).is_some();
            if !self.answers.is_lost() && no_body {
                shared.stats.lost_sync += 1;
                self.answers.lose();
            }
            if self.answers.is_lost() && chain.is_some_and(|chain| chain.begins_answers()) {
                self.answers.resume();
                shared.stats.resyncs += 1;
            }
        }
        for piece in pieces(io) {
            self.read_answers(piece, io, shared, sink);
        }
        if self.answers.is_lost()
            && !self.opaque
            && let Some(status) = ends_ready(io.data, io.tail, io.len)
        {
            self.answers.resume();
            shared.stats.resyncs += 1;
            self.end_unread(status, io.into(), shared, sink);
        }
    }

    fn read_answers(&mut self, mut piece: Piece<'_>, io: &Io<'_>, shared: &mut Shared, sink: &mut Sink<'_>) {
        while !piece.is_empty() && !self.opaque {
            if self.answers.is_at_start() {
                self.answered = io.into();
            }
            let step = self.answers.next(&mut piece, &mut shared.buffers);
            match step {
                Step::Message(message) => self.on_answer(message, io.time_ns, shared, sink),
                Step::Missing => {
                    shared.stats.lost_sync += 1;
                    self.strings.doubt(sink);
                }
                Step::Malformed => {
                    self.strings.doubt(sink);
                    shared.stats.malformed += 1;
                    self.break_off(io.time_ns, shared, sink);
                }
                Step::Partial | Step::Body | Step::Skipped => {}
            }
        }
    }

    /// A record ended with ReadyForQuery, and the messages before it were not captured.
    fn end_unread(&mut self, status: TransactionStatus, at: Moment, shared: &mut Shared, sink: &mut Sink<'_>) {
        if self.ops.groups() == 1 && self.ops.last_is_group() {
            let failed = status == TransactionStatus::Failed && self.status == Some(TransactionStatus::InTransaction);
            self.ops.end_unread(if failed { Ending::Failed } else { Ending::Complete }, at, shared, sink);
            self.ops.pop();
            self.on_ready(Some(status), at, shared, sink);
        } else {
            self.break_off(at.time_ns, shared, sink);
            self.on_ready(Some(status), at, shared, sink);
        }
    }

    fn on_ready(&mut self, status: Option<TransactionStatus>, at: Moment, shared: &mut Shared, sink: &mut Sink<'_>) {
        self.strings.started();
        self.ops.ready(at, shared, sink);
        if status == Some(TransactionStatus::Idle) {
            self.portals.end_of_transaction();
        }
        if let Some(status) = status {
            self.status = Some(status);
            sink(WireEvent::Ready { time_ns: at.time_ns, status });
        }
    }

    fn on_answer(&mut self, message: BackendMessage, now_ns: u64, shared: &mut Shared, sink: &mut Sink<'_>) {
        // These come at any time.
        match message {
            BackendMessage::NoticeResponse => return sink(WireEvent::Other(OtherKind::Notice)),
            BackendMessage::NotificationResponse => return sink(WireEvent::Other(OtherKind::Notification)),
            BackendMessage::ParameterStatus { standard_strings: Some(standard) } => {
                return self.strings.report(standard, sink);
            }
            BackendMessage::ParameterStatus { .. }
            | BackendMessage::BackendKeyData
            | BackendMessage::NegotiateProtocolVersion => return,
            BackendMessage::Encryption(granted) => {
                if granted {
                    sink(WireEvent::Encrypted);
                    self.turn_opaque(now_ns, shared, sink);
                }
                return;
            }
            _ => {}
        }
        let Some(front) = self.ops.front() else {
            return self.on_unexpected(message, now_ns, shared, sink);
        };
        // Rows come by the hundred.
        if message == BackendMessage::DataRow
            && matches!(front.kind, Kind::Execute | Kind::Query)
            && self.ops.count_row(front.op)
        {
            return;
        }
        let at = Moment { time_ns: now_ns, ..self.answered };
        if !suits(front.kind, message) {
            shared.stats.mismatches += 1;
            self.break_off(now_ns, shared, sink);
            return self.on_unexpected(message, now_ns, shared, sink);
        }
        self.ops.answer(front.op, self.answered, shared, sink);
        match message {
            BackendMessage::ReadyForQuery(status) => {
                self.on_end_of_simple(front, now_ns, shared, sink);
                self.ops.pop();
                self.on_ready(status, at, shared, sink);
            }
            BackendMessage::ErrorResponse { sqlstate, .. } => self.on_error(front, sqlstate, now_ns, shared, sink),
            BackendMessage::ParameterDescription => {
                if let Some(front) = self.ops.front_mut() {
                    front.kind = Kind::Describe;
                }
            }
            BackendMessage::ParseComplete
            | BackendMessage::BindComplete
            | BackendMessage::CloseComplete
            | BackendMessage::NoData => self.ops.pop(),
            BackendMessage::RowDescription if front.kind == Kind::Describe => self.ops.pop(),
            BackendMessage::DataRow => _ = self.ops.count_row(front.op),
            BackendMessage::CommandComplete(tag) => {
                if tag.forgets {
                    self.statements.clear();
                }
                if let Some(op) = self.ops.get(front.op) {
                    op.rows = match (op.rows, tag.rows) {
                        (Some(sum), Some(rows)) => Some(sum.saturating_add(rows)),
                        (sum, rows) => sum.or(rows),
                    };
                }
                self.on_end_of_execute(front, now_ns, shared, sink);
            }
            BackendMessage::EmptyQueryResponse => self.on_end_of_execute(front, now_ns, shared, sink),
            BackendMessage::PortalSuspended => {
                self.ops.suspend(front.op);
                self.on_end_of_execute(front, now_ns, shared, sink);
            }
            BackendMessage::CopyResponse(Copy::In) if front.kind == Kind::Execute => self.ops.ignore_syncs(),
            _ => {}
        }
    }

    fn on_end_of_execute(&mut self, front: Expected, now_ns: u64, shared: &mut Shared, sink: &mut Sink<'_>) {
        if front.kind == Kind::Execute {
            self.ops.done(front.op, Ending::Complete, None, now_ns, shared, sink);
            self.ops.pop();
        }
    }

    fn on_end_of_simple(&mut self, front: Expected, now_ns: u64, shared: &mut Shared, sink: &mut Sink<'_>) {
        if matches!(front.kind, Kind::Query | Kind::FunctionCall) && !self.ops.is_done(front.op) {
            self.ops.done(front.op, Ending::Complete, None, now_ns, shared, sink);
        }
    }

    fn on_error(
        &mut self,
        front: Expected,
        sqlstate: Option<[u8; 5]>,
        now_ns: u64,
        shared: &mut Shared,
        sink: &mut Sink<'_>,
    ) {
        match front.kind {
            Kind::Startup => {
                self.ops.pop();
                sink(WireEvent::Other(OtherKind::Error));
            }
            Kind::Sync => {
                if !self.ops.fail_last_done(sqlstate, now_ns) {
                    sink(WireEvent::Other(OtherKind::Error));
                }
            }
            Kind::Query | Kind::FunctionCall => {
                self.ops.done(front.op, Ending::Failed, sqlstate, now_ns, shared, sink);
            }
            _ => {
                // A Parse that fails is an operation, too.
                self.ops.tell(front.op, None, shared, sink);
                self.ops.answer(front.op, self.answered, shared, sink);
                self.ops.done(front.op, Ending::Failed, sqlstate, now_ns, shared, sink);
                if front.op == 0 {
                    sink(WireEvent::Other(OtherKind::Error));
                }
                self.ops.skip_group(front.op, now_ns, shared, sink);
            }
        }
    }

    fn on_unexpected(&mut self, message: BackendMessage, now_ns: u64, shared: &mut Shared, sink: &mut Sink<'_>) {
        match message {
            BackendMessage::ReadyForQuery(status) => {
                self.on_ready(status, Moment { time_ns: now_ns, ..self.answered }, shared, sink);
            }
            BackendMessage::ErrorResponse { severity: Severity::Fatal, .. } => {
                return sink(WireEvent::Other(OtherKind::Error));
            }
            _ => {}
        }
        shared.stats.unmatched_answers += 1;
    }
}

/// This message can answer that.
const fn suits(kind: Kind, message: BackendMessage) -> bool {
    use BackendMessage as M;
    match message {
        M::ErrorResponse { .. } => true,
        M::ReadyForQuery(_) => kind.ends_group(),
        M::Authentication(_) => matches!(kind, Kind::Startup),
        M::ParseComplete => matches!(kind, Kind::Parse),
        M::BindComplete => matches!(kind, Kind::Bind),
        M::CloseComplete => matches!(kind, Kind::Close),
        M::ParameterDescription => matches!(kind, Kind::DescribeStatement),
        M::NoData => matches!(kind, Kind::Describe),
        M::RowDescription => matches!(kind, Kind::Describe | Kind::Query),
        M::PortalSuspended => matches!(kind, Kind::Execute),
        M::FunctionCallResponse => matches!(kind, Kind::FunctionCall),
        M::DataRow | M::CommandComplete(_) | M::EmptyQueryResponse | M::CopyResponse(_) | M::CopyData | M::CopyDone => {
            matches!(kind, Kind::Execute | Kind::Query)
        }
        _ => true,
    }
}
