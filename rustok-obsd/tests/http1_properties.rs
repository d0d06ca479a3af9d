//! However the bytes of a connection fall into records, its exchanges are the same.

use proptest::prelude::*;
use rustok_obsd::exchange::{Exchange, HttpConnection, Io, Method, Outcome, RoutesExact, Shared, Side, Wanted};

/// A request with its response, and what of them has to be reported.
#[derive(Clone)]
struct Pair {
    request: Vec<u8>,
    request_head: usize,
    response: Vec<u8>,
    response_head: usize,
    want: Seen,
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} => {}", self.request.escape_ascii(), self.response.escape_ascii())
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    method: Method,
    path: String,
    status: u16,
    outcome: Outcome,
    request_bytes: u64,
    response_bytes: u64,
    request_body: u64,
    response_body: u64,
    tenant: String,
    headers: Vec<(usize, String)>,
}

impl From<&Exchange<'_>> for Seen {
    fn from(exchange: &Exchange<'_>) -> Self {
        Self {
            method: exchange.method,
            path: String::from_utf8_lossy(exchange.path).into_owned(),
            status: exchange.status,
            outcome: exchange.outcome,
            request_bytes: exchange.request_bytes,
            response_bytes: exchange.response_bytes,
            request_body: exchange.request_body,
            response_body: exchange.response_body,
            tenant: String::from_utf8_lossy(exchange.tenant).into_owned(),
            headers: exchange.headers.iter().map(|(index, value)| (index, value.to_owned())).collect(),
        }
    }
}

#[derive(Clone, Debug)]
enum Content {
    None,
    Length(usize),
    Chunked(Vec<usize>, bool),
}

impl Content {
    /// Appends field, empty line and body; returns the length of the head and of the content.
    fn append(&self, message: &mut Vec<u8>, end: &str) -> (usize, u64) {
        match self {
            Self::None => message.extend(end.as_bytes()),
            Self::Length(length) => {
                message.extend(format!("Content-Length: {length}{end}{end}").bytes());
            }
            Self::Chunked(..) => {
                message.extend(format!("Transfer-Encoding: chunked{end}{end}").bytes());
            }
        }
        let head = message.len();
        match self {
            Self::None => (head, 0),
            Self::Length(length) => {
                message.extend(std::iter::repeat_n(b'x', *length));
                (head, *length as u64)
            }
            Self::Chunked(chunks, trailer) => {
                for length in chunks {
                    message.extend(format!("{length:x};ext\r\n").bytes());
                    message.extend(std::iter::repeat_n(b'x', *length));
                    message.extend(b"\r\n");
                }
                message.extend(if *trailer { &b"0\r\nTrailer: y\r\n\r\n"[..] } else { b"0\r\n\r\n" });
                (head, chunks.iter().sum::<usize>() as u64)
            }
        }
    }
}

fn content() -> impl Strategy<Value = Content> {
    prop_oneof![
        Just(Content::None),
        (0..3000usize).prop_map(Content::Length),
        (prop::collection::vec(1..900usize, 0..5), any::<bool>()).prop_map(|(c, t)| Content::Chunked(c, t)),
    ]
}

fn pairs(most: usize) -> impl Strategy<Value = Vec<Pair>> {
    pairs_of(most, 6)
}

/// The last of the methods is one of no RFC that HTTP servers have to know.
fn pairs_of(most: usize, methods: u8) -> impl Strategy<Value = Vec<Pair>> {
    let one = (0..methods, content(), content(), any::<bool>(), 0..3u8);
    prop::collection::vec(one, 1..most).prop_map(|all| all.into_iter().enumerate().map(pair).collect())
}

fn pair((index, (kind, up, down, bare, interim)): (usize, (u8, Content, Content, bool, u8))) -> Pair {
    let end = if bare { "\n" } else { "\r\n" };
    let (name, method) = [
        ("GET", Method::Get),
        ("POST", Method::Post),
        ("HEAD", Method::Head),
        ("DELETE", Method::Delete),
        ("PUT", Method::Put),
        ("REPORT", Method::Other),
    ][usize::from(kind)];
    let path = format!("/path/{index}");
    let mut request = if bare && index > 0 { b"\r\n".to_vec() } else { Vec::new() };
    let blank = request.len();
    request.extend(format!("{name} {path}?query HTTP/1.1{end}Host: a.example{end}Cookie: c=d{end}").bytes());
    // Some name a tenant, some a tenant that is none, some repeat a header.
    let (tenant, named) = [("", ""), ("shop-1", "shop-1"), ("a tenant", "")][index % 3];
    if !tenant.is_empty() {
        request.extend(format!("x-tenant-id:\t{tenant} {end}").bytes());
    }
    let headers: Vec<(usize, String)> = (0..index % 4).map(|number| (number % 2, format!("v{number}"))).collect();
    for (at, value) in &headers {
        request.extend(format!("{}: {value}{end}", ["X-Request-ID", "traceparent"][*at]).bytes());
    }
    let (request_head, request_body) = up.append(&mut request, end);
    // The status tells the pair; 204 and 304 have no body.
    let status = if kind == 3 { 204 } else { 400 + u16::try_from(index).expect("few") };
    let mut response = b"HTTP/1.1 100 Continue\r\n\r\n".repeat(usize::from(interim / 2));
    let before = response.len();
    response.extend(format!("HTTP/1.1 {status} Reason{end}Server: s{end}").bytes());
    let down = if matches!(down, Content::None) { Content::Length(0) } else { down };
    let (response_head, mut response_body) = down.append(&mut response, end);
    if kind == 2 || kind == 3 {
        response.truncate(response_head);
        response_body = 0;
    }
    let want = Seen {
        method,
        path,
        status,
        outcome: Outcome::Complete,
        request_bytes: (request.len() - blank) as u64,
        response_bytes: (response.len() - before) as u64,
        request_body,
        response_body,
        tenant: named.to_owned(),
        headers,
    };
    Pair { request, request_head, response, response_head, want }
}

/// A connection that collects what it yields.
struct Wire {
    connection: HttpConnection,
    shared: Shared,
    seen: Vec<Seen>,
    side: Side,
    now: u64,
    lost: [u64; 2],
}

impl Wire {
    fn new(side: Side) -> Self {
        let connection = HttpConnection::new(Some(side), false, RoutesExact::NEVER);
        let wanted = Wanted { tenant: "X-Tenant-ID".into(), fields: vec!["x-request-id".into(), "traceparent".into()] };
        Self { connection, shared: Shared::wanting(wanted), seen: Vec::new(), side, now: 1, lost: [0; 2] }
    }

    /// A record of which so many bytes were captured, and the tail.
    fn record(&mut self, request: bool, bytes: &[u8], captured: usize) {
        self.now += 1;
        let lost = std::mem::take(&mut self.lost[usize::from(request)]);
        let data = &bytes[..captured.min(bytes.len())];
        let tail = if data.len() < bytes.len() { &bytes[bytes.len().saturating_sub(8)..] } else { &[] };
        let io = Io { time_ns: self.now, ready_ns: 0, task: 1, tid: 1, len: bytes.len(), data, tail, lost };
        let seen = &mut self.seen;
        let mut sink = |exchange: &Exchange<'_>| {
            assert!(exchange.start_ns <= exchange.end_ns);
            assert!(exchange.first_io_ns <= exchange.response_start_ns || exchange.response_start_ns == 0);
            seen.push(Seen::from(exchange));
        };
        if request == (self.side == Side::Server) {
            self.connection.on_receive(&io, &mut self.shared, &mut sink);
        } else {
            self.connection.on_send(&io, &mut self.shared, &mut sink);
        }
    }

    fn lose(&mut self, request: bool, bytes: &[u8]) {
        self.lost[usize::from(request)] += bytes.len() as u64;
    }

    fn close(&mut self) {
        self.now += 1;
        let seen = &mut self.seen;
        self.connection.on_close(self.now, &mut self.shared, &mut |exchange| {
            seen.push(Seen::from(exchange));
        });
    }
}

/// Cuts bytes into records of the given sizes, over and over.
fn records<'a>(mut bytes: &'a [u8], sizes: &[usize], turn: &mut usize) -> Vec<&'a [u8]> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let (record, rest) = bytes.split_at(sizes[*turn % sizes.len()].min(bytes.len()));
        *turn += 1;
        all.push(record);
        bytes = rest;
    }
    all
}

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(prop_oneof![1..4usize, 1..40usize, 1..5000usize, Just(24usize)], 1..12)
}

fn side() -> impl Strategy<Value = Side> {
    prop_oneof![Just(Side::Server), Just(Side::Client)]
}

fn want(pairs: &[Pair]) -> Vec<Seen> {
    pairs.iter().map(|pair| pair.want.clone()).collect()
}

proptest! {
    // More by `PROPTEST_CASES`.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_split_into_records_gives_the_same_exchanges(pairs in pairs(12), sizes in sizes(), side in side()) {
        let mut wire = Wire::new(side);
        let mut turn = 0;
        for pair in &pairs {
            for (request, bytes) in [(true, &pair.request), (false, &pair.response)] {
                for record in records(bytes, &sizes, &mut turn) {
                    wire.record(request, record, usize::MAX);
                }
            }
        }
        prop_assert_eq!(&wire.seen, &want(&pairs));
        wire.close();
        prop_assert_eq!(wire.seen.len(), pairs.len());
    }

    #[test]
    fn any_split_of_pipelined_messages_gives_the_same_exchanges(
        pairs in pairs(20),
        sizes in sizes(),
        order in prop::collection::vec(any::<bool>(), 1..40),
        side in side(),
    ) {
        let mut wire = Wire::new(side);
        let (requests, responses): (Vec<u8>, Vec<u8>) =
            pairs.iter().fold(Default::default(), |(up, down), pair| ([up, pair.request.clone()].concat(), [down, pair.response.clone()].concat()));
        // A response goes out after its request came in; up to which byte may be answered after which byte came?
        let ends = |of: fn(&Pair) -> usize| pairs.iter().scan(0, move |sum, pair| { *sum += of(pair); Some(*sum) }).collect::<Vec<_>>();
        let (request_ends, response_ends) = (ends(|pair| pair.request.len()), ends(|pair| pair.response.len()));
        let (mut up, mut down, mut turn, mut step) = (0, 0, 0, 0);
        while up < requests.len() || down < responses.len() {
            let answerable = request_ends.iter().rposition(|end| *end <= up).map_or(0, |last| response_ends[last]);
            let size = sizes[turn % sizes.len()];
            turn += 1;
            step += 1;
            if up < requests.len() && (order[step % order.len()] || down == answerable) {
                let end = (up + size).min(requests.len());
                wire.record(true, &requests[up..end], usize::MAX);
                up = end;
            } else {
                let end = (down + size).min(answerable);
                wire.record(false, &responses[down..end], usize::MAX);
                down = end;
            }
        }
        prop_assert_eq!(&wire.seen, &want(&pairs));
    }

    #[test]
    fn bodies_that_are_hardly_captured_give_the_same_exchanges(
        pairs in pairs_of(12, 5),
        sizes in prop::collection::vec(24..5000usize, 1..12),
        captured in prop::collection::vec(0..200usize, 1..10),
        side in side(),
    ) {
        let mut wire = Wire::new(side);
        let mut turn = 0;
        for pair in &pairs {
            for (request, bytes, head) in [(true, &pair.request, pair.request_head), (false, &pair.response, pair.response_head)] {
                let mut sent = 0;
                for record in records(bytes, &sizes, &mut turn) {
                    let of_head = head.saturating_sub(sent);
                    wire.record(request, record, of_head.max(captured[turn % captured.len()] * usize::from(of_head == 0)));
                    sent += record.len();
                }
            }
        }
        wire.close();
        // Where chunk framing was not captured, content cannot be told from framing.
        let key = |seen: &Seen| (seen.path.clone(), seen.status, seen.outcome, seen.request_bytes, seen.response_bytes);
        let strip = |all: &[Seen]| all.iter().map(key).collect::<Vec<_>>();
        prop_assert_eq!(strip(&wire.seen), strip(&want(&pairs)));
    }

    #[test]
    fn lost_records_never_make_a_wrong_or_a_second_exchange(
        pairs in pairs(20),
        sizes in sizes(),
        lost in prop::collection::vec(0..4u8, 1..60),
        side in side(),
    ) {
        let mut wire = Wire::new(side);
        let (mut turn, mut step) = (0, 0);
        for pair in &pairs {
            for (request, bytes) in [(true, &pair.request), (false, &pair.response)] {
                for record in records(bytes, &sizes, &mut turn) {
                    step += 1;
                    if lost[step % lost.len()] == 0 {
                        wire.lose(request, record);
                    } else {
                        wire.record(request, record, usize::MAX);
                    }
                }
            }
        }
        wire.close();
        let all = want(&pairs);
        let mut last = None;
        for seen in &wire.seen {
            // A head that began with lost bytes is not recognised, so each exchange is one of those that there were.
            let index = all.iter().position(|pair| pair.path == seen.path);
            prop_assert!(index.is_some(), "{:?}", seen);
            prop_assert!(index > last, "twice or out of order: {:?}", seen);
            last = index;
            let pair = &all[index.expect("one")];
            prop_assert!(seen.status == 0 || seen.status == pair.status, "{:?} answered {:?}", seen, pair);
            prop_assert_eq!(seen.method, pair.method);
        }
    }

    #[test]
    fn garbage_never_panics_and_every_exchange_is_counted_once(events in prop::collection::vec(event(), 0..60), side in prop::option::of(side()), mid in any::<bool>()) {
        let fields = vec!["host".into(), "a".into(), "content-length".into()];
        let mut shared = Shared::wanting(Wanted { tenant: "transfer-encoding".into(), fields });
        let mut connection = HttpConnection::new(side, mid, RoutesExact::ALWAYS);
        let mut yielded = 0;
        let path = "/{id}".into();
        for (time_ns, event) in (1..).zip(&events) {
            let sink = &mut |exchange: &Exchange<'_>| {
                yielded += 1;
                assert!(exchange.end_ns <= time_ns && exchange.start_ns <= exchange.end_ns);
            };
            match event {
                Event::Io(received, data, missing, tail, lost) => {
                    let io = Io { time_ns, ready_ns: 0, task: 0, tid: 0, len: data.len() + missing, data, tail, lost: *lost };
                    if *received { connection.on_receive(&io, &mut shared, sink) } else { connection.on_send(&io, &mut shared, sink) }
                }
                Event::EndOfStream => connection.on_end_of_stream(time_ns, &mut shared, sink),
                Event::Error => connection.on_error(104),
                Event::Route => connection.on_route(&path, &mut shared),
            }
        }
        connection.on_close(1000, &mut shared, &mut |_| yielded += 1);
        connection.on_close(1001, &mut shared, &mut |_| panic!("yielded after the close"));
        prop_assert_eq!(yielded, shared.stats.exchanges);
        prop_assert_eq!(connection.in_flight(), 0);
    }
}

#[derive(Clone, Debug)]
enum Event {
    Io(bool, Vec<u8>, usize, Vec<u8>, u64),
    EndOfStream,
    Error,
    Route,
}

fn event() -> impl Strategy<Value = Event> {
    const PARTS: [&[u8]; 14] = [
        b"GET / HTTP/1.1\r\n",
        b"POST /a HTTP/1.1\r\nContent-Length: 5\r\n\r\n",
        b"PUT /b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HEAD /c HTTP/1.1\r\nExpect: 100-continue\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 204 No\r\n\r\n",
        b"HTTP/1.0 500 Oops\r\n\r\n",
        b"HTTP/1.1 100 C\r\n\r\n",
        b"\r\n",
        b"0\r\n\r\n",
        b"4\r\nabcd\r\n",
        b"CONNECT a:1 HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x00\x20\x01",
    ];
    let part = prop_oneof![
        4 => (0..PARTS.len()).prop_map(|index| PARTS[index].to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..40),
    ];
    let data = prop::collection::vec(part, 0..5).prop_map(|parts| parts.concat());
    let missing = prop_oneof![3 => Just(0usize), 1 => 0..20usize, 1 => 0..100_000usize];
    let lost = prop_oneof![5 => Just(0u64), 1 => 0..100u64, 1 => any::<u64>()];
    prop_oneof![
        12 => (any::<bool>(), data, missing, prop::collection::vec(any::<u8>(), 0..9), lost)
            .prop_map(|(received, data, missing, tail, lost)| Event::Io(received, data, missing, tail, lost)),
        1 => Just(Event::EndOfStream),
        1 => Just(Event::Error),
        2 => Just(Event::Route),
    ]
}
