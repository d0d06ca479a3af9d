//! Four times, {sea-orm, plain sqlx} × {TLS, clear text}: what the daemon counts, what the database counts, and what the
//! server itself noted are the same.

use std::collections::BTreeMap;

use test_support::{Skip, SpanKind, Tls, skip};

use super::{
    faults::or_skip,
    running::Metrics,
    scorecard::{Run, report, score},
    serial,
    stage::{Counts, RING, Stage, Table, counted, differing, fold, label, noted, ours, since, told},
    truth::Request,
};

/// Where the bytes do not tell rows, they are learned by shape: so many operations at most have none (`ENOUGH` in
/// `src/database/account.rs`, and some until these have shown different numbers).
const ROWLESS: usize = 32;
/// The requests of each phase carry its seed in their names.
const BUSY: u32 = 17;
const LONE: u32 = 5;
const TROUBLED: u32 = 23;

/// One of the four runs.
struct Account {
    what: String,
    run: Run,
    /// `/metrics` and the database's account after the busy, the lone and the troubled phase.
    metrics: Vec<Metrics>,
    counted: Vec<Table>,
}

impl Account {
    fn take(variable: &str, tls: Tls) -> Result<Self, Skip> {
        let mut stage = Stage::set(variable, tls)?;
        stage.watch(&RING)?;
        stage.scene.postgres.count_statements()?;
        let (mut metrics, mut accounts) = (Vec::new(), Vec::new());
        for (mix, requests, concurrency, seed) in
            [("database", 5000, 64, BUSY), ("database", 800, 1, LONE), ("causal", 3000, 64, TROUBLED)]
        {
            stage.load(mix, requests, concurrency, seed)?;
            metrics.push(stage.metrics());
            accounts.push(counted(&stage.scene));
        }
        let what = format!("{} {tls:?}", variable.rsplit('_').next().unwrap_or_default());
        Ok(Self { what, run: stage.end(), metrics, counted: accounts })
    }

    /// The requests of a phase.
    fn of(&self, seed: u32) -> impl Iterator<Item = &Request> {
        let prefix = format!("{seed:x}-");
        self.run
            .truth
            .iter()
            .filter(move |request| request.client_id.as_ref().is_some_and(|id| id.starts_with(&prefix)))
    }

    fn ours(&self, phase: usize) -> Table {
        ours(&self.metrics[phase], &self.run.truth)
    }

    /// The lone phase alone.
    fn lone(&self) -> Table {
        since(&self.ours(1), &self.ours(0))
    }

    fn message(&self) -> String {
        format!("{}\n{}", self.what, told(&self.metrics[2]))
    }
}

/// One server on sea-orm, and one on sqlx alone, in two versions each.
const SEA_ORM: &str = "RUSTOK_OBSD_SHOP";
const SEA_ORM_2: &str = "RUSTOK_OBSD_SHOP_SEAORM2";
const SQLX: &str = "RUSTOK_OBSD_LEDGER";
const SQLX_09: &str = "RUSTOK_OBSD_LEDGER_SQLX09";

#[test]
fn eight_times_the_daemon_the_database_and_the_server_count_the_same() {
    let name = "eight_times_the_daemon_the_database_and_the_server_count_the_same";
    let _alone = serial();
    let mut tables: Vec<(String, Table)> = Vec::new();
    for variable in [SEA_ORM, SEA_ORM_2, SQLX, SQLX_09] {
        for tls in [Tls::On, Tls::Off] {
            let account = or_skip!(name, Account::take(variable, tls));
            assert_counted(&account);
            assert_rows(&account);
            assert_times(&account, variable);
            assert_requests(&account);
            assert_errors(&account);
            let score = score(&account.run);
            report(&account.what, &score);
            assert_eq!(
                score.wrong,
                0,
                "{}: {:?}",
                account.message(),
                score.examples.iter().take(9).collect::<Vec<_>>()
            );
            tables.push((account.what.clone(), account.lone()));
        }
    }
    // The same requests, one after the other: the same statements, calls, rows and errors.
    let same = |counts: &Counts| (counts.calls, counts.rows, counts.errors);
    let plain = |table: &Table| -> BTreeMap<String, _> {
        table.iter().map(|(text, counts)| (text.clone(), same(counts))).collect()
    };
    let (first, table) = &tables[0];
    assert!(table.len() >= 14, "{table:?}");
    for (what, other) in &tables[1..] {
        assert_eq!(plain(table), plain(other), "{first} and {what}");
    }
}

/// Calls by statement, BEGIN and COMMIT among them, to the last one.
fn assert_counted(account: &Account) {
    for (phase, seeds) in [(0, &[BUSY][..]), (1, &[BUSY, LONE])] {
        let theirs = noted(seeds.iter().flat_map(|seed| account.of(*seed)).flat_map(Request::all_queries));
        let ours = account.ours(phase);
        let (database, server) = (differing(&ours, &account.counted[phase]), differing(&ours, &theirs));
        assert!(database.is_empty(), "pg_stat_statements: {database:#?}\n{}", account.message());
        assert!(server.is_empty(), "the server: {server:#?}\n{}", account.message());
        let commits = account.metrics[phase].sum("rustok_obsd_database_transactions_total", &[("outcome", "commit")]);
        assert_eq!(commits, ours["COMMIT"].calls as f64, "{}", account.message());
        assert_eq!((ours["BEGIN"].calls, ours["COMMIT"].calls), (theirs["BEGIN"].calls, theirs["COMMIT"].calls));
        let outcomes = account.metrics[phase].sum("rustok_obsd_database_transactions_total", &[]);
        assert_eq!(outcomes, commits, "nothing but commits: {}", account.message());
    }
}

/// Rows by statement as the database counts them, but for the first operations. In clear text these are the ones whose
/// answer ends beyond the bytes that are captured.
fn assert_rows(account: &Account) {
    let (ours, theirs) = (account.ours(0), &account.counted[0]);
    let mut rowless: BTreeMap<String, u64> = BTreeMap::new();
    for span in account.run.spans.iter().filter(|span| span.kind == SpanKind::Client) {
        let rows = ["db.response.returned_rows", "rustok_obsd.database.affected_rows"];
        if rows.iter().all(|key| span.int(key).is_none())
            && let Some(text) = span.text("db.query.text")
        {
            *rowless.entry(fold(text)).or_default() += 1;
        }
    }
    let most = account.of(BUSY).flat_map(Request::all_queries).map(|query| query.rows.max(1)).max().unwrap_or(1);
    let mut missing = 0;
    for (text, theirs) in theirs {
        let (we, they) = (ours[text].rows, theirs.rows);
        let slack = rowless.get(text).copied().unwrap_or(0) * most;
        assert!(we <= they && they - we <= slack, "{we} rows by us, {they} by it: {text}\n{}", account.message());
        missing += they - we;
    }
    assert!(missing <= ROWLESS as u64 * most, "{missing} rows are missing: {}", account.message());
    // From then on, all of them.
    let lone = since(&account.counted[1], &account.counted[0]);
    for (text, counts) in account.lone() {
        assert_eq!(counts.rows, lone[&text].rows, "{text}\n{}", account.message());
    }
}

/// What the database needs to execute is part of what we see, and that of what the server sees.
fn assert_times(account: &Account, variable: &str) {
    let (ours, theirs) = (account.ours(0), &account.counted[0]);
    let server = noted(account.of(BUSY).flat_map(Request::all_queries));
    for (text, we) in &ours {
        let it = theirs[text].seconds;
        assert!(we.seconds >= it, "{} s by us, {it} s by the database: {text}\n{}", we.seconds, account.message());
        let app = server[text].seconds;
        assert!(we.seconds <= app * 1.001, "{} s by us, {app} s by the server: {text}", we.seconds);
    }
    let sum = |table: &Table| table.values().map(|counts| counts.seconds).sum::<f64>();
    let wait = account.metrics[0].sum("db_client_connection_wait_time_seconds_sum", &[]);
    // Statements of a transaction wait for no connection: what differs is what the driver does around the bytes.
    let within: Vec<f64> = ours
        .iter()
        .filter(|(text, _)| ["UPDATE", "INSERT", "COMMIT"].iter().any(|word| text.starts_with(word)))
        .map(|(text, we)| we.seconds / server[text].seconds)
        .collect();
    let lone = (sum(&account.lone()), sum(&noted(account.of(LONE).flat_map(Request::all_queries))));
    eprintln!(
        "{}: {:.3} s by the database, {:.3} s by us and {wait:.3} s for the pool, {:.3} s by the server; in transactions \
         {within:.2?} of the server's; one after the other {:.3} of {:.3} s",
        account.what,
        sum(theirs),
        sum(&ours),
        sum(&server),
        lone.0,
        lone.1,
    );
    assert!(within.len() == 3 && within.iter().all(|share| *share > 0.7), "{within:?} of the server's own times");
    // The server's own times of the others have the pool's ping and the decoding in them.
    assert!(lone.0 > 0.25 * lone.1, "{lone:?}");
    if variable.contains("SHOP") {
        let share = (sum(&ours) + wait) / sum(&server);
        assert!((0.95..1.001).contains(&share), "{share} of the server's own times: {}", account.message());
    } else {
        assert_eq!(wait, 0.0, "no symbol of sqlx marks where the wait begins");
    }
}

/// Statements by route, and requests that repeat one.
fn assert_requests(account: &Account) {
    let metrics = &account.metrics[1];
    let mut expected: BTreeMap<(&str, &str), (u64, u64, u64)> = BTreeMap::new();
    for request in account.of(BUSY).chain(account.of(LONE)) {
        let (queries, requests, repeated) = expected.entry((&request.method, request.label())).or_default();
        let most = noted(request.queries.iter()).values().map(|counts| counts.calls).max().unwrap_or(0);
        assert!(most > 0 && request.late.is_empty(), "{request:?}");
        *queries += request.queries.len() as u64;
        *requests += 1;
        *repeated += u64::from(most > 5);
    }
    let mut told: BTreeMap<(&str, &str), (u64, u64, u64)> = BTreeMap::new();
    for line in metrics.0.lines().filter(|line| line.starts_with("rustok_obsd_")) {
        let Some((sample, value)) = line.rsplit_once(' ') else { continue };
        let Some((name, labels)) = sample.split_once('{') else { continue };
        let of = |labels| Some((label(labels, "http_request_method")?, label(labels, "http_route")?));
        let Some(key) = of(labels) else { continue };
        let value = value.parse::<f64>().expect("a number") as u64;
        match name {
            "rustok_obsd_http_request_queries_sum" => told.entry(key).or_default().0 += value,
            "rustok_obsd_http_request_queries_count" => told.entry(key).or_default().1 += value,
            "rustok_obsd_repeated_queries_total" => told.entry(key).or_default().2 += value,
            _ => {}
        }
    }
    assert_eq!(told, expected, "{}", account.message());
    let repeating = expected.iter().filter(|(_, counts)| counts.2 > 0).map(|(key, _)| *key).collect::<Vec<_>>();
    assert_eq!(repeating, [("GET", "/api/causal/n-plus-one")]);
}

/// Errors by SQLSTATE.
fn assert_errors(account: &Account) {
    let metrics = &account.metrics[2];
    for (state, class) in
        [("23505", "integrity_constraint_violation"), ("42601", "syntax_error_or_access_rule_violation")]
    {
        let queries = account.of(TROUBLED).flat_map(Request::all_queries);
        let expected = queries.filter(|query| query.sqlstate.as_deref() == Some(state)).count() as f64;
        assert!(expected > 10.0, "{expected} times {state}");
        let told = metrics.sum("db_client_operation_duration_seconds_count", &[("db_response_status_code", state)]);
        assert_eq!(told, expected, "{state}: {}", account.message());
        assert_eq!(metrics.sum("rustok_database_query_errors_total", &[("error_type", class)]), expected, "{class}");
    }
    let queries = || account.of(TROUBLED).flat_map(Request::all_queries);
    let failed = queries().filter(|query| query.sqlstate.is_some()).count() as u64;
    let told = account.ours(2).values().map(|counts| counts.errors).sum::<u64>();
    assert_eq!(told, failed, "{}", account.message());
}
