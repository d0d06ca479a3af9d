//! Once warm, an exchange costs no allocation, from its bytes to its route's name.

use rustok_obsd::exchange::{Exchange, HttpConnection, Io, NEST_TAIL, Outcome, Shared, Side, Wanted};
use rustok_obsd::route::{Patterns, RouteNamer};
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
    let mut connections: Vec<_> = (0..8).map(|_| HttpConnection::new(Some(Side::Server), false, false)).collect();
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
