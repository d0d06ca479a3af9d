//! The ring's entries of a keep-alive connection to an axum server, as the kernel programs write them.

use rustok_obsd::{contract::database::DatabaseRecorder, database::tracker::Drivers};
use std::{
    collections::HashMap,
    sync::{
        Arc,
        mpsc::{self, Receiver, Sender},
    },
};

use rustok_obsd::{
    capture::{
        Command, Pipeline,
        pipeline::{Added, Notice, Parts},
    },
    config::{Config, Target as Configured},
    contract::{
        HttpMetrics,
        own::{Build, SelfMetrics},
        recorder::{HttpRecorder, Limits, TargetKey, TargetLabels},
    },
    route::{Patterns, RouteNamer},
    target::ProcessKey,
    trace::Resources,
};
use rustok_obsd_ebpf::{Kind, Role, RouteHit, SocketClose, SocketIo, SocketOpen};

/// A router's map as axum keeps it, in this process: the pipeline reads it like that of any other.
pub type Router = HashMap<u32, Arc<str>>;

pub struct Traffic {
    pub pipeline: Pipeline,
    pub metrics: Arc<HttpMetrics>,
    pub own: Arc<SelfMetrics>,
    entries: Vec<Vec<u8>>,
    conn: u64,
    position: [u64; 2],
    now: u64,
    router: Box<Router>,
    _ends: (Sender<Command>, Receiver<Notice>),
}

const REQUEST: &[u8] = b"GET /api/blog/posts/42 HTTP/1.1\r\nhost: shop.example:3000\r\nuser-agent: bench\r\n\
    accept: */*\r\nx-tenant-id: default\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\
    date: Mon, 23 Nov 2026 20:00:00 GMT\r\n\r\n{}";
const TASK: u64 = 77;

impl Traffic {
    pub fn new() -> Self {
        let router: Box<Router> = Box::new((0..20).map(|id| (id, Arc::from(format!("/api/{id}/{{id}}")))).collect());
        let (commands, obeyed) = mpsc::channel();
        let (noticed, notices) = mpsc::channel();
        let (recorder, metrics) = HttpRecorder::new(Limits::default());
        let (database, _) = DatabaseRecorder::new(rustok_obsd::contract::database::Settings::default());
        let own = Arc::new(SelfMetrics::new(Build { version: "0", revision: "0", rustc: "0" }));
        let parts = Parts {
            wanted: rustok_obsd::exchange::Wanted::default(),
            most_connections: 1000,
            recorder,
            database,
            statement_bytes: 16_383,
            ports: Vec::new(),
            tracer: None,
            own: Arc::clone(&own),
            verdicts: None,
            counts: None,
        };
        let mut pipeline = Pipeline::new(parts, obeyed, noticed);
        let process = ProcessKey { pid: std::process::id(), start_time: 0 };
        let resource = Arc::new(Resources::new(&Config::default()).describe(&Configured::default(), process.pid));
        let labels = TargetLabels { service_name: "shop".into(), ..TargetLabels::default() };
        let namer = RouteNamer::new(Patterns::default(), RouteNamer::DEFAULT_CAP);
        let added = Added {
            process,
            key: TargetKey(1),
            labels,
            resource,
            namer,
            routes_exact: true,
            drivers: Drivers::default(),
        };
        commands.send(Command::Add(Box::new(added))).expect("the pipeline listens");
        pipeline.obey();
        let mut traffic = Self {
            pipeline,
            metrics,
            own,
            entries: Vec::new(),
            conn: 0,
            position: [0; 2],
            now: 1_000_000_000,
            router,
            _ends: (commands, notices),
        };
        traffic.open();
        traffic
    }

    fn open(&mut self) {
        self.conn += 1;
        self.position = [0; 2];
        let open = SocketOpen {
            kind: Kind::Open as u8,
            role: Role::Server as u8,
            family: 2,
            flags: 0,
            tgid: std::process::id(),
            conn: self.conn,
            time_ns: self.now,
            sock: 0xffff_8880_0000_0000 + self.conn,
            local_addr: [127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            remote_addr: [127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            local_port: 3000,
            remote_port: 40_000,
            netns: 0,
        };
        self.pipeline.take(open.as_bytes());
    }

    /// Closes the connection and opens another.
    pub fn reconnect(&mut self) {
        let [sent, received] = self.position;
        let close = SocketClose {
            kind: Kind::Close as u8,
            pad: [0; 3],
            error: 0,
            conn: self.conn,
            time_ns: self.now,
            received,
            sent,
        };
        self.pipeline.take(close.as_bytes());
        self.open();
    }

    fn io(&mut self, received: bool, data: &[u8]) {
        self.now += 10_000;
        let position = &mut self.position[usize::from(received)];
        let head = SocketIo {
            kind: if received { Kind::Receive } else { Kind::Send } as u8,
            flags: 0,
            captured: u16::try_from(data.len()).expect("short"),
            result: i32::try_from(data.len()).expect("short"),
            tgid: std::process::id(),
            tid: 1,
            conn: self.conn,
            time_ns: self.now,
            ready_ns: if received { self.now - 5_000 } else { 0 },
            offset: *position,
            task: TASK,
            tail: [0; 8],
        };
        *position += data.len() as u64;
        let mut entry = head.as_bytes().to_vec();
        entry.extend_from_slice(data);
        self.entries.push(entry);
    }

    /// Makes the entries of so many requests.
    pub fn prepare(&mut self, requests: usize) {
        self.entries.clear();
        for number in 0..requests {
            // hyper's protocol detection reads 24 bytes first, on the first request of a connection.
            self.io(true, REQUEST);
            let hit = RouteHit {
                kind: Kind::Route as u8,
                pad: [0; 3],
                route: u32::try_from(number % 20).expect("small"),
                tgid: std::process::id(),
                tid: 1,
                time_ns: self.now,
                task: TASK,
                map: (&raw const *self.router) as u64,
            };
            self.entries.push(hit.as_bytes().to_vec());
            self.io(false, RESPONSE);
        }
    }

    /// Runs what was prepared.
    pub fn run(&mut self) {
        for entry in &self.entries {
            self.pipeline.take(entry);
        }
        self.pipeline.obey();
    }
}
