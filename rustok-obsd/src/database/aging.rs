//! A map that forgets what nobody asked for in a while.
//!
//! Reads: keys. Yields: values. Costs: one or two look-ups, no list of uses: entries live in a young and an old half; when
//! the young half is full it becomes the old one, and what was old goes. Bounded by twice the half's size, and nothing is
//! allocated once both halves have grown.

use std::hash::Hash;

use rustc_hash::FxHashMap;

use crate::budget::shrink;

/// See the module's head.
#[derive(Debug)]
pub struct Aging<K, V> {
    young: FxHashMap<K, V>,
    old: FxHashMap<K, V>,
    half: usize,
    /// Entries that were forgotten.
    pub forgotten: u64,
}

impl<K: Copy + Eq + Hash, V> Aging<K, V> {
    /// A map that keeps at least the `half` entries used last, and at most twice as many.
    pub fn new(half: usize) -> Self {
        Self { young: FxHashMap::default(), old: FxHashMap::default(), half, forgotten: 0 }
    }

    /// The value, which becomes young.
    pub fn get_mut(&mut self, key: K) -> Option<&mut V> {
        if !self.young.contains_key(&key) {
            let value = self.old.remove(&key)?;
            self.insert(key, value);
        }
        self.young.get_mut(&key)
    }

    /// Puts a value; returns the one that it replaces.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        if self.young.len() >= self.half && !self.young.contains_key(&key) {
            std::mem::swap(&mut self.young, &mut self.old);
            self.forgotten += self.young.len() as u64;
            self.young.clear();
        }
        let older = self.old.remove(&key);
        self.young.insert(key, value).or(older)
    }

    /// Takes a value out.
    pub fn remove(&mut self, key: K) -> Option<V> {
        self.young.remove(&key).or_else(|| self.old.remove(&key))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    /// Keeps another number from now on.
    pub fn set_half(&mut self, half: usize) {
        self.half = half.max(1);
    }

    /// Gives the room of a wave back.
    pub fn shrink(&mut self) {
        shrink(&mut self.young);
        shrink(&mut self.old);
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.young.is_empty() && self.old.is_empty()
    }

    /// Keeps what `keep` wants.
    pub fn retain(&mut self, mut keep: impl FnMut(&K, &V) -> bool) {
        self.young.retain(|key, value| keep(key, value));
        self.old.retain(|key, value| keep(key, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_stays_and_the_rest_is_forgotten_in_bounds() {
        let mut map = Aging::new(10);
        map.insert(0, "kept");
        for key in 1..1000 {
            map.insert(key, "passing");
            assert_eq!(map.get_mut(0).copied(), Some("kept"));
            assert!(map.young.len() + map.old.len() <= 20);
        }
        assert_eq!(map.get_mut(5), None);
        assert_eq!(map.forgotten + (map.young.len() + map.old.len()) as u64, 1000);
    }

    #[test]
    fn a_value_is_replaced_whichever_half_holds_it() {
        let mut map = Aging::new(2);
        map.insert(1, "a");
        map.insert(2, "b");
        map.insert(3, "c");
        assert_eq!(map.insert(1, "d"), Some("a"));
        assert_eq!((map.get_mut(1).copied(), map.get_mut(2).copied()), (Some("d"), Some("b")));
    }
}
