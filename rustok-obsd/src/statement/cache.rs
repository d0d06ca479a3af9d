//! Analysed statements, kept by their raw text.
//!
//! Reads: SQL text as captured. Yields: shared [`Statement`]s. Costs: a hit hashes the text once and compares it once,
//! and allocates nothing; a miss costs an analysis.
//!
//! Raw texts and normalised ones may each take half of the bytes. A text that finds no room gives way to those before
//! it; a statement that finds none, since others are in use, keeps the beginning of its text: its fingerprint, and so
//! its series, is the same.

use super::{Analyst, Dialect, Knowledge, Statement};
use rustc_hash::{FxBuildHasher, FxHashMap};
use std::hash::BuildHasher;
use std::sync::Arc;

/// Counts; each goes up only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Texts that were known.
    pub hits: u64,
    /// Texts that were analysed.
    pub misses: u64,
    /// Texts that gave way to newer ones.
    pub evictions: u64,
    /// Statements for whose whole text there was no room.
    pub shortened: u64,
}

struct Entry {
    raw: Box<[u8]>,
    truncated: bool,
    dialect: Dialect,
    statement: Arc<Statement>,
    /// Asked for since the hand passed.
    used: bool,
}

impl Entry {
    fn size(&self) -> usize {
        self.raw.len() + ENTRY
    }
}

/// An entry without its text, with its place in the tables.
const ENTRY: usize = size_of::<Entry>() + 40;

/// Entries that give way to one statement.
const EVICTED_AT_ONCE: usize = 64;

/// Raw text to [`Statement`], bounded in entries and bytes; what was not asked for lately gives way (clock).
pub struct StatementCache {
    by_hash: FxHashMap<u64, usize>,
    entries: Vec<Entry>,
    hand: usize,
    /// Of entries.
    bytes: usize,
    most: usize,
    most_bytes: usize,
    /// Normalised texts in use, each once.
    interned: FxHashMap<(u64, Knowledge), Arc<Statement>>,
    /// Of these.
    interned_bytes: usize,
    /// Texts analysed since these were last looked through for some that nobody holds any more.
    since_sweep: usize,
    analyst: Analyst,
    stats: CacheStats,
}

impl std::fmt::Debug for StatementCache {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("StatementCache")
            .field("entries", &self.entries.len())
            .field("stats", &self.stats)
            .finish()
    }
}

impl StatementCache {
    /// Texts kept unless told otherwise.
    pub const ENTRIES: usize = 4096;
    /// Bytes of texts kept unless told otherwise.
    pub const BYTES: usize = 4 * 1024 * 1024;

    /// A cache of at most so many texts and bytes of them.
    #[must_use]
    pub fn new(most: usize, most_bytes: usize) -> Self {
        Self {
            by_hash: FxHashMap::default(),
            entries: Vec::new(),
            hand: 0,
            bytes: 0,
            most: most.max(1),
            most_bytes,
            interned: FxHashMap::default(),
            interned_bytes: 0,
            since_sweep: 0,
            analyst: Analyst::default(),
            stats: CacheStats::default(),
        }
    }

    /// Counts.
    #[must_use]
    pub const fn stats(&self) -> CacheStats {
        self.stats
    }

    /// Texts kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// No text is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of texts, raw and normalised.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes + self.interned_bytes
    }

    /// The statement of a raw text. `truncated`: it is the beginning of a longer one.
    pub fn get(&mut self, raw: &[u8], truncated: bool, dialect: Dialect) -> Arc<Statement> {
        match self.find(raw, truncated, dialect) {
            Some(statement) => statement,
            None => self.add(raw, truncated, dialect, self.most_bytes),
        }
    }

    /// The statement of a raw text that is known.
    pub fn find(&mut self, raw: &[u8], truncated: bool, dialect: Dialect) -> Option<Arc<Statement>> {
        let hash = FxBuildHasher.hash_one((raw, truncated, dialect));
        let index = *self.by_hash.get(&hash)?;
        let entry = self
            .entries
            .get_mut(index)
            .filter(|entry| *entry.raw == *raw && entry.truncated == truncated && entry.dialect == dialect)?;
        self.stats.hits += 1;
        entry.used = true;
        Some(Arc::clone(&entry.statement))
    }

    /// The statement of a raw text that [`Self::find`] does not find; afterwards the cache takes at most `most_bytes`, or
    /// what is in use elsewhere.
    pub fn add(&mut self, raw: &[u8], truncated: bool, dialect: Dialect, most_bytes: usize) -> Arc<Statement> {
        self.most_bytes = most_bytes;
        self.stats.misses += 1;
        let statement = self.analyst.analyse(raw, truncated, dialect).with_short_names();
        let statement = self.intern(statement);
        // A text whose hash another one has, or that fills the cache alone, is analysed each time.
        let hash = FxBuildHasher.hash_one((raw, truncated, dialect));
        if !self.by_hash.contains_key(&hash) {
            let entry = Entry { raw: raw.into(), truncated, dialect, statement: Arc::clone(&statement), used: false };
            self.keep(hash, entry);
        }
        statement
    }

    /// Forgets statements that nobody holds any more, and gives room back.
    pub fn sweep(&mut self) {
        let bytes = &mut self.interned_bytes;
        self.interned.retain(|_, known| {
            let held = Arc::strong_count(known) > 1;
            *bytes -= if held { 0 } else { known.size() };
            held
        });
        self.since_sweep = 0;
        crate::budget::shrink(&mut self.interned);
        crate::budget::shrink(&mut self.by_hash);
        if self.entries.capacity() > 4 * self.entries.len().max(64) {
            self.entries.shrink_to(2 * self.entries.len());
        }
    }

    fn keep(&mut self, hash: u64, entry: Entry) {
        let size = entry.size();
        let most_bytes = self.most_bytes - self.most_bytes / 2;
        if size > most_bytes {
            return;
        }
        while !self.entries.is_empty() && (self.entries.len() >= self.most || self.bytes + size > most_bytes) {
            self.evict();
        }
        self.bytes += size;
        self.by_hash.insert(hash, self.entries.len());
        self.entries.push(entry);
    }

    /// Removes the first entry that was not asked for since the hand passed it.
    fn evict(&mut self) {
        loop {
            self.hand %= self.entries.len();
            let entry = &mut self.entries[self.hand];
            if !std::mem::take(&mut entry.used) {
                break;
            }
            self.hand += 1;
        }
        self.stats.evictions += 1;
        let hash = |entry: &Entry| FxBuildHasher.hash_one((&*entry.raw, entry.truncated, entry.dialect));
        let gone = self.entries.swap_remove(self.hand);
        self.bytes -= gone.size();
        self.by_hash.remove(&hash(&gone));
        if let Some(moved) = self.entries.get(self.hand) {
            self.by_hash.insert(hash(moved), self.hand);
        }
        self.forget(&gone.statement);
    }

    /// An entry of the statement went; the last one takes it along.
    fn forget(&mut self, statement: &Arc<Statement>) {
        let key = key(statement);
        if self.interned.get(&key).is_none_or(|known| !Arc::ptr_eq(known, statement)) {
            return;
        }
        if Arc::strong_count(statement) == 2 {
            self.interned_bytes -= statement.size();
            self.interned.remove(&key);
        }
    }

    /// The same normalised text is the same `Arc`, as long as somebody holds it.
    fn intern(&mut self, statement: Statement) -> Arc<Statement> {
        // Case and white space may differ from those of the first one seen.
        if let Some(known) = self.interned.get(&key(&statement)) {
            return Arc::clone(known);
        }
        self.since_sweep += 1;
        if !self.fits(&statement) && self.since_sweep > self.interned.len() / 2 {
            self.sweep();
        }
        // Where others hold what is there, eviction gains nothing, nor for one that is too long.
        let possible = statement.size() <= self.most_bytes / 2;
        for _ in 0..EVICTED_AT_ONCE {
            if !possible || self.fits(&statement) || self.entries.is_empty() {
                break;
            }
            self.evict();
        }
        let statement = if self.fits(&statement) {
            statement
        } else {
            self.stats.shortened += 1;
            statement.with_short_text()
        };
        let (fits, statement) = (self.fits(&statement), Arc::new(statement));
        if fits {
            self.interned_bytes += statement.size();
            self.interned.insert(key(&statement), Arc::clone(&statement));
        }
        statement
    }

    fn fits(&self, statement: &Statement) -> bool {
        self.interned.len() < 2 * self.most && self.interned_bytes + statement.size() <= self.most_bytes / 2
    }
}

const fn key(statement: &Statement) -> (u64, Knowledge) {
    (statement.fingerprint, statement.knowledge)
}

impl Default for StatementCache {
    fn default() -> Self {
        Self::new(Self::ENTRIES, Self::BYTES)
    }
}
