//! What the sockets tell of operations: the bytes of each connection to a database.
//!
//! Reads: sends and receives of the target's connections that are no HTTP. Yields: times, rows and errors of operations,
//! and operations by themselves where no call explains the bytes. Costs: some look-ups a record, no allocation once warm;
//! see [`super::tracker`] for the rule.
//!
//! A connection belongs to one operation at a time. A newer call of the same task suspends it, for sqlx looks up types
//! while it prepares a statement, and it goes on when that has ended. Bytes of another task mean that it is over: a
//! connection is handed on only then.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use super::open::{Kind, OpId, Open, Peer, task_key};
use super::tasks::Origin;
use super::tracker::{Sink, Tracker};
use super::wire::unseen;
use super::{Ending, Sight};
use crate::exchange::Io;
use crate::exchange::postgres::{PostgresConnection, Shared};
use crate::protocol::postgres::TransactionStatus;
use crate::statement::Dialect;

/// Statements of which each is being prepared while the next one runs on the same connection.
const NESTED: usize = 8;

/// How a connection's bytes are read.
#[derive(Debug)]
pub(super) enum Reading {
    /// Clear text.
    Clear(Box<PostgresConnection>),
    /// By direction alone.
    Encrypted,
    /// It is being read just now, or is closed.
    Taken,
}

/// A connection to a database.
#[derive(Debug)]
pub struct Link {
    tgid: u32,
    /// Whose budget it draws on.
    pub(super) owner: u32,
    local: SocketAddr,
    remote: SocketAddr,
    pub(super) reading: Reading,
    /// Its first bytes were not seen, so that the database's name will not be either.
    mid_stream: bool,
    /// The operation that its bytes belong to.
    pub(super) bound: Option<OpId>,
    /// Operations that will go on when another one on the same connection has ended: while sqlx prepares a statement it
    /// may look up types.
    suspended: Vec<OpId>,
    /// Operations in clear text, by the number that the protocol gives them, which go up.
    pub(super) in_flight: VecDeque<(u64, OpId)>,
    /// When the last call that was dropped while it was being prepared sent: the protocol tells of it behind its end.
    pub(super) dropped_ns: u64,
    /// A ROLLBACK that goes out with the next bytes.
    pub(super) deferred: Option<OpId>,
    /// Whose transaction is open on it, and how deeply nested.
    pub(super) transaction: Option<(u32, u64)>,
    pub(super) depth: u32,
    pub(super) status: Option<TransactionStatus>,
    /// Its first bytes were PostgreSQL's.
    pub(super) speaks_postgres: bool,
    /// By which readings what it carries is read.
    pub(super) dialect: Dialect,
    /// `db.namespace`.
    pub(super) namespace: Option<Arc<str>>,
    /// What was told: nothing yet, or whether it is used.
    told: Option<bool>,
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
    /// The bytes and their times.
    pub io: &'a Io<'b>,
    /// Whose work the task is that moved them.
    pub origin: Origin,
}

impl Link {
    /// It speaks in clear text from its first byte on, or from the middle.
    #[must_use]
    pub fn clear(tgid: u32, local: SocketAddr, remote: SocketAddr, mid_stream: bool, shared: &Shared) -> Self {
        let reading = Reading::Clear(Box::new(PostgresConnection::new(mid_stream, shared)));
        Self::new(tgid, local, remote, mid_stream, reading)
    }

    /// Its bytes mean nothing to us.
    #[must_use]
    pub const fn encrypted(tgid: u32, local: SocketAddr, remote: SocketAddr) -> Self {
        Self::new(tgid, local, remote, true, Reading::Encrypted)
    }

    const fn new(tgid: u32, local: SocketAddr, remote: SocketAddr, mid_stream: bool, reading: Reading) -> Self {
        Self {
            speaks_postgres: matches!(reading, Reading::Clear(_)),
            tgid,
            owner: tgid,
            local,
            remote,
            reading,
            mid_stream,
            bound: None,
            suspended: Vec::new(),
            in_flight: VecDeque::new(),
            dropped_ns: 0,
            deferred: None,
            transaction: None,
            depth: 0,
            status: None,
            dialect: Dialect::POSTGRES,
            namespace: None,
            told: None,
        }
    }

    /// The kernel need copy no payload of it.
    #[must_use]
    pub const fn is_encrypted(&self) -> bool {
        matches!(self.reading, Reading::Encrypted)
    }

    pub(super) const fn tgid(&self) -> u32 {
        self.tgid
    }

    pub(super) const fn addresses(&self) -> (SocketAddr, SocketAddr) {
        (self.local, self.remote)
    }

    /// The operation will end when the connection's does, at the latest.
    pub(super) fn holds(&self, id: OpId) -> bool {
        self.bound == Some(id)
            || self.deferred == Some(id)
            || self.suspended.contains(&id)
            || self.in_flight.iter().any(|(_, other)| *other == id)
    }

    /// An operation that was bound to it ended.
    pub(super) fn release(&mut self, id: OpId, open: &Open, ending: Ending) {
        self.forget(id, open.wire);
        if open.kind != Kind::Wire && open.wire.is_none() {
            self.dropped_ns = open.send_ns;
        }
        // In clear text the protocol says that a transaction ended, too; nobody says how deep it is.
        match &*open.statement.operation {
            // However it ended, or whether nobody saw that: what was not committed the driver rolls back.
            "COMMIT" | "ROLLBACK" | "END" | "ABORT" => (self.transaction, self.depth) = (None, 0),
            _ if ending != Ending::Complete => {}
            "BEGIN" | "START TRANSACTION" => (self.transaction, self.depth) = (Some(open.key), 1),
            "SAVEPOINT" => self.depth += 1,
            "RELEASE" | "RELEASE SAVEPOINT" | "ROLLBACK TO" | "ROLLBACK TO SAVEPOINT" => {
                self.depth = self.depth.saturating_sub(1).max(1);
            }
            _ => {}
        }
    }

    fn forget(&mut self, id: OpId, wire: Option<u64>) {
        self.bound = self.bound.filter(|other| *other != id);
        self.deferred = self.deferred.filter(|other| *other != id);
        if !self.suspended.is_empty() {
            self.suspended.retain(|other| *other != id);
        }
        if let Some(at) = wire.and_then(|number| self.place(number)) {
            self.in_flight.remove(at);
        }
    }

    pub(super) fn place(&self, number: u64) -> Option<usize> {
        self.in_flight.binary_search_by_key(&number, |(number, _)| *number).ok()
    }

    /// The database's name is known, or will never be.
    const fn is_known(&self) -> bool {
        self.is_encrypted() || self.mid_stream || self.namespace.is_some() || self.status.is_some()
    }
}

impl Tracker {
    /// Records were lost: the end of a transaction may be among them.
    pub fn doubt_transactions(&mut self) {
        for link in self.links.values_mut() {
            (link.transaction, link.depth) = (None, 0);
        }
    }

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

    /// Name of the database that a connection is one to, as far as it is known.
    #[must_use]
    pub fn namespace(&self, conn: u64) -> Option<&Arc<str>> {
        self.links.get(&conn)?.namespace.as_ref()
    }

    /// Whether the task has a call that has sent nothing yet: then what it sends now is that call's.
    #[must_use]
    pub fn has_unsent_call(&self, tgid: u32, task: u64, tid: u32) -> bool {
        self.open.find(task_key(tgid, task, tid), Open::is_unsent).is_some()
    }

    /// Thread of the operation that holds the connection and was asked for outside of any task.
    #[must_use]
    pub fn asking_thread(&mut self, conn: u64) -> Option<u32> {
        let link = self.links.get(&conn)?;
        let id = link.bound.or_else(|| link.in_flight.front().map(|(_, id)| *id))?;
        self.open.get(id).filter(|open| open.task == 0 && !open.answered).map(|open| open.tid)
    }

    /// A connection turned out to be one to a database.
    pub fn open_link(&mut self, conn: u64, link: Link) {
        let owner = self.owner(link.tgid);
        self.links.entry(conn).or_insert(Link { owner, ..link });
        self.note_change(conn);
    }

    /// A connection is closed, or not followed any more; yields whether it was told as used, where it was told.
    pub fn close_link(&mut self, conn: u64, time_ns: u64, shared: &mut Shared, sink: &mut Sink<'_>) -> Option<bool> {
        self.links.get(&conn)?;
        self.read(conn, shared, sink, |connection, shared, events| connection.on_close(time_ns, shared, events));
        while let Some(link) = self.links.get_mut(&conn) {
            link.reading = Reading::Taken;
            let held = link.bound.or(link.deferred).or_else(|| link.suspended.pop());
            let Some(id) = held.or_else(|| link.in_flight.pop_back().map(|(_, id)| id)) else { break };
            let speaks_postgres = link.speaks_postgres;
            let peer = Peer { addresses: link.addresses(), namespace: link.namespace.clone(), speaks_postgres };
            link.forget(id, None);
            let Some(open) = self.open.get(id) else { continue };
            match open.kind {
                // It ends with the call.
                Kind::Logged => {
                    open.conn = 0;
                    open.broken |= !open.answered;
                    open.peer = Some(Box::new(peer));
                }
                Kind::Short | Kind::OpenEnded if open.answered => {
                    let end_ns = open.last_ns;
                    self.finish(id, end_ns, Ending::Complete, sink);
                }
                _ => self.finish(id, time_ns, Ending::Incomplete, sink),
            }
        }
        self.links.remove(&conn)?.told
    }

    /// The server will send no more, or the connection failed: what awaits an answer gets none.
    pub fn on_broken(&mut self, conn: u64, time_ns: u64, shared: &mut Shared, sink: &mut Sink<'_>) {
        self.read(conn, shared, sink, |connection, shared, events| {
            connection.on_end_of_stream(time_ns, shared, events);
        });
        let Some(link) = self.links.get_mut(&conn) else { return };
        // The driver reads on while it has not got all.
        let deferred = link.deferred;
        for id in link.bound.iter().chain(&link.suspended) {
            if let Some(open) = self.open.get(*id).filter(|open| open.kind == Kind::Logged) {
                open.broken = true;
            }
        }
        let bound = link.bound;
        for id in bound.into_iter().chain(deferred) {
            match self.open.get(id).map(|open| (open.kind, open.answered, open.last_ns)) {
                Some((Kind::OpenEnded, true, last_ns)) => self.finish(id, last_ns, Ending::Complete, sink),
                Some((Kind::OpenEnded | Kind::Short, ..)) => self.finish(id, time_ns, Ending::Incomplete, sink),
                _ => {}
            }
        }
        self.note_change(conn);
    }

    /// The target sent.
    pub fn on_send(&mut self, traffic: &Traffic<'_, '_>, shared: &mut Shared, sink: &mut Sink<'_>) {
        let Traffic { conn, tgid, io, .. } = *traffic;
        let key = task_key(tgid, io.task, io.tid);
        let Some(link) = self.links.get_mut(&conn) else { return };
        if let Some(open) = link.deferred.and_then(|id| self.open.get(id)).filter(|open| open.send_ns == 0) {
            open.send_ns = io.time_ns;
        }
        if !link.suspended.is_empty() {
            self.end_strangers(conn, key, io, sink);
        }
        let bound = self.links.get(&conn).and_then(|link| link.bound);
        let holder = bound.and_then(|id| self.open.get(id)).map(|open| {
            // A statement whose end is told keeps its connection until then, whichever thread its future runs on where
            // nobody knows tasks.
            let threads = open.kind == Kind::Logged && (open.task == 0 || io.task == 0);
            // Of unknown bytes nothing is known but that they go and come: what follows an answer is another round trip.
            let over = open.sight == Sight::Opaque && open.answered;
            ((open.key == key || threads) && !over, open.start_ns)
        });
        let unsent = self.open.find(key, Open::is_unsent);
        // An older call than the one that holds the connection waits for another one.
        let unsent = unsent.filter(|id| match (holder, self.open.get(*id)) {
            (Some((true, since)), Some(open)) => open.start_ns >= since,
            _ => true,
        });
        let goes_on = holder.is_some_and(|(own, _)| own);
        if let Some(id) = bound.filter(|_| !goes_on || unsent.is_some()) {
            self.let_go(id, key, io.time_ns, sink);
        }
        if let Some(id) = unsent {
            self.bind(conn, id, io.time_ns);
        } else if let Some(open) = bound.filter(|_| goes_on).and_then(|id| self.open.get(id)) {
            // A second round trip of the same statement: its preparation came before.
            open.answered = false;
        } else if !self.resume(conn, key) && self.is_encrypted(conn) && !self.drivers(tgid).calls {
            self.stats.opaque_round_trips += 1;
            let statement = Arc::clone(&self.opaque);
            if let Some(id) = self.start_unseen(unseen(traffic, statement, Kind::OpenEnded, Sight::Opaque)) {
                self.bind(conn, id, io.time_ns);
            }
        }
        self.read_io(traffic, false, shared, sink);
        self.note_change(conn);
    }

    /// The target received.
    pub fn on_receive(&mut self, traffic: &Traffic<'_, '_>, shared: &mut Shared, sink: &mut Sink<'_>) {
        let Traffic { conn, io, .. } = *traffic;
        let Some(link) = self.links.get(&conn) else { return };
        let (bound, deferred) = (link.bound, link.deferred);
        for id in bound.into_iter().chain(deferred) {
            let Some(open) = self.open.get(id).filter(|open| open.send_ns != 0) else { continue };
            if !open.answered {
                open.first_ns = io.time_ns;
            }
            open.answered = true;
            open.last_ns = io.time_ns;
        }
        self.read_io(traffic, true, shared, sink);
        // The protocol tells the end where it was understood.
        for id in bound.into_iter().chain(deferred) {
            let over =
                self.open.get(id).is_some_and(|open| open.kind == Kind::Short && open.answered && open.wire.is_none());
            if over {
                self.finish(id, io.time_ns, Ending::Complete, sink);
            }
        }
        self.note_change(conn);
    }

    /// Remembers a change of use for the gauges, once.
    pub(super) fn note_change(&mut self, conn: u64) {
        let Some(link) = self.links.get_mut(&conn).filter(|link| !matches!(link.reading, Reading::Taken)) else {
            return;
        };
        // What was answered and ends when somebody says so does not use the connection any more.
        let holds = link
            .bound
            .and_then(|id| self.open.get(id))
            .is_some_and(|open| !(open.answered && open.kind == Kind::OpenEnded));
        let transaction = link.status.map_or(link.transaction.is_some(), |status| status != TransactionStatus::Idle);
        let used = holds || transaction || link.deferred.is_some() || !link.in_flight.is_empty();
        if link.told.is_none() {
            if !used && !link.is_known() {
                return;
            }
            self.changes.push((conn, Change::Opened));
        }
        if link.told.replace(used).unwrap_or(false) != used {
            self.changes.push((conn, if used { Change::Used } else { Change::Idle }));
        }
    }

    /// Another task sends: what waited on the connection for its own turn has lost its end.
    fn end_strangers(&mut self, conn: u64, key: (u32, u64), io: &Io<'_>, sink: &mut Sink<'_>) {
        while let Some(id) = self.links.get(&conn).and_then(|link| {
            link.suspended
                .iter()
                .copied()
                .find(|id| self.open.get(*id).is_none_or(|open| open.key != key && open.task != 0 && io.task != 0))
        }) {
            self.end_silent(id, io.time_ns, sink);
            if let Some(link) = self.links.get_mut(&conn) {
                link.forget(id, None);
            }
        }
    }

    /// What was not ended by anybody is over.
    fn end_silent(&mut self, id: OpId, time_ns: u64, sink: &mut Sink<'_>) {
        match self.open.get(id).map(|open| (open.kind, open.answered, open.last_ns)) {
            Some((Kind::Logged, ..)) => self.lose(id, time_ns, sink),
            Some((_, true, last_ns)) => self.finish(id, last_ns, Ending::Complete, sink),
            Some((_, false, _)) => self.finish(id, time_ns, Ending::Cancelled, sink),
            None => {}
        }
    }

    /// The operation loses its connection to other bytes: to those of its own task, which may come back to it, or of
    /// another one, which has got the connection.
    fn let_go(&mut self, id: OpId, by: (u32, u64), time_ns: u64, sink: &mut Sink<'_>) {
        let Some(open) = self.open.get(id) else { return };
        let (kind, same, wire) = (open.kind, open.key == by, open.wire.is_some());
        let threads = open.task == 0 || by.1 >> 63 != 0;
        let Some(link) = self.links.get_mut(&open.conn) else { return };
        link.bound = None;
        if kind == Kind::Short && open.answered {
            // sqlx sends nothing more before it has read the whole answer: a protocol that lost its place tells no end.
            return self.end_silent(id, time_ns, sink);
        }
        if kind != Kind::Logged && wire {
            // The protocol will tell its end.
            return;
        }
        let comes_back = if kind == Kind::Logged { same || threads } else { same && !link.is_encrypted() };
        if !comes_back {
            return self.end_silent(id, time_ns, sink);
        }
        link.suspended.push(id);
        if link.suspended.len() > NESTED {
            let oldest = link.suspended.remove(0);
            self.end_silent(oldest, time_ns, sink);
        }
    }

    /// The statement whose preparation was interrupted goes on, where the task has one on this connection.
    fn resume(&mut self, conn: u64, key: (u32, u64)) -> bool {
        let Some(link) = self.links.get_mut(&conn).filter(|link| link.bound.is_none()) else { return false };
        let open = &mut self.open;
        let Some(at) = link.suspended.iter().rposition(|id| open.get(*id).is_some_and(|open| open.key == key)) else {
            return false;
        };
        let id = link.suspended.remove(at);
        if let Some(open) = open.get(id) {
            open.answered = false;
        }
        link.bound = Some(id);
        true
    }

    pub(super) fn bind(&mut self, conn: u64, id: OpId, time_ns: u64) {
        let Some(link) = self.links.get_mut(&conn) else { return };
        let Some(open) = self.open.get(id) else { return };
        if open.kind == Kind::Short && link.transaction == Some(open.key) && &*open.statement.operation == "BEGIN" {
            open.statement = Arc::clone(&self.savepoint);
        }
        let before = std::mem::replace(&mut open.conn, conn);
        if before != conn || open.send_ns == 0 {
            open.send_ns = time_ns;
        }
        open.answered = false;
        link.bound = Some(id);
        let tgid = open.key.0;
        if before != 0
            && before != conn
            && let Some(other) = self.links.get_mut(&before)
        {
            other.forget(id, None);
        }
        self.has_bound(tgid);
    }
}
