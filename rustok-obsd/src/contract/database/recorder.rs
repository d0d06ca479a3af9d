//! Records database operations, and what requests spent on them: the capture thread's end of the database families.
//!
//! Reads: operations and server exchanges that ended, and the life of targets and connections. Yields: atomics that
//! scrapes read ([`DatabaseMetrics`]). Costs: one hash look-up by integers and about a dozen plain stores per operation
//! and per request, no allocation and no lock; a label set or statement that is new allocates once
//! (`benches/exposition.rs`).
//!
//! Caps: label sets, statements, services, databases and modules are bounded. Beyond a cap an observation is recorded
//! under `~other` and counted: totals stay exact when details are lost. Each service has its share of what is bounded
//! ([`crate::budget`]), and what stood still for long gives way (`renew.rs`).

use super::module::Modules;
use super::series::{
    DURATION_BOUNDS, DatabaseMetrics, ErrorSeries, Lists, Mishap, OperationSeries, PHASE_BOUNDS, PHASES, PoolSeries,
    QUERIES_BOUNDS, ROWS_BOUNDS, RequestSeries, Service, StatementSeries, parent_index,
};
use super::sqlstate::{UNKNOWN, class, severity};
use crate::budget::{Budget, Meter, Store, cut};
use crate::contract::histogram::{Histogram, bump};
use crate::contract::places::{FIXED, Places, UNKNOWN_SERVICE};
use crate::contract::recorder::{Behind, Exemplar, Kept, LONGEST, TargetKey};
use crate::database::{Ending, Operation, Parent, Spent, System};
use crate::exchange::{Exchange, Method, Outcome, Side};
use crate::route::{Route, Source};
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Caps and bounds. One service alone may reach those of label sets; all together have twice as much.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Label sets of operations of a service.
    pub operations: usize,
    /// Statements of each service.
    pub statements: usize,
    /// Routes and methods of requests of a service, taken together.
    pub requests: usize,
    /// Services (see `places.rs`).
    pub services: usize,
    /// Databases of a service, told apart by address and name.
    pub databases: usize,
    /// Label sets of errors, and modules of routes, of a service.
    pub errors: usize,
    /// A request in which one statement runs more often than this counts as N+1.
    pub repeated: u32,
    /// Names the module of a route.
    pub modules: Modules,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            operations: 2048,
            statements: 500,
            requests: 2048,
            services: 128,
            databases: 64,
            errors: 512,
            repeated: 5,
            modules: Modules::default(),
        }
    }
}

impl Settings {
    /// Room for label sets with the table `~other` or the route `~other`.
    pub(super) const OVERFLOW: usize = 256;
    /// Failed operations that wait for the end of their request.
    const PENDING: usize = 256;
    /// So many services have room for all statements that they may have; more share it.
    const FULL: usize = 16;

    /// The last resort keeps service and [`Ending`].
    pub(super) fn operation_capacity(&self) -> usize {
        2 * (self.operations + Self::OVERFLOW) + (self.services + FIXED) * 4
    }

    /// The last resort keeps the service.
    pub(super) fn request_capacity(&self) -> usize {
        2 * (self.requests + Self::OVERFLOW) + self.services + FIXED
    }

    /// A pool for each service and database, as far as they come; beyond that, one for each service.
    pub(super) fn pool_capacity(&self) -> usize {
        4 * self.databases + self.services + FIXED
    }

    /// The last resort keeps the severity.
    pub(super) fn error_capacity(&self) -> usize {
        2 * self.errors + 3
    }

    /// Shortcuts to label sets that are kept.
    fn aliases(&self) -> usize {
        4 * self.operation_capacity()
    }
}

/// What a pooled connection does (`db.client.connection.state`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionState {
    /// It waits in the pool.
    Idle,
    /// An operation or transaction is under way.
    Used,
}

/// The connections of one target to one database: a handle for the caller's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    pub(super) slot: u32,
    pub(super) generation: u32,
}

/// A target.
pub(super) struct Target {
    /// What its service is called, though it may be one of the others.
    pub(super) name: String,
    pub(super) behind: Behind,
    pub(super) service: Arc<Service>,
}

/// A [`Pool`] as the recorder holds it.
pub(super) struct PoolSlot {
    pub(super) target: u32,
    pub(super) database: u32,
    pub(super) generation: u32,
    /// `None` once the target was retired.
    pub(super) series: Option<Arc<PoolSeries>>,
    /// Idle, used.
    pub(super) connections: [u64; 2],
}

#[derive(PartialEq, Eq, Hash)]
pub(super) struct OperationKey {
    pub(super) service: usize,
    pub(super) operation: Arc<str>,
    pub(super) collection: Option<Arc<str>>,
    pub(super) database: u32,
    pub(super) code: u64,
    pub(super) ending: Ending,
}

#[derive(PartialEq, Eq, Hash)]
pub(super) struct RequestKey {
    pub(super) service: usize,
    pub(super) method: Method,
    pub(super) route: Arc<str>,
    pub(super) matched: bool,
}

pub(super) struct OperationEntry {
    pub(super) series: Arc<OperationSeries>,
    pub(super) statement: Arc<StatementSeries>,
    pub(super) pool: Arc<PoolSeries>,
    pub(super) service: Arc<Service>,
    pub(super) overflow: bool,
    pub(super) statement_overflow: bool,
    /// It ends a transaction, with this outcome.
    pub(super) transaction: Option<usize>,
    pub(super) reads: bool,
}

pub(super) struct RequestEntry {
    pub(super) series: Arc<RequestSeries>,
    pub(super) overflow: bool,
    pub(super) _pinned: Arc<str>,
}

/// Fingerprint of the statement; target, database and ending; SQLSTATE.
type FastKey = (u64, u64, u64);

/// Writes the database families. There is one, and one thread at a time uses it.
pub struct DatabaseRecorder {
    pub(super) metrics: Arc<DatabaseMetrics>,
    /// Those of `metrics`.
    pub(super) lists: Arc<Lists>,
    pub(super) settings: Settings,
    /// By service: label sets of operations, of requests, and of statements; those with `~other`; databases, pools, label
    /// sets of errors, and modules.
    pub(super) room: Budget,
    pub(super) request_room: Budget,
    pub(super) statement_room: Budget,
    pub(super) spare: Budget,
    pub(super) database_room: Budget,
    pub(super) pool_room: Budget,
    pub(super) error_room: Budget,
    pub(super) module_room: Budget,
    /// Somebody found no room since the last look.
    pub(super) wanted: bool,
    pub(super) looked: Option<Instant>,
    pub(super) targets: FxHashMap<u32, Target>,
    pub(super) places: Places,
    operations_fast: FxHashMap<FastKey, OperationEntry>,
    requests_fast: FxHashMap<(usize, u64), RequestEntry>,
    pub(super) operations: FxHashMap<OperationKey, Kept<OperationSeries>>,
    pub(super) requests: FxHashMap<RequestKey, Kept<RequestSeries>>,
    pub(super) statements: FxHashMap<(usize, u64), Kept<StatementSeries>>,
    pub(super) queries: FxHashMap<(&'static str, Arc<str>), usize>,
    pub(super) query_errors: FxHashMap<(&'static str, u8), usize>,
    pub(super) pools: FxHashMap<(usize, u32), Kept<PoolSeries>>,
    pub(super) slots: Vec<PoolSlot>,
    pub(super) free: Vec<u32>,
    pub(super) slot_of: FxHashMap<(u32, u32), u32>,
    /// Numbers of names of databases, and of address and name.
    pub(super) namespaces: FxHashMap<Arc<str>, u32>,
    pub(super) databases: FxHashMap<(Option<SocketAddr>, u32, System), u32>,
    pub(super) database_labels: Vec<super::admit::Database>,
    pub(super) module_numbers: FxHashMap<Arc<str>, u32>,
    pub(super) module_names: Vec<Arc<str>>,
    /// With the service that it was charged to.
    pub(super) errors: FxHashMap<(u32, Mishap), (usize, Kept<ErrorSeries>)>,
    /// Failed operations of requests that are under way, oldest first.
    pending: VecDeque<(u64, TargetKey, Mishap)>,
    pub(super) other: Arc<str>,
    pub(super) none: Arc<str>,
    pub(super) empty: Arc<str>,
}

impl DatabaseRecorder {
    /// The recorder, and what is to be registered with the exposition.
    #[must_use]
    pub fn new(settings: Settings) -> (Self, Arc<DatabaseMetrics>) {
        let lists = Arc::new(Lists::new(&settings));
        let metrics = Arc::new(DatabaseMetrics::new(Arc::clone(&lists)));
        let room = |units: usize| Budget::with_limit(Store::Series, units.saturating_mul(2));
        let mut recorder = Self {
            metrics: Arc::clone(&metrics),
            lists,
            room: room(settings.operations.saturating_mul(OperationSeries::SIZE)),
            request_room: room(settings.requests.saturating_mul(RequestSeries::SIZE)),
            spare: room(Settings::OVERFLOW),
            statement_room: room(Settings::FULL / 2 * settings.statements.saturating_mul(StatementSeries::SIZE)),
            database_room: room(2 * settings.databases),
            pool_room: room(2 * settings.databases),
            error_room: room(settings.errors),
            module_room: room(settings.errors),
            wanted: false,
            looked: None,
            places: Places::new(settings.services),
            settings,
            targets: FxHashMap::default(),
            operations_fast: FxHashMap::default(),
            requests_fast: FxHashMap::default(),
            operations: FxHashMap::default(),
            requests: FxHashMap::default(),
            statements: FxHashMap::default(),
            queries: FxHashMap::default(),
            query_errors: FxHashMap::default(),
            pools: FxHashMap::default(),
            slots: Vec::new(),
            free: Vec::new(),
            slot_of: FxHashMap::default(),
            namespaces: FxHashMap::default(),
            databases: FxHashMap::default(),
            database_labels: Vec::new(),
            module_numbers: FxHashMap::default(),
            module_names: Vec::new(),
            errors: FxHashMap::default(),
            pending: VecDeque::with_capacity(Settings::PENDING),
            other: Arc::from(crate::contract::series::OTHER),
            none: Arc::from("~none"),
            empty: Arc::from(""),
        };
        recorder.begin();
        (recorder, metrics)
    }

    /// Figures of the budgets of series.
    pub fn meters(&self) -> impl Iterator<Item = Arc<Meter>> {
        [self.room.meter(), self.request_room.meter(), self.statement_room.meter()].into_iter()
    }

    /// Forgets all series, for they are admitted anew.
    pub(super) fn forget_series(&mut self) {
        self.forget_all_shortcuts();
        (self.queries, self.query_errors) = (FxHashMap::default(), FxHashMap::default());
        self.slot_of.clear();
        self.namespaces.clear();
        self.databases.clear();
        self.module_numbers.clear();
        for room in [&mut self.room, &mut self.request_room, &mut self.statement_room, &mut self.spare] {
            room.clear();
        }
        for room in [&mut self.database_room, &mut self.pool_room, &mut self.error_room, &mut self.module_room] {
            room.clear();
        }
    }

    pub(super) fn forget_all_shortcuts(&mut self) {
        // Room for the usual number stays, so that nothing is allocated when they come again.
        self.operations_fast.clear();
        self.operations_fast.shrink_to(1024);
        self.requests_fast.clear();
        self.requests_fast.shrink_to(1024);
    }

    /// Begins to observe a target: the same service name as the HTTP recorder is told. One that is known by this key is
    /// retired first.
    pub fn register_target(&mut self, key: TargetKey, service_name: &str, behind: Behind) {
        self.retire_target(key);
        self.forget_shortcuts(key);
        let name = if service_name.is_empty() { UNKNOWN_SERVICE } else { cut(service_name, LONGEST) };
        let service = self.service(name, behind);
        if self.places.join(name, behind)
            && let Some(index) = self.places.get(name)
        {
            self.share(name, index);
        }
        self.targets.insert(key.0, Target { name: name.to_owned(), behind, service });
    }

    /// Ends the observation of a target: its connections are gone, its series stay.
    pub fn retire_target(&mut self, key: TargetKey) {
        if let Some(target) = self.targets.remove(&key.0) {
            self.places.leave(&target.name);
            self.retire_pools(key);
            self.forget_shortcuts(key);
        }
    }

    fn forget_shortcuts(&mut self, key: TargetKey) {
        self.operations_fast.retain(|(_, packed, _), _| packed >> 32 != u64::from(key.0));
        self.requests_fast.retain(|(_, packed), _| packed >> 32 != u64::from(key.0));
    }

    /// A connection was opened: it is idle.
    pub fn connection_opened(&mut self, pool: Pool) {
        self.connection(pool, None, Some(ConnectionState::Idle));
    }

    /// An idle connection is used.
    pub fn connection_used(&mut self, pool: Pool) {
        self.connection(pool, Some(ConnectionState::Idle), Some(ConnectionState::Used));
    }

    /// A used connection is idle.
    pub fn connection_idle(&mut self, pool: Pool) {
        self.connection(pool, Some(ConnectionState::Used), Some(ConnectionState::Idle));
    }

    /// A connection was closed or is not followed any more.
    pub fn connection_closed(&mut self, pool: Pool, state: ConnectionState) {
        self.connection(pool, Some(state), None);
    }

    fn connection(&mut self, pool: Pool, from: Option<ConnectionState>, to: Option<ConnectionState>) {
        let slot = self.slots.get_mut(pool.slot as usize).filter(|slot| slot.generation == pool.generation);
        let Some((slot, series)) = slot.and_then(|slot| slot.series.clone().map(|series| (slot, series))) else {
            return;
        };
        if let Some(from) = from.map(|state| state as usize) {
            if slot.connections[from] == 0 {
                return;
            }
            slot.connections[from] -= 1;
            bump(&series.connections[from], 1u64.wrapping_neg());
        }
        if let Some(to) = to.map(|state| state as usize) {
            slot.connections[to] += 1;
            bump(&series.connections[to], 1);
            series.counted.store(true, Ordering::Relaxed);
        }
    }

    /// Records an operation that ended. Its statement's fingerprint finds the series. A target that is not registered counts
    /// as `unknown_service`.
    pub fn observe(&mut self, key: TargetKey, operation: &Operation<'_>, exemplar: Option<Exemplar>) {
        let server = operation.addresses.map(|(_, server)| server);
        let database = match self.known_database(server, operation.namespace, operation.system) {
            Some(database) => database,
            None => {
                let service = self.service_number(key);
                self.database(service, server, operation.namespace, operation.system)
            }
        };
        let packed = u64::from(key.0) << 32 | u64::from(database) << 8 | operation.ending as u64;
        let fast = (operation.statement.fingerprint, packed, code(operation));
        if let Some(entry) = self.operations_fast.get(&fast) {
            entry.observe(&self.metrics, operation, exemplar);
        } else {
            let entry = self.admit_operation(key, operation, database);
            entry.observe(&self.metrics, operation, exemplar);
            if self.operations_fast.len() >= self.settings.aliases() {
                // Forget the shortcuts, not the series.
                self.operations_fast.clear();
            }
            self.operations_fast.insert(fast, entry);
        }
        bump(&self.metrics.parents[parent_index(operation.parent)], 1);
        if operation.ending == Ending::Failed {
            self.failed(key, operation);
        }
    }

    /// Remembers the error until its request ends and tells the route.
    #[cold]
    fn failed(&mut self, key: TargetKey, operation: &Operation<'_>) {
        let mishap = operation.sqlstate.map_or(Mishap::Sql(UNKNOWN, super::sqlstate::Severity::Error), |code| {
            Mishap::Sql(class(code), severity(code))
        });
        let Parent::Request(request) = operation.parent else {
            return self.mishap(key, Self::UNKNOWN_MODULE, mishap);
        };
        if self.pending.len() >= Settings::PENDING
            && let Some((_, key, oldest)) = self.pending.pop_front()
        {
            self.mishap(key, Self::UNKNOWN_MODULE, oldest);
        }
        self.pending.push_back((request, key, mishap));
    }

    /// Records what a server request spent; after its operations, and with the route that the HTTP recorder is given.
    /// Exchanges of clients are ignored.
    pub fn observe_request(&mut self, key: TargetKey, exchange: &Exchange<'_>, route: &Route) {
        if exchange.side != Side::Server {
            return;
        }
        // The content of an Arc is aligned, so that the lowest bit is free.
        let matched = usize::from(route.source != Source::Unmatched);
        let packed = u64::from(key.0) << 32 | exchange.method as u64;
        let fast = (route.template.as_ptr().addr() | matched, packed);
        let module = if let Some(entry) = self.requests_fast.get(&fast) {
            entry.observe(&self.metrics, exchange, self.settings.repeated)
        } else {
            let entry = self.admit_request(key, exchange.method, route);
            let module = entry.observe(&self.metrics, exchange, self.settings.repeated);
            if self.requests_fast.len() >= 4 * self.settings.request_capacity() {
                self.requests_fast.clear();
            }
            self.requests_fast.insert(fast, entry);
            module
        };
        if exchange.status >= 500 {
            self.mishap(key, module, Mishap::Http(exchange.status));
        }
        if !self.pending.is_empty() {
            self.settle(exchange.id, module);
        }
    }

    /// Counts the errors of a request under its module.
    #[cold]
    fn settle(&mut self, request: u64, module: u32) {
        let mut at = 0;
        while let Some((id, key, mishap)) = self.pending.get(at).copied() {
            if id == request {
                self.pending.remove(at);
                self.mishap(key, module, mishap);
            } else {
                at += 1;
            }
        }
    }
}

/// SQLSTATE as a number, 0 for none.
pub(super) fn code(operation: &Operation<'_>) -> u64 {
    operation.sqlstate.map_or(0, |code| code.iter().fold(0, |packed, byte| packed << 8 | u64::from(*byte)))
}

impl OperationEntry {
    fn observe(&self, metrics: &DatabaseMetrics, operation: &Operation<'_>, exemplar: Option<Exemplar>) {
        if self.overflow {
            bump(&metrics.overflow.operations, 1);
        }
        if self.statement_overflow {
            bump(&metrics.overflow.statements, 1);
        }
        let statement = &self.statement;
        let start = if operation.start_ns == 0 { operation.send_ns } else { operation.start_ns };
        if start == 0 {
            bump(&self.series.timeless, 1);
        } else {
            let trace =
                exemplar.map(|exemplar| (u128::from_be_bytes(exemplar.trace_id), u64::from_be_bytes(exemplar.span_id)));
            let duration = operation.end_ns.saturating_sub(start);
            self.series.timed.observe(&DURATION_BOUNDS, duration, operation.end_ns, trace);
            bump(&statement.ns, duration);
        }
        bump(&statement.calls, 1);
        if let Some(rows) = operation.rows {
            bump(&statement.rows, rows);
            if self.reads && operation.ending == Ending::Complete {
                self.series.rows.get_or_init(|| Box::new(Histogram::new())).observe(&ROWS_BOUNDS, rows);
            }
        }
        if operation.ending == Ending::Failed {
            bump(&statement.errors, 1);
        }
        if let Some(wait) = operation.pool_wait_ns() {
            self.pool.wait.observe(&DURATION_BOUNDS, wait);
        }
        let counts = &self.service;
        bump(&counts.operations[operation.sight as usize][operation.ending as usize], 1);
        if let Some(outcome) = self.transaction {
            bump(&counts.transactions[outcome], 1);
        }
    }
}

impl RequestEntry {
    /// Records, and yields the module.
    fn observe(&self, metrics: &DatabaseMetrics, exchange: &Exchange<'_>, bound: u32) -> u32 {
        if self.overflow {
            bump(&metrics.overflow.requests, 1);
        }
        let series = &self.series;
        for (histogram, phase) in series.phases.iter().zip(phases(exchange)) {
            if let Some(ns) = phase {
                histogram.observe(&PHASE_BOUNDS, ns);
            }
        }
        if let Some(spent) = exchange.spent {
            series.queries.observe(&QUERIES_BOUNDS, u64::from(spent.queries));
            if spent.most_repeated.is_some_and(|(_, times)| times > bound) {
                bump(&series.repeated, 1);
            }
        }
        series.module.load(Ordering::Relaxed)
    }
}

/// The time of each of [`PHASES`], as far as it is known.
fn phases(exchange: &Exchange<'_>) -> [Option<u64>; PHASES.len()] {
    let between = |from: u64, to: u64| if from == 0 || to < from { None } else { Some(to - from) };
    let Exchange { start_ns, first_io_ns, request_end_ns, response_start_ns, end_ns, .. } = *exchange;
    // Where the arrival was not seen, `start_ns` is `first_io_ns`.
    let socket_wait = between(start_ns, first_io_ns).filter(|wait| *wait > 0);
    // A server may answer before the request is whole.
    let begin = if request_end_ns != 0 && request_end_ns <= response_start_ns { request_end_ns } else { first_io_ns };
    let busy = exchange.spent.map_or(0, |spent| spent.busy_ns);
    let whole = matches!(exchange.outcome, Outcome::Complete | Outcome::Upgraded);
    let of = |ns: fn(&Spent<'_>) -> u64| exchange.spent.map(ns);
    [
        socket_wait,
        between(first_io_ns, request_end_ns),
        between(begin, response_start_ns).map(|time| time.saturating_sub(busy)),
        of(|spent| spent.pool_wait_ns),
        of(|spent| spent.first_byte_ns),
        of(|spent| spent.database_ns),
        between(response_start_ns, end_ns).filter(|_| whole),
    ]
}
