//! What crosses the queue: an exchange or an operation without its borrows.
//!
//! Reads: an exchange. Yields: a [`Record`]. Costs: a copy of about 400 bytes and a few reference counts; an allocation
//! only for a `Host` or a tenant not seen lately, and for the path and listed headers where those are asked for.

use super::database::{QueryRecord, WaitRecord};
use super::{Addresses, TargetResource, TraceIds};
use crate::exchange::{Exchange, Method, Outcome, Side};
use crate::route::{Route, Source};
use crate::statement::Statement;
use std::hash::Hasher;
use std::sync::Arc;

/// One span on its way to the exporter.
#[derive(Debug)]
pub(super) enum Record {
    Http(HttpRecord),
    Query(QueryRecord),
    Wait(WaitRecord),
}

impl Record {
    /// Bytes that it is charged: at least [`Record::ROOM`], so that short ones are bounded by their number.
    pub(super) fn size(&self) -> u64 {
        let texts = match self {
            Self::Http(record) => {
                let length = |text: &Option<Box<[u8]>>| text.as_ref().map_or(0, |text| text.len());
                length(&record.path) + length(&record.headers)
            }
            Self::Query(record) => record.statement_size(),
            Self::Wait(_) => 0,
        };
        (size_of::<Self>() + texts).max(Self::ROOM) as u64
    }

    /// Bytes of the queue for a span.
    pub(super) const ROOM: usize = 1024;

    pub(super) const fn resource(&self) -> &Arc<TargetResource> {
        match self {
            Self::Http(record) => &record.resource,
            Self::Query(record) => &record.resource,
            Self::Wait(record) => &record.resource,
        }
    }
}

/// What of [`crate::database::Spent`] a span tells.
#[derive(Clone, Debug)]
pub(super) struct SpentRecord {
    pub queries: u32,
    pub failed: u32,
    pub pool_wait_ns: u64,
    pub first_byte_ns: u64,
    pub database_ns: u64,
    pub busy_ns: u64,
    /// Only where it ran more often than the bound.
    pub repeated: Option<(Arc<Statement>, u32)>,
    pub partial: bool,
}

/// A sampled exchange on its way to the exporter.
#[derive(Debug)]
pub(super) struct HttpRecord {
    pub ids: TraceIds,
    /// The caller's span, zero where none.
    pub parent: [u8; 8],
    pub resource: Arc<TargetResource>,
    pub route: Option<(Arc<str>, Source)>,
    pub host: Option<Arc<str>>,
    pub path: Option<Box<[u8]>>,
    pub tenant: Option<Arc<str>>,
    /// See [`crate::exchange::Headers`].
    pub headers: Option<Box<[u8]>>,
    pub spent: Option<SpentRecord>,
    pub socket_wait_ns: u64,
    pub read_ns: Option<u64>,
    pub handler_ns: Option<u64>,
    pub write_ns: Option<u64>,
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

impl HttpRecord {
    pub(super) fn new(
        ids: TraceIds,
        resource: Arc<TargetResource>,
        exchange: &Exchange<'_>,
        route: Option<&Route>,
        addresses: Addresses,
        caches: &mut Caches,
        keep: Keep,
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
            host: caches.hosts.get(exchange.host),
            path: keep.path.then(|| exchange.path.into()),
            tenant: caches.tenants.get(exchange.tenant),
            headers: (!exchange.headers.is_empty()).then(|| exchange.headers.as_bytes().into()),
            spent: exchange.spent.map(|spent| SpentRecord {
                queries: spent.queries,
                failed: spent.failed,
                pool_wait_ns: spent.pool_wait_ns,
                first_byte_ns: spent.first_byte_ns,
                database_ns: spent.database_ns,
                busy_ns: spent.busy_ns,
                repeated: spent
                    .most_repeated
                    .filter(|(_, count)| *count > keep.repeated)
                    .map(|(statement, count)| (Arc::clone(statement), count)),
                partial: spent.partial,
            }),
            socket_wait_ns: exchange.socket_wait_ns(),
            read_ns: exchange.read_ns(),
            handler_ns: exchange.handler_ns(),
            write_ns: exchange.write_ns(),
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

/// What of an exchange leaves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keep {
    /// Its path.
    pub path: bool,
    /// A statement that it ran more often.
    pub repeated: u32,
}

/// Texts that come again.
#[derive(Debug, Default)]
pub(super) struct Caches {
    hosts: TextCache<64>,
    tenants: TextCache<256>,
}

/// Longest `Host` that is kept: a DNS name has 253 bytes at most, and a port five.
const LONGEST: usize = 260;

/// The values of a header seen lately, so that the usual few are not allocated anew. A peer that sends ever new ones
/// costs allocations, never growth.
#[derive(Debug, Default)]
pub(super) struct TextCache<const SLOTS: usize>(Vec<Option<Arc<str>>>);

impl<const SLOTS: usize> TextCache<SLOTS> {
    /// A shared copy; `None` for an empty value and for what is longer than a host can be.
    pub(super) fn get(&mut self, text: &[u8]) -> Option<Arc<str>> {
        if text.is_empty() || text.len() > LONGEST {
            return None;
        }
        if self.0.is_empty() {
            self.0.resize(SLOTS, None);
        }
        let mut hasher = rustc_hash::FxHasher::default();
        hasher.write(text);
        #[expect(clippy::cast_possible_truncation, reason = "a slot number")]
        let slot = &mut self.0[(hasher.finish() as usize) % SLOTS];
        if let Some(known) = slot.as_ref().filter(|known| known.as_bytes() == text) {
            return Some(Arc::clone(known));
        }
        let fresh: Arc<str> = std::str::from_utf8(text).ok()?.into();
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
        assert!(size_of::<Record>() <= 450, "{}: the help of traces.queue_size says so", size_of::<Record>());
    }

    #[test]
    fn a_host_seen_again_is_shared_and_any_number_of_hosts_is_bounded() {
        let mut cache = TextCache::<64>::default();
        let first = cache.get(b"shop.example:3000").unwrap();
        assert!(Arc::ptr_eq(&first, &cache.get(b"shop.example:3000").unwrap()));
        for number in 0..10_000 {
            let host = format!("host{number}");
            assert_eq!(cache.get(host.as_bytes()).as_deref(), Some(host.as_str()));
        }
        assert_eq!(cache.0.len(), 64);
        for bad in [&b""[..], &[b'a'; 261], &[0xff, 0xfe]] {
            assert_eq!(cache.get(bad), None);
        }
    }
}
