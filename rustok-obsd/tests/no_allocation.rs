//! Once warm, an exchange costs no allocation, from its bytes to its route's name.

use rustok_obsd::exchange::postgres::{self, PostgresConnection, WireEvent, WireSql};
use rustok_obsd::exchange::{Exchange, HttpConnection, Io, NEST_TAIL, Outcome, RoutesExact, Shared, Side, Wanted};
use rustok_obsd::route::{Patterns, RouteNamer};
use rustok_obsd::statement::{Dialect, StatementCache};
use std::sync::Arc;

#[global_allocator]
static COUNTING: test_support::Counting = test_support::Counting;

/// One exchange of each kind that a connection carries every day.
struct Traffic {
    head: Vec<u8>,
    pair: Vec<u8>,
    upload: Vec<u8>,
    answer: Vec<u8>,
    chunked: Vec<u8>,
    paths: [Arc<str>; 3],
    now: u64,
    complete: u64,
}

impl Traffic {
    fn turn(&mut self, connection: &mut HttpConnection, shared: &mut Shared, namer: &mut RouteNamer) {
        let Self { head, pair, upload, answer, chunked, paths, now, complete } = self;
        let mut sink = |exchange: &Exchange<'_>| {
            assert_eq!(exchange.outcome, Outcome::Complete);
            assert_eq!(exchange.tenant.len(), if exchange.headers.is_empty() { 0 } else { 36 });
            assert!(namer.name(exchange).template.starts_with('/'));
            *complete += 1;
        };
        let mut io =
            |received: bool, data: &[u8], missing: usize, connection: &mut HttpConnection, shared: &mut Shared| {
                *now += 1;
                let tail: &[u8] = if missing > 0 { b"y\r\n0\r\n\r\n" } else { b"" };
                let len = data.len() + missing;
                let io = Io { time_ns: *now, ready_ns: *now, task: 1, tid: 1, len, data, tail, lost: 0 };
                if received {
                    connection.on_receive(&io, shared, &mut sink);
                } else {
                    connection.on_send(&io, shared, &mut sink);
                }
            };
        // A head in two records, a plain route.
        io(true, &head[..24], 0, connection, shared);
        io(true, &head[24..], 0, connection, shared);
        connection.on_route(&paths[0], shared);
        io(false, answer, 0, connection, shared);
        // A pipelined pair, nested routes.
        io(true, pair, 0, connection, shared);
        connection.on_route(&paths[1], shared);
        connection.on_route(&paths[2], shared);
        io(false, answer, 0, connection, shared);
        connection.on_route(&paths[1], shared);
        io(false, answer, 0, connection, shared);
        // No route told, an upload, and an answer in chunks that were hardly captured.
        io(true, upload, 20_000, connection, shared);
        io(false, chunked, 50_000, connection, shared);
    }
}

#[test]
fn a_hundred_thousand_exchanges_allocate_nothing_once_warm() {
    let fields = vec!["user-agent".into(), "x-request-id".into()];
    let mut shared = Shared::wanting(Wanted { tenant: "X-Tenant-ID".into(), fields });
    let mut namer = RouteNamer::new(Patterns::new(["/patterns/{id}"]).expect("valid"), RouteNamer::DEFAULT_CAP);
    let mut connections: Vec<_> =
        (0..8).map(|_| HttpConnection::new(Some(Side::Server), false, RoutesExact::NEVER)).collect();
    let head = b"GET /api/content/nodes/17?x=y HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: test\r\n\
                 X-Tenant-ID: 0af76519-16cd-43dd-8448-eb211c80319c\r\n\r\n"
        .to_vec();
    let mut traffic = Traffic {
        pair: head.repeat(2),
        head,
        upload: b"POST /api/media HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 20000\r\n\r\n".to_vec(),
        answer: b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}".to_vec(),
        chunked: b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n".to_vec(),
        paths: ["/api/content/nodes/{id}".into(), format!("/api{NEST_TAIL}").into(), "/content/nodes/{id}".into()],
        now: 1,
        complete: 0,
    };
    for connection in &mut connections {
        traffic.turn(connection, &mut shared, &mut namer);
    }
    let (before, complete) = (test_support::allocations(), traffic.complete);
    for _ in 0..25_000 / 8 {
        for connection in &mut connections {
            traffic.turn(connection, &mut shared, &mut namer);
        }
    }
    assert_eq!(traffic.complete - complete, 100_000);
    assert_eq!(test_support::allocations() - before, 0);
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind][..], &(body.len() as u32 + 4).to_be_bytes(), body].concat()
}

/// Prepared, unnamed and simple queries; messages split between records, and rows that were not captured.
#[test]
fn a_hundred_thousand_queries_allocate_nothing_once_warm() {
    let sync = message(b'S', b"");
    let ready = message(b'Z', b"I");
    let tag = message(b'C', b"SELECT 1\0");
    let bind = |name: &[u8]| message(b'B', &[&b"\0"[..], name, &[0; 60]].concat());
    let run = [message(b'E', &[0; 5]), message(b'C', b"P\0"), sync.clone()].concat();
    let parse = |name: &[u8]| message(b'P', &[name, b"\0SELECT a FROM b WHERE c = $1\0\0\0"].concat());
    let named = [bind(b"s"), run.clone()].concat();
    let prepare = [parse(b"s"), message(b'D', b"Ss\0"), sync].concat();
    let unnamed = [parse(b""), bind(b""), run].concat();
    let simple = message(b'Q', b"SELECT 1 FROM d\0");
    let rows = [message(b'2', b""), message(b'D', &[0; 50]).repeat(9), tag.clone()].concat();
    let prepared = [message(b'1', b""), message(b't', &[0; 2]), message(b'n', b""), ready.clone()].concat();
    let end = [tag, message(b'3', b""), ready.clone()].concat();
    let answer = [&rows[..], &end[14..]].concat();
    let mut shared = postgres::Shared::default();
    let mut cache = StatementCache::default();
    let mut connections: Vec<_> = (0..8).map(|_| PostgresConnection::new(true, &shared)).collect();
    let (mut now, mut begun, mut ended) = (1, 0_u64, 0_u64);
    let mut turn = |connection: &mut PostgresConnection, shared: &mut postgres::Shared| {
        let mut sink = |event: WireEvent<'_>| match event {
            WireEvent::Begin { sql: WireSql::Text { sql, truncated }, .. } => {
                begun += u64::from(cache.get(sql, truncated, Dialect::POSTGRES).query_type() == "select");
            }
            WireEvent::End { .. } => ended += 1,
            _ => {}
        };
        let mut io = |received: bool, data: &[u8], missing: usize| {
            now += 1;
            let tail = if missing > 0 { &b"\0\0Z\0\0\0\x05I"[..] } else { b"" };
            let io = Io { time_ns: now, ready_ns: 0, task: 1, tid: 1, len: data.len() + missing, data, tail, lost: 0 };
            if received {
                connection.on_receive(&io, shared, &mut sink);
            } else {
                connection.on_send(&io, shared, &mut sink);
            }
        };
        io(false, &prepare, 0);
        io(true, &prepared, 0);
        io(false, &named, 0);
        io(true, &rows[..33], 0);
        io(true, &rows[33..], 0);
        io(true, &end[14..], 0);
        io(false, &unnamed[..20], 0);
        io(false, &unnamed[20..], 0);
        io(true, &prepared[..5], 0);
        io(true, &answer, 0);
        io(false, &simple, 0);
        io(true, &ready, 0);
        io(false, &named, 0);
        io(true, &rows[..200], 4000);
    };
    for connection in &mut connections {
        turn(connection, &mut shared);
    }
    let (before, stats) = (test_support::allocations(), shared.stats);
    for _ in 0..25_000 / 8 {
        for connection in &mut connections {
            turn(connection, &mut shared);
        }
    }
    assert_eq!(shared.stats.ended - stats.ended, 100_000);
    assert_eq!((shared.stats.mismatches, shared.stats.broken_operations), (0, 0));
    assert_eq!(test_support::allocations() - before, 0);
    assert_eq!((begun, ended), (100_032, 100_032));
}
