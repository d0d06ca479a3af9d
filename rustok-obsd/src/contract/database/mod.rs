//! Database families: RusToK's published names, OpenTelemetry's, requests taken apart, and statements, from the same
//! observation.
//!
//! Sources: RusToK `crates/rustok-telemetry/src/lib.rs`; OpenTelemetry semantic conventions "Database metrics" under the
//! names that the OpenTelemetry-to-Prometheus compatibility specification gives them; PostgreSQL's "Error Codes".
//!
//! What labels say:
//! * `query_type` is `select`, `insert`, `update`, `delete`, `transaction` (BEGIN, COMMIT, …), `ddl`, `other`, or
//!   `unknown` where no text was seen; `table` is `~none` where a statement has not exactly one.
//! * `error_type` in RusToK's families is the name of the SQLSTATE's class, such as `integrity_constraint_violation`
//!   ([`sqlstate`]): few values, and words. OpenTelemetry's `db_response_status_code` and `error_type` carry the code
//!   itself; an operation that ended without an answer has the `error_type` `cancelled` or `incomplete`.
//! * Only errors that the database answered count as errors in RusToK's families and of statements: a client that goes
//!   away is no fault of the database.
//! * `severity` is in lower case, as RusToK's alerts select it, not as its code's Debug names would write it: a 5xx
//!   response and an error of the database itself are `critical`, a conflict that is retried or answered (a violated
//!   constraint, a deadlock) a `warning`, other errors of SQL an `error`.
//! * `module` follows from the route ([`Modules`]). A failed operation is counted under its request's module when the
//!   request ends; without a request, under `unknown`. One mishap may count twice, as SQL error and as 5xx response.

mod admit;
mod collect;
mod module;
pub mod problem;
mod recorder;
mod renew;
mod series;
pub mod sqlstate;
#[cfg(test)]
pub(crate) mod tests;

pub use module::Modules;
pub use recorder::{ConnectionState, DatabaseRecorder, Pool, Settings};
pub use series::DatabaseMetrics;

use super::http::{developing, otel, rustok};
use super::own::own;
use super::{Bounds, Family, Kind, bounds};

/// Bounds of durations of operations in seconds: those of RusToK, those that the semantic conventions advise, and 0.25,
/// 0.5 and 2.5 ms.
pub const DURATION: Bounds = bounds!(0.00025 0.0005 0.001 0.0025 0.005 0.01 0.025 0.05 0.1 0.25 0.5 1.0 2.5 5.0 10.0);

/// Bounds of rows: those that the semantic conventions advise.
pub const ROWS: Bounds = bounds!(1.0 2.0 5.0 10.0 20.0 50.0 100.0 200.0 500.0 1000.0 2000.0 5000.0 10000.0);

/// Bounds of the phases of a request in seconds: coarser than others, for each route has seven.
pub const PHASE: Bounds = bounds!(0.0001 0.0005 0.001 0.0025 0.005 0.01 0.025 0.1 0.25 1.0 5.0);

/// Bounds of operations per request.
pub const QUERIES: Bounds = bounds!(0.0 1.0 2.0 3.0 5.0 10.0 20.0 50.0 100.0);

/// RusToK's families: sums over all observed servers.
pub const RUSTOK: &[Family<'static>] = &[QUERY_DURATION, QUERY_ERRORS, CONNECTIONS, ERRORS];

/// OpenTelemetry's families.
pub const OTEL: &[Family<'static>] = &[OPERATION_DURATION, CONNECTION_WAIT, CONNECTION_COUNT, RETURNED_ROWS];

/// What a request spends, and which statements cost it.
pub const REQUESTS: &[Family<'static>] = &[
    REQUEST_PHASE,
    REQUEST_QUERIES,
    REPEATED_QUERIES,
    STATEMENT_CALLS,
    STATEMENT_SECONDS,
    STATEMENT_ROWS,
    STATEMENT_ERRORS,
    TRANSACTIONS,
];

/// The daemon's account of what it saw of databases. Its problems are counted by [`super::own::SelfMetrics`].
pub const OWN: &[Family<'static>] = &[OPERATIONS, PARENTS, PROBLEMS, SERIES, SERIES_OVERFLOW];

/// Duration of queries.
pub const QUERY_DURATION: Family<'static> = rustok(
    "rustok_database_query_duration_seconds",
    Kind::Histogram,
    "seconds",
    &["query_type", "table"],
    "Duration of database queries, from the moment that a connection was there to the end of the answer.",
);

/// Failed queries.
pub const QUERY_ERRORS: Family<'static> = rustok(
    "rustok_database_query_errors_total",
    Kind::Counter,
    "",
    &["query_type", "error_type"],
    "Database queries that the database answered with an error, by the class of its SQLSTATE.",
);

/// Connections.
pub const CONNECTIONS: Family<'static> = rustok(
    "rustok_database_connections",
    Kind::Gauge,
    "",
    &["state"],
    "Connections of observed servers to databases: active where a query or transaction is under way, else idle.",
);

/// Errors.
pub const ERRORS: Family<'static> = rustok(
    "rustok_errors_total",
    Kind::Counter,
    "",
    &["module", "error_type", "severity"],
    "Responses with a 5xx status (http_500) and errors of SQL (class of the SQLSTATE), by the module of the route.",
);

/// `db.client.operation.duration`.
pub const OPERATION_DURATION: Family<'static> = otel(
    "db_client_operation_duration_seconds",
    Kind::Histogram,
    "seconds",
    &[
        "service_name",
        "db_system_name",
        "db_operation_name",
        "db_collection_name",
        "db_namespace",
        "db_response_status_code",
        "error_type",
        "server_address",
        "server_port",
    ],
    "Duration of database client operations, without the wait for a pooled connection.",
);

/// `db.client.connection.wait_time`.
pub const CONNECTION_WAIT: Family<'static> = developing(
    "db_client_connection_wait_time_seconds",
    Kind::Histogram,
    "seconds",
    &["service_name", "db_client_connection_pool_name"],
    "The time it took to obtain an open connection from the pool, where a symbol marks the beginning.",
);

/// `db.client.connection.count`.
pub const CONNECTION_COUNT: Family<'static> = developing(
    "db_client_connection_count",
    Kind::Gauge,
    "",
    &["service_name", "db_client_connection_pool_name", "db_client_connection_state"],
    "The number of connections that are currently in the state that the label tells.",
);

/// `db.client.response.returned_rows`.
pub const RETURNED_ROWS: Family<'static> = developing(
    "db_client_response_returned_rows",
    Kind::Histogram,
    "",
    OPERATION_DURATION.labels,
    "The number of rows returned by operations that read, where it was seen.",
);

/// Requests taken apart.
pub const REQUEST_PHASE: Family<'static> = developing(
    "rustok_obsd_http_request_phase_seconds",
    Kind::Histogram,
    "seconds",
    &["service_name", "http_request_method", "http_route", "phase"],
    "Time of server requests by phase: socket_wait (data was there, the server was busy), receive, handler (less what it spent on the database and its pool, where that is known), pool_wait, database_first_byte, database (sum of all operations, also of those side by side), write.",
);

/// Operations per request.
pub const REQUEST_QUERIES: Family<'static> = developing(
    "rustok_obsd_http_request_queries",
    Kind::Histogram,
    "",
    &["service_name", "http_request_method", "http_route"],
    "Database operations of each server request.",
);

/// Requests with repeated queries.
pub const REPEATED_QUERIES: Family<'static> = developing(
    "rustok_obsd_repeated_queries_total",
    Kind::Counter,
    "",
    &["service_name", "http_request_method", "http_route"],
    "Server requests in which one statement ran more often than the bound (N+1 queries).",
);

const STATEMENT: &[&str] = &["service_name", "fingerprint", "summary", "statement"];

/// Calls of a statement.
pub const STATEMENT_CALLS: Family<'static> = developing(
    "rustok_obsd_statement_calls_total",
    Kind::Counter,
    "",
    STATEMENT,
    "Operations of each statement, told apart by the fingerprint of its text without literals.",
);

/// Time in a statement.
pub const STATEMENT_SECONDS: Family<'static> = developing(
    "rustok_obsd_statement_seconds_total",
    Kind::Counter,
    "seconds",
    STATEMENT,
    "Time in each statement, without the wait for a pooled connection.",
);

/// Rows of a statement.
pub const STATEMENT_ROWS: Family<'static> = developing(
    "rustok_obsd_statement_rows_total",
    Kind::Counter,
    "",
    STATEMENT,
    "Rows that each statement returned or affected, where that was seen.",
);

/// Errors of a statement.
pub const STATEMENT_ERRORS: Family<'static> = developing(
    "rustok_obsd_statement_errors_total",
    Kind::Counter,
    "",
    STATEMENT,
    "Operations of each statement that the database answered with an error.",
);

/// Transactions.
pub const TRANSACTIONS: Family<'static> = developing(
    "rustok_obsd_database_transactions_total",
    Kind::Counter,
    "",
    &["service_name", "outcome"],
    "Transactions that ended by a statement: commit, rollback (also a COMMIT that failed), or unknown where the answer was not seen.",
);

/// Operations.
pub const OPERATIONS: Family<'static> = own(
    "rustok_obsd_database_operations_total",
    Kind::Counter,
    "",
    &["service_name", "sight", "ending"],
    "Database operations that were recorded, by where their text came from and how they ended.",
);

/// Parents.
pub const PARENTS: Family<'static> = own(
    "rustok_obsd_database_parents_total",
    Kind::Counter,
    "",
    &["parent"],
    "Database operations by what is known of the request on whose behalf they ran.",
);

/// Problems.
pub const PROBLEMS: Family<'static> = own(
    "rustok_obsd_database_problems_total",
    Kind::Counter,
    "",
    &["problem"],
    "Events that made a database operation unusable, incomplete or inexact, and messages that are no queries.",
);

/// Series held.
pub const SERIES: Family<'static> = own(
    "rustok_obsd_database_series",
    Kind::Gauge,
    "",
    &["family"],
    "Label sets that the database recorder holds for each of its families.",
);

/// What has no series of its own.
pub const SERIES_OVERFLOW: Family<'static> = own(
    "rustok_obsd_database_series_overflow_total",
    Kind::Counter,
    "",
    &["family"],
    "Observations recorded under ~other because a cap of the database recorder was reached.",
);
