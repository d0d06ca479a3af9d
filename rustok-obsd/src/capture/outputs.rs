//! Where what was observed goes: metrics and spans.
//!
//! Reads: exchanges and operations that ended. Yields: observations in the recorders, spans to the tracer. Costs: see
//! [`crate::contract::recorder`] and [`crate::trace`].

use std::{net::SocketAddr, sync::Arc, time::Instant};

use rustc_hash::FxHashMap;

use super::parked::{Parked, Parking};
use crate::{
    budget::{Meter, shrink},
    contract::{
        database::{ConnectionState, DatabaseRecorder, Pool},
        own::Counters,
        recorder::{Exemplar, HttpRecorder, TargetKey, TargetLabels},
        routing::LearnerEvent,
    },
    database::{Operation, Spent, Tracker, sockets::Change, task_key},
    exchange::{Exchange, Routed, Side},
    route::{Learned, Route, RouteNamer, Source, UNMATCHED},
    trace::{Addresses, Decision, TargetResource, Tracer},
};

/// A target and the names of its routes.
pub(super) struct Named {
    pub(super) key: TargetKey,
    /// Its process.
    tgid: u32,
    namer: RouteNamer,
    /// What client exchanges have for a route.
    none: Route,
    /// What its learner had done at the last look.
    told: Learned,
}

impl Named {
    pub(super) fn new(key: TargetKey, tgid: u32, namer: RouteNamer) -> Self {
        let none = Route { template: UNMATCHED.into(), source: Source::Unmatched };
        Self { key, tgid, namer, none, told: Learned::default() }
    }

    /// Adds what its learner did since the last look to the daemon's own metrics.
    pub(super) fn publish(&mut self, own: &Counters<LearnerEvent>) {
        let now = self.namer.counts().learner;
        let told = std::mem::replace(&mut self.told, now);
        own.add(LearnerEvent::WordLearned, now.words - told.words);
        own.add(LearnerEvent::WordAged, now.aged_words - told.aged_words);
        own.add(LearnerEvent::PlaceOpened, now.opened_places - told.opened_places);
        own.add(LearnerEvent::PlaceRefused, now.refused_places - told.refused_places);
        own.add(LearnerEvent::RouteReclaimed, now.reclaimed_routes - told.reclaimed_routes);
        own.add(LearnerEvent::RouteRefused, now.refused_routes - told.refused_routes);
    }

    /// The route of an exchange that waited for it.
    pub(super) fn name(&mut self, exchange: &Exchange<'_>) -> Route {
        self.namer.name(exchange)
    }
}

/// See the module's head.
pub(super) struct Outputs {
    pub(super) recorder: HttpRecorder,
    pub(super) database: DatabaseRecorder,
    pub(super) tracer: Option<Tracer>,
    /// The pool of each connection to a database.
    pub(super) pools: FxHashMap<u64, Pool>,
    /// Exchanges that wait for their route.
    pub(super) parking: Parking,
}

impl Outputs {
    pub(super) fn add_target(&mut self, key: TargetKey, labels: TargetLabels, resource: Arc<TargetResource>) {
        self.database.register_target(key, &labels.service_name, labels.behind);
        self.recorder.register_target(key, labels);
        if let Some(tracer) = &mut self.tracer {
            tracer.add_target(key, resource);
        }
    }

    /// Figures of what is kept.
    pub(super) fn meters(&self) -> impl Iterator<Item = Arc<Meter>> {
        let spans = self.tracer.as_ref().map(Tracer::meter);
        self.recorder.meters().chain(self.database.meters()).chain(spans).chain([self.parking.meter()])
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

    /// A request ended: names its route, or lets it wait for that, adds what it spent in the database, samples the trace, records.
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
        let exchange = &Exchange { routes_exact: exchange.routes_exact && !lossy, ..*exchange };
        let route = if exchange.awaited.is_none() { Some(named.namer.name(exchange)) } else { None };
        let key = named.key;
        databases.settle(task_key(tgid, exchange.task, exchange.tid), exchange.end_ns, &mut |_, operation| {
            self.operation(Some(key), operation);
        });
        if lossy {
            databases.requests.doubt(exchange.id);
        }
        databases.requests.end(exchange.id, exchange.end_ns, |account| {
            if let (None, Some(routed)) = (&route, exchange.awaited) {
                return self.park(named, addresses, exchange, routed, account);
            }
            let route = route.unwrap_or_else(|| named.none.clone());
            match account {
                Some((spent, ids)) => {
                    self.record(key, &Exchange { spent: Some(spent), ids, ..*exchange }, &route, addresses);
                }
                None => self.record(key, exchange, &route, addresses),
            }
        });
        if exchange.told {
            self.recorder.request_ended(key, exchange.method);
        }
    }

    /// Its route is not known yet. Without room it is named as if it could not be told.
    #[cold]
    fn park(
        &mut self,
        named: &mut Named,
        addresses: Addresses,
        exchange: &Exchange<'_>,
        routed: &Routed,
        account: Option<(&Spent<'_>, Decision)>,
    ) {
        let parked = Parked::new((named.tgid, named.key), addresses, exchange, routed, account);
        if !self.parking.park(parked) {
            let ids = account.map_or(exchange.ids, |(_, ids)| ids);
            let spent = account.map(|(spent, _)| spent);
            let exchange = Exchange { awaited: None, routes_exact: false, spent, ids, ..*exchange };
            let route = named.namer.name(&exchange);
            self.record(named.key, &exchange, &route, addresses);
        }
    }

    pub(super) fn record(&mut self, key: TargetKey, exchange: &Exchange<'_>, route: &Route, addresses: Addresses) {
        let told = matches!(route.source, Source::Axum | Source::Pattern | Source::Learned).then_some(route);
        let ids = self.tracer.as_mut().and_then(|tracer| tracer.offer(key, exchange, told, addresses));
        let exemplar = ids.map(|ids| Exemplar { trace_id: ids.trace_id, span_id: ids.span_id });
        self.recorder.observe(key, exchange, route, exemplar);
        self.database.observe_request(key, exchange, route);
    }
}
