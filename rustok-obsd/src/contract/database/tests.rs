//! The database recorder as a scrape sees it.

use super::series::{ENDINGS, PHASES, SIGHTS, query_type, transaction};
use super::{ConnectionState, DatabaseMetrics, DatabaseRecorder, Modules, Settings};
use crate::contract::recorder::{Behind, Exemplar, TargetKey};
use crate::database::{Ending, Operation, Parent, Sight, Spent};
use crate::exchange::{Exchange, Method, Outcome, Side};
use crate::exposition::parse::{Parsed, parse};
use crate::exposition::{Format, to_text};
use crate::route::{Route, Source};
use crate::statement::{Knowledge, Statement};
use std::net::SocketAddr;
use std::sync::Arc;

mod load;

const A: TargetKey = TargetKey(7);
const B: TargetKey = TargetKey(8);
const APP: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 40_000);
const SERVER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 5432);

fn statement(operation: &str, table: Option<&str>, fingerprint: u64) -> Arc<Statement> {
    let text = format!("{operation} … {} WHERE id = ?", table.unwrap_or_default());
    Arc::new(Statement {
        text: text.into(),
        summary: format!("{operation} {}", table.unwrap_or_default()).trim_end().into(),
        operation: operation.into(),
        collection: table.map(Into::into),
        fingerprint,
        knowledge: Knowledge::Whole,
    })
}

/// An operation of 2 ms after a wait of 1 ms.
fn operation(statement: &Arc<Statement>) -> Operation<'_> {
    Operation {
        statement,
        sight: Sight::Sqlx,
        system: crate::database::System::Postgresql,
        task: 1,
        tid: 1,
        parent: Parent::Request(1),
        parent_span: None,
        call_ns: 9_000_000,
        start_ns: 10_000_000,
        send_ns: 10_000_000,
        first_ns: 11_000_000,
        end_ns: 12_000_000,
        rows: Some(3),
        ending: Ending::Complete,
        sqlstate: None,
        addresses: Some((APP, SERVER)),
        namespace: None,
    }
}

fn failed<'s>(statement: &'s Arc<Statement>, code: &[u8; 5]) -> Operation<'s> {
    Operation { ending: Ending::Failed, sqlstate: Some(*code), rows: None, ..operation(statement) }
}

/// 1 ms in the socket, 2 ms to be read, 10 ms to be answered of which 6 were the database's, 1 ms to be written.
fn request<'s>(status: u16, spent: Option<&'s Spent<'s>>) -> Exchange<'s> {
    Exchange {
        side: Side::Server,
        task: 1,
        tid: 1,
        start_ns: 1_000_000,
        first_io_ns: 2_000_000,
        request_end_ns: 4_000_000,
        response_start_ns: 14_000_000,
        end_ns: 15_000_000,
        method: Method::Get,
        path: b"/",
        host: b"",
        version: 1,
        status,
        outcome: Outcome::Complete,
        request_bytes: 0,
        response_bytes: 0,
        request_body: 0,
        response_body: 0,
        traceparent: None,
        route: None,
        awaited: None,
        routes_exact: true,
        told: false,
        id: 1,
        spent,
        ids: crate::trace::Decision::Undecided,
        tenant: b"",
        headers: crate::exchange::Headers::default(),
    }
}

fn spent(most_repeated: Option<(&Arc<Statement>, u32)>) -> Spent<'_> {
    Spent {
        queries: 7,
        pool_wait_ns: 1_000_000,
        first_byte_ns: 2_000_000,
        database_ns: 5_000_000,
        busy_ns: 6_000_000,
        most_repeated,
        ..Spent::default()
    }
}

fn route(template: &str) -> Route {
    Route { template: template.into(), source: Source::Axum }
}

fn scrape(metrics: &DatabaseMetrics) -> Parsed {
    let parsed = parse(&to_text(metrics, Format::OpenMetrics), true);
    parsed.check();
    parsed
}

/// Writes into every database family.
pub(crate) fn fill(recorder: &mut DatabaseRecorder) {
    recorder.register_target(A, "shop", Behind::Trusted);
    let namespace: Arc<str> = "rustok".into();
    let pool = recorder.pool(A, Some(SERVER), Some(&namespace)).expect("the target is there");
    recorder.connection_opened(pool);
    recorder.connection_opened(pool);
    recorder.connection_used(pool);
    let (select, commit) = (statement("SELECT", Some("nodes"), 0x1f), statement("COMMIT", None, 2));
    let trace = Exemplar { trace_id: [1; 16], span_id: [2; 8] };
    let named = Operation { namespace: Some(&namespace), ..operation(&select) };
    recorder.observe(A, &named, Some(trace));
    recorder.observe(A, &Operation { namespace: Some(&namespace), ..failed(&select, b"53300") }, None);
    let commit = Operation { call_ns: 0, rows: None, parent: Parent::Background, ..operation(&commit) };
    recorder.observe(A, &Operation { namespace: Some(&namespace), ..commit }, None);
    let spent = spent(Some((&select, 6)));
    recorder.observe_request(A, &request(500, Some(&spent)), &route("/api/content/nodes/{id}"));
}

#[test]
fn the_whole_exposition_reads_as_documented() {
    let (mut recorder, metrics) = DatabaseRecorder::new(Settings::default());
    fill(&mut recorder);
    let text = to_text(&*metrics, Format::Text);
    // The middle buckets of histograms say nothing that their first and last do not.
    let kept = |line: &&str| {
        ["", "+Inf\"} ", "0.0025\"} "].iter().any(|le| match *le {
            "" => !line.contains("_bucket{"),
            le => line.contains(&format!(",le=\"{le}")),
        })
    };
    let short: String = text.lines().filter(kept).flat_map(|line| [line, "\n"]).collect();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/contract/database/tests/golden.txt");
    if std::env::var_os("RUSTOK_OBSD_BLESS").is_some() {
        std::fs::write(path, &short).unwrap();
    }
    assert_eq!(short, std::fs::read_to_string(path).unwrap_or_default());
}

#[test]
fn sights_endings_and_operations_are_named_as_documented() {
    for (sight, text) in [Sight::SeaOrm, Sight::Sqlx, Sight::Wire, Sight::Opaque].into_iter().zip(SIGHTS) {
        assert_eq!(SIGHTS[sight as usize], text);
        assert_eq!(format!("{sight:?}").to_lowercase(), text.replace('_', ""));
    }
    for (ending, text) in
        [Ending::Complete, Ending::Failed, Ending::Cancelled, Ending::Incomplete].into_iter().zip(ENDINGS)
    {
        assert_eq!(ENDINGS[ending as usize], text);
        assert_eq!(format!("{ending:?}").to_lowercase(), text);
    }
    for (operation, wanted) in [
        ("SELECT", "select"),
        ("INSERT", "insert"),
        ("BEGIN", "transaction"),
        ("CREATE TABLE", "ddl"),
        ("COPY", "other"),
        ("", "unknown"),
    ] {
        assert_eq!(query_type(operation), wanted, "{operation}");
    }
    for (operation, text, ending, wanted) in [
        ("COMMIT", "COMMIT", Ending::Complete, Some(0)),
        ("COMMIT", "COMMIT", Ending::Failed, Some(1)),
        ("COMMIT", "COMMIT", Ending::Cancelled, Some(2)),
        ("ROLLBACK", "ROLLBACK", Ending::Complete, Some(1)),
        ("ROLLBACK", "ROLLBACK TO SAVEPOINT _sqlx_savepoint_1", Ending::Complete, None),
        ("ROLLBACK", "rollback to _sqlx_savepoint_1", Ending::Complete, None),
        ("BEGIN", "BEGIN", Ending::Complete, None),
        ("SELECT", "SELECT ?", Ending::Complete, None),
    ] {
        assert_eq!(transaction(operation, text, ending), wanted, "{text} {ending:?}");
    }
}

#[test]
fn rustok_families_sum_over_services_and_databases() {
    let (mut recorder, metrics) = DatabaseRecorder::new(Settings::default());
    recorder.register_target(A, "shop", Behind::Trusted);
    recorder.register_target(B, "blog", Behind::Trusted);
    let (select, other) = (statement("SELECT", Some("nodes"), 1), statement("SELECT", Some("nodes"), 2));
    recorder.observe(A, &operation(&select), None);
    recorder.observe(B, &operation(&other), None);
    let elsewhere = SocketAddr::new(SERVER.ip(), 5433);
    recorder.observe(A, &Operation { addresses: Some((APP, elsewhere)), ..operation(&select) }, None);
    recorder.observe(A, &failed(&select, b"23505"), None);
    recorder.observe(A, &failed(&select, b"23503"), None);
    let parsed = scrape(&metrics);
    let counts: Vec<_> = parsed.find("rustok_database_query_duration_seconds_count", &[]).collect();
    assert_eq!(counts.len(), 1);
    assert_eq!(counts[0].value, 5.0);
    assert_eq!(counts[0].labels.keys().collect::<Vec<_>>(), ["query_type", "table"]);
    let errors = parsed.find("rustok_database_query_errors_total", &[]).collect::<Vec<_>>();
    assert_eq!((errors.len(), errors[0].value), (1, 2.0));
    assert_eq!(errors[0].labels["error_type"], "integrity_constraint_violation");
    let otel = "db_client_operation_duration_seconds_count";
    assert_eq!(parsed.find(otel, &[]).count(), 5);
    assert_eq!(parsed.sum(otel, &[("db_response_status_code", "23505"), ("error_type", "23505")]), 1.0);
    assert_eq!(parsed.sum(otel, &[("service_name", "shop"), ("server_port", "5433")]), 1.0);
}

#[test]
fn a_failed_operation_counts_for_the_module_of_its_request_once_that_is_known() {
    let modules = Modules::new([("/store".to_owned(), "commerce".to_owned())]);
    let (mut recorder, metrics) = DatabaseRecorder::new(Settings { modules, ..Settings::default() });
    recorder.register_target(A, "shop", Behind::Trusted);
    let select = statement("SELECT", Some("nodes"), 1);
    for parent in [Parent::Request(5), Parent::Request(6), Parent::Linked(5), Parent::Background, Parent::Unknown] {
        recorder.observe(A, &Operation { parent, ..failed(&select, b"40P01") }, None);
    }
    let name = "rustok_errors_total";
    let unknown = [("module", "unknown"), ("error_type", "transaction_rollback"), ("severity", "warning")];
    assert_eq!(scrape(&metrics).sum(name, &unknown), 3.0);
    assert_eq!(scrape(&metrics).sum(name, &[]), 3.0, "the others wait");
    recorder.observe_request(A, &Exchange { id: 6, ..request(500, None) }, &route("/store/carts/{id}"));
    recorder.observe_request(A, &Exchange { id: 5, ..request(200, None) }, &route("/api/content/nodes"));
    let parsed = scrape(&metrics);
    assert_eq!(parsed.sum(name, &[("module", "commerce"), ("severity", "warning")]), 1.0);
    assert_eq!(parsed.sum(name, &[("module", "content"), ("severity", "warning")]), 1.0);
    let page = [("module", "commerce"), ("error_type", "http_500"), ("severity", "critical")];
    assert_eq!(parsed.sum(name, &page), 1.0);
    assert_eq!(parsed.sum(name, &[]), 6.0);
}

#[test]
fn what_is_not_known_of_a_request_is_not_recorded() {
    let phases = |exchange: &Exchange<'_>| {
        let (mut recorder, metrics) = DatabaseRecorder::new(Settings::default());
        recorder.register_target(A, "shop", Behind::Trusted);
        recorder.observe_request(A, exchange, &route("/x"));
        let parsed = scrape(&metrics);
        let of = |phase| {
            let name = "rustok_obsd_http_request_phase_seconds_sum";
            parsed.find(name, &[("phase", phase)]).next().map(|sample| (sample.value * 1e3).round() as u64)
        };
        (PHASES.map(of), parsed.find("rustok_obsd_http_request_queries_count", &[]).count())
    };
    let all = spent(None);
    let [m, s] = [Some, |_| None];
    let full = request(200, Some(&all));
    assert_eq!(phases(&full), ([m(1), m(2), m(4), m(1), m(2), m(5), m(1)], 1));
    assert_eq!(phases(&request(200, None)), ([m(1), m(2), m(10), s(0), s(0), s(0), m(1)], 0));
    // The arrival was not seen; the client left before there was a response.
    let left = Exchange {
        start_ns: full.first_io_ns,
        response_start_ns: 0,
        outcome: Outcome::ClientAborted,
        ..request(0, None)
    };
    assert_eq!(phases(&left), ([s(0), m(2), s(0), s(0), s(0), s(0), s(0)], 0));
    // The answer came before the request was whole.
    let early = Exchange { request_end_ns: 14_500_000, ..request(200, None) };
    assert_eq!(phases(&early).0[2], m(12));
    let client = Exchange { side: Side::Client, ..full };
    assert_eq!(phases(&client), ([s(0); 7], 0));
}

#[test]
fn requests_with_repeated_queries_are_counted_beyond_the_bound() {
    let (mut recorder, metrics) = DatabaseRecorder::new(Settings { repeated: 5, ..Settings::default() });
    recorder.register_target(A, "shop", Behind::Trusted);
    let select = statement("SELECT", Some("nodes"), 1);
    for times in [1, 5, 6, 100] {
        recorder.observe_request(A, &request(200, Some(&spent(Some((&select, times))))), &route("/x"));
    }
    let parsed = scrape(&metrics);
    assert_eq!(parsed.sum("rustok_obsd_repeated_queries_total", &[("http_route", "/x")]), 2.0);
    assert_eq!(parsed.sum("rustok_obsd_http_request_queries_sum", &[]), 28.0);
}

#[test]
fn connections_follow_their_handles_and_go_with_their_target() {
    let (mut recorder, metrics) = DatabaseRecorder::new(Settings::default());
    assert_eq!(recorder.pool(A, Some(SERVER), None), None, "not registered");
    assert_eq!(scrape(&metrics).find("rustok_database_connections", &[]).count(), 0, "no producer, no name");
    recorder.register_target(A, "shop", Behind::Trusted);
    recorder.register_target(B, "shop", Behind::Trusted);
    let states = |metrics: &DatabaseMetrics| {
        let parsed = scrape(metrics);
        let of = |state| parsed.sum("rustok_database_connections", &[("state", state)]);
        let pool = [("db_client_connection_pool_name", "127.0.0.1:5432")];
        assert_eq!(parsed.sum("db_client_connection_count", &pool), of("idle") + of("active"));
        (of("idle"), of("active"))
    };
    let (a, b) = (recorder.pool(A, Some(SERVER), None).unwrap(), recorder.pool(B, Some(SERVER), None).unwrap());
    for pool in [a, a, b] {
        recorder.connection_opened(pool);
    }
    recorder.connection_used(a);
    assert_eq!(states(&metrics), (2.0, 1.0));
    recorder.connection_idle(a);
    recorder.connection_used(b);
    recorder.connection_closed(a, ConnectionState::Idle);
    assert_eq!(states(&metrics), (1.0, 1.0));
    recorder.connection_closed(a, ConnectionState::Used);
    assert_eq!(states(&metrics), (1.0, 1.0), "there was none such");
    recorder.retire_target(A);
    assert_eq!(states(&metrics), (0.0, 1.0));
    recorder.register_target(A, "shop", Behind::Trusted);
    recorder.connection_opened(a);
    assert_eq!(states(&metrics), (0.0, 1.0), "a handle of an earlier life");
    let again = recorder.pool(A, Some(SERVER), None).unwrap();
    assert_eq!((again.slot, again.generation), (a.slot, a.generation + 1));
    recorder.connection_opened(again);
    recorder.connection_closed(b, ConnectionState::Used);
    assert_eq!(states(&metrics), (1.0, 0.0));
}

#[test]
fn an_operation_without_a_beginning_counts_but_has_no_duration() {
    let (mut recorder, metrics) = DatabaseRecorder::new(Settings::default());
    let select = statement("SELECT", Some("nodes"), 1);
    let timeless = Operation { call_ns: 0, start_ns: 0, send_ns: 0, ..failed(&select, b"XX000") };
    recorder.observe(A, &timeless, None);
    recorder.observe(A, &Operation { start_ns: 0, call_ns: 0, ..operation(&select) }, None);
    let parsed = scrape(&metrics);
    assert_eq!(parsed.sum("db_client_operation_duration_seconds_count", &[]), 1.0);
    assert_eq!(parsed.sum("rustok_database_query_errors_total", &[]), 1.0);
    assert_eq!(parsed.sum("rustok_obsd_statement_calls_total", &[]), 2.0);
    assert_eq!(parsed.sum("rustok_obsd_statement_seconds_total", &[]), 0.002);
    assert_eq!(parsed.sum("rustok_obsd_database_operations_total", &[("service_name", "unknown_service")]), 2.0);
}

#[test]
fn the_text_of_a_statement_is_cut_between_characters() {
    let (mut recorder, metrics) = DatabaseRecorder::new(Settings::default());
    for (fingerprint, text) in [(1, "é".repeat(120)), (2, "é".repeat(121))] {
        let statement = Statement { text: text.into(), ..(*statement("SELECT", None, fingerprint)).clone() };
        recorder.observe(A, &operation(&Arc::new(statement)), None);
    }
    let parsed = scrape(&metrics);
    let text = |fingerprint| {
        let labels = [("fingerprint", fingerprint)];
        parsed.find("rustok_obsd_statement_calls_total", &labels).next().unwrap().labels["statement"].clone()
    };
    assert_eq!(text("0000000000000001"), "é".repeat(120));
    assert_eq!(text("0000000000000002"), "é".repeat(119) + "…");
}
