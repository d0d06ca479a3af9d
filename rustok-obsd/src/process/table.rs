//! All processes, each in its group.
//!
//! Reads: the list of procfs (0.4 µs a process), then each member ([`super::member`]). Yields: [`Groups`]. Costs: 5 to 20 µs
//! a process; threads of the kernel, which are in no group, only their line of the list. Nothing is allocated while the
//! same processes go on.
//!
//! What tells a process from a later one of its pid is the inode of its folder: it is bound to the process, and made anew
//! at most when the kernel lacks memory, which costs another look. A process is put into a group when it is first seen, and
//! again when its name has changed, as `execve` does: what it used until then stays where it was.

use super::clock::BootTime;
use super::exit::{Ended, Ghosts};
use super::files::{Files, entries};
use super::group::{Groups, UNKNOWN_USER};
use super::member::{COUNTS, Counts, Detail, Member, Outcome};
use super::parse;
use super::rule::{Features, Rules, Verdict, joined};
use super::users::Users;
use super::wchan::Wchans;
use crate::budget::shrink;
use crate::config::Config;
use rustc_hash::FxHashMap;
use std::borrow::Cow;
use std::io;
use std::time::Instant;

/// Ancestors that are asked for a group.
const GENERATIONS: usize = 64;
/// How often the time is looked at, in processes.
const STRIDE: usize = 64;

/// All processes.
#[derive(Debug)]
pub struct Table {
    pub(super) files: Files,
    pub(super) groups: Groups,
    pub(super) wchans: Wchans,
    pub(super) boot: BootTime,
    pub(super) errors: Errors,
    rules: Rules,
    users: Users,
    detail: Detail,
    kernel_threads: bool,
    children: bool,
    slots: Vec<Slot>,
    free: Vec<u32>,
    by_pid: FxHashMap<u32, u32>,
    /// Pid and inode of each process, as last listed.
    listed: Vec<(u32, u64)>,
    buffer: Vec<u8>,
    /// Slots that want a group.
    fresh: Vec<u32>,
    round: u64,
    ghosts: Ghosts,
    /// Groups that were given up, for who keeps something by their numbers.
    pub(super) given_up: Vec<u32>,
}

/// What could not be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Errors {
    /// Times that nothing could be.
    pub whole: u64,
    /// Processes.
    pub process: u64,
    /// Parts of processes.
    pub partial: u64,
}

#[derive(Debug)]
struct Slot {
    member: Member,
    inode: u64,
    /// The round in which it was last listed.
    seen: u64,
    place: Place,
    /// What it used while it was in no group.
    uncounted: Counts,
}

/// Where a process is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Not known yet.
    Fresh,
    /// A thread of the kernel: nowhere, and not even read.
    Ignored,
    /// In no group, until its name changes.
    Outside,
    /// In this group.
    Group(u32),
    /// It is free.
    Empty,
}

impl Table {
    /// Of the configuration.
    ///
    /// # Errors
    /// There is no procfs.
    pub fn new(config: &Config) -> io::Result<Self> {
        let settings = &config.process;
        Ok(Self {
            files: Files::open(&config.path.procfs)?,
            groups: Groups::new(settings.groups_limit),
            wchans: Wchans::default(),
            boot: BootTime::new(&config.path.procfs),
            errors: Errors::default(),
            rules: Rules::new(settings),
            users: Users::new(&config.path.rootfs),
            detail: Detail { wchan: true, smaps: settings.smaps },
            kernel_threads: settings.kernel_threads,
            children: settings.children,
            slots: Vec::new(),
            free: Vec::new(),
            by_pid: FxHashMap::default(),
            listed: Vec::new(),
            buffer: Vec::new(),
            fresh: Vec::new(),
            round: 0,
            ghosts: Ghosts::default(),
            given_up: Vec::new(),
        })
    }

    /// Looks at all processes; those that are not reached by the deadline stay as they were.
    ///
    /// # Errors
    /// Procfs cannot be listed; then nothing has changed.
    pub fn update(&mut self, deadline: Instant) -> io::Result<()> {
        self.listed.clear();
        let listed = &mut self.listed;
        let result = entries(self.files.root(), &mut self.buffer, |name, inode| {
            if let Some(pid) = crate::host::text::u64(name).and_then(|pid| u32::try_from(pid).ok()) {
                listed.push((pid, inode));
            }
        });
        if let Err(error) = result {
            self.errors.whole += 1;
            return Err(error);
        }
        self.round += 1;
        let mut late = false;
        for at in 0..self.listed.len() {
            let (pid, inode) = self.listed[at];
            late = late || at % STRIDE == 0 && Instant::now() >= deadline;
            if late {
                self.errors.process += 1;
                if let Some(slot) = self.by_pid.get(&pid) {
                    self.slots[*slot as usize].seen = self.round;
                }
                continue;
            }
            self.visit(pid, inode);
        }
        for slot in 0..self.slots.len() {
            if self.slots[slot].seen != self.round && self.slots[slot].place != Place::Empty {
                self.remove(slot as u32);
            }
        }
        self.ghosts.expire();
        // No ghost is as old as a group that is given up.
        let given_up = &mut self.given_up;
        if self.groups.reclaim(Instant::now(), |group| given_up.push(group)) {
            self.try_others_again();
        }
        self.place_fresh();
        self.shrink();
        self.groups.restart();
        for slot in &self.slots {
            if let Place::Group(group) = slot.place {
                self.groups.add(group, &slot.member);
                self.errors.partial += u64::from(slot.member.partial);
            }
        }
        Ok(())
    }

    /// Those that found no room may find some now.
    fn try_others_again(&mut self) {
        for (index, slot) in (0u32..).zip(&self.slots) {
            if matches!(slot.place, Place::Group(group) if self.groups.is_other(group)) {
                self.fresh.push(index);
            }
        }
    }

    /// Gives the room of a wave of processes back.
    fn shrink(&mut self) {
        let used = self.slots.iter().rposition(|slot| slot.place != Place::Empty).map_or(0, |last| last + 1);
        if self.slots.len() > 1024.max(4 * used) {
            self.slots.truncate(used);
            self.slots.shrink_to_fit();
            self.free.retain(|index| (*index as usize) < used);
            self.free.shrink_to_fit();
            self.listed.shrink_to(used);
            shrink(&mut self.by_pid);
        }
    }

    fn visit(&mut self, pid: u32, inode: u64) {
        if let Some(slot) = self.by_pid.get(&pid).copied() {
            let known = &mut self.slots[slot as usize];
            known.seen = self.round;
            if known.place == Place::Ignored && known.inode == inode {
                return;
            }
            let same = known.inode == inode;
            known.inode = inode;
            if !same {
                // Only what is opened anew tells whether it is the same process.
                known.member.forget(&mut self.files);
            }
            if (same || known.place != Place::Ignored) && self.look(slot) {
                return;
            }
            self.remove(slot);
        }
        let slot = Slot { member: Member::new(pid), inode, seen: self.round, place: Place::Fresh, uncounted: NOTHING };
        let index = if let Some(index) = self.free.pop() {
            self.slots[index as usize] = slot;
            index
        } else {
            self.slots.push(slot);
            self.slots.len() as u32 - 1
        };
        self.by_pid.insert(pid, index);
        if !self.look(index) {
            self.remove(index);
        }
    }

    /// Reads a process; false where it has ended.
    fn look(&mut self, index: u32) -> bool {
        let slot = &mut self.slots[index as usize];
        let (outcome, stat) = slot.member.read_stat(&mut self.files);
        match outcome {
            Outcome::Gone => return false,
            Outcome::Refused => {
                self.errors.process += 1;
                return true;
            }
            Outcome::Read => {}
        }
        if stat.kernel_thread && !self.kernel_threads {
            slot.place = Place::Ignored;
            slot.member.forget(&mut self.files);
            return true;
        }
        let renamed = stat.comm != slot.member.stat.comm;
        match slot.place {
            Place::Outside if !renamed => return true,
            Place::Group(group) => {
                let mut used = NOTHING;
                slot.member.read_rest(stat, self.detail, &mut self.files, &mut self.wchans, &mut used);
                self.groups.used(group, &used);
                if renamed {
                    self.fresh.push(index);
                }
            }
            _ => {
                let used = &mut slot.uncounted;
                slot.member.read_rest(stat, self.detail, &mut self.files, &mut self.wchans, used);
                self.fresh.push(index);
            }
        }
        true
    }

    /// Puts those into groups that wait for it: first by what they are, then by their ancestors.
    fn place_fresh(&mut self) {
        for at in 0..self.fresh.len() {
            let index = self.fresh[at];
            let slot = &self.slots[index as usize];
            if slot.place == Place::Empty {
                continue;
            }
            let user = slot.member.user;
            let mut features = Asked { member: &slot.member, files: &mut self.files, users: &mut self.users };
            let name = self.rules.group(&mut features);
            let place = name.map_or(Place::Outside, |name| Place::Group(self.groups.index(&name, user)));
            self.join(index, place);
        }
        if self.children {
            for at in 0..self.fresh.len() {
                let slot = &self.slots[self.fresh[at] as usize];
                if slot.place == Place::Outside
                    && let Some(group) = self.ancestor(slot.member.stat.parent)
                {
                    self.join(self.fresh[at], Place::Group(group));
                }
            }
        }
        self.fresh.clear();
    }

    /// The group of the nearest ancestor that is in one.
    fn ancestor(&self, mut pid: u32) -> Option<u32> {
        for _ in 0..GENERATIONS {
            let slot = &self.slots[*self.by_pid.get(&pid)? as usize];
            match slot.place {
                Place::Group(group) => return Some(group),
                Place::Outside | Place::Fresh => pid = slot.member.stat.parent,
                Place::Ignored | Place::Empty => return None,
            }
        }
        None
    }

    fn join(&mut self, index: u32, place: Place) {
        let slot = &mut self.slots[index as usize];
        let before = std::mem::replace(&mut slot.place, place);
        if before == place {
            return;
        }
        if let Place::Group(group) = before {
            self.groups.left(group);
        }
        if let Place::Group(group) = place {
            self.groups.joined(group);
            self.groups.used(group, &std::mem::replace(&mut slot.uncounted, NOTHING));
        }
    }

    /// Forgets a process that has ended.
    fn remove(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        slot.member.forget(&mut self.files);
        let place = std::mem::replace(&mut slot.place, Place::Empty);
        if let Place::Group(group) = place {
            self.groups.left(group);
        }
        let group = if let Place::Group(group) = place { Some(group) } else { None };
        if !matches!(place, Place::Fresh | Place::Ignored) {
            self.ghosts.add(&slot.member, group);
        }
        if self.by_pid.get(&slot.member.pid) == Some(&index) {
            self.by_pid.remove(&slot.member.pid);
        }
        self.free.push(index);
    }

    /// Takes in that a process has ended for good, with what it used in all.
    pub fn ended(&mut self, ended: &Ended) {
        let pid = ended.process.pid;
        let known = self.by_pid.get(&pid).copied();
        let known = known.filter(|slot| self.slots[*slot as usize].member.stat.start_ticks == ended.start_ticks());
        if let Some(slot) = known {
            self.remove(slot);
        }
        let totals = ended.counts();
        let parent = self.ghosts.parent(ended);
        if let Some(ghost) = self.ghosts.take(pid, ended.start_ticks()) {
            if let Some(group) = ghost.group {
                self.groups.used(group, &ghost.rest(&totals));
            }
            return;
        }
        if ended.kernel_thread && !self.kernel_threads {
            return;
        }
        let comm = parse::Comm::new(&ended.comm);
        let comm = String::from_utf8_lossy(comm.as_bytes());
        let group = match self.rules.group_of_ended(&comm) {
            Verdict::Group(name) => self.groups.index(&name, UNKNOWN_USER),
            Verdict::Parent => match parent.and_then(|pid| self.ancestor(pid)) {
                Some(group) => group,
                None => self.groups.other(),
            },
            Verdict::None => return,
        };
        self.groups.joined(group);
        self.groups.left(group);
        self.groups.short_lived(group);
        self.groups.used(group, &totals);
    }

    /// Takes in that a process begins to end: its parent is told now, and not when it has ended.
    pub fn ending(&mut self, pid: u32, start_ticks: u64, parent: u32) {
        if !self.by_pid.contains_key(&pid) {
            self.ghosts.note_parent(pid, start_ticks, parent);
        }
    }

    /// The kernel tells of ends: a process that is gone is remembered until then.
    pub fn expect_ends(&mut self) {
        self.ghosts.expect_ends();
    }

    /// Ends of which something was not remembered.
    pub(super) const fn ghosts_refused(&self) -> u64 {
        self.ghosts.refused
    }

    /// Members of groups with the places in which they wait.
    pub(super) fn waiting(&self) -> impl Iterator<Item = (u32, u16)> {
        self.slots.iter().filter_map(|slot| match slot.place {
            Place::Group(group) => Some((group, slot.member.wchan?)),
            _ => None,
        })
    }

    /// Members of groups.
    pub(super) fn members(&self) -> impl Iterator<Item = (u32, &Member)> {
        self.slots.iter().filter_map(|slot| match slot.place {
            Place::Group(group) => Some((group, &slot.member)),
            _ => None,
        })
    }

    /// Descriptors that are kept at most; for tests of what happens beyond.
    pub fn set_most_kept(&mut self, most: usize) {
        self.files.set_most_kept(most);
    }
}

/// What rules ask of a process.
struct Asked<'a> {
    member: &'a Member,
    files: &'a mut Files,
    users: &'a mut Users,
}

impl Features for Asked<'_> {
    fn comm(&mut self) -> Cow<'_, str> {
        String::from_utf8_lossy(self.member.stat.comm.as_bytes())
    }

    fn exe(&mut self) -> String {
        let link = self.files.link(format_args!("{}/exe", self.member.pid)).unwrap_or_default();
        let link = String::from_utf8_lossy(link);
        link.strip_suffix(" (deleted)").unwrap_or(&link).to_owned()
    }

    fn cgroup(&mut self) -> String {
        let text = self.files.read_once(format_args!("{}/cgroup", self.member.pid)).unwrap_or_default();
        String::from_utf8_lossy(parse::cgroup(text)).into_owned()
    }

    fn user(&mut self) -> String {
        self.users.name(self.member.user)
    }

    fn arguments(&mut self) -> String {
        joined(self.files.read_once(format_args!("{}/cmdline", self.member.pid)).unwrap_or_default())
    }
}

/// Nothing used.
pub(super) const NOTHING: Counts = [0; COUNTS];
