//! Groups of processes.
//!
//! Reads: members and what they used. Yields: [`Group`]s, none of which ever goes, so that no counter runs backwards.
//! Costs: 400 bytes a group, which a cap bounds.

use super::member::{Counts, Member};
use super::sum::Sum;
use std::collections::HashMap;

/// The group of processes that have none of their own.
pub const OTHER: &str = "~other";

/// The longest name, bytes.
const LONGEST: usize = 256;

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
}

/// All groups.
#[derive(Debug)]
pub struct Groups {
    list: Vec<Group>,
    by_name: HashMap<String, u32>,
    limit: usize,
    other: Option<u32>,
}

impl Groups {
    /// At most so many.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { list: Vec::new(), by_name: HashMap::new(), limit, other: None }
    }

    /// The group of a name, or, beyond the cap, the common one.
    pub fn index(&mut self, name: &str) -> u32 {
        let name = &name[..name.floor_char_boundary(LONGEST)];
        if let Some(index) = self.by_name.get(name) {
            return *index;
        }
        if self.list.len() - usize::from(self.other.is_some()) >= self.limit {
            return self.other();
        }
        let index = self.list.len() as u32;
        self.list.push(Group { name: name.to_owned(), ..Group::default() });
        self.by_name.insert(name.to_owned(), index);
        index
    }

    /// The common group.
    pub fn other(&mut self) -> u32 {
        if let Some(index) = self.other {
            return index;
        }
        let index = self.list.len() as u32;
        self.list.push(Group { name: OTHER.to_owned(), ..Group::default() });
        self.by_name.insert(OTHER.to_owned(), index);
        self.other = Some(index);
        index
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> &[Group] {
        &self.list
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
        self.list[group as usize].starts += 1;
    }

    /// A process went.
    pub fn left(&mut self, group: u32) {
        self.list[group as usize].exits += 1;
    }

    /// A process was here that no scrape saw.
    pub fn short_lived(&mut self, group: u32) {
        self.list[group as usize].short_lived += 1;
    }
}
