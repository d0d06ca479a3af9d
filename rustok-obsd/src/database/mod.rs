//! Database operations: what the target asked of its database, when, for which request, and what came of it.
//!
//! Reads: calls of the database libraries (uprobes) and the connection's bytes (sockets). Yields: one [`Operation`] per
//! query, exactly once. Costs: see [`tracker`], which also says which source gives what.

mod account;
mod aging;
mod busy;
mod marks;
mod notice;
mod open;
mod requests;
pub mod sockets;
mod tasks;
mod texts;
pub mod tracker;
mod transactions;
mod wire;

pub use open::task_key;
pub use tasks::{Ignorance, Origin};
pub use tracker::Tracker;

use std::net::SocketAddr;
use std::sync::Arc;

use crate::statement::Statement;
use crate::trace::TraceIds;

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ending {
    /// The database answered.
    Complete,
    /// The database answered with an error; its SQLSTATE is told where it was seen.
    Failed,
    /// The caller dropped it before the answer was read: a timeout, or a client that went away.
    Cancelled,
    /// The connection closed, or records were lost.
    Incomplete,
}

/// Which source gave the statement's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sight {
    /// A function of sea-orm.
    SeaOrm,
    /// A function of sqlx.
    Sqlx,
    /// The PostgreSQL protocol in clear text.
    Wire,
    /// None: the direction of encrypted bytes is all there is.
    Opaque,
}

/// Which database was asked: `db.system.name` of the semantic conventions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum System {
    /// PostgreSQL.
    #[default]
    Postgresql,
    /// MySQL or MariaDB.
    Mysql,
    /// SQLite.
    Sqlite,
    /// One of several that the program can speak to; which one is not known.
    Other,
}

impl System {
    /// The value of `db.system.name`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Postgresql => "postgresql",
            Self::Mysql => "mysql",
            Self::Sqlite => "sqlite",
            Self::Other => "other_sql",
        }
    }
}

/// On whose behalf an operation ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parent {
    /// The request with this number ([`crate::exchange::Exchange::id`]), which was under way until the operation ended.
    Request(u64),
    /// Work that this request began and that outlived its response: linked, not nested.
    Linked(u64),
    /// It is known that no request stands behind it: background work.
    Background,
    /// There is no evidence.
    Unknown,
}

/// One database operation. Times are `CLOCK_MONOTONIC` ns, 0 where unknown.
#[derive(Clone, Copy, Debug)]
pub struct Operation<'a> {
    /// Statement.
    pub statement: &'a Arc<Statement>,
    /// Where its text came from.
    pub sight: Sight,
    /// Which database was asked.
    pub system: System,
    /// Tokio task that asked, 0 where unknown.
    pub task: u64,
    /// Thread that asked.
    pub tid: u32,
    /// On whose behalf.
    pub parent: Parent,
    /// Span of the request of `parent`, where that is sampled.
    pub parent_span: Option<TraceIds>,
    /// The object-relational mapper was called: the wait for a pooled connection begins. 0 where no symbol marks it.
    pub call_ns: u64,
    /// The driver took the statement: a connection was there. Where no symbol marks it, the first byte was sent.
    pub start_ns: u64,
    /// The first byte was sent.
    pub send_ns: u64,
    /// The first byte of the answer was read.
    pub first_ns: u64,
    /// The last byte of the answer was read, or the end by another cause.
    pub end_ns: u64,
    /// Rows returned or affected.
    pub rows: Option<u64>,
    /// How it ended.
    pub ending: Ending,
    /// SQLSTATE of the error, such as `23505`.
    pub sqlstate: Option<[u8; 5]>,
    /// The target's end of the connection and the database's.
    pub addresses: Option<(SocketAddr, SocketAddr)>,
    /// Name of the database (`db.namespace`), where the start of the connection was seen in clear text.
    pub namespace: Option<&'a Arc<str>>,
}

impl Operation<'_> {
    /// Time from the call to the driver's taking it, where both are known: the wait for a pooled connection.
    #[must_use]
    pub const fn pool_wait_ns(&self) -> Option<u64> {
        if self.call_ns == 0 || self.start_ns < self.call_ns { None } else { Some(self.start_ns - self.call_ns) }
    }

    /// Time from the driver's taking it to its end: `db.client.operation.duration`, without the wait for the pool.
    #[must_use]
    pub const fn duration_ns(&self) -> u64 {
        self.end_ns.saturating_sub(self.start_ns)
    }
}

/// What a server request spent in the database, as far as its operations ended before its response did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spent<'a> {
    /// Operations.
    pub queries: u32,
    /// Those that failed.
    pub failed: u32,
    /// Waits for pooled connections, added up.
    pub pool_wait_ns: u64,
    /// Times from sending to the answer's first byte, added up.
    pub first_byte_ns: u64,
    /// Durations of the operations, added up: more than the request's own where they ran side by side.
    pub database_ns: u64,
    /// Time in which at least one operation, or its wait for a connection, was under way.
    pub busy_ns: u64,
    /// The statement that ran most often, and how often.
    pub most_repeated: Option<(&'a Arc<Statement>, u32)>,
    /// Another operation of the request may have gone unseen, or was not known to be its own.
    pub partial: bool,
}

#[cfg(test)]
mod tests;
