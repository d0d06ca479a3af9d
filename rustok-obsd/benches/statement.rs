//! Cost of a statement on the wire: pairing its messages, and finding what its text is.
//!
//! Goal: both together well below 1 µs, so that a request with two queries stays within its budget.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rustok_obsd::exchange::Io;
use rustok_obsd::exchange::postgres::{PostgresConnection, Shared, WireEvent, WireSql};
use rustok_obsd::statement::{Dialect, Statement, StatementCache};
use std::hint::black_box;

/// As sea-orm writes it.
const SELECT: &str = r#"SELECT "products"."id", "products"."tenant_id", "products"."title", "products"."status", "products"."created_at" FROM "shop"."products" LEFT JOIN "shop"."prices" ON "products"."id" = "prices"."product_id" WHERE "products"."tenant_id" = $1 AND "products"."status" IN ($2, $3, $4) ORDER BY "products"."created_at" DESC LIMIT $5 OFFSET $6"#;

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind][..], &(body.len() as u32 + 4).to_be_bytes(), body].concat()
}

fn io(time_ns: u64, data: &[u8]) -> Io<'_> {
    Io { time_ns, ready_ns: 0, task: 7, tid: 7, len: data.len(), data, tail: b"", lost: 0 }
}

fn statement(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("statement");
    group.throughput(Throughput::Bytes(SELECT.len() as u64));
    group.bench_function("cache hit", |bencher| {
        let mut cache = StatementCache::default();
        bencher.iter(|| cache.get(black_box(SELECT.as_bytes()), false, Dialect::POSTGRES).fingerprint);
    });
    group.bench_function("analysis", |bencher| {
        bencher.iter(|| Statement::analyse(black_box(SELECT.as_bytes()), false, Dialect::POSTGRES).fingerprint);
    });
    group.bench_function("analysis by every reading", |bencher| {
        bencher.iter(|| Statement::analyse(black_box(SELECT.as_bytes()), false, Dialect::ANY).fingerprint);
    });
    group.bench_function("cache miss with eviction", |bencher| {
        let mut cache = StatementCache::new(64, 1 << 20);
        let texts: Vec<_> = (0..256).map(|number| format!("{SELECT} -- {number}")).collect();
        let mut next = texts.iter().cycle();
        bencher.iter(|| next.next().map(|text| cache.get(text.as_bytes(), false, Dialect::POSTGRES).fingerprint));
    });
    group.finish();
}

fn exchange(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("postgres");
    group.throughput(Throughput::Elements(1));
    let sync = message(b'S', b"");
    let parse = message(b'P', &[b"sqlx_s_1\0", SELECT.as_bytes(), b"\0\0\0"].concat());
    let prepare = [parse, message(b'D', b"Ssqlx_s_1\0"), sync.clone()].concat();
    let ready = message(b'Z', b"I");
    let prepared = [message(b'1', b""), message(b't', &[0; 2]), message(b'T', &[0; 200]), ready.clone()].concat();
    let bind = message(b'B', &[&b"\0sqlx_s_1\0"[..], &[0; 90]].concat());
    let ask = [bind, message(b'E', &[0; 5]), message(b'C', b"P\0"), sync].concat();
    for rows in [1, 20] {
        let tag = message(b'C', b"SELECT 1\0");
        let answer =
            [message(b'2', b""), message(b'D', &[0; 120]).repeat(rows), tag, message(b'3', b""), ready.clone()]
                .concat();
        for (name, cached) in [("paired", false), ("paired, and its statement found", true)] {
            let mut shared = Shared::default();
            let mut connection = PostgresConnection::new(true, &shared);
            let mut cache = StatementCache::default();
            connection.on_send(&io(1, &prepare), &mut shared, &mut |_| {});
            connection.on_receive(&io(2, &prepared), &mut shared, &mut |_| {});
            let mut time_ns = 2;
            let mut ended = 0_u64;
            group.bench_function(format!("query of {rows} rows, {name}"), |bencher| {
                bencher.iter(|| {
                    time_ns += 2;
                    let mut sink = |event: WireEvent<'_>| match event {
                        WireEvent::Begin { sql: WireSql::Text { sql, truncated }, .. } if cached => {
                            black_box(cache.get(sql, truncated, Dialect::POSTGRES));
                        }
                        WireEvent::End { .. } => ended += 1,
                        _ => {}
                    };
                    connection.on_send(&io(time_ns, black_box(&ask)), &mut shared, &mut sink);
                    connection.on_receive(&io(time_ns + 1, black_box(&answer)), &mut shared, &mut sink);
                });
            });
            assert!(ended > 0 && shared.stats.ended == ended);
        }
    }
    group.finish();
}

criterion_group!(benches, statement, exchange);
criterion_main!(benches);
