//! The causal test of every server, included by each server's own tests: the ground truth against what is due.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use example_common::causal::{self, Outcome};
use example_common::load::mix::Mix;
use example_common::load::report::{self, Log, Logged, Summary};
use example_common::load::{Options, run};
use example_common::sql;
use example_common::truth::{self, Record};
use test_support::{Child, Postgres, Skip};

/// What a run left.
struct Run {
    summary: Summary,
    log: Vec<Logged>,
    records: Vec<Record>,
}

/// Starts `program` on a database, sends `requests` of a mix after `started`, and ends it in order.
fn observe(postgres: &Postgres, program: &str, mix: Mix, requests: u64, started: impl FnOnce()) -> Run {
    let folder = tempfile::tempdir().expect("temporary folder");
    let (truth_file, log_file) = (folder.path().join("truth.jsonl"), folder.path().join("log.jsonl"));
    let mut command = Command::new(program);
    command
        .args(["--listen", "127.0.0.1:0", "--workers", "2", "--pool", "5", "--ground-truth"])
        .arg(&truth_file)
        .env("DATABASE_URL", postgres.url("postgres"));
    let mut server = Child::spawn("server", &mut command).expect("start the server");
    let addr = server
        .wait_for_line(Duration::from_secs(30), |line| line.strip_prefix("listening on http://")?.parse().ok())
        .expect("the server listens");
    started();
    let options = Options { addr, concurrency: 32, requests: Some(requests), duration: None, rate: None, seed: 3, mix };
    let summary = load(&options, &log_file);
    let status = server.stop(libc::SIGTERM, Duration::from_secs(25)).expect("SIGTERM ends it");
    assert!(status.success(), "{status}: {}", server.log_tail());
    let log = report::read(&log_file).expect("the client's log");
    let (records, end) = truth::read(&truth_file).expect("the ground truth");
    assert_eq!((end.dropped, end.records), (0, records.len() as u64));
    assert_eq!(end.late, records.iter().map(|record| record.late.len() as u64).sum::<u64>());
    assert_eq!((summary.errors, summary.first_error.as_deref()), (0, None));
    Run { summary, log, records }
}

fn load(options: &Options, log: &Path) -> Summary {
    let log = Log::create(log).expect("create the log");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(run(options, Some(log))).expect("load")
}

/// Every request ran the statements that its route is due to run, in the tasks in which it is due to.
pub fn causality_is_as_due(program: &str) -> Result<(), Skip> {
    let run = observe(&Postgres::start()?, program, Mix::Causal, 3000, || {});
    assert_eq!(run.summary.requests + run.summary.aborted, 3000);
    let routes = causal::routes();
    let logged: HashMap<&str, &Logged> = run.log.iter().map(|logged| (&*logged.id, logged)).collect();
    let (mut checked, mut outcomes) = (BTreeMap::new(), BTreeMap::new());
    for record in &run.records {
        let logged = logged[record.client_id.as_deref().expect("an x-request-id")];
        assert!(record.trace_id.is_some() && record.trace_id == logged.trace_id, "{record:?} {logged:?}");
        assert_eq!(record.route, logged.route);
        if causal::check(record, &routes).unwrap_or_else(|error| panic!("{error}")) {
            *checked.entry(record.route.clone()).or_insert(0) += 1;
        } else {
            assert!(record.aborted && logged.aborted, "{record:?}");
        }
        for query in &record.queries {
            assert!(record.start_ns <= query.start_ns && query.end_ns <= record.end_ns, "{record:?}");
        }
        for query in record.all_queries() {
            assert!(query.task.is_some() && query.start_ns <= query.end_ns, "{record:?}");
            let route = record.route.as_deref().unwrap_or_default();
            *outcomes.entry((route, query.cancelled)).or_insert(0) += 1;
        }
        assert!(record.late.iter().all(|query| query.end_ns >= record.end_ns), "{record:?}");
        assert!(record.late.is_empty() || record.route.as_deref() == Some("/api/causal/detached/{id}"), "{record:?}");
    }
    // The slow one alone is always given up; some have another method of the same path.
    let paths: BTreeSet<&str> = routes.iter().map(|route| route.route).collect();
    assert_eq!(checked.len(), paths.len() - 1, "{checked:?}");
    // Where the machine is late a statement may be done before it is cancelled.
    let cancelled = |route: &str| {
        let [done, cancelled] = [false, true].map(|cancelled| outcomes.get(&(route, cancelled)).copied().unwrap_or(0));
        (done, cancelled)
    };
    assert!(cancelled("/api/causal/slow/{ms}").1 > 5, "{outcomes:?}");
    for route in routes.iter().filter(|route| route.statements.iter().any(|due| due.outcome == Outcome::Cancelled)) {
        assert!(cancelled(route.route).1 > 0, "{route:?} {outcomes:?}");
    }
    let late = run.records.iter().map(|record| record.late.len()).sum::<usize>();
    assert!(late > 50, "{late}");
    Ok(())
}

/// The ground truth has as many statements of each kind as the database itself counted.
pub fn statements_are_those_that_the_database_counted(program: &str) -> Result<(), Skip> {
    let postgres = Postgres::start()?;
    postgres.count_statements()?;
    let run = observe(&postgres, program, Mix::Database, 2000, || postgres.count_statements().expect("a reset"));
    assert_eq!((run.summary.requests, run.summary.aborted), (2000, 0));
    let mut noted: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for query in run.records.iter().flat_map(Record::all_queries) {
        assert!(!query.cancelled && !query.error && !query.by_pool, "{query:?}");
        let (calls, rows) = noted.entry(&query.sql).or_default();
        *calls += 1;
        // `execute_unprepared` and `execute` of a SELECT count differently from server to server.
        *rows += if query.sql == sql::READY || query.sql == sql::COUNT_TENANTS { 1 } else { query.rows };
    }
    // Constants are parameters to the database, numbered behind those that there are.
    let literal = BTreeMap::from([
        (sql::READY, "SELECT $1".to_owned()),
        (sql::TAKE, sql::TAKE.replace("- 1", "- $2")),
        (sql::OUTBOX, sql::OUTBOX.replace("'stock.changed'", "$3").replace("'pending'", "$4")),
    ]);
    let noted: BTreeMap<_, _> = noted
        .into_iter()
        .map(|(sql, count)| (literal.get(sql).cloned().unwrap_or_else(|| sql.to_owned()), count))
        .collect();
    let statements = postgres.statements().expect("pg_stat_statements");
    let counted: BTreeMap<_, _> =
        statements.into_iter().map(|statement| (statement.query, (statement.calls, statement.rows))).collect();
    assert_eq!(noted, counted);
    Ok(())
}
