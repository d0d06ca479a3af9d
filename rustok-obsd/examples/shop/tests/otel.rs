//! `--otel` traces from inside: one server span per request, its statements below it.

use std::process::Command;
use std::time::Duration;

use test_support::{Child, Jaeger, Postgres, http_get_with, skip, wait_until};

#[test]
fn spans_of_a_request_and_its_statements_reach_jaeger_under_the_callers_trace() {
    let name = "spans_of_a_request_and_its_statements_reach_jaeger_under_the_callers_trace";
    let (postgres, jaeger) = match (Postgres::start(), Jaeger::start()) {
        (Ok(postgres), Ok(jaeger)) => (postgres, jaeger),
        (Err(reason), _) | (_, Err(reason)) => return skip(name, reason),
    };
    let mut command = Command::new(env!("CARGO_BIN_EXE_shop"));
    command
        .args(["--listen", "127.0.0.1:0", "--otel", &jaeger.otlp_grpc()])
        .env("DATABASE_URL", postgres.url("postgres"));
    let mut shop = Child::spawn("shop", &mut command).expect("start shop");
    let addr = shop
        .wait_for_line(Duration::from_secs(30), |line| line.strip_prefix("listening on http://")?.parse().ok())
        .expect("shop listens");

    let trace_id = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = format!("00-{trace_id}-00f067aa0ba902b7-01");
    let path = format!("/api/commerce/products/{}", shop::seed::product_id(0, 7));
    let (status, ..) = http_get_with(addr, &path, &[("traceparent", &parent)]).expect("an answer");
    assert_eq!(status, 200);
    // Its end sends the last batch.
    let status = shop.stop(libc::SIGTERM, Duration::from_secs(15));
    assert!(status.is_some_and(|status| status.success()), "{}", shop.log_tail());

    let trace = wait_until(Duration::from_secs(10), || {
        Some(jaeger.trace(trace_id)).filter(|trace| trace[0]["spans"].is_array())
    })
    .expect("the trace is in Jaeger");
    let spans = trace[0]["spans"].as_array().expect("spans");
    let named = |name: &str| -> Vec<_> { spans.iter().filter(|span| span["operationName"] == name).collect() };
    let server = named("GET /api/commerce/products/{id}");
    assert_eq!((server.len(), named("db.query").len()), (1, 2), "{trace:#}");
    assert_eq!(server[0]["references"][0]["spanID"], "00f067aa0ba902b7");
    for query in named("db.query") {
        assert_eq!(query["references"][0]["spanID"], server[0]["spanID"]);
    }
}
