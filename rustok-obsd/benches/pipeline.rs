//! User-space cost of an exchange: parsing alone, naming alone, and all of it from the captured bytes to the name.
//!
//! Goal: a million exchanges a second on one core, so 1 µs for `pipeline`.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rustok_obsd::exchange::{Exchange, HttpConnection, Io, Method, RoutesExact, Shared, Side, Wanted};
use rustok_obsd::protocol::http1::{Buffers, Parser, Piece, Request, Response, Step};
use rustok_obsd::route::{Patterns, Route, RouteNamer, Source};
use std::hint::black_box;
use std::sync::Arc;

/// What `curl` or a service's client sends.
const SMALL: &[u8] = b"GET /api/content/nodes/4711?fields=title HTTP/1.1\r\nHost: shop.example:5150\r\n\
User-Agent: reqwest/0.12\r\nAccept: */*\r\nX-Tenant-ID: default\r\n\r\n";

/// What a browser sends.
const BROWSER: &[u8] = b"GET /en/shop/products/4711 HTTP/1.1\r\nHost: shop.example\r\nConnection: keep-alive\r\n\
Cache-Control: max-age=0\r\nsec-ch-ua: \"Chromium\";v=\"142\", \"Not.A/Brand\";v=\"99\"\r\nsec-ch-ua-mobile: ?0\r\n\
sec-ch-ua-platform: \"Linux\"\r\nUpgrade-Insecure-Requests: 1\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) \
AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36\r\nAccept: text/html,application/xhtml+xml,\
application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\nSec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: navigate\r\n\
Sec-Fetch-User: ?1\r\nSec-Fetch-Dest: document\r\nReferer: https://shop.example/en/shop\r\n\
Accept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en-US,en;q=0.9\r\n\
Cookie: session=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.x; tenant=default\r\n\
traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\r\n";

/// What axum answers.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 27\r\n\
date: Mon, 23 Nov 2026 12:00:00 GMT\r\n\r\n{\"id\":4711,\"title\":\"Hello\"}";

fn io(time_ns: u64, data: &[u8]) -> Io<'_> {
    Io { time_ns, ready_ns: time_ns, task: 7, tid: 7, len: data.len(), data, tail: b"", lost: 0 }
}

fn parser(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parser");
    let mut buffers = Buffers::default();
    for (name, head) in [("small request", SMALL), ("browser request", BROWSER)] {
        group.throughput(Throughput::Bytes(head.len() as u64));
        group.bench_function(name, |bencher| {
            let mut parser = Parser::<Request>::new();
            bencher.iter(|| match parser.next(&mut Piece::Bytes(black_box(head)), Method::Other, &mut buffers) {
                Step::Head(head) => head.path.len(),
                other => panic!("{other:?}"),
            });
        });
    }
    group.throughput(Throughput::Bytes(ANSWER.len() as u64));
    group.bench_function("response", |bencher| {
        let mut parser = Parser::<Response>::new();
        bencher.iter(|| {
            let mut piece = Piece::Bytes(black_box(ANSWER));
            while !piece.is_empty() {
                black_box(parser.next(&mut piece, Method::Get, &mut buffers));
            }
        });
    });
    group.finish();
}

/// Exchanges of one connection, as the capture delivers them.
fn pipeline(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pipeline");
    group.throughput(Throughput::Elements(1));
    let axum: Arc<str> = "/api/content/nodes/{id}".into();
    let learned = || RouteNamer::new(Patterns::default(), RouteNamer::DEFAULT_CAP);
    let tenant = Wanted { tenant: "X-Tenant-ID".into(), fields: Vec::new() };
    let listed = Wanted { fields: ["x-request-id", "user-agent", "referer"].map(Into::into).into(), ..tenant.clone() };
    for (name, head, cut, route, wanted) in [
        ("small request, route of axum", SMALL, 0, Some(&axum), None),
        ("small request, route learned", SMALL, 0, None, None),
        ("small request in two records", SMALL, 24, Some(&axum), None),
        ("browser request", BROWSER, 0, Some(&axum), None),
        ("browser request in two records", BROWSER, 24, Some(&axum), None),
        ("small request, tenant wanted", SMALL, 0, Some(&axum), Some(&tenant)),
        ("browser request, tenant wanted", BROWSER, 0, Some(&axum), Some(&tenant)),
        ("browser request, tenant and three headers wanted", BROWSER, 0, Some(&axum), Some(&listed)),
    ] {
        let mut shared = Shared::wanting(wanted.cloned().unwrap_or_default());
        let mut namer = learned();
        let exact = if route.is_some() { RoutesExact::ALWAYS } else { RoutesExact::NEVER };
        let mut connection = HttpConnection::new(Some(Side::Server), false, exact);
        let mut time_ns = 0;
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                time_ns += 10;
                let mut sink = |exchange: &Exchange<'_>| _ = black_box(namer.name(exchange));
                if cut > 0 {
                    connection.on_receive(&io(time_ns, black_box(&head[..cut])), &mut shared, &mut sink);
                }
                connection.on_receive(&io(time_ns + 1, black_box(&head[cut..])), &mut shared, &mut sink);
                if let Some(route) = route {
                    connection.on_route(route, &mut shared);
                }
                connection.on_send(&io(time_ns + 2, black_box(ANSWER)), &mut shared, &mut sink);
            });
        });
    }
    // New connections all the time, one exchange each.
    let mut shared = Shared::default();
    let mut namer = learned();
    group.bench_function("small request, a connection each", |bencher| {
        bencher.iter(|| {
            let mut connection = HttpConnection::new(Some(Side::Server), false, RoutesExact::ALWAYS);
            let mut sink = |exchange: &Exchange<'_>| _ = black_box(namer.name(exchange));
            connection.on_receive(&io(1, black_box(SMALL)), &mut shared, &mut sink);
            connection.on_send(&io(2, black_box(ANSWER)), &mut shared, &mut sink);
            connection.on_close(3, &mut shared, &mut sink);
        });
    });
    group.finish();
}

fn naming(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("naming");
    group.throughput(Throughput::Elements(1));
    let axum = Route { template: "/api/content/nodes/{id}".into(), source: Source::Axum };
    let patterns = ["/api/content/nodes/{id}", "/api/commerce/products/{id}", "/api/{*rest}"];
    for (name, patterns, route) in
        [("axum", &[][..], Some(&axum)), ("pattern", &patterns[..], None), ("learned", &[][..], None)]
    {
        let mut namer = RouteNamer::new(Patterns::new(patterns).expect("valid"), RouteNamer::DEFAULT_CAP);
        let mut shared = Shared::default();
        let mut connection = HttpConnection::new(Some(Side::Server), false, RoutesExact::NEVER);
        // An exchange to name: its fields come from a real one.
        connection.on_receive(&io(1, SMALL), &mut shared, &mut |_| {});
        connection.on_send(&io(2, ANSWER), &mut shared, &mut |exchange| {
            let exchange = Exchange { route, ..*exchange };
            group.bench_function(name, |bencher| {
                bencher.iter(|| namer.name(black_box(&exchange)));
            });
        });
    }
    group.finish();
}

criterion_group!(benches, parser, pipeline, naming);
criterion_main!(benches);
