//! A target that fills whatever it can fill.

use crate::traffic::Traffic;
use rustok_obsd::capture::pipeline::monotonic_ns;
use rustok_obsd_ebpf::{CALL_WORDS, CallHit, Kind, Point, Role, SocketIo, SocketOpen, SpawnHit};
use std::collections::HashMap;

/// Bytes of a text, about as many as the daemon reads of one.
const LONG: usize = 16_000;

/// See the module's head.
pub struct Hog {
    tgid: u32,
    now: u64,
    task: u64,
    conn: u64,
    offset: HashMap<(u64, bool), u64>,
    /// Connections to a database, in clear text.
    links: Vec<u64>,
}

impl Hog {
    /// A target that is known to the pipeline.
    pub fn new(tgid: u32, good: &mut Traffic) -> Self {
        let (conn, offset) = (u64::from(tgid) << 32, HashMap::new());
        let mut hog = Self { tgid, now: monotonic_ns(), task: 1, conn, offset, links: Vec::new() };
        for _ in 0..50 {
            let link = hog.open(good, Role::Client, 5432);
            hog.io(good, link, false, b"\0\0\0\x1b\0\x03\0\0user\0b\0database\0d\0\0");
            hog.io(good, link, true, b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I");
            hog.links.push(link);
        }
        hog
    }

    fn tick(&mut self) -> u64 {
        self.now += 1000;
        self.now
    }

    fn call(&mut self, good: &mut Traffic, point: Point, text: &[u8]) {
        let hit = CallHit {
            kind: Kind::Call as u8,
            point: point as u8,
            flags: 0,
            pad: 0,
            captured: text.len() as u32,
            tgid: self.tgid,
            tid: 1,
            time_ns: self.tick(),
            task: self.task,
            place: 0,
            text: 0x1000 + self.now,
            text_len: text.len() as u64,
            words: [self.now; CALL_WORDS],
        };
        good.pipeline.take(&[hit.as_bytes(), text].concat());
    }

    fn spawn(&mut self, good: &mut Traffic) {
        self.task += 1;
        let hit = SpawnHit {
            kind: Kind::Spawn as u8,
            pad: [0; 3],
            tgid: self.tgid,
            tid: 1,
            time_ns: self.tick(),
            parent: 1,
            child: self.task,
            pad2: 0,
        };
        good.pipeline.take(hit.as_bytes());
    }

    fn open(&mut self, good: &mut Traffic, role: Role, remote_port: u16) -> u64 {
        self.conn += 1;
        let open = SocketOpen {
            kind: Kind::Open as u8,
            role: role as u8,
            family: 2,
            flags: 0,
            tgid: self.tgid,
            conn: self.conn,
            time_ns: self.tick(),
            sock: self.conn,
            local_addr: [127; 16],
            remote_addr: [127; 16],
            local_port: 80,
            remote_port,
            netns: 0,
        };
        good.pipeline.take(open.as_bytes());
        self.conn
    }

    fn io(&mut self, good: &mut Traffic, conn: u64, received: bool, data: &[u8]) {
        let offset = self.offset.entry((conn, received)).or_default();
        let io = SocketIo {
            kind: if received { Kind::Receive } else { Kind::Send } as u8,
            flags: 0,
            captured: data.len() as u16,
            result: data.len() as i32,
            tgid: self.tgid,
            tid: 1,
            conn,
            time_ns: self.now,
            ready_ns: 0,
            offset: *offset,
            task: self.task,
            tail: [0; 8],
        };
        *offset += data.len() as u64;
        self.now += 1000;
        good.pipeline.take(&[io.as_bytes(), data].concat());
    }

    /// A statement that was never seen before, and its end.
    #[allow(dead_code, reason = "the test asks for others")]
    pub fn ask(&mut self, good: &mut Traffic, number: usize) {
        let sql = format!("SELECT a{number} FROM t{number} WHERE {}", "b = c AND ".repeat(LONG / 10));
        self.call(good, Point::Query, &sql.as_bytes()[..LONG]);
        self.call(good, Point::QueryEnd, b"");
    }

    /// Label sets that were never there before: methods, routes and statuses, tables and statements.
    #[allow(dead_code, reason = "the test asks for fewer")]
    pub fn label(&mut self, good: &mut Traffic, number: usize) {
        let conn = self.open(good, Role::Server, 4000);
        for part in 0..8 {
            let at = 8 * number + part;
            let method = ["GET", "PUT", "POST", "HEAD", "PATCH", "DELETE", "OPTIONS", "TRACE"][part];
            let path = "/x".repeat(1 + at / 8 % 11);
            let status = 200 + at / 88 % 300;
            self.io(good, conn, true, format!("{method} {path} HTTP/1.1\r\nhost: h\r\n\r\n").as_bytes());
            self.io(good, conn, false, format!("HTTP/1.1 {status} OK\r\ncontent-length: 0\r\n\r\n").as_bytes());
            let query = format!("SELECT c FROM t{at}\0");
            let query = [b"Q", &(query.len() as u32 + 4).to_be_bytes()[..], query.as_bytes()].concat();
            let quick = self.links[0];
            self.io(good, quick, false, &query);
            self.io(good, quick, true, b"C\0\0\0\x0dSELECT 1\0Z\0\0\0\x05I");
        }
    }

    /// One of each kind of thing that is kept.
    pub fn flood(&mut self, good: &mut Traffic, number: usize) {
        for _ in 0..40 {
            self.spawn(good);
        }
        let sql = format!("SELECT a{number} FROM t{number} WHERE {}", "b = c AND ".repeat(LONG / 10));
        // A name of a prepared statement.
        let link = self.links[1 + number % (self.links.len() - 1)];
        let parse = [format!("s{number}").as_bytes(), b"\0", &sql.as_bytes()[..LONG], b"\0\0\0"].concat();
        let parse = [b"P", &(parse.len() as u32 + 4).to_be_bytes()[..], &parse].concat();
        self.io(good, link, false, &[&parse[..], b"S\0\0\0\x04"].concat());
        self.io(good, link, true, b"1\0\0\0\x04Z\0\0\0\x05I");
        // Operations that never end, of texts that never come again, and a call that nobody takes.
        for task in 0..10 {
            self.task += 1;
            self.call(good, Point::Query, &sql.as_bytes()[..if task == 0 { sql.len() } else { 40 }]);
        }
        self.call(good, Point::Orm, b"");
        // A request under way that asks the database: what it spends is kept.
        let conn = self.open(good, Role::Server, 4000);
        self.task += 1;
        self.io(good, conn, true, format!("GET /a{number} HTTP/1.1\r\nhost: h\r\n\r\n").as_bytes());
        self.call(good, Point::Query, &sql.as_bytes()[..40]);
        // A request that is never answered, and one whose head never ends, each with a long path on a connection of its own.
        let path = format!("GET /{number}/{}", "x".repeat(LONG / 2));
        let conn = self.open(good, Role::Server, 4000);
        self.io(good, conn, true, format!("{path} HTTP/1.1\r\nhost: h{number}\r\n\r\n").as_bytes());
        let conn = self.open(good, Role::Server, 4000);
        self.io(good, conn, true, format!("{path}{path}").as_bytes());
        // And one that is: ever new routes, statuses and hosts.
        let conn = self.open(good, Role::Server, 4000);
        self.io(good, conn, true, format!("GET /r{number}/x HTTP/1.1\r\nhost: h{number}\r\n\r\n").as_bytes());
        let answer = format!("HTTP/1.1 {} OK\r\ncontent-length: 0\r\n\r\n", 200 + number % 300);
        self.io(good, conn, false, answer.as_bytes());
        // Nothing more is said on these.
        let last = self.links.last().copied();
        self.offset.retain(|(conn, _), _| Some(*conn) <= last);
    }
}
