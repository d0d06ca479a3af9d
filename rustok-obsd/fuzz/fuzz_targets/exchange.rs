//! Whatever a connection carries and whatever is lost of it: no panic, each exchange counted once, times in order, and
//! a name for each.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use rustok_obsd::exchange::{Exchange, HttpConnection, Io, RoutesExact, Shared, Side, Wanted};
use rustok_obsd::route::{Patterns, RouteNamer};
use std::sync::Arc;

#[derive(Arbitrary, Debug)]
enum Event<'a> {
    Io {
        received: bool,
        data: &'a [u8],
        missing: u16,
        tail: &'a [u8],
        lost: u32,
    },
    /// Parts of messages, so that the fuzzer need not find the grammar.
    Parts {
        received: bool,
        parts: [u8; 3],
        cut: u8,
        missing: u16,
    },
    EndOfStream,
    Error(i32),
    Route(bool),
}

const PARTS: [&[u8]; 16] = [
    b"",
    b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n",
    b"HEAD /b/17?c HTTP/1.1\r\n\r\n",
    b"POST /c HTTP/1.1\r\nContent-Length: 8\r\n\r\n",
    b"PUT /d HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"PUT /e HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 300\r\n\r\n",
    b"CONNECT f:1 HTTP/1.1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.0 200 OK\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    b"8\r\n12345678\r\n",
    b"0\r\n\r\n",
    b"12345678",
];

#[derive(Arbitrary, Debug)]
struct Connection<'a> {
    server: Option<bool>,
    mid_stream: bool,
    routes_exact: bool,
    events: Vec<Event<'a>>,
}

fuzz_target!(|input: Connection<'_>| {
    let side = input
        .server
        .map(|server| if server { Side::Server } else { Side::Client });
    let fields = vec!["host".into(), "content-length".into()];
    let mut shared = Shared::wanting(Wanted { tenant: "X-Tenant-ID".into(), fields });
    let mut namer = RouteNamer::new(Patterns::default(), 8);
    let exact = if input.routes_exact { RoutesExact::ALWAYS } else { RoutesExact::NEVER };
    let mut connection = HttpConnection::new(side, input.mid_stream, exact);
    let paths: [Arc<str>; 2] = ["/a/{*__private__axum_nest_tail_param}".into(), "/b".into()];
    let mut yielded = 0;
    let end = input.events.len() as u64 + 1;
    for (time_ns, event) in (1..).zip(&input.events) {
        let sink = &mut |exchange: &Exchange<'_>| {
            yielded += 1;
            assert!(exchange.start_ns <= exchange.end_ns && exchange.end_ns <= time_ns);
            assert!(!namer.name(exchange).template.is_empty());
        };
        match event {
            Event::Io {
                received,
                data,
                missing,
                tail,
                lost,
            } => {
                let len = data.len() + usize::from(*missing);
                let lost = u64::from(*lost);
                let io = Io {
                    time_ns,
                    ready_ns: time_ns - 1,
                    task: 0,
                    tid: 0,
                    len,
                    data,
                    tail,
                    lost,
                };
                if *received {
                    connection.on_receive(&io, &mut shared, sink);
                } else {
                    connection.on_send(&io, &mut shared, sink);
                }
            }
            Event::Parts {
                received,
                parts,
                cut,
                missing,
            } => {
                let bytes = parts
                    .map(|part| PARTS[usize::from(part) % PARTS.len()])
                    .concat();
                let data = &bytes[..bytes.len() - usize::from(*cut).min(bytes.len())];
                let missing = usize::from(*missing / 2 * (*missing % 2));
                let tail = if missing > 8 {
                    &b"\0\r\n0\r\n\r\n"[..]
                } else {
                    b""
                };
                let len = data.len() + missing;
                let io = Io {
                    time_ns,
                    ready_ns: 0,
                    task: 1,
                    tid: 1,
                    len,
                    data,
                    tail,
                    lost: 0,
                };
                if *received {
                    connection.on_receive(&io, &mut shared, sink);
                } else {
                    connection.on_send(&io, &mut shared, sink);
                }
            }
            Event::EndOfStream => connection.on_end_of_stream(time_ns, &mut shared, sink),
            Event::Error(errno) => connection.on_error(*errno),
            Event::Route(inner) => connection.on_route(&paths[usize::from(*inner)], &mut shared),
        }
    }
    connection.on_close(end, &mut shared, &mut |_| yielded += 1);
    assert_eq!(yielded, shared.stats.exchanges);
    assert_eq!(connection.in_flight(), 0);
    assert!(namer.counts().learned <= 8);
});
