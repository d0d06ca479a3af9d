//! What becomes of exchanges when bytes were not captured or records were lost.

use super::{OK, Wire, exchange, get};
use crate::exchange::Outcome::{ClientAborted, Complete, Incomplete};

#[test]
fn a_body_that_was_hardly_captured_keeps_its_exchange_exact() {
    let mut wire = Wire::server();
    let head = b"POST /a HTTP/1.1\r\nContent-Length: 100000\r\n\r\n";
    wire.io(true, head, head.len() + 30_000, b"12345678", 0).io(true, b"", 70_000, b"", 0);
    let answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10000\r\nbeginning";
    let whole = answer.len() - 9 + 0x10000 + 7;
    wire.io(false, answer, whole, b"y\r\n0\r\n\r\n", 0);
    assert_eq!(wire.seen[0].bytes, [head.len() as u64 + 100_000, whole as u64, 100_000, 0x10000]);
    assert_eq!(wire.seen[0].times, [1005, 1010, 1020, 1030, 1030]);
    assert_eq!(wire.summary(), [exchange("/a", 200, Complete)]);
    assert_eq!(wire.shared.stats.lost_sync, 0);
}

/// Chunks of which only the first was seen.
const CHUNKS: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";

#[test]
fn lost_chunk_framing_is_ended_by_the_last_chunk_in_the_tail() {
    let mut wire = Wire::server();
    wire.receive(&get("/a")).io(false, CHUNKS, 20_000, b"y\r\n0\r\nxx", 0).io(false, b"", 20_000, b"y\r\n0\r\n\r\n", 0);
    assert_eq!(wire.seen[0].times[4], 1030);
    assert_eq!(wire.summary(), [exchange("/a", 200, Complete)]);
    wire.receive(&get("/b")).io(false, CHUNKS, 20_000, b"--xyz-\r\n", 0).send("0\r\n\r\n");
    wire.receive(&get("/c")).send(OK);
    assert_eq!(wire.summary(), [exchange("/b", 200, Complete), exchange("/c", 200, Complete)]);
    assert_eq!((wire.shared.stats.lost_sync, wire.shared.stats.resyncs), (2, 2));
}

#[test]
fn lost_chunk_framing_is_ended_by_the_next_exchange_or_by_the_close() {
    let mut wire = Wire::server();
    wire.receive(&get("/a")).io(false, CHUNKS, 20_000, b"Trailer:", 0).send("x\r\n\r\n").receive(&get("/b")).send(OK);
    assert_eq!(wire.seen[0].times[4], 1030);
    assert_eq!(wire.summary(), [exchange("/a", 200, Complete), exchange("/b", 200, Complete)]);
    wire.receive(&get("/c")).io(false, CHUNKS, 20_000, b"Trailer:", 0).close();
    assert_eq!(wire.seen[0].times[4], 1070);
    assert_eq!(wire.summary(), [exchange("/c", 200, Complete)]);
}

#[test]
fn lost_framing_of_a_request_is_ended_by_its_last_chunk_or_after_its_response() {
    let head = b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    let mut wire = Wire::server();
    wire.io(true, head, 20_000, b"y\r\n0\r\n\r\n", 0).receive(&get("/b")).send(OK).send(OK);
    assert_eq!(wire.seen[0].times[2], 1010);
    assert_eq!(wire.summary(), [exchange("/a", 200, Complete), exchange("/b", 200, Complete)]);
    wire.io(true, head, 20_000, b"Trailer:", 0).receive("POST /body-not-head").receive("x\r\n\r\n").send(OK);
    wire.receive("GE").receive("T /b HTTP/1.1\r\n\r\n").send(OK);
    assert_eq!(wire.summary(), [exchange("/a", 200, Complete), exchange("/b", 200, Complete)]);
    assert_eq!(wire.shared.stats.unmatched_responses, 0);
}

#[test]
fn a_head_whose_end_was_not_captured_is_read_as_far_as_it_goes() {
    let mut wire = Wire::server();
    wire.io(true, b"GET /a HTTP/1.1\r\nCookie: x", 30_000, b"yyyy\r\n\r\n", 0);
    wire.io(false, b"HTTP/1.1 500 Oops\r\nX: y", 30_000, b"........", 0);
    wire.receive(&get("/b")).send(OK);
    assert_eq!(wire.summary(), [exchange("/a", 500, Complete), exchange("/b", 200, Complete)]);
    assert_eq!(wire.shared.stats.truncated_heads, 2);
}

#[test]
fn a_head_beyond_the_limit_is_read_as_far_as_it_goes_however_it_is_split() {
    let head = format!("GET /a HTTP/1.1\r\nCookie: {}\r\n\r\n", "x".repeat(20_000));
    for size in [24, 1000, 16 * 1024, 40_000] {
        let mut wire = Wire::server();
        for part in head.as_bytes().chunks(size) {
            wire.io(true, part, part.len(), b"", 0);
        }
        wire.send(OK).receive(&get("/b")).send(OK);
        assert_eq!(wire.seen[0].bytes[0], head.len() as u64);
        assert_eq!(wire.summary(), [exchange("/a", 200, Complete), exchange("/b", 200, Complete)]);
        assert_eq!(wire.shared.stats.truncated_heads, 1);
    }
}

#[test]
fn an_unreadable_response_belongs_to_the_only_request_in_flight() {
    let mut wire = Wire::server();
    wire.receive(&get("/a")).io(false, b"", 500, b"", 0).receive(&get("/b")).send(OK);
    assert_eq!(wire.summary(), [exchange("/a", 0, Complete), exchange("/b", 200, Complete)]);
}

#[test]
fn lost_records_inside_a_body_change_nothing() {
    let mut wire = Wire::server();
    wire.receive("POST /a HTTP/1.1\r\nContent-Length: 100\r\n\r\n").io(true, b"1234567890", 10, b"", 90);
    wire.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n").io(false, b"1234567890", 10, b"", 90);
    assert_eq!(wire.seen[0].times, [1005, 1010, 1020, 1030, 1040]);
    assert_eq!(wire.summary(), [exchange("/a", 200, Complete)]);
    assert_eq!((wire.shared.stats.lost_bytes, wire.shared.stats.lost_sync), (180, 0));
}

#[test]
fn lost_requests_are_never_paired_with_other_responses() {
    let mut wire = Wire::server();
    // Received, but lost: /lost. Its response comes, then the next request tells the gap.
    wire.receive(&get("/a")).send(OK).send(OK);
    let next = get("/b");
    wire.io(true, next.as_bytes(), next.len(), b"", 30).send(OK);
    assert_eq!(wire.summary(), [exchange("/a", 200, Complete), exchange("/b", 200, Complete)]);
    assert_eq!(wire.shared.stats.unmatched_responses, 1);
}

#[test]
fn a_request_behind_lost_ones_is_told_although_the_one_before_them_was_not_answered() {
    let mut wire = Wire::server();
    wire.receive(&get("/a"));
    // Lost: the response to /a, and /lost with its response. Then comes /b, and its response tells the other gap.
    let next = get("/b");
    wire.io(true, next.as_bytes(), next.len(), b"", 30);
    assert_eq!(wire.summary(), [exchange("/a", 0, Incomplete)]);
    wire.io(false, OK.as_bytes(), OK.len(), b"", 2 * OK.len() as u64);
    wire.receive(&get("/c")).send(OK);
    assert_eq!(wire.summary(), [exchange("/b", 0, Incomplete), exchange("/c", 200, Complete)]);
}

#[test]
fn lost_responses_leave_what_is_in_flight_incomplete() {
    let mut wire = Wire::server();
    wire.receive(&get("/a"));
    // Lost: the response to /a, the request /lost. Then comes the response to /lost.
    wire.io(false, OK.as_bytes(), OK.len(), b"", OK.len() as u64);
    let next = get("/b");
    wire.io(true, next.as_bytes(), next.len(), b"", 30).send(OK);
    assert_eq!(wire.summary(), [exchange("/a", 0, Incomplete), exchange("/b", 200, Complete)]);
    // The last byte of a response was lost: its time is not known, but the sequence is.
    wire.receive(&get("/c")).send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n").receive(&get("/d"));
    wire.io(false, OK.as_bytes(), OK.len(), b"", 9);
    assert_eq!(wire.summary(), [exchange("/c", 200, Incomplete), exchange("/d", 200, Complete)]);
}

#[test]
fn a_client_that_leaves_a_response_whose_framing_was_lost_aborted_it() {
    let mut wire = Wire::server();
    wire.receive(&get("/export")).send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    wire.io(false, b"10000\r\n", 0x18000, b"not last", 0).eof().close();
    assert_eq!(wire.summary(), [exchange("/export", 200, ClientAborted)]);
}
