//! A pipeline that is fed with the ring's entries, and what a test asks it.

use std::sync::{Arc, mpsc};

use rustok_obsd_ebpf::{
    CALL_WORDS, CallHit, Kind, OPEN_MID_STREAM, Point, Role, SocketClose, SocketIo, SocketOpen, SpawnHit,
};

use super::super::pipeline::{Added, Command, Notice, Parts, Pipeline, monotonic_ns};
use crate::liveness::queue;
use crate::{
    config::{Config, Target as Configured},
    contract::{
        HttpMetrics,
        database::{DatabaseMetrics, DatabaseRecorder, Settings},
        own::{Build, SelfMetrics},
        recorder::{Behind, HttpRecorder, Limits, TargetKey, TargetLabels},
    },
    database::{System, tracker::Drivers},
    exchange::RoutesExact,
    exposition::{Format, to_text},
    route::{Patterns, RouteNamer},
    statement::Dialect,
    target::{InProcess, ProcessKey, Reader},
    trace::Resources,
};

pub(super) const PID: u32 = 500;
pub(super) const MOST_CONNECTIONS: usize = 10_000;
pub(super) const SQL: &str = "SELECT a FROM b";
pub(super) const REQUEST: &[u8] = b"GET /x HTTP/1.1\r\nhost: a\r\n\r\n";
pub(super) const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
pub(super) const TLS: &[u8] = b"\x17\x03\x03\0\x10................";
/// The connection to the database.
pub(super) const LINK: u64 = 1000;
pub(super) const TOKIO: Drivers = Drivers {
    calls: true,
    sought: false,
    ends: true,
    tasks: true,
    runtime: true,
    shared_connections: false,
    system: System::Postgresql,
    dialect: Dialect::POSTGRES,
};
/// No driver and no runtime is known: the wire and threads are all there is.
pub(super) const BARE: Drivers = Drivers {
    calls: false,
    sought: false,
    ends: false,
    tasks: false,
    runtime: false,
    shared_connections: false,
    system: System::Postgresql,
    dialect: Dialect::POSTGRES,
};

pub(super) struct Scene {
    pub(super) pipeline: Pipeline,
    pub(super) metrics: Arc<DatabaseMetrics>,
    pub(super) http: Arc<HttpMetrics>,
    pub(super) own: Arc<SelfMetrics>,
    pub(super) commands: mpsc::SyncSender<Command>,
    pub(super) _notices: queue::Receiver<Notice>,
    pub(super) now: u64,
    /// Whose the next target is.
    pub(super) behind: Behind,
    pub(super) tgid: u32,
    pub(super) tid: u32,
    pub(super) offsets: std::collections::HashMap<(u64, bool), u64>,
}

impl Scene {
    pub(super) fn new(drivers: Drivers) -> Self {
        Self::reading(drivers, Reader::new(InProcess))
    }

    pub(super) fn reading(drivers: Drivers, reader: Reader) -> Self {
        let (commands, obeyed) = mpsc::sync_channel(16);
        let (noticed, notices) = queue::queue(queue::Bounds { events: 16, samples: 16, samples_of_one: 16 });
        let (recorder, http) = HttpRecorder::new(Limits::default());
        let (database, metrics) = DatabaseRecorder::new(Settings::default());
        let own = Arc::new(SelfMetrics::new(Build { version: "0", revision: "0", rustc: "0" }));
        let parts = Parts {
            wanted: crate::exchange::Wanted::default(),
            most_connections: MOST_CONNECTIONS,
            recorder,
            database,
            statement_bytes: 16_383,
            databases: true,
            ports: vec![5432],
            tracer: None,
            own: Arc::clone(&own),
            verdicts: None,
            counts: None,
            reader,
        };
        let pipeline = Pipeline::new(parts, obeyed, noticed);
        let mut scene = Self {
            pipeline,
            metrics,
            http,
            own,
            commands,
            _notices: notices,
            now: monotonic_ns(),
            behind: Behind::Trusted,
            tgid: PID,
            tid: PID,
            offsets: Default::default(),
        };
        scene.add(drivers);
        scene
    }

    pub(super) fn add(&mut self, drivers: Drivers) {
        self.add_as(PID, TargetKey(1), drivers);
    }

    pub(super) fn add_as(&mut self, pid: u32, key: TargetKey, drivers: Drivers) {
        let process = ProcessKey { pid, start_time: 0 };
        let added = Added {
            process,
            key,
            labels: TargetLabels { behind: self.behind, service_name: "shop".into(), ..TargetLabels::default() },
            resource: Arc::new(Resources::new(&Config::default()).describe(&Configured::default(), pid)),
            namer: RouteNamer::new(Patterns::default(), RouteNamer::DEFAULT_CAP),
            routes_exact: RoutesExact::NEVER,
            drivers,
        };
        self.commands.send(Command::Add(Box::new(added))).unwrap();
        self.pipeline.obey();
    }

    pub(super) fn tick(&mut self) -> u64 {
        self.now += 1000;
        self.now
    }

    pub(super) fn open(&mut self, conn: u64, role: Role, remote_port: u16, mid_stream: bool) {
        self.open_at(conn, conn, role, remote_port, mid_stream);
    }

    /// With another address of its socket.
    pub(super) fn open_at(&mut self, conn: u64, sock: u64, role: Role, remote_port: u16, mid_stream: bool) {
        let open = SocketOpen {
            kind: Kind::Open as u8,
            role: role as u8,
            family: 2,
            flags: if mid_stream { OPEN_MID_STREAM } else { 0 },
            tgid: self.tgid,
            conn,
            time_ns: self.tick(),
            sock,
            local_addr: [127; 16],
            remote_addr: [127; 16],
            local_port: 3000,
            remote_port,
            netns: 0,
        };
        self.pipeline.take(open.as_bytes());
    }

    pub(super) fn accept(&mut self, conn: u64) {
        self.open(conn, Role::Server, 40_000, false);
    }

    pub(super) fn link(&mut self, conn: u64) {
        self.open(conn, Role::Unknown, 5432, true);
    }

    pub(super) fn io(&mut self, conn: u64, task: u64, data: &[u8], received: bool) {
        self.transfer(conn, task, data, 0, received);
    }

    /// Sends so many bytes more than are captured.
    pub(super) fn send_cut(&mut self, conn: u64, task: u64, data: &[u8], more: usize) {
        self.transfer(conn, task, data, more, false);
    }

    fn transfer(&mut self, conn: u64, task: u64, data: &[u8], more: usize, received: bool) {
        let offset = self.offsets.entry((conn, received)).or_default();
        let at = *offset;
        *offset += (data.len() + more) as u64;
        let io = SocketIo {
            kind: if received { Kind::Receive } else { Kind::Send } as u8,
            flags: 0,
            captured: data.len() as u16,
            result: (data.len() + more) as i32,
            tgid: self.tgid,
            tid: self.tid,
            conn,
            time_ns: self.tick(),
            ready_ns: 0,
            offset: at,
            task,
            tail: [0; 8],
        };
        self.pipeline.take(&[io.as_bytes(), data].concat());
    }

    pub(super) fn receive(&mut self, conn: u64, task: u64, data: &[u8]) {
        self.io(conn, task, data, true);
    }

    pub(super) fn send(&mut self, conn: u64, task: u64, data: &[u8]) {
        self.io(conn, task, data, false);
    }

    pub(super) fn close(&mut self, conn: u64) {
        let (received, sent) = (0, 0);
        let time_ns = self.tick();
        let close = SocketClose { kind: Kind::Close as u8, pad: [0; 3], error: 0, conn, time_ns, received, sent };
        self.pipeline.take(close.as_bytes());
    }

    pub(super) fn hit(&mut self, point: Point, task: u64) -> CallHit {
        CallHit {
            kind: Kind::Call as u8,
            point: point as u8,
            flags: 0,
            pad: 0,
            captured: 0,
            tgid: self.tgid,
            tid: self.tid,
            time_ns: self.tick(),
            task,
            place: 0,
            text: 0x7000,
            text_len: SQL.len() as u64,
            words: [0; CALL_WORDS],
        }
    }

    pub(super) fn spawn(&mut self, parent: u64, child: u64) {
        let hit = SpawnHit {
            kind: Kind::Spawn as u8,
            pad: [0; 3],
            tgid: self.tgid,
            tid: self.tid,
            pad2: 0,
            time_ns: self.tick(),
            parent,
            child,
        };
        self.pipeline.take(hit.as_bytes());
    }

    /// A whole statement by calls; yields what was found of its parent.
    pub(super) fn query(&mut self, task: u64) -> String {
        let start = self.call(task);
        self.send(LINK, task, TLS);
        self.receive(LINK, task, TLS);
        self.parents(|scene| scene.done(task, start))
    }

    pub(super) fn call(&mut self, task: u64) -> u64 {
        let hit = CallHit { captured: SQL.len() as u32, ..self.hit(Point::Query, task) };
        self.pipeline.take(&[hit.as_bytes(), SQL.as_bytes()].concat());
        hit.time_ns
    }

    pub(super) fn done(&mut self, task: u64, start: u64) {
        let mut hit = self.hit(Point::QueryEnd, task);
        let begun = start + 100;
        hit.words[2..6].copy_from_slice(&[begun / 1_000_000_000, begun % 1_000_000_000, 0x7000, SQL.len() as u64]);
        self.pipeline.take(hit.as_bytes());
    }

    /// A statement that the wire alone tells, answered on the thread `reader`.
    pub(super) fn wire_query(&mut self, task: u64, reader: u32) -> String {
        let message = |kind: u8, body: &[u8]| [&[kind][..], &(body.len() as u32 + 4).to_be_bytes(), body].concat();
        self.parents(|scene| {
            scene.send(LINK, task, &message(b'Q', b"SELECT a FROM b\0"));
            let asker = std::mem::replace(&mut scene.tid, reader);
            scene.receive(LINK, task, &[message(b'C', b"SELECT 1\0"), message(b'Z', b"I")].concat());
            scene.tid = asker;
        })
    }

    /// What the operations that `act` ends say of their parents, and why where it is unknown.
    pub(super) fn parents(&mut self, act: impl FnOnce(&mut Self)) -> String {
        let before = self.found();
        act(self);
        let after = self.found();
        let new = after.iter().filter(|line| !before.contains(line));
        new.filter_map(|line| line.split('"').nth(1)).collect::<Vec<_>>().join(" ")
    }

    pub(super) fn found(&mut self) -> Vec<String> {
        self.pipeline.obey();
        let text = to_text(self.metrics.as_ref(), Format::Text) + &to_text(self.own.as_ref(), Format::Text);
        let wanted = ["rustok_obsd_database_parents_total{", "rustok_obsd_database_problems_total{problem=\"parent"];
        text.lines().filter(|line| wanted.iter().any(|name| line.starts_with(name))).map(str::to_owned).collect()
    }

    /// Server requests under way.
    pub(super) fn active(&self) -> u64 {
        let text = to_text(self.http.as_ref(), Format::Text);
        let values = text.lines().filter(|line| line.starts_with("http_server_active_requests{"));
        values.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
    }

    /// Connections by state: idle, active.
    pub(super) fn gauges(&self) -> [String; 2] {
        let text = to_text(self.metrics.as_ref(), Format::Text);
        ["idle", "active"].map(|state| {
            let name = format!("rustok_database_connections{{state=\"{state}\"}} ");
            text.lines().find_map(|line| line.strip_prefix(&name)).unwrap_or("none").to_owned()
        })
    }

    pub(super) fn whole_request(&mut self, conn: u64, task: u64) {
        self.receive(conn, task, REQUEST);
        self.send(conn, task, RESPONSE);
    }
}

pub(super) fn tokio() -> Scene {
    let mut scene = Scene::new(TOKIO);
    scene.link(LINK);
    scene.accept(1);
    scene.accept(2);
    scene
}
