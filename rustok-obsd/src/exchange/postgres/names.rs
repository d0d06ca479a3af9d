//! Which SQL a name of a connection stands for.
//!
//! Reads: Parse and Close. Yields: texts, shared by all connections. Costs: one copy of each distinct text for the
//! whole daemon; a name costs about 60 bytes on its connection.

use crate::budget::{Budget, Store, shrink};
use rustc_hash::{FxBuildHasher, FxHashMap};
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;

/// SQL as sent, up to the limit.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Text {
    pub(super) sql: Box<[u8]>,
    pub(super) truncated: bool,
}

/// The texts that connections hold, each once, charged to who sent it first.
#[derive(Debug)]
pub(super) struct Texts {
    by_hash: HashMap<(u64, bool), Held, FxBuildHasher>,
    /// Those whose hash another one has.
    others: Vec<Held>,
    pub(super) budget: Budget,
    /// Texts when they were last looked through.
    looked: usize,
}

#[derive(Debug)]
struct Held {
    text: Arc<Text>,
    owner: u32,
}

impl Default for Texts {
    fn default() -> Self {
        let (by_hash, others, budget) = (HashMap::default(), Vec::new(), Budget::new(Store::Prepared));
        Self { by_hash, others, budget, looked: 0 }
    }
}

impl Texts {
    /// Bytes of a text without its SQL, with its place in the table.
    const TEXT: usize = size_of::<Text>() + 2 * size_of::<((u64, bool), Held)>() + 16;

    /// The text, shared; `None` where its owner has its share.
    pub(super) fn share(&mut self, owner: u32, sql: &[u8], truncated: bool) -> Option<Arc<Text>> {
        let key = (FxBuildHasher.hash_one(sql), truncated);
        let known = self.by_hash.get(&key);
        if let Some(held) = known.filter(|held| *held.text.sql == *sql) {
            return Some(Arc::clone(&held.text));
        }
        let (taken, size) = (known.is_some(), Self::TEXT + sql.len());
        if self.budget.held(owner) + size > self.budget.allowance(owner) && self.len() > self.looked / 2 {
            self.sweep();
        }
        if !self.budget.charge(owner, size) {
            return None;
        }
        let text = Arc::new(Text { sql: sql.into(), truncated });
        let held = Held { text: Arc::clone(&text), owner };
        if taken {
            self.others.push(held);
        } else {
            self.by_hash.insert(key, held);
        }
        Some(text)
    }

    fn len(&self) -> usize {
        self.by_hash.len() + self.others.len()
    }

    /// Forgets texts that no connection holds any more.
    pub(super) fn sweep(&mut self) {
        let Self { by_hash, others, budget, .. } = self;
        let mut stays = |held: &Held| {
            let stays = Arc::strong_count(&held.text) > 1;
            if !stays {
                budget.release(held.owner, Self::TEXT + held.text.sql.len());
            }
            stays
        };
        by_hash.retain(|_, held| stays(held));
        others.retain(|held| stays(held));
        shrink(by_hash);
        self.looked = self.len();
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
    /// Of names.
    name_bytes: usize,
    clock: u64,
}

impl Statements {
    /// Bytes of a name without its letters, with its place in the table.
    const NAME: usize = 2 * size_of::<(Box<[u8]>, Named)>();

    /// Bytes of names.
    pub(super) const fn held_bytes(&self) -> usize {
        self.name_bytes
    }

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
            None => {
                self.name_bytes += Self::NAME + name.len();
                self.named.insert(name.into(), named)
            }
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
            self.name_bytes -= Self::NAME + name.len();
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(super) fn len(&self) -> usize {
        self.named.len()
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
        *self = Self::default();
    }

    /// Bytes of names.
    pub(super) fn held_bytes(&self) -> usize {
        self.named.iter().map(|(name, _)| size_of::<(Box<[u8]>, Bound)>() + name.len()).sum()
    }
}
