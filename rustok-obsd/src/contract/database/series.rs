//! What the database recorder writes and scrapes read: one set of atomics per label set.
//!
//! Reads: nothing. Yields: [`DatabaseMetrics`], shared by the recorder and the exposition. Costs: about 250 bytes per label
//! set of operations, 400 per statement, 1.3 kB per route and method. A series stays when its target ends; the recorder's caps
//! bound them, see `renew.rs`.

use super::recorder::Settings;
use super::sqlstate::Severity;
use super::{DURATION, PHASE, QUERIES, ROWS};
use crate::contract::histogram::{Histogram, scale};
use crate::contract::list::List;
use crate::contract::places::FIXED;
use crate::contract::series::Timed;
use crate::database::{Ending, Parent};
use crate::exposition::LabelSet;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

pub(super) const DURATION_BOUNDS: [u64; DURATION.values.len()] = scale(DURATION.values, 1e9);
pub(super) const DURATION_BUCKETS: usize = DURATION_BOUNDS.len() + 1;
pub(super) const ROWS_BOUNDS: [u64; ROWS.values.len()] = scale(ROWS.values, 1.0);
pub(super) const ROWS_BUCKETS: usize = ROWS_BOUNDS.len() + 1;
pub(super) const PHASE_BOUNDS: [u64; PHASE.values.len()] = scale(PHASE.values, 1e9);
pub(super) const PHASE_BUCKETS: usize = PHASE_BOUNDS.len() + 1;
pub(super) const QUERIES_BOUNDS: [u64; QUERIES.values.len()] = scale(QUERIES.values, 1.0);
pub(super) const QUERIES_BUCKETS: usize = QUERIES_BOUNDS.len() + 1;

/// `phase` of [`super::REQUEST_PHASE`], in the order of time.
pub(super) const PHASES: [&str; 7] =
    ["socket_wait", "receive", "handler", "pool_wait", "database_first_byte", "database", "write"];

/// `sight` of [`super::OPERATIONS`], in the order of the variants of [`crate::database::Sight`].
pub(super) const SIGHTS: [&str; 4] = ["sea_orm", "sqlx", "wire", "opaque"];

/// `ending` of [`super::OPERATIONS`], in the order of the variants of [`Ending`].
pub(super) const ENDINGS: [&str; 4] = ["complete", "failed", "cancelled", "incomplete"];

/// `parent` of [`super::PARENTS`].
pub(super) const PARENT_TEXTS: [&str; 4] = ["request", "linked", "background", "unknown"];

/// `outcome` of [`super::TRANSACTIONS`].
pub(super) const TRANSACTION_OUTCOMES: [&str; 3] = ["commit", "rollback", "unknown"];

/// Index in [`PARENT_TEXTS`].
pub(super) const fn parent_index(parent: Parent) -> usize {
    match parent {
        Parent::Request(_) => 0,
        Parent::Linked(_) => 1,
        Parent::Background => 2,
        Parent::Unknown => 3,
    }
}

/// RusToK's `query_type` of an operation's name.
pub(super) fn query_type(operation: &str) -> &'static str {
    match operation {
        "" => "unknown",
        "SELECT" | "TABLE" | "VALUES" => "select",
        "INSERT" => "insert",
        "UPDATE" => "update",
        "DELETE" => "delete",
        "BEGIN" | "START TRANSACTION" | "START" | "COMMIT" | "END" | "ROLLBACK" | "ABORT" | "SAVEPOINT" | "RELEASE" => {
            "transaction"
        }
        _ if ["CREATE", "ALTER", "DROP", "TRUNCATE"].iter().any(|verb| operation.starts_with(verb)) => "ddl",
        _ => "other",
    }
}

/// Whether the rows of an operation are rows returned.
pub(super) fn reads(operation: &str) -> bool {
    matches!(operation, "SELECT" | "TABLE" | "VALUES" | "FETCH" | "SHOW" | "WITH")
}

/// Which transaction an operation ends: index in [`TRANSACTION_OUTCOMES`].
pub(super) fn transaction(operation: &str, text: &str, ending: Ending) -> Option<usize> {
    let commits = match operation {
        "COMMIT" | "END" => true,
        // ROLLBACK TO undoes a part, PREPARED another transaction's.
        "ROLLBACK" | "ABORT" if !["TO", "PREPARED"].iter().any(|word| has_word(text, word)) => false,
        _ => return None,
    };
    match ending {
        Ending::Complete => Some(usize::from(!commits)),
        // A transaction whose COMMIT fails is rolled back.
        Ending::Failed => Some(1),
        Ending::Cancelled | Ending::Incomplete => Some(2),
    }
}

fn has_word(text: &str, word: &str) -> bool {
    text.split_ascii_whitespace().any(|found| found.eq_ignore_ascii_case(word))
}

/// A service: one or more targets of the same name.
pub(super) struct Service {
    pub(super) name: String,
    /// By sight and ending.
    pub(super) operations: [[AtomicU64; ENDINGS.len()]; SIGHTS.len()],
    pub(super) transactions: [AtomicU64; TRANSACTION_OUTCOMES.len()],
    pub(super) statements: List<Arc<StatementSeries>>,
    /// Statements beyond the cap.
    pub(super) others: OnceLock<Arc<StatementSeries>>,
}

impl Service {
    /// Series of statements, that of others last.
    pub(super) fn all_statements(&self) -> impl Iterator<Item = &Arc<StatementSeries>> {
        self.statements.iter(usize::MAX).chain(self.others.get())
    }
}

/// Operations of one label set.
pub(super) struct OperationSeries {
    pub(super) labels: LabelSet,
    /// Index of RusToK's query type and table.
    pub(super) query: usize,
    /// Index of RusToK's query type and error type, where it failed.
    pub(super) error: Option<usize>,
    /// Operations whose beginning is not known, hence no duration; they count all the same.
    pub(super) timeless: AtomicU64,
    pub(super) timed: Timed<DURATION_BUCKETS>,
    /// Made with the first operation that returned rows.
    pub(super) rows: OnceLock<Box<Histogram<ROWS_BUCKETS>>>,
}

/// One statement of one service.
pub(super) struct StatementSeries {
    pub(super) labels: LabelSet,
    pub(super) calls: AtomicU64,
    pub(super) ns: AtomicU64,
    pub(super) rows: AtomicU64,
    pub(super) errors: AtomicU64,
}

impl StatementSeries {
    /// Bytes of one, with labels of usual length and its places in the tables.
    pub(super) const SIZE: usize = size_of::<Self>() + 500;
}

/// The connections of one service to one database.
pub(super) struct PoolSeries {
    pub(super) labels: LabelSet,
    pub(super) state_labels: [LabelSet; 2],
    /// Idle, used.
    pub(super) connections: [AtomicU64; 2],
    /// A connection was told.
    pub(super) counted: AtomicBool,
    pub(super) wait: Histogram<DURATION_BUCKETS>,
}

/// Requests of one service, method and route.
pub(super) struct RequestSeries {
    pub(super) labels: LabelSet,
    pub(super) phase_labels: [LabelSet; PHASES.len()],
    pub(super) phases: [Histogram<PHASE_BUCKETS>; PHASES.len()],
    pub(super) queries: Histogram<QUERIES_BUCKETS>,
    pub(super) repeated: AtomicU64,
    /// Number of its module.
    pub(super) module: AtomicU32,
}

impl RequestSeries {
    /// Bytes of one, with labels of usual length and its places in the tables.
    pub(super) const SIZE: usize = size_of::<Self>() + 1500;

    pub(super) fn count(&self) -> u64 {
        self.phases.iter().map(Histogram::count).sum::<u64>() + self.queries.count()
    }
}

impl OperationSeries {
    /// Bytes of one, with labels of usual length and its places in the tables.
    pub(super) const SIZE: usize = size_of::<Self>() + 800;
}

/// What [`super::ERRORS`] tells apart, but for the module.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Mishap {
    /// A response with this status.
    Http(u16),
    /// An error with a SQLSTATE of this class.
    Sql(u8, Severity),
    /// Past the cap.
    Other(Severity),
}

impl Mishap {
    pub(super) const fn severity(self) -> Severity {
        match self {
            Self::Http(_) => Severity::Critical,
            Self::Sql(_, severity) | Self::Other(severity) => severity,
        }
    }
}

/// One label set of [`super::ERRORS`].
pub(super) struct ErrorSeries {
    pub(super) labels: LabelSet,
    pub(super) count: AtomicU64,
}

/// What is lost to caps, by family.
#[derive(Default)]
pub(super) struct Overflow {
    pub(super) operations: AtomicU64,
    pub(super) requests: AtomicU64,
    pub(super) statements: AtomicU64,
    pub(super) errors: AtomicU64,
}

/// All label sets, from one renewal to the next.
pub(super) struct Lists {
    pub(super) services: List<Arc<Service>>,
    pub(super) operations: List<Arc<OperationSeries>>,
    pub(super) queries: List<LabelSet>,
    pub(super) query_errors: List<LabelSet>,
    pub(super) pools: List<Arc<PoolSeries>>,
    pub(super) requests: List<Arc<RequestSeries>>,
    pub(super) errors: List<Arc<ErrorSeries>>,
}

impl Lists {
    pub(super) fn new(settings: &Settings) -> Self {
        let operations = settings.operation_capacity();
        Self {
            services: List::with_capacity(settings.services + FIXED),
            operations: List::with_capacity(operations),
            queries: List::with_capacity(operations),
            query_errors: List::with_capacity(operations),
            pools: List::with_capacity(settings.pool_capacity()),
            requests: List::with_capacity(settings.request_capacity()),
            errors: List::with_capacity(settings.error_capacity()),
        }
    }
}

/// The database families: written by one [`DatabaseRecorder`](super::DatabaseRecorder), read by scrapes.
pub struct DatabaseMetrics {
    /// Replaced, never changed but for what is appended: a reader holds the lock for the copy of a pointer.
    lists: Mutex<Arc<Lists>>,
    pub(super) parents: [AtomicU64; PARENT_TEXTS.len()],
    pub(super) overflow: Overflow,
    /// Memory of earlier scrapes; the recorder has no part in it.
    pub(super) scratch: Mutex<Vec<super::collect::Scratch>>,
}

impl DatabaseMetrics {
    pub(super) fn new(lists: Arc<Lists>) -> Self {
        Self {
            lists: Mutex::new(lists),
            parents: [const { AtomicU64::new(0) }; PARENT_TEXTS.len()],
            overflow: Overflow::default(),
            scratch: Mutex::default(),
        }
    }

    /// The label sets as of now.
    pub(super) fn lists(&self) -> Arc<Lists> {
        Arc::clone(&self.lists.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Scrapes that begin from now on read these.
    pub(super) fn replace(&self, lists: Arc<Lists>) {
        let old = std::mem::replace(&mut *self.lists.lock().unwrap_or_else(PoisonError::into_inner), lists);
        drop(old);
    }
}
