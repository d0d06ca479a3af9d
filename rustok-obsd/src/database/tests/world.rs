//! Builds what calls and sockets tell, and keeps what the tracker told.

use std::net::{Ipv4Addr, SocketAddr};

use rustok_obsd_ebpf::{CALL_WORDS, CallHit, Kind as RecordKind, Point};

use crate::database::sockets::{Change, Link, Traffic};
use crate::database::tracker::Drivers;
use crate::database::{Ending, Operation, Origin, Parent, Sight, System, Tracker};
use crate::exchange::Io;
use crate::exchange::postgres::Shared;
use crate::statement::Dialect;
use crate::trace::Decision;

pub const TGID: u32 = 7;
/// What a request's task is, and its request.
pub const TASK: u64 = 70;
pub const REQUEST: u64 = 9;
pub const SYNC: &[u8] = b"S\0\0\0\x04";
/// Any bytes that mean nothing.
pub const TLS: &[u8] = b"\x17\x03\x03\0\x20................................";

/// A told operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub tgid: u32,
    pub text: String,
    pub sight: Sight,
    pub parent: Parent,
    pub ending: Ending,
    pub times: [u64; 5],
    pub rows: Option<u64>,
    pub sqlstate: Option<String>,
    pub port: Option<u16>,
    pub namespace: Option<String>,
}

pub struct World {
    pub tracker: Tracker,
    pub shared: Shared,
    pub told: Vec<Told>,
    pub now: u64,
    pub origin: Origin,
    /// Of calls and records.
    pub tgid: u32,
    pub tid: u32,
}

pub const ALL: Drivers = Drivers {
    calls: true,
    sought: false,
    ends: true,
    tasks: true,
    runtime: true,
    shared_connections: false,
    system: System::Postgresql,
    dialect: Dialect::POSTGRES,
};

impl World {
    pub fn new(drivers: Drivers) -> Self {
        let mut tracker = Tracker::default();
        tracker.add_process(TGID, drivers);
        tracker.requests.open(TGID, REQUEST, 1, || Decision::Unsampled);
        let origin = Origin::Request(REQUEST);
        Self { tracker, shared: Shared::default(), told: Vec::new(), now: 5_000_000_000, origin, tgid: TGID, tid: 3 }
    }

    pub fn tick(&mut self) -> u64 {
        self.now += 1000;
        self.now
    }

    pub fn hit(&mut self, point: Point, task: u64) -> CallHit {
        CallHit {
            kind: RecordKind::Call as u8,
            point: point as u8,
            flags: 0,
            pad: 0,
            captured: 0,
            tgid: self.tgid,
            tid: self.tid,
            time_ns: self.tick(),
            task,
            place: 0,
            text: 0,
            text_len: 0,
            words: [0; CALL_WORDS],
        }
    }

    pub fn on(&mut self, hit: &CallHit, text: &[u8]) {
        let Self { tracker, told, origin, .. } = self;
        tracker.on_call(hit, text, *origin, &mut |tgid, operation| told.push(Told::of(tgid, operation)));
    }

    /// A call of a point without text.
    pub fn point(&mut self, point: Point, task: u64) -> u64 {
        let hit = self.hit(point, task);
        self.on(&hit, b"");
        hit.time_ns
    }

    /// The driver takes a statement; the same text has the same address. Yields when.
    pub fn call(&mut self, task: u64, sql: &str) -> u64 {
        let mut hit = self.hit(Point::Query, task);
        (hit.text, hit.text_len) = place(sql);
        self.on(&hit, sql.as_bytes());
        hit.time_ns
    }

    /// The mapper is called with a statement.
    pub fn mark(&mut self, task: u64, sql: &str) -> u64 {
        let mut hit = self.hit(Point::Orm, task);
        (hit.words[4], hit.words[2]) = place(sql);
        self.on(&hit, b"");
        hit.time_ns
    }

    /// The driver is done with a statement that it took at `start`.
    pub fn done(&mut self, task: u64, sql: &str, start: u64) -> u64 {
        let (text, len) = place(sql);
        self.done_by(task, [text, len], start)
    }

    /// The same by the words of its text.
    pub fn done_by(&mut self, task: u64, pair: [u64; 2], start: u64) -> u64 {
        let mut hit = self.hit(Point::QueryEnd, task);
        let begun = start + 300;
        hit.words = [1, 2, 3, 4, begun / 1_000_000_000, begun % 1_000_000_000, pair[0], pair[1], 1, 1, 0, 0];
        self.on(&hit, b"");
        hit.time_ns
    }

    pub fn notice(&mut self, task: u64, fields: &[u8]) {
        let hit = self.hit(Point::Notice, task);
        self.on(&hit, fields);
    }

    pub fn open_tls(&mut self, conn: u64) {
        self.tracker.open_link(conn, Link::encrypted(self.tgid, local(), remote(conn)));
    }

    pub fn open_clear(&mut self, conn: u64, mid_stream: bool) {
        let link = Link::clear(self.tgid, local(), remote(conn), mid_stream, &self.shared);
        self.tracker.open_link(conn, link);
    }

    fn io(&mut self, conn: u64, task: u64, data: &[u8], sends: bool) -> u64 {
        let time_ns = self.tick();
        let Self { tracker, shared, told, origin, tgid, tid, .. } = self;
        let io = Io { time_ns, ready_ns: 0, task, tid: *tid, len: data.len(), data, tail: b"", lost: 0 };
        let traffic = Traffic { conn, tgid: *tgid, io: &io, origin: *origin };
        let mut sink = |tgid: u32, operation: &Operation<'_>| told.push(Told::of(tgid, operation));
        if sends {
            tracker.on_send(&traffic, shared, &mut sink);
        } else {
            tracker.on_receive(&traffic, shared, &mut sink);
        }
        time_ns
    }

    pub fn send(&mut self, conn: u64, task: u64, data: &[u8]) -> u64 {
        self.io(conn, task, data, true)
    }

    pub fn receive(&mut self, conn: u64, task: u64, data: &[u8]) -> u64 {
        self.io(conn, task, data, false)
    }

    /// Sends and is answered.
    pub fn trip(&mut self, conn: u64, task: u64, question: &[u8], answer: &[u8]) -> [u64; 2] {
        [self.send(conn, task, question), self.receive(conn, task, answer)]
    }

    pub fn broken(&mut self, conn: u64) {
        let time_ns = self.tick();
        let Self { tracker, shared, told, .. } = self;
        tracker.on_broken(conn, time_ns, shared, &mut |tgid, operation| told.push(Told::of(tgid, operation)));
    }

    pub fn close(&mut self, conn: u64) -> Option<bool> {
        let time_ns = self.tick();
        let Self { tracker, shared, told, .. } = self;
        tracker.close_link(conn, time_ns, shared, &mut |tgid, operation| told.push(Told::of(tgid, operation)))
    }

    pub fn settle(&mut self, task: u64) {
        let time_ns = self.tick();
        let Self { tracker, told, tgid, tid, .. } = self;
        let key = crate::database::task_key(*tgid, task, *tid);
        tracker.settle(key, time_ns, &mut |tgid, operation| told.push(Told::of(tgid, operation)));
    }

    pub fn reap(&mut self, later_ns: u64) {
        let now = self.now + later_ns;
        let Self { tracker, told, .. } = self;
        tracker.reap(now, &mut |tgid, operation| told.push(Told::of(tgid, operation)));
    }

    pub fn forget(&mut self, tgid: u32) {
        let time_ns = self.tick();
        let Self { tracker, told, .. } = self;
        tracker.remove_process(tgid, time_ns, &mut |tgid, operation| told.push(Told::of(tgid, operation)));
    }

    /// The one operation that was told since the last time.
    pub fn one(&mut self) -> Told {
        assert_eq!(self.told.len(), 1, "{:#?}", self.told);
        self.told.remove(0)
    }

    pub fn changes(&mut self) -> Vec<(u64, Change)> {
        std::mem::take(&mut self.tracker.changes)
    }
}

impl Told {
    fn of(tgid: u32, operation: &Operation<'_>) -> Self {
        Self {
            tgid,
            text: operation.statement.text.to_string(),
            sight: operation.sight,
            parent: operation.parent,
            ending: operation.ending,
            times: [operation.call_ns, operation.start_ns, operation.send_ns, operation.first_ns, operation.end_ns],
            rows: operation.rows,
            sqlstate: operation.sqlstate.map(|code| String::from_utf8(code.to_vec()).unwrap()),
            port: operation.addresses.map(|(_, remote)| remote.port()),
            namespace: operation.namespace.map(ToString::to_string),
        }
    }
}

/// Address and length of a text in the process.
fn place(sql: &str) -> (u64, u64) {
    let address = sql.bytes().fold(0x7f00_0000_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
    (address | 1 << 40, sql.len() as u64)
}

pub fn local() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 50_000).into()
}

/// A port for each connection.
pub fn remote(conn: u64) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 5000 + conn as u16).into()
}

pub fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind][..], &(body.len() as u32 + 4).to_be_bytes(), body].concat()
}

pub fn startup() -> Vec<u8> {
    let body = b"user\0bob\0database\0shop\0\0";
    [&(body.len() as u32 + 8).to_be_bytes()[..], &[0, 3, 0, 0], body].concat()
}

pub fn started() -> Vec<u8> {
    [message(b'R', &[0; 4]), ready(b'I')].concat()
}

pub fn ready(status: u8) -> Vec<u8> {
    message(b'Z', &[status])
}

/// sqlx's round trip that prepares a statement, and its answer.
pub fn prepare(name: &str, sql: &str, status: u8) -> [Vec<u8>; 2] {
    let parse = message(b'P', format!("{name}\0{sql}\0\0\0").as_bytes());
    let describe = message(b'D', format!("S{name}\0").as_bytes());
    let answer = [message(b'1', b""), message(b't', &[0; 2]), message(b'n', b""), ready(status)].concat();
    [[parse, describe, SYNC.to_vec()].concat(), answer]
}

/// sqlx's round trip for a prepared statement, and its answer.
pub fn execute(name: &str, tag: &str, status: u8) -> [Vec<u8>; 2] {
    let bind = message(b'B', format!("\0{name}\0\0\0\0\0\0\0").as_bytes());
    let question = [bind, message(b'E', &[0; 5]), message(b'C', b"P\0"), SYNC.to_vec()].concat();
    let tag = message(b'C', format!("{tag}\0").as_bytes());
    [question, [message(b'2', b""), tag, message(b'3', b""), ready(status)].concat()]
}

pub fn simple(sql: &str, tag: &str, status: u8) -> [Vec<u8>; 2] {
    let question = message(b'Q', format!("{sql}\0").as_bytes());
    [question, [message(b'C', format!("{tag}\0").as_bytes()), ready(status)].concat()]
}
