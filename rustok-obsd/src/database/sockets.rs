//! What the sockets tell of operations: the bytes of each connection to a database.
//!
//! Reads: sends and receives of the target's connections that are no HTTP. Yields: times, rows and errors of operations,
//! and operations by themselves where no call explains the bytes. Costs: a look-up a record; see [`super::tracker`] for the
//! rule.

use std::net::SocketAddr;
use std::sync::Arc;

use super::open::{Kind, OpId, Open, task_key};
use super::tasks::Origin;
use super::tracker::{Sink, Tracker};
use super::{Ending, Sight};
use crate::exchange::Io;
use crate::exchange::postgres::{OtherKind, PostgresConnection, Shared, WireEvent, WireSql};
use crate::protocol::postgres::TransactionStatus;

/// Operations of one connection that are in flight in clear text, by the number that the protocol gives them.
const IN_FLIGHT: usize = 64;

/// How a connection's bytes are read.
#[derive(Debug)]
enum Reading {
    /// Clear text.
    Clear(Box<PostgresConnection>),
    /// By direction alone.
    Encrypted,
}

/// A connection to a database.
#[derive(Debug)]
pub struct Link {
    pub(super) tgid: u32,
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    reading: Reading,
    /// The operation that its bytes belong to.
    bound: Option<OpId>,
    /// Operations in clear text.
    in_flight: Vec<(u64, OpId)>,
    /// A ROLLBACK that goes out with the next bytes.
    pub(super) deferred: Option<OpId>,
    /// The task that has a transaction open on it, 0 for none.
    pub(super) transaction_task: u64,
    status: Option<TransactionStatus>,
    /// Its first bytes were PostgreSQL's.
    pub(super) speaks_postgres: bool,
    /// `db.namespace`.
    pub(super) namespace: Option<Arc<str>>,
    /// Told as used.
    used: bool,
}

/// What changed for the gauges of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is a connection to a database.
    Opened,
    /// An operation or a transaction is under way.
    Used,
    /// Neither is.
    Idle,
}

/// One record of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Traffic<'a, 'b> {
    /// Connection.
    pub conn: u64,
    /// Process.
    pub tgid: u32,
    /// The target's end.
    pub local: SocketAddr,
    /// The database's.
    pub remote: SocketAddr,
    /// The bytes and their times.
    pub io: &'a Io<'b>,
    /// Whose work the task is that moved them.
    pub origin: Origin,
}

impl Link {
    /// It speaks in clear text from its first byte on, or from the middle.
    #[must_use]
    pub fn clear(tgid: u32, local: SocketAddr, remote: SocketAddr, mid_stream: bool, shared: &Shared) -> Self {
        Self::new(tgid, local, remote, Reading::Clear(Box::new(PostgresConnection::new(mid_stream, shared))))
    }

    /// Its bytes mean nothing to us.
    #[must_use]
    pub fn encrypted(tgid: u32, local: SocketAddr, remote: SocketAddr) -> Self {
        Self::new(tgid, local, remote, Reading::Encrypted)
    }

    const fn new(tgid: u32, local: SocketAddr, remote: SocketAddr, reading: Reading) -> Self {
        Self {
            speaks_postgres: matches!(reading, Reading::Clear(_)),
            tgid,
            local,
            remote,
            reading,
            bound: None,
            in_flight: Vec::new(),
            deferred: None,
            transaction_task: 0,
            status: None,
            namespace: None,
            used: false,
        }
    }

    /// The kernel need copy no payload of it.
    #[must_use]
    pub const fn is_encrypted(&self) -> bool {
        matches!(self.reading, Reading::Encrypted)
    }

    /// An operation that was bound to it ended.
    pub(super) fn release(&mut self, id: OpId, open: &Open, ending: Ending) {
        if self.bound == Some(id) {
            self.bound = None;
        }
        if self.deferred == Some(id) {
            self.deferred = None;
        }
        self.in_flight.retain(|(_, other)| *other != id);
        if ending == Ending::Complete {
            match &*open.statement.operation {
                "BEGIN" | "START TRANSACTION" => self.transaction_task = open.task,
                "COMMIT" | "ROLLBACK" | "END" | "ABORT" => self.transaction_task = 0,
                _ => {}
            }
        }
    }

    /// Tells a change of use, once.
    fn change(&mut self) -> Option<Change> {
        let open = self.bound.is_some() || self.deferred.is_some() || !self.in_flight.is_empty();
        let transaction = match self.status {
            Some(status) => status != TransactionStatus::Idle,
            None => self.transaction_task != 0,
        };
        let used = open || transaction;
        (std::mem::replace(&mut self.used, used) != used).then_some(if used { Change::Used } else { Change::Idle })
    }
}

impl Tracker {
    /// The connection is one to a database.
    #[must_use]
    pub fn is_link(&self, conn: u64) -> bool {
        self.links.contains_key(&conn)
    }

    /// Its bytes mean nothing to us, so that the kernel need not copy them.
    #[must_use]
    pub fn is_encrypted(&self, conn: u64) -> bool {
        self.links.get(&conn).is_some_and(Link::is_encrypted)
    }

    /// Whether the task has a call that has sent nothing yet: then what it sends now is that call's.
    #[must_use]
    pub fn has_unsent_call(&self, tgid: u32, task: u64, tid: u32) -> bool {
        self.open.find(task_key(tgid, task, tid), |open| open.conn == 0 && open.kind != Kind::Wire).is_some()
    }

    /// A connection turned out to be one to a database.
    pub fn open_link(&mut self, conn: u64, link: Link, changes: &mut dyn FnMut(Change)) {
        if self.links.insert(conn, link).is_none() {
            changes(Change::Opened);
        }
    }

    /// A connection is closed, or not followed any more; yields whether it was one to a database and in use.
    pub fn close_link(&mut self, conn: u64, time_ns: u64, shared: &mut Shared, sink: &mut Sink<'_>) -> Option<bool> {
        self.links.get(&conn)?;
        self.read(conn, shared, sink, |connection, shared, events| connection.on_close(time_ns, shared, events));
        while let Some(link) = self.links.get_mut(&conn) {
            let next = link.bound.or(link.deferred).or_else(|| link.in_flight.last().map(|(_, id)| *id));
            let Some(id) = next else { break };
            let (end_ns, ending) = match self.open.get(id) {
                // It ends with the call.
                Some(open) if open.kind == Kind::Logged => {
                    open.conn = 0;
                    if let Some(link) = self.links.get_mut(&conn) {
                        link.forget(id);
                    }
                    continue;
                }
                Some(open) if open.answered && open.kind != Kind::Wire => (open.last_ns, Ending::Complete),
                _ => (time_ns, Ending::Incomplete),
            };
            self.finish(id, end_ns, ending, sink);
            if let Some(link) = self.links.get_mut(&conn) {
                link.forget(id);
            }
        }
        self.links.remove(&conn).map(|link| link.used)
    }

    /// The target sent.
    pub fn on_send(
        &mut self,
        traffic: &Traffic<'_, '_>,
        shared: &mut Shared,
        changes: &mut dyn FnMut(Change),
        sink: &mut Sink<'_>,
    ) {
        let Traffic { conn, tgid, io, .. } = *traffic;
        let key = task_key(tgid, io.task, io.tid);
        let Some(link) = self.links.get_mut(&conn) else { return };
        let bound = link.bound;
        // Its operation goes on if its own task sends; another task's bytes are another matter.
        let goes_on = bound.and_then(|id| self.open.get(id)).is_some_and(|open| open.key == key);
        let unsent = self.open.find(key, |open| open.conn == 0 && open.kind != Kind::Wire);
        if let Some(id) = bound
            && (!goes_on || unsent.is_some())
        {
            self.let_go(id, io.time_ns, sink);
        }
        if let Some(id) = self.links.get_mut(&conn).and_then(|link| link.deferred.take()) {
            self.bind(conn, id, io.time_ns);
        } else if let Some(id) = unsent {
            self.bind(conn, id, io.time_ns);
        } else if goes_on {
            if let Some(open) = bound.and_then(|id| self.open.get(id)) {
                // A second round trip of the same statement: its preparation came before.
                open.answered = false;
            }
        } else if self.is_encrypted(conn) && !self.drivers(tgid).calls {
            self.stats.opaque_round_trips += 1;
            let statement = Arc::clone(&self.opaque);
            if let Some(id) = self.start_unseen(unseen(traffic, statement, Kind::OpenEnded, Sight::Opaque)) {
                self.bind(conn, id, io.time_ns);
            }
        }
        self.read_io(traffic, false, shared, sink);
        if let Some(change) = self.links.get_mut(&conn).and_then(Link::change) {
            changes(change);
        }
    }

    /// The target received.
    pub fn on_receive(
        &mut self,
        traffic: &Traffic<'_, '_>,
        shared: &mut Shared,
        changes: &mut dyn FnMut(Change),
        sink: &mut Sink<'_>,
    ) {
        let Traffic { conn, io, .. } = *traffic;
        if let Some(id) = self.links.get(&conn).and_then(|link| link.bound)
            && let Some(open) = self.open.get(id)
        {
            if !open.answered {
                open.first_ns = io.time_ns;
            }
            open.answered = true;
            open.last_ns = io.time_ns;
            if open.kind == Kind::Short && self.is_encrypted(conn) {
                self.finish(id, io.time_ns, Ending::Complete, sink);
            }
        }
        self.read_io(traffic, true, shared, sink);
        if let Some(change) = self.links.get_mut(&conn).and_then(Link::change) {
            changes(change);
        }
    }

    /// The operation has lost its connection to somebody else's bytes.
    fn let_go(&mut self, id: OpId, time_ns: u64, sink: &mut Sink<'_>) {
        let Some(open) = self.open.get(id) else { return };
        let (kind, answered, last_ns, conn) = (open.kind, open.answered, open.last_ns, open.conn);
        match kind {
            // Its end comes from the call; the connection is free. Keeps the number, for its addresses.
            Kind::Logged => {
                if let Some(link) = self.links.get_mut(&conn)
                    && link.bound == Some(id)
                {
                    link.bound = None;
                }
            }
            // The parser knows better.
            Kind::Wire => {}
            Kind::Short | Kind::OpenEnded => {
                if self.links.get(&conn).is_some_and(Link::is_encrypted) {
                    let (end_ns, ending) =
                        if answered { (last_ns, Ending::Complete) } else { (time_ns, Ending::Cancelled) };
                    self.finish(id, end_ns, ending, sink);
                }
            }
        }
    }

    fn bind(&mut self, conn: u64, id: OpId, time_ns: u64) {
        let (Some(open), Some(link)) = (self.open.get(id), self.links.get_mut(&conn)) else { return };
        open.conn = conn;
        open.send_ns = time_ns;
        open.answered = false;
        link.bound = Some(id);
        self.binds.insert(link.tgid, true);
    }

    /// Feeds a record to the parser of a connection in clear text.
    fn read_io(&mut self, traffic: &Traffic<'_, '_>, received: bool, shared: &mut Shared, sink: &mut Sink<'_>) {
        let io = traffic.io;
        let mut reader = Reader { traffic: Some(traffic) };
        self.read_with(traffic.conn, shared, sink, &mut reader, |connection, shared, events| {
            if received {
                connection.on_receive(io, shared, events);
            } else {
                connection.on_send(io, shared, events);
            }
        });
    }

    fn read(
        &mut self,
        conn: u64,
        shared: &mut Shared,
        sink: &mut Sink<'_>,
        feed: impl FnOnce(&mut PostgresConnection, &mut Shared, &mut dyn FnMut(WireEvent<'_>)),
    ) {
        self.read_with(conn, shared, sink, &mut Reader { traffic: None }, feed);
    }

    fn read_with(
        &mut self,
        conn: u64,
        shared: &mut Shared,
        sink: &mut Sink<'_>,
        reader: &mut Reader<'_, '_, '_>,
        feed: impl FnOnce(&mut PostgresConnection, &mut Shared, &mut dyn FnMut(WireEvent<'_>)),
    ) {
        let Some(link) = self.links.get_mut(&conn) else { return };
        // Taken out while it tells, since what it tells changes the rest.
        let reading = std::mem::replace(&mut link.reading, Reading::Encrypted);
        let Reading::Clear(mut connection) = reading else { return };
        let mut encrypted = false;
        feed(&mut connection, shared, &mut |event| {
            encrypted |= matches!(event, WireEvent::Encrypted);
            reader.take(self, conn, event, sink);
        });
        if !encrypted && let Some(link) = self.links.get_mut(&conn) {
            link.reading = Reading::Clear(connection);
        }
    }
}

impl Link {
    fn forget(&mut self, id: OpId) {
        self.bound = self.bound.filter(|other| *other != id);
        self.deferred = self.deferred.filter(|other| *other != id);
        self.in_flight.retain(|(_, other)| *other != id);
    }
}

/// An operation that no call explains.
fn unseen(
    traffic: &Traffic<'_, '_>,
    statement: Arc<crate::statement::Statement>,
    kind: Kind,
    sight: Sight,
) -> Open {
    let Traffic { tgid, io, origin, .. } = *traffic;
    Open {
        key: task_key(tgid, io.task, io.tid),
        task: io.task,
        tid: io.tid,
        kind,
        statement,
        sight,
        text: (0, 0),
        call_ns: 0,
        start_ns: io.time_ns,
        send_ns: 0,
        first_ns: 0,
        last_ns: 0,
        answered: false,
        rows: None,
        sqlstate: None,
        conn: 0,
        wire: None,
        origin,
    }
}

/// Takes what the parser tells.
struct Reader<'t, 'a, 'b> {
    traffic: Option<&'t Traffic<'a, 'b>>,
}

impl Reader<'_, '_, '_> {
    fn take(&mut self, tracker: &mut Tracker, conn: u64, event: WireEvent<'_>, sink: &mut Sink<'_>) {
        match event {
            WireEvent::Begin { op, time_ns, sql, .. } => self.begin(tracker, conn, op, time_ns, sql, sink),
            WireEvent::First { op, time_ns } => {
                if let Some(open) = tracker.wire(conn, op).and_then(|id| tracker.open.get(id))
                    && open.kind == Kind::Wire
                {
                    open.first_ns = time_ns;
                }
            }
            WireEvent::End { op, time_ns, rows, sqlstate, ending } => {
                let Some(id) = tracker.wire(conn, op) else { return };
                if let Some(link) = tracker.links.get_mut(&conn) {
                    link.in_flight.retain(|(number, _)| *number != op);
                }
                let Some(open) = tracker.open.get(id) else { return };
                open.rows = rows.or(open.rows);
                open.sqlstate = sqlstate.or(open.sqlstate);
                open.wire = None;
                if open.kind != Kind::Logged {
                    tracker.finish(id, time_ns, ending, sink);
                }
            }
            WireEvent::Ready { status, .. } => {
                if let Some(link) = tracker.links.get_mut(&conn) {
                    link.status = Some(status);
                    if status == TransactionStatus::Idle {
                        link.transaction_task = 0;
                    }
                }
            }
            WireEvent::Startup { database } => {
                if let Some(link) = tracker.links.get_mut(&conn) {
                    link.namespace = std::str::from_utf8(database).ok().map(Arc::from);
                }
            }
            WireEvent::Encrypted => {}
            WireEvent::Other(kind) => {
                let others = &mut tracker.stats.others;
                match kind {
                    OtherKind::Startup | OtherKind::EncryptionRequest => others.startup += 1,
                    OtherKind::Authentication => others.authentication += 1,
                    OtherKind::Ping => others.ping += 1,
                    OtherKind::Cancel => others.cancel += 1,
                    OtherKind::Notification | OtherKind::Notice => others.notification += 1,
                    OtherKind::PreparedOnly | OtherKind::Close | OtherKind::Error | OtherKind::Terminate => {}
                }
            }
        }
    }

    fn begin(
        &self,
        tracker: &mut Tracker,
        conn: u64,
        op: u64,
        time_ns: u64,
        sql: WireSql<'_>,
        _sink: &mut Sink<'_>,
    ) {
        // What the connection was bound to by the bytes that begin it, unless that has a number already.
        let bound = tracker.links.get(&conn).and_then(|link| link.bound);
        let called = bound.filter(|id| {
            tracker.open.get(*id).is_some_and(|open| open.wire.is_none() && open.kind != Kind::Wire)
        });
        let id = match (called, self.traffic) {
            (Some(id), _) => id,
            (None, Some(traffic)) => {
                let statement = match sql {
                    WireSql::Text { sql, truncated } => tracker.statements.get(sql, truncated),
                    WireSql::Function => tracker.statements.get(b"CALL", false),
                    WireSql::Named => {
                        tracker.stats.unknown_statements += 1;
                        tracker.unknown()
                    }
                };
                let mut open = unseen(traffic, statement, Kind::Wire, Sight::Wire);
                open.start_ns = time_ns;
                open.send_ns = time_ns;
                open.conn = conn;
                let Some(id) = tracker.start_unseen(open) else { return };
                id
            }
            (None, None) => return,
        };
        if let Some(open) = tracker.open.get(id) {
            open.wire = Some(op);
        }
        if let Some(link) = tracker.links.get_mut(&conn)
            && link.in_flight.len() < IN_FLIGHT
        {
            link.in_flight.push((op, id));
        }
    }
}

impl Tracker {
    /// The operation that has this number on the connection.
    fn wire(&self, conn: u64, op: u64) -> Option<OpId> {
        self.links.get(&conn)?.in_flight.iter().find(|(number, _)| *number == op).map(|(_, id)| *id)
    }
}
