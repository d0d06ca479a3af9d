//! The scorecard: the share of queries whose request is told right, not told, and told wrong, against the server's own
//! account; with TLS to the database and without, on sea-orm and on plain sqlx.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    time::Duration,
};

use test_support::{Sink, Skip, SpanKind, Tls, skip};

use super::{
    daemon::Daemon,
    faults::or_skip,
    scene::{Scene, program},
    serial,
    truth::{Query, Request},
};

/// The name under which a test reports.
type Name = &'static str;

/// What came of the queries of one run.
#[derive(Debug, Default)]
pub struct Score {
    pub queries: usize,
    pub right: usize,
    pub unknown: usize,
    pub wrong: usize,
    /// Spans that belong to no query of the server's account.
    pub strange: usize,
    /// Queries of the server's account without a span.
    pub missing: usize,
    /// Queries that were given up before they were sent.
    pub unsent: usize,
    pub examples: Vec<String>,
    /// The spans without a query, by name.
    pub others: BTreeMap<String, usize>,
}

impl Score {
    pub fn share(&self, count: usize) -> f64 {
        100.0 * count as f64 / self.queries.max(1) as f64
    }
}

/// One run: what the daemon told, and what the server wrote down.
pub struct Run {
    pub spans: Vec<test_support::Span>,
    pub truth: Vec<Request>,
    pub metrics: String,
    /// Wall clock minus monotonic clock.
    pub offset_ns: i128,
}

pub fn offset_ns() -> i128 {
    let read = |clock| {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: writes one timespec that lives here.
        unsafe { libc::clock_gettime(clock, &raw mut time) };
        i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
    };
    read(libc::CLOCK_REALTIME) - read(libc::CLOCK_MONOTONIC)
}

/// Observes a server under a load of this mix.
pub fn observe(server: &Path, tls: Tls, mix: &str, requests: u32, late: bool) -> Result<Run, Skip> {
    let mut scene = Scene::start_binary(server, tls)?;
    let sink = Sink::start();
    let exe = server.display().to_string();
    let endpoint = sink.endpoint();
    let environment = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "500000"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4096"),
    ];
    let arguments = ["--exe", exe.as_str(), "--capture.ring-bytes", "67108864"];
    let number = requests.to_string();
    let load = ["--mix", mix, "--requests", number.as_str(), "--concurrency", "64"];
    let mut before = None;
    if late {
        // Connections to the database are open, and their statements prepared, before anybody watches.
        before = Some(scene.load(&["--mix", mix, "--requests", "2000", "--concurrency", "64", "--seed", "7"])?);
    }
    let mut daemon = Daemon::start(&arguments, &environment)?;
    daemon.wait_for_targets(1)?;
    scene.load(&load)?;
    drop(before);
    // The server waits for its detached work.
    let truth = scene.finish();
    let metrics = daemon.settled();
    let status = daemon.child.stop(libc::SIGTERM, Duration::from_secs(20)).expect("SIGTERM ends the daemon");
    assert!(status.success(), "{}", daemon.child.log_tail());
    assert!(sink.problems().is_empty(), "{:?}", sink.problems());
    Ok(Run { spans: sink.take(), truth, metrics, offset_ns: offset_ns() })
}

/// A span that begins so far outside of a call is not its own.
const NEAR_NS: i128 = 1_000_000;
const TASK: &str = "rustok_obsd.tokio.task.id";

/// Compares the parents of all queries with the server's account.
pub fn score(run: &Run) -> Score {
    score_of(run, |_| true)
}

/// The same for some requests: spans are told apart with all of them in view, and these alone count.
pub fn score_of(run: &Run, counts: impl Fn(&Request) -> bool) -> Score {
    let mut score = Score::default();
    let mut by_task: HashMap<u64, Vec<(&Query, &Request)>> = HashMap::new();
    for request in &run.truth {
        for query in request.all_queries().filter(|query| !query.by_pool) {
            score.queries += usize::from(counts(request));
            by_task.entry(query.task.unwrap_or(0)).or_default().push((query, request));
        }
    }
    // In the order of their times, and how long the longest took: a task may have had thousands.
    let by_task: HashMap<u64, (Vec<_>, u64)> = by_task
        .into_iter()
        .map(|(task, mut queries)| {
            queries.sort_by_key(|(query, _)| query.start_ns);
            let longest = queries.iter().map(|(query, _)| query.end_ns - query.start_ns).max().unwrap_or(0);
            (task, (queries, longest))
        })
        .collect();
    // A server span is its request's where the trace is the one that the client began.
    let servers: HashMap<&str, &str> = run
        .spans
        .iter()
        .filter(|span| span.kind == SpanKind::Server)
        .map(|span| (span.trace_id.as_str(), span.span_id.as_str()))
        .collect();
    let mut strange: BTreeMap<String, usize> = BTreeMap::new();
    let mut told: HashMap<*const Query, usize> = HashMap::new();
    for span in run.spans.iter().filter(|span| span.kind == SpanKind::Client && span.text("db.system.name").is_some()) {
        let task = span.int(TASK).map_or(0, i64::cast_unsigned);
        let (start, end) = (i128::from(span.start_ns) - run.offset_ns, i128::from(span.end_ns) - run.offset_ns);
        // How far outside of the call the span begins: the two clocks differ by some microseconds.
        let outside = |query: &Query| {
            let (from, to) = (i128::from(query.start_ns), i128::from(query.end_ns));
            (from - start).max(start - to).max(0)
        };
        let operation = span.text("db.operation.name").unwrap_or_default();
        let table = span.text("db.collection.name").unwrap_or_default();
        let is = |query: &Query| {
            outside(query) < NEAR_NS && {
                let sql = query.sql.trim_start().replace('"', "");
                sql.to_uppercase().starts_with(operation) && sql.contains(table)
            }
        };
        let candidates = by_task.get(&task).map_or(&[][..], |(queries, longest)| {
            let until = queries.partition_point(|(query, _)| i128::from(query.start_ns) < start + NEAR_NS);
            let from = start - NEAR_NS - i128::from(*longest);
            &queries[queries[..until].partition_point(|(query, _)| i128::from(query.start_ns) < from)..until]
        });
        // Several at once in one task are of one request, but each is told once. Requests follow each other in the task
        // of their connection within microseconds: the nearest counts.
        let free = candidates.iter().filter(|(query, _)| is(query));
        let Some((query, request)) = free.min_by_key(|(query, _)| {
            let times = told.get(&std::ptr::from_ref(*query)).copied().unwrap_or(0);
            // The call returns right behind the answer's last byte.
            (outside(query) / 20_000, times, (end - i128::from(query.end_ns)).abs())
        }) else {
            // The pool's own work, and what the server did not write down: migrations, type look-ups.
            score.strange += 1;
            *strange.entry(span.name.clone()).or_default() += 1;
            continue;
        };
        *told.entry(std::ptr::from_ref(*query)).or_default() += 1;
        if !counts(request) {
            continue;
        }
        let expected = request.trace_id.as_deref().unwrap_or("none");
        let parent = span.parent_span_id.as_deref();
        let child = parent.is_some() && servers.get(span.trace_id.as_str()).copied() == parent;
        let linked = span.links.first().map(|link| link.trace_id.as_str());
        let claimed = if child { Some(span.trace_id.as_str()) } else { linked };
        match claimed {
            Some(trace) if trace == expected => score.right += 1,
            Some(trace) => {
                score.wrong += 1;
                score.examples.push(format!("wrong: {} of {} ({expected}) told as {trace}", query.sql, request.path));
            }
            None => {
                score.unknown += 1;
                score.examples.push(format!("unknown: {} of {} in task {task}", query.sql, request.path));
            }
        }
    }
    score.others = strange;
    for (queries, _) in by_task.values() {
        for (query, request) in queries {
            if told.contains_key(&std::ptr::from_ref(*query)) || !counts(request) {
                continue;
            }
            // A statement that was given up while it waited for the pool was never sent.
            if query.cancelled {
                score.unsent += 1;
                score.queries -= 1;
            } else {
                score.missing += 1;
                score.examples.push(format!("missing: {} of {} in task {:?}", query.sql, request.path, query.task));
            }
        }
    }
    score
}

pub fn report(name: &str, score: &Score) {
    eprintln!(
        "{name}: {} queries, {:.3} % right, {:.3} % unknown, {:.3} % wrong; {} missing, {} never sent, {} others",
        score.queries,
        score.share(score.right),
        score.share(score.unknown),
        score.share(score.wrong),
        score.missing,
        score.unsent,
        score.strange,
    );
    eprintln!("    others: {:?}", score.others);
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for example in &score.examples {
        let kind = example.split(" in task").next().unwrap_or(example);
        *kinds.entry(kind.rsplit_once('/').map_or(kind, |(kind, _)| kind)).or_default() += 1;
    }
    for (example, count) in kinds.iter().take(12) {
        eprintln!("    {count} × {example}");
    }
}

fn run_one(name: Name, variable: &str, tls: Tls) -> Result<Score, Skip> {
    let run = observe(&program(variable)?, tls, "causal", 18_000, false)?;
    let score = score(&run);
    report(name, &score);
    let lines = run.metrics.lines().filter(|line| {
        !line.starts_with('#')
            && !line.ends_with(" 0")
            && ["database_problems", "database_parents", "database_operations", "records_lost"]
                .iter()
                .any(|part| line.contains(part))
    });
    for line in lines {
        eprintln!("    {line}");
    }
    assert!(score.queries >= 50_000, "{name}: only {} queries", score.queries);
    assert_eq!(score.wrong, 0, "{name}: {:?}", score.examples.iter().take(20).collect::<Vec<_>>());
    assert!(score.share(score.right) >= 99.9, "{name}: {score:?}", score = score.share(score.right));
    Ok(score)
}

macro_rules! scorecards {
    ($($name:ident: $server:literal, $tls:ident;)*) => {
        $(#[test]
        fn $name() {
            let name = stringify!($name);
            let _alone = serial();
            or_skip!(name, run_one(name, $server, Tls::$tls));
        })*
    };
}

scorecards! {
    every_query_of_sea_orm_over_tls_is_told_with_its_request: "RUSTOK_OBSD_SHOP", On;
    every_query_of_sea_orm_in_clear_text_is_told_with_its_request: "RUSTOK_OBSD_SHOP", Off;
    every_query_of_plain_sqlx_over_tls_is_told_with_its_request: "RUSTOK_OBSD_LEDGER", On;
    every_query_of_plain_sqlx_in_clear_text_is_told_with_its_request: "RUSTOK_OBSD_LEDGER", Off;
    every_query_of_sqlx_0_9_over_tls_is_reported_with_its_request: "RUSTOK_OBSD_LEDGER_SQLX09", On;
    every_query_of_sqlx_0_9_in_clear_text_is_reported_with_its_request: "RUSTOK_OBSD_LEDGER_SQLX09", Off;
    every_query_of_sea_orm_2_over_tls_is_reported_with_its_request: "RUSTOK_OBSD_SHOP_SEAORM2", On;
    every_query_of_sea_orm_2_in_clear_text_is_reported_with_its_request: "RUSTOK_OBSD_SHOP_SEAORM2", Off;
}
