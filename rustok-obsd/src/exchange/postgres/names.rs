//! Which SQL a name of a connection stands for.
//!
//! Reads: Parse and Close. Yields: texts, shared by all connections. Costs: one copy of each distinct text for the
//! whole daemon; a name costs about 60 bytes on its connection.

use rustc_hash::{FxBuildHasher, FxHashMap};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::BuildHasher;
use std::sync::Arc;

/// SQL as sent, up to the limit.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Text {
    pub(super) sql: Box<[u8]>,
    pub(super) truncated: bool,
}

/// The texts that connections hold, each once.
#[derive(Debug, Default)]
pub(super) struct Texts {
    by_hash: HashMap<u64, Arc<Text>, FxBuildHasher>,
}

impl Texts {
    /// So many texts are shared; those behind them are held by their connections alone.
    const BOUND: usize = 8192;

    pub(super) fn share(&mut self, sql: &[u8], truncated: bool) -> Arc<Text> {
        let new = || Arc::new(Text { sql: sql.into(), truncated });
        if self.by_hash.len() >= Self::BOUND {
            self.by_hash.retain(|_, text| Arc::strong_count(text) > 1);
            if self.by_hash.len() >= Self::BOUND {
                return new();
            }
        }
        match self.by_hash.entry(FxBuildHasher.hash_one(sql)) {
            Entry::Occupied(known) if *known.get().sql == *sql && known.get().truncated == truncated => {
                Arc::clone(known.get())
            }
            Entry::Occupied(_) => new(),
            Entry::Vacant(place) => Arc::clone(place.insert(new())),
        }
    }
}

#[derive(Debug)]
struct Named {
    text: Arc<Text>,
    used: u64,
}

/// Prepared statements of a connection, bounded: the one used longest ago is forgotten first.
#[derive(Debug, Default)]
pub(super) struct Statements {
    unnamed: Option<Arc<Text>>,
    named: FxHashMap<Box<[u8]>, Named>,
    bytes: usize,
    clock: u64,
}

impl Statements {
    /// Names on one connection (sqlx keeps 100, sea-orm the same).
    pub(super) const NAMES: usize = 512;
    /// Bytes of text that the names of one connection stand for.
    pub(super) const BYTES: usize = 2 * 1024 * 1024;

    pub(super) fn get(&mut self, name: &[u8]) -> Option<Arc<Text>> {
        if name.is_empty() {
            return self.unnamed.clone();
        }
        self.clock += 1;
        let named = self.named.get_mut(name)?;
        named.used = self.clock;
        Some(Arc::clone(&named.text))
    }

    /// Returns how many were forgotten for it.
    pub(super) fn set(&mut self, name: &[u8], text: Arc<Text>) -> u64 {
        if name.is_empty() {
            self.unnamed = Some(text);
            return 0;
        }
        self.clock += 1;
        self.bytes += text.sql.len();
        let named = Named { text, used: self.clock };
        let replaced = match self.named.get_mut(name) {
            Some(place) => Some(std::mem::replace(place, named)),
            None => self.named.insert(name.into(), named),
        };
        self.bytes -= replaced.map_or(0, |named| named.text.sql.len());
        let mut forgotten = 0;
        while self.named.len() > Self::NAMES || self.bytes > Self::BYTES && self.named.len() > 1 {
            let oldest = self.named.iter().min_by_key(|(_, named)| named.used).map(|(name, _)| name.clone());
            let Some(oldest) = oldest else { break };
            self.forget(&oldest);
            forgotten += 1;
        }
        forgotten
    }

    pub(super) fn forget(&mut self, name: &[u8]) {
        if name.is_empty() {
            self.unnamed = None;
        } else if let Some(named) = self.named.remove(name) {
            self.bytes -= named.text.sql.len();
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    #[cfg(test)]
    pub(super) fn held(&self) -> (usize, usize) {
        (self.named.len(), self.bytes)
    }
}

/// What a portal runs; `None` where the statement is unknown.
type Bound = Option<Arc<Text>>;

/// Portals of a connection.
#[derive(Debug, Default)]
pub(super) struct Portals {
    unnamed: Bound,
    named: Vec<(Box<[u8]>, Bound)>,
}

impl Portals {
    /// Named portals of one connection; they end with their transaction.
    pub(super) const NAMES: usize = 64;

    pub(super) fn set(&mut self, name: &[u8], text: Bound) {
        if name.is_empty() {
            self.unnamed = text;
        } else if let Some((_, place)) = self.named.iter_mut().find(|(known, _)| **known == *name) {
            *place = text;
        } else {
            if self.named.len() >= Self::NAMES {
                self.named.remove(0);
            }
            self.named.push((name.into(), text));
        }
    }

    pub(super) fn get(&self, name: &[u8]) -> Bound {
        if name.is_empty() {
            return self.unnamed.clone();
        }
        self.named.iter().find(|(known, _)| **known == *name).and_then(|(_, text)| text.clone())
    }

    pub(super) fn forget(&mut self, name: &[u8]) {
        if name.is_empty() {
            self.unnamed = None;
        } else {
            self.named.retain(|(known, _)| **known != *name);
        }
    }

    /// A transaction ended. The unnamed one is gone, too, but a client that binds it anew says so.
    pub(super) fn end_of_transaction(&mut self) {
        self.named.clear();
    }

    pub(super) fn clear(&mut self) {
        self.unnamed = None;
        self.named.clear();
    }
}
