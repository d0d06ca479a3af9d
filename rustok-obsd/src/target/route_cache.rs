//! Route tables by process and address, so that each is read once.
//!
//! Reads: [`RouteTable`]s, by way of [`Reader`]: never the memory itself, and it waits for nothing. Yields: the path of a
//! route id, or that it is known in a moment. Costs: two hash look-ups and a reference count per request; a read
//! elsewhere when a router is new, and one of 48 bytes every ten seconds that shows whether it is still the same. Bounded:
//! tables and their bytes, whose largest holder pays; reads per router and per process.
//!
//! No path leaves that was not confirmed at most [`RECHECK`] before its request, or afterwards: while a table is checked
//! its paths are [`Lookup::Awaited`], as those of a table that is read for the first time.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use super::axum_routes::{Fingerprint, RouteError, RouteTable, read_fingerprint};
use super::discovery::ProcessKey;
use super::memory::{Memory, MemoryError};
use super::reader::{DEADLINE, Reader};

/// Answers that wait: more than jobs can be under way at a time, so that a reader never waits.
const ANSWERS: usize = 512;
/// How often a known router is checked to be the same: its memory may have been given to another one.
const RECHECK: Duration = Duration::from_secs(10);
/// Wait after a read that did not help, doubled each time.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(60);
/// An answer that has not come by then does not come: the reader's own deadline, and time to take the answer.
pub const PATIENCE: Duration = DEADLINE.saturating_add(Duration::from_millis(250));
/// Routers known at once, over all targets.
const MAX_TABLES: usize = 256;
/// Bytes of all tables.
const MAX_BYTES: usize = 8 << 20;
/// Reads that new routers of one process may cause within [`RECHECK`].
const MAX_READS: u32 = 256;

/// What the cache did since its start; exported as the daemon's own metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RouteCacheStats {
    /// Tables that were asked for.
    pub reads: u64,
    /// Reads that failed.
    pub failures: u64,
    /// Reads without an answer in time.
    pub timeouts: u64,
    /// Reads that the reader, or the bound per process, refused.
    pub refusals: u64,
    /// Look-ups without an answer: an unknown id, or a table that cannot be read.
    pub misses: u64,
    /// Tables dropped to stay within the bounds.
    pub evictions: u64,
    /// Tables found to have changed.
    pub changes: u64,
}

/// What is known of a route id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// Its path.
    Known(Arc<str>),
    /// Its table is being read or checked: [`RouteCache::path`] says more when [`RouteCache::awaits`] is false.
    Awaited,
    /// Nothing, and nothing is under way.
    Unknown,
}

type Key = (ProcessKey, u64);

/// What a read found.
enum Found {
    /// The table that was known.
    Same,
    Table(RouteTable),
    Nothing(RouteError),
}

struct Answer {
    key: Key,
    job: u64,
    found: Found,
}

/// The cache.
#[derive(Debug)]
pub struct RouteCache {
    entries: FxHashMap<Key, Entry>,
    shares: FxHashMap<ProcessKey, Share>,
    bytes: usize,
    stats: RouteCacheStats,
    last_error: Option<String>,
    reader: Reader,
    answers: (SyncSender<Answer>, Receiver<Answer>),
    /// Number of the newest read.
    job: u64,
    /// Reads under way.
    under_way: usize,
}

/// What one process holds.
#[derive(Debug)]
struct Share {
    tables: usize,
    bytes: usize,
    /// Reads since then.
    reads: u32,
    since: Instant,
}

#[derive(Debug)]
struct Entry {
    /// `None`: it is not read yet, or could not be.
    table: Option<RouteTable>,
    used: Instant,
    /// When the table may be read or checked again.
    next: Instant,
    retry: Duration,
    reading: Option<Reading>,
}

/// A read under way.
#[derive(Debug)]
struct Reading {
    job: u64,
    since: Instant,
    /// The id that it was begun for.
    id: u32,
}

impl RouteCache {
    /// An empty cache.
    #[must_use]
    pub fn new(reader: Reader) -> Self {
        Self {
            entries: FxHashMap::default(),
            shares: FxHashMap::default(),
            bytes: 0,
            stats: RouteCacheStats::default(),
            last_error: None,
            reader,
            answers: mpsc::sync_channel(ANSWERS),
            job: 0,
            under_way: 0,
        }
    }

    /// What is known of the route `id` in the router at `map`; has the table read or checked where that is due.
    pub fn lookup(&mut self, process: ProcessKey, map: u64, id: u32, now: Instant) -> Lookup {
        let key = (process, map);
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.used = now;
            if entry.reading.is_some() {
                return Lookup::Awaited;
            }
            if now < entry.next {
                let path = entry.table.as_ref().and_then(|table| table.routes.get(&id));
                if let Some(path) = path {
                    return Lookup::Known(Arc::clone(path));
                }
                self.stats.misses += 1;
                return Lookup::Unknown;
            }
        }
        if self.begin(key, id, now) {
            return Lookup::Awaited;
        }
        self.stats.misses += 1;
        Lookup::Unknown
    }

    /// Whether the router's table is being read or checked.
    #[must_use]
    pub fn awaits(&self, process: ProcessKey, map: u64) -> bool {
        self.entries.get(&(process, map)).is_some_and(|entry| entry.reading.is_some())
    }

    /// The path of an awaited route, after the wait; `None` where it cannot be told.
    pub fn path(&mut self, process: ProcessKey, map: u64, id: u32) -> Option<Arc<str>> {
        let entry = self.entries.get(&(process, map)).filter(|entry| entry.reading.is_none());
        let path = entry.and_then(|entry| entry.table.as_ref()?.routes.get(&id).cloned());
        self.stats.misses += u64::from(path.is_none());
        path
    }

    /// Takes what was read, and gives up what was not in time. Returns whether anything is awaited no longer.
    pub fn catch_up(&mut self, now: Instant) -> bool {
        if self.under_way == 0 {
            return false;
        }
        let before = self.under_way;
        while let Ok(Answer { key, job, found }) = self.answers.1.try_recv() {
            let entry = self.entries.get_mut(&key);
            let Some(entry) = entry.filter(|entry| entry.reading.as_ref().is_some_and(|reading| reading.job == job))
            else {
                continue;
            };
            let id = entry.reading.take().map(|reading| reading.id);
            self.under_way -= 1;
            self.settle(key, id, found, now);
        }
        let late = |entry: &Entry| {
            entry.reading.as_ref().is_some_and(|reading| now.saturating_duration_since(reading.since) >= PATIENCE)
        };
        let late: Vec<Key> = self.entries.iter().filter(|(_, entry)| late(entry)).map(|(key, _)| *key).collect();
        for key in late {
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.reading = None;
            }
            self.under_way -= 1;
            self.stats.timeouts += 1;
            self.fail(key, format!("process {}: its route table was not read in time", key.0.pid), now);
        }
        self.under_way < before
    }

    /// Forgets a process: it ended or replaced its program.
    pub fn forget(&mut self, pid: u32) {
        let (bytes, under_way) = (&mut self.bytes, &mut self.under_way);
        self.entries.retain(|(process, _), entry| {
            let keep = process.pid != pid;
            if !keep {
                *bytes -= entry.footprint();
                *under_way -= usize::from(entry.reading.is_some());
            }
            keep
        });
        self.shares.retain(|process, _| process.pid != pid);
    }

    /// What the cache did.
    #[must_use]
    pub const fn stats(&self) -> RouteCacheStats {
        self.stats
    }

    /// Who reads for it.
    #[must_use]
    pub const fn reader(&self) -> &Reader {
        &self.reader
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

    /// Has the table read, or checked where it holds the id. False where nobody reads it; the table is worth nothing then.
    #[cold]
    fn begin(&mut self, key: Key, id: u32, now: Instant) -> bool {
        let (process, map) = key;
        let known = self.entries.get(&key).and_then(|entry| entry.table.as_ref());
        let known: Option<Fingerprint> =
            known.filter(|table| table.routes.contains_key(&id)).map(|table| table.fingerprint);
        let share = self.share(process, now);
        share.reads += 1;
        let refusal = if share.reads > MAX_READS && known.is_none() {
            Some("it has too many routers at a time".to_owned())
        } else {
            let job = self.job + 1;
            let answers = self.answers.0.clone();
            let read = move |memory: &dyn Memory| {
                let found = read(memory, map, known);
                // The cache goes only when the daemon ends.
                let _ = answers.send(Answer { key, job, found });
            };
            self.reader.submit(process.pid, read).err().map(|refused| refused.to_string())
        };
        if let Some(reason) = refusal {
            self.stats.refusals += 1;
            self.fail(key, format!("process {}: {reason}", process.pid), now);
            return false;
        }
        self.job += 1;
        self.stats.reads += u64::from(known.is_none());
        self.under_way += 1;
        let reading = Some(Reading { job: self.job, since: now, id });
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.reading = reading;
            return true;
        }
        if self.entries.len() >= MAX_TABLES {
            self.evict(None);
        }
        self.share(process, now).tables += 1;
        self.entries.insert(key, Entry { table: None, used: now, next: now, retry: FIRST_RETRY, reading });
        true
    }

    fn share(&mut self, process: ProcessKey, now: Instant) -> &mut Share {
        let share = self.shares.entry(process).or_insert(Share { tables: 0, bytes: 0, reads: 0, since: now });
        if now.saturating_duration_since(share.since) >= RECHECK {
            (share.reads, share.since) = (0, now);
        }
        share
    }

    fn settle(&mut self, key: Key, id: Option<u32>, found: Found, now: Instant) {
        let table = match found {
            Found::Nothing(error) => {
                match error {
                    RouteError::Memory(MemoryError::TimedOut { .. }) => self.stats.timeouts += 1,
                    _ => self.stats.failures += 1,
                }
                return self.fail(key, format!("process {}: {error}", key.0.pid), now);
            }
            Found::Same => None,
            Found::Table(table) => Some(table),
        };
        let Some(entry) = self.entries.get_mut(&key) else { return };
        if let Some(table) = table {
            let before = entry.footprint();
            let changed = entry.table.as_ref().is_some_and(|old| old.fingerprint != table.fingerprint);
            self.stats.changes += u64::from(changed);
            entry.table = Some(table);
            let after = entry.footprint();
            self.bytes = self.bytes - before + after;
            if let Some(share) = self.shares.get_mut(&key.0) {
                share.bytes = share.bytes - before + after;
            }
        }
        let helped = entry.table.as_ref().is_some_and(|table| id.is_some_and(|id| table.routes.contains_key(&id)));
        if helped {
            (entry.next, entry.retry) = (now + RECHECK, FIRST_RETRY);
        } else {
            entry.wait(now);
        }
        while self.bytes > MAX_BYTES && self.entries.len() > 1 {
            self.evict(Some(key));
        }
    }

    /// Nothing is known of the router until the next try.
    fn fail(&mut self, key: Key, reason: String, now: Instant) {
        self.last_error = Some(reason);
        let Some(entry) = self.entries.get_mut(&key) else { return };
        let before = entry.footprint();
        entry.table = None;
        entry.wait(now);
        self.bytes -= before;
        if let Some(share) = self.shares.get_mut(&key.0) {
            share.bytes -= before;
        }
    }

    /// Drops the table of the largest holder that was not used for the longest time. Linear, and rare: only a new router
    /// evicts.
    fn evict(&mut self, keep: Option<Key>) {
        let weight = |share: &Share| (share.bytes * MAX_TABLES).max(share.tables * MAX_BYTES);
        let of = |process: &ProcessKey| self.shares.get(process).map_or(0, weight);
        let candidates = self.entries.iter().filter(|(key, _)| Some(**key) != keep);
        let oldest = candidates.max_by_key(|((process, _), entry)| (of(process), std::cmp::Reverse(entry.used)));
        let Some(key) = oldest.map(|(key, _)| *key) else { return };
        if let Some(entry) = self.entries.remove(&key) {
            self.bytes -= entry.footprint();
            self.under_way -= usize::from(entry.reading.is_some());
            self.stats.evictions += 1;
            if let Some(share) = self.shares.get_mut(&key.0) {
                share.tables -= 1;
                share.bytes -= entry.footprint();
            }
        }
    }
}

impl Entry {
    fn footprint(&self) -> usize {
        self.table.as_ref().map_or(0, RouteTable::footprint)
    }

    fn wait(&mut self, now: Instant) {
        self.next = now + self.retry;
        self.retry = (self.retry * 2).min(LAST_RETRY);
    }
}

/// Checks a table, and reads it where it is another one or none was known.
fn read(memory: &dyn Memory, map: u64, known: Option<Fingerprint>) -> Found {
    if known.is_some() && read_fingerprint(memory, map).ok() == known {
        return Found::Same;
    }
    match RouteTable::read(memory, map) {
        Ok(table) => Found::Table(table),
        Err(error) => Found::Nothing(error),
    }
}

#[cfg(test)]
#[path = "route_cache_tests.rs"]
mod tests;
