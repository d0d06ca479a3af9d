//! What users see of databases: the tree of a request in Jaeger, and the panels of the shipped dashboard.

use std::collections::BTreeMap;

use serde_json::Value;
use test_support::{Jaeger, Skip, Tls, skip, wait_until};

use super::{
    daemon::assert_dashboard_has_data,
    faults::or_skip,
    running::PATIENCE,
    serial,
    stage::{RING, Stage},
    truth::Request,
};

const PRODUCT: &str = "/api/commerce/products/{id}";
const TRANSACTION: &str = "/api/causal/transaction/{id}";
const DETACHED: &str = "/api/causal/detached/{id}";

/// A span as Jaeger's API tells it.
#[derive(Debug)]
struct Seen<'a> {
    id: &'a str,
    trace: &'a str,
    name: &'a str,
    start_us: u64,
    end_us: u64,
    /// `CHILD_OF` and `FOLLOWS_FROM`: trace and span.
    references: Vec<(&'a str, &'a str, &'a str)>,
    tags: BTreeMap<&'a str, &'a Value>,
}

impl Seen<'_> {
    fn is(&self, kind: &str) -> bool {
        self.tags.get("span.kind").is_some_and(|told| *told == kind)
    }

    fn is_child_of(&self, span: &str) -> bool {
        self.references.iter().any(|(kind, _, of)| *kind == "CHILD_OF" && *of == span)
    }
}

/// The spans of traces, earliest first.
fn spans(traces: &Value) -> Vec<Seen<'_>> {
    fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
        value[key].as_array().into_iter().flatten()
    }
    let mut all: Vec<Seen<'_>> = traces
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|trace| list(trace, "spans"))
        .map(|span| {
            let start_us = span["startTime"].as_u64().unwrap_or_default();
            Seen {
                id: span["spanID"].as_str().unwrap_or_default(),
                trace: span["traceID"].as_str().unwrap_or_default(),
                name: span["operationName"].as_str().unwrap_or_default(),
                start_us,
                end_us: start_us + span["duration"].as_u64().unwrap_or_default(),
                references: list(span, "references")
                    .filter_map(|to| Some((to["refType"].as_str()?, to["traceID"].as_str()?, to["spanID"].as_str()?)))
                    .collect(),
                tags: list(span, "tags").filter_map(|tag| Some((tag["key"].as_str()?, &tag["value"]))).collect(),
            }
        })
        .collect();
    all.sort_by_key(|span| span.start_us);
    all
}

/// The tree of one request: server, wait for the pool, queries in their order.
fn assert_tree(jaeger: &Jaeger, request: &Request, operations: &[&str]) {
    let id = request.trace_id.as_deref().expect("a traceparent");
    let mut traces = Value::Null;
    wait_until(PATIENCE, || {
        traces = jaeger.trace(id);
        (spans(&traces).iter().filter(|span| span.is("client")).count() >= operations.len()).then_some(())
    });
    let spans = spans(&traces);
    let told = format!("{request:?}\n{spans:#?}");
    let servers: Vec<_> = spans.iter().filter(|span| span.is("server")).collect();
    let [server] = servers[..] else { panic!("one server span is due: {told}") };
    assert_eq!(server.name, format!("{} {}", request.method, request.label()));
    assert_eq!(server.tags["rustok_obsd.database.queries"], &Value::from(operations.len()), "{told}");
    let queries: Vec<_> = spans.iter().filter(|span| span.is("client")).collect();
    let names: Vec<_> = queries.iter().filter_map(|span| span.tags["db.operation.name"].as_str()).collect();
    assert_eq!(names, operations, "{told}");
    let waits: Vec<_> = spans.iter().filter(|span| span.name == "pool wait").collect();
    assert!(!waits.is_empty() && waits.len() <= operations.len(), "{told}");
    assert_eq!(spans.len(), 1 + queries.len() + waits.len(), "{told}");
    for span in queries.iter().chain(&waits) {
        assert!(span.is_child_of(server.id), "{told}");
        // Microseconds are cut off.
        assert!(span.start_us >= server.start_us && span.end_us <= server.end_us + 2, "{told}");
    }
    // The first of all is a wait, which ends where the first query begins.
    let (wait, query) = (waits[0], queries[0]);
    assert!(wait.start_us <= query.start_us && wait.end_us.abs_diff(query.start_us) <= 2, "{told}");
    assert!(waits.iter().any(|wait| wait.end_us - wait.start_us > 100), "nobody waited: {told}");
    for query in &queries {
        assert_eq!(query.tags["db.system.name"], "postgresql", "{told}");
        assert!(query.tags["db.query.text"].as_str().is_some_and(|text| !text.is_empty()), "{told}");
    }
}

fn of<'a>(truth: &'a [Request], route: &'a str) -> impl Iterator<Item = &'a Request> {
    // The first ones may be before contention.
    truth.iter().filter(move |request| request.label() == route && !request.aborted).skip(20)
}

fn run(name: &str) -> Result<(), Skip> {
    let jaeger = Jaeger::start()?;
    let mut stage = Stage::set("RUSTOK_OBSD_SHOP", Tls::On)?;
    stage.export_to(jaeger.otlp_http());
    stage.watch(&RING)?;
    let prometheus = stage.daemon().prometheus().map_err(|reason| skip(&format!("{name} (Prometheus)"), reason));
    stage.load("causal", 3000, 64, 17)?;
    if let Ok(prometheus) = prometheus {
        assert_dashboard_has_data(&prometheus, &stage.metrics().0, true);
    }
    let truth = stage.end().truth;
    for request in of(&truth, PRODUCT).take(5) {
        assert_tree(&jaeger, request, &["SELECT", "SELECT"]);
    }
    for request in of(&truth, TRANSACTION).take(5) {
        assert_tree(&jaeger, request, &["BEGIN", "SELECT", "UPDATE", "INSERT", "COMMIT"]);
    }
    // Work that outlived its response is in traces of its own, and points to the request.
    let mut linked = 0;
    let traces = jaeger.traces("staged", 50_000);
    let all = spans(&traces);
    for request in of(&truth, DETACHED).take(10) {
        let id = request.trace_id.as_deref().expect("a traceparent");
        let server = all.iter().find(|span| span.is("server") && span.trace == id).expect("its server span");
        let inside = all.iter().filter(|span| span.is("client") && span.trace == id).count();
        let points = |span: &&Seen<'_>| span.references.contains(&("FOLLOWS_FROM", id, server.id));
        let late: Vec<_> = all.iter().filter(points).collect();
        assert_eq!((inside, late.len()), (request.queries.len(), request.late.len()), "{request:?}\n{late:#?}");
        assert!(late.iter().all(|span| span.trace != id && span.end_us > server.end_us), "{server:?} {late:#?}");
        linked += late.len();
    }
    assert!(linked >= 10, "{linked}");
    Ok(())
}

#[test]
fn a_request_is_a_tree_in_jaeger_and_the_dashboards_panels_of_databases_have_data() {
    let name = "a_request_is_a_tree_in_jaeger_and_the_dashboards_panels_of_databases_have_data";
    let _alone = serial();
    or_skip!(name, run(name));
}
