//! Processes killed because memory ran out, by cgroup.
//!
//! Reads: v1 `memory.oom_control`, v2 `memory.events.local` (`oom_kill`), which end with their cgroup; the kernel's own
//! event with the inode of the cgroup. Yields: [`Kills`]; [`Ghost`]s of cgroups that are gone. Costs: a small file.
//!
//! Neither is added to the other: the file counts all since the cgroup was made, the events all since we look. What is told
//! is the greater of the file and of its first value with the events on top; a kill that both tell counts once.

use super::files::{Files, Reader, Source};
use super::group::Group;
use super::names::Names;
use super::owner::{ROOT, owner};
use crate::host::text;
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long the count of a cgroup that is gone is still told: a scraper that comes every five minutes sees it.
pub const GRACE: Duration = Duration::from_secs(300);

/// Kills in one cgroup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kills {
    /// As the file last said.
    file: u64,
    /// As it said first; 0 for a cgroup that was made under our eyes.
    base: Option<u64>,
    /// Events since.
    events: u64,
    /// Of earlier cgroups of the same path, which were told under the same labels.
    before: u64,
}

impl Kills {
    /// `fresh`: the cgroup was made under our eyes, hence all its kills are events.
    #[must_use]
    pub fn new(fresh: bool) -> Self {
        Self { base: fresh.then_some(0), ..Self::default() }
    }

    /// Reads the file.
    pub fn read(&mut self, id: &str, files: &mut Files, reader: &mut Reader) {
        let Some(text) = reader.read(id, files, Source::MemoryKills) else { return };
        let kills = text::fields(text).find(|(name, _)| *name == b"oom_kill").and_then(|(_, value)| text::u64(value));
        self.set(kills.unwrap_or_default());
    }

    fn set(&mut self, kills: u64) {
        // An event that came before the first reading may be in the file already.
        let before = self.events;
        self.base.get_or_insert(kills.saturating_sub(before));
        self.file = kills.max(self.file);
    }

    /// The kernel told of so many.
    pub fn events(&mut self, count: u64) {
        self.events += count;
    }

    /// Goes on from those of an earlier cgroup of the path.
    pub fn after(&mut self, earlier: Self) {
        self.before += earlier.total();
    }

    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.before + self.file.max(self.base.unwrap_or_default() + self.events)
    }
}

/// A cgroup that had kills and is gone.
#[derive(Debug)]
struct Ghost {
    id: Box<str>,
    inode: u64,
    labels: Vec<u8>,
    kills: Kills,
    until: Instant,
    /// Its name is still on its way: it is told when that is there.
    nameless: Option<Box<Group>>,
}

/// Cgroups that are gone, at most; what is beyond is not told any more.
const MOST_GHOSTS: usize = 10_000;
/// How long one without kills is kept, for an event of it may be on its way.
const ECHO: Duration = Duration::from_secs(10);

/// All of them.
#[derive(Debug, Default)]
pub struct Ghosts(Vec<Ghost>);

impl Ghosts {
    /// Takes in what is left of a cgroup.
    pub fn add(&mut self, mut group: Box<Group>, now: Instant) {
        let mut kills = group.kills;
        if let Some(earlier) = self.take(&group.id) {
            kills.after(earlier);
        }
        // Users leave half to root's cgroups.
        if self.0.len() < if owner(&group.id) == ROOT { MOST_GHOSTS } else { MOST_GHOSTS / 2 } {
            let until = now + if kills.total() > 0 { GRACE } else { ECHO };
            let labels = std::mem::take(&mut group.labels);
            let (id, inode) = (group.id.clone(), group.inode);
            let nameless = group.is_nameless().then_some(group);
            self.0.push(Ghost { id, inode, labels, kills, until, nameless });
        }
    }

    /// Names those that have no name yet, once their runtime has answered, or too much time went by.
    pub fn name(&mut self, names: &dyn Names, version: u64, wanted_labels: &[(String, String)], now: Instant) {
        for ghost in &mut self.0 {
            let Some(group) = &mut ghost.nameless else { continue };
            group.name(names, version, wanted_labels);
            if !group.held {
                ghost.labels = std::mem::take(&mut group.labels);
                ghost.nameless = None;
                if ghost.kills.total() > 0 {
                    ghost.until = now + GRACE;
                }
            }
        }
    }

    /// What is left of a path, which lives again.
    pub fn take(&mut self, id: &str) -> Option<Kills> {
        let at = self.0.iter().position(|ghost| &*ghost.id == id)?;
        Some(self.0.swap_remove(at).kills)
    }

    /// The kernel told of a kill in one of them; false where it is none of them.
    pub fn event(&mut self, inode: u64, now: Instant) -> bool {
        let Some(ghost) = self.0.iter_mut().rev().find(|ghost| ghost.inode == inode) else { return false };
        ghost.kills.events(1);
        ghost.until = now + GRACE;
        true
    }

    /// Forgets those whose time is over. That of a kill begins when it is first told.
    pub fn forget(&mut self, now: Instant) {
        let untold = |ghost: &Ghost| ghost.nameless.is_some() && ghost.kills.total() > 0;
        self.0.retain(|ghost| ghost.until > now || untold(ghost));
    }

    /// Those with kills and a name.
    pub fn killed(&self) -> impl Iterator<Item = (&[u8], u64)> {
        let named = self.0.iter().filter(|ghost| ghost.nameless.is_none());
        named.map(|ghost| (ghost.labels.as_slice(), ghost.kills.total())).filter(|(_, kills)| *kills > 0)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Events on their way from the thread that hears the kernel to the next scrape.
#[derive(Debug, Default)]
pub struct Queue {
    events: Mutex<VecDeque<u64>>,
}

/// Kills remembered between two scrapes; the files count all, if their cgroups live.
const MOST: usize = 4096;

impl Queue {
    /// Adds a kill in the cgroup whose directory has this inode; the oldest goes where there is no room.
    pub fn push(&self, inode: u64) {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        if events.len() == MOST {
            events.pop_front();
        }
        events.push_back(inode);
    }

    /// Takes the oldest.
    pub fn pop(&self) -> Option<u64> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::names::{Facts, Lookup};
    use crate::container::tests::{ID, Told};

    #[test]
    fn a_kill_told_twice_counts_once() {
        // Made before us: the file's past counts.
        let mut old = Kills::new(false);
        old.set(5);
        old.events(1);
        assert_eq!(old.total(), 6);
        old.set(6);
        assert_eq!(old.total(), 6);
        // No event reached us.
        old.set(8);
        assert_eq!(old.total(), 8);
        // An event before the first reading, in the file or not.
        let mut old = Kills::new(false);
        old.events(1);
        old.set(5);
        assert_eq!(old.total(), 5);
        // Made under our eyes, gone before the file was read.
        let mut new = Kills::new(true);
        new.events(1);
        assert_eq!(new.total(), 1);
        new.set(1);
        assert_eq!(new.total(), 1);
        let queue = Queue::default();
        (0..MOST as u64 + 2).for_each(|inode| queue.push(inode));
        assert_eq!((queue.pop(), std::iter::from_fn(|| queue.pop()).count()), (Some(2), MOST - 1));
    }

    #[test]
    fn what_waits_for_its_name_is_told_for_as_long_as_others() {
        let (names, mut ghosts, now) = (Told::default(), Ghosts::default(), Instant::now());
        names.set(ID, Lookup::NotYet);
        let mut group = Group::new(&format!("/docker/{ID}"), 0, 7, true);
        group.kills.events(1);
        ghosts.add(Box::new(group), now);
        ghosts.name(&names, names.version(), &[], now);
        assert_eq!(ghosts.killed().count(), 0);
        // Whoever scrapes comes this seldom.
        let later = now + 2 * GRACE;
        ghosts.forget(later);
        assert!(ghosts.event(7, later));
        names.known(ID, Facts { name: "web".into(), ..Facts::default() });
        ghosts.name(&names, names.version(), &[], later);
        let told: Vec<_> = ghosts.killed().map(|(labels, kills)| (String::from_utf8_lossy(labels), kills)).collect();
        assert_eq!(told, [(format!("id=\"/docker/{ID}\",name=\"web\"").into(), 2)]);
        ghosts.forget(later + GRACE - Duration::from_secs(1));
        assert!(!ghosts.is_empty());
        ghosts.forget(later + GRACE);
        assert!(ghosts.is_empty());
    }
}
