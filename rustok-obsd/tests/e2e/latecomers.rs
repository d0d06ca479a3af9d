//! Daemons that come late, see less, or lose records: what they tell is right, and what they cannot tell is counted.

use std::time::Duration;

use rustok_obsd::statement::Statement;
use test_support::{Child, Skip, SpanKind, Tls, skip};

use super::{
    faults::or_skip,
    running::{Metrics, PATIENCE},
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

fn ends_well(load: &mut Child) {
    assert!(load.wait(PATIENCE).is_some_and(|status| status.success()), "{}", load.log_tail());
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
    let mut load = stage.begin_load("causal", "6s", &BEFORE.to_string())?;
    std::thread::sleep(Duration::from_secs(2));
    stage.watch(settings)?;
    let watched_ns = monotonic_ns();
    ends_well(&mut load);
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
    // Every request that began since, under the same load and on the same connections: but for a statement of each
    // connection to the database.
    let since = score_of(&run, |request| request.start_ns > watched_ns);
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
    let mut load = or_skip!(name, stage.begin_load("database", "5s", &BEFORE.to_string()));
    std::thread::sleep(Duration::from_secs(2));
    or_skip!(name, stage.watch(&[&RING[..], &WIRE_ALONE].concat()));
    ends_well(&mut load);
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
    // The database ends the connections; the pool opens others, and prepares again.
    let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
               WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'";
    let ended: u32 = stage.scene.postgres.psql("postgres", sql).expect("psql").parse().expect("a number");
    assert!(ended >= 1);
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

#[test]
fn a_daemon_that_loses_records_tells_nothing_wrong_and_is_itself_again() {
    let name = "a_daemon_that_loses_records_tells_nothing_wrong_and_is_itself_again";
    let _alone = serial();
    for tls in [Tls::On, Tls::Off] {
        let mut stage = or_skip!(name, Stage::set("RUSTOK_OBSD_SHOP", tls));
        or_skip!(name, stage.watch(&["--capture.ring-bytes", "65536"]));
        let mut load = or_skip!(name, stage.begin_load("causal", "4s", &BEFORE.to_string()));
        std::thread::sleep(Duration::from_secs(1));
        for _ in 0..3 {
            stage.daemon().child.signal(libc::SIGSTOP);
            std::thread::sleep(Duration::from_millis(200));
            stage.daemon().child.signal(libc::SIGCONT);
            std::thread::sleep(Duration::from_millis(300));
        }
        ends_well(&mut load);
        // Whether a connection is within a transaction is unknown until one ends on it: a slow machine may have lost the
        // very last ones. The pool's connections take turns.
        or_skip!(name, stage.load("database", 60, 1, SETTLING));
        let before = stage.metrics();
        let lost = before.sum("rustok_obsd_records_lost_total", &[("reason", "ring_full")]);
        assert!(lost > 0.0, "nothing was lost: {}", told(&before));
        // Below what the ring can take, everything is told again: on old connections to the database, and new ones.
        or_skip!(name, stage.scene.postgres.count_statements());
        or_skip!(name, stage.load("database", 300, 1, AFTER));
        let metrics = stage.metrics();
        let database = counted(&stage.scene);
        let run = stage.end();
        let whole = score(&run);
        report(&format!("{name} {tls:?}"), &whole);
        eprintln!("{}\n-- later\n{}", told(&before), told(&metrics));
        let wrong = whole.examples.iter().filter(|example| example.starts_with("wrong")).take(30).collect::<Vec<_>>();
        assert_eq!(whole.wrong, 0, "{wrong:#?}");
        assert_eq!(metrics.sum("rustok_obsd_records_lost_total", &[("reason", "ring_full")]), lost);
        let after = score(&of(&run, AFTER));
        report(&format!("{name} {tls:?}, after"), &after);
        assert_eq!(after.right, after.queries, "{:?}", after.examples.iter().take(12).collect::<Vec<_>>());
        let differing = differing(&since(&ours(&metrics, &run.truth), &ours(&before, &run.truth)), &database);
        assert!(differing.is_empty(), "{differing:#?}");
        // Requests: as many as the server answered, once nothing is lost. One whose connection's close was lost ends
        // without a status whenever its socket serves again.
        let answered = |metrics: &Metrics| {
            let sum = |labels| metrics.sum("rustok_http_requests_total", labels);
            sum(&[]) - sum(&[("status", "000")])
        };
        assert_eq!(answered(&metrics) - answered(&before), 300.0);
        assert!(answered(&before) < run.truth.len() as f64, "{} by the server", run.truth.len());
    }
}
