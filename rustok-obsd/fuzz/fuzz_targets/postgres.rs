//! Whatever a PostgreSQL connection carries and whatever is lost of it: no panic, each operation begins once and ends
//! once, and no end lies before its begin.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use rustok_obsd::exchange::Io;
use rustok_obsd::exchange::postgres::{PostgresConnection, Shared, WireEvent};
use std::collections::BTreeMap;

#[derive(Arbitrary, Debug)]
enum Event<'a> {
    Io {
        received: bool,
        data: &'a [u8],
        missing: u16,
        tail: &'a [u8],
        lost: u16,
    },
    /// Messages, so that the fuzzer need not find the grammar.
    Parts {
        received: bool,
        parts: [u8; 4],
        cut: u8,
        missing: u16,
        task: bool,
    },
    EndOfStream,
}

const SENT: [&[u8]; 16] = [
    b"",
    b"\0\0\0\x08\x04\xd2\x16\x2f",
    b"\0\0\0\x12\0\x03\0\0user\0bob\0\0",
    b"P\0\0\0\x0es\0SELECT\0\0\0",
    b"P\0\0\0\x0d\0SELECT\0\0\0",
    b"B\0\0\0\x0d\0s\0\0\0\0\0\0\0",
    b"B\0\0\0\x0c\0\0\0\0\0\0\0\0",
    b"D\0\0\0\x07Ss\0",
    b"D\0\0\0\x06P\0",
    b"E\0\0\0\x09\0\0\0\0\0",
    b"C\0\0\0\x07Ss\0",
    b"S\0\0\0\x04",
    b"H\0\0\0\x04",
    b"Q\0\0\0\x0bCOMMIT\0",
    b"d\0\0\0\x05x",
    b"c\0\0\0\x04",
];

const RECEIVED: [&[u8]; 16] = [
    b"N",
    b"R\0\0\0\x08\0\0\0\0",
    b"1\0\0\0\x04",
    b"2\0\0\0\x04",
    b"3\0\0\0\x04",
    b"t\0\0\0\x06\0\0",
    b"n\0\0\0\x04",
    b"T\0\0\0\x06\0\0",
    b"D\0\0\0\x0a\0\x01\0\0\0\0",
    b"C\0\0\0\x0dSELECT 1\0",
    b"C\0\0\0\x10DISCARD ALL\0",
    b"E\0\0\0\x13SERROR\0C42P01\0\0",
    b"s\0\0\0\x04",
    b"Z\0\0\0\x05I",
    b"Z\0\0\0\x05T",
    b"G\0\0\0\x07\0\0\0",
];

#[derive(Arbitrary, Debug)]
struct Connection<'a> {
    mid_stream: bool,
    events: Vec<Event<'a>>,
}

fuzz_target!(|input: Connection<'_>| {
    let mut shared = Shared::new(64);
    let mut connection = PostgresConnection::new(input.mid_stream, &shared);
    let mut open: BTreeMap<u64, u64> = BTreeMap::new();
    let mut last = 0;
    let mut sink = |event: WireEvent<'_>| match event {
        WireEvent::Begin { op, time_ns, .. } => {
            assert!(op > last);
            last = op;
            open.insert(op, time_ns);
        }
        WireEvent::First { op, time_ns } => assert!(open.get(&op).is_some_and(|begin| *begin <= time_ns)),
        WireEvent::End { op, time_ns, .. } => {
            assert!(open.remove(&op).is_some_and(|begin| begin <= time_ns));
        }
        _ => {}
    };
    for (time_ns, event) in (1..).zip(&input.events) {
        let (received, io, bytes);
        match event {
            Event::Io {
                received: side,
                data,
                missing,
                tail,
                lost,
            } => {
                received = *side;
                io = Io {
                    time_ns,
                    ready_ns: 0,
                    task: 0,
                    tid: 0,
                    len: data.len() + usize::from(*missing),
                    data,
                    tail,
                    lost: u64::from(*lost),
                };
            }
            Event::Parts {
                received: side,
                parts,
                cut,
                missing,
                task,
            } => {
                received = *side;
                let table = if received { &RECEIVED } else { &SENT };
                bytes = parts
                    .map(|part| table[usize::from(part) % table.len()])
                    .concat();
                let data = &bytes[..bytes.len() - usize::from(*cut).min(bytes.len())];
                let missing = usize::from(*missing / 2 * (*missing % 2));
                let tail: &[u8] = match (missing > 8, received) {
                    (false, _) => b"",
                    (true, false) => b"\x06P\0S\0\0\0\x04",
                    (true, true) => b"\0\0Z\0\0\0\x05I",
                };
                io = Io {
                    time_ns,
                    ready_ns: 0,
                    task: 1 + u64::from(*task),
                    tid: 1,
                    len: data.len() + missing,
                    data,
                    tail,
                    lost: 0,
                };
            }
            Event::EndOfStream => {
                connection.on_end_of_stream(time_ns, &mut shared, &mut sink);
                continue;
            }
        }
        if received {
            connection.on_receive(&io, &mut shared, &mut sink);
        } else {
            connection.on_send(&io, &mut shared, &mut sink);
        }
    }
    connection.on_close(input.events.len() as u64 + 1, &mut shared, &mut sink);
    assert!(open.is_empty());
    assert_eq!(connection.in_flight(), 0);
    assert_eq!(shared.stats.operations, shared.stats.ended);
});
