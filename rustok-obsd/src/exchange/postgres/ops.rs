//! Operations of a connection and the answers that are expected.
//!
//! Reads: what the two directions tell. Yields: begins and ends. Costs: about 140 bytes per operation in flight and 16
//! per expected answer, in queues that keep their memory.

use super::names::Text;
use super::{Moment, Shared, Sink, WireEvent, WireSql};
use crate::database::Ending;
use std::collections::VecDeque;
use std::sync::Arc;

/// What an expected answer answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Startup,
    Parse,
    Bind,
    /// Answered by ParameterDescription, and then like a portal.
    DescribeStatement,
    Describe,
    Execute,
    Close,
    Sync,
    Query,
    FunctionCall,
}

impl Kind {
    /// ReadyForQuery ends it.
    pub(super) const fn ends_group(self) -> bool {
        matches!(self, Self::Startup | Self::Sync | Self::Query | Self::FunctionCall)
    }
}

/// An answer that is expected, and the operation it belongs to (0: none).
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected {
    pub(super) kind: Kind,
    pub(super) op: u64,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Done {
    time_ns: u64,
    ending: Ending,
}

#[derive(Debug)]
pub(super) struct Op {
    serial: u64,
    text: Option<Arc<Text>>,
    begin: Moment,
    /// Begin was told.
    told: bool,
    bound: bool,
    first_told: bool,
    /// Its first answer was read by another task than the one that asked.
    strange: bool,
    /// When and by whom the first answer was read, whether or not that was told.
    first: Option<Moment>,
    /// ReadyForQuery after its Parse was read.
    prepared_ns: u64,
    pub(super) rows: Option<u64>,
    counted: u64,
    sqlstate: Option<[u8; 5]>,
    done: Option<Done>,
}

#[derive(Debug, Default)]
pub(super) struct Ops {
    expected: VecDeque<Expected>,
    ops: VecDeque<Op>,
    last_serial: u64,
    /// The operation that is being put together: it was not told yet.
    current: Option<u64>,
    /// The server skips everything up to the next Sync.
    pub(super) skipping: bool,
}

impl Ops {
    /// Expected answers on one connection.
    pub(super) const BOUND: usize = 8192;
    /// Room for so many stays with an idle connection.
    const KEPT: usize = 256;
    /// A statement executed later than this after it was prepared was prepared for its own sake.
    pub(super) const PREPARED_NS: u64 = 100_000_000;

    /// Bytes of its queues.
    pub(super) fn held_bytes(&self) -> usize {
        self.expected.capacity() * size_of::<Expected>() + self.ops.capacity() * size_of::<Op>()
    }

    /// Gives the room of a wave back.
    pub(super) fn shrink(&mut self) {
        if self.expected.is_empty()
            && self.ops.is_empty()
            && self.expected.capacity() + self.ops.capacity() > Self::KEPT
        {
            (self.expected, self.ops) = (VecDeque::new(), VecDeque::new());
        }
    }

    pub(super) fn told(&self) -> usize {
        self.ops.iter().filter(|op| op.told).count()
    }

    pub(super) fn front(&self) -> Option<Expected> {
        self.expected.front().copied()
    }

    pub(super) fn front_mut(&mut self) -> Option<&mut Expected> {
        self.expected.front_mut()
    }

    pub(super) fn pop(&mut self) {
        self.expected.pop_front();
    }

    /// How many ReadyForQuery are expected.
    pub(super) fn groups(&self) -> usize {
        self.expected.iter().filter(|expected| expected.kind.ends_group()).count()
    }

    pub(super) fn is_full(&self) -> bool {
        self.expected.len() >= Self::BOUND
    }

    pub(super) fn expect(&mut self, kind: Kind, op: u64) {
        if !self.skipping {
            self.expected.push_back(Expected { kind, op });
        } else if kind == Kind::Sync {
            self.skipping = false;
            self.expected.push_back(Expected { kind, op });
        }
    }

    /// They are in the order of their numbers.
    fn find(&mut self, serial: u64) -> Option<&mut Op> {
        let at = self.ops.binary_search_by_key(&serial, |op| op.serial).ok()?;
        self.ops.get_mut(at)
    }

    pub(super) fn get(&mut self, serial: u64) -> Option<&mut Op> {
        self.find(serial)
    }

    /// An operation begins with a message that was sent at `begin`.
    pub(super) fn start(&mut self, begin: Moment, text: Option<Arc<Text>>, bound: bool) -> u64 {
        self.last_serial += 1;
        let serial = self.last_serial;
        self.ops.push_back(Op {
            serial,
            text,
            begin,
            told: false,
            bound,
            first_told: false,
            strange: false,
            first: None,
            prepared_ns: 0,
            rows: None,
            counted: 0,
            sqlstate: None,
            done: None,
        });
        self.current = Some(serial);
        serial
    }

    pub(super) fn current(&self) -> u64 {
        self.current.unwrap_or(0)
    }

    /// The operation being put together takes a Bind to this text; `false` where it is another one's.
    pub(super) fn bind_current(&mut self, text: Option<&Arc<Text>>, at: Moment) -> bool {
        let Some(op) = self.current.and_then(|serial| self.find(serial)) else {
            return false;
        };
        let same = matches!((&op.text, text), (Some(own), Some(text)) if Arc::ptr_eq(own, text));
        let at_once = op.prepared_ns == 0
            || at.time_ns.saturating_sub(op.prepared_ns) <= Self::PREPARED_NS
                && (op.begin.task == 0 || at.task == 0 || op.begin.task == at.task);
        let joins = same && at_once && !op.bound;
        op.bound |= joins;
        joins
    }

    /// The operation being put together was bound.
    pub(super) fn current_is_bound(&mut self) -> bool {
        self.current.and_then(|serial| self.find(serial)).is_some_and(|op| op.bound)
    }

    /// Forgets the operation being put together; tells whether there was one that was only prepared.
    pub(super) fn drop_current(&mut self) -> bool {
        let Some(serial) = self.current.take() else {
            return false;
        };
        if let Ok(at) = self.ops.binary_search_by_key(&serial, |op| op.serial) {
            self.ops.remove(at);
        }
        true
    }

    /// The operation is one: tells its begin. `sql` where its text is not a kept one.
    pub(super) fn tell(&mut self, serial: u64, sql: Option<WireSql<'_>>, shared: &mut Shared, sink: &mut Sink<'_>) {
        if self.current == Some(serial) {
            self.current = None;
        }
        let Some(op) = self.find(serial).filter(|op| !op.told) else {
            return;
        };
        op.told = true;
        let sql = match (sql, &op.text) {
            (Some(sql), _) => sql,
            (None, Some(text)) => WireSql::Text { sql: &text.sql, truncated: text.truncated },
            (None, None) => WireSql::Named,
        };
        shared.stats.operations += 1;
        shared.stats.unknown_statements += u64::from(sql == WireSql::Named);
        shared.stats.truncated_statements += u64::from(matches!(sql, WireSql::Text { truncated: true, .. }));
        let Moment { time_ns, task, tid } = op.begin;
        sink(WireEvent::Begin { op: serial, time_ns, task, tid, sql });
    }

    /// Counts a row where the beginning of the answer was told already.
    pub(super) fn count_row(&mut self, serial: u64) -> bool {
        let Some(op) = self.find(serial).filter(|op| op.first_told) else {
            return false;
        };
        op.counted += 1;
        true
    }

    /// The portal has more rows: those that came are the operation's.
    pub(super) fn suspend(&mut self, serial: u64) {
        if let Some(op) = self.find(serial) {
            op.rows = Some(op.counted);
        }
    }

    /// An answer to the operation began to be read at this moment.
    pub(super) fn answer(&mut self, serial: u64, at: Moment, shared: &mut Shared, sink: &mut Sink<'_>) {
        if serial == 0 {
            return;
        }
        self.end_done_before(serial, shared, sink);
        let Some(op) = self.find(serial) else {
            return;
        };
        if op.first.is_none() {
            op.first = Some(at);
            op.strange = at.task != 0 && op.begin.task != 0 && at.task != op.begin.task;
        }
        if op.told && !op.first_told {
            op.first_told = true;
            // Bytes that came before the question are no answer, whatever they look like.
            let time_ns = at.time_ns.max(op.begin.time_ns);
            sink(WireEvent::First { op: serial, time_ns });
        }
    }

    /// The next operation of a pipeline is being answered: those before it ended when their last message came.
    fn end_done_before(&mut self, serial: u64, shared: &mut Shared, sink: &mut Sink<'_>) {
        while let Some(op) = self.ops.front().filter(|op| op.serial < serial && op.done.is_some()) {
            let time_ns = op.done.map_or(0, |done| done.time_ns);
            self.end_front(time_ns, shared, sink);
        }
    }

    /// Its last message was read. It ends with ReadyForQuery, unless another operation comes before that.
    pub(super) fn done(
        &mut self,
        serial: u64,
        ending: Ending,
        sqlstate: Option<[u8; 5]>,
        time_ns: u64,
        shared: &mut Shared,
        sink: &mut Sink<'_>,
    ) {
        let Some(op) = self.find(serial) else {
            return;
        };
        op.sqlstate = op.sqlstate.or(sqlstate);
        op.done = Some(Done { time_ns, ending });
        let next = self.expected.iter().skip(1).take_while(|expected| !expected.kind.ends_group());
        if next.clone().any(|expected| expected.op != 0 && expected.op != serial) {
            self.end_done_before(serial + 1, shared, sink);
        }
    }

    /// An error came where Sync was being processed (deferred constraints): it is the last operation's.
    pub(super) fn fail_last_done(&mut self, sqlstate: Option<[u8; 5]>, time_ns: u64) -> bool {
        match self.ops.iter_mut().rev().find(|op| op.done.is_some()) {
            Some(op) => {
                op.sqlstate = sqlstate;
                op.done = Some(Done { time_ns, ending: Ending::Failed });
                true
            }
            None => false,
        }
    }

    /// An error: the server skips what is expected up to the next Sync.
    pub(super) fn skip_group(&mut self, failed: u64, time_ns: u64, shared: &mut Shared, sink: &mut Sink<'_>) {
        let mut others = false;
        while let Some(expected) = self.expected.front().filter(|expected| !expected.kind.ends_group()) {
            let serial = expected.op;
            self.expected.pop_front();
            if serial == 0 || serial == failed {
                continue;
            }
            if self.current == Some(serial) {
                self.drop_current();
            } else if let Some(op) = self.find(serial) {
                op.done = Some(Done { time_ns, ending: Ending::Incomplete });
                others = true;
            }
        }
        self.skipping = self.expected.is_empty();
        if others {
            self.end_done_before(u64::MAX, shared, sink);
        }
    }

    /// ReadyForQuery was read: what is done ends now.
    pub(super) fn ready(&mut self, at: Moment, shared: &mut Shared, sink: &mut Sink<'_>) {
        while self.ops.front().is_some_and(|op| op.done.is_some()) {
            self.end_front(at.time_ns, shared, sink);
        }
        // What was prepared and not executed is at the back.
        let Some(serial) = self.current else {
            return;
        };
        let Some(op) = self.find(serial).filter(|op| op.first.is_some()) else {
            return;
        };
        op.prepared_ns = at.time_ns;
        // Dropped while it was being prepared: it will not be executed.
        if op.strange
            && let Some(first) = op.first
        {
            op.done = Some(Done { time_ns: at.time_ns, ending: Ending::Cancelled });
            self.tell(serial, None, shared, sink);
            self.answer(serial, first, shared, sink);
            self.end_done_before(u64::MAX, shared, sink);
        }
    }

    fn end_front(&mut self, time_ns: u64, shared: &mut Shared, sink: &mut Sink<'_>) {
        let Some(op) = self.ops.pop_front().filter(|op| op.told) else {
            return;
        };
        let ending = op.done.map_or(Ending::Incomplete, |done| done.ending);
        let ending = if op.strange && ending != Ending::Incomplete { Ending::Cancelled } else { ending };
        shared.stats.ended += 1;
        sink(WireEvent::End { op: op.serial, time_ns, rows: op.rows, sqlstate: op.sqlstate, ending });
    }

    /// Everything in flight ends: nobody knows what becomes of it.
    pub(super) fn break_off(&mut self, time_ns: u64, shared: &mut Shared, sink: &mut Sink<'_>) {
        self.expected.clear();
        self.skipping = false;
        while let Some(op) = self.ops.front() {
            shared.stats.broken_operations += u64::from(op.told && op.done.is_none());
            let time_ns = op.done.map_or(time_ns, |done| done.time_ns);
            self.end_front(time_ns, shared, sink);
        }
        self.current = None;
    }

    /// ReadyForQuery of the only group was read, but not what came before it.
    pub(super) fn end_unread(&mut self, ending: Ending, at: Moment, shared: &mut Shared, sink: &mut Sink<'_>) {
        while let Some(expected) = self.expected.front().copied() {
            if expected.kind.ends_group() && !matches!(expected.kind, Kind::Query | Kind::FunctionCall) {
                break;
            }
            self.answer(expected.op, at, shared, sink);
            if matches!(expected.kind, Kind::Execute | Kind::Query | Kind::FunctionCall) {
                shared.stats.unread_ends += 1;
                self.done(expected.op, ending, None, at.time_ns, shared, sink);
            }
            if expected.kind.ends_group() {
                break;
            }
            self.expected.pop_front();
        }
    }

    /// What the server skips without looking at it.
    pub(super) fn refuse(&mut self, serial: u64, time_ns: u64, shared: &mut Shared, sink: &mut Sink<'_>) {
        if let Some(op) = self.find(serial) {
            op.done = Some(Done { time_ns, ending: Ending::Incomplete });
            self.end_done_before(u64::MAX, shared, sink);
        }
    }

    pub(super) fn is_done(&mut self, serial: u64) -> bool {
        self.find(serial).is_some_and(|op| op.done.is_some())
    }

    /// No message was sent behind the one that ends the group.
    pub(super) fn last_is_group(&self) -> bool {
        self.expected.back().is_some_and(|expected| expected.kind.ends_group())
    }

    /// COPY ignores a Sync that was sent before its rows.
    pub(super) fn ignore_syncs(&mut self) {
        while self.expected.get(1).is_some_and(|expected| expected.kind == Kind::Sync) {
            self.expected.remove(1);
        }
    }
}
