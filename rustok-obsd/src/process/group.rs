//! Groups of processes.
//!
//! Reads: members and what they used. Yields: [`Group`]s. Costs: 400 bytes a group, which a cap bounds.
//!
//! A group stays when its last member has ended, so that its counters go on with the next one. Where room is needed, those
//! go that have been empty longest, for five minutes at least: their series end, and begin at 0 if they ever come back, which
//! Prometheus takes for the reset that it is. No user but root may have more groups than are free then, so that nobody who
//! gives names to processes takes the room of others.

use super::member::{Counts, Member};
use super::sum::Sum;
use crate::budget::{Budget, Store};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// The group of processes that have none of their own.
pub const OTHER: &str = "~other";

/// The longest name, bytes.
const LONGEST: usize = 256;

/// A group without members stays so long: whoever scrapes every five minutes has seen its last counts.
pub const EMPTY: Duration = Duration::from_secs(300);

/// The user of a process that ended unseen.
pub const UNKNOWN_USER: u32 = u32::MAX;

/// A group.
#[derive(Debug, Default)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Its members.
    pub sum: Sum,
    /// Processes that came.
    pub starts: u64,
    /// Processes that went.
    pub exits: u64,
    /// Processes that no scrape saw.
    pub short_lived: u64,
    /// The user whose process was the first of it.
    user: u32,
    /// Since when it has no members.
    empty: Option<Instant>,
    /// There is none here.
    free: bool,
}

/// All groups.
#[derive(Debug)]
pub struct Groups {
    list: Vec<Group>,
    free: Vec<u32>,
    by_name: HashMap<String, u32>,
    limit: usize,
    other: Option<u32>,
    /// Groups of each user; a unit is a group.
    room: Budget,
    /// Somebody found no room since the last look.
    wanted: bool,
    /// Groups that were given up.
    pub reclaimed: u64,
}

impl Groups {
    /// At most so many.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            list: Vec::new(),
            free: Vec::new(),
            by_name: HashMap::new(),
            limit,
            other: None,
            room: Budget::with_limit(Store::Series, limit),
            wanted: false,
            reclaimed: 0,
        }
    }

    /// The group of a name, made for a process of this user, or, beyond the cap, the common one.
    pub fn index(&mut self, name: &str, user: u32) -> u32 {
        let name = &name[..name.floor_char_boundary(LONGEST)];
        if let Some(index) = self.by_name.get(name) {
            return *index;
        }
        // One group is everybody's.
        let fits =
            self.room.used() < self.limit && (user == 0 || self.room.held(user) < self.room.allowance(user).max(1));
        if !fits {
            self.wanted = true;
            return self.other();
        }
        self.room.resize(user, self.room.held(user) + 1);
        let group = Group { name: name.to_owned(), user, empty: Some(Instant::now()), ..Group::default() };
        self.put(group)
    }

    fn put(&mut self, group: Group) -> u32 {
        let name = group.name.clone();
        let index = if let Some(index) = self.free.pop() {
            self.list[index as usize] = group;
            index
        } else {
            self.list.push(group);
            self.list.len() as u32 - 1
        };
        self.by_name.insert(name, index);
        index
    }

    /// The common group.
    pub fn other(&mut self) -> u32 {
        if let Some(index) = self.other {
            return index;
        }
        let index = self.put(Group { name: OTHER.to_owned(), ..Group::default() });
        self.other = Some(index);
        index
    }

    /// Gives up groups that have been empty for long where room is wanted; hands them to `gone`. Tells whether those in the
    /// common group may find room now.
    pub fn reclaim(&mut self, now: Instant, mut gone: impl FnMut(u32)) -> bool {
        if !std::mem::take(&mut self.wanted) {
            return false;
        }
        let mut empty: Vec<(Instant, u32)> = (0..self.list.len() as u32)
            .filter_map(|index| Some((self.list[index as usize].empty?, index)))
            .filter(|(since, _)| now.saturating_duration_since(*since) >= EMPTY)
            .collect();
        empty.sort_unstable();
        empty.truncate(self.limit / 4 + 1);
        for (_, index) in &empty {
            let group = std::mem::replace(&mut self.list[*index as usize], Group { free: true, ..Group::default() });
            self.by_name.remove(&group.name);
            self.room.release(group.user, 1);
            self.free.push(*index);
            self.reclaimed += 1;
            gone(*index);
        }
        !empty.is_empty()
    }

    /// Whether this is the common group.
    #[must_use]
    pub fn is_other(&self, group: u32) -> bool {
        self.other == Some(group)
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Group> {
        self.list.iter().filter(|group| !group.free)
    }

    /// The name of a group.
    #[must_use]
    pub fn name(&self, group: u32) -> &str {
        &self.list[group as usize].name
    }

    /// Processes with a group of this number; for tests.
    #[cfg(test)]
    pub(super) fn backdate(&mut self, by: Duration) {
        for empty in self.list.iter_mut().filter_map(|group| group.empty.as_mut()) {
            *empty = empty.checked_sub(by).unwrap_or(*empty);
        }
    }

    /// Processes that came into the common group.
    #[must_use]
    pub fn overflow(&self) -> u64 {
        self.other.map_or(0, |other| self.list[other as usize].starts)
    }

    /// Forgets the members, not what they used.
    pub fn restart(&mut self) {
        self.list.iter_mut().for_each(|group| group.sum.restart());
    }

    /// A member as of now.
    pub fn add(&mut self, group: u32, member: &Member) {
        self.list[group as usize].sum.add(member);
    }

    /// A member used this.
    pub fn used(&mut self, group: u32, counts: &Counts) {
        for (sum, count) in self.list[group as usize].sum.counts.iter_mut().zip(counts) {
            *sum += count;
        }
    }

    /// A process came.
    pub fn joined(&mut self, group: u32) {
        let group = &mut self.list[group as usize];
        group.starts += 1;
        group.empty = None;
    }

    /// A process went.
    pub fn left(&mut self, group: u32) {
        let common = self.is_other(group);
        let group = &mut self.list[group as usize];
        group.exits += 1;
        if group.exits == group.starts && !common {
            group.empty = Some(Instant::now());
        }
    }

    /// A process was here that no scrape saw.
    pub fn short_lived(&mut self, group: u32) {
        self.list[group as usize].short_lived += 1;
    }
}
