//! The database recorder's rare path: admits new services, databases, label sets and statements, within the caps.
//!
//! Reads: the first observation of a label set. Yields: its series, or that of `~other`. Costs: allocates; once per label set.

use super::module::UNKNOWN;
use super::recorder::{DatabaseRecorder, OperationEntry, OperationKey, Pool, PoolSlot, RequestEntry, RequestKey, code};
use super::series::{
    ENDINGS, ErrorSeries, Mishap, OperationSeries, PHASES, PoolSeries, RequestSeries, SIGHTS, Service, StatementSeries,
    TRANSACTION_OUTCOMES, query_type, reads, transaction,
};
use super::sqlstate::{self, NAMES};
use crate::contract::histogram::{Histogram, bump};
use crate::contract::list::List;
use crate::contract::places::UNKNOWN_SERVICE;
use crate::contract::recorder::{Behind, Kept, LONGEST, TargetKey};
use crate::contract::series::{OTHER, Timed};
use crate::database::{Ending, Operation, System};
use crate::exchange::Method;
use crate::exposition::LabelSet;
use crate::route::{Route, Source};
use crate::statement::Statement;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::sync::{Arc, OnceLock};

/// Labels of a database.
#[derive(Clone)]
pub(super) struct Database {
    address: Arc<str>,
    port: Arc<str>,
    namespace: Arc<str>,
    system: System,
}

/// Number of the database of which nothing is known.
const NO_DATABASE: u32 = 0;
/// Number of the databases beyond the cap.
pub(super) const OTHER_DATABASE: u32 = 1;
/// Number of the name of a database that has none.
const NO_NAMESPACE: u32 = 0;
/// The longest text of a statement in a label, in characters.
const TEXT: usize = 120;

impl DatabaseRecorder {
    /// Number of the module without a name.
    pub(super) const UNKNOWN_MODULE: u32 = 0;
    /// Number of the modules beyond the cap.
    pub(super) const OTHER_MODULE: u32 = 1;

    /// Fills in what has a fixed number.
    pub(super) fn begin(&mut self) {
        let (empty, other) = (&self.empty, &self.other);
        let none = |of: &Arc<str>| Database {
            address: Arc::clone(of),
            port: Arc::clone(empty),
            namespace: Arc::clone(empty),
            system: System::default(),
        };
        self.database_labels = vec![none(empty), none(other)];
        self.databases.insert((None, NO_NAMESPACE, System::default()), NO_DATABASE);
        self.module_names = vec![Arc::from(UNKNOWN), Arc::clone(other)];
        self.module_numbers.insert(Arc::from(UNKNOWN), Self::UNKNOWN_MODULE);
        self.module_numbers.insert(Arc::clone(other), Self::OTHER_MODULE);
    }

    /// The service of this name, or `~other` where it has no place.
    pub(super) fn service(&mut self, name: &str, behind: Behind) -> Arc<Service> {
        let index = self.service_index(name, behind);
        // It was pushed when it was given its index.
        self.lists.services.get(index).cloned().unwrap_or_else(|| unreachable!("the service is there"))
    }

    fn service_index(&mut self, name: &str, behind: Behind) -> usize {
        let name = match self.places.seat(name, behind) {
            Ok(index) => return index,
            Err(name) => name,
        };
        let index = self.new_service(name);
        self.places.give(name, index, behind);
        self.share(name, index);
        index
    }

    /// What a service has counts for its user.
    pub(super) fn share(&mut self, name: &str, service: usize) {
        let user = self.places.user(name);
        for room in [&mut self.room, &mut self.request_room, &mut self.statement_room, &mut self.spare] {
            room.join(service as u32, user);
        }
        for room in [&mut self.database_room, &mut self.pool_room, &mut self.error_room, &mut self.module_room] {
            room.join(service as u32, user);
        }
    }

    pub(super) fn new_service(&self, name: &str) -> usize {
        let service = Service {
            name: name.to_owned(),
            operations: [const { [const { AtomicU64::new(0) }; ENDINGS.len()] }; SIGHTS.len()],
            transactions: [const { AtomicU64::new(0) }; TRANSACTION_OUTCOMES.len()],
            statements: List::with_capacity(self.settings.statements),
            others: OnceLock::new(),
        };
        // There is room: for as many as there are places.
        self.lists.services.push(Arc::new(service)).unwrap_or(self.settings.services)
    }

    fn service_of(&mut self, key: TargetKey) -> (usize, Arc<Service>) {
        let service = match self.targets.get(&key.0) {
            Some(target) => Arc::clone(&target.service),
            None => self.service(UNKNOWN_SERVICE, Behind::Trusted),
        };
        (self.places.get(&service.name).unwrap_or(0), service)
    }

    /// Number of the service of a target.
    pub(super) fn service_number(&mut self, key: TargetKey) -> usize {
        self.service_of(key).0
    }

    /// Number of the database at this address and of this name, where it has one: two look-ups.
    pub(super) fn known_database(
        &self,
        server: Option<SocketAddr>,
        namespace: Option<&Arc<str>>,
        system: System,
    ) -> Option<u32> {
        let name = namespace.map_or(Some(NO_NAMESPACE), |name| self.namespaces.get(name).copied())?;
        self.databases.get(&(server, name, system)).copied()
    }

    /// Number of the database at this address and of this name, given where it is new to a service.
    pub(super) fn database(
        &mut self,
        service: usize,
        server: Option<SocketAddr>,
        namespace: Option<&Arc<str>>,
        system: System,
    ) -> u32 {
        if let Some(number) = self.known_database(server, namespace, system) {
            return number;
        }
        if !self.database_room.charge(service as u32, self.units(namespace)) {
            self.wanted = true;
            return OTHER_DATABASE;
        }
        self.new_database(server, namespace, system)
    }

    /// What a database costs: one, and one for a name that is new.
    pub(super) fn units(&self, namespace: Option<&Arc<str>>) -> usize {
        1 + usize::from(namespace.is_some_and(|name| !self.namespaces.contains_key(name)))
    }

    pub(super) fn new_database(
        &mut self,
        server: Option<SocketAddr>,
        namespace: Option<&Arc<str>>,
        system: System,
    ) -> u32 {
        let next = self.namespaces.len() as u32 + 1;
        let name = namespace.map_or(NO_NAMESPACE, |name| *self.namespaces.entry(Arc::clone(name)).or_insert(next));
        let empty = || Arc::clone(&self.empty);
        self.database_labels.push(Database {
            address: server.map_or_else(empty, |server| server.ip().to_canonical().to_string().into()),
            port: server.map_or_else(empty, |server| server.port().to_string().into()),
            namespace: namespace.map_or_else(empty, Arc::clone),
            system,
        });
        let number = self.database_labels.len() as u32 - 1;
        self.databases.insert((server, name, system), number);
        number
    }

    /// A handle for the connections of a target to a database, for the connection gauges. The name of the database is to be
    /// known by then, or stays unknown. `None` where the target is not registered.
    pub fn pool(&mut self, key: TargetKey, server: Option<SocketAddr>, namespace: Option<&Arc<str>>) -> Option<Pool> {
        if !self.targets.contains_key(&key.0) {
            return None;
        }
        let service = self.service_number(key);
        let database = self.database(service, server, namespace, System::default());
        let slot = match self.slot_of.get(&(key.0, database)) {
            Some(slot) => *slot,
            None => self.new_slot(key, database),
        };
        Some(Pool { slot, generation: self.slots.get(slot as usize)?.generation })
    }

    fn new_slot(&mut self, key: TargetKey, database: u32) -> u32 {
        let (service, state) = self.service_of(key);
        let series = Some(self.pool_series(service, &state, database));
        let slot = match self.free.pop() {
            Some(slot) => {
                let entry = &mut self.slots[slot as usize];
                *entry =
                    PoolSlot { target: key.0, database, generation: entry.generation, series, connections: [0; 2] };
                slot
            }
            None => {
                self.slots.push(PoolSlot { target: key.0, database, generation: 0, series, connections: [0; 2] });
                self.slots.len() as u32 - 1
            }
        };
        self.slot_of.insert((key.0, database), slot);
        slot
    }

    /// The connections of a target are gone; handles to them mean nothing any more.
    pub(super) fn retire_pools(&mut self, key: TargetKey) {
        for (at, slot) in self.slots.iter_mut().enumerate() {
            let Some(series) = slot.series.take_if(|_| slot.target == key.0) else { continue };
            for (cell, connections) in series.connections.iter().zip(slot.connections) {
                bump(cell, connections.wrapping_neg());
            }
            slot.generation = slot.generation.wrapping_add(1);
            self.slot_of.remove(&(slot.target, slot.database));
            self.free.push(at as u32);
        }
    }

    pub(super) fn pool_series(&mut self, service: usize, state: &Service, database: u32) -> Arc<PoolSeries> {
        if let Some(kept) = self.pools.get(&(service, database)) {
            return Arc::clone(&kept.series);
        }
        // One of the others is there for each service.
        let fits = database == OTHER_DATABASE || self.pool_room.charge(service as u32, 1);
        self.wanted |= !fits;
        let database = if fits { database } else { OTHER_DATABASE };
        let labels = &self.database_labels[database as usize];
        let metrics = &self.lists;
        let kept = self.pools.entry((service, database)).or_insert_with(|| {
            // The name that the semantic conventions give a pool without one.
            let name = match (&*labels.address, &*labels.port, &*labels.namespace) {
                ("", ..) => UNKNOWN.to_owned(),
                (address, "", _) => address.to_owned(),
                (address, port, "") => format!("{address}:{port}"),
                (address, port, namespace) => format!("{address}:{port}/{namespace}"),
            };
            let values = [state.name.as_str(), &name];
            let of_state = |text| {
                let values = [state.name.as_str(), &name, text];
                LabelSet::new(super::CONNECTION_COUNT.labels.iter().copied().zip(values))
            };
            let series = Arc::new(PoolSeries {
                labels: LabelSet::new(super::CONNECTION_WAIT.labels.iter().copied().zip(values)),
                state_labels: ["idle", "used"].map(of_state),
                connections: [const { AtomicU64::new(0) }; 2],
                counted: AtomicBool::new(false),
                wait: Histogram::new(),
            });
            metrics.pools.push(Arc::clone(&series));
            Kept::new(series)
        });
        Arc::clone(&kept.series)
    }

    /// The series of an operation whose label set is new to this target.
    pub(super) fn admit_operation(
        &mut self,
        key: TargetKey,
        operation: &Operation<'_>,
        database: u32,
    ) -> OperationEntry {
        let (service, state) = self.service_of(key);
        let told = operation.statement;
        let pool = self.pool_series(service, &state, database);
        let (statement, statement_overflow) = self.statement(service, &state, told);
        let (series, overflow) = self.operation(service, &state, operation, database);
        OperationEntry {
            series,
            statement,
            pool,
            service: state,
            overflow: overflow || database == OTHER_DATABASE,
            statement_overflow,
            transaction: transaction(&told.operation, &told.text, operation.ending),
            reads: reads(&told.operation),
        }
    }

    /// The series, and whether it is that of others.
    fn operation(
        &mut self,
        service: usize,
        state: &Service,
        operation: &Operation<'_>,
        database: u32,
    ) -> (Arc<OperationSeries>, bool) {
        let Operation { statement, ending, .. } = *operation;
        let collection = statement.collection.clone();
        let full = OperationKey {
            service,
            operation: Arc::clone(&statement.operation),
            collection: collection.clone(),
            database,
            code: code(operation),
            ending,
        };
        if let Some(series) = self.operations.get(&full) {
            return (Arc::clone(&series.series), false);
        }
        if self.charge_operation(service, false) {
            return (self.new_operation(full, state, operation.sqlstate), false);
        }
        let other = Some(Arc::clone(&self.other));
        let less = OperationKey { collection: other.clone(), database: OTHER_DATABASE, ..full };
        self.wanted = true;
        if let Some(kept) = self.operations.get(&less) {
            return (Arc::clone(&kept.series), true);
        }
        if self.charge_operation(service, true) {
            return (self.new_operation(less, state, operation.sqlstate), true);
        }
        let operation = Arc::clone(&self.empty);
        let least = OperationKey { operation, code: 0, ..less };
        if let Some(kept) = self.operations.get(&least) {
            return (Arc::clone(&kept.series), true);
        }
        (self.new_operation(least, state, None), true)
    }

    /// Takes room for a label set of operations; `other`: with the table `~other`.
    pub(super) fn charge_operation(&mut self, service: usize, other: bool) -> bool {
        if other {
            self.spare.charge(service as u32, 1)
        } else {
            self.room.charge(service as u32, OperationSeries::SIZE)
        }
    }

    /// Takes room for a label set of requests; `other`: with the route `~other`.
    pub(super) fn charge_request(&mut self, service: usize, other: bool) -> bool {
        if other {
            self.spare.charge(service as u32, 1)
        } else {
            self.request_room.charge(service as u32, RequestSeries::SIZE)
        }
    }

    pub(super) fn new_operation(
        &mut self,
        key: OperationKey,
        state: &Service,
        sqlstate: Option<[u8; 5]>,
    ) -> Arc<OperationSeries> {
        let database = self.database_labels[key.database as usize].clone();
        let status = sqlstate.map_or_else(String::new, |code| String::from_utf8_lossy(&code).into_owned());
        let error = match key.ending {
            Ending::Complete => "",
            Ending::Failed if status.is_empty() => "_OTHER",
            Ending::Failed => &status,
            Ending::Cancelled => "cancelled",
            Ending::Incomplete => "incomplete",
        };
        let values = [
            &state.name,
            database.system.as_str(),
            &key.operation,
            key.collection.as_deref().unwrap_or(""),
            &database.namespace,
            &status,
            error,
            &database.address,
            &database.port,
        ];
        let labels = LabelSet::new(super::OPERATION_DURATION.labels.iter().copied().zip(values));
        let kind = query_type(&key.operation);
        let class = sqlstate.map_or(sqlstate::UNKNOWN, sqlstate::class);
        let series = Arc::new(OperationSeries {
            labels,
            query: self.query(kind, key.collection.clone()),
            error: (key.ending == Ending::Failed).then(|| self.query_error(kind, class)),
            timeless: AtomicU64::new(0),
            timed: Timed::new(),
            rows: OnceLock::new(),
        });
        self.lists.operations.push(Arc::clone(&series));
        self.operations.insert(key, Kept::new(Arc::clone(&series)));
        series
    }

    /// Index of RusToK's labels of a query. There are never more than series of operations, hence always room.
    fn query(&mut self, kind: &'static str, table: Option<Arc<str>>) -> usize {
        let (metrics, table) = (&self.lists, table.unwrap_or_else(|| Arc::clone(&self.none)));
        *self.queries.entry((kind, Arc::clone(&table))).or_insert_with(|| {
            let labels = LabelSet::new(super::QUERY_DURATION.labels.iter().copied().zip([kind, &table]));
            metrics.queries.push(labels).unwrap_or(0)
        })
    }

    fn query_error(&mut self, kind: &'static str, class: u8) -> usize {
        let metrics = &self.lists;
        *self.query_errors.entry((kind, class)).or_insert_with(|| {
            let values = [kind, NAMES[usize::from(class)]];
            metrics
                .query_errors
                .push(LabelSet::new(super::QUERY_ERRORS.labels.iter().copied().zip(values)))
                .unwrap_or(0)
        })
    }

    /// The statement's series, and whether it is that of others.
    fn statement(&mut self, service: usize, state: &Service, statement: &Statement) -> (Arc<StatementSeries>, bool) {
        if let Some(kept) = self.statements.get(&(service, statement.fingerprint)) {
            return (Arc::clone(&kept.series), false);
        }
        let overflow = state.statements.len() >= self.settings.statements
            || !self.statement_room.charge(service as u32, StatementSeries::SIZE);
        self.wanted |= overflow;
        if let Some(others) = state.others.get().filter(|_| overflow) {
            return (Arc::clone(others), true);
        }
        let (fingerprint, text) = (format!("{:016x}", statement.fingerprint), cut(&statement.text));
        let values = if overflow {
            [state.name.as_str(), OTHER, "", ""]
        } else {
            [state.name.as_str(), &fingerprint, &statement.summary, &text]
        };
        let series = Arc::new(StatementSeries {
            labels: LabelSet::new(super::STATEMENT_CALLS.labels.iter().copied().zip(values)),
            calls: AtomicU64::new(0),
            ns: AtomicU64::new(0),
            rows: AtomicU64::new(0),
            errors: AtomicU64::new(0),
        });
        if overflow {
            let _ = state.others.set(Arc::clone(&series));
        } else {
            state.statements.push(Arc::clone(&series));
            self.statements.insert((service, statement.fingerprint), Kept::new(Arc::clone(&series)));
        }
        (series, overflow)
    }

    /// The series of a request whose label set is new to this target.
    pub(super) fn admit_request(&mut self, key: TargetKey, method: Method, route: &Route) -> RequestEntry {
        let (service, state) = self.service_of(key);
        let _pinned = Arc::clone(&route.template);
        let matched = route.source != Source::Unmatched;
        let full = RequestKey { service, method, route: Arc::clone(&route.template), matched };
        let fits =
            self.requests.contains_key(&full) || full.route.len() <= LONGEST && self.charge_request(service, false);
        let (key, overflow) = if fits {
            (full, false)
        } else {
            self.wanted = true;
            let less = RequestKey { route: Arc::clone(&self.other), matched: true, ..full };
            let fits = self.requests.contains_key(&less) || self.charge_request(service, true);
            (if fits { less } else { RequestKey { method: Method::Other, ..less } }, true)
        };
        if let Some(kept) = self.requests.get(&key) {
            return RequestEntry { series: Arc::clone(&kept.series), overflow, _pinned };
        }
        let name = if overflow { UNKNOWN.to_owned() } else { self.settings.modules.of(route).to_owned() };
        let module = self.module(service, &name);
        let template = if key.matched { &*key.route } else { "" };
        let values = [state.name.as_str(), method_of(&key), template];
        let of_phase = |phase| {
            let [service, method, route] = values;
            LabelSet::new(super::REQUEST_PHASE.labels.iter().copied().zip([service, method, route, phase]))
        };
        let series = Arc::new(RequestSeries {
            labels: LabelSet::new(super::REQUEST_QUERIES.labels.iter().copied().zip(values)),
            phase_labels: PHASES.map(of_phase),
            phases: [const { Histogram::new() }; PHASES.len()],
            queries: Histogram::new(),
            repeated: AtomicU64::new(0),
            module: AtomicU32::new(module),
        });
        self.lists.requests.push(Arc::clone(&series));
        self.requests.insert(key, Kept::new(Arc::clone(&series)));
        RequestEntry { series, overflow, _pinned }
    }

    /// Number of a module, given where it is new to a service.
    fn module(&mut self, service: usize, name: &str) -> u32 {
        if let Some(number) = self.module_numbers.get(name) {
            return *number;
        }
        if !self.module_room.charge(service as u32, 1) {
            self.wanted = true;
            return Self::OTHER_MODULE;
        }
        self.new_module(name)
    }

    pub(super) fn new_module(&mut self, name: &str) -> u32 {
        let (name, number) = (Arc::<str>::from(name), self.module_names.len() as u32);
        self.module_names.push(Arc::clone(&name));
        self.module_numbers.insert(name, number);
        number
    }

    /// Counts an error of a module. One look-up; allocates for a label set that is new.
    pub(super) fn mishap(&mut self, key: TargetKey, module: u32, mishap: Mishap) {
        if let Some((_, kept)) = self.errors.get(&(module, mishap)) {
            return bump(&kept.series.count, 1);
        }
        let service = self.service_number(key);
        if self.error_room.charge(service as u32, 1) {
            return bump(&self.new_mishap(service, module, mishap).count, 1);
        }
        self.wanted = true;
        bump(&self.metrics.overflow.errors, 1);
        let other = Mishap::Other(mishap.severity());
        match self.errors.get(&(Self::OTHER_MODULE, other)) {
            Some((_, kept)) => bump(&kept.series.count, 1),
            None => bump(&self.new_mishap(service, Self::OTHER_MODULE, other).count, 1),
        }
    }

    fn new_mishap(&mut self, service: usize, module: u32, mishap: Mishap) -> Arc<ErrorSeries> {
        let status;
        let kind = match mishap {
            Mishap::Http(code) => {
                status = format!("http_{code}");
                status.as_str()
            }
            Mishap::Sql(class, _) => NAMES[usize::from(class)],
            Mishap::Other(_) => OTHER,
        };
        let values = [&*self.module_names[module as usize], kind, mishap.severity().as_str()];
        let labels = LabelSet::new(super::ERRORS.labels.iter().copied().zip(values));
        let series = Arc::new(ErrorSeries { labels, count: AtomicU64::new(0) });
        self.lists.errors.push(Arc::clone(&series));
        self.errors.insert((module, mishap), (service, Kept::new(Arc::clone(&series))));
        series
    }
}

fn method_of(key: &RequestKey) -> &'static str {
    key.method.as_str()
}

/// The text as the label holds it. Of a text that is too long the list of columns goes first: what follows tells one
/// statement from another, and mappers name every column.
fn cut(text: &str) -> String {
    if text.char_indices().nth(TEXT).is_none() {
        return text.to_owned();
    }
    let elided = columns(text).map(|(head, rest)| format!("{head} …{rest}"));
    let text = elided.as_deref().unwrap_or(text);
    match text.char_indices().nth(TEXT) {
        None => text.to_owned(),
        Some(_) => text.chars().take(TEXT - 1).chain(['…']).collect(),
    }
}

/// `SELECT`, and what follows its list of columns: from the `FROM` outside of parentheses and quotes on.
fn columns(text: &str) -> Option<(&str, &str)> {
    const SELECT: usize = "SELECT".len();
    let head = text.get(..SELECT).filter(|head| head.eq_ignore_ascii_case("SELECT"))?;
    let (mut depth, mut quoted) = (0_u32, false);
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            b'"' => quoted = !quoted,
            b'(' if !quoted => depth += 1,
            b')' if !quoted => depth = depth.saturating_sub(1),
            b' ' if depth == 0 && !quoted => {
                let rest = text.get(index..)?;
                if rest.get(..6).is_some_and(|word| word.eq_ignore_ascii_case(" FROM ")) {
                    return Some((head, rest));
                }
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod cut_tests {
    use super::{TEXT, cut};

    #[test]
    fn a_long_list_of_columns_goes_before_what_tells_statements_apart() {
        let list = (0..40).map(|n| format!("\"t\".\"c{n}\"")).collect::<Vec<_>>().join(", ");
        let rest = "FROM \"shop\".\"t\" WHERE \"t\".\"id\" = $1";
        assert_eq!(cut(&format!("SELECT {list} {rest}")), format!("SELECT … {rest}"));
        assert_eq!(
            cut(&format!("select (SELECT a FROM b), \" FROM \", {list} from t")),
            "select … from t",
            "neither a parenthesis nor a quoted name ends the list"
        );
        let short = format!("SELECT a {rest}");
        assert_eq!(cut(&short), short);
        let long = cut(&format!("INSERT INTO t ({list}) VALUES (?)"));
        assert!(long.chars().count() == TEXT && long.ends_with('…'), "{long}");
    }
}
