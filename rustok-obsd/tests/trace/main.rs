//! Spans on their way out: to a real Jaeger, to collectors that are not there, and what an offer costs.
#![expect(clippy::unwrap_used, reason = "a test may fail")]

mod alloc;
mod batch;
mod down;
mod jaeger;

use rustok_obsd::database::{Ending, Operation, Parent, Sight};
use rustok_obsd::exchange::{Exchange, Method, Outcome, Side};
use rustok_obsd::statement::{Knowledge, Statement};
use rustok_obsd::trace::Addresses;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;

/// An ordinary request.
fn exchange() -> Exchange<'static> {
    let start_ns = monotonic_ns();
    Exchange {
        side: Side::Server,
        task: 77,
        tid: 4242,
        start_ns,
        first_io_ns: start_ns + 100,
        request_end_ns: start_ns + 100,
        response_start_ns: start_ns + 2_000_000,
        end_ns: start_ns + 2_500_000,
        method: Method::Get,
        path: b"/api/orders/42",
        host: b"shop.example:8080",
        version: 1,
        status: 200,
        outcome: Outcome::Complete,
        request_bytes: 120,
        response_bytes: 300,
        request_body: 0,
        response_body: 180,
        traceparent: None,
        route: None,
        awaited: None,
        routes_exact: true,
        told: false,
        id: 1,
        spent: None,
        ids: rustok_obsd::trace::Decision::Undecided,
        tenant: b"",
        headers: rustok_obsd::exchange::Headers::default(),
    }
}

/// An ordinary statement.
fn statement() -> Arc<Statement> {
    Arc::new(Statement {
        text: "SELECT * FROM shop.products WHERE id = ?".into(),
        summary: "SELECT shop.products".into(),
        operation: "SELECT".into(),
        collection: Some("shop.products".into()),
        fingerprint: 0xff,
        knowledge: Knowledge::Whole,
    })
}

/// A query within the request of [`exchange`], after a wait of 300 µs.
fn operation(statement: &Arc<Statement>) -> Operation<'_> {
    let call_ns = monotonic_ns() + 200_000;
    Operation {
        statement,
        sight: Sight::SeaOrm,
        system: rustok_obsd::database::System::Postgresql,
        task: 77,
        tid: 4242,
        parent: Parent::Request(1),
        parent_span: None,
        call_ns,
        start_ns: call_ns + 300_000,
        send_ns: call_ns + 310_000,
        first_ns: call_ns + 710_000,
        end_ns: call_ns + 800_000,
        rows: Some(1),
        ending: Ending::Complete,
        sqlstate: None,
        addresses: Some(("10.0.0.1:50000".parse().unwrap(), "10.0.0.9:5432".parse().unwrap())),
        namespace: None,
    }
}

fn addresses() -> Addresses {
    Addresses { local: "10.0.0.1:3000".parse().unwrap(), remote: "10.0.0.2:5555".parse().unwrap() }
}

fn monotonic_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for the call; the clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

/// Reads one HTTP request and accepts it; yields its head.
fn accept_export(listener: &TcpListener) -> String {
    let (mut stream, _) = listener.accept().unwrap();
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let read = stream.read(&mut buffer).unwrap();
        request.extend_from_slice(&buffer[..read]);
        let text = String::from_utf8_lossy(&request).to_lowercase();
        let Some((head, _)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head.split("content-length: ").nth(1).unwrap().lines().next().unwrap();
        let start = request.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap() + 4;
        if request.len() - start == length.parse::<usize>().unwrap() {
            let answer = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            stream.write_all(answer.as_bytes()).unwrap();
            return head.to_owned();
        }
    }
}
