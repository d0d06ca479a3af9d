//! Analysed statements, kept by their raw text.
//!
//! Reads: SQL text as captured. Yields: shared [`Statement`]s. Costs: a hit hashes the text once and compares it once,
//! and allocates nothing; a miss costs an analysis.

use super::{Analyst, Dialect, Statement};
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
}

struct Entry {
    raw: Box<[u8]>,
    truncated: bool,
    dialect: Dialect,
    statement: Arc<Statement>,
    /// Asked for since the hand passed.
    used: bool,
}

/// Raw text to [`Statement`], bounded in entries and bytes; what was not asked for lately gives way (clock).
pub struct StatementCache {
    by_hash: FxHashMap<u64, usize>,
    entries: Vec<Entry>,
    hand: usize,
    bytes: usize,
    most: usize,
    most_bytes: usize,
    /// Normalised texts in use, each once.
    interned: FxHashMap<u64, Arc<Statement>>,
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

    /// The statement of a raw text. `truncated`: it is the beginning of a longer one.
    pub fn get(&mut self, raw: &[u8], truncated: bool, dialect: Dialect) -> Arc<Statement> {
        let hash = FxBuildHasher.hash_one((raw, truncated, dialect));
        let known = self.by_hash.get(&hash).copied();
        if let Some(entry) = known.and_then(|index| self.entries.get_mut(index))
            && *entry.raw == *raw
            && entry.truncated == truncated
            && entry.dialect == dialect
        {
            self.stats.hits += 1;
            entry.used = true;
            return Arc::clone(&entry.statement);
        }
        self.stats.misses += 1;
        let statement = self.analyst.analyse(raw, truncated, dialect);
        let statement = self.intern(statement);
        // A text whose hash another one has, or that fills the cache alone, is analysed each time.
        if known.is_none() && raw.len() <= self.most_bytes {
            self.keep(
                hash,
                Entry { raw: raw.into(), truncated, dialect, statement: Arc::clone(&statement), used: false },
            );
        }
        statement
    }

    fn keep(&mut self, hash: u64, entry: Entry) {
        let size = entry.raw.len();
        while !self.entries.is_empty() && (self.entries.len() >= self.most || self.bytes + size > self.most_bytes) {
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
        self.bytes -= gone.raw.len();
        self.by_hash.remove(&hash(&gone));
        if let Some(moved) = self.entries.get(self.hand) {
            self.by_hash.insert(hash(moved), self.hand);
        }
    }

    /// The same normalised text is the same `Arc`, as long as somebody holds it.
    fn intern(&mut self, statement: Statement) -> Arc<Statement> {
        if self.interned.len() >= 2 * self.most {
            self.interned.retain(|_, known| Arc::strong_count(known) > 1);
        }
        match self.interned.get(&statement.fingerprint) {
            // Case and white space may differ from those of the first one seen.
            Some(known) if known.knowledge == statement.knowledge => Arc::clone(known),
            Some(_) => Arc::new(statement),
            None => {
                let statement = Arc::new(statement);
                if self.interned.len() < 2 * self.most {
                    self.interned.insert(statement.fingerprint, Arc::clone(&statement));
                }
                statement
            }
        }
    }
}

impl Default for StatementCache {
    fn default() -> Self {
        Self::new(Self::ENTRIES, Self::BYTES)
    }
}
