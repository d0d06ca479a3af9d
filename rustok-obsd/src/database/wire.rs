//! What clear text tells of operations: events of the protocol's parser.
//!
//! Reads: records of connections that [`super::sockets`] knows. Yields: operations that no call explains, and rows, errors
//! and ends of those that one does. Costs: a look-up per event; see [`super::tracker`] for the rule.

use std::sync::Arc;

use super::open::{Kind, OpId, Open, task_key};
use super::sockets::{Reading, Traffic};
use super::tracker::{Sink, Tracker};
use super::{Ending, Sight};
use crate::budget::cut;
use crate::exchange::postgres::{OtherKind, PostgresConnection, Shared, WireEvent, WireSql};
use crate::protocol::postgres::TransactionStatus;
use crate::statement::{Dialect, Knowledge, Statement};

/// Longest name of a database that is kept; PostgreSQL's have 63 bytes.
const NAMESPACE: usize = 128;
/// Operations of one connection that are in flight in clear text: more than the parser follows.
const IN_FLIGHT: usize = 8192;
/// Room for so many stays with an idle connection.
const KEPT: usize = 64;

impl Tracker {
    /// Feeds a record to the parser of a connection in clear text.
    pub(super) fn read_io(
        &mut self,
        traffic: &Traffic<'_, '_>,
        received: bool,
        shared: &mut Shared,
        sink: &mut Sink<'_>,
    ) {
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

    pub(super) fn read(
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
        shared.set_owner(link.owner);
        // Taken out while it tells, since what it tells changes the rest.
        let reading = std::mem::replace(&mut link.reading, Reading::Taken);
        let Reading::Clear(mut connection) = reading else {
            link.reading = reading;
            return;
        };
        let mut encrypted = false;
        feed(&mut connection, shared, &mut |event| {
            encrypted |= matches!(event, WireEvent::Encrypted);
            reader.take(self, conn, event, sink);
        });
        if let Some(link) = self.links.get_mut(&conn) {
            link.reading = if encrypted { Reading::Encrypted } else { Reading::Clear(connection) };
        }
    }
}

/// An operation that no call explains.
pub(super) fn unseen(traffic: &Traffic<'_, '_>, statement: Arc<Statement>, kind: Kind, sight: Sight) -> Open {
    let Traffic { tgid, io, origin, .. } = *traffic;
    Open::new((tgid, io.task, io.tid), io.time_ns, statement, kind, sight, origin)
}

/// Takes what the parser tells.
struct Reader<'t, 'a, 'b> {
    traffic: Option<&'t Traffic<'a, 'b>>,
}

impl Reader<'_, '_, '_> {
    fn take(&mut self, tracker: &mut Tracker, conn: u64, event: WireEvent<'_>, sink: &mut Sink<'_>) {
        match event {
            WireEvent::Begin { op, time_ns, task, tid, sql } => {
                self.begin(tracker, conn, op, (time_ns, task, tid), sql, sink);
            }
            WireEvent::First { op, time_ns } => {
                if let Some(open) = tracker.wire(conn, op).and_then(|id| tracker.open.get(id))
                    && open.kind == Kind::Wire
                {
                    open.first_ns = time_ns;
                }
            }
            WireEvent::End { op, time_ns, rows, sqlstate, ending } => {
                let Some(id) = tracker.wire(conn, op) else { return };
                if let Some(link) = tracker.links.get_mut(&conn)
                    && let Some(at) = link.place(op)
                {
                    link.in_flight.remove(at);
                    if link.in_flight.is_empty() && link.in_flight.capacity() > KEPT {
                        link.in_flight = Default::default();
                    }
                }
                let Some(open) = tracker.open.get(id) else { return };
                open.rows = rows.or(open.rows);
                open.sqlstate = sqlstate.or(open.sqlstate);
                if open.kind != Kind::Logged {
                    tracker.finish(id, time_ns, ending, sink);
                }
            }
            WireEvent::Ready { status, .. } => {
                if let Some(link) = tracker.links.get_mut(&conn) {
                    link.status = Some(status);
                    if status == TransactionStatus::Idle {
                        (link.transaction, link.depth) = (None, 0);
                    }
                }
            }
            WireEvent::Startup { database } => {
                if let Some(link) = tracker.links.get_mut(&conn) {
                    link.namespace = std::str::from_utf8(database).ok().map(|name| cut(name, NAMESPACE).into());
                }
            }
            WireEvent::StandardStrings(standard) => {
                if let Some(link) = tracker.links.get_mut(&conn) {
                    link.dialect = Dialect::postgres(standard);
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
        (time_ns, task, tid): (u64, u64, u32),
        sql: WireSql<'_>,
        sink: &mut Sink<'_>,
    ) {
        let Some(traffic) = self.traffic else { return };
        if time_ns != 0 && tracker.links.get(&conn).is_some_and(|link| link.dropped_ns == time_ns) {
            return;
        }
        let (text, truncated) = match sql {
            WireSql::Text { sql, truncated } => (Some(sql), truncated),
            WireSql::Function => (Some(&b"CALL"[..]), false),
            WireSql::Named => (None, false),
        };
        let drivers = tracker.drivers(traffic.tgid);
        let carried = tracker.links.get(&conn).map_or(Dialect::POSTGRES, |link| link.dialect);
        // A call's text was read by what is known of its driver, and is found again by the same reading.
        let called = if drivers.calls || drivers.sought { drivers.dialect } else { carried };
        let owner = tracker.owner(traffic.tgid);
        let known = text.map(|sql| tracker.statements.get(owner, sql, truncated, called));
        let key = task_key(traffic.tgid, task, tid);
        let id = match tracker.asked(conn, key, known.as_deref()) {
            Some(id) => id,
            None => {
                let read = text.map(|sql| tracker.statements.get(owner, sql, truncated, carried));
                let statement = read.unwrap_or_else(|| {
                    tracker.stats.unknown_statements += 1;
                    tracker.unknown()
                });
                let mut open = unseen(traffic, statement, Kind::Wire, Sight::Wire);
                (open.start_ns, open.send_ns) = (time_ns, time_ns);
                open.conn = conn;
                let Some(id) = tracker.start_unseen(open) else { return };
                id
            }
        };
        let Some(open) = tracker.open.get(id) else { return };
        open.wire = Some(op);
        if open.kind == Kind::Short
            && let Some(statement) = known
        {
            // What was sent: inside a transaction BEGIN is SAVEPOINT.
            open.statement = statement;
        }
        if open.conn != conn {
            // It was taken for the asker of other bytes of its task, such as the pool's ping.
            tracker.bind(conn, id, time_ns);
        }
        let Some(link) = tracker.links.get_mut(&conn) else { return };
        if link.in_flight.len() < IN_FLIGHT && link.in_flight.back().is_none_or(|(last, _)| *last < op) {
            link.in_flight.push_back((op, id));
        } else {
            tracker.stats.overflow += 1;
            tracker.finish(id, time_ns, Ending::Incomplete, sink);
        }
    }
}

impl Tracker {
    /// The operation that has this number on the connection.
    fn wire(&self, conn: u64, op: u64) -> Option<OpId> {
        let link = self.links.get(&conn)?;
        link.place(op).map(|at| link.in_flight[at].1)
    }

    /// The call that an operation in clear text comes from: a dropped transaction's ROLLBACK, or the one that the connection
    /// was bound to by these bytes, or another one of the task with the same text. Each call is one operation.
    fn asked(&mut self, conn: u64, key: (u32, u64), known: Option<&Statement>) -> Option<OpId> {
        let link = self.links.get(&conn)?;
        let (bound, deferred) = (link.bound, link.deferred);
        let free = |open: &Open| open.wire.is_none() && open.kind != Kind::Wire;
        if let Some(id) = deferred.filter(|id| {
            let rolls_back = known.is_some_and(|known| known.operation.starts_with("ROLLBACK"));
            rolls_back && self.open.get(*id).is_some_and(|open| free(open))
        }) {
            return Some(id);
        }
        let bound = bound.filter(|id| self.open.get(*id).is_some_and(|open| free(open)));
        if let Some(id) = bound
            && self.open.get(id).is_some_and(|open| is_same(open, known))
        {
            return Some(id);
        }
        let exact = |open: &Open| known.is_some_and(|known| known.fingerprint == open.statement.fingerprint);
        let near = |open: &Open| (!open.answered && (open.is_unsent() || open.conn == conn)) || exact(open);
        self.open.find(key, |open| free(open) && near(open) && is_same(open, known)).or(bound)
    }
}

/// A call's text and one on the wire can be the same.
fn is_same(open: &Open, known: Option<&Statement>) -> bool {
    let Some(known) = known else { return true };
    if open.kind == Kind::Short {
        return known.operation.starts_with("BEGIN")
            || known.operation.starts_with("S") && &*known.operation != "SELECT";
    }
    let whole = |statement: &Statement| statement.knowledge == Knowledge::Whole;
    known.fingerprint == open.statement.fingerprint || !whole(known) || !whole(&open.statement)
}
