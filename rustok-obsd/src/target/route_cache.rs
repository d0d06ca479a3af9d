//! Route tables by process and address, so that each is read once.
//!
//! Reads: [`RouteTable`]s. Yields: the path of a route id. Costs: two hash look-ups and a reference count per request;
//! a read of the process when a router is new, and one of 48 bytes every ten seconds that shows whether it is still
//! the same. Bounded: tables and their bytes, reads per router.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use super::axum_routes::{RouteTable, read_fingerprint};
use super::discovery::ProcessKey;
use super::memory::{Memory, ProcessMemory};

/// How often a known router is checked to be the same: its memory may have been given to another one.
const RECHECK: Duration = Duration::from_secs(10);
/// Wait after a read that did not help, doubled each time.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(60);
/// Routers known at once, over all targets.
const MAX_TABLES: usize = 256;
/// Bytes of all tables.
const MAX_BYTES: usize = 8 << 20;

/// What the cache did since its start; exported as the daemon's own metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RouteCacheStats {
    /// Tables read.
    pub reads: u64,
    /// Reads that failed.
    pub failures: u64,
    /// Look-ups without an answer: an unknown id, or a table that cannot be read.
    pub misses: u64,
    /// Tables dropped to stay within the bounds.
    pub evictions: u64,
    /// Tables found to have changed.
    pub changes: u64,
}

/// The cache.
#[derive(Debug, Default)]
pub struct RouteCache {
    entries: FxHashMap<(ProcessKey, u64), Entry>,
    bytes: usize,
    stats: RouteCacheStats,
    last_error: Option<String>,
}

#[derive(Debug)]
struct Entry {
    /// `None`: it could not be read.
    table: Option<RouteTable>,
    used: Instant,
    /// When the table may be read or checked again.
    next: Instant,
    retry: Duration,
}

impl RouteCache {
    /// The path of the route `id` in the router at `map`, as axum knows it; `None` where it cannot be told.
    pub fn lookup(&mut self, process: ProcessKey, map: u64, id: u32, now: Instant) -> Option<Arc<str>> {
        self.lookup_in(&ProcessMemory::new(process.pid), process, map, id, now)
    }

    fn lookup_in<M: Memory>(
        &mut self,
        memory: &M,
        process: ProcessKey,
        map: u64,
        id: u32,
        now: Instant,
    ) -> Option<Arc<str>> {
        let key = (process, map);
        if !self.entries.contains_key(&key) {
            self.insert(key, now);
        }
        let entry = self.entries.get_mut(&key)?;
        entry.used = now;
        let known = entry.table.as_ref().is_some_and(|table| table.routes.contains_key(&id));
        if now >= entry.next {
            let same = known
                && entry.table.as_ref().is_some_and(|table| {
                    read_fingerprint(memory, map).is_ok_and(|fingerprint| fingerprint == table.fingerprint)
                });
            if same {
                entry.next = now + RECHECK;
            } else {
                self.stats.changes += u64::from(known);
                self.read(memory, key, id, now);
            }
        }
        let path = self.entries.get(&key).and_then(|entry| entry.table.as_ref()?.routes.get(&id).cloned());
        self.stats.misses += u64::from(path.is_none());
        path
    }

    /// Forgets a process: it ended or replaced its program.
    pub fn forget(&mut self, pid: u32) {
        let bytes = &mut self.bytes;
        self.entries.retain(|(process, _), entry| {
            let keep = process.pid != pid;
            if !keep {
                *bytes -= entry.footprint();
            }
            keep
        });
    }

    /// What the cache did.
    #[must_use]
    pub const fn stats(&self) -> RouteCacheStats {
        self.stats
    }

    /// Routers known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no router is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Why the last failed read failed.
    #[must_use]
    pub fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }

    fn read<M: Memory>(&mut self, memory: &M, key: (ProcessKey, u64), id: u32, now: Instant) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        self.bytes -= entry.footprint();
        self.stats.reads += 1;
        entry.table = match RouteTable::read(memory, key.1) {
            Ok(table) => Some(table),
            Err(error) => {
                self.stats.failures += 1;
                self.last_error = Some(format!("process {}: {error}", key.0.pid));
                None
            }
        };
        if entry.table.as_ref().is_some_and(|table| table.routes.contains_key(&id)) {
            (entry.next, entry.retry) = (now + RECHECK, FIRST_RETRY);
        } else {
            entry.next = now + entry.retry;
            entry.retry = (entry.retry * 2).min(LAST_RETRY);
        }
        self.bytes += entry.footprint();
        while self.bytes > MAX_BYTES && self.entries.len() > 1 {
            self.evict(Some(key));
        }
    }

    fn insert(&mut self, key: (ProcessKey, u64), now: Instant) {
        if self.entries.len() >= MAX_TABLES {
            self.evict(None);
        }
        self.entries.insert(key, Entry { table: None, used: now, next: now, retry: FIRST_RETRY });
    }

    /// Drops the table that was not used for the longest time. Linear, and rare: only a new router evicts.
    fn evict(&mut self, keep: Option<(ProcessKey, u64)>) {
        let oldest = self
            .entries
            .iter()
            .filter(|(key, _)| Some(**key) != keep)
            .min_by_key(|(_, entry)| entry.used)
            .map(|(key, _)| *key);
        if let Some(entry) = oldest.and_then(|key| self.entries.remove(&key)) {
            self.bytes -= entry.footprint();
            self.stats.evictions += 1;
        }
    }
}

impl Entry {
    fn footprint(&self) -> usize {
        self.table.as_ref().map_or(0, RouteTable::footprint)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    type Map = HashMap<u32, Arc<str>>;

    fn map(routes: u32, prefix: &str) -> Map {
        (0..routes).map(|id| (id, format!("/{prefix}/{id}").into())).collect()
    }

    fn own() -> ProcessKey {
        ProcessKey { pid: std::process::id(), start_time: 1 }
    }

    #[test]
    fn a_router_is_read_once_and_found_again() {
        let (map, now) = (map(30, "a"), Instant::now());
        let (mut cache, address) = (RouteCache::default(), std::ptr::from_ref(&map) as u64);
        for id in 0..30 {
            assert_eq!(cache.lookup(own(), address, id, now).as_deref(), Some(format!("/a/{id}").as_str()));
        }
        assert_eq!(cache.stats(), RouteCacheStats { reads: 1, ..RouteCacheStats::default() });
        assert_eq!(cache.lookup(own(), address, 0, now + RECHECK).as_deref(), Some("/a/0"));
        assert_eq!(cache.stats().reads, 1, "the same map is not read again");
    }

    #[test]
    fn a_router_whose_memory_was_given_to_another_is_read_again() {
        let mut place = Box::new(map(30, "a"));
        let (mut cache, now, address) = (RouteCache::default(), Instant::now(), std::ptr::from_ref(&*place) as u64);
        assert_eq!(cache.lookup(own(), address, 5, now).as_deref(), Some("/a/5"));
        *place = map(30, "b");
        assert_eq!(cache.lookup(own(), address, 5, now + RECHECK).as_deref(), Some("/b/5"));
        assert_eq!(cache.stats().changes, 1);
    }

    #[test]
    fn an_unknown_id_and_an_unreadable_map_are_tried_again_ever_more_rarely() {
        let (map, start) = (map(3, "a"), Instant::now());
        let (mut cache, address) = (RouteCache::default(), std::ptr::from_ref(&map) as u64);
        for millisecond in 0..10_000 {
            let now = start + Duration::from_millis(millisecond);
            assert_eq!(cache.lookup(own(), address, 99, now), None);
            assert_eq!(cache.lookup(own(), 0x1000, 1, now), None);
        }
        // At 0, 1, 3 and 7 s, each of the two.
        assert_eq!((cache.stats().reads, cache.stats().failures, cache.stats().misses), (8, 4, 20_000));
        assert!(cache.last_error().unwrap().contains("not mapped"), "{:?}", cache.last_error());
    }

    #[test]
    fn tables_are_bounded_and_an_ended_process_is_forgotten() {
        let (map, now) = (map(3, "a"), Instant::now());
        let (mut cache, address) = (RouteCache::default(), std::ptr::from_ref(&map) as u64);
        for start_time in 0..1000 {
            let process = ProcessKey { pid: std::process::id(), start_time };
            assert!(cache.lookup(process, address, 1, now + Duration::from_millis(start_time)).is_some());
        }
        assert_eq!((cache.len(), cache.stats().evictions), (MAX_TABLES, 1000 - MAX_TABLES as u64));
        cache.forget(std::process::id());
        assert!(cache.is_empty());
        assert_eq!(cache.bytes, 0);
    }

    #[test]
    fn large_tables_are_dropped_before_they_fill_memory() {
        let maps: Vec<Map> = (0..4).map(|_| map(40_000, "large/route/with/a/long/path")).collect();
        let (mut cache, now) = (RouteCache::default(), Instant::now());
        for map in &maps {
            assert!(cache.lookup(own(), std::ptr::from_ref(map) as u64, 1, now).is_some());
            assert!(cache.bytes <= MAX_BYTES, "{}", cache.bytes);
        }
        assert!(cache.stats().evictions > 0);
    }
}
