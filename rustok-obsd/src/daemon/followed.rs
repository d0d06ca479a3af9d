//! Whom the kernel programs follow: the maps that say so, and what has to go out of them again.
//!
//! Reads: the maps. Yields: entries, taken back when their target ends. Costs: a system call per entry; a recount of
//! children walks the map of followed processes, at most once a second.

use std::collections::{HashMap, HashSet};

use rustok_obsd_ebpf::{Layout, PlaceKey, Tag, Target as FollowedTarget};

use crate::probe::TargetMaps;

/// Ports of one target; a server has a few.
const PORTS_PER_TARGET: usize = 64;

/// What is in the maps for one target.
#[derive(Default)]
struct Entries {
    ports: Vec<u16>,
    layouts: Vec<[u64; 2]>,
}

/// See the module's head. Without kernel programs it follows nobody.
pub(super) struct Followed {
    maps: Option<TargetMaps>,
    entries: HashMap<u32, Entries>,
    /// A child was let go, so that the count of its family is too high.
    uncounted: bool,
}

impl Followed {
    pub(super) fn new(maps: Option<TargetMaps>) -> Self {
        Self { maps, entries: HashMap::new(), uncounted: false }
    }

    /// Follows a target, or changes how; `slot` 0: its task ids are not known.
    pub(super) fn follow(&mut self, pid: u32, slot: i64, place: u16, tag: Tag) -> Result<(), String> {
        let Some(maps) = &mut self.maps else { return Ok(()) };
        let words = FollowedTarget::new(pid, slot, place, tag).words();
        // A family of its own, even if it was a child so far. An entry that is there keeps its count.
        if maps.forked.get(&pid, 0).is_err() {
            maps.released.insert(pid, 0, 0).map_err(|error| format!("its children: {error}"))?;
            maps.forked.insert(pid, 0, 0).map_err(|error| format!("its children: {error}"))?;
            // It is no child of its parent's family any more.
            self.uncounted = true;
        }
        maps.targets.insert(pid, words, 0).map_err(|error| format!("the programs' map of targets: {error}"))?;
        self.entries.entry(pid).or_default();
        Ok(())
    }

    /// Lets the programs know on which ports the target listens, so that a connection is known from its handshake on.
    pub(super) fn listens(&mut self, pid: u32, ports: &[u16]) {
        let (Some(maps), Some(entries)) = (&mut self.maps, self.entries.get_mut(&pid)) else { return };
        for port in ports.iter().take(PORTS_PER_TARGET) {
            match maps.ports.insert(*port, 1, 0) {
                Ok(()) => entries.ports.push(*port),
                Err(error) => tracing::debug!("port {port}: {error}"),
            }
        }
    }

    /// Where a function of the target holds its statement.
    pub(super) fn layout(&mut self, pid: u32, address: u64, layout: Layout) -> Result<(), String> {
        let Some(maps) = &mut self.maps else { return Ok(()) };
        let key = PlaceKey { place: address, tgid: pid, pad: 0 };
        let mut words = [0; 2];
        for (word, bytes) in words.iter_mut().zip(key.as_bytes().chunks_exact(8)) {
            *word = u64::from_ne_bytes(bytes.try_into().unwrap_or_default());
        }
        let value = u64::from_ne_bytes(layout.as_bytes().try_into().unwrap_or_default());
        maps.layouts.insert(words, value, 0).map_err(|error| format!("the programs' map of layouts: {error}"))?;
        self.entries.entry(pid).or_default().layouts.push(words);
        Ok(())
    }

    /// The target ended: nothing of it stays in the maps. A port that another target listens on stays.
    pub(super) fn forget(&mut self, pid: u32) {
        let Some(maps) = &mut self.maps else { return };
        // Its entries may be gone already: an exec takes out the process, and its end may be seen twice.
        let _ = maps.targets.remove(&pid);
        let _ = maps.forked.remove(&pid);
        let _ = maps.released.remove(&pid);
        let Some(Entries { ports, layouts }) = self.entries.remove(&pid) else { return };
        for key in layouts {
            let _ = maps.layouts.remove(&key);
        }
        let others: HashSet<u16> = self.entries.values().flat_map(|entries| entries.ports.iter().copied()).collect();
        for port in ports.iter().filter(|port| !others.contains(port)) {
            let _ = maps.ports.remove(port);
        }
    }

    /// Whether the programs still follow a target: an exec ends that in the kernel, even where its notice was lost.
    pub(super) fn follows(&self, pid: u32) -> bool {
        self.maps.as_ref().is_none_or(|maps| maps.targets.get(&pid, 0).is_ok())
    }

    /// A child went another way than by [`Self::disown`]: it runs another program.
    pub(super) fn recount(&mut self) {
        self.uncounted = true;
    }

    /// A forked child is no target, or no more.
    pub(super) fn disown(&mut self, pid: u32) {
        let Some(maps) = &mut self.maps else { return };
        // It may be gone already, by its end.
        let _ = maps.targets.remove(&pid);
        self.uncounted = true;
    }

    /// Takes out processes that are neither targets nor waiting to become one: children of which no more was heard.
    pub(super) fn keep_only(&mut self, known: impl Fn(u32) -> bool) {
        let Some(maps) = &self.maps else { return };
        let strangers: Vec<u32> = maps.targets.keys().flatten().filter(|pid| !known(*pid)).collect();
        strangers.into_iter().for_each(|pid| self.disown(pid));
    }

    /// Counts the children that are still followed, so that their targets may have as many new ones.
    pub(super) fn settle(&mut self) {
        if !std::mem::take(&mut self.uncounted) {
            return;
        }
        let Some(maps) = &mut self.maps else { return };
        // The total first: a child that comes meanwhile is counted as one that is followed.
        let totals: Vec<(u32, u64)> = maps.forked.iter().flatten().collect();
        let mut followed: HashMap<u32, u64> = HashMap::new();
        for (pid, words) in maps.targets.iter().flatten() {
            let family = FollowedTarget { task_slot: 0, flags: words[1] }.family();
            *followed.entry(family).or_default() += u64::from(family != pid);
        }
        for (family, total) in totals {
            let released = total.saturating_sub(followed.get(&family).copied().unwrap_or(0));
            if let Err(error) = maps.released.insert(family, released, 0) {
                tracing::debug!("children of process {family}: {error}");
            }
        }
    }
}
