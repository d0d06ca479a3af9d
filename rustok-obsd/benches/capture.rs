//! What a request costs the capture thread: decoding, pairing, route, queries, recorder. Tracing is measured by its own room.

#[path = "../tests/capture/traffic.rs"]
#[expect(dead_code, reason = "the tests look at more of it")]
mod traffic;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use traffic::{Queries, Traffic};

fn capture(c: &mut Criterion) {
    let mut group = c.benchmark_group("capture");
    const REQUESTS: usize = 1000;
    group.throughput(Throughput::Elements(REQUESTS as u64));
    for (name, queries) in [
        ("keep-alive GET with an axum route", Queries::None),
        ("the same with two queries over TLS and the driver's calls", Queries::Tls),
        ("the same with two queries in clear text", Queries::Clear),
        ("the same with two queries in clear text and the driver's calls", Queries::ClearWithCalls),
    ] {
        let mut traffic = Traffic::with(queries);
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|iterations| {
                let mut spent = std::time::Duration::ZERO;
                for _ in 0..iterations {
                    traffic.prepare(REQUESTS);
                    let start = std::time::Instant::now();
                    traffic.run();
                    spent += start.elapsed();
                }
                spent
            });
        });
    }
    group.finish();
}

criterion_group!(benches, capture);
criterion_main!(benches);
