//! What crosses the queue: an exchange without its borrows.
//!
//! Reads: an exchange. Yields: a [`Record`]. Costs: a copy of about 250 bytes and two reference counts; an allocation
//! only for a `Host` not seen lately, and for the path where that is asked for.

use super::{Addresses, TargetResource, TraceIds};
use crate::exchange::{Exchange, Method, Outcome, Side};
use crate::route::{Route, Source};
use std::hash::Hasher;
use std::sync::Arc;

/// A sampled exchange on its way to the exporter.
#[derive(Debug)]
pub(super) struct Record {
    pub ids: TraceIds,
    /// The caller's span, zero where none.
    pub parent: [u8; 8],
    pub resource: Arc<TargetResource>,
    pub route: Option<(Arc<str>, Source)>,
    pub host: Option<Arc<str>>,
    pub path: Option<Box<[u8]>>,
    pub addresses: Addresses,
    pub start_ns: u64,
    pub end_ns: u64,
    pub task: u64,
    pub request_bytes: u64,
    pub response_bytes: u64,
    pub request_body: u64,
    pub response_body: u64,
    pub tid: u32,
    pub status: u16,
    pub version: u8,
    pub method: Method,
    pub side: Side,
    pub outcome: Outcome,
}

impl Record {
    pub(super) fn new(
        ids: TraceIds,
        resource: Arc<TargetResource>,
        exchange: &Exchange<'_>,
        route: Option<&Route>,
        host: Option<Arc<str>>,
        addresses: Addresses,
        keep_path: bool,
    ) -> Self {
        // `http.route` is a template; neither "matched nothing" nor "too many" is one.
        let route = route
            .filter(|route| !matches!(route.source, Source::Unmatched | Source::Overflow))
            .map(|route| (Arc::clone(&route.template), route.source));
        Self {
            ids,
            parent: exchange.traceparent.map_or([0; 8], |parent| parent.parent_id),
            resource,
            route,
            host,
            path: keep_path.then(|| exchange.path.into()),
            addresses,
            start_ns: exchange.start_ns,
            end_ns: exchange.end_ns,
            task: exchange.task,
            request_bytes: exchange.request_bytes,
            response_bytes: exchange.response_bytes,
            request_body: exchange.request_body,
            response_body: exchange.response_body,
            tid: exchange.tid,
            status: exchange.status,
            version: exchange.version,
            method: exchange.method,
            side: exchange.side,
            outcome: exchange.outcome,
        }
    }
}

/// Longest `Host` that is kept: a DNS name has 253 bytes at most, and a port five.
const LONGEST_HOST: usize = 260;
const SLOTS: usize = 64;

/// The values of `Host` seen lately, so that the usual few are not allocated anew. A peer that sends ever new ones
/// costs allocations, never growth.
#[derive(Debug, Default)]
pub(super) struct HostCache(Vec<Option<Arc<str>>>);

impl HostCache {
    /// A shared copy; `None` for an empty value and for what cannot be a host.
    pub(super) fn get(&mut self, host: &[u8]) -> Option<Arc<str>> {
        if host.is_empty() || host.len() > LONGEST_HOST {
            return None;
        }
        if self.0.is_empty() {
            self.0.resize(SLOTS, None);
        }
        let mut hasher = rustc_hash::FxHasher::default();
        hasher.write(host);
        #[expect(clippy::cast_possible_truncation, reason = "a slot number")]
        let slot = &mut self.0[(hasher.finish() as usize) % SLOTS];
        if let Some(known) = slot.as_ref().filter(|known| known.as_bytes() == host) {
            return Some(Arc::clone(known));
        }
        let fresh: Arc<str> = std::str::from_utf8(host).ok()?.into();
        *slot = Some(Arc::clone(&fresh));
        Some(fresh)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_of_the_default_size_stays_below_a_megabyte() {
        assert!(size_of::<Record>() * 2048 < 1 << 20, "{}", size_of::<Record>());
    }

    #[test]
    fn a_host_seen_again_is_shared_and_any_number_of_hosts_is_bounded() {
        let mut cache = HostCache::default();
        let first = cache.get(b"shop.example:3000").unwrap();
        assert!(Arc::ptr_eq(&first, &cache.get(b"shop.example:3000").unwrap()));
        for number in 0..10_000 {
            let host = format!("host{number}");
            assert_eq!(cache.get(host.as_bytes()).as_deref(), Some(host.as_str()));
        }
        assert_eq!(cache.0.len(), SLOTS);
        for bad in [&b""[..], &[b'a'; 261], &[0xff, 0xfe]] {
            assert_eq!(cache.get(bad), None);
        }
    }
}
