//! An append-only list with one writer and many readers, none of which waits for another.
//!
//! Reads: items of the writer. Yields: shared references that stay valid. Costs: its slots up front, so that they never move; no lock.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Room for a fixed number of items; the `len` first are there.
pub(super) struct List<T> {
    slots: Box<[OnceLock<T>]>,
    len: AtomicUsize,
}

impl<T> List<T> {
    /// Room for `capacity` items.
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self { slots: (0..capacity).map(|_| OnceLock::new()).collect(), len: AtomicUsize::new(0) }
    }

    /// Items that a reader may see: whatever happened before their `push` is visible too.
    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::Acquire)
    }

    /// Item `index`, which must be below `len()`.
    pub(super) fn get(&self, index: usize) -> Option<&T> {
        self.slots.get(index)?.get()
    }

    /// The first `len` items.
    pub(super) fn iter(&self, len: usize) -> impl Iterator<Item = &T> {
        self.slots.iter().take(len).map_while(OnceLock::get)
    }

    /// Appends an item and returns its index, `None` where the list is full. One thread only.
    pub(super) fn push(&self, item: T) -> Option<usize> {
        let index = self.len.load(Ordering::Relaxed);
        self.slots.get(index)?.set(item).ok()?;
        self.len.store(index + 1, Ordering::Release);
        Some(index)
    }
}
