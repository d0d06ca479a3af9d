//! The pipeline's part for databases: calls, spawned tasks and connections that are no HTTP.
//!
//! Reads: records of calls and spawns, and the traffic of other connections. Yields: operations to the outputs. Costs: see
//! [`crate::database`].

use rustc_hash::FxHashMap;
use rustok_obsd_ebpf::{CallHit, Capture, PREFIX, Point, SOUGHT_WORDS, SocketIo, SpawnHit};

use super::pipeline::{Child, Notice, Observed, Pipeline, Sample, Verdicts};
use crate::{
    contract::{
        own::{DatabaseProblem, LossReason},
        recorder::TargetKey,
    },
    database::{
        Ignorance, Origin,
        sockets::{Change, Link, Traffic},
    },
    exchange::{Io, Side, Verdict},
    protocol::Protocol,
};

/// The target that a process' operations count for.
pub(super) fn target_key(
    targets: &FxHashMap<u32, Observed>,
    children: &FxHashMap<u32, Child>,
    tgid: u32,
) -> Option<TargetKey> {
    let owner = if targets.contains_key(&tgid) { tgid } else { children.get(&tgid)?.parent };
    targets.get(&owner).map(|target| target.named.key)
}

/// Who asks: process, task and thread. `owner` is the target that the process counts for: itself, or what forked it. Tasks
/// are numbered by each process for itself.
#[derive(Clone, Copy)]
struct Caller {
    owner: u32,
    tgid: u32,
    time_ns: u64,
    task: u64,
    tid: u32,
}

impl Pipeline {
    /// A database library was called.
    pub(super) fn on_call(&mut self, hit: &CallHit, text: &[u8]) {
        let owner = self.owner(hit.tgid);
        if !self.targets.contains_key(&owner) {
            self.own.lost.add(LossReason::UnknownConnection, 1);
            return;
        }
        if hit.point == Point::Sought as u8 {
            return self.tell_sample(hit, text);
        }
        // The end of a statement, and what comes with it, belongs to whom its begin belonged to.
        let begins = !matches!(hit.point, p if p == Point::QueryEnd as u8 || p == Point::Notice as u8
            || p == Point::Orm as u8 || p == Point::OrmBegin as u8);
        let origin = if begins {
            self.origin(Caller { owner, tgid: hit.tgid, time_ns: hit.time_ns, task: hit.task, tid: hit.tid })
        } else {
            Origin::Unknown(Ignorance::NoTask)
        };
        let Self { targets, children, databases, outputs, .. } = self;
        databases.on_call(hit, text, origin, &mut |tgid, operation| {
            outputs.operation(target_key(targets, children, tgid), operation);
        });
        self.tell_changes();
    }

    fn tell_sample(&mut self, hit: &CallHit, text: &[u8]) {
        let mut sample = Sample { hit: *hit, words: [0; SOUGHT_WORDS], prefixes: [[0; PREFIX]; SOUGHT_WORDS] };
        let (words, prefixes) = text.split_at(text.len().min(8 * SOUGHT_WORDS));
        for (word, bytes) in sample.words.iter_mut().zip(words.chunks_exact(8)) {
            *word = bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
        }
        for (prefix, bytes) in sample.prefixes.iter_mut().zip(prefixes.chunks_exact(PREFIX)) {
            prefix.copy_from_slice(bytes);
        }
        // The queue counts what it refuses.
        let _ = self.notices.send(Notice::Sought(Box::new(sample)));
    }

    /// A task was spawned: it works for whatever its parent works for now.
    pub(super) fn on_spawn(&mut self, hit: &SpawnHit) {
        let owner = self.owner(hit.tgid);
        let caller = Caller { owner, tgid: hit.tgid, time_ns: hit.time_ns, task: hit.parent, tid: hit.tid };
        if self.targets.contains_key(&owner) {
            let Caller { owner, tgid, .. } = caller;
            let origin = self.origin(caller);
            self.databases.tasks.spawned(owner, tgid, hit.child, origin);
        }
    }

    /// Whose work a caller is. There is evidence, or it is unknown.
    fn origin(&mut self, caller: Caller) -> Origin {
        let Caller { owner, tgid, time_ns, task, tid } = caller;
        let Self { connections, databases, outputs, targets, doubtful, .. } = self;
        let drivers = databases.drivers(owner);
        let connection = if task != 0 {
            let Some(connection) = connections.of_task(tgid, task) else {
                return databases.tasks.origin(owner, tgid, task);
            };
            connection
        } else if drivers.tasks {
            // Outside of any task: the runtime's own entry on the main thread serves no request, any other thread may.
            return if tid == tgid { Origin::Background } else { Origin::Unknown(Ignorance::NoTask) };
        } else if drivers.runtime {
            return Origin::Unknown(Ignorance::NoTask);
        } else {
            let Some(connection) = connections.of_thread(owner, tid) else {
                return Origin::Unknown(Ignorance::NoTask);
            };
            connection
        };
        if connection.http.verdict() != Verdict::Http1 {
            return Origin::Unknown(Ignorance::Connection);
        }
        if connection.http.is_ambiguous() {
            return Origin::Unknown(Ignorance::Connection);
        }
        let Some(request) = connection.http.current() else {
            // What a task does between two requests is left over from the one before. What a thread does is not.
            return match connection.http.last_request() {
                0 => Origin::Unknown(Ignorance::Connection),
                // The next one's begin may be among what was lost.
                last if last <= *doubtful => Origin::Unknown(Ignorance::Lossy),
                _ if task == 0 => Origin::Unknown(Ignorance::NoTask),
                last => Origin::Request(last),
            };
        };
        if request.id <= *doubtful {
            return Origin::Unknown(Ignorance::Lossy);
        }
        if task == 0 && request.tid != tid {
            return Origin::Unknown(Ignorance::NoTask);
        }
        let key = targets.get(&owner).map(|target| target.named.key);
        let has_account = databases.requests.open(owner, request.id, time_ns, || {
            let (Some(key), Some(tracer)) = (key, &mut outputs.tracer) else { return Default::default() };
            tracer.begin(key, request.traceparent.as_ref()).into()
        });
        if has_account {
            Origin::Request(request.id)
        } else {
            databases.stats.overflow += 1;
            Origin::Unknown(Ignorance::Lossy)
        }
    }

    /// Traffic of a connection that is no HTTP and on which the target does not serve.
    pub(super) fn on_other(&mut self, record: &SocketIo, io: &Io<'_>, received: bool, protocol: Protocol) {
        let Some(connection) = self.connections.get(record.conn) else { return };
        let (owner, local, remote, side) =
            (connection.tgid, connection.local, connection.remote, connection.http.side());
        let (muted, mid_stream) = (connection.muted, connection.mid_stream);
        if !self.databases.is_link(record.conn) {
            let link = if !self.observes_databases {
                None
            } else if protocol == Protocol::Postgres {
                Some(Link::clear(record.tgid, local, remote, mid_stream, &self.wire))
            } else if self.may_be_database(record, received, protocol, side, mid_stream, remote.port()) {
                Some(Link::encrypted(record.tgid, local, remote))
            } else {
                None
            };
            let Some(link) = link else {
                if !muted {
                    // One that was there before may still turn out to be a database's, by a call that sends on it.
                    let drivers = self.databases.drivers(record.tgid);
                    let may_yet = mid_stream && (drivers.calls || drivers.sought);
                    self.set_capture(record.conn, if may_yet { Capture::Counts } else { Capture::Off });
                }
                return;
            };
            self.databases.open_link(record.conn, link);
        }
        let sends = !received;
        let origin = if sends && record.result > 0 && !self.databases.has_unsent_call(record.tgid, io.task, io.tid) {
            let (time_ns, tgid, task, tid) = (io.time_ns, record.tgid, io.task, io.tid);
            self.origin_of_bytes(Caller { owner, tgid, time_ns, task, tid })
        } else {
            Origin::Unknown(Ignorance::NoTask)
        };
        if received && io.task == 0 && self.databases.asking_thread(record.conn).is_some_and(|tid| tid != io.tid) {
            // One thread asked and another one reads the answer: work moves between threads.
            self.connections.interleave(owner);
        }
        let traffic = Traffic { conn: record.conn, tgid: record.tgid, io, origin };
        let Self { targets, children, databases, outputs, wire, .. } = self;
        let mut sink = |tgid: u32, operation: &crate::database::Operation<'_>| {
            outputs.operation(target_key(targets, children, tgid), operation);
        };
        if record.result <= 0 {
            if !is_over(record.result, received) {
                return;
            }
            databases.on_broken(record.conn, record.time_ns, wire, &mut sink);
        } else if sends {
            databases.on_send(&traffic, wire, &mut sink);
        } else {
            databases.on_receive(&traffic, wire, &mut sink);
        }
        self.tell_changes();
        if !muted && self.databases.is_encrypted(record.conn) {
            self.set_capture(record.conn, Capture::Counts);
        }
    }

    /// Tells the gauges of connections what changed.
    pub(super) fn tell_changes(&mut self) {
        let Self { connections, databases, outputs, targets, .. } = self;
        if databases.changes.is_empty() {
            return;
        }
        let mut changes = std::mem::take(&mut databases.changes);
        for (conn, change) in changes.drain(..) {
            if change != Change::Opened {
                outputs.link_changed(conn, change);
            } else if let Some(connection) = connections.get(conn)
                && let Some(target) = targets.get(&connection.tgid)
            {
                outputs.link_opened(target.named.key, conn, connection.remote, databases.namespace(conn));
            }
        }
        databases.changes = changes;
    }

    /// Whose work bytes are that no call explains. A driver whose connections are tasks of their own sends for anybody:
    /// only what the task of a request sends itself is that request's.
    fn origin_of_bytes(&mut self, caller: Caller) -> Origin {
        if self.databases.drivers(caller.owner).shared_connections
            && (caller.task == 0 || self.connections.of_task(caller.tgid, caller.task).is_none())
        {
            return Origin::Unknown(Ignorance::SharedConnection);
        }
        self.origin(caller)
    }

    /// Whether an encrypted connection is one to a database: a task with an unsent call of the driver sends on it, or its
    /// port says so. One that began with a TLS handshake is none: PostgreSQL's begins with a request for it.
    fn may_be_database(
        &self,
        record: &SocketIo,
        received: bool,
        protocol: Protocol,
        side: Option<Side>,
        mid_stream: bool,
        port: u16,
    ) -> bool {
        if side == Some(Side::Server) || !matches!(protocol, Protocol::Tls | Protocol::Unknown) {
            return false;
        }
        let calls = !received && self.databases.has_unsent_call(record.tgid, record.task, record.tid);
        (mid_stream && calls) || self.ports.contains(&port)
    }

    fn set_capture(&mut self, conn: u64, capture: Capture) {
        if let Some(connection) = self.connections.get(conn) {
            connection.muted = true;
        }
        tell_verdict(self.verdicts.as_mut(), conn, capture);
    }

    /// Adds what the tracker counted since the last time to the daemon's own metrics.
    pub(super) fn publish_databases(&mut self) {
        self.publish_wire();
        let (now, told) = (self.databases.stats, std::mem::replace(&mut self.told_databases, self.databases.stats));
        if now == told {
            return;
        }
        use DatabaseProblem as P;
        let problems = &self.own.database_problems;
        problems.add(P::UnmatchedCall, now.unmatched_calls - told.unmatched_calls);
        problems.add(P::Unbound, now.unbound - told.unbound);
        problems.add(P::LayoutDoubt, now.layout_doubts - told.layout_doubts);
        problems.add(P::TruncatedStatement, now.truncated_statements - told.truncated_statements);
        problems.add(P::UnmatchedEnd, now.unmatched_ends - told.unmatched_ends);
        problems.add(P::LostEnd, now.lost_ends - told.lost_ends);
        problems.add(P::UnknownStatement, now.unknown_statements - told.unknown_statements);
        problems.add(P::OpaqueRoundTrip, now.opaque_round_trips - told.opaque_round_trips);
        problems.add(P::OtherMessageStartup, now.others.startup - told.others.startup);
        problems.add(P::OtherMessageAuthentication, now.others.authentication - told.others.authentication);
        problems.add(P::OtherMessagePing, now.others.ping - told.others.ping);
        problems.add(P::OtherMessageCancel, now.others.cancel - told.others.cancel);
        problems.add(P::OtherMessageNotification, now.others.notification - told.others.notification);
        problems.add(P::TooMany, now.overflow - told.overflow);
        let unknown = |why: Ignorance| now.unknown_parents[why as usize] - told.unknown_parents[why as usize];
        problems.add(P::ParentUnknownNoTask, unknown(Ignorance::NoTask));
        problems.add(P::ParentUnknownNoSpawn, unknown(Ignorance::NoSpawn));
        problems.add(P::ParentUnknownLossy, unknown(Ignorance::Lossy));
        problems.add(P::ParentUnknownConnection, unknown(Ignorance::Connection));
        problems.add(P::ParentUnknownSharedConnection, unknown(Ignorance::SharedConnection));
    }

    fn publish_wire(&mut self) {
        let (now, told) = (self.wire.stats, std::mem::replace(&mut self.told_wire, self.wire.stats));
        if now != told {
            self.own.database_problems.add(DatabaseProblem::LostSync, now.lost_sync - told.lost_sync);
            self.own.lost_bytes.fetch_add(now.lost_bytes - told.lost_bytes, std::sync::atomic::Ordering::Relaxed);
        }
    }
}

/// The stream ended, or the connection failed; other errors come and go.
const fn is_over(result: i32, received: bool) -> bool {
    match result.saturating_neg() {
        0 => received,
        errno => {
            matches!(errno, libc::ECONNRESET | libc::EPIPE | libc::ETIMEDOUT | libc::ECONNABORTED | libc::EHOSTUNREACH)
        }
    }
}

/// Tells the programs what to copy of a connection.
#[cold]
pub(super) fn tell_verdict(verdicts: Option<&mut Box<dyn Verdicts>>, conn: u64, capture: Capture) {
    if let Some(verdicts) = verdicts {
        verdicts.copy(conn, capture);
    }
}
