//! An OTLP receiver for tests: takes spans over HTTP/1.1 and keeps them in memory.
//!
//! Reads: `POST /v1/traces`, protobuf, gzip or not, by length or by chunks, on kept connections. Yields: every span, in
//! the order of arrival. Costs: a thread per connection, about 1 KB per span; feature `sink`.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{Span as Received, span};
use prost::Message as _;
use serde_json::Value;

/// Longest body, before and after gzip.
const MOST: u64 = 256 << 20;

/// Attributes by key.
pub type Attributes = BTreeMap<String, Value>;

/// What a span is of.
pub use opentelemetry_proto::tonic::trace::v1::span::SpanKind;

/// One span.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// 32 hexadecimal digits.
    pub trace_id: String,
    /// 16 hexadecimal digits.
    pub span_id: String,
    /// 16 hexadecimal digits; none for a root.
    pub parent_span_id: Option<String>,
    /// W3C flags and what OTLP adds to them.
    pub flags: u32,
    /// Name.
    pub name: String,
    /// Server, client, internal, …
    pub kind: SpanKind,
    /// Start, ns since 1970.
    pub start_ns: u64,
    /// End, ns since 1970.
    pub end_ns: u64,
    /// Attributes.
    pub attributes: Attributes,
    /// Events: name, time in ns since 1970, attributes.
    pub events: Vec<(String, u64, Attributes)>,
    /// Links.
    pub links: Vec<Link>,
    /// Whether the status is set to error.
    pub error: bool,
    /// The status' message.
    pub status_message: String,
    /// Attributes of the resource.
    pub resource: Arc<Attributes>,
    /// Name of the instrumentation scope.
    pub scope: Arc<str>,
}

/// A span that another points to.
#[derive(Clone, Debug, PartialEq)]
pub struct Link {
    /// 32 hexadecimal digits.
    pub trace_id: String,
    /// 16 hexadecimal digits.
    pub span_id: String,
    /// Attributes of the link.
    pub attributes: Attributes,
}

impl Span {
    /// An attribute's text; none where it is missing or no text.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<&str> {
        self.attributes.get(key)?.as_str()
    }

    /// An attribute's number; none where it is missing or no whole number.
    #[must_use]
    pub fn int(&self, key: &str) -> Option<i64> {
        self.attributes.get(key)?.as_i64()
    }
}

#[derive(Default)]
struct Kept {
    spans: Mutex<Vec<Span>>,
    problems: Mutex<Vec<String>>,
    connections: Mutex<Vec<TcpStream>>,
    stop: AtomicBool,
}

/// A running receiver; it and its connections end when dropped.
pub struct Sink {
    addr: SocketAddr,
    kept: Arc<Kept>,
    accepting: Option<JoinHandle<()>>,
}

impl Sink {
    /// Listens on a free port of 127.0.0.1.
    ///
    /// # Panics
    /// If the machine has none.
    #[must_use]
    pub fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind 127.0.0.1:0");
        let addr = listener.local_addr().expect("an address");
        let kept = Arc::new(Kept::default());
        let accepting = Arc::clone(&kept);
        let accepting = std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if accepting.stop.load(Ordering::Acquire) {
                    return;
                }
                if let Ok(stream) = stream.try_clone() {
                    lock(&accepting.connections).push(stream);
                }
                let kept = Arc::clone(&accepting);
                std::thread::spawn(move || {
                    if let Err(error) = kept.serve(stream) {
                        lock(&kept.problems).push(error.to_string());
                    }
                });
            }
        });
        Self { addr, kept, accepting: Some(accepting) }
    }

    /// What `OTEL_EXPORTER_OTLP_ENDPOINT` takes for `http/protobuf`, without `/v1/traces`: `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// How many spans came so far.
    #[must_use]
    pub fn len(&self) -> usize {
        lock(&self.kept.spans).len()
    }

    /// Whether none came so far.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All that came so far.
    #[must_use]
    pub fn spans(&self) -> Vec<Span> {
        lock(&self.kept.spans).clone()
    }

    /// All that came so far; the next call does not yield them again.
    #[must_use]
    pub fn take(&self) -> Vec<Span> {
        std::mem::take(&mut *lock(&self.kept.spans))
    }

    /// What could not be read: requests that were refused, connections that broke off.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        lock(&self.kept.problems).clone()
    }

    /// Waits until as many spans are there; false where `limit` passes first.
    #[must_use]
    pub fn wait_for(&self, spans: usize, limit: Duration) -> bool {
        crate::wait_until(limit, || (self.len() >= spans).then_some(())).is_some()
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.kept.stop.store(true, Ordering::Release);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.addr);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
        for stream in lock(&self.kept.connections).drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Kept {
    fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        let mut reader = BufReader::with_capacity(1 << 16, stream.try_clone()?);
        while let Some(head) = Head::read(&mut reader)? {
            if head.expects {
                stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            }
            let body = head.body(&mut reader)?;
            let (status, text) = match self.take(&head, &body) {
                Ok(()) => ("200 OK", String::new()),
                Err(problem) => {
                    lock(&self.problems).push(problem.clone());
                    ("400 Bad Request", problem)
                }
            };
            // An empty ExportTraceServiceResponse is no bytes.
            let kind = if text.is_empty() { "application/x-protobuf" } else { "text/plain" };
            let length = text.len();
            let answer = format!("HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n{text}");
            // In one write: a second small one would wait for the peer's delayed acknowledgement.
            stream.write_all(answer.as_bytes())?;
            if head.closes {
                break;
            }
        }
        Ok(())
    }

    fn take(&self, head: &Head, body: &[u8]) -> Result<(), String> {
        if head.request != "POST /v1/traces" || !head.protobuf {
            return Err(format!("{}: only POST /v1/traces with application/x-protobuf is taken", head.request));
        }
        let mut plain = Vec::new();
        let body = if head.gzip {
            let mut limited = flate2::read::GzDecoder::new(body).take(MOST);
            limited.read_to_end(&mut plain).map_err(|error| format!("gzip: {error}"))?;
            &plain
        } else {
            body
        };
        let request = ExportTraceServiceRequest::decode(body).map_err(|error| format!("protobuf: {error}"))?;
        let mut spans = Vec::new();
        for of_resource in request.resource_spans {
            let resource = Arc::new(attributes(of_resource.resource.unwrap_or_default().attributes));
            for of_scope in of_resource.scope_spans {
                let scope: Arc<str> = of_scope.scope.unwrap_or_default().name.into();
                spans.extend(of_scope.spans.into_iter().map(|span| convert(span, &resource, &scope)));
            }
        }
        lock(&self.spans).append(&mut spans);
        Ok(())
    }
}

/// What of a request's head matters.
#[derive(Debug, Default)]
struct Head {
    /// Method and path.
    request: String,
    length: Option<u64>,
    chunked: bool,
    gzip: bool,
    protobuf: bool,
    expects: bool,
    closes: bool,
}

impl Head {
    /// None at the end of the connection.
    fn read(reader: &mut BufReader<TcpStream>) -> io::Result<Option<Self>> {
        let mut line = String::new();
        match reader.read_line(&mut line) {
            Ok(0) => return Ok(None),
            // An exporter that was killed, or our own end.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
            read => read?,
        };
        let request = line.trim_end().trim_end_matches(" HTTP/1.1").to_owned();
        let mut head = Self { request, ..Self::default() };
        loop {
            line.clear();
            if reader.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let Some((name, value)) = line.trim_end().split_once(':') else {
                return Ok(Some(head));
            };
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "content-length" => head.length = Some(value.parse().map_err(io::Error::other)?),
                "transfer-encoding" => head.chunked = value.eq_ignore_ascii_case("chunked"),
                "content-encoding" => head.gzip = value.eq_ignore_ascii_case("gzip"),
                "content-type" => head.protobuf = value.starts_with("application/x-protobuf"),
                "expect" => head.expects = true,
                "connection" => head.closes = value.eq_ignore_ascii_case("close"),
                _ => {}
            }
        }
    }

    fn body(&self, reader: &mut BufReader<TcpStream>) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        let mut next = |reader: &mut BufReader<TcpStream>, length: u64| {
            let short = || io::Error::from(io::ErrorKind::UnexpectedEof);
            if body.len() as u64 + length > MOST {
                return Err(io::Error::other("a body of more than 256 MiB"));
            }
            let read = reader.take(length).read_to_end(&mut body)?;
            (read as u64 == length).then_some(()).ok_or_else(short)
        };
        if !self.chunked {
            next(reader, self.length.unwrap_or(0))?;
            return Ok(body);
        }
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let size = u64::from_str_radix(line.trim().split(';').next().unwrap_or_default().trim(), 16);
            let size = size.map_err(io::Error::other)?;
            next(reader, size)?;
            line.clear();
            reader.read_line(&mut line)?;
            if size == 0 {
                return Ok(body);
            }
        }
    }
}

fn convert(span: Received, resource: &Arc<Attributes>, scope: &Arc<str>) -> Span {
    let kind = span.kind();
    let status = span.status.unwrap_or_default();
    let event = |event: span::Event| (event.name, event.time_unix_nano, attributes(event.attributes));
    Span {
        trace_id: hex(&span.trace_id),
        span_id: hex(&span.span_id),
        parent_span_id: (!span.parent_span_id.is_empty()).then(|| hex(&span.parent_span_id)),
        flags: span.flags,
        name: span.name,
        kind,
        start_ns: span.start_time_unix_nano,
        end_ns: span.end_time_unix_nano,
        attributes: attributes(span.attributes),
        events: span.events.into_iter().map(event).collect(),
        links: span.links.into_iter().map(link).collect(),
        error: status.code() == StatusCode::Error,
        status_message: status.message,
        resource: Arc::clone(resource),
        scope: Arc::clone(scope),
    }
}

fn link(link: span::Link) -> Link {
    Link { trace_id: hex(&link.trace_id), span_id: hex(&link.span_id), attributes: attributes(link.attributes) }
}

fn attributes(pairs: Vec<KeyValue>) -> Attributes {
    pairs.into_iter().map(|pair| (pair.key, pair.value.map_or(Value::Null, value))).collect()
}

fn value(any: AnyValue) -> Value {
    match any.value {
        None => Value::Null,
        Some(Any::StringValue(text)) => text.into(),
        Some(Any::BoolValue(truth)) => truth.into(),
        Some(Any::IntValue(number)) => number.into(),
        Some(Any::DoubleValue(number)) => number.into(),
        Some(Any::BytesValue(bytes)) => hex(&bytes).into(),
        Some(Any::ArrayValue(array)) => array.values.into_iter().map(value).collect(),
        Some(Any::KvlistValue(list)) => attributes(list.values).into_iter().collect(),
        Some(other) => format!("{other:?}").into(),
    }
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| char::from(DIGITS[usize::from(value & 15)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
    use opentelemetry_proto::tonic::resource::v1::Resource;
    use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Status};

    fn pair(key: &str, value: Any) -> KeyValue {
        KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
    }

    fn body(spans: impl Iterator<Item = u64>) -> Vec<u8> {
        let spans = spans.map(|n| Received {
            trace_id: [&[0xab; 8][..], &n.to_be_bytes()].concat(),
            span_id: n.to_be_bytes().to_vec(),
            parent_span_id: if n == 0 { Vec::new() } else { vec![1; 8] },
            name: "SELECT shop.products".to_owned(),
            kind: SpanKind::Client.into(),
            start_time_unix_nano: n,
            end_time_unix_nano: n + 5,
            attributes: (0..12)
                .map(|key| pair(&format!("key.{key}"), Any::StringValue("a value of some length".to_owned())))
                .chain([pair("rows", Any::IntValue(12))])
                .collect(),
            links: vec![span::Link { trace_id: vec![2; 16], span_id: vec![3; 8], ..span::Link::default() }],
            status: Some(Status { code: StatusCode::Error.into(), message: "23505".to_owned() }),
            ..Received::default()
        });
        let scope = InstrumentationScope { name: "a scope".to_owned(), ..InstrumentationScope::default() };
        let of_scope = ScopeSpans { scope: Some(scope), spans: spans.collect(), ..ScopeSpans::default() };
        let attributes = vec![pair("service.name", Any::StringValue("shop".to_owned()))];
        let resource = Resource { attributes, ..Resource::default() };
        let of_resource =
            ResourceSpans { resource: Some(resource), scope_spans: vec![of_scope], ..ResourceSpans::default() };
        ExportTraceServiceRequest { resource_spans: vec![of_resource] }.encode_to_vec()
    }

    const TYPE: &str = "content-type: application/x-protobuf\r\n";

    fn post(stream: &mut TcpStream, headers: &str, body: &[u8]) -> String {
        let head = format!("POST /v1/traces HTTP/1.1\r\nhost: x\r\n{headers}\r\n");
        stream.write_all(&[head.as_bytes(), body].concat()).expect("request");
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(reader.read_line(&mut head).expect("an answer"), 0, "{head}");
        }
        head
    }

    #[test]
    fn spans_come_by_length_by_chunks_and_in_gzip_with_all_they_carry() {
        let sink = Sink::start();
        let mut stream = TcpStream::connect(sink.addr).expect("connect");
        let plain = body([0, 7].into_iter());
        let answer = post(&mut stream, &format!("{TYPE}content-length: {}\r\n", plain.len()), &plain);
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");

        let (first, second) = plain.split_at(10);
        let size = format!("\r\n{:X}\r\n", second.len());
        let chunks = [b"a\r\n", first, size.as_bytes(), second, b"\r\n0\r\n\r\n"];
        post(&mut stream, &format!("{TYPE}transfer-encoding: chunked\r\n"), &chunks.concat());

        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&plain).expect("gzip");
        let gzip = gzip.finish().expect("gzip");
        let headers = format!("{TYPE}content-encoding: gzip\r\ncontent-length: {}\r\n", gzip.len());
        post(&mut stream, &headers, &gzip);

        assert_eq!((sink.len(), sink.problems()), (6, Vec::new()));
        let spans = sink.take();
        assert!(sink.is_empty());
        assert_eq!(spans[0..2], spans[2..4]);
        assert_eq!(spans[0..2], spans[4..6]);
        let span = &spans[1];
        assert_eq!((&*span.trace_id, &*span.span_id), ("abababababababab0000000000000007", "0000000000000007"));
        assert_eq!(
            (spans[0].parent_span_id.as_deref(), span.parent_span_id.as_deref()),
            (None, Some("0101010101010101"))
        );
        assert_eq!((span.kind, span.start_ns, span.end_ns), (SpanKind::Client, 7, 12));
        assert_eq!((span.int("rows"), span.text("key.3")), (Some(12), Some("a value of some length")));
        assert_eq!((span.links.len(), &*span.links[0].span_id), (1, "0303030303030303"));
        assert_eq!((span.error, &*span.status_message, &*span.scope), (true, "23505", "a scope"));
        assert_eq!(span.resource["service.name"], "shop");
    }

    #[test]
    fn what_is_no_export_of_traces_is_refused_and_told() {
        let sink = Sink::start();
        let mut stream = TcpStream::connect(sink.addr).expect("connect");
        for (headers, body) in
            [("content-length: 2\r\n", &b"{}"[..]), (&format!("{TYPE}content-length: 3\r\n"), b"\xff\xff\xff")]
        {
            let answer = post(&mut stream, headers, body);
            assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
            // The next request is on a connection of its own: the text of a refusal is not read here.
            stream = TcpStream::connect(sink.addr).expect("connect");
        }
        let problems = sink.problems();
        assert_eq!((problems.len(), sink.len()), (2, 0), "{problems:?}");
        assert!(problems[1].starts_with("protobuf: "), "{problems:?}");
    }

    #[test]
    fn a_hundred_thousand_spans_take_no_more_than_seconds() {
        let sink = Sink::start();
        let start = std::time::Instant::now();
        let mut stream = TcpStream::connect(sink.addr).expect("connect");
        let batch = body(0..1000);
        for _ in 0..100 {
            post(&mut stream, &format!("{TYPE}content-length: {}\r\n", batch.len()), &batch);
        }
        assert!(sink.wait_for(100_000, Duration::from_secs(30)));
        println!("100 000 spans in {:?}", start.elapsed());
    }
}
