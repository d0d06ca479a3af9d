//! Whatever a connection carries and whatever is lost of it: no panic, each exchange counted once, times in order, and
//! a name for each.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use rustok_obsd::exchange::{Exchange, HttpConnection, Io, Shared, Side};
use rustok_obsd::route::{Patterns, RouteNamer};
use std::sync::Arc;

#[derive(Arbitrary, Debug)]
enum Event<'a> {
    Io { received: bool, data: &'a [u8], missing: u16, tail: &'a [u8], lost: u32 },
    EndOfStream,
    Error(i32),
    Route(bool),
}

#[derive(Arbitrary, Debug)]
struct Connection<'a> {
    server: Option<bool>,
    mid_stream: bool,
    routes_exact: bool,
    events: Vec<Event<'a>>,
}

fuzz_target!(|input: Connection<'_>| {
    let side = input.server.map(|server| if server { Side::Server } else { Side::Client });
    let mut shared = Shared::default();
    let mut namer = RouteNamer::new(Patterns::default(), 8);
    let mut connection = HttpConnection::new(side, input.mid_stream, input.routes_exact);
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
            Event::Io { received, data, missing, tail, lost } => {
                let len = data.len() + usize::from(*missing);
                let lost = u64::from(*lost);
                let io = Io { time_ns, ready_ns: time_ns - 1, task: 0, tid: 0, len, data, tail, lost };
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
