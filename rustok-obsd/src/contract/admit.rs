//! The recorder's rare path: admits new services, label sets and peers, within the caps.
//!
//! Reads: the first exchange of a label set. Yields: its series, or that of `~other`. Costs: allocates; once per label set.

use super::http;
use super::places::UNKNOWN_SERVICE;
use super::recorder::{
    Behind, ClientEntry, ClientKey, HttpRecorder, Kept, LONGEST, NO_PEER, OTHER_PEER, Peer, ServerEntry, ServerKey,
    TargetKey,
};
use super::series::{
    ClientSeries, Ending, METHODS, PathLabels, SOURCES, ServerSeries, Service, Timed, error_type, outcome, source_index,
};
use crate::contract::histogram::{Histogram, bump};
use crate::exchange::{Exchange, Method, Side};
use crate::exposition::LabelSet;
use crate::route::{Route, Source};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError};

/// How much of an exchange's labels a series keeps.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Detail {
    All,
    /// The route (server) or peer (client) is `~other`.
    Other,
    /// The method is `_OTHER` and the status unknown as well.
    LastResort,
}

impl Detail {
    const ALL: [Self; 3] = [Self::All, Self::Other, Self::LastResort];

    fn of(self, method: Method, status: u16) -> (Method, u16) {
        if self == Self::LastResort { (Method::Other, 0) } else { (method, status) }
    }
}

impl HttpRecorder {
    /// Index of the service of this name, or of `~other` where it has no place.
    pub(super) fn service(&mut self, name: &str, behind: Behind) -> usize {
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
        for room in [&mut self.room, &mut self.client_room, &mut self.spare, &mut self.peer_room] {
            room.join(service as u32, user);
        }
    }

    pub(super) fn new_service(&self, name: &str) -> usize {
        let service = Service {
            name: name.to_owned(),
            active: [const { AtomicU64::new(0) }; METHODS.len()],
            active_labels: [const { OnceLock::new() }; METHODS.len()],
            routes: [const { AtomicU64::new(0) }; SOURCES.len()],
        };
        // There is room: for as many as there are places.
        self.lists.services.push(service).unwrap_or(self.limits.services)
    }

    fn service_of(&mut self, key: TargetKey) -> usize {
        match self.targets.get(&key.0) {
            Some(target) => target.service,
            None => self.service(UNKNOWN_SERVICE, Behind::Trusted),
        }
    }

    fn service_name(&self, service: usize) -> &str {
        self.lists.services.get(service).map_or("", |service| &service.name)
    }

    /// Makes the list of resources anew.
    pub(super) fn publish_targets(&self) {
        let values: BTreeSet<_> = self
            .targets
            .values()
            .map(|target| {
                let labels = &target.labels;
                [
                    self.service_name(target.service),
                    &labels.service_version,
                    &labels.service_namespace,
                    &labels.deployment_environment_name,
                    &labels.host_name,
                ]
            })
            .collect();
        let sets = values.iter().map(|values| LabelSet::new(http::TARGET_INFO.labels.iter().copied().zip(*values)));
        let sets: Arc<[LabelSet]> = sets.collect();
        let old = {
            let mut info = self.metrics.target_info.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *info, sets)
        };
        drop(old);
        self.metrics.targets.store(self.targets.len() as u64, Ordering::Relaxed);
    }

    /// The series of an exchange whose label set is new to this target.
    pub(super) fn admit_server(&mut self, key: TargetKey, exchange: &Exchange<'_>, route: &Route) -> ServerEntry {
        let service = self.service_of(key);
        let ending = Ending::from(exchange.outcome);
        let pinned = Arc::clone(&route.template);
        for detail in Detail::ALL {
            let (method, status) = detail.of(exchange.method, exchange.status);
            let other = Route { template: Arc::clone(&self.other), source: Source::Overflow };
            let route = if detail == Detail::All { route } else { &other };
            let matched = route.source != Source::Unmatched;
            let template = Arc::clone(&route.template);
            let key = ServerKey { service, method, route: template, matched, status, ending };
            let known = self.server.get(&key).map(|kept| Arc::clone(&kept.series));
            let fits = known.is_some()
                || match detail {
                    Detail::All => key.route.len() <= LONGEST && self.room.charge(service as u32, ServerSeries::SIZE),
                    Detail::Other => self.spare.charge(service as u32, 1),
                    Detail::LastResort => true,
                };
            if fits {
                let series = known.unwrap_or_else(|| self.new_server(key, route));
                return ServerEntry { series, overflow: detail != Detail::All, _pinned: pinned };
            }
            self.wanted = true;
        }
        unreachable!("the last resort always fits")
    }

    pub(super) fn new_server(&mut self, key: ServerKey, route: &Route) -> Arc<ServerSeries> {
        let (method, status, ending) = (key.method, key.status, key.ending);
        let code = if status == 0 { String::new() } else { status.to_string() };
        let values = [
            self.service_name(key.service),
            method.as_str(),
            if key.matched { &key.route } else { "" },
            &code,
            "http",
            &error_type(Side::Server, status, ending),
        ];
        let labels = LabelSet::new(http::SERVER_REQUEST_DURATION.labels.iter().copied().zip(values));
        let status = if ending == Ending::Aborted { 499 } else { status };
        let series = Arc::new(ServerSeries {
            labels,
            service: key.service,
            request: self.request(method, &key.route, status),
            path: self.path(method, &key.route),
            outcome: outcome(method, key.status, ending),
            overflow: route.source == Source::Overflow,
            source: route.source,
            timed: Timed::new(),
            request_body: Histogram::new(),
            response_body: Histogram::new(),
        });
        if self.routes.insert((key.service, Arc::clone(&key.route)), ()).is_none()
            && let Some(service) = self.lists.services.get(key.service)
        {
            bump(&service.routes[source_index(route.source)], 1);
        }
        self.lists.server.push(Arc::clone(&series));
        self.server.insert(key, Kept::new(Arc::clone(&series)));
        series
    }

    /// Index of RusToK's labels of a request. There are never more than server series, hence always room.
    fn request(&mut self, method: Method, route: &Arc<str>, status: u16) -> usize {
        let metrics = &self.lists;
        *self.requests.entry((method, Arc::clone(route), status)).or_insert_with(|| {
            let values = [method.as_str(), route, &format!("{status:03}")];
            let labels = LabelSet::new(http::REQUESTS.labels.iter().copied().zip(values));
            metrics.requests.push(labels).unwrap_or(0)
        })
    }

    fn path(&mut self, method: Method, route: &Arc<str>) -> usize {
        let metrics = &self.lists;
        *self.paths.entry((method, Arc::clone(route))).or_insert_with(|| {
            let values = [method.as_str(), &**route];
            let path = LabelSet::new(http::REQUEST_DURATION.labels.iter().copied().zip(values));
            let endpoint = LabelSet::new(http::REQUEST_SIZE.labels.iter().copied().zip(values));
            metrics.paths.push(PathLabels { path, endpoint }).unwrap_or(0)
        })
    }

    /// The series of an exchange whose label set is new to this target.
    pub(super) fn admit_client(&mut self, key: TargetKey, exchange: &Exchange<'_>, peer: usize) -> ClientEntry {
        let service = self.service_of(key);
        let ending = Ending::from(exchange.outcome);
        for detail in Detail::ALL {
            let (method, status) = detail.of(exchange.method, exchange.status);
            let Peer { address, port } =
                self.peer_labels[if detail == Detail::All { peer } else { OTHER_PEER }].clone();
            let key = ClientKey { service, method, address, port, status, ending };
            let known = self.client.get(&key).map(|kept| Arc::clone(&kept.series));
            let fits = known.is_some()
                || match detail {
                    Detail::All => self.client_room.charge(service as u32, ClientSeries::SIZE),
                    Detail::Other => self.spare.charge(service as u32, 1),
                    Detail::LastResort => true,
                };
            self.wanted |= !fits;
            if fits {
                let series = known.unwrap_or_else(|| self.new_client(key));
                let overflow = detail != Detail::All || peer == OTHER_PEER;
                return ClientEntry { series, overflow };
            }
        }
        unreachable!("the last resort always fits")
    }

    pub(super) fn new_client(&mut self, key: ClientKey) -> Arc<ClientSeries> {
        let (method, status, ending) = (key.method, key.status, key.ending);
        let code = if status == 0 { String::new() } else { status.to_string() };
        let error = error_type(Side::Client, status, ending);
        let values = [self.service_name(key.service), method.as_str(), &code, &key.address, &key.port, &error];
        let series = Arc::new(ClientSeries {
            labels: LabelSet::new(http::CLIENT_REQUEST_DURATION.labels.iter().copied().zip(values)),
            service: key.service,
            outcome: outcome(method, status, ending),
            timed: Timed::new(),
        });
        self.lists.client.push(Arc::clone(&series));
        self.client.insert(key, Kept::new(Arc::clone(&series)));
        series
    }

    /// Number of the peer that a `Host` value names.
    pub(super) fn peer(&mut self, key: TargetKey, host: &[u8]) -> usize {
        if host.is_empty() {
            return NO_PEER;
        }
        if let Some(peer) = self.peers.get(host) {
            return *peer;
        }
        let service = self.service_of(key);
        match parse_host(host) {
            Some(peer) if self.peer_room.charge(service as u32, 1) => {
                self.peer_labels.push(peer);
                let number = self.peer_labels.len() - 1;
                self.peers.insert(host.into(), number);
                number
            }
            Some(_) => {
                self.wanted = true;
                OTHER_PEER
            }
            None => OTHER_PEER,
        }
    }
}

/// Address and port of a `Host` value (RFC 9110, section 7.2), `None` where it is none.
fn parse_host(host: &[u8]) -> Option<Peer> {
    let host = std::str::from_utf8(host).ok().filter(|host| host.len() <= 255)?;
    let (address, port) = match host.rsplit_once(':') {
        Some((address, port)) if !port.contains(']') => (address, port.parse::<u16>().ok()?),
        _ => (host, 80),
    };
    let address = match address.strip_prefix('[') {
        Some(address) => address.strip_suffix(']').filter(|address| address.parse::<std::net::Ipv6Addr>().is_ok())?,
        None => address,
    };
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | ':');
    if address.is_empty() || !address.chars().all(legal) {
        return None;
    }
    Some(Peer { address: address.to_ascii_lowercase().into(), port: port.to_string().into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_gives_address_and_port_or_nothing() {
        let parse = |host: &str| parse_host(host.as_bytes()).map(|peer| format!("{} {}", peer.address, peer.port));
        for (host, wanted) in [
            ("example.com", Some("example.com 80")),
            ("Example.COM:8080", Some("example.com 8080")),
            ("127.0.0.1:5150", Some("127.0.0.1 5150")),
            ("[::1]", Some("::1 80")),
            ("[::1]:3000", Some("::1 3000")),
            ("[nonsense]:3000", None),
            ("user:secret@example.com:80", None),
            ("example.com:http", None),
            ("a b", None),
            (":80", None),
            ("", None),
        ] {
            assert_eq!(parse(host).as_deref(), wanted, "{host}");
        }
    }
}
