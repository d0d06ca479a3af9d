//! One PostgreSQL connection of a target that is the client: pairs what it asks with what it is answered.
//!
//! Reads: sends and receives in order ([`Io`]), end of stream, the close. Yields: [`WireEvent`]s; each operation begins
//! once and ends once. Costs: about 400 bytes for an idle connection and 60 for each of its prepared statements; no
//! allocation per operation in steady state (`benches/statement.rs`).
//!
//! An operation is one Execute, one Query, or one FunctionCall. sqlx prepares a new statement in a round trip of its
//! own (Parse, Describe, Sync) and then executes it (Bind, Execute, Close, Sync): that is one operation, which begins
//! at the Parse. So `Begin` comes when Execute is sent (or Parse fails), with the time of the first message.
//!
//! What happens when bytes are missing:
//! * A gap inside a message changes nothing. Where a large Bind is followed by nothing but what sqlx,
//!   tokio-postgres or libpq send to execute it, that is known from its size and the record's end.
//! * Any other gap over the heads of requests, and lost records, end what is in flight as
//!   [`Incomplete`](Ending::Incomplete). The next record that reads as messages from end to end begins anew.
//! * A gap over the heads of answers (rows that were not copied) waits for a record that ends with ReadyForQuery: where
//!   one group of messages was outstanding this is its end; rows and errors inside the gap are not known. Where several
//!   were, all end as Incomplete: a wrong pair would be worse than none.
//! * An answer that does not suit what was asked next ends what is in flight in the same way. So does attaching in
//!   mid-connection recover: at worst the statements in flight at that moment are not told.

mod names;
mod ops;
mod requests;
mod responses;
mod strings;

use super::Io;
use crate::budget::Meter;
use crate::database::Ending;
use crate::protocol::Buffers;
pub use crate::protocol::postgres::TransactionStatus;
use crate::protocol::postgres::{Backend, Frontend, Reader, SQL_LIMIT};
use names::{Portals, Statements, Texts};
use ops::Ops;
use std::sync::Arc;
use strings::Strings;

/// What the bytes of a connection tell. Times are `CLOCK_MONOTONIC` ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireEvent<'a> {
    /// An operation began. It comes when it is known that it is one; `time_ns` may lie before events already told.
    Begin {
        /// Its number within the connection; they go up, not always by one.
        op: u64,
        /// Its first byte was sent (the record's time).
        time_ns: u64,
        /// Tokio task that sent it, 0 where unknown.
        task: u64,
        /// Thread that sent it.
        tid: u32,
        /// Its text.
        sql: WireSql<'a>,
    },
    /// The first byte of its answer was read: of the answer to Bind and Execute where it was prepared before them.
    First {
        /// Number.
        op: u64,
        /// When.
        time_ns: u64,
    },
    /// It ended.
    End {
        /// Number.
        op: u64,
        /// The record that held ReadyForQuery; inside a pipeline, the one that held its own last message.
        time_ns: u64,
        /// Rows returned or affected, where told.
        rows: Option<u64>,
        /// Of the error.
        sqlstate: Option<[u8; 5]>,
        /// How.
        ending: Ending,
    },
    /// ReadyForQuery.
    Ready {
        /// When it was read.
        time_ns: u64,
        /// In a transaction or not.
        status: TransactionStatus,
    },
    /// The start-up message told the database's name.
    Startup {
        /// Name.
        database: &'a [u8],
    },
    /// Whether the session's `standard_conforming_strings` is on; `None` where that is not known, or no longer. What
    /// begins from here on was written by this rule.
    StandardStrings(Option<bool>),
    /// A request for encryption was granted: the connection shows nothing more.
    Encrypted,
    /// Something that is no query.
    Other(OtherKind),
}

/// The text of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireSql<'a> {
    /// SQL as sent.
    Text {
        /// Its bytes.
        sql: &'a [u8],
        /// Longer than the limit, or its end was not captured.
        truncated: bool,
    },
    /// A statement that was prepared before the connection was watched, or whose name was forgotten.
    Named,
    /// FunctionCall: no SQL.
    Function,
}

/// Traffic that is no query.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OtherKind {
    /// A connection was started: the start-up message.
    Startup,
    /// SSLRequest or GSSENCRequest.
    EncryptionRequest,
    /// A message of the client that authenticates it.
    Authentication,
    /// Sync alone: the pool's ping.
    Ping,
    /// A statement was prepared and not executed next.
    PreparedOnly,
    /// A statement or portal was closed in a round trip of its own.
    Close,
    /// CancelRequest.
    Cancel,
    /// NoticeResponse.
    Notice,
    /// NotificationResponse (LISTEN/NOTIFY).
    Notification,
    /// An error that belongs to no operation: start-up, or the server ends the session.
    Error,
    /// Terminate.
    Terminate,
}

/// Counts of what pairing could not follow, and of what it followed; each goes up only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Operations begun.
    pub operations: u64,
    /// Operations ended, whatever the ending.
    pub ended: u64,
    /// Operations of a statement whose text is unknown.
    pub unknown_statements: u64,
    /// Operations of a statement whose text is longer than the limit or was not captured whole.
    pub truncated_statements: u64,
    /// Operations that ended as Incomplete because bytes or records were lost or answers did not suit.
    pub broken_operations: u64,
    /// Operations whose end was seen but whose last messages were not captured: rows and errors are not known.
    pub unread_ends: u64,
    /// Statement names forgotten to stay within the bounds.
    pub forgotten_names: u64,
    /// Answers that nothing known waited for: dropped.
    pub unmatched_answers: u64,
    /// Answers that did not suit what was asked next.
    pub mismatches: u64,
    /// Places where the sequence of messages was lost.
    pub lost_sync: u64,
    /// Returns to the sequence of messages.
    pub resyncs: u64,
    /// Bytes of records that were lost before they reached this module.
    pub lost_bytes: u64,
    /// Messages that are none.
    pub malformed: u64,
    /// Executes that were told by sizes, their bytes not having been captured.
    pub inferred_executes: u64,
    /// Times that more was in flight than is kept.
    pub pipeline_overflow: u64,
    /// Connections that were encrypted or turned out to speak something else.
    pub opaque_connections: u64,
}

/// What all connections of a thread share.
#[derive(Debug)]
pub struct Shared {
    /// Counts over all connections.
    pub stats: Stats,
    buffers: Buffers,
    texts: Texts,
    sql_limit: u32,
}

impl Shared {
    /// What follows is of connections of this target: what is kept of them counts for it.
    pub const fn set_owner(&mut self, owner: u32) {
        self.buffers.owner = owner;
    }

    /// What a target has counts for this user, who is not trusted.
    pub fn join(&mut self, owner: u32, user: Option<u32>) {
        self.texts.budget.join(owner, user);
        self.buffers.join(owner, user);
    }

    /// Figures of what is kept.
    pub fn meters(&self) -> impl Iterator<Item = Arc<Meter>> {
        [self.texts.budget.meter(), self.buffers.meter()].into_iter()
    }

    /// Forgets texts that no connection holds any more.
    pub fn sweep(&mut self) {
        self.texts.sweep();
    }

    /// Up to `sql_limit` bytes of each text are read.
    #[must_use]
    pub fn new(sql_limit: u32) -> Self {
        Self { stats: Stats::default(), buffers: Buffers::default(), texts: Texts::default(), sql_limit }
    }
}

impl Default for Shared {
    fn default() -> Self {
        Self::new(SQL_LIMIT)
    }
}

/// Takes each event.
pub type Sink<'a> = dyn FnMut(WireEvent<'_>) + 'a;

/// A connection's state. To be fed in order, and closed by [`Self::on_close`]: dropping it drops what is in flight.
#[derive(Debug)]
pub struct PostgresConnection {
    requests: Reader<Frontend>,
    answers: Reader<Backend>,
    ops: Ops,
    statements: Statements,
    portals: Portals,
    strings: Strings,
    /// When, by which task and thread the message of each direction that is being read began.
    asked: Moment,
    answered: Moment,
    /// Length of the name of the Parse whose rest is being skipped.
    parse_name: Option<usize>,
    /// Messages since the last Sync.
    group: u32,
    /// Of these, Close.
    group_closes: u32,
    status: Option<TransactionStatus>,
    opaque: bool,
    /// Bytes that were charged for its names and queues.
    charged: u32,
}

const _: () = assert!(size_of::<PostgresConnection>() <= 480, "an idle connection became expensive");

/// Where a message began.
#[derive(Clone, Copy, Debug, Default)]
struct Moment {
    time_ns: u64,
    task: u64,
    tid: u32,
}

impl From<&Io<'_>> for Moment {
    fn from(io: &Io<'_>) -> Self {
        Self { time_ns: io.time_ns, task: io.task, tid: io.tid }
    }
}

impl PostgresConnection {
    /// A connection of a target that is the client. `mid_stream`: bytes went over it before the daemon watched.
    #[must_use]
    pub fn new(mid_stream: bool, shared: &Shared) -> Self {
        let requests = if mid_stream { Reader::lost() } else { Reader::starting() };
        Self {
            requests: requests.with_sql_limit(shared.sql_limit),
            answers: if mid_stream { Reader::lost() } else { Reader::new() },
            ops: Ops::default(),
            statements: Statements::default(),
            portals: Portals::default(),
            strings: Strings::new(mid_stream),
            asked: Moment::default(),
            answered: Moment::default(),
            parse_name: None,
            group: 0,
            group_closes: 0,
            status: None,
            opaque: false,
            charged: 0,
        }
    }

    /// Nothing more can be read of it: it is encrypted, or no PostgreSQL.
    #[must_use]
    pub const fn is_opaque(&self) -> bool {
        self.opaque
    }

    /// Operations begun and not ended.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.ops.told()
    }

    /// The transaction status told last.
    #[must_use]
    pub const fn status(&self) -> Option<TransactionStatus> {
        self.status
    }

    /// The target sent.
    pub fn on_send(&mut self, io: &Io<'_>, shared: &mut Shared, sink: &mut Sink<'_>) {
        if !self.opaque {
            shared.stats.lost_bytes = shared.stats.lost_bytes.saturating_add(io.lost);
            self.on_requests(io, shared, sink);
            self.requests.end_of_record(&mut shared.buffers);
            self.settle(io.time_ns, shared, sink);
        }
    }

    /// The target received.
    pub fn on_receive(&mut self, io: &Io<'_>, shared: &mut Shared, sink: &mut Sink<'_>) {
        if !self.opaque {
            shared.stats.lost_bytes = shared.stats.lost_bytes.saturating_add(io.lost);
            self.on_answers(io, shared, sink);
            self.answers.end_of_record(&mut shared.buffers);
            self.settle(io.time_ns, shared, sink);
        }
    }

    /// The server will send no more (a receive returned 0).
    pub fn on_end_of_stream(&mut self, time_ns: u64, shared: &mut Shared, sink: &mut Sink<'_>) {
        self.break_off(time_ns, shared, sink);
    }

    /// The target closed the connection, or the daemon stops following it.
    pub fn on_close(&mut self, time_ns: u64, shared: &mut Shared, sink: &mut Sink<'_>) {
        self.break_off(time_ns, shared, sink);
        self.requests.lose();
        self.answers.lose();
        self.requests.end_of_record(&mut shared.buffers);
        self.answers.end_of_record(&mut shared.buffers);
        self.forget_names();
        self.ops = Ops::default();
        self.settle(time_ns, shared, sink);
    }

    fn forget_names(&mut self) {
        self.statements.clear();
        self.portals.clear();
    }

    /// Charges what names and queues have grown by. Where there is no room for that the connection begins anew: what is in
    /// flight ends, and what its names stand for is not known any more.
    fn settle(&mut self, time_ns: u64, shared: &mut Shared, sink: &mut Sink<'_>) {
        self.ops.shrink();
        let (held, charged) = (self.held_bytes(), self.charged as usize);
        if held == charged {
            return;
        }
        let owner = shared.buffers.owner;
        let budget = &mut shared.texts.budget;
        if held < charged {
            budget.release(owner, charged - held);
        } else if !budget.charge(owner, held - charged) {
            let forgotten = self.statements.len() as u64;
            shared.stats.forgotten_names += forgotten;
            budget.evicted(forgotten);
            budget.release(owner, charged);
            self.charged = 0;
            self.forget_names();
            self.break_off(time_ns, shared, sink);
            self.ops = Ops::default();
            return;
        }
        self.charged = u32::try_from(held).unwrap_or(u32::MAX);
    }

    fn held_bytes(&self) -> usize {
        self.statements.held_bytes() + self.portals.held_bytes() + self.ops.held_bytes()
    }

    /// Ends what is in flight: nobody knows what becomes of it.
    fn break_off(&mut self, time_ns: u64, shared: &mut Shared, sink: &mut Sink<'_>) {
        self.drop_current(sink);
        self.ops.break_off(time_ns, shared, sink);
        self.group = 0;
        self.group_closes = 0;
    }

    /// What was prepared last is not executed next.
    fn drop_current(&mut self, sink: &mut Sink<'_>) {
        if self.ops.drop_current() {
            sink(WireEvent::Other(OtherKind::PreparedOnly));
        }
    }

    fn turn_opaque(&mut self, time_ns: u64, shared: &mut Shared, sink: &mut Sink<'_>) {
        self.break_off(time_ns, shared, sink);
        self.opaque = true;
        shared.stats.opaque_connections += 1;
        self.requests.lose();
        self.answers.lose();
        // Whichever is not being read just now.
        self.requests.end_of_record(&mut shared.buffers);
        self.answers.end_of_record(&mut shared.buffers);
        self.forget_names();
        self.ops = Ops::default();
    }
}

#[cfg(test)]
mod tests;
