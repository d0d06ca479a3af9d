//! Spans of operations: every attribute, every parent, and what sampling leaves out.

use super::*;
use crate::config::{Endpoint, Sampler, Traces};
use crate::database::{Parent, System};
use crate::exchange::TraceParent;
use crate::trace::span::Conventions;
use crate::trace::{Decision, TargetKey, Tracer, Tracing};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// A statement as the others make it.
pub fn statement() -> Arc<Statement> {
    Arc::new(Statement {
        text: "SELECT * FROM shop.products WHERE id = ?".into(),
        summary: "SELECT shop.products".into(),
        operation: "SELECT".into(),
        collection: Some("shop.products".into()),
        fingerprint: 0xff,
        knowledge: Knowledge::Whole,
    })
}

const PARENT: TraceIds = TraceIds { trace_id: [7; 16], span_id: [8; 8] };

fn operation<'a>(statement: &'a Arc<Statement>, namespace: Option<&'a Arc<str>>) -> Operation<'a> {
    Operation {
        statement,
        sight: Sight::SeaOrm,
        system: System::Postgresql,
        task: 77,
        tid: 4242,
        parent: Parent::Request(1),
        parent_span: Some(PARENT),
        call_ns: 1_000_000,
        start_ns: 3_000_000,
        send_ns: 3_100_000,
        first_ns: 4_100_000,
        end_ns: 5_000_000,
        rows: Some(3),
        ending: Ending::Complete,
        sqlstate: None,
        addresses: Some(("10.0.0.1:50000".parse().unwrap(), "[::ffff:10.0.0.9]:5432".parse().unwrap())),
        namespace,
    }
}

fn span_as(operation: &Operation<'_>, relation: Relation) -> SpanData {
    let ids = TraceIds { trace_id: [1; 16], span_id: [2; 8] };
    let record = QueryRecord::new(ids, relation, Arc::new(TargetResource::unknown()), operation);
    record.span(&Clock::new(), &Conventions::new(&[]).scope)
}

fn span(operation: &Operation<'_>) -> SpanData {
    span_as(operation, Relation::Root)
}

fn get(span: &SpanData, key: &str) -> Option<Value> {
    let found: Vec<_> = span.attributes.iter().filter(|pair| pair.key.as_str() == key).collect();
    assert!(found.len() < 2, "{key} twice");
    found.first().map(|pair| pair.value.clone())
}

#[test]
fn a_query_carries_the_conventions_attributes_and_no_others() {
    let (statement, namespace) = (statement(), "shop".into());
    let span = span(&operation(&statement, Some(&namespace)));
    assert_eq!(
        (&*span.name, &span.span_kind, &span.status),
        ("SELECT shop.products", &SpanKind::Client, &Status::Unset)
    );
    assert_eq!(span.end_time.duration_since(span.start_time).unwrap(), Duration::from_millis(2));
    let expected: Vec<(&str, Value)> = vec![
        ("db.system.name", "postgresql".into()),
        ("db.query.text", "SELECT * FROM shop.products WHERE id = ?".into()),
        ("db.query.summary", "SELECT shop.products".into()),
        ("db.operation.name", "SELECT".into()),
        ("db.collection.name", "shop.products".into()),
        ("db.namespace", "shop".into()),
        ("db.response.returned_rows", 3.into()),
        ("server.address", "10.0.0.9".into()),
        ("server.port", 5432.into()),
        ("network.peer.address", "10.0.0.9".into()),
        ("network.peer.port", 5432.into()),
        ("thread.id", 4242.into()),
        (TASK_ID, 77.into()),
        (SIGHT, "sea_orm".into()),
        (FINGERPRINT, "00000000000000ff".into()),
        (POOL_WAIT, 0.002.into()),
        (TIME_TO_FIRST_BYTE, 0.001.into()),
    ];
    for (key, value) in &expected {
        assert_eq!(get(&span, key).as_ref(), Some(value), "{key}");
    }
    assert_eq!(span.attributes.len(), expected.len(), "{:?}", span.attributes);
}

#[test]
fn what_is_not_known_is_not_told() {
    let statement = Arc::new(Statement {
        text: "".into(),
        summary: "".into(),
        operation: "".into(),
        collection: None,
        fingerprint: 0,
        knowledge: Knowledge::Opaque,
    });
    let bare = Operation {
        sight: Sight::Opaque,
        system: System::Postgresql,
        task: 0,
        call_ns: 0,
        start_ns: 0,
        first_ns: 0,
        rows: None,
        addresses: None,
        ..operation(&statement, None)
    };
    let span = span(&bare);
    let keys: Vec<&str> = span.attributes.iter().map(|pair| pair.key.as_str()).collect();
    assert_eq!(keys, ["db.system.name", KNOWLEDGE, "thread.id", SIGHT]);
    assert_eq!((get(&span, KNOWLEDGE), &*span.name), (Some("opaque".into()), "postgresql"));
    assert_eq!(span.end_time.duration_since(span.start_time).unwrap(), Duration::from_nanos(1_900_000), "from sending");
    let lost = QueryRecord::new(
        PARENT,
        Relation::Root,
        Arc::new(TargetResource::unknown()),
        &Operation { send_ns: 0, ..bare },
    );
    assert_eq!((lost.start_ns, lost.end_ns), (5_000_000, 5_000_000));
    // The fallbacks of the conventions for the name.
    let shop: Arc<str> = "shop".into();
    for (namespace, addresses, name) in [
        (Some(&shop), operation(&statement, None).addresses, "shop"),
        (None, Some(("10.0.0.1:1".parse().unwrap(), "10.0.0.9:5432".parse().unwrap())), "10.0.0.9:5432"),
    ] {
        assert_eq!(tests::span(&Operation { addresses, namespace, ..bare }).name, name);
    }
}

#[test]
fn statements_are_told_as_far_as_they_are_known() {
    for (knowledge, told, text) in [
        (Knowledge::Whole, None, true),
        (Knowledge::Truncated, Some("truncated"), true),
        (Knowledge::Unknown, Some("unknown"), false),
        (Knowledge::Opaque, Some("opaque"), false),
    ] {
        let statement = Arc::new(Statement { knowledge, ..Statement::clone(&statement()) });
        let span = span(&operation(&statement, None));
        assert_eq!(get(&span, KNOWLEDGE), told.map(Value::from), "{knowledge:?}");
        for key in ["db.query.text", "db.query.summary", FINGERPRINT] {
            assert_eq!(get(&span, key).is_some(), text, "{knowledge:?} {key}");
        }
    }
    for (sight, told) in
        [(Sight::SeaOrm, "sea_orm"), (Sight::Sqlx, "sqlx"), (Sight::Wire, "wire"), (Sight::Opaque, "opaque")]
    {
        assert_eq!(get(&span(&Operation { sight, ..operation(&statement(), None) }), SIGHT), Some(told.into()));
    }
    for (name, affected) in [("SELECT", false), ("INSERT", true), ("UPDATE", true), ("DELETE", true), ("WITH", false)] {
        let statement = Arc::new(Statement { operation: name.into(), ..Statement::clone(&statement()) });
        let span = span(&operation(&statement, None));
        assert_eq!(get(&span, AFFECTED_ROWS).is_some(), affected, "{name}");
        assert_eq!(get(&span, "db.response.returned_rows").is_some(), !affected, "{name}");
    }
}

#[test]
fn endings_and_sqlstates_set_the_status() {
    for (ending, sqlstate, error, outcome) in [
        (Ending::Complete, None, None, None),
        (Ending::Failed, Some(*b"23505"), Some("23505"), None),
        (Ending::Failed, None, Some("_OTHER"), None),
        (Ending::Failed, Some(*b"\xff\xfe123"), Some("_OTHER"), None),
        (Ending::Cancelled, None, None, Some("cancelled")),
        (Ending::Incomplete, None, None, Some("incomplete")),
    ] {
        let span = span(&Operation { ending, sqlstate, ..operation(&statement(), None) });
        assert_eq!(get(&span, "error.type"), error.map(Value::from), "{ending:?} {sqlstate:?}");
        assert_eq!(span.status, if error.is_some() { Status::error("") } else { Status::Unset }, "{ending:?}");
        assert_eq!(get(&span, DATABASE_OUTCOME), outcome.map(Value::from), "{ending:?}");
        let code = (sqlstate == Some(*b"23505")).then(|| Value::from("23505"));
        assert_eq!(get(&span, "db.response.status_code"), code, "{ending:?}");
    }
}

#[test]
fn a_child_has_its_parent_a_linked_one_a_link_and_a_root_neither() {
    let statement = statement();
    let operation = operation(&statement, None);
    let child = span_as(&operation, Relation::Child(PARENT));
    assert_eq!((child.parent_span_id, child.parent_span_is_remote), (SpanId::from_bytes([8; 8]), false));
    assert!(child.links.is_empty());
    let linked = span_as(&operation, Relation::Linked(PARENT));
    assert_eq!((linked.parent_span_id, linked.links.len()), (SpanId::INVALID, 1));
    assert_eq!(linked.links[0].span_context, context(PARENT));
    assert!(linked.links[0].span_context.is_sampled());
    let root = span_as(&operation, Relation::Root);
    assert_eq!((root.parent_span_id, root.links.len()), (SpanId::INVALID, 0));
}

/// A tracer whose spans wait in the queue, and its counters.
fn tracer(sampler: Sampler, arg: f64) -> (Tracing, Tracer) {
    let settings = Traces {
        endpoint: Some(Endpoint { url: "http://127.0.0.1:1".into(), exact: false }),
        schedule_delay: Duration::from_secs(600),
        sampler,
        sampler_arg: arg,
        ..Traces::default()
    };
    let tracing = Tracing::start(&settings).unwrap().unwrap();
    let tracer = tracing.tracer();
    (tracing, tracer)
}

#[test]
fn an_operation_goes_with_its_request_and_stands_alone_without_one() {
    let statement = statement();
    let plain = Operation { call_ns: 0, ..operation(&statement, None) };
    for (sampler, roots) in [(Sampler::AlwaysOn, true), (Sampler::AlwaysOff, false)] {
        let (tracing, mut tracer) = tracer(sampler, 1.0);
        let counters = tracing.counters();
        let mut offer =
            |parent, parent_span| tracer.offer_operation(TargetKey(1), &Operation { parent, parent_span, ..plain });
        // The request decided, whatever a root would be.
        let child = offer(Parent::Request(1), Some(PARENT)).unwrap();
        assert!(child.trace_id == PARENT.trace_id && child.span_id != PARENT.span_id);
        let linked = offer(Parent::Linked(1), Some(PARENT)).unwrap();
        assert!(linked.trace_id != PARENT.trace_id && linked.trace_id != [0; 16]);
        assert_eq!(offer(Parent::Request(1), None), None);
        assert_eq!(offer(Parent::Linked(1), None), None);
        for parent in [Parent::Background, Parent::Unknown] {
            let ids = offer(parent, None);
            assert_eq!(ids.is_some(), roots, "{sampler:?} {parent:?}");
            // A span that is no evidence is not a parent.
            assert_ne!(offer(parent, Some(PARENT)).map(|ids| ids.trace_id), Some(PARENT.trace_id));
        }
        let (offered, unsampled) = (counters.offered.load(Relaxed), counters.unsampled.load(Relaxed));
        assert_eq!((offered, unsampled), (8, if roots { 2 } else { 6 }), "{sampler:?}");
    }
}

#[test]
fn roots_are_sampled_by_the_ratio() {
    let statement = statement();
    let (tracing, mut tracer) = tracer(Sampler::ParentBasedTraceIdRatio, 0.25);
    let root = Operation { parent: Parent::Background, parent_span: None, ..operation(&statement, None) };
    let kept = (0..4000).filter(|_| tracer.offer_operation(TargetKey(1), &root).is_some()).count();
    // Seven standard deviations.
    assert!((800..1200).contains(&kept), "{kept}");
    assert_eq!(tracing.counters().read().unsampled, 4000 - kept as u64);
}

#[test]
fn a_long_wait_of_a_request_is_a_span_beside_the_query_and_counted() {
    let statement = statement();
    let long = operation(&statement, None);
    for (wait_ns, parent, spans) in [
        (POOL_WAIT_SPAN, Parent::Request(1), 1),
        (POOL_WAIT_SPAN + 1, Parent::Request(1), 2),
        (POOL_WAIT_SPAN + 1, Parent::Linked(1), 1),
        (POOL_WAIT_SPAN + 1, Parent::Background, 1),
    ] {
        let (tracing, mut tracer) = tracer(Sampler::AlwaysOn, 1.0);
        let operation = Operation { call_ns: long.start_ns - wait_ns, parent, ..long };
        assert!(tracer.offer_operation(TargetKey(1), &operation).is_some());
        assert_eq!(tracing.counters().read().offered, spans, "{wait_ns} {parent:?}");
    }
    let record =
        WaitRecord::new(TraceIds { span_id: [9; 8], ..PARENT }, PARENT, Arc::new(TargetResource::unknown()), &long);
    let span = record.span(&Clock::new(), &Conventions::new(&[]).scope);
    assert_eq!((&*span.name, &span.span_kind), ("pool wait", &SpanKind::Internal));
    assert_eq!(span.parent_span_id, SpanId::from_bytes(PARENT.span_id));
    assert_eq!(span.span_context.trace_id().to_bytes(), PARENT.trace_id);
    assert_eq!(span.end_time.duration_since(span.start_time).unwrap(), Duration::from_millis(2));
    assert_eq!(record.end_ns, long.start_ns, "where the query begins");
    for (key, value) in [
        ("db.system.name", Value::from("postgresql")),
        ("server.address", "10.0.0.9".into()),
        ("server.port", 5432.into()),
        ("thread.id", 4242.into()),
        (TASK_ID, 77.into()),
    ] {
        assert_eq!(get(&span, key), Some(value), "{key}");
    }
    assert_eq!(span.attributes.len(), 5);
}

const POOL_WAIT_SPAN: u64 = crate::trace::POOL_WAIT_SPAN_NS;

#[test]
fn what_the_queue_does_not_take_is_counted_span_by_span() {
    let settings = Traces {
        endpoint: Some(Endpoint { url: "http://127.0.0.1:1".into(), exact: false }),
        schedule_delay: Duration::from_secs(600),
        queue_size: 5,
        batch_size: 5,
        timeout: Duration::from_millis(100),
        ..Traces::default()
    };
    let tracing = Tracing::start(&settings).unwrap().unwrap();
    let (counters, mut tracer) = (tracing.counters(), tracing.tracer());
    let statement = statement();
    for _ in 0..500 {
        tracer.offer_operation(TargetKey(1), &operation(&statement, None));
    }
    drop(tracer);
    tracing.shutdown(Duration::from_secs(2));
    let counts = counters.read();
    assert_eq!((counts.offered, counts.exported, counts.dropped()), (1000, 0, 1000), "{counts:?}");
    assert!(counts.dropped_queue_full > 0, "{counts:?}");
}

#[test]
fn a_target_that_fills_the_queue_leaves_room_for_the_spans_of_another() {
    let settings = Traces {
        endpoint: Some(Endpoint { url: "http://127.0.0.1:1".into(), exact: false }),
        schedule_delay: Duration::from_secs(600),
        queue_size: 100,
        batch_size: 100,
        timeout: Duration::from_millis(100),
        ..Traces::default()
    };
    let tracing = Tracing::start(&settings).unwrap().unwrap();
    let (counters, mut tracer) = (tracing.counters(), tracing.tracer());
    for key in [1, 2] {
        tracer.add_target(TargetKey(key), Arc::new(TargetResource::unknown()));
    }
    let long = Arc::new(Statement::analyse(
        format!("SELECT {} FROM t", "a, ".repeat(3000)).as_bytes(),
        false,
        crate::statement::Dialect::POSTGRES,
    ));
    fn root(statement: &Arc<Statement>) -> Operation<'_> {
        Operation { parent: Parent::Background, parent_span: None, ..operation(statement, None) }
    }
    let taken = (0..10_000).filter(|_| tracer.offer_operation(TargetKey(1), &root(&long)).is_some()).count();
    assert!(taken <= 30, "the queue has room for a hundred short spans: {taken}");
    let short = statement();
    let taken = (0..20).filter(|_| tracer.offer_operation(TargetKey(2), &root(&short)).is_some()).count();
    assert_eq!(taken, 20);
    let meter = tracer.meter();
    assert!(meter.used() > 0 && meter.refused() == counters.read().dropped_queue_full, "{meter:?}");
    drop(tracer);
    tracing.shutdown(Duration::from_secs(2));
    assert_eq!(meter.used(), 0);
}

#[test]
fn a_request_is_decided_once_whether_before_its_end_or_at_it() {
    let exchange = super::super::tests::exchange();
    let addresses = super::super::tests::addresses();
    let caller = |flags| TraceParent { trace_id: [3; 16], parent_id: [4; 8], flags };
    let (tracing, mut tracer) = tracer(Sampler::ParentBasedTraceIdRatio, 0.5);
    // A decision made again would often be another one.
    for _ in 0..100 {
        let ids = tracer.begin(TargetKey(1), None);
        let ended = crate::exchange::Exchange { ids: ids.into(), ..exchange };
        assert_eq!(tracer.offer(TargetKey(1), &ended, None, addresses), ids);
    }
    let counts = tracing.counters().read();
    assert_eq!(counts.offered, 100, "the beginning is no offer");
    assert!((20..80).contains(&counts.unsampled), "{counts:?}");
    let kept = tracer.begin(TargetKey(1), Some(&caller(1))).unwrap();
    assert_eq!(kept.trace_id, [3; 16]);
    assert_eq!(tracer.begin(TargetKey(1), Some(&caller(0))), None);
    assert_eq!(Decision::from(None), Decision::Unsampled);
    assert_eq!(Decision::from(Some(kept)).ids(), Some(kept));
    assert_eq!((Decision::Undecided.ids(), Decision::default()), (None, Decision::Undecided));
}
