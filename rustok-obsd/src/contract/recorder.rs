//! Records HTTP exchanges: the capture thread's end of the HTTP families.
//!
//! Reads: finished exchanges with their routes, and the life of targets, connections and requests. Yields: atomics that
//! scrapes read ([`HttpMetrics`]). Costs: one hash look-up by integers and about ten plain stores per exchange, no
//! allocation and no lock; a label set that is new allocates once (`benches/exposition.rs`).
//!
//! Status labels: RusToK's `status` is the status code, `499` where the client left before the response was whole
//! (nginx' convention), `000` where no status was seen (curl's). OpenTelemetry's families carry the status that was seen,
//! and tell the rest by `error_type`: the code of a 5xx (client side: 4xx too), `client_aborted`, `connection_closed`
//! (client side) or `incomplete`.
//!
//! Caps: label sets, services and peers are bounded. Beyond the cap an exchange is recorded under `~other` with its method
//! and status, at last under method `_OTHER` without status, and counted: totals stay exact when details are lost. Each
//! service has its share of what is bounded ([`crate::budget`]), and what stood still for long gives way (`renew.rs`).

use super::histogram::bump;
use super::places::{FIXED, Places, UNKNOWN_SERVICE};
use super::series::{
    ClientSeries, DURATION_BOUNDS, Ending, HttpMetrics, Lists, METHODS, OTHER, SIZE_BOUNDS, ServerSeries,
};
use crate::budget::{Budget, Meter, Store};
use crate::exchange::{Exchange, Method, Side};
use crate::route::{Route, Source};
use rustc_hash::FxHashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// A process that is observed, as the caller numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TargetKey(pub u32);

/// Whose a target is, and with it the values of its labels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Behind {
    /// A user that is trusted.
    #[default]
    Trusted,
    /// Another one: what all its targets have is its share.
    Stranger(u32),
}

impl Behind {
    /// Who shares what is bounded with all other targets of this user.
    #[must_use]
    pub const fn user(self) -> Option<u32> {
        match self {
            Self::Trusted => None,
            Self::Stranger(user) => Some(user),
        }
    }
}

/// Resource attributes of a target; empty where unknown. Several targets may share a service name: their exchanges add up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetLabels {
    /// Whose it is: no label.
    pub behind: Behind,
    /// `service.name`; empty becomes `unknown_service`, the default of OpenTelemetry.
    pub service_name: String,
    /// `service.version`.
    pub service_version: String,
    /// `service.namespace`.
    pub service_namespace: String,
    /// `deployment.environment.name`.
    pub deployment_environment_name: String,
    /// `host.name`.
    pub host_name: String,
}

/// The span that was made of an exchange, where it was sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exemplar {
    /// Trace id.
    pub trace_id: [u8; 16],
    /// Span id.
    pub span_id: [u8; 8],
}

/// Caps of the recorder. One service alone may reach them; all together have twice as much.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Label sets of server exchanges of a service.
    pub server_series: usize,
    /// Label sets of client exchanges of a service.
    pub client_series: usize,
    /// Services (see `places.rs`).
    pub services: usize,
    /// Values of `Host` that client exchanges of a service are told apart by.
    pub peers: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { server_series: 4096, client_series: 1024, services: 128, peers: 128 }
    }
}

impl Limits {
    /// Room for label sets with the route `~other`, which keep method and status.
    pub(super) const OVERFLOW: usize = 256;

    /// Room for the last resort: one per service and [`Ending`].
    fn last_resort(&self) -> usize {
        (self.services + FIXED) * 3
    }

    /// Shortcuts to label sets that are kept.
    fn aliases(&self) -> usize {
        4 * (self.server_capacity() + self.client_capacity())
    }

    pub(super) fn server_capacity(&self) -> usize {
        2 * (self.server_series + Self::OVERFLOW) + self.last_resort()
    }

    pub(super) fn client_capacity(&self) -> usize {
        2 * (self.client_series + Self::OVERFLOW) + self.last_resort()
    }
}

pub(super) struct Target {
    pub(super) labels: TargetLabels,
    pub(super) service: usize,
    pub(super) connections: u64,
    pub(super) active: [u64; METHODS.len()],
}

/// What tells two label sets apart at the price of two integers: the address of the interned route or the number of the
/// peer, and target, status, method and outcome packed.
type FastKey = (usize, u64);

#[derive(PartialEq, Eq, Hash)]
pub(super) struct ServerKey {
    pub(super) service: usize,
    pub(super) method: Method,
    pub(super) route: Arc<str>,
    pub(super) matched: bool,
    pub(super) status: u16,
    pub(super) ending: Ending,
}

#[derive(PartialEq, Eq, Hash)]
pub(super) struct ClientKey {
    pub(super) service: usize,
    pub(super) method: Method,
    pub(super) address: Arc<str>,
    pub(super) port: Arc<str>,
    pub(super) status: u16,
    pub(super) ending: Ending,
}

pub(super) struct ServerEntry {
    pub(super) series: Arc<ServerSeries>,
    pub(super) overflow: bool,
    /// Keeps the address in the key from being given to another route.
    pub(super) _pinned: Arc<str>,
}

pub(super) struct ClientEntry {
    pub(super) series: Arc<ClientSeries>,
    pub(super) overflow: bool,
}

/// A series, and whether it stands still.
pub(super) struct Kept<T> {
    pub(super) series: Arc<T>,
    /// What it counted at the last look, and the looks since it changed.
    pub(super) count: u64,
    pub(super) quiet: u8,
}

impl<T> Kept<T> {
    pub(super) const fn new(series: Arc<T>) -> Self {
        Self { series, count: 0, quiet: 0 }
    }
}

#[derive(Clone)]
pub(super) struct Peer {
    pub(super) address: Arc<str>,
    pub(super) port: Arc<str>,
}

/// Writes the HTTP families. There is one, and one thread at a time uses it.
pub struct HttpRecorder {
    pub(super) metrics: Arc<HttpMetrics>,
    /// Those of `metrics`.
    pub(super) lists: Arc<Lists>,
    pub(super) limits: Limits,
    /// By service: label sets of either side, those with `~other`, and peers.
    pub(super) room: Budget,
    pub(super) client_room: Budget,
    pub(super) spare: Budget,
    pub(super) peer_room: Budget,
    /// Somebody found no room since the last look.
    pub(super) wanted: bool,
    pub(super) looked: Option<Instant>,
    pub(super) targets: FxHashMap<u32, Target>,
    pub(super) places: Places,
    pub(super) server_fast: FxHashMap<FastKey, ServerEntry>,
    pub(super) client_fast: FxHashMap<FastKey, ClientEntry>,
    pub(super) server: FxHashMap<ServerKey, Kept<ServerSeries>>,
    pub(super) client: FxHashMap<ClientKey, Kept<ClientSeries>>,
    pub(super) requests: FxHashMap<(Method, Arc<str>, u16), usize>,
    pub(super) paths: FxHashMap<(Method, Arc<str>), usize>,
    pub(super) routes: FxHashMap<(usize, Arc<str>), ()>,
    pub(super) peers: FxHashMap<Box<[u8]>, usize>,
    pub(super) peer_labels: Vec<Peer>,
    pub(super) other: Arc<str>,
    pub(super) connections: u64,
}

/// Longest name of a service or a route that is a label, bytes: a longer route is `~other`.
pub(super) const LONGEST: usize = 255;

/// Number of the peer without a name.
pub(super) const NO_PEER: usize = 0;
/// Number of the peers beyond the cap.
pub(super) const OTHER_PEER: usize = 1;

impl HttpRecorder {
    /// The recorder, and what is to be registered with the exposition.
    #[must_use]
    pub fn new(limits: Limits) -> (Self, Arc<HttpMetrics>) {
        let lists = Arc::new(Lists::new(&limits));
        let metrics = Arc::new(HttpMetrics::new(Arc::clone(&lists)));
        let room = |units: usize| Budget::with_limit(Store::Series, units.saturating_mul(2));
        let empty: Arc<str> = Arc::from("");
        let other: Arc<str> = Arc::from(OTHER);
        let recorder = Self {
            metrics: Arc::clone(&metrics),
            lists,
            limits,
            room: room(limits.server_series.saturating_mul(ServerSeries::SIZE)),
            client_room: room(limits.client_series.saturating_mul(ClientSeries::SIZE)),
            spare: room(Limits::OVERFLOW),
            peer_room: room(limits.peers),
            wanted: false,
            looked: None,
            targets: FxHashMap::default(),
            places: Places::new(limits.services),
            server_fast: FxHashMap::default(),
            client_fast: FxHashMap::default(),
            server: FxHashMap::default(),
            client: FxHashMap::default(),
            requests: FxHashMap::default(),
            paths: FxHashMap::default(),
            routes: FxHashMap::default(),
            peers: FxHashMap::default(),
            peer_labels: vec![
                Peer { address: Arc::clone(&empty), port: Arc::clone(&empty) },
                Peer { address: Arc::clone(&other), port: empty },
            ],
            other,
            connections: 0,
        };
        (recorder, metrics)
    }

    /// Figures of the budgets of series.
    pub fn meters(&self) -> impl Iterator<Item = Arc<Meter>> {
        [self.room.meter(), self.client_room.meter()].into_iter()
    }

    /// Forgets all series, for they are admitted anew.
    pub(super) fn forget_series(&mut self) {
        (self.server_fast, self.client_fast) = (FxHashMap::default(), FxHashMap::default());
        (self.server, self.client) = (FxHashMap::default(), FxHashMap::default());
        (self.requests, self.paths, self.routes) = (FxHashMap::default(), FxHashMap::default(), FxHashMap::default());
        self.peers.clear();
        self.peer_labels.truncate(OTHER_PEER + 1);
        for room in [&mut self.room, &mut self.client_room, &mut self.spare, &mut self.peer_room] {
            room.clear();
        }
    }

    /// Begins to observe a target. One that is known by this key is retired first.
    pub fn register_target(&mut self, key: TargetKey, mut labels: TargetLabels) {
        self.retire_target(key);
        self.forget_shortcuts(key);
        if labels.service_name.is_empty() {
            UNKNOWN_SERVICE.clone_into(&mut labels.service_name);
        }
        for label in [
            &mut labels.service_name,
            &mut labels.service_version,
            &mut labels.service_namespace,
            &mut labels.deployment_environment_name,
        ] {
            label.truncate(label.floor_char_boundary(LONGEST));
        }
        let service = self.service(&labels.service_name, labels.behind);
        if self.places.join(&labels.service_name, labels.behind) {
            self.share(&labels.service_name, service);
        }
        self.targets.insert(key.0, Target { labels, service, connections: 0, active: [0; METHODS.len()] });
        self.publish_targets();
    }

    /// Ends the observation of a target: its connections and active requests are gone, its series stay.
    pub fn retire_target(&mut self, key: TargetKey) {
        let Some(target) = self.targets.remove(&key.0) else {
            return;
        };
        self.places.leave(&target.labels.service_name);
        self.connections -= target.connections;
        self.metrics.connections.store(self.connections, Ordering::Relaxed);
        if let Some(service) = self.lists.services.get(target.service) {
            for (cell, active) in service.active.iter().zip(target.active) {
                cell.store(cell.load(Ordering::Relaxed).saturating_sub(active), Ordering::Relaxed);
            }
        }
        self.forget_shortcuts(key);
        self.publish_targets();
    }

    fn forget_shortcuts(&mut self, key: TargetKey) {
        self.server_fast.retain(|(_, packed), _| packed >> 32 != u64::from(key.0));
        self.client_fast.retain(|(_, packed), _| packed >> 32 != u64::from(key.0));
    }

    /// A server connection turned out to speak HTTP.
    pub fn connection_opened(&mut self, key: TargetKey) {
        if let Some(target) = self.targets.get_mut(&key.0) {
            target.connections += 1;
            self.connections += 1;
            self.metrics.connections.store(self.connections, Ordering::Relaxed);
        }
    }

    /// A connection that was told by [`Self::connection_opened`] closed or was evicted.
    pub fn connection_closed(&mut self, key: TargetKey) {
        if let Some(target) = self.targets.get_mut(&key.0).filter(|target| target.connections > 0) {
            target.connections -= 1;
            self.connections -= 1;
            self.metrics.connections.store(self.connections, Ordering::Relaxed);
        }
    }

    /// So many more server requests came of which nothing but their number is known: the total stays exact.
    pub fn requests_lost(&mut self, more: u64) {
        bump(&self.metrics.lost, more);
    }

    /// The head of a server request was read.
    pub fn request_started(&mut self, key: TargetKey, method: Method) {
        self.change_active(key, method, true);
    }

    /// A request that was told by [`Self::request_started`] ended in an exchange or was given up.
    pub fn request_ended(&mut self, key: TargetKey, method: Method) {
        self.change_active(key, method, false);
    }

    fn change_active(&mut self, key: TargetKey, method: Method, started: bool) {
        let index = method as usize;
        let Some(target) = self.targets.get_mut(&key.0) else {
            return;
        };
        let Some(service) = self.lists.services.get(target.service) else {
            return;
        };
        if started {
            target.active[index] += 1;
            service.label_active(index);
            bump(&service.active[index], 1);
        } else if target.active[index] > 0 {
            target.active[index] -= 1;
            bump(&service.active[index], 1u64.wrapping_neg());
        }
    }

    /// Records an exchange; `route` counts for server exchanges only, and its template should be interned, for its address
    /// finds the series. A target that is not registered counts as `unknown_service`.
    pub fn observe(&mut self, key: TargetKey, exchange: &Exchange<'_>, route: &Route, exemplar: Option<Exemplar>) {
        let trace =
            exemplar.map(|exemplar| (u128::from_be_bytes(exemplar.trace_id), u64::from_be_bytes(exemplar.span_id)));
        match exchange.side {
            Side::Server => {
                // The content of an Arc is aligned, so that the lowest bit is free.
                let matched = usize::from(route.source != Source::Unmatched);
                let fast = (route.template.as_ptr().addr() | matched, pack(key, exchange));
                if let Some(entry) = self.server_fast.get(&fast) {
                    return entry.observe(&self.metrics, exchange, trace);
                }
                let entry = self.admit_server(key, exchange, route);
                entry.observe(&self.metrics, exchange, trace);
                if self.server_fast.len() >= self.limits.aliases() {
                    // Routes that are not interned: forget the shortcuts, not the series.
                    self.server_fast.clear();
                }
                self.server_fast.insert(fast, entry);
            }
            Side::Client => {
                let peer = self.peer(key, exchange.host);
                let fast = (peer, pack(key, exchange));
                if let Some(entry) = self.client_fast.get(&fast) {
                    return entry.observe(&self.metrics, exchange, trace);
                }
                let entry = self.admit_client(key, exchange, peer);
                entry.observe(&self.metrics, exchange, trace);
                if self.client_fast.len() >= self.limits.aliases() {
                    self.client_fast.clear();
                }
                self.client_fast.insert(fast, entry);
            }
        }
    }
}

fn pack(key: TargetKey, exchange: &Exchange<'_>) -> u64 {
    let (method, ending) = (exchange.method as u64, Ending::from(exchange.outcome) as u64);
    u64::from(key.0) << 32 | u64::from(exchange.status) << 16 | method << 8 | ending
}

impl ServerEntry {
    fn observe(&self, metrics: &HttpMetrics, exchange: &Exchange<'_>, trace: Option<(u128, u64)>) {
        if self.overflow {
            bump(&metrics.server_overflow, 1);
        }
        self.series.request_body.observe(&SIZE_BOUNDS, exchange.request_body);
        self.series.response_body.observe(&SIZE_BOUNDS, exchange.response_body);
        let duration = exchange.end_ns.saturating_sub(exchange.start_ns);
        self.series.timed.observe(&DURATION_BOUNDS, duration, exchange.end_ns, trace);
    }
}

impl ClientEntry {
    fn observe(&self, metrics: &HttpMetrics, exchange: &Exchange<'_>, trace: Option<(u128, u64)>) {
        if self.overflow {
            bump(&metrics.client_overflow, 1);
        }
        let duration = exchange.end_ns.saturating_sub(exchange.start_ns);
        self.series.timed.observe(&DURATION_BOUNDS, duration, exchange.end_ns, trace);
    }
}
