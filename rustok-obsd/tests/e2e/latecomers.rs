//! Daemons that come late, see less, or lose records: what they tell is right, and what they cannot tell is counted.

use rustok_obsd::statement::Statement;
use test_support::{Child, Skip, SpanKind, Tls, skip, wait_until};

use super::{
    faults::or_skip,
    running::{LONG_PATIENCE, Metrics},
    scorecard::{Run, Score, offset_ns, report, score, score_of},
    serial,
    stage::{RING, Stage, WIRE_ALONE, calls, counted, differing, ours, since, told},
    truth::Request,
};

const OPERATIONS: &str = "rustok_obsd_database_operations_total";
const PROBLEMS: &str = "rustok_obsd_database_problems_total";
/// The pool's, and the narrow one's.
const CONNECTIONS: f64 = 6.0;
/// The load that the daemon comes into, and the one after it.
const BEFORE: u32 = 7;
const AFTER: u32 = 17;
/// The one between them, while what was lost is made good.
const SETTLING: u32 = 12;

fn examples(score: &Score) -> Vec<&String> {
    score.examples.iter().filter(|example| !example.starts_with("missing")).take(12).collect()
}

fn monotonic_ns() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock").as_nanos();
    u64::try_from(now.cast_signed() - offset_ns()).expect("a time")
}

/// Longer than the requests of a pipeline take, one after the other.
const LONGEST_PIPELINE_NS: u64 = 3_000_000_000;

/// The load asks for nothing more, and awaits what it asked for; the database is done with what it gave up, too.
fn ends_well(stage: &Stage, mut load: Child) {
    let status = load.stop(libc::SIGTERM, LONG_PATIENCE);
    assert!(status.is_some_and(|status| status.success()), "{status:?}: {}", load.log_tail());
    is_idle(stage);
}

/// The daemon comes while a load runs that has every connection and statement open. Yields the load, once the daemon has
/// seen so many operations of it, and when it came.
fn come(stage: &mut Stage, mix: &str, settings: &[&str], operations: u32) -> Result<(Child, u64), Skip> {
    stage.scene.postgres.count_statements()?;
    let load = stage.begin_load(mix, &BEFORE.to_string())?;
    stage.wait_for("the load to be under way", |stage| {
        (calls(&counted(&stage.scene)).values().sum::<u64>() > 10_000).then_some(())
    });
    stage.watch(settings)?;
    let watched_ns = monotonic_ns();
    stage.sees(f64::from(operations));
    Ok((load, watched_ns))
}

/// The requests that the load with this seed sent.
fn of(run: &Run, seed: u32) -> Run {
    let prefix = format!("{seed:x}-");
    let is = |request: &&Request| request.client_id.as_ref().is_some_and(|id| id.starts_with(&prefix));
    let truth = run.truth.iter().filter(is).cloned().collect();
    Run { spans: run.spans.clone(), truth, metrics: run.metrics.clone(), offset_ns: run.offset_ns }
}

/// The daemon starts while a load runs that has every connection and statement open; another load follows.
fn late(name: &'static str, tls: Tls, settings: &[&str]) -> Result<(Run, Metrics, Metrics, u64), Skip> {
    let mut stage = Stage::set("RUSTOK_OBSD_SHOP", tls)?;
    // Many more than have to be known of requests that begin from here on.
    let (load, watched_ns) = come(&mut stage, "causal", settings, 24_000)?;
    ends_well(&stage, load);
    let early = stage.metrics();
    stage.scene.postgres.count_statements()?;
    stage.load("database", 4000, 64, AFTER)?;
    let metrics = stage.metrics();
    let database = counted(&stage.scene);
    let run = stage.end();
    let added = since(&ours(&metrics, &run.truth), &ours(&early, &run.truth));
    let differing = differing(&added, &database);
    eprintln!("{name}\n{}\n-- later\n{}", told(&early), told(&metrics));
    assert!(differing.is_empty(), "{name}: {differing:#?}");
    Ok((run, early, metrics, watched_ns))
}

fn comes_late(name: &'static str, tls: Tls) -> Result<(), Skip> {
    let (run, early, metrics, watched_ns) = late(name, tls, &RING)?;
    let whole = score(&run);
    report(name, &whole);
    assert_eq!(whole.wrong, 0, "{:?}", examples(&whole));
    // Every request that came since, under the same load and on the same connections: but for a statement of each
    // connection to the database. The bytes of a pipelined request came before its handler began, by as much as those
    // before it in the pipeline took.
    let since = score_of(&run, |request| request.start_ns > watched_ns + LONGEST_PIPELINE_NS);
    report(&format!("{name}, requests since"), &since);
    assert!(since.queries > 5000, "{} queries", since.queries);
    assert!((since.unknown + since.missing) as f64 <= CONNECTIONS, "{:?}", examples(&since));
    // Everything on connections that it knows.
    let after = score(&of(&run, AFTER));
    report(&format!("{name}, after"), &after);
    assert_eq!((after.right, after.missing, after.unknown), (after.queries, 0, 0), "{:?}", examples(&after));
    // What is not known is counted as such: with its reason.
    let unknown = metrics.sum("rustok_obsd_database_parents_total", &[("parent", "unknown")]);
    let reasons: f64 = ["no_task", "no_spawn", "lossy", "connection", "shared_connection"]
        .iter()
        .map(|reason| metrics.sum(PROBLEMS, &[("problem", &format!("parent_unknown_{reason}"))]))
        .sum();
    assert_eq!(unknown, reasons, "{}", told(&metrics));
    assert!(whole.unknown as f64 <= unknown, "{unknown} counted: {:?}", examples(&whole));
    let operations = early.sum(OPERATIONS, &[]);
    assert!(unknown <= operations * 0.02 + 64.0, "{unknown} of {operations} are unknown: {}", told(&metrics));
    Ok(())
}

#[test]
fn a_daemon_that_comes_under_load_tells_nothing_wrong_over_tls() {
    let name = "a_daemon_that_comes_under_load_tells_nothing_wrong_over_tls";
    let _alone = serial();
    or_skip!(name, comes_late(name, Tls::On));
}

#[test]
fn a_daemon_that_comes_under_load_tells_nothing_wrong_in_clear_text() {
    let name = "a_daemon_that_comes_under_load_tells_nothing_wrong_in_clear_text";
    let _alone = serial();
    or_skip!(name, comes_late(name, Tls::Off));
}

/// Waits until the database is done: it counts a statement when that ends.
fn is_idle(stage: &Stage) {
    let sql = "SELECT count(*) FROM pg_stat_activity \
               WHERE pid <> pg_backend_pid() AND backend_type = 'client backend' AND state = 'active'";
    let idle = || (stage.scene.postgres.psql("postgres", sql).expect("psql") == "0").then_some(());
    assert!(wait_until(LONG_PATIENCE, idle).is_some(), "statements never end");
}

/// The database ends the connections; the pool opens others, and prepares again.
fn end_connections(stage: &Stage) {
    let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
               WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'";
    let ended: u32 = stage.scene.postgres.psql("postgres", sql).expect("psql").parse().expect("a number");
    assert!(ended >= 1);
}

/// Calls of statements whose text nobody saw.
fn unknown_calls(metrics: &Metrics) -> f64 {
    let fingerprint = format!("{:016x}", Statement::unknown().fingerprint);
    metrics.sum("rustok_obsd_statement_calls_total", &[("fingerprint", &fingerprint)])
}

#[test]
fn statements_that_were_prepared_before_are_reported_as_unknown_and_counted() {
    let name = "statements_that_were_prepared_before_are_reported_as_unknown_and_counted";
    let _alone = serial();
    let mut stage = or_skip!(name, Stage::set("RUSTOK_OBSD_SHOP", Tls::Off));
    let (load, _) = or_skip!(name, come(&mut stage, "database", &[&RING[..], &WIRE_ALONE].concat(), 4000));
    ends_well(&stage, load);
    let before = stage.metrics();
    let unknown = unknown_calls(&before);
    let text = told(&before);
    assert!(unknown > 100.0, "{unknown}: {text}");
    assert_eq!(before.sum(PROBLEMS, &[("problem", "unknown_statement")]), unknown, "{text}");
    // BEGIN, COMMIT and what is unprepared is known at once.
    assert!(before.sum("rustok_obsd_statement_calls_total", &[("statement", "COMMIT")]) > 10.0, "{text}");
    or_skip!(name, stage.scene.postgres.count_statements());
    or_skip!(name, stage.load("database", 1500, 16, 11));
    let still = stage.metrics();
    // All of them are calls, whether known or not.
    let all =
        still.sum("rustok_obsd_statement_calls_total", &[]) - before.sum("rustok_obsd_statement_calls_total", &[]);
    let database = calls(&counted(&stage.scene)).values().sum::<u64>();
    assert_eq!(all, database as f64, "{}", told(&still));
    end_connections(&stage);
    let settled = stage.metrics();
    or_skip!(name, stage.scene.postgres.count_statements());
    or_skip!(name, stage.load("database", 3000, 64, AFTER));
    let metrics = stage.metrics();
    let database = counted(&stage.scene);
    let run = stage.end();
    assert_eq!(unknown_calls(&metrics), unknown_calls(&settled), "{}", told(&metrics));
    let differing = differing(&since(&ours(&metrics, &run.truth), &ours(&settled, &run.truth)), &database);
    assert!(differing.is_empty(), "{differing:#?}\n{}", told(&metrics));
    let score = score(&run);
    report(name, &score);
    assert_eq!(score.wrong, 0, "{:?}", examples(&score));
}

#[test]
fn the_sockets_by_themselves_tell_every_statement_in_clear_text() {
    let name = "the_sockets_by_themselves_tell_every_statement_in_clear_text";
    let _alone = serial();
    let mut stage = or_skip!(name, Stage::set("RUSTOK_OBSD_SHOP", Tls::Off));
    or_skip!(name, stage.watch(&[&RING[..], &WIRE_ALONE].concat()));
    or_skip!(name, stage.scene.postgres.count_statements());
    or_skip!(name, stage.load("database", 4000, 64, BEFORE));
    let metrics = stage.metrics();
    let database = counted(&stage.scene);
    or_skip!(name, stage.load("causal", 4000, 64, AFTER));
    let run = stage.end();
    let score = score(&run);
    report(name, &score);
    eprintln!("{}", told(&Metrics(run.metrics.clone())));
    assert_eq!(score.wrong, 0, "{:?}", examples(&score));
    let differing = differing(&ours(&metrics, &run.truth), &database);
    assert!(differing.is_empty(), "{differing:#?}\n{}", told(&metrics));
    assert!(score.share(score.right) >= 99.9, "{:?}", score.examples.iter().take(20).collect::<Vec<_>>());
    let all = metrics.sum(OPERATIONS, &[]);
    assert!(all > 10_000.0 && metrics.sum(OPERATIONS, &[("sight", "wire")]) == all, "{}", told(&metrics));
}

fn without_symbols(name: &'static str, variable: &str, tls: Tls) -> Result<(), Skip> {
    let mut stage = Stage::stripped(variable, tls)?;
    // Its port tells nothing in a test: a server in the field is at 5432.
    let port = stage.scene.postgres.port().to_string();
    stage.watch(&[&RING[..], &["--database.ports", &port]].concat())?;
    stage.scene.postgres.count_statements()?;
    stage.load("database", 4000, 64, BEFORE)?;
    let metrics = stage.metrics();
    let database = counted(&stage.scene);
    stage.load("causal", 4000, 64, AFTER)?;
    let run = stage.end();
    let score = score(&run);
    report(name, &score);
    let text = told(&metrics);
    eprintln!("{text}");
    // Without tasks the score finds no query of a span, so that it proves nothing here. What does: all that could be
    // wrong is a request that a span names, and none names any.
    assert_eq!((score.wrong, score.right, score.missing), (0, 0, score.queries), "{:?}", examples(&score));
    let spans = run.spans.iter().filter(|span| span.kind == SpanKind::Client && span.text("db.system.name").is_some());
    let (mut told_of, mut claims) = (0, Vec::new());
    for span in spans {
        told_of += 1;
        if span.parent_span_id.is_some() || !span.links.is_empty() {
            claims.push(format!("{} {:?} {:?}", span.name, span.parent_span_id, span.links));
        }
    }
    assert!(
        told_of > 10_000 && claims.is_empty(),
        "{} of {told_of}: {:?}",
        claims.len(),
        claims.iter().take(9).collect::<Vec<_>>()
    );
    let all = metrics.sum(OPERATIONS, &[]);
    match tls {
        Tls::Off => {
            assert!(all > 10_000.0 && metrics.sum(OPERATIONS, &[("sight", "wire")]) == all, "{text}");
            let differing = differing(&ours(&metrics, &run.truth), &database);
            assert!(differing.is_empty(), "{differing:#?}\n{text}");
        }
        Tls::On => {
            assert!(all > 0.0 && metrics.sum(OPERATIONS, &[("sight", "opaque")]) == all, "{text}");
            // Of the last one of each connection nobody knows that it ended.
            let trips = metrics.sum(PROBLEMS, &[("problem", "opaque_round_trip")]);
            assert!((all..=all + CONNECTIONS).contains(&trips), "{text}");
            // Pings of the pool and preparations are round trips as well.
            let statements = calls(&database).values().sum::<u64>() as f64;
            assert!((statements..3.0 * statements).contains(&all), "{all} round trips, {statements} statements");
            let timed = metrics.sum("db_client_operation_duration_seconds_count", &[]);
            assert_eq!(timed, all, "all are timed: {text}");
        }
    }
    Ok(())
}

#[test]
fn without_symbols_nothing_is_told_wrong_over_tls_and_round_trips_are_counted() {
    let name = "without_symbols_nothing_is_told_wrong_over_tls_and_round_trips_are_counted";
    let _alone = serial();
    or_skip!(name, without_symbols(name, "RUSTOK_OBSD_SHOP", Tls::On));
}

#[test]
fn without_symbols_nothing_is_told_wrong_in_clear_text_and_statements_are_counted() {
    let name = "without_symbols_nothing_is_told_wrong_in_clear_text_and_statements_are_counted";
    let _alone = serial();
    or_skip!(name, without_symbols(name, "RUSTOK_OBSD_LEDGER", Tls::Off));
}

/// A ring that takes what the loads behind the loss make, however late it is read: a few KiB for each of 360 requests.
const SMALL_RING: [&str; 2] = ["--capture.ring-bytes", "8388608"];
/// Requests that make several times as much.
const FLOOD: u32 = 4000;
/// The seeds of each such load, while the daemon does not run.
const FLOODS: [u32; 3] = [23, 29, 31];
/// The pool's connections take turns.
const SETTLED: u32 = 60;
const REQUESTS: u32 = 300;

/// Requests that were answered.
fn answered(metrics: &Metrics) -> f64 {
    let sum = |labels| metrics.sum("rustok_http_requests_total", labels);
    sum(&[]) - sum(&[("status", "000")]) - sum(&[("path", "~lost")])
}

fn refused(metrics: &Metrics) -> f64 {
    metrics.sum("rustok_obsd_records_lost_total", &[("reason", "ring_full")])
}

/// Operations that were not seen as they were.
fn unseen(metrics: &Metrics) -> f64 {
    let problems = ["unbound", "lost_end", "unmatched_end", "unmatched_call"];
    problems.iter().map(|problem| metrics.sum(PROBLEMS, &[("problem", problem)])).sum::<f64>()
        + metrics.sum(OPERATIONS, &[("ending", "incomplete")])
        + metrics.sum(OPERATIONS, &[("ending", "cancelled")])
}

fn loses_records(name: &'static str, tls: Tls) -> Result<(), Skip> {
    let mut stage = Stage::set("RUSTOK_OBSD_SHOP", tls)?;
    stage.watch(&SMALL_RING)?;
    // The pool opens its connections anew while the ring is full, so that nobody sees their beginning.
    stage.daemon().child.signal(libc::SIGSTOP);
    let filled = stage.load("two", FLOOD, 64, FLOODS[0]);
    end_connections(&stage);
    // This goes on, so that requests, operations and connections reach across each loss.
    let load = stage.begin_load("causal", &BEFORE.to_string())?;
    for seed in &FLOODS[1..] {
        stage.daemon().child.signal(libc::SIGSTOP);
        let flooded = stage.load("causal", FLOOD, 64, *seed);
        stage.daemon().child.signal(libc::SIGCONT);
        flooded?;
        stage.sees(1.0);
    }
    filled?;
    ends_well(&stage, load);
    let recovered = stage.metrics_when("the end of the loss", |metrics| {
        refused(metrics) > 0.0 && metrics.sum("rustok_obsd_recovering", &[]) == 0.0
    });
    // Operations whose end was lost end when their connection serves again, and are counted then.
    stage.load("database", SETTLED, 1, SETTLING)?;
    let before = stage.metrics_when("the settling requests", |metrics| {
        answered(metrics) - answered(&recovered) >= f64::from(SETTLED)
    });
    // Everything is told again: on old connections to the database, and on those that were opened meanwhile.
    stage.scene.postgres.count_statements()?;
    stage.load("database", REQUESTS, 1, AFTER)?;
    let metrics =
        stage.metrics_when("the last requests", |metrics| answered(metrics) - answered(&before) >= f64::from(REQUESTS));
    let database = counted(&stage.scene);
    let run = stage.end();
    let whole = score(&run);
    report(&format!("{name} {tls:?}"), &whole);
    let text = format!("{}\n-- later\n{}", told(&before), told(&metrics));
    eprintln!("{text}");
    let wrong = whole.examples.iter().filter(|example| example.starts_with("wrong")).take(30).collect::<Vec<_>>();
    assert_eq!(whole.wrong, 0, "{wrong:#?}");
    assert!(answered(&recovered) < run.truth.len() as f64 - f64::from(SETTLED + REQUESTS), "nothing was lost: {text}");
    let after = score(&of(&run, AFTER));
    report(&format!("{name} {tls:?}, after"), &after);
    let others = since(&ours(&metrics, &run.truth), &ours(&before, &run.truth));
    let differing = differing(&others, &database);
    let examples = after.examples.iter().take(12).collect::<Vec<_>>();
    assert_eq!(
        (after.right, refused(&metrics)),
        (after.queries, refused(&recovered)),
        "{examples:?} {differing:#?}\n{text}"
    );
    assert!(differing.is_empty(), "{differing:#?}\n{text}");
    assert_eq!(unseen(&metrics), unseen(&before), "{text}");
    // Requests: as many as the server answered. One whose connection's close was lost ends without a status whenever its
    // socket serves again.
    assert_eq!(answered(&before) - answered(&recovered), f64::from(SETTLED), "{text}");
    assert_eq!(answered(&metrics) - answered(&before), f64::from(REQUESTS), "{text}");
    Ok(())
}

#[test]
fn a_daemon_that_loses_records_tells_nothing_wrong_and_is_itself_again() {
    let name = "a_daemon_that_loses_records_tells_nothing_wrong_and_is_itself_again";
    let _alone = serial();
    for tls in [Tls::On, Tls::Off] {
        or_skip!(name, loses_records(name, tls));
    }
}
