//! The tree of cgroups, followed by events.
//!
//! Reads: the directories of the hierarchies once; then inotify. Yields: [`Group`]s of those that are told. Costs: between
//! scrapes nothing; at a scrape one `read`, and for each cgroup made since a few calls. Where events were lost, or where the
//! kernel gave no more watches, or the daemon has taken its quarter of them, the directories are looked through again, which
//! costs a `stat` each.
//!
//! What is told, watched and remembered is bounded, and nobody's by coming first: see [`super::owner`].

use super::files::Reader;
use super::group::Group;
use super::identity::{Identity, is_noise};
use super::mounts::Controller;
use super::names::Names;
use super::owner::{ROOT, Shares, owner};
use super::watch::{Event, Watcher, most_watches};
use crate::config::container::ContainerOptions;
use rustc_hash::FxHashMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Why a full look was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rescan {
    /// At the start.
    Start,
    /// Events were lost.
    Overflow,
    /// Some directories have no watch.
    Unwatched,
}

/// Names of [`Rescan`], as a label.
pub const RESCANS: [&str; 3] = ["start", "overflow", "unwatched"];

/// Cgroups remembered for each that is told at most.
const KNOWN: usize = 4;

/// Trees that are followed at most.
const TREES: usize = 2;

/// The directories.
pub struct Tree {
    roots: Vec<PathBuf>,
    watcher: Option<Watcher>,
    options: ContainerOptions,
    nodes: Vec<Option<Node>>,
    free: Vec<u32>,
    by_path: FxHashMap<Box<str>, u32>,
    by_watch: FxHashMap<i32, (u32, usize)>,
    /// Inodes of those that are told.
    by_inode: FxHashMap<u64, u32>,
    /// Those that are told, by owner.
    told: Shares,
    /// Those that are remembered, by owner.
    known: Shares,
    /// Those that are watched, by owner.
    watched: Shares,
    /// Cgroups beyond the limit.
    pub over: usize,
    /// Cgroups so far beyond it that they are not even remembered.
    pub beyond: usize,
    /// There may be room for some of these.
    freed: bool,
    /// Directories without a watch.
    pub unwatched: usize,
    warned: bool,
    look: u32,
    /// Looks taken, by reason.
    pub rescans: [u64; RESCANS.len()],
    boot: u64,
}

/// One cgroup.
struct Node {
    path: Box<str>,
    owner: u32,
    places: [Place; TREES],
    /// It would be told but for the limit.
    over: bool,
    group: Option<Box<Group>>,
}

/// Its directory in one tree.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    there: bool,
    watch: Option<i32>,
    /// The look that found it last.
    look: u32,
}

impl Tree {
    /// Follows the trees of `reader`. Nothing is read yet. `boot` is when the host was started, seconds since the epoch.
    #[must_use]
    pub fn new(reader: &Reader, options: ContainerOptions, boot: u64, procfs: &Path) -> Self {
        let roots: Vec<PathBuf> = reader.hierarchies().followed().into_iter().take(TREES).map(Path::to_owned).collect();
        let watcher = Watcher::new().map_err(|error| {
            tracing::warn!(
                "cgroups are looked through at every scrape, for inotify is not to be had: {error}; raise the sysctl \
                 fs.inotify.max_user_instances"
            );
        });
        Self {
            roots,
            watcher: watcher.ok(),
            told: Shares::new(options.limit),
            known: Shares::new(options.limit.saturating_mul(KNOWN)),
            watched: Shares::new(most_watches(procfs)),
            options,
            nodes: Vec::new(),
            free: Vec::new(),
            by_path: FxHashMap::default(),
            by_watch: FxHashMap::default(),
            by_inode: FxHashMap::default(),
            over: 0,
            beyond: 0,
            freed: false,
            unwatched: 0,
            warned: false,
            look: 0,
            rescans: [0; RESCANS.len()],
            // cAdvisor's: no cgroup is older than the boot.
            boot: boot - boot % 60,
        }
    }

    /// Those that are told, at this moment.
    pub fn groups(&mut self) -> impl Iterator<Item = &mut Group> {
        self.nodes.iter_mut().flatten().filter_map(|node| node.group.as_deref_mut())
    }

    /// The same to read.
    pub fn all(&self) -> impl Iterator<Item = &Group> + Clone {
        self.nodes.iter().flatten().filter_map(|node| node.group.as_deref())
    }

    /// As if the kernel gave no watches.
    #[cfg(test)]
    pub(super) fn blind(&mut self) {
        self.watcher = None;
    }

    /// How many are told.
    #[must_use]
    pub fn told(&self) -> usize {
        self.told.taken()
    }

    /// Directories that are watched.
    #[must_use]
    pub fn watches(&self) -> usize {
        self.by_watch.len()
    }

    /// The one whose directory has this inode.
    pub fn by_inode(&mut self, inode: u64) -> Option<&mut Group> {
        let index = *self.by_inode.get(&inode)?;
        self.nodes[index as usize].as_mut()?.group.as_deref_mut()
    }

    /// Whether a path is there, but beyond the limit.
    #[must_use]
    pub fn is_over(&self, id: &str) -> bool {
        let node = self.by_path.get(id).and_then(|index| self.nodes[*index as usize].as_ref());
        node.is_some_and(|node| node.over)
    }

    /// Takes in what happened. What is gone goes to `gone`.
    pub fn update(&mut self, names: &dyn Names, gone: &mut impl FnMut(Box<Group>)) {
        if self.look == 0 {
            return self.rescan(Rescan::Start, names, gone);
        }
        let mut overflow = false;
        if let Some(mut watcher) = self.watcher.take() {
            watcher.drain(|watcher, event| match event {
                Event::Made(watch, name) => self.made(watcher, watch, name, names),
                Event::Removed(watch, name) => self.removed(Some(watcher), watch, name, names, gone),
                Event::Written(watch) => self.written(watch),
                Event::Overflow => overflow = true,
            });
            self.watcher = Some(watcher);
        }
        if overflow {
            self.rescan(Rescan::Overflow, names, gone);
        } else if self.unwatched > 0 || self.watcher.is_none() || (self.beyond > 0 && self.freed) {
            self.rescan(Rescan::Unwatched, names, gone);
        }
        if self.over > 0 {
            self.promote(names);
        }
    }

    fn written(&mut self, watch: i32) {
        let Some((index, _)) = self.by_watch.get(&watch) else { return };
        if let Some(group) = self.nodes[*index as usize].as_mut().and_then(|node| node.group.as_mut()) {
            group.changed = true;
        }
    }

    fn child(&self, watch: i32, name: &str) -> Option<(String, usize)> {
        let (index, tree) = *self.by_watch.get(&watch)?;
        let path = &self.nodes[index as usize].as_ref()?.path;
        Some((join(path, name), tree))
    }

    fn made(&mut self, watcher: &Watcher, watch: i32, name: &str, names: &dyn Names) {
        if let Some((path, tree)) = self.child(watch, name) {
            self.scan(Some(watcher), path, tree, true, names);
        }
    }

    fn removed(
        &mut self,
        watcher: Option<&Watcher>,
        watch: i32,
        name: &str,
        names: &dyn Names,
        gone: &mut impl FnMut(Box<Group>),
    ) {
        let Some((path, tree)) = self.child(watch, name) else { return };
        // One of the name that was made since has an event of its own to come.
        if let Some(index) = self.by_path.get(&*path).copied() {
            self.leave(watcher, index, tree, names, gone);
        }
    }

    /// Takes a cgroup's directory out of one tree; the last takes the cgroup with it.
    fn leave(
        &mut self,
        watcher: Option<&Watcher>,
        index: u32,
        tree: usize,
        names: &dyn Names,
        gone: &mut impl FnMut(Box<Group>),
    ) {
        let Some(node) = self.nodes[index as usize].as_mut() else { return };
        let place = std::mem::take(&mut node.places[tree]);
        if let Some(watch) = place.watch {
            self.watched.give(node.owner);
            self.by_watch.remove(&watch);
            if let Some(watcher) = watcher {
                watcher.remove(watch);
            }
        } else if place.there {
            self.unwatched -= 1;
        }
        if node.places.iter().any(|place| place.there) {
            return;
        }
        let Some(node) = self.nodes[index as usize].take() else { return };
        self.free.push(index);
        self.by_path.remove(&node.path);
        self.known.give(node.owner);
        self.freed = true;
        self.over -= usize::from(node.over);
        if let Some(group) = node.group {
            self.told.give(node.owner);
            if group.inode_noted {
                self.by_inode.remove(&group.inode);
            }
            // The name of one that was killed in before it had one is still asked for.
            let asked = group.is_nameless() && group.kills.total() > 0;
            if let Some(id) = group.identity.container.as_ref().filter(|_| !asked) {
                names.forget(id);
            }
            gone(group);
        }
    }

    /// Looks through everything.
    fn rescan(&mut self, reason: Rescan, names: &dyn Names, gone: &mut impl FnMut(Box<Group>)) {
        self.rescans[reason as usize] += 1;
        let fresh = self.look > 0;
        self.look = self.look.wrapping_add(1).max(1);
        (self.beyond, self.freed) = (0, false);
        let watcher = self.watcher.take();
        for tree in 0..self.roots.len() {
            self.scan(watcher.as_ref(), "/".to_owned(), tree, fresh, names);
        }
        for index in 0..self.nodes.len() {
            for tree in 0..self.roots.len() {
                let place = self.nodes[index].as_ref().map(|node| node.places[tree]);
                if place.is_some_and(|place| place.there && place.look != self.look) {
                    self.leave(watcher.as_ref(), index as u32, tree, names, gone);
                }
            }
        }
        self.watcher = watcher;
        // What was written meanwhile is not known where there is no watch, or where events were lost.
        let all = reason != Rescan::Unwatched || self.watcher.is_none();
        for node in self.nodes.iter_mut().flatten() {
            let unwatched = node.places.iter().any(|place| place.there && place.watch.is_none());
            if let Some(group) = node.group.as_mut().filter(|_| all || unwatched) {
                group.changed = true;
            }
        }
    }

    /// Takes in a directory and those below it. The watch comes first, so that nothing is made unseen in between.
    fn scan(&mut self, watcher: Option<&Watcher>, path: String, tree: usize, fresh: bool, names: &dyn Names) {
        // Users' come last, for what they may cost is bounded.
        let (mut open, mut later) = (vec![path], Vec::new());
        while let Some(path) = open.pop().or_else(|| later.pop()) {
            if is_noise(&path) {
                continue;
            }
            let user = owner(&path);
            if !self.by_path.contains_key(&*path) && !self.known.has_room(user) && path != "/" {
                self.beyond += 1;
                continue;
            }
            let folder = directory(&self.roots[tree], &path);
            let Ok(meta) = fs::metadata(&folder) else { continue };
            if !meta.is_dir() {
                continue;
            }
            let index = match self.by_path.get(&*path) {
                Some(index) => *index,
                None => self.insert(&path, user),
            };
            let look = self.look;
            let Some(node) = self.nodes[index as usize].as_mut() else { continue };
            let place = &mut node.places[tree];
            let known = place.there;
            (place.there, place.look) = (true, look);
            if place.watch.is_none() {
                let allowed = self.watched.has_room(user);
                if !allowed && watcher.is_some() && !self.warned {
                    tracing::warn!(
                        "{} cgroups are watched, which is this user's share of the quarter of fs.inotify.max_user_watches \
                         that the daemon takes: further ones are looked for at every scrape; raise the sysctl \
                         fs.inotify.max_user_watches",
                        self.by_watch.len()
                    );
                    self.warned = true;
                }
                let watcher = watcher.filter(|_| allowed);
                place.watch = match watcher.map(|watcher| watcher.add(&folder)) {
                    Some(Ok(watch)) => Some(watch),
                    Some(Err(error)) if error.raw_os_error() != Some(libc::ENOENT) => {
                        if !self.warned {
                            tracing::warn!(
                                "a cgroup cannot be watched ({}: {error}): from now on cgroups without a watch are looked \
                                 for at every scrape; raise the sysctl fs.inotify.max_user_watches",
                                folder.display()
                            );
                            self.warned = true;
                        }
                        None
                    }
                    _ => None,
                };
                match place.watch {
                    Some(watch) => {
                        // There is room: it was asked for above.
                        let _ = self.watched.take(user);
                        self.by_watch.insert(watch, (index, tree));
                        self.unwatched -= usize::from(known);
                    }
                    None => self.unwatched += usize::from(!known),
                }
            }
            self.tell(index, &meta, fresh, names);
            // Below cgroupfs the links of a directory are 2 and one for each directory in it.
            let links = folder.metadata().map_or(0, |meta| meta.nlink());
            if links == 2 {
                continue;
            }
            let Ok(entries) = fs::read_dir(&folder) else { continue };
            for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
                let Some(path) = entry.file_name().to_str().map(|name| join(&path, name)) else { continue };
                if owner(&path) == ROOT {
                    open.push(path);
                } else if later.len() <= self.options.limit.saturating_mul(KNOWN) {
                    later.push(path);
                } else {
                    // More than are remembered.
                    self.beyond += 1;
                }
            }
        }
    }

    fn insert(&mut self, path: &str, owner: u32) -> u32 {
        // The root is there whatever the limit.
        let _ = self.known.take(owner);
        let node = Node { path: path.into(), owner, places: [Place::default(); TREES], over: false, group: None };
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.nodes.push(None);
                self.nodes.len() as u32 - 1
            }
        };
        self.nodes[index as usize] = Some(node);
        self.by_path.insert(path.into(), index);
        index
    }

    /// Begins to tell a cgroup, if it is to be told.
    fn tell(&mut self, index: u32, meta: &fs::Metadata, fresh: bool, names: &dyn Names) {
        let Some(node) = self.nodes[index as usize].as_mut() else { return };
        let created = u64::try_from(meta.mtime()).unwrap_or_default().max(self.boot);
        if let Some(group) = &mut node.group {
            group.created = group.created.min(created);
            return;
        }
        if node.over {
            return;
        }
        let group = Group::new(&node.path, created, meta.ino(), fresh);
        if !wants(&self.options, &group.id, &group.identity) {
            return;
        }
        if !self.told.take(node.owner) && &*node.path != "/" {
            node.over = true;
            self.over += 1;
            return;
        }
        if let Some(id) = &group.identity.container {
            names.wanted(id);
        }
        node.group = Some(Box::new(group));
    }

    /// Notes the inode by which the kernel names a cgroup, that of its directory in the tree of memory.
    pub fn note_inodes(&mut self, reader: &Reader) {
        let Some(memory) = reader.hierarchies().get(Controller::Memory) else { return };
        for (index, node) in self.nodes.iter_mut().enumerate() {
            let Some(group) = node.as_mut().and_then(|node| node.group.as_mut()) else { continue };
            if group.inode_noted || !group.asks_inode() {
                continue;
            }
            if let Ok(meta) = directory(&memory.root, &group.id).metadata() {
                group.inode = meta.ino();
                group.inode_noted = true;
                self.by_inode.insert(group.inode, index as u32);
            }
        }
    }

    /// Tells cgroups for which there is room again: root's first.
    fn promote(&mut self, names: &dyn Names) {
        for of_root in [true, false] {
            for index in 0..self.nodes.len() {
                let Some(node) = self.nodes[index].as_mut().filter(|node| node.over) else { continue };
                if (node.owner == ROOT) != of_root || !self.told.has_room(node.owner) {
                    continue;
                }
                let tree = node.places.iter().position(|place| place.there).unwrap_or_default();
                if let Ok(meta) = directory(&self.roots[tree], &node.path).metadata() {
                    node.over = false;
                    self.over -= 1;
                    self.tell(index as u32, &meta, false, names);
                }
            }
        }
    }
}

/// Whether a cgroup is to be told.
#[must_use]
pub fn wants(options: &ContainerOptions, id: &str, identity: &Identity) -> bool {
    if id == "/" {
        return true;
    }
    let kind = identity.container.is_some() || (options.slices && !options.only_containers);
    let included = !options.id_include.is_set() || options.id_include.matches(id);
    kind && included && !options.id_exclude.matches(id)
}

fn join(path: &str, name: &str) -> String {
    let mut joined = String::with_capacity(path.len() + 1 + name.len());
    joined.push_str(path);
    if !path.ends_with('/') {
        joined.push('/');
    }
    joined.push_str(name);
    joined
}

fn directory(root: &Path, path: &str) -> PathBuf {
    let below = path.trim_start_matches('/');
    if below.is_empty() { root.to_owned() } else { root.join(below) }
}
