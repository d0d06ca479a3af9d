//! Where what was observed goes: metrics and spans.
//!
//! Reads: exchanges and operations that ended. Yields: observations in the recorders, spans to the tracer. Costs: see
//! [`crate::contract::recorder`] and [`crate::trace`].

use std::{net::SocketAddr, sync::Arc, time::Instant};

use rustc_hash::FxHashMap;

use crate::{
    budget::{Meter, shrink},
    contract::{
        database::{ConnectionState, DatabaseRecorder, Pool},
        recorder::{Exemplar, HttpRecorder, TargetKey, TargetLabels},
    },
    database::{Operation, Tracker, sockets::Change, task_key},
    exchange::{Exchange, Side},
    route::{Route, RouteNamer, Source, UNMATCHED},
    trace::{Addresses, TargetResource, Tracer},
};

/// A target and the names of its routes.
pub(super) struct Named {
    pub(super) key: TargetKey,
    namer: RouteNamer,
    /// What client exchanges have for a route.
    none: Route,
}

impl Named {
    pub(super) fn new(key: TargetKey, namer: RouteNamer) -> Self {
        Self { key, namer, none: Route { template: UNMATCHED.into(), source: Source::Unmatched } }
    }
}

/// See the module's head.
pub(super) struct Outputs {
    pub(super) recorder: HttpRecorder,
    pub(super) database: DatabaseRecorder,
    pub(super) tracer: Option<Tracer>,
    /// The pool of each connection to a database.
    pub(super) pools: FxHashMap<u64, Pool>,
}

impl Outputs {
    pub(super) fn add_target(&mut self, key: TargetKey, labels: TargetLabels, resource: Arc<TargetResource>) {
        self.database.register_target(key, &labels.service_name);
        self.recorder.register_target(key, labels);
        if let Some(tracer) = &mut self.tracer {
            tracer.add_target(key, resource);
        }
    }

    /// Figures of what is kept.
    pub(super) fn meters(&self) -> impl Iterator<Item = Arc<Meter>> {
        let spans = self.tracer.as_ref().map(Tracer::meter);
        self.recorder.meters().chain(self.database.meters()).chain(spans)
    }

    /// Time goes by: called about once a second.
    pub(super) fn age(&mut self) {
        shrink(&mut self.pools);
        self.recorder.age(Instant::now());
        self.database.age(Instant::now());
    }

    pub(super) fn remove_target(&mut self, key: TargetKey) {
        self.recorder.retire_target(key);
        self.database.retire_target(key);
        if let Some(tracer) = &mut self.tracer {
            tracer.remove_target(key);
        }
    }

    /// An operation ended.
    pub(super) fn operation(&mut self, key: Option<TargetKey>, operation: &Operation<'_>) {
        let Some(key) = key else { return };
        let ids = self.tracer.as_mut().and_then(|tracer| tracer.offer_operation(key, operation));
        let exemplar = ids.map(|ids| Exemplar { trace_id: ids.trace_id, span_id: ids.span_id });
        self.database.observe(key, operation, exemplar);
    }

    /// A connection turned out to be one to a database.
    pub(super) fn link_opened(&mut self, key: TargetKey, conn: u64, remote: SocketAddr, namespace: Option<&Arc<str>>) {
        if let Some(pool) = self.database.pool(key, Some(remote), namespace) {
            self.link_closed(conn, false);
            self.pools.insert(conn, pool);
            self.database.connection_opened(pool);
        }
    }

    /// A connection to a database is used, or not any more.
    pub(super) fn link_changed(&mut self, conn: u64, change: Change) {
        let Some(&pool) = self.pools.get(&conn) else { return };
        match change {
            Change::Opened => {}
            Change::Used => self.database.connection_used(pool),
            Change::Idle => self.database.connection_idle(pool),
        }
    }

    /// A connection to a database was closed.
    pub(super) fn link_closed(&mut self, conn: u64, used: bool) {
        if let Some(pool) = self.pools.remove(&conn) {
            let state = if used { ConnectionState::Used } else { ConnectionState::Idle };
            self.database.connection_closed(pool, state);
        }
    }

    /// A request ended: names its route, adds what it spent in the database, samples the trace, records.
    pub(super) fn exchange(
        &mut self,
        named: &mut Named,
        databases: &mut Tracker,
        tgid: u32,
        addresses: Addresses,
        lossy: bool,
        exchange: &Exchange<'_>,
    ) {
        if exchange.side == Side::Client {
            // A client's path belongs to another service: its route is not known, and its path is never a label.
            let none = named.none.clone();
            return self.record(named.key, exchange, &none, addresses);
        }
        let route = if lossy {
            named.namer.name(&Exchange { routes_exact: false, ..*exchange })
        } else {
            named.namer.name(exchange)
        };
        let key = named.key;
        databases.settle(task_key(tgid, exchange.task, exchange.tid), exchange.end_ns, &mut |_, operation| {
            self.operation(Some(key), operation);
        });
        if lossy {
            databases.requests.doubt(exchange.id);
        }
        databases.requests.end(exchange.id, exchange.end_ns, |account| match account {
            Some((spent, ids)) => {
                self.record(key, &Exchange { spent: Some(spent), ids, ..*exchange }, &route, addresses);
            }
            None => self.record(key, exchange, &route, addresses),
        });
        if exchange.told {
            self.recorder.request_ended(key, exchange.method);
        }
    }

    fn record(&mut self, key: TargetKey, exchange: &Exchange<'_>, route: &Route, addresses: Addresses) {
        let told = matches!(route.source, Source::Axum | Source::Pattern | Source::Learned).then_some(route);
        let ids = self.tracer.as_mut().and_then(|tracer| tracer.offer(key, exchange, told, addresses));
        let exemplar = ids.map(|ids| Exemplar { trace_id: ids.trace_id, span_id: ids.span_id });
        self.recorder.observe(key, exchange, route, exemplar);
        self.database.observe_request(key, exchange, route);
    }
}
