//! The ring's entries of a keep-alive connection to an axum server, as the kernel programs write them.

use rustok_obsd::{
    contract::database::{DatabaseMetrics, DatabaseRecorder, Settings},
    database::tracker::Drivers,
    liveness::queue,
};
use std::{
    collections::HashMap,
    sync::{
        Arc,
        mpsc::{self, SyncSender},
    },
};

use rustok_obsd::{
    capture::{
        Command, Pipeline,
        pipeline::{Added, Notice, Parts, monotonic_ns},
    },
    config::{Config, Target as Configured},
    contract::{
        HttpMetrics,
        own::{Build, SelfMetrics},
        recorder::{Behind, HttpRecorder, Limits, TargetKey, TargetLabels},
    },
    route::{Patterns, RouteNamer},
    statement::Dialect,
    target::{InProcess, ProcessKey, Reader},
    trace::{Resources, Tracer},
};
use rustok_obsd_ebpf::{
    CALL_WORDS, CallHit, Kind, OPEN_MID_STREAM, Point, Role, RouteHit, SocketClose, SocketIo, SocketOpen,
};

/// A router's map as axum keeps it, in this process: the pipeline reads it like that of any other.
pub type Router = HashMap<u32, Arc<str>>;

pub struct Traffic {
    pub pipeline: Pipeline,
    pub metrics: Arc<HttpMetrics>,
    pub database: Arc<DatabaseMetrics>,
    pub own: Arc<SelfMetrics>,
    entries: Vec<Vec<u8>>,
    conn: u64,
    positions: HashMap<u64, [u64; 2]>,
    queries: Queries,
    /// Where the driver's arguments lie.
    texts: u64,
    now: u64,
    router: Box<Router>,
    _ends: (SyncSender<Command>, queue::Receiver<Notice>),
}

const REQUEST: &[u8] = b"GET /api/blog/posts/42 HTTP/1.1\r\nhost: shop.example:3000\r\nuser-agent: bench\r\n\
    accept: */*\r\nx-tenant-id: default\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\
    date: Mon, 23 Nov 2026 20:00:00 GMT\r\n\r\n{}";
const TASK: u64 = 77;
/// The pool's task, which takes connections back.
const POOL_TASK: u64 = 78;
/// The connection to the database.
const LINK: u64 = 1 << 40;
const SQL: [&str; 2] = ["SELECT id, title FROM posts WHERE tenant = $1 LIMIT 20", "UPDATE posts SET seen = seen + 1"];
const TLS: &[u8] = b"\x17\x03\x03\x01\x00................................................................";

/// How a request asks the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queries {
    /// Not at all.
    None,
    /// Twice by prepared statements over TLS; the driver's functions tell of them.
    Tls,
    /// The same in clear text, of which nothing else tells.
    Clear,
    /// The same in clear text, of which the driver's functions tell, too.
    ClearWithCalls,
}

impl Queries {
    fn calls(self) -> bool {
        matches!(self, Self::Tls | Self::ClearWithCalls)
    }

    fn link(self) -> u64 {
        LINK + self as u64
    }
}

impl Traffic {
    pub fn new() -> Self {
        Self::with(Queries::None)
    }

    /// A server whose requests ask the database in this way.
    pub fn with(queries: Queries) -> Self {
        Self::sized(queries, 1000, Limits::default(), Settings::default(), None)
    }

    /// The same in a pipeline of this size.
    pub fn sized(
        queries: Queries,
        most_connections: usize,
        limits: Limits,
        settings: Settings,
        tracer: Option<Tracer>,
    ) -> Self {
        let router: Box<Router> = Box::new((0..20).map(|id| (id, Arc::from(format!("/api/{id}/{{id}}")))).collect());
        let (commands, obeyed) = mpsc::sync_channel(16);
        let (noticed, notices) = queue::queue(queue::Bounds { events: 16, samples: 16, samples_of_one: 16 });
        let (recorder, metrics) = HttpRecorder::new(limits);
        let (recorder_of_database, database) = DatabaseRecorder::new(settings);
        let own = Arc::new(SelfMetrics::new(Build { version: "0", revision: "0", rustc: "0" }));
        let parts = Parts {
            wanted: rustok_obsd::exchange::Wanted::default(),
            most_connections,
            recorder,
            database: recorder_of_database,
            statement_bytes: 16_383,
            databases: true,
            ports: vec![5432],
            tracer,
            own: Arc::clone(&own),
            verdicts: None,
            counts: None,
            reader: Reader::new(InProcess),
        };
        let mut pipeline = Pipeline::new(parts, obeyed, noticed);
        let process = ProcessKey { pid: std::process::id(), start_time: 0 };
        let resource = Arc::new(Resources::new(&Config::default()).describe(&Configured::default(), process.pid));
        let labels = TargetLabels { service_name: "shop".into(), ..TargetLabels::default() };
        let namer = RouteNamer::new(Patterns::default(), RouteNamer::DEFAULT_CAP);
        let drivers = Drivers {
            calls: queries.calls(),
            ends: queries.calls(),
            tasks: true,
            runtime: true,
            dialect: Dialect::POSTGRES,
            ..Drivers::default()
        };
        let added = Added {
            process,
            key: TargetKey(1),
            labels,
            resource,
            namer,
            routes_exact: rustok_obsd::exchange::RoutesExact::ALWAYS,
            drivers,
        };
        commands.send(Command::Add(Box::new(added))).expect("the pipeline listens");
        pipeline.obey();
        let mut traffic = Self {
            pipeline,
            metrics,
            database,
            own,
            entries: Vec::new(),
            conn: 0,
            positions: HashMap::new(),
            queries,
            texts: 0x7f00_0000_0000,
            now: monotonic_ns(),
            router,
            _ends: (commands, notices),
        };
        traffic.open();
        if queries != Queries::None {
            traffic.open_link();
        }
        traffic
    }

    /// A second target, of another process.
    #[allow(dead_code, reason = "one of the tests has it")]
    pub fn add_target(&mut self, pid: u32, key: TargetKey, service_name: &str, behind: Behind) {
        let process = ProcessKey { pid, start_time: 0 };
        let resource = Arc::new(Resources::new(&Config::default()).describe(&Configured::default(), pid));
        let labels = TargetLabels { behind, service_name: service_name.into(), ..TargetLabels::default() };
        let namer = RouteNamer::new(Patterns::default(), RouteNamer::DEFAULT_CAP);
        let drivers = Drivers { calls: true, ends: true, tasks: true, runtime: true, ..Drivers::default() };
        let added = Added {
            process,
            key,
            labels,
            resource,
            namer,
            routes_exact: rustok_obsd::exchange::RoutesExact::NEVER,
            drivers,
        };
        self.command(Command::Add(Box::new(added)));
        self.pipeline.obey();
    }

    /// Tells the pipeline something.
    #[allow(dead_code, reason = "one of the tests does")]
    pub fn command(&self, command: Command) {
        self._ends.0.send(command).expect("the pipeline listens");
    }

    fn open(&mut self) {
        self.conn += 1;
        self.announce(self.conn, Role::Server, 40_000, 0);
    }

    fn open_link(&mut self) {
        let (conn, mid_stream) = (self.queries.link(), if self.queries == Queries::Tls { OPEN_MID_STREAM } else { 0 });
        self.announce(conn, if mid_stream == 0 { Role::Client } else { Role::Unknown }, 5432, mid_stream);
        if mid_stream != 0 {
            return;
        }
        self.io_on(conn, POOL_TASK, false, b"\0\0\0\x1b\0\x03\0\0user\0b\0database\0d\0\0");
        self.io_on(conn, POOL_TASK, true, &[message(b'R', &[0; 4]), message(b'Z', b"I")].concat());
        for (name, sql) in ["s", "t"].into_iter().zip(SQL) {
            let parse = message(b'P', format!("{name}\0{sql}\0\0\0").as_bytes());
            self.io_on(conn, POOL_TASK, false, &[parse, message(b'S', b"")].concat());
            self.io_on(conn, POOL_TASK, true, &[message(b'1', b""), message(b'Z', b"I")].concat());
        }
        self.run();
    }

    fn announce(&mut self, conn: u64, role: Role, remote_port: u16, flags: u8) {
        let open = SocketOpen {
            kind: Kind::Open as u8,
            role: role as u8,
            family: 2,
            flags,
            tgid: std::process::id(),
            conn,
            time_ns: self.now,
            sock: 0xffff_8880_0000_0000 + conn,
            local_addr: [127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            remote_addr: [127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            local_port: 3000,
            remote_port,
            netns: 0,
        };
        self.pipeline.take(open.as_bytes());
    }

    /// Closes the connection and opens another.
    pub fn reconnect(&mut self) {
        let [sent, received] = self.positions.remove(&self.conn).unwrap_or_default();
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
        self.io_on(self.conn, TASK, received, data);
    }

    fn io_on(&mut self, conn: u64, task: u64, received: bool, data: &[u8]) {
        self.now += 10_000;
        let position = &mut self.positions.entry(conn).or_default()[usize::from(received)];
        let head = SocketIo {
            kind: if received { Kind::Receive } else { Kind::Send } as u8,
            flags: 0,
            captured: u16::try_from(data.len()).expect("short"),
            result: i32::try_from(data.len()).expect("short"),
            tgid: std::process::id(),
            tid: 1,
            conn,
            time_ns: self.now,
            ready_ns: if received { self.now - 5_000 } else { 0 },
            offset: *position,
            task,
            tail: [0; 8],
        };
        *position += data.len() as u64;
        let mut entry = head.as_bytes().to_vec();
        entry.extend_from_slice(data);
        self.entries.push(entry);
    }

    fn call(&mut self, point: Point, words: [u64; CALL_WORDS], place: (u64, u64), text: &[u8]) -> u64 {
        self.now += 1000;
        let hit = CallHit {
            kind: Kind::Call as u8,
            point: point as u8,
            flags: 0,
            pad: 0,
            captured: u32::try_from(text.len()).expect("short"),
            tgid: std::process::id(),
            tid: 1,
            time_ns: self.now,
            task: TASK,
            place: 0,
            text: place.0,
            text_len: place.1,
            words,
        };
        self.entries.push([hit.as_bytes(), text].concat());
        self.now
    }

    /// One query of a request: pool wait, execution, end, and the pool's ping behind it.
    fn query(&mut self, index: usize) {
        let (sql, conn) = (SQL[index], self.queries.link());
        let place = (self.texts + 4096 * index as u64, sql.len() as u64);
        let mut start = 0;
        if self.queries.calls() {
            let mut words = [0; CALL_WORDS];
            (words[3], words[4]) = place;
            self.call(Point::Orm, words, (0, 0), b"");
            start = self.call(Point::Query, [0; CALL_WORDS], place, sql.as_bytes());
        }
        let (question, answer, sync, ready) = if self.queries == Queries::Tls {
            (TLS.to_vec(), TLS.to_vec(), TLS.to_vec(), TLS.to_vec())
        } else {
            let (bind, sync) = (message(b'B', &[&b"\0"[..], &[b"st"[index]], &[0; 7]].concat()), message(b'S', b""));
            let (tag, ready) = (message(b'C', b"SELECT 5\0"), message(b'Z', b"I"));
            let question = [bind, message(b'E', &[0; 5]), message(b'C', b"P\0"), sync.clone()].concat();
            let row = message(b'D', &[0; 40]);
            let answer = [message(b'2', b""), row.repeat(5), tag, message(b'3', b""), ready.clone()].concat();
            (question, answer, sync, ready)
        };
        self.io_on(conn, TASK, false, &question);
        self.io_on(conn, TASK, true, &answer);
        if self.queries.calls() {
            let mut words = [0; CALL_WORDS];
            let begun = start + 200;
            words[2..8].copy_from_slice(&[begun / 1_000_000_000, begun % 1_000_000_000, place.0, place.1, 5, 5]);
            self.call(Point::QueryEnd, words, (0, 0), b"");
        }
        self.io_on(conn, POOL_TASK, false, &sync);
        self.io_on(conn, POOL_TASK, true, &ready);
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
            if self.queries != Queries::None {
                self.query(0);
                self.query(1);
            }
            self.io(false, RESPONSE);
        }
    }

    /// Runs what was prepared.
    pub fn run(&mut self) {
        for entry in &self.entries {
            self.pipeline.take(entry);
        }
        self.pipeline.obey();
        while self.pipeline.parked() > 0 {
            std::thread::yield_now();
            self.pipeline.obey();
        }
    }
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind][..], &(body.len() as u32 + 4).to_be_bytes(), body].concat()
}
