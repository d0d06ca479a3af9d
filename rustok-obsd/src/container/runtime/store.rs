//! The table of what is known, and of what is still asked for.
//!
//! Reads: facts from the runtimes' tasks, wishes from the container room. Yields: shared facts by container id and by
//! pod UID. Costs: a look-up is one hash under a read lock that writers hold for microseconds; nothing is allocated.

use std::{
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rustc_hash::{FxHashMap, FxHashSet};

use super::facts::{Facts, RuntimeKind};

/// Facts stay this long after their container ended: its last rows still want a name.
pub const GRACE: Duration = Duration::from_secs(600);
/// A container that is asked for is looked for this often by each runtime, a second apart: its cgroup may be there before
/// the runtime lists it.
pub const TRIES: u8 = 4;
/// Containers in the table, and wishes; what comes on top is counted.
pub const MOST: usize = 16 * 1024;

/// Facts of every runtime.
#[derive(Debug, Default)]
pub(super) struct Store {
    inner: RwLock<Inner>,
    version: AtomicU64,
    overflow: AtomicU64,
    labels_dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Inner {
    facts: FxHashMap<Box<str>, Slot>,
    /// Sandboxes by their pod's UID.
    pods: FxHashMap<Box<str>, Box<str>>,
    wanted: FxHashMap<Box<str>, Wanted>,
}

#[derive(Debug)]
struct Slot {
    facts: Arc<Facts>,
    source: usize,
    gone: Option<Instant>,
}

#[derive(Debug)]
struct Wanted {
    since: Instant,
    /// By source.
    tries: Box<[u8]>,
}

impl Store {
    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn get(&self, id: &str) -> Option<Arc<Facts>> {
        self.read().facts.get(id).map(|slot| Arc::clone(&slot.facts))
    }

    pub fn pod(&self, uid: &str) -> Option<Arc<Facts>> {
        let inner = self.read();
        let id = inner.pods.get(uid)?;
        inner.facts.get(id).map(|slot| Arc::clone(&slot.facts))
    }

    /// Changes whenever any fact does.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    pub fn overflow(&self) -> u64 {
        self.overflow.load(Ordering::Relaxed)
    }

    pub fn labels_dropped(&self) -> u64 {
        self.labels_dropped.load(Ordering::Relaxed)
    }

    pub fn drop_labels(&self, count: usize) {
        self.labels_dropped.fetch_add(count as u64, Ordering::Relaxed);
    }

    pub fn len(&self) -> usize {
        self.read().facts.len()
    }

    /// Takes new facts of a container that is there.
    pub fn put(&self, source: usize, facts: Facts) {
        let mut inner = self.write();
        inner.wanted.remove(facts.id.as_str());
        if let Some(slot) = inner.facts.get_mut(facts.id.as_str()) {
            // Only cri-dockerd's containers are known twice; Docker knows more of them.
            if slot.source != source && slot.gone.is_none() && facts.runtime == RuntimeKind::Cri {
                return;
            }
            slot.source = source;
            slot.gone = None;
            if *slot.facts == facts {
                return;
            }
        } else if inner.facts.len() >= MOST {
            self.overflow.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let id: Box<str> = facts.id.as_str().into();
        if facts.is_sandbox && !facts.pod_uid.is_empty() {
            inner.pods.insert(facts.pod_uid.as_str().into(), id.clone());
        }
        inner.facts.insert(id, Slot { facts: Arc::new(facts), source, gone: None });
        self.version.fetch_add(1, Ordering::Release);
    }

    /// A source's whole list: what it does not name is gone.
    pub fn present(&self, source: usize, ids: &FxHashSet<Box<str>>, now: Instant) {
        for (id, slot) in &mut self.write().facts {
            if slot.source == source {
                if ids.contains(id) {
                    slot.gone = None;
                } else {
                    slot.gone.get_or_insert(now);
                }
            }
        }
    }

    /// A container ended.
    pub fn gone(&self, source: usize, id: &str, now: Instant) {
        if let Some(slot) = self.write().facts.get_mut(id).filter(|slot| slot.source == source) {
            slot.gone.get_or_insert(now);
        }
    }

    /// Drops what ended long ago.
    pub fn sweep(&self, now: Instant) {
        let mut inner = self.write();
        let old = |since: Instant| now.saturating_duration_since(since) > GRACE;
        inner.facts.retain(|_, slot| !slot.gone.is_some_and(old));
        inner.wanted.retain(|_, wanted| !old(wanted.since));
        let Inner { facts, pods, .. } = &mut *inner;
        pods.retain(|_, id| facts.contains_key(id));
        // A wave of short-lived containers must not leave its room behind.
        if facts.capacity() > 4 * facts.len().max(64) {
            facts.shrink_to_fit();
            pods.shrink_to_fit();
        }
    }

    pub fn forget(&self, id: &str) {
        let mut inner = self.write();
        inner.wanted.remove(id);
        if let Some(slot) = inner.facts.remove(id)
            && inner.pods.get(slot.facts.pod_uid.as_str()).is_some_and(|sandbox| **sandbox == *id)
        {
            inner.pods.remove(slot.facts.pod_uid.as_str());
        }
    }

    /// Notes that a container is asked for. Yields whether that is news. One that was looked for in vain is looked for again:
    /// who asked when its cgroup was made may have been too early.
    pub fn want(&self, id: &str, sources: usize, now: Instant) -> bool {
        let mut inner = self.write();
        if inner.facts.contains_key(id) {
            return false;
        }
        if let Some(wanted) = inner.wanted.get_mut(id) {
            let ended = wanted.tries.iter().any(|&tries| tries >= TRIES);
            wanted.tries.iter_mut().filter(|tries| **tries >= TRIES).for_each(|tries| *tries = 0);
            return ended;
        }
        if inner.wanted.len() >= MOST {
            self.overflow.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        inner.wanted.insert(id.into(), Wanted { since: now, tries: vec![0; sources].into() });
        true
    }

    /// What a source has still to look for.
    pub fn pending(&self, source: usize) -> Vec<Box<str>> {
        let inner = self.read();
        let open = inner.wanted.iter().filter(|(_, wanted)| wanted.tries[source] < TRIES);
        open.map(|(id, _)| id.clone()).collect()
    }

    pub fn has_pending(&self, source: usize) -> bool {
        self.read().wanted.values().any(|wanted| wanted.tries[source] < TRIES)
    }

    /// A source looked for these and did not find those that are still here.
    pub fn tried(&self, source: usize, ids: &[Box<str>]) {
        let mut inner = self.write();
        for id in ids {
            if let Some(wanted) = inner.wanted.get_mut(id) {
                wanted.tries[source] = wanted.tries[source].saturating_add(1);
            }
        }
    }

    /// Whether a container is asked for and any of the sources that `alive` names has still to look for it.
    pub fn is_open(&self, id: &str, alive: impl Fn(usize) -> bool) -> bool {
        let inner = self.read();
        let Some(wanted) = inner.wanted.get(id) else { return false };
        wanted.tries.iter().enumerate().any(|(source, &tries)| tries < TRIES && alive(source))
    }
}
