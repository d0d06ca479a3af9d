//! A target that fills whatever it can fill: memory stays within the budgets, another target's counts stay right, and the
//! memory comes back when the first one has ended.

#[path = "capture/traffic.rs"]
#[expect(dead_code, reason = "other tests look at more of it")]
mod traffic;

use rustok_obsd::budget::Store;
use rustok_obsd::capture::Command;
use rustok_obsd::contract::recorder::TargetKey;
use rustok_obsd::exposition::{Collect, Format, to_text};
use rustok_obsd_ebpf::{CALL_WORDS, CallHit, Kind, Point, Role, SocketIo, SocketOpen, SpawnHit};
use std::time::{Duration, Instant};
use test_support::Scraped;
use traffic::{Queries, Traffic};

#[global_allocator]
static COUNTING: test_support::Counting = test_support::Counting;

/// The process that floods; Linux gives no such number.
const HOG: u32 = 5_000_000;
const KEY: TargetKey = TargetKey(2);
const LONG: usize = 16_000;

/// What one target may make the stores hold: half of each budget, and what the tables of a recorder have room for.
fn bound() -> i64 {
    Store::ALL.iter().map(|store| store.limit() as i64 / 2).sum::<i64>()
}

struct Hog {
    now: u64,
    task: u64,
    conn: u64,
    offset: std::collections::HashMap<u64, u64>,
}

impl Hog {
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
            tgid: HOG,
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
            tgid: HOG,
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
            tgid: HOG,
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
        let offset = self.offset.entry(conn).or_default();
        let io = SocketIo {
            kind: if received { Kind::Receive } else { Kind::Send } as u8,
            flags: 0,
            captured: data.len() as u16,
            result: data.len() as i32,
            tgid: HOG,
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

    /// One of each kind of thing that is kept.
    fn flood(&mut self, good: &mut Traffic, number: usize, links: &[u64]) {
        for _ in 0..40 {
            self.spawn(good);
        }
        let sql = format!("SELECT a{number} FROM t{number} WHERE {}", "b = c AND ".repeat(LONG / 10));
        // A name of a prepared statement.
        let link = links[number % links.len()];
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
        // A request that is never answered, and one whose head never ends, each with a long path on a connection of its own.
        let path = format!("GET /{number}/{}", "x".repeat(LONG / 2));
        let conn = self.open(good, Role::Server, 4000);
        self.io(good, conn, true, format!("{path} HTTP/1.1\r\nhost: h{number}\r\n\r\n").as_bytes());
        let conn = self.open(good, Role::Server, 4000);
        self.io(good, conn, true, path.as_bytes());
        // And one that is: ever new routes, statuses and hosts.
        let conn = self.open(good, Role::Server, 4000);
        self.io(good, conn, true, format!("GET /r{number}/x HTTP/1.1\r\nhost: h{number}\r\n\r\n").as_bytes());
        let answer = format!("HTTP/1.1 {} OK\r\ncontent-length: 0\r\n\r\n", 200 + number % 300);
        self.io(good, conn, false, answer.as_bytes());
    }
}

fn scrape(source: &dyn Collect) -> Scraped {
    Scraped::parse(&to_text(source, Format::Text)).expect("an exposition")
}

#[test]
fn a_target_that_fills_every_store_stays_within_its_budgets_and_blinds_nobody() {
    let rounds = std::env::var("RUSTOK_OBSD_FLOOD").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(2000);
    let mut good = Traffic::with(Queries::Tls);
    let mut requests = 0;
    let mut served = |good: &mut Traffic| {
        good.prepare(20);
        good.run();
        requests += 20;
        requests
    };
    served(&mut good);
    good.add_target(HOG, KEY, "hog");
    let mut hog =
        Hog { now: rustok_obsd::capture::pipeline::monotonic_ns(), task: 1, conn: 1 << 50, offset: Default::default() };
    let links: Vec<u64> = (0..50).map(|_| hog.open(&mut good, Role::Client, 5432)).collect();
    for link in &links {
        hog.io(&mut good, *link, false, b"\0\0\0\x1b\0\x03\0\0user\0b\0database\0d\0\0");
        hog.io(&mut good, *link, true, b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I");
    }
    test_support::held_anew();
    let (before, _) = test_support::held();
    for number in 0..rounds {
        hog.flood(&mut good, number, &links);
        if number % 50 == 0 {
            served(&mut good);
        }
    }
    let requests = served(&mut good);
    let (now, most) = test_support::held();
    println!("{rounds} rounds: {} MiB held, {} MiB at most", (now - before) >> 20, (most - before) >> 20);
    assert!(most - before < bound(), "{} of {}", most - before, bound());
    for store in Store::ALL {
        let reading = good.own.stores.read(*store);
        println!("{:12} {reading:?}", store.name());
        assert!(reading.used <= reading.limit, "{store:?}: {reading:?}");
    }
    let reading = |store| good.own.stores.read(store);
    for store in [Store::Statements, Store::Prepared, Store::Operations, Store::Tasks, Store::Buffers] {
        assert!(reading(store).refused + reading(store).evicted > 0, "{store:?}: {:?}", reading(store));
    }
    assert!(reading(Store::Connections).evicted > 0, "{:?}", reading(Store::Connections));
    // The other target is counted right, to the last request and statement.
    let service = ("service_name", "shop");
    let http = scrape(&*good.metrics);
    assert_eq!(http.sum("http_server_request_duration_seconds_count", &[service]), Some(f64::from(requests)));
    let database = scrape(&*good.database);
    let calls = database.sum("rustok_obsd_statement_calls_total", &[service, ("fingerprint", "~other")]).unwrap_or(0.0);
    assert_eq!(calls, 0.0);
    assert_eq!(database.sum("rustok_obsd_statement_calls_total", &[service]), Some(f64::from(2 * requests)));
    let complete = [service, ("ending", "complete")];
    assert_eq!(database.sum("rustok_obsd_database_operations_total", &complete), Some(f64::from(2 * requests)));
    assert_eq!(
        database.sum("rustok_obsd_database_parents_total", &[("parent", "request")]),
        Some(f64::from(2 * requests))
    );
    // What was refused is shown.
    let own = scrape(&*good.own);
    let refused = own.sum("rustok_obsd_store_refused_total", &[("store", "statements")]).unwrap_or(0.0);
    let evicted = own.sum("rustok_obsd_store_evicted_total", &[("store", "statements")]).unwrap_or(0.0);
    assert!(refused + evicted > 0.0);
    // It ends, and what it held comes back.
    good.command(Command::Remove { tgid: HOG, key: KEY });
    let until = Instant::now() + Duration::from_secs(30);
    let kept = [Store::Statements, Store::Prepared, Store::Operations, Store::Tasks, Store::Requests, Store::Buffers];
    while kept.iter().map(|store| good.own.stores.read(*store).used).sum::<u64>() > 1 << 20 {
        assert!(Instant::now() < until, "{:?}", kept.map(|store| good.own.stores.read(store)));
        good.pipeline.obey();
        std::thread::sleep(Duration::from_millis(20));
    }
    let (after, _) = test_support::held();
    println!("{} KiB held after its end", (after - before) >> 10);
    assert!(after - before < 16 << 20, "{} bytes are left", after - before);
    served(&mut good);
}
