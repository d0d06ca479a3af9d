//! The functions of a target that uprobes are attached to.
//!
//! Reads: nothing. Yields: for each [`ProbePoint`] the Rust paths under which it is known, the kernel program behind it
//! and the set that a user switches it by. Costs: constants.
//!
//! What each tells was counted against the applications' own account (sqlx 0.8 and 0.9, sea-orm 1.1 and 2.0, tokio 1.54,
//! release builds):
//! `QueryLogger::new` comes exactly once for each statement that a sqlx connection runs, whatever the database, prepared
//! or not, in the caller's task and behind the wait for the pool; `QueryLogger::finish` once for each of those, when the
//! answer was read whole or the future was dropped. `async fn` symbols are polls and counted by nobody.

use std::fmt;

use super::symbols::{PathMatch, Pattern, SymbolKind};

/// A function that a uprobe can be attached to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ProbePoint {
    /// axum matched a route.
    AxumRoute,
    /// Tokio begins to poll a task: for calibration only.
    TokioTaskEnter,
    /// Tokio made a task: `tokio::spawn`, `JoinSet`, `spawn_blocking`.
    TokioSpawn,
    /// sqlx takes a statement.
    SqlxQuery,
    /// sqlx is done with it.
    SqlxQueryEnd,
    /// sqlx read an error or a notice of PostgreSQL.
    SqlxNotice,
    /// sqlx begins a transaction.
    SqlxBegin,
    /// sqlx makes the text of a BEGIN or SAVEPOINT.
    SqlxBeginText,
    /// sqlx drops a transaction that was not committed.
    SqlxRollback,
    /// sea-orm was called with a statement: the wait for a pooled connection begins.
    SeaOrmCall,
    /// The same for sea-orm 2, which has sqlx copy the text.
    SeaOrmRaw,
    /// sea-orm was asked for a transaction.
    SeaOrmBegin,
    /// sqlx takes a statement somewhere in its arguments: where `QueryLogger` is inlined.
    SqlxStatement,
    /// A function that the configuration names, by its number there.
    Custom(u8),
}

/// Uprobes that are switched together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProbeSet {
    /// Routes, always.
    Routes,
    /// Who spawned whom.
    Tasks,
    /// Statements as sqlx takes them.
    Sqlx,
    /// What came of them: rows, errors, exact ends.
    Results,
    /// Waits for a pooled connection, as sea-orm's calls tell them.
    SeaOrm,
}

/// A library that matters to the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Library {
    /// The async runtime.
    Tokio,
    /// The web framework.
    Axum,
    /// The database driver.
    Sqlx,
    /// The object-relational mapper.
    SeaOrm,
    /// The database driver's part for PostgreSQL.
    SqlxPostgres,
    /// The same for MySQL.
    SqlxMysql,
    /// The same for SQLite.
    SqlxSqlite,
    /// Another driver, whose connections are tasks of their own.
    TokioPostgres,
}

impl Library {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Tokio,
        Self::Axum,
        Self::Sqlx,
        Self::SeaOrm,
        Self::SqlxPostgres,
        Self::SqlxMysql,
        Self::SqlxSqlite,
        Self::TokioPostgres,
    ];

    /// The crate's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tokio => "tokio",
            Self::Axum => "axum",
            Self::Sqlx => "sqlx-core",
            Self::SeaOrm => "sea-orm",
            Self::SqlxPostgres => "sqlx-postgres",
            Self::SqlxMysql => "sqlx-mysql",
            Self::SqlxSqlite => "sqlx-sqlite",
            Self::TokioPostgres => "tokio-postgres",
        }
    }

    /// Part of the mangled names, in either mangling.
    pub(super) const fn marker(self) -> &'static str {
        match self {
            Self::Tokio => "5tokio7runtime",
            Self::Axum => "4axum7routing",
            Self::Sqlx => "9sqlx_core",
            Self::SeaOrm => "7sea_orm",
            Self::SqlxPostgres => "13sqlx_postgres",
            Self::SqlxMysql => "10sqlx_mysql",
            Self::SqlxSqlite => "11sqlx_sqlite",
            Self::TokioPostgres => "14tokio_postgres",
        }
    }
}

const QUERY: &[(&str, &str)] = &[("QueryLogger", "sqlx_core::logger::QueryLogger::new")];
const QUERY_END: &[(&str, &str)] = &[("QueryLogger", "sqlx_core::logger::QueryLogger::finish")];
const SPAWN: &[(&str, &str)] = &[
    ("bind_inner", "tokio::runtime::task::list::OwnedTasks::bind_inner"),
    ("spawn_task", "tokio::runtime::blocking::pool::Spawner::spawn_task"),
];
const NOTICE: &[(&str, &str)] = &[
    (
        "decode_body",
        "<sqlx_postgres::message::response::Notice as sqlx_postgres::message::BackendMessage>::decode_body",
    ),
    // sqlx 0.7 and before.
    ("decode_with", "<sqlx_postgres::message::response::Notice as sqlx_core::io::decode::Decode>::decode_with"),
];
const BEGIN: &[(&str, &str)] = &[(
    "PgTransactionManager",
    "<sqlx_postgres::transaction::PgTransactionManager as sqlx_core::transaction::TransactionManager>::begin",
)];
/// In sqlx 0.9 `begin` is the poll of a future, and inlined.
const BEGIN_TEXT: &[(&str, &str)] =
    &[("begin_ansi_transaction_sql", "sqlx_core::transaction::begin_ansi_transaction_sql")];
const ROLLBACK: &[(&str, &str)] = &[(
    "PgTransactionManager",
    "<sqlx_postgres::transaction::PgTransactionManager as sqlx_core::transaction::TransactionManager>::start_rollback",
)];

macro_rules! sea_orm {
    ($($trait:literal :: $method:literal),* $(,)?) => {
        &[$((
            "db_connection",
            concat!(
                "<sea_orm::database::db_connection::DatabaseConnection as sea_orm::database::connection::",
                $trait, ">::", $method,
            ),
        )),*]
    };
}

/// sea-orm 0.12, 1 and, for what is unprepared, 2. Calls on a transaction have their connection already.
const SEA_ORM: &[(&str, &str)] = sea_orm![
    "ConnectionTrait"::"execute",
    "ConnectionTrait"::"execute_unprepared",
    "ConnectionTrait"::"query_one",
    "ConnectionTrait"::"query_all",
    "StreamTrait"::"stream",
];
const SEA_ORM_RAW: &[(&str, &str)] = sea_orm![
    "ConnectionTrait"::"execute_raw",
    "ConnectionTrait"::"query_one_raw",
    "ConnectionTrait"::"query_all_raw",
    "StreamTrait"::"stream_raw",
];
const SEA_ORM_BEGIN: &[(&str, &str)] = sea_orm!["TransactionTrait"::"begin", "TransactionTrait"::"begin_with_config"];
const STATEMENT: &[(&str, &str)] = &[
    ("fetch_many", "<&mut sqlx_postgres::connection::PgConnection as sqlx_core::executor::Executor>::fetch_many"),
    (
        "fetch_optional",
        "<&mut sqlx_postgres::connection::PgConnection as sqlx_core::executor::Executor>::fetch_optional",
    ),
];

impl ProbePoint {
    /// All that are built in.
    pub const ALL: [Self; 13] = [
        Self::AxumRoute,
        Self::TokioTaskEnter,
        Self::TokioSpawn,
        Self::SqlxQuery,
        Self::SqlxQueryEnd,
        Self::SqlxNotice,
        Self::SqlxBegin,
        Self::SqlxBeginText,
        Self::SqlxRollback,
        Self::SeaOrmCall,
        Self::SeaOrmRaw,
        Self::SeaOrmBegin,
        Self::SqlxStatement,
    ];

    /// What stands for it in reports: its function's path, or what its functions have in common.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Self::AxumRoute => "axum::extract::matched_path::set_matched_path_for_request",
            Self::TokioTaskEnter => "tokio::runtime::task::core::TaskIdGuard::enter",
            Self::TokioSpawn => {
                "tokio::runtime::{task::list::OwnedTasks::bind_inner, blocking::pool::Spawner::spawn_task}"
            }
            Self::SqlxQuery => QUERY[0].1,
            Self::SqlxQueryEnd => QUERY_END[0].1,
            Self::SqlxNotice => "sqlx_postgres::message::response::Notice::{decode_body, decode_with}",
            Self::SqlxBegin => "sqlx_postgres::transaction::PgTransactionManager::begin",
            Self::SqlxBeginText => BEGIN_TEXT[0].1,
            Self::SqlxRollback => "sqlx_postgres::transaction::PgTransactionManager::start_rollback",
            Self::SeaOrmCall => "sea_orm::DatabaseConnection::{execute, query_one, query_all, stream, …}",
            Self::SeaOrmRaw => "sea_orm::DatabaseConnection::{execute_raw, query_one_raw, query_all_raw, stream_raw}",
            Self::SeaOrmBegin => "sea_orm::DatabaseConnection::{begin, begin_with_config}",
            Self::SqlxStatement => "sqlx_postgres::PgConnection::{fetch_many, fetch_optional}",
            Self::Custom(_) => "configured function",
        }
    }

    /// The kernel program behind it.
    #[must_use]
    pub const fn program(self) -> &'static str {
        match self {
            Self::AxumRoute => "axum_matched_path",
            Self::TokioTaskEnter => "tokio_task_enter",
            Self::TokioSpawn => "tokio_spawn",
            Self::SqlxQuery => "sqlx_query",
            Self::SqlxQueryEnd => "sqlx_query_end",
            Self::SqlxNotice => "sqlx_notice",
            Self::SqlxBegin => "sqlx_begin",
            Self::SqlxBeginText => "sqlx_begin_sql",
            Self::SqlxRollback => "sqlx_rollback",
            Self::SeaOrmCall => "sea_orm_call",
            Self::SeaOrmRaw => "sea_orm_raw",
            Self::SeaOrmBegin => "sea_orm_begin",
            Self::SqlxStatement | Self::Custom(_) => "statement",
        }
    }

    /// The set that it is switched by.
    #[must_use]
    pub const fn set(self) -> ProbeSet {
        match self {
            Self::AxumRoute | Self::TokioTaskEnter => ProbeSet::Routes,
            Self::TokioSpawn => ProbeSet::Tasks,
            Self::SqlxQuery
            | Self::SqlxBegin
            | Self::SqlxBeginText
            | Self::SqlxRollback
            | Self::SqlxStatement
            | Self::Custom(_) => ProbeSet::Sqlx,
            Self::SqlxQueryEnd | Self::SqlxNotice => ProbeSet::Results,
            Self::SeaOrmCall | Self::SeaOrmRaw | Self::SeaOrmBegin => ProbeSet::SeaOrm,
        }
    }

    /// The crate that it is in.
    #[must_use]
    pub const fn library(self) -> Library {
        match self {
            Self::AxumRoute => Library::Axum,
            Self::TokioTaskEnter | Self::TokioSpawn => Library::Tokio,
            Self::SeaOrmCall | Self::SeaOrmRaw | Self::SeaOrmBegin => Library::SeaOrm,
            _ => Library::Sqlx,
        }
    }

    /// The functions that it stands for; a configured one is known to the caller alone.
    pub(super) fn patterns(self) -> Vec<Pattern> {
        let functions: &[(&'static str, &'static str)] = match self {
            Self::AxumRoute => &[("set_matched_path_for_request", Self::AxumRoute.path())],
            Self::TokioTaskEnter => &[("TaskIdGuard", Self::TokioTaskEnter.path())],
            Self::TokioSpawn => SPAWN,
            Self::SqlxQuery => QUERY,
            Self::SqlxQueryEnd => QUERY_END,
            Self::SqlxNotice => NOTICE,
            Self::SqlxBegin => BEGIN,
            Self::SqlxBeginText => BEGIN_TEXT,
            Self::SqlxRollback => ROLLBACK,
            Self::SeaOrmCall => SEA_ORM,
            Self::SeaOrmRaw => SEA_ORM_RAW,
            Self::SeaOrmBegin => SEA_ORM_BEGIN,
            Self::SqlxStatement => STATEMENT,
            Self::Custom(_) => &[],
        };
        functions.iter().map(|&(needle, path)| function(needle, path)).collect()
    }
}

/// The pattern of one function.
pub(super) const fn function(needle: &'static str, path: &'static str) -> Pattern {
    Pattern { needle, path: PathMatch::Exact(path), kind: SymbolKind::Function }
}

impl fmt::Display for ProbePoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.path())
    }
}

/// A function that the configuration names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CustomPoint {
    /// Its path, demangled, without generic arguments.
    pub path: &'static str,
    /// An identifier in it.
    needle: &'static str,
}

impl CustomPoint {
    /// Takes a path for the life of the daemon: there are a handful, all known at the start.
    #[must_use]
    pub fn new(path: &str) -> Self {
        let path: &'static str = Box::leak(super::symbols::canonical(path).unwrap_or_else(|| path.to_owned()).into());
        let name = path.rsplit("::").next().unwrap_or(path);
        Self { path, needle: name }
    }

    /// Its pattern.
    pub(super) const fn pattern(self) -> Pattern {
        function(self.needle, self.path)
    }
}
