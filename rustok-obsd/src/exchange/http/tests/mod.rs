//! The bullets of RFC 9112 and of the capture, one connection each.

mod missing;

use super::{HttpConnection, Shared, Verdict};
use crate::budget::Meter;
use crate::exchange::{Exchange, Io, Method, NEST_TAIL, Outcome, RoutesExact, Side};
use crate::protocol::Protocol;
use std::sync::Arc;

/// What a test compares of an exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    method: Method,
    path: String,
    status: u16,
    outcome: Outcome,
    route: Option<String>,
    /// start, first I/O, request end, response start, end
    times: [u64; 5],
    /// request, response, request body, response body
    bytes: [u64; 4],
}

impl From<&Exchange<'_>> for Seen {
    fn from(exchange: &Exchange<'_>) -> Self {
        Self {
            method: exchange.method,
            path: String::from_utf8_lossy(exchange.path).into_owned(),
            status: exchange.status,
            outcome: exchange.outcome,
            route: exchange.route.map(|route| route.template.to_string()),
            times: [
                exchange.start_ns,
                exchange.first_io_ns,
                exchange.request_end_ns,
                exchange.response_start_ns,
                exchange.end_ns,
            ],
            bytes: [exchange.request_bytes, exchange.response_bytes, exchange.request_body, exchange.response_body],
        }
    }
}

struct Wire {
    connection: HttpConnection,
    shared: Shared,
    seen: Vec<Seen>,
    now: u64,
}

impl Wire {
    fn server() -> Self {
        Self::new(Some(Side::Server), false)
    }

    fn new(side: Option<Side>, mid_stream: bool) -> Self {
        Self {
            connection: HttpConnection::new(side, mid_stream, RoutesExact::ALWAYS),
            shared: Shared::default(),
            seen: Vec::new(),
            now: 1000,
        }
    }

    fn io(&mut self, received: bool, data: &[u8], len: usize, tail: &[u8], lost: u64) -> &mut Self {
        self.now += 10;
        let io = Io { time_ns: self.now, ready_ns: self.now - 5, task: 7, tid: 70, len, data, tail, lost };
        let seen = &mut self.seen;
        let mut sink = |exchange: &Exchange<'_>| {
            assert_eq!((exchange.task, exchange.tid), (7, 70));
            seen.push(Seen::from(exchange));
        };
        if received {
            self.connection.on_receive(&io, &mut self.shared, &mut sink);
        } else {
            self.connection.on_send(&io, &mut self.shared, &mut sink);
        }
        self
    }

    fn receive(&mut self, text: &str) -> &mut Self {
        self.io(true, text.as_bytes(), text.len(), b"", 0)
    }

    fn send(&mut self, text: &str) -> &mut Self {
        self.io(false, text.as_bytes(), text.len(), b"", 0)
    }

    fn end(&mut self, how: fn(&mut HttpConnection, u64, &mut Shared, &mut super::Sink<'_>)) -> &mut Self {
        self.now += 10;
        let seen = &mut self.seen;
        how(&mut self.connection, self.now, &mut self.shared, &mut |exchange| {
            seen.push(Seen::from(exchange));
        });
        self
    }

    fn close(&mut self) -> &mut Self {
        self.end(HttpConnection::on_close)
    }

    fn eof(&mut self) -> &mut Self {
        self.end(HttpConnection::on_end_of_stream)
    }

    fn route(&mut self, path: &Arc<str>) -> &mut Self {
        self.connection.on_route(path, &mut self.shared);
        self
    }

    /// Path, status and outcome of all exchanges, which the test then forgets.
    fn summary(&mut self) -> Vec<(String, u16, Outcome)> {
        self.seen.drain(..).map(|seen| (seen.path, seen.status, seen.outcome)).collect()
    }
}

fn exchange(path: &str, status: u16, outcome: Outcome) -> (String, u16, Outcome) {
    (path.to_owned(), status, outcome)
}

use Outcome::{ClientAborted, Complete, Incomplete, Upgraded};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")
}

#[test]
fn a_plain_exchange_has_its_times_and_sizes() {
    let mut wire = Wire::server();
    let head = "POST /a?q HTTP/1.1\r\nContent-Length: 4\r\n\r\n";
    wire.receive(&head[..24]).receive(&head[24..]).receive("bo").receive("dy");
    wire.send("HTTP/1.1 201 Created\r\nContent-Length: 6\r\n\r\nabc").send("def");
    assert_eq!(
        wire.seen,
        [Seen {
            method: Method::Post,
            path: "/a".to_owned(),
            status: 201,
            outcome: Complete,
            route: None,
            times: [1005, 1010, 1040, 1050, 1060],
            bytes: [head.len() as u64 + 4, 49, 4, 6],
        }]
    );
    assert_eq!(wire.connection.verdict(), Verdict::Http1);
    assert!(wire.close().seen.len() == 1 && wire.shared.stats.exchanges == 1);
}

#[test]
fn a_request_is_told_as_started_once_when_its_head_is_whole() {
    let mut wire = Wire::server();
    let head = get("/a");
    wire.receive(&head[..24]);
    assert_eq!(wire.connection.take_started().count(), 0);
    wire.receive(&head[24..]).receive("HEAD /b HTTP/1.1\r\n\r\n");
    assert_eq!(wire.connection.take_started().collect::<Vec<_>>(), [Method::Get, Method::Head]);
    wire.send(OK);
    assert_eq!(wire.connection.take_started().count(), 0);
}

#[test]
fn a_router_that_a_handler_calls_does_not_change_the_requests_route() {
    let mut wire = Wire::server();
    let (own, other): (Arc<str>, Arc<str>) = (Arc::from("/api/graphql"), Arc::from("/internal/{id}"));
    wire.receive(&get("/api/graphql")).route(&own).route(&other).send(OK);
    assert_eq!(wire.seen.remove(0).route.as_deref(), Some("/api/graphql"));
    let (prefix, root): (Arc<str>, Arc<str>) = (Arc::from("/store"), Arc::from("/"));
    wire.receive(&get("/store")).route(&prefix).route(&root).send(OK);
    assert_eq!(wire.seen.remove(0).route.as_deref(), Some("/store/"));
}

#[test]
fn a_route_that_cannot_be_read_leaves_the_request_without_proof_that_none_matched() {
    let mut exact = Vec::new();
    let mut connection = HttpConnection::new(Some(Side::Server), false, RoutesExact::ALWAYS);
    let mut shared = Shared::default();
    for unknown in [false, true] {
        let request = get("/a");
        let mut sink = |exchange: &Exchange<'_>| exact.push(exchange.routes_exact);
        let io = |text: &'static str, time_ns| Io {
            time_ns,
            ready_ns: 0,
            task: 1,
            tid: 1,
            len: text.len(),
            data: text.as_bytes(),
            tail: &[],
            lost: 0,
        };
        connection.on_receive(
            &Io { len: request.len(), data: request.as_bytes(), ..io("", 1) },
            &mut shared,
            &mut sink,
        );
        if unknown {
            connection.on_unknown_route();
        }
        connection.on_send(&io(OK, 2), &mut shared, &mut sink);
    }
    assert_eq!(exact, [true, false]);
}

#[test]
fn keep_alive_yields_each_exchange_when_its_response_is_whole() {
    let mut wire = Wire::server();
    for path in ["/a", "/b", "/c"] {
        wire.receive(&get(path)).send(OK);
        assert_eq!(wire.summary(), [exchange(path, 200, Complete)]);
    }
}

#[test]
fn a_client_is_paired_the_other_way_round() {
    let mut wire = Wire::new(Some(Side::Client), false);
    wire.send(&get("/a")).receive("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no").receive("k");
    assert_eq!(wire.seen[0].times, [1010, 1010, 1010, 1020, 1030]);
    assert_eq!(wire.summary(), [exchange("/a", 200, Complete)]);
    wire.send(&get("/b")).receive("HTTP/1.0 200 OK\r\n\r\nuntil the end").eof();
    assert_eq!(wire.seen[0].times[4], 1050);
    assert_eq!(wire.summary(), [exchange("/b", 200, Complete)]);
    let mut wire = Wire::new(Some(Side::Client), false);
    wire.send(&get("/c")).eof().close();
    assert_eq!(wire.summary(), [exchange("/c", 0, Incomplete)]);
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let mut wire = Wire::server();
    wire.receive(&format!("{}{}\r\n{}", get("/a"), get("/b"), get("/c"))).send(&format!("{OK}{OK}")).send(OK);
    let times: Vec<_> = wire.seen.iter().map(|seen| (seen.times[0], seen.times[4])).collect();
    assert_eq!(times, [(1005, 1020), (1010, 1020), (1010, 1030)]);
    let paths: Vec<_> = wire.summary().into_iter().map(|seen| seen.0).collect();
    assert_eq!(paths, ["/a", "/b", "/c"]);
}

#[test]
fn requests_past_the_bound_are_counted_and_their_responses_skipped() {
    let mut wire = Wire::server();
    let many = HttpConnection::IN_FLIGHT + 3;
    (0..many).for_each(|_| {
        wire.receive(&get("/many"));
    });
    wire.send(&OK.repeat(many - 1));
    wire.receive(&get("/still-behind")).send(OK).send(OK).receive(&get("/after")).send(OK);
    assert_eq!(wire.shared.stats.pipeline_overflow, 4);
    assert_eq!(wire.shared.stats.unmatched_responses, 0);
    assert_eq!(wire.seen.len(), HttpConnection::IN_FLIGHT + 1);
    assert_eq!(wire.seen.last().expect("one").path, "/after");
}

#[test]
fn interim_responses_are_skipped() {
    let mut wire = Wire::server();
    wire.receive("PUT /a HTTP/1.1\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
    wire.send("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n").receive("body");
    wire.send("HTTP/1.1 204 No Content\r\nContent-Length: 9\r\n\r\n");
    assert_eq!(wire.seen[0].times, [1005, 1010, 1030, 1040, 1040]);
    assert_eq!(wire.seen[0].bytes[1], 46, "the final response only");
    assert_eq!((wire.summary(), wire.shared.stats.interim_responses), (vec![exchange("/a", 204, Complete)], 2));
}

#[test]
fn a_refused_expectation_is_followed_by_the_next_request_or_by_the_body() {
    for body in ["", "body that nobody wanted"] {
        let mut wire = Wire::server();
        wire.receive("PUT /a HTTP/1.1\r\nContent-Length: 23\r\nExpect: 100-continue\r\n\r\n");
        wire.send("HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n");
        if !body.is_empty() {
            wire.receive(body);
        }
        wire.receive(&get("/b")).send(OK);
        assert_eq!(wire.summary(), [exchange("/a", 417, Complete), exchange("/b", 200, Complete)]);
    }
}

#[test]
fn responses_without_a_body_end_with_their_head_whatever_it_says() {
    for (method, answer, status) in [
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n", 200),
        ("HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 200),
        ("GET", "HTTP/1.1 204 No Content\r\nContent-Length: 500\r\n\r\n", 204),
        ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 500\r\n\r\n", 304),
    ] {
        let mut wire = Wire::server();
        wire.receive(&format!("{method} /a HTTP/1.1\r\n\r\n")).send(answer);
        assert_eq!(wire.summary(), [exchange("/a", status, Complete)], "{method} {answer}");
        wire.receive(&get("/b")).send(OK);
        assert_eq!(wire.summary(), [exchange("/b", 200, Complete)]);
    }
}

#[test]
fn chunked_bodies_both_ways_end_with_their_last_chunk() {
    let mut wire = Wire::server();
    wire.receive("POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nWi")
        .receive("ki\r\n0\r\n")
        .receive("\r\n");
    wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r")
        .send("\n0\r\nTrailer: x\r\n")
        .send("\r\n");
    assert_eq!((wire.seen[0].times, &wire.seen[0].bytes[2..]), ([1005, 1010, 1030, 1040, 1060], &[4, 3][..]));
    assert_eq!(wire.summary(), [exchange("/a", 200, Complete)]);
}

#[test]
fn a_response_without_length_ends_with_the_close() {
    let mut wire = Wire::server();
    wire.receive("GET /a HTTP/1.0\r\n\r\n").send("HTTP/1.0 200 OK\r\n\r\nsome").send("more").close();
    assert_eq!(wire.seen[0].times[4], 1030, "the last byte, not the close");
    assert_eq!(wire.summary(), [exchange("/a", 200, Complete)]);
    let mut wire = Wire::server();
    wire.receive("GET /a HTTP/1.0\r\n\r\n").send("HTTP/1.0 200 OK\r\n\r\nsome");
    wire.connection.on_error(libc::EPIPE);
    assert_eq!(wire.close().summary(), [exchange("/a", 200, ClientAborted)]);
}

#[test]
fn an_early_response_ends_the_exchange_and_the_rest_of_the_body_is_counted_off() {
    let mut wire = Wire::server();
    wire.receive("POST /a HTTP/1.1\r\nContent-Length: 40\r\n\r\n0123456789");
    wire.send("HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(wire.seen[0].times[2], 0, "the request never ended");
    assert_eq!(wire.summary(), [exchange("/a", 413, Complete)]);
    wire.receive("GET / HTTP/1.1\r\n\r\n........").receive(&format!("....{}", get("/b"))).send(OK);
    assert_eq!(wire.summary(), [exchange("/b", 200, Complete)]);
}

#[test]
fn an_upgrade_ends_the_request_at_101_and_makes_the_connection_opaque() {
    let mut wire = Wire::server();
    wire.receive("GET /ws HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
    wire.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\u{1}frame");
    assert_eq!(wire.connection.verdict(), Verdict::Opaque(Protocol::Upgraded));
    wire.receive(&get("/not-http")).send(OK).eof().close();
    assert_eq!(wire.summary(), [exchange("/ws", 101, Upgraded)]);
}

#[test]
fn connect_is_a_tunnel_only_where_it_was_granted() {
    let mut wire = Wire::server();
    wire.receive("CONNECT a.example:443 HTTP/1.1\r\n\r\n").send("HTTP/1.1 407 No\r\nContent-Length: 2\r\n\r\nno");
    wire.receive("CONNECT a.example:443 HTTP/1.1\r\n\r\n").send("HTTP/1.1 200 Established\r\n\r\n");
    assert_eq!(wire.summary(), [exchange("", 407, Complete), exchange("", 200, Upgraded)]);
    assert_eq!(wire.connection.verdict(), Verdict::Opaque(Protocol::Upgraded));
}

#[test]
fn a_half_closed_connection_is_still_answered() {
    let mut wire = Wire::server();
    wire.receive(&get("/a")).eof().send(OK).close();
    assert_eq!(wire.summary(), [exchange("/a", 200, Complete)]);
}

#[test]
fn a_close_before_the_response_is_whole_tells_who_closed() {
    type End = fn(&mut Wire);
    let ends: [(End, Outcome); 5] = [
        (|wire| _ = wire.eof().close(), ClientAborted),
        (|wire| wire.connection.on_error(libc::ECONNRESET), ClientAborted),
        (|wire| wire.connection.on_error(libc::EPIPE), ClientAborted),
        (|wire| _ = wire.close(), Incomplete),
        (|wire| _ = wire.eof().end(HttpConnection::on_abandon), Incomplete),
    ];
    for (end, outcome) in ends {
        for sent in ["", "HTTP/1.1 200 OK\r\nContent-Le", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok"] {
            let mut wire = Wire::server();
            wire.receive(&format!("{}{}GET /part", get("/a"), get("/b"))).send(sent);
            end(&mut wire);
            wire.close();
            let status = if sent.contains("\r\n\r\n") { 200 } else { 0 };
            assert_eq!(wire.summary(), [exchange("/a", status, outcome), exchange("/b", 0, outcome)], "{sent}");
            assert_eq!(wire.shared.stats.partial_requests, 1);
        }
    }
}

#[test]
fn a_request_that_was_answered_before_its_head_was_whole_or_right_is_an_exchange() {
    let mut wire = Wire::server();
    wire.receive("GET /sl")
        .send("HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
        .receive("ow HTTP/1.1\r\n\r\n");
    wire.receive("GET /slow HTTP/1.1\r\nHo")
        .send("HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
        .receive("st: a\r\n\r\n");
    assert_eq!(wire.summary(), [exchange("/slow", 408, Complete)]);
    assert_eq!(wire.shared.stats.unread_requests, 1, "the first one's line was not there");
    let mut wire = Wire::server();
    wire.receive(&get("/a")).send(OK).receive("GET / HTTP/7.7\r\n\r\n");
    wire.send("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").close();
    assert_eq!(wire.summary(), [exchange("/a", 200, Complete), exchange("", 400, Complete)]);
    let mut wire = Wire::server();
    wire.receive("POST /a HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab");
    wire.send("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").close();
    assert_eq!(wire.summary(), [exchange("/a", 400, Complete)]);
    assert_eq!(wire.shared.stats.malformed_requests, 1);
}

#[test]
fn a_connection_older_than_the_daemon_begins_with_the_next_request() {
    for side in [None, Some(Side::Server)] {
        let mut wire = Wire::new(side, true);
        wire.receive("the middle of a body").send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        wire.receive(&get("/a")).send(OK);
        assert_eq!(wire.summary(), [exchange("/a", 200, Complete)]);
        assert_eq!(wire.connection.side(), Some(Side::Server));
        let counted = u64::from(side.is_some());
        assert!(wire.shared.stats.unmatched_responses >= counted);
    }
}

#[test]
fn the_side_is_told_by_who_sends_the_request() {
    for (first_received, text, side) in [
        (true, get("/a"), Side::Server),
        (false, get("/a"), Side::Client),
        (true, OK.to_owned(), Side::Client),
        (false, OK.to_owned(), Side::Server),
    ] {
        let mut wire = Wire::new(None, true);
        wire.io(first_received, text.as_bytes(), text.len(), b"", 0);
        assert_eq!(wire.connection.side(), Some(side), "{text}");
    }
}

#[test]
fn other_protocols_are_told_apart_early() {
    for (side, received, bytes, protocol) in [
        (Side::Server, true, &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], Protocol::Http2),
        (Side::Server, true, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", Protocol::Tls),
        (Side::Client, false, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", Protocol::Tls),
        (Side::Client, false, b"\0\0\0\x08\x04\xd2\x16\x2f", Protocol::Postgres),
        (Side::Client, false, b"*1\r\n$4\r\nPING\r\n", Protocol::Unknown),
        (Side::Client, true, b"220 mail.example ESMTP\r\n", Protocol::Unknown),
    ] {
        let mut wire = Wire::new(Some(side), false);
        wire.io(received, bytes, bytes.len(), b"", 0);
        assert_eq!(wire.connection.verdict(), Verdict::Opaque(protocol));
        wire.receive(&get("/a")).send(OK).close();
        assert_eq!((wire.seen.len(), wire.shared.stats.opaque_connections), (0, 1));
    }
    let mut wire = Wire::new(None, true);
    wire.send("\u{17}\u{3}\u{3}@@@");
    assert_eq!(wire.connection.verdict(), Verdict::Opaque(Protocol::Tls));
    let mut wire = Wire::new(None, true);
    (0..300).for_each(|_| {
        wire.send("nothing that anybody knows");
    });
    assert_eq!(wire.connection.verdict(), Verdict::Opaque(Protocol::Unknown));
}

#[test]
fn routes_belong_to_the_request_that_is_being_handled() {
    let outer: Arc<str> = format!("/admin{NEST_TAIL}").into();
    let [a, b, prefix]: [Arc<str>; 3] = ["/a/{id}".into(), "/b".into(), "/admin".into()];
    let root: Arc<str> = "/".into();
    let mut wire = Wire::server();
    wire.receive(&format!("{}{}", get("/a/1"), get("/b"))).route(&a).send(OK).route(&b).send(OK);
    wire.receive(&get("/admin/b")).route(&outer).route(&b).send(OK);
    wire.receive(&get("/admin/x")).route(&outer).send(OK);
    wire.receive(&get("/admin")).route(&prefix).route(&root).send(OK);
    wire.receive(&get("/retried")).route(&outer).route(&b).route(&outer).route(&b).send(OK);
    wire.receive(&get("/404")).send(OK);
    let routes: Vec<_> = wire.seen.iter().map(|seen| seen.route.as_deref()).collect();
    assert_eq!(
        routes,
        [Some("/a/{id}"), Some("/b"), Some("/admin/b"), Some("/admin/*"), Some("/admin/"), Some("/admin/b"), None]
    );
    wire.route(&a).receive("GET /part").route(&a);
    assert_eq!(wire.shared.stats.unmatched_routes, 2);
}

#[test]
fn requests_that_are_never_answered_leave_room_for_another_target() {
    let mut shared = Shared::default();
    let mut count = 0;
    let mut io = |connection: &mut HttpConnection, shared: &mut Shared, received: bool, text: &str| {
        let data = text.as_bytes();
        let io = Io { time_ns: 1, ready_ns: 0, task: 1, tid: 1, len: data.len(), data, tail: &[], lost: 0 };
        let mut sink = |exchange: &Exchange<'_>| count += usize::from(exchange.outcome == Complete);
        if received {
            connection.on_receive(&io, shared, &mut sink);
        } else {
            connection.on_send(&io, shared, &mut sink);
        }
        count
    };
    shared.set_owner(1);
    let long = get(&format!("/{}", "a".repeat(10_000)));
    let mut waiting: Vec<_> =
        (0..20_000).map(|_| HttpConnection::new(Some(Side::Server), false, RoutesExact::NEVER)).collect();
    for connection in &mut waiting {
        io(connection, &mut shared, true, &long);
    }
    let meters: Vec<_> = shared.meters().collect();
    let sum = |of: fn(&Meter) -> u64| meters.iter().map(|meter| of(meter)).sum::<u64>();
    assert!(sum(Meter::used) <= 8 << 20 && sum(Meter::refused) > 10_000, "{meters:?}");
    assert!(shared.stats.pipeline_overflow > 0, "counted as not followed");
    shared.set_owner(2);
    let mut good = HttpConnection::new(Some(Side::Server), false, RoutesExact::NEVER);
    for number in 1..=100 {
        io(&mut good, &mut shared, true, &get("/good"));
        assert_eq!(io(&mut good, &mut shared, false, OK), number);
    }
    // Whoever filled it goes, and what it held comes back.
    shared.set_owner(1);
    for connection in &mut waiting {
        connection.on_close(2, &mut shared, &mut |_| {});
    }
    assert_eq!(sum(Meter::used), 0);
}
