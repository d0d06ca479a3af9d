//! Names of attributes for which OpenTelemetry has no convention. Times are seconds, as its conventions have them.
//!
//! Reads: nothing. Yields: names. Costs: nothing.

/// Name of the attribute that holds the Tokio task's id (`tokio::task::Id`); there is no convention for it.
pub const TASK_ID: &str = "rustok_obsd.tokio.task.id";
/// Name of the attribute that tells where `http.route` came from: `axum`, `pattern` or `learned`.
pub const ROUTE_SOURCE: &str = "rustok_obsd.route.source";
/// Name of the attribute that tells how an exchange ended, where not by a whole response: `client_aborted`,
/// `server_closed`, `upgraded` or `incomplete`.
pub const OUTCOME: &str = "rustok_obsd.exchange.outcome";
/// Name of the attribute that holds the tenant that the request named (`traces.tenant_header`), by RusToK's own name.
pub const TENANT: &str = "tenant_id";

/// Server: the request lay in the socket until the target read it.
pub const SOCKET_WAIT: &str = "rustok_obsd.http.socket_wait";
/// Server: from the first byte read of the request to the last.
pub const READ: &str = "rustok_obsd.http.read";
/// Server: from the last byte of the request to the first of the response.
pub const HANDLER: &str = "rustok_obsd.http.handler";
/// Server: from the first byte of the response to the last.
pub const WRITE: &str = "rustok_obsd.http.write";

/// Server: operations of the request that ended before its response did.
pub const QUERIES: &str = "rustok_obsd.database.queries";
/// Server: those that failed, where any did.
pub const FAILED: &str = "rustok_obsd.database.failed";
/// Server: durations of the operations, added up.
pub const DATABASE_TIME: &str = "rustok_obsd.database.time";
/// Server: time in which at least one operation, or its wait for a connection, was under way.
pub const BUSY: &str = "rustok_obsd.database.busy";
/// Server: the figures may lack an operation.
pub const PARTIAL: &str = "rustok_obsd.database.partial";
/// Server: how often the statement ran that ran most often, where more often than `database.repeated`.
pub const REPEATED_COUNT: &str = "rustok_obsd.database.repeated.count";
/// Its fingerprint.
pub const REPEATED_FINGERPRINT: &str = "rustok_obsd.database.repeated.fingerprint";
/// Its summary.
pub const REPEATED_SUMMARY: &str = "rustok_obsd.database.repeated.summary";

/// Operation and server: wait for a pooled connection; of a server's request all of them, added up.
pub const POOL_WAIT: &str = "rustok_obsd.database.pool_wait";
/// Operation and server: from sending to the answer's first byte; of a server's request all of them, added up.
pub const TIME_TO_FIRST_BYTE: &str = "rustok_obsd.database.time_to_first_byte";
/// Operation: fingerprint of the statement, 16 hexadecimal digits.
pub const FINGERPRINT: &str = "rustok_obsd.database.fingerprint";
/// Operation: what is lacking of the statement: `truncated`, `unknown` or `opaque`.
pub const KNOWLEDGE: &str = "rustok_obsd.database.statement";
/// Operation: what gave its statement: `sea_orm`, `sqlx`, `wire` or `opaque`.
pub const SIGHT: &str = "rustok_obsd.database.sight";
/// Operation: rows changed by INSERT, UPDATE, DELETE, MERGE or COPY.
pub const AFFECTED_ROWS: &str = "rustok_obsd.database.affected_rows";
/// Operation: how it ended where not by an answer: `cancelled` or `incomplete`.
pub const DATABASE_OUTCOME: &str = "rustok_obsd.database.outcome";
