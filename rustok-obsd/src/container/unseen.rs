//! Cgroups that were made, and that no scrape has looked at yet.
//!
//! Reads: the kernel's events of cgroups and of kills in them. Yields: what a cgroup was, of which a kill is told when its
//! directory is gone. Costs: its path while nobody has scraped since; a look-up per event.
//!
//! A container that comes, is killed for lack of memory and goes between two scrapes leaves nothing but these events, and
//! that kill is the one that its owner looks for.

use super::identity::{Identity, is_noise};
use super::mounts::{Controller, Hierarchies};
use super::owner::{ROOT, owner};
use crate::config::Paths;
use crate::config::container::ContainerOptions;
use crate::host::text;
use rustc_hash::FxHashMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Cgroups remembered at most; kills in others are told of nobody, and counted.
const MOST: usize = 4096;
/// A scrape finds a cgroup that is there, and the next one has heard all of one that is not.
const SCRAPES: u8 = 2;

/// One of them.
#[derive(Debug, PartialEq, Eq)]
pub struct Made {
    /// Its path from the root.
    pub id: Box<str>,
    /// Inode of its directory.
    pub inode: u64,
    /// Processes killed in it.
    pub kills: u64,
    /// Scrapes that did not find it.
    scrapes: u8,
}

/// All of them.
#[derive(Debug)]
pub struct Unseen {
    /// Number of the hierarchy of memory; `None` where events name cgroups by other paths than the tree does.
    hierarchy: Option<u32>,
    options: ContainerOptions,
    made: Mutex<FxHashMap<u64, Made>>,
}

impl Unseen {
    /// None is remembered yet.
    #[must_use]
    pub fn new(paths: &Paths, hierarchies: &Hierarchies, options: ContainerOptions) -> Self {
        Self { hierarchy: number(paths, hierarchies), options, made: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, FxHashMap<u64, Made>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A cgroup was made. Yields the id of the container, if it is one whose name is to be asked for.
    pub fn made(&self, inode: u64, hierarchy: u32, path: &[u8]) -> Option<Box<str>> {
        let id = text::utf8(path).filter(|_| self.hierarchy == Some(hierarchy))?;
        let identity = Identity::of(id);
        if id.split('/').any(is_noise) || !super::tree::wants(&self.options, id, &identity) {
            return None;
        }
        let mut made = self.lock();
        // Users leave half to root's cgroups.
        if made.len() >= if owner(id) == ROOT { MOST } else { MOST / 2 } {
            return None;
        }
        made.insert(inode, Made { id: id.into(), inode, kills: 0, scrapes: 0 });
        identity.container
    }

    /// A cgroup was removed. Yields the id of the container, if nobody will ask for it any more.
    pub fn removed(&self, inode: u64, hierarchy: u32) -> Option<Box<str>> {
        if self.hierarchy != Some(hierarchy) {
            return None;
        }
        let mut made = self.lock();
        // What was killed waits for a scrape.
        if made.get(&inode)?.kills > 0 {
            return None;
        }
        Identity::of(&made.remove(&inode)?.id).container
    }

    /// A process was killed; false where the cgroup is none of these.
    pub fn kill(&self, inode: u64) -> bool {
        let mut made = self.lock();
        let Some(made) = made.get_mut(&inode) else { return false };
        made.kills += 1;
        true
    }

    /// A scrape has looked at the tree: forgets those that `known` takes over, and hands out those that were killed and are
    /// in the tree no more.
    pub fn scraped(&self, mut known: impl FnMut(&Made) -> bool, mut killed: impl FnMut(Made)) {
        let mut all = self.lock();
        all.retain(|_, made| {
            if known(made) {
                return false;
            }
            if made.kills > 0 {
                killed(Made { id: std::mem::take(&mut made.id), ..*made });
                return false;
            }
            made.scrapes += 1;
            made.scrapes < SCRAPES
        });
        // A wave of short-lived containers must not leave its room behind.
        if all.capacity() > 4 * all.len().max(64) {
            all.shrink_to_fit();
        }
    }
}

/// The number by which events name the hierarchy of memory.
fn number(paths: &Paths, hierarchies: &Hierarchies) -> Option<u32> {
    let place = hierarchies.get(Controller::Memory)?;
    // The inode of a hierarchy's own root is 1: what is mounted from below it shows other paths than events tell.
    if fs::metadata(&place.root).ok()?.ino() != 1 {
        return None;
    }
    if place.v2 {
        return Some(0);
    }
    let of_memory = |line: &str| {
        let mut parts = line.splitn(3, ':');
        let number = parts.next()?.parse().ok()?;
        parts.next()?.split(',').any(|name| name == "memory").then_some(number)
    };
    fs::read_to_string(paths.procfs.join("self/cgroup")).ok()?.lines().find_map(of_memory)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "8f1b000c43577533339c8fc1da1763db39ebbfe5b0edf2ca78a7af9503a11527";

    fn unseen(options: ContainerOptions) -> Unseen {
        Unseen { hierarchy: Some(4), options, made: Mutex::default() }
    }

    fn scraped(unseen: &Unseen, known: &[u64]) -> Vec<(String, u64, u64)> {
        let mut killed = Vec::new();
        let takes = |made: &Made| known.contains(&made.inode);
        unseen.scraped(takes, |made| killed.push((String::from(made.id), made.inode, made.kills)));
        killed
    }

    #[test]
    fn a_kill_finds_the_cgroup_that_no_scrape_saw() {
        let unseen = unseen(ContainerOptions::default());
        let path = format!("/docker/{ID}");
        assert_eq!(unseen.made(7, 4, path.as_bytes()).as_deref(), Some(ID));
        assert_eq!(unseen.made(8, 3, b"/other/hierarchy"), None);
        assert!(!unseen.kill(8) && unseen.kill(7) && unseen.kill(7));
        assert_eq!(unseen.removed(7, 4), None, "it is still to be told");
        assert_eq!(scraped(&unseen, &[]), [(path, 7, 2)]);
        assert!(!unseen.kill(7), "it is another's by now");
        assert_eq!(scraped(&unseen, &[]), []);
    }

    #[test]
    fn nothing_is_kept_of_what_is_known_or_gone_or_not_told() {
        let unseen = unseen(ContainerOptions { only_containers: true, ..ContainerOptions::default() });
        for (inode, path) in [(1, "/a"), (2, "/x.mount/docker"), (3, "/run-1.scope")] {
            assert_eq!(unseen.made(inode, 4, path.as_bytes()), None);
        }
        assert_eq!(unseen.made(4, 4, b"/\xff"), None);
        assert!(unseen.lock().is_empty());
        let path = |number: u64| format!("/docker/{number:064x}");
        (0..4).for_each(|inode| drop(unseen.made(inode, 4, path(inode).as_bytes())));
        assert_eq!(unseen.removed(0, 3), None, "another hierarchy");
        assert_eq!(unseen.removed(0, 4), Some(format!("{:064x}", 0).into()));
        assert!(unseen.kill(1));
        assert_eq!(scraped(&unseen, &[1]), [], "the tree has it");
        // The kill in one that was gone when the tree was looked at may be heard after that.
        assert!(unseen.kill(2));
        assert_eq!(scraped(&unseen, &[]), [(path(2), 2, 1)]);
        assert!(unseen.lock().is_empty() && !unseen.kill(3));
        (0..5000).for_each(|inode| drop(unseen.made(inode, 4, path(inode).as_bytes())));
        assert_eq!(unseen.lock().len(), MOST);
        scraped(&unseen, &(0..5000).collect::<Vec<_>>());
        assert!(unseen.lock().capacity() < 1000);
    }
}
