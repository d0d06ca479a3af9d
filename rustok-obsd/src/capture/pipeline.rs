//! From records to metrics and spans: everything that happens to a record, in one thread.
//!
//! Reads: the ring's entries, and [`Command`]s of the room that finds targets. Yields: observations in the recorder,
//! spans to the tracer, process events and calibration samples to that room. Costs: under a microsecond a record; no
//! allocation in steady state.

use std::{
    sync::{Arc, mpsc::Receiver},
    time::{Duration, Instant},
};

use rustc_hash::FxHashMap;
use rustok_obsd_ebpf::{CallHit, Capture, PREFIX, SOUGHT_WORDS, SocketClose, SocketIo, SocketOpen, TaskProbe};

pub use super::clock::monotonic_ns;
pub use super::ring::{Verdicts, split};
use super::{
    connections::{Connection, Connections},
    databases::{target_key, tell_verdict},
    doubts::Doubts,
    memory::Trim,
    outputs::{Named, Outputs},
    parked::Parking,
    record::{self, Record},
};
use crate::{
    contract::{
        database::DatabaseRecorder,
        own::{LossReason, RecordKind, SelfMetrics},
        recorder::{HttpRecorder, TargetKey, TargetLabels},
    },
    database::{Ignorance, Origin, Tracker, tracker::Drivers},
    exchange::{self, Exchange, Io, RoutesExact, Side, Stats, Verdict},
    liveness::queue::{Class, Classed, Sender},
    probe::loader::Counts,
    route::{Budget, RouteNamer},
    target::{ProcessKey, Reader, RouteCache},
    trace::{Addresses, TargetResource, Tracer},
};

/// What the room that finds targets tells the pipeline.
pub enum Command {
    /// Records of this process may come.
    Add(Box<Added>),
    /// axum's probe watches the process and its task ids are known, so that routes are exact.
    RoutesExact {
        /// Process.
        tgid: u32,
        /// From when on.
        exact: RoutesExact,
    },
    /// What is observed of the process' database libraries and tasks changed.
    Drivers {
        /// Process.
        tgid: u32,
        /// What is observed from now on.
        drivers: Drivers,
    },
    /// A forked child is no target.
    Disown {
        /// Process.
        tgid: u32,
    },
    /// The process ended or replaced its program.
    Remove {
        /// Process.
        tgid: u32,
        /// The target that it was.
        key: TargetKey,
    },
}

/// A new target.
pub struct Added {
    /// Process.
    pub process: ProcessKey,
    /// Number of the target.
    pub key: TargetKey,
    /// What its series say.
    pub labels: TargetLabels,
    /// What its spans say.
    pub resource: Arc<TargetResource>,
    /// Names its routes.
    pub namer: RouteNamer,
    /// See [`Command::RoutesExact`].
    pub routes_exact: RoutesExact,
    /// See [`Command::Drivers`].
    pub drivers: Drivers,
}

/// What the pipeline tells the room that finds targets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A process replaced its program.
    Started(u32),
    /// A target forked it; the programs follow it already.
    Forked(u32),
    /// A target's main thread ended.
    Ended(u32),
    /// What should be the task's id on the thread that matched routes is none, again and again.
    SlotDoubtful(u32),
    /// Routes are matched in tasks that read from no connection: the server hands requests to tasks of their own.
    RoutesElsewhere(u32),
    /// Calibration of Tokio's slot.
    TaskEnter(TaskProbe),
    /// A function whose place of the statement is sought was called.
    Sought(Box<Sample>),
}

impl Classed for Notice {
    fn class(&self) -> Class {
        match self {
            Self::TaskEnter(probe) => Class::Sample(probe.tgid),
            Self::Sought(sample) => Class::Sample(sample.hit.tgid),
            _ => Class::Event,
        }
    }
}

/// What a call looked like whose statement is sought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The call.
    pub hit: CallHit,
    /// What its argument points at.
    pub words: [u64; SOUGHT_WORDS],
    /// What each of those words points at.
    pub prefixes: [[u8; PREFIX]; SOUGHT_WORDS],
}

/// A process that ended keeps its entry so long, for the closes of its sockets to arrive.
const AFTERLIFE: Duration = Duration::from_secs(2);
/// Between two looks at what has to go.
const SWEEP: Duration = Duration::from_secs(1);

pub(super) struct Observed {
    pub(super) process: ProcessKey,
    pub(super) named: Named,
    pub(super) routes_exact: RoutesExact,
    pub(super) doubts: Doubts,
    ended: Option<Instant>,
}

/// A child that a target forked.
pub(super) struct Child {
    pub(super) parent: u32,
    /// Disowned or ended; records that it left are still in the ring.
    ended: Option<Instant>,
}

/// See the module's head.
pub struct Pipeline {
    pub(super) targets: FxHashMap<u32, Observed>,
    /// Children that targets forked, until they are targets themselves: what they serve counts for the parent.
    pub(super) children: FxHashMap<u32, Child>,
    pub(super) connections: Connections,
    pub(super) most_connections: usize,
    pub(super) shared: exchange::Shared,
    pub(super) told: Stats,
    pub(super) routes: RouteCache,
    pub(super) databases: Tracker,
    pub(super) told_databases: crate::database::tracker::Stats,
    pub(super) told_wire: exchange::postgres::Stats,
    pub(super) observes_databases: bool,
    pub(super) ports: Vec<u16>,
    pub(super) wire: exchange::postgres::Shared,
    /// Bytes that all targets' learned routes share.
    learned: Budget,
    pub(super) outputs: Outputs,
    pub(super) own: Arc<SelfMetrics>,
    pub(super) verdicts: Option<Box<dyn Verdicts>>,
    pub(super) counts: Option<Arc<Counts>>,
    /// Records that the full ring had refused at the last look, and how long that may still be felt.
    pub(super) refused: u64,
    pub(super) lossy_until: Option<Instant>,
    /// Requests up to this number began before records were lost: whether they are under way is not certain. All of them
    /// while the place of the loss lies ahead.
    pub(super) doubtful: u64,
    pub(super) gap_ahead: bool,
    /// Requests whose records the full ring had refused at the last look.
    pub(super) refused_requests: u64,
    commands: Receiver<Command>,
    pub(super) notices: Sender<Notice>,
    swept: Instant,
    pub(super) trim: Trim,
}

/// What a pipeline works with.
pub struct Parts {
    /// Connections followed at a time.
    pub most_connections: usize,
    /// Where observations go.
    pub recorder: HttpRecorder,
    /// Where those of databases go.
    pub database: DatabaseRecorder,
    /// Where spans go.
    pub tracer: Option<Tracer>,
    /// Fields of request heads that spans carry.
    pub wanted: exchange::Wanted,
    /// The daemon's own counters.
    pub own: Arc<SelfMetrics>,
    /// Tells the programs what to copy.
    pub verdicts: Option<Box<dyn Verdicts>>,
    /// What the programs count.
    pub counts: Option<Arc<Counts>>,
    /// Bound of a statement's text.
    pub statement_bytes: u32,
    /// Connections to databases are followed.
    pub databases: bool,
    /// Ports that are a database's where nothing else tells.
    pub ports: Vec<u16>,
    /// Reads targets' route tables.
    pub reader: Reader,
}

impl Pipeline {
    /// A pipeline without targets.
    #[must_use]
    pub fn new(parts: Parts, commands: Receiver<Command>, notices: Sender<Notice>) -> Self {
        let Parts {
            most_connections,
            recorder,
            database,
            tracer,
            wanted,
            own,
            verdicts,
            counts,
            statement_bytes,
            databases,
            ports,
            reader,
        } = parts;
        let pipeline = Self {
            targets: FxHashMap::default(),
            children: FxHashMap::default(),
            connections: Connections::new(most_connections),
            most_connections,
            shared: exchange::Shared::wanting(wanted),
            told: Stats::default(),
            routes: RouteCache::new(reader),
            databases: Tracker::default(),
            told_databases: crate::database::tracker::Stats::default(),
            told_wire: exchange::postgres::Stats::default(),
            observes_databases: databases,
            ports,
            wire: exchange::postgres::Shared::new(statement_bytes),
            learned: Budget::default(),
            outputs: Outputs { recorder, database, tracer, pools: FxHashMap::default(), parking: Parking::default() },
            own,
            verdicts,
            counts,
            refused: 0,
            lossy_until: None,
            doubtful: 0,
            gap_ahead: false,
            refused_requests: 0,
            commands,
            notices,
            swept: Instant::now(),
            trim: Trim::default(),
        };
        pipeline.register_stores();
        pipeline
    }

    /// Does what was asked for. Called before each batch of records: a target is announced here before the programs
    /// follow it.
    pub fn obey(&mut self) {
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Add(added) => self.add(*added),
                Command::RoutesExact { tgid, exact } => {
                    if let Some(target) = self.targets.get_mut(&tgid) {
                        target.routes_exact = exact;
                        self.connections.each_of_process(tgid).for_each(|connection| {
                            connection.http.set_routes_exact(exact);
                        });
                    }
                }
                Command::Drivers { tgid, drivers } => {
                    let children = self.children.iter().filter(|(_, child)| child.parent == tgid);
                    for process in children.map(|(child, _)| *child).chain([tgid]) {
                        self.databases.add_process(process, drivers);
                    }
                }
                Command::Disown { tgid } => {
                    if let Some(child) = self.children.get_mut(&tgid) {
                        child.ended = Some(Instant::now());
                    }
                }
                Command::Remove { tgid, key } => {
                    if let Some(target) = self.targets.get_mut(&tgid).filter(|target| target.named.key == key) {
                        target.ended = Some(Instant::now());
                    }
                }
            }
        }
        self.name_parked();
        self.publish();
        self.own.set_processed();
        self.look_for_losses();
        if self.swept.elapsed() >= SWEEP {
            self.sweep();
        }
    }

    fn add(&mut self, added: Added) {
        let Added { process, key, labels, resource, namer, routes_exact, drivers } = added;
        // The pid serves again, or the process replaced its program, or it was a child so far.
        self.forget(process.pid);
        self.children.remove(&process.pid);
        self.join(process.pid, labels.behind.user());
        self.outputs.add_target(key, labels, resource);
        self.databases.add_process(process.pid, drivers);
        let named = Named::new(key, process.pid, namer.sharing(&self.learned));
        self.targets
            .insert(process.pid, Observed { process, named, routes_exact, doubts: Doubts::default(), ended: None });
    }

    /// The process of a child ended, or runs another program.
    fn forget_child(&mut self, tgid: u32) {
        let Self { targets, children, databases, outputs, .. } = self;
        if children.contains_key(&tgid) {
            databases.remove_process(tgid, monotonic_ns(), &mut |tgid, operation| {
                outputs.operation(target_key(targets, children, tgid), operation);
            });
            children.remove(&tgid);
        }
    }

    fn forget(&mut self, tgid: u32) {
        for conn in self.connections.of_process(tgid) {
            if let Some(connection) = self.connections.close(conn) {
                self.end(connection, monotonic_ns(), true);
            }
        }
        let Self { targets, children, databases, outputs, .. } = self;
        databases.remove_process(tgid, monotonic_ns(), &mut |tgid, operation| {
            outputs.operation(target_key(targets, children, tgid), operation);
        });
        self.release_parked(Some(tgid));
        self.publish_routing();
        if let Some(target) = self.targets.remove(&tgid) {
            self.outputs.remove_target(target.named.key);
            self.routes.forget(target.process.pid);
            self.connections.forget_process(tgid);
            self.join(tgid, None);
        }
    }

    #[cold]
    fn sweep(&mut self) {
        self.swept = Instant::now();
        self.publish_routing();
        let over = |target: &Observed| target.ended.is_some_and(|ended| ended.elapsed() >= AFTERLIFE);
        let ended: Vec<u32> = self.targets.iter().filter(|(_, target)| over(target)).map(|(tgid, _)| *tgid).collect();
        for tgid in ended {
            self.forget(tgid);
        }
        let gone = |child: &Child| {
            child.ended.is_some_and(|ended| ended.elapsed() >= AFTERLIFE) || !self.targets.contains_key(&child.parent)
        };
        let gone: Vec<u32> = self.children.iter().filter(|(_, child)| gone(child)).map(|(tgid, _)| *tgid).collect();
        for tgid in gone {
            self.forget_child(tgid);
        }
        let Self { targets, children, databases, outputs, .. } = self;
        databases.reap(monotonic_ns(), &mut |tgid, operation| {
            outputs.operation(target_key(targets, children, tgid), operation);
        });
        self.make_room();
        self.outputs.age();
        self.give_back();
    }

    /// Takes one entry of the ring.
    pub fn take(&mut self, entry: &[u8]) {
        let record = match Record::parse(entry) {
            Ok(record) => record,
            Err(error) => {
                self.own.lost.add(LossReason::Malformed, 1);
                tracing::debug!("{error}");
                return;
            }
        };
        match record {
            Record::Send(io, data) => {
                self.own.records.add(RecordKind::Send, 1);
                self.on_io(&io, data, false);
            }
            Record::Receive(io, data) => {
                self.own.records.add(RecordKind::Receive, 1);
                self.on_io(&io, data, true);
            }
            Record::Open(open) => {
                self.own.records.add(RecordKind::Open, 1);
                self.on_open(&open);
            }
            Record::Close(close) => {
                self.own.records.add(RecordKind::Close, 1);
                self.on_close(&close);
            }
            Record::Route(hit) => {
                self.own.records.add(RecordKind::Route, 1);
                self.on_route(&hit);
            }
            Record::Exec(event) => {
                self.forget_child(event.pid);
                self.notify(RecordKind::Exec, Notice::Started(event.pid));
            }
            Record::Fork(event) => {
                let parent = self.owner(event.parent);
                self.forget_child(event.pid);
                self.children.insert(event.pid, Child { parent, ended: None });
                // It may be a target by now.
                if !self.targets.contains_key(&event.pid) {
                    self.databases.add_child(event.pid, parent);
                }
                self.notify(RecordKind::Fork, Notice::Forked(event.pid));
            }
            Record::Exit(event) => {
                if let Some(child) = self.children.get_mut(&event.pid) {
                    child.ended = Some(Instant::now());
                }
                self.notify(RecordKind::Exit, Notice::Ended(event.pid));
            }
            Record::TaskEnter(probe) => self.notify(RecordKind::TaskEnter, Notice::TaskEnter(probe)),
            Record::Spawn(hit) => {
                self.own.records.add(RecordKind::Spawn, 1);
                self.on_spawn(&hit);
            }
            Record::Call(hit, text) => {
                self.own.records.add(RecordKind::Call, 1);
                self.on_call(&hit, text);
            }
        }
    }

    fn notify(&mut self, kind: RecordKind, notice: Notice) {
        self.own.records.add(kind, 1);
        // The queue counts what it refuses.
        let _ = self.notices.send(notice);
    }

    /// The target that a process' connections belong to.
    pub(super) fn owner(&self, tgid: u32) -> u32 {
        if self.targets.contains_key(&tgid) {
            tgid
        } else {
            self.children.get(&tgid).map_or(tgid, |child| child.parent)
        }
    }

    fn on_open(&mut self, open: &SocketOpen) {
        // The command came before the programs followed the process, but perhaps after this batch began.
        if !self.targets.contains_key(&open.tgid) {
            self.obey();
        }
        let tgid = self.owner(open.tgid);
        let routes_exact = self.targets.get(&tgid).map_or(RoutesExact::NEVER, |target| target.routes_exact);
        if let Some(replaced) = self.connections.open(&SocketOpen { tgid, ..*open }, routes_exact) {
            self.replaced(replaced, open);
        }
        if self.connections.len() > self.most_connections {
            self.make_room();
        }
    }

    fn on_close(&mut self, close: &SocketClose) {
        match self.connections.close(close.conn) {
            Some(mut connection) => {
                if let Ok(errno @ 1..) = i32::try_from(close.error) {
                    connection.http.on_error(errno);
                }
                self.end(connection, close.time_ns, true);
            }
            None => self.own.lost.add(LossReason::UnknownConnection, 1),
        }
    }

    /// `closed`: by the target; else we stop following.
    pub(super) fn end(&mut self, mut connection: Connection, time_ns: u64, closed: bool) {
        let Self { targets, children, databases, outputs, shared, wire, lossy_until, .. } = self;
        shared.set_owner(connection.tgid);
        let used = databases.close_link(connection.conn, time_ns, wire, &mut |tgid, operation| {
            outputs.operation(target_key(targets, children, tgid), operation);
        });
        if let Some(target) = targets.get_mut(&connection.tgid) {
            let addresses = Addresses { local: connection.local, remote: connection.remote };
            let (named, lossy, owner) = (&mut target.named, lossy_until.is_some(), connection.tgid);
            let reader = connection.reader();
            let mut sink = |exchange: &Exchange<'_>| {
                let tgid = reader.map_or(owner, |(tgid, _)| tgid);
                outputs.exchange(named, databases, tgid, addresses, lossy, exchange);
            };
            if closed {
                connection.http.on_close(time_ns, shared, &mut sink);
            } else {
                connection.http.on_abandon(time_ns, shared, &mut sink);
            }
            if connection.counted {
                outputs.recorder.connection_closed(target.named.key);
            }
        }
        // What its task still does is left over from its last request. Its spawn tells another story.
        if let Some((tgid, task)) = connection.reader() {
            let origin = match connection.http.last_request() {
                last if closed && last > self.doubtful => Origin::Request(last),
                _ => Origin::Unknown(Ignorance::Connection),
            };
            if self.connections.of_task(tgid, task).is_none() {
                self.databases.tasks.spawned(connection.tgid, tgid, task, origin);
            }
        }
        self.tell_changes();
        self.outputs.link_closed(connection.conn, used.unwrap_or(false));
    }

    fn on_io(&mut self, record: &SocketIo, data: &[u8], received: bool) {
        let Some(connection) = self.connections.get(record.conn) else {
            return self.on_stray(data, received);
        };
        let lost = connection.lost_before(record, received);
        let Self { targets, databases, outputs, shared, lossy_until, .. } = self;
        let Some(target) = targets.get_mut(&connection.tgid) else {
            self.own.lost.add(LossReason::UnknownConnection, 1);
            return;
        };
        let addresses = Addresses { local: connection.local, remote: connection.remote };
        let (named, lossy, tgid) = (&mut target.named, lossy_until.is_some(), record.tgid);
        let (key, owner) = (named.key, connection.tgid);
        shared.set_owner(owner);
        let mut sink = |exchange: &Exchange<'_>| outputs.exchange(named, databases, tgid, addresses, lossy, exchange);
        let http = &mut connection.http;
        let io = Io {
            time_ns: record.time_ns,
            ready_ns: record.ready_ns,
            task: record.task,
            tid: record.tid,
            len: usize::try_from(record.result).unwrap_or(0),
            data,
            tail: record::tail(record),
            lost,
        };
        let asked = http.current().filter(|_| !received && record.task == 0 && record.result > 0);
        match record.result {
            ..0 => http.on_error(record.result.saturating_neg()),
            0 if received => http.on_end_of_stream(record.time_ns, shared, &mut sink),
            _ if received => http.on_receive(&io, shared, &mut sink),
            _ => http.on_send(&io, shared, &mut sink),
        }
        let serves = http.side() == Some(Side::Server);
        for method in http.take_started().filter(|_| serves) {
            outputs.recorder.request_started(key, method);
        }
        match http.verdict() {
            Verdict::Http1 if serves && !connection.counted => {
                connection.counted = true;
                outputs.recorder.connection_opened(key);
            }
            Verdict::Opaque(protocol) if !serves => return self.on_other(record, &io, received, protocol),
            Verdict::Opaque(_) if !connection.muted => {
                connection.muted = true;
                tell_verdict(self.verdicts.as_mut(), record.conn, Capture::Counts);
            }
            _ => {}
        }
        if received && serves && connection.is_new_reader(record.tgid, record.task) {
            self.connections.read_by(record.conn, record.tgid, record.task);
        }
        if received && serves && record.task == 0 {
            self.connections.read_on(record.conn, record.tid);
        }
        if let Some(request) = asked.filter(|_| serves) {
            self.connections.answered_on(owner, request.tid, record.tid);
        }
    }

    /// Ends all connections, for the daemon ends.
    pub fn finish(&mut self) {
        let targets: Vec<u32> = self.targets.keys().copied().collect();
        for tgid in targets {
            for conn in self.connections.of_process(tgid) {
                if let Some(connection) = self.connections.close(conn) {
                    self.end(connection, monotonic_ns(), false);
                }
            }
        }
        self.release_parked(None);
        for tgid in self.targets.keys().chain(self.children.keys()).copied().collect::<Vec<_>>() {
            let Self { targets, children, databases, outputs, .. } = self;
            databases.remove_process(tgid, monotonic_ns(), &mut |tgid, operation| {
                outputs.operation(target_key(targets, children, tgid), operation);
            });
        }
        self.publish();
        self.publish_routing();
    }
}
